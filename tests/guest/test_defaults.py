"""A machine on which overlayfs is told to write short layers: ``redirect_dir`` and ``metacopy``.

These are parameters of the module, for every mount of the machine; so this is for a guest alone.
"""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox
from tests.engine.conftest import engine, workshop
from tests.engine.images import Image, Layer, busybox
from tests.engine.steps import load, run, run_sleeping, shell
from tests.engine.test_moving import changes, follow_the_guide, root

__all__ = ["engine", "root", "workshop"]

PARAMETERS = "/sys/module/overlay/parameters"
SIZE = 4 << 20

pytestmark = pytest.mark.skipif(
    os.environ.get("MANUKA_GUEST") != "1", reason="it changes what every overlay of a machine does"
)


@pytest.fixture(autouse=True)
def _short_layers() -> Iterator[None]:
    for name in ("redirect_dir", "metacopy"):
        with open(f"{PARAMETERS}/{name}", "w") as file:
            file.write("Y")
    yield
    for name in ("metacopy", "redirect_dir"):
        with open(f"{PARAMETERS}/{name}", "w") as file:
            file.write("N")


def work(sandbox: Sandbox) -> None:
    """In a container, rename a folder, and change the mode of a file, of the image."""
    image = Image("short:1", busybox(), Layer().folder("d").file("d/a", b"a\n").file("big"))
    image.add(Layer().file("big", b"big\n" * (SIZE // 4)))
    load(sandbox, image)
    run_sleeping(sandbox, "one", image="short:1")
    shell(sandbox, "one", "mv /d /e; chmod 600 /big; mkdir /nd; rm -r /srv; mkdir /srv")
    sandbox.docker("stop", "-t", "0", "one")


def check(sandbox: Sandbox) -> None:
    """What was changed is a change, and a commit of it is whole."""
    expected = [b"A /e", b"A /e/a", b"A /nd", b"C /big", b"D /d"]
    assert changes(sandbox, "one") == expected
    sandbox.docker("commit", "one", "whole:1")
    script = "cat /e/a; stat -c '%a %s' /big; tail -c 4 /big; ls /d 2>&- || echo gone"
    assert run(sandbox, "whole:1", script) == f"a\n600 {SIZE}\nbig\ngone\n"


@pytest.mark.parametrize("driver", ["overlay2", "manuka"])
def test_a_commit_is_whole(engine: str, workshop: str, driver: str) -> None:
    with Sandbox(engine, driver, data_dir=workshop) as sandbox:
        rows = dict(sandbox.engine.request("GET", "/info")["DriverStatus"])
        # The engine's own driver does with what it finds; ours asks for mounts without both.
        assert rows["Native Overlay Diff"] == ("true" if driver == "manuka" else "false")
        work(sandbox)
        check(sandbox)


def test_a_container_that_overlay2_made_so_is_served_and_committed_whole(
    engine: str, workshop: str, root: str
) -> None:
    settings = {"data-root": root}
    with Sandbox(engine, "overlay2", data_dir=workshop, settings=settings) as sandbox:
        work(sandbox)
        sandbox.stop()
    follow_the_guide("To manuka", root)
    with Sandbox(engine, data_dir=workshop, settings=settings) as sandbox:
        assert sandbox.plugin is not None
        assert "was made with redirect_dir or metacopy" in sandbox.plugin.log_text()
        check(sandbox)
        sandbox.docker("start", "one")
        assert shell(sandbox, "one", "cat /e/a; tail -c 4 /big") == "a\nbig\n"
        sandbox.docker("rm", "-f", "one")
