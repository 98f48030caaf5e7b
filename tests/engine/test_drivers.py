"""The package's other drivers, vfs and btrfs, under a real engine: the life of an image and of
containers, and what the engine's own overlay2 would make of the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import Iterator, NamedTuple

import pytest

from manuka.linux.mount import mount, unmount
from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER
from .images import Image, Layer, SavedImage, as_listed, busybox
from .steps import box, inspect, load, merged, run, run_sleeping, shell

pytestmark = pytest.mark.skipif(
    DRIVER != "manuka", reason="these are drivers of their own, whichever is under test"
)

CHANGES = """
cd /srv/tree
echo new > new; chmod 4755 new; chown 5:6 new
rm b; mkdir -p deep/er; ln -s ../../a deep/er/link; mkfifo fifo
rm /etc/motd
head -c 100000 /dev/zero > /srv/zeros
touch -h -d @1000000000 new deep/er/* deep/er deep fifo . .. /etc /srv /srv/zeros
"""


@contextlib.contextmanager
def _btrfs(workshop: str) -> Iterator[str]:
    """A folder on a btrfs of its own, in a file."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("no mkfs.btrfs: apt-get install btrfs-progs")
    folder = tempfile.mkdtemp(prefix="b-", dir=workshop)
    image, point = os.path.join(folder, "image"), os.path.join(folder, "m")
    os.mkdir(point)
    try:
        with open(image, "wb") as file:
            file.truncate(2 << 30)
        subprocess.run(["mkfs.btrfs", "--quiet", image], check=True)
        found = subprocess.run(
            ["losetup", "--find", "--show", image], check=True, stdout=subprocess.PIPE
        )
        device = found.stdout.decode().strip()
        try:
            mount(device, point, "btrfs")
            try:
                os.chmod(point, 0o711)
                yield point
            finally:
                # Detached, for a sandbox of another test may have a copy of this mount.
                unmount(point, detach=True)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["vfs", "btrfs"])
def whole(request: pytest.FixtureRequest, engine: str, workshop: str) -> Iterator[Sandbox]:
    """An engine on a driver of whole trees, with the image ``box``."""
    driver = {"vfs": "manuka.vfs:Vfs", "btrfs": "manuka.btrfs:Btrfs"}[request.param]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_btrfs(workshop)) if request.param == "btrfs" else workshop
        sandbox = stack.enter_context(Sandbox(engine, driver, data_dir=folder))
        assert not sandbox.namespace.in_memory or request.param == "vfs"
        load(sandbox, box())
        yield sandbox


class Committed(NamedTuple):
    """What an engine says of a container's changes, and what it makes of them."""

    changes: list[str]
    entries: list[tuple[object, ...]]
    size: int


def _layers(sandbox: Sandbox) -> set[str]:
    return set(os.listdir(sandbox.inside(sandbox.home))) - {".incomplete"}


@pytest.fixture(scope="module")
def expected(native: Sandbox) -> Committed:
    """What the engine's own overlay2 makes of `CHANGES`."""
    return _commit(native, "native")


def test_an_imported_tar_runs(whole: Sandbox, name: str) -> None:
    info = whole.engine.request("GET", "/info")
    assert info["Driver"] == "manuka"
    assert "Backing Filesystem" in dict(info["DriverStatus"])
    tar = busybox().file("srv/hello", b"hello\n", 0o640, owner=(7, 8)).tar
    whole.docker("import", "-", f"{name}:1", input=tar)
    script = "cat /srv/hello; stat -c '%a %u %g' /srv/hello"
    assert run(whole, f"{name}:1", script) == "hello\n640 7 8\n"
    whole.docker("rmi", f"{name}:1")


def test_an_image_of_many_layers_loads_runs_and_is_saved_as_it_came(
    whole: Sandbox, name: str
) -> None:
    image = Image(f"{name}:1", busybox())
    image.add(Layer().folder("srv/d").file("srv/d/a", b"a\n").file("srv/d/b", b"b\n"))
    image.add(Layer().file("srv/d/c", b"c\n").hard_link("srv/d/c2", "srv/d/c"))
    image.add(Layer().whiteout("srv/d/a").folder("srv/o").file("srv/o/hidden", b""))
    image.add(Layer().folder("srv/o").opaque("srv/o").file("srv/o/shown", b"", 0o4711))
    for number in range(5):
        image.add(Layer().file("srv/top", b"%d\n" % number))
    before = _layers(whole)
    load(whole, image)
    assert len(_layers(whole) - before) == len(image.layers) - 1  # the lowest is in ``box`` too
    assert inspect(whole, image.tag)["RootFS"]["Layers"] == image.diff_ids
    output = run(whole, image.tag, "ls /srv/d /srv/o; cat /srv/top; stat -c %a /srv/o/shown")
    assert output.split() == ["/srv/d:", "b", "c", "c2", "/srv/o:", "shown", "4", "4711"]
    saved = SavedImage(whole.docker("save", image.tag).stdout)
    assert (saved.id, saved.diff_ids) == (image.id, image.diff_ids)
    whole.docker("rmi", image.tag)
    assert _layers(whole) == before


def test_a_committed_container_is_saved_as_overlay2_would_save_it(
    whole: Sandbox, expected: Committed, name: str
) -> None:
    before = _layers(whole)
    found = _commit(whole, name)
    assert found == expected
    assert {"D /etc/motd", "A /srv/zeros", "A /srv/tree/deep/er/link"} <= set(found.changes)
    assert _layers(whole) == before


def _commit(sandbox: Sandbox, name: str) -> Committed:
    run = ("run", "--network", "none", "--name", name)
    sandbox.docker(*run, "box:1", "sh", "-ec", CHANGES)
    changes = sorted(sandbox.docker("diff", name).stdout.decode().splitlines())
    sandbox.docker("commit", name, f"{name}:1")
    sandbox.docker("rm", name)
    image = inspect(sandbox, f"{name}:1")
    saved = SavedImage(sandbox.docker("save", f"{name}:1").stdout)
    assert saved.diff_ids == image["RootFS"]["Layers"]
    sandbox.docker("rmi", f"{name}:1")
    grown = image["Size"] - inspect(sandbox, "box:1")["Size"]
    return Committed(changes, as_listed(saved.layers[-1]), grown)


def test_containers_outlive_plugin_and_engine_and_leave_nothing(whole: Sandbox, name: str) -> None:
    assert whole.plugin is not None
    before = _layers(whole)
    run_sleeping(whole, name)
    shell(whole, name, "echo mine > /etc/motd")
    whole.plugin.kill()
    whole.plugin.start()
    assert shell(whole, name, "cat /etc/motd; echo more > /srv/more") == "mine\n"
    assert "A /srv/more" in whole.docker("diff", name).stdout.decode()
    with open(os.path.join(merged(whole, name), "etc/motd")) as file:
        assert file.read() == "mine\n"
    assert run(whole, "box:1", "cat /etc/motd; ls /srv") == "welcome\ntree\n"
    whole.engine.kill_containers()
    whole.stop()
    whole.start()
    assert whole.docker("cp", f"{name}:/srv/more", "-").stdout[512:517] == b"more\n"
    whole.docker("rm", name)
    assert _layers(whole) == before
