"""Plugin, or engine, killed at random moments while a real engine is at work.

``MANUKA_KILLS`` says how often; after each batch every image is compared with what went in.
"""

from __future__ import annotations

import os
import time
from typing import Callable

import pytest

from tests.crash.storm import FILES, JOBS, Storm
from tests.engine.conftest import DRIVER, MakeSandbox
from tests.engine.steps import layer_folders

pytestmark = pytest.mark.skipif(DRIVER == "overlay2", reason="there is no plugin to kill")

BATCH = 25


def kills(default: int) -> int:
    wanted = os.environ.get("MANUKA_KILLS", "")
    return int(wanted) if wanted.isdigit() else default


@pytest.mark.parametrize(("victim", "default"), [("plugin", 15), ("engine", 3)])
@pytest.mark.timeout(4 * 3600 if "MANUKA_KILLS" in os.environ else 600)
def test_under_random_kills_every_acknowledged_image_stays_whole(
    make_sandbox: MakeSandbox,
    registry: str,
    victim: str,
    default: int,
    tell: Callable[[str], None],
) -> None:
    sandbox = make_sandbox()
    before = layer_folders(sandbox)
    storm = Storm(sandbox, registry, seed=int(time.time()))
    daemon = getattr(sandbox, victim)
    left = kills(default)
    done = 0
    while left:
        batch = min(BATCH, left)
        storm.rage(daemon, batch)
        left -= batch
        done += batch
        storm.assert_whole()
        assert storm.rubbish() == []
        tell(f"{done} kills of the {victim}; done meanwhile: {storm.done}")
    storm.remove_everything()
    sandbox.stop()
    sandbox.start()
    assert storm.mounts() == []
    assert storm.rubbish() == []
    forgotten = storm.left(before)
    tell(f"layers whose making the engine forgot: {forgotten}")
    # The engine never asks for the removal of a layer that it had not written down when it was
    # killed, however whole, or whose Create it heard no answer to.  A job makes one at a time.
    assert len(forgotten) <= JOBS * done
    assert max(forgotten.values(), default=0) <= FILES + 1
    storm.assert_whole()
