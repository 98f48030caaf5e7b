"""The retry trap: an engine repeats a call whose connection broke, but not the call's body.

A layer that was on its way when the plugin died comes again as an empty one.  Whoever takes it has
an image without its files, under a digest that the engine finds right.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Tuple

import pytest

from manuka.toolkit.sandbox import Sandbox
from tests.engine.conftest import DRIVER, MakeSandbox
from tests.engine.images import Image, Layer, SavedImage, busybox
from tests.engine.steps import layer_folders, load, run

pytestmark = [
    pytest.mark.every_engine,
    pytest.mark.skipif(DRIVER == "overlay2", reason="there is no plugin to kill"),
]


def image() -> Image:
    layer = Layer().folder("data")
    for number in range(20):
        layer.file(f"data/{number}", os.urandom(2000))
    return Image("trap:1", busybox(), layer)


def load_through_a_crash(sandbox: Sandbox, loaded: Image) -> Tuple[int, str]:
    """Status and errors of a load whose last layer meets a plugin that dies half-way."""
    assert sandbox.plugin is not None
    load(sandbox, Image("below:1", *loaded.layers[:-1]))
    flag = sandbox.inside(os.path.join(os.path.dirname(sandbox.home), "stall"))
    with open(flag, "w"):
        pass
    loading = sandbox.spawn(
        ["docker", "load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert loading.stdin is not None
    with loading.stdin:
        loading.stdin.write(loaded.archive())
    loading.stdin = None
    deadline = time.monotonic() + 60
    while not os.path.exists(flag + "ed"):
        assert time.monotonic() < deadline, "no layer came"
        time.sleep(0.02)
    sandbox.plugin.kill()
    sandbox.plugin.start()
    _, errors = loading.communicate(timeout=120)
    return loading.returncode, errors.decode()


def listed(sandbox: Sandbox) -> str:
    return run(sandbox, "trap:1", "ls /data | wc -l").strip()


@pytest.mark.parametrize("driver", ["Stalling", "StallingExact"])
def test_a_load_that_met_a_crash_fails_clearly_and_the_next_one_works(
    make_sandbox: MakeSandbox, driver: str
) -> None:
    sandbox = make_sandbox(driver=f"tests.crash.drivers:{driver}")
    loaded = image()
    status, errors = load_through_a_crash(sandbox, loaded)
    print(errors)
    assert status != 0, "half a layer was taken for a whole one"
    assert "ApplyDiff" in errors or "not whole" in errors
    assert sandbox.docker("image", "inspect", "trap:1", check=False).returncode != 0
    folders = layer_folders(sandbox)
    load(sandbox, loaded)
    assert listed(sandbox) == "20"
    assert len(layer_folders(sandbox)) == len(folders) + 1, "the broken layer has stayed"
    if driver == "Stalling":
        saved = SavedImage(sandbox.docker("save", "trap:1").stdout)
        assert saved.diff_ids == loaded.diff_ids


def test_a_plugin_without_the_guard_loses_the_layers_files(
    make_sandbox: MakeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guard is for: the engine says that it has the image, and its files are missing."""
    monkeypatch.setenv("MANUKA_UNGUARDED", "1")
    sandbox = make_sandbox(driver="tests.crash.drivers:Unguarded")
    loaded = image()
    status, errors = load_through_a_crash(sandbox, loaded)
    assert status == 0, errors
    assert sandbox.docker("image", "inspect", "trap:1").returncode == 0
    missing = run(sandbox, "trap:1", "ls /data | wc -l", check=False).strip()
    assert missing != "20", "nothing was lost: the guard would not be needed"
