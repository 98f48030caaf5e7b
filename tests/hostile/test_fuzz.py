"""A sample of ``./lab fuzz``, which searches on: tars like the hostile ones, always the same.

Easy to get wrong: what fails is in ``.fuzz``; ``tests/fuzz/tars.py FILE`` tries it again.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fuzz import tars

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def test_no_tar_like_the_hostile_ones_breaks_the_unpacker() -> None:
    done = subprocess.run(
        [sys.executable, tars.__file__, "--sample=2000"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-4000:]
    assert b"and 2000 tars like them: no failure" in done.stdout
