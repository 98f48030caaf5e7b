"""manuka.overlay2 on each kind of disk, as an ordinary user of one, and in a user namespace."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from manuka.driver import DriverError
from manuka.layers.changes import Change, Kind
from manuka.linux.mountinfo import mounts_below
from tests.layertar import LayerTar, entries
from tests.unit.mounts import file_system, mounted, needs_root
from tests.unit.stacks import apply, create, inside, overlay2, packed, view

pytestmark = needs_root

EXT4 = ("mkfs.ext4", "-q")
XFS = ("mkfs.xfs", "-q")
BTRFS = ("mkfs.btrfs", "-q")


def live(disk: Path) -> None:
    """A layer's whole life on a disk: made, unpacked, mounted, changed, packed, removed."""
    with overlay2(disk) as driver:
        below = LayerTar().folder("d", 0o750, uid=9).file("d/a", b"a", xattrs={"user.demo": b"1"})
        below.file("gone").hardlink("again", "d/a").symlink("l", "d").file("hole", bytes(1 << 20))
        apply(driver, "base", None, below)
        apply(driver, "top", "base", LayerTar().folder("d").opaque("d").whiteout("gone").file("n"))
        assert sorted(view(driver, "top")) == ["again", "d", "hole", "l", "n"]
        create(driver, "work", "top")
        with inside(driver, "work") as tree:
            (tree / "new").write_text("new")
            (tree / "again").unlink()
            (tree / "n").rename(tree / "d" / "m")
        changes = driver.changes("work", "top")
        assert changes == [
            Change("/again", Kind.DELETE),
            Change("/d", Kind.MODIFY),
            Change("/d/m", Kind.ADD),
            Change("/n", Kind.DELETE),
            Change("/new", Kind.ADD),
        ]
        assert list(entries(packed(driver, "work", "top"))) == [
            ".wh.again",
            "d/",
            "d/m",
            ".wh.n",
            "new",
        ]
        assert driver.diff_size("work", "top") == len("new")
        for layer_id in ("work", "top", "base"):
            driver.remove(layer_id)
        assert mounts_below(str(disk)) == []
        assert os.listdir(disk / "home" / "l") == []


@pytest.mark.parametrize("mkfs", [EXT4, XFS, BTRFS], ids=lambda mkfs: mkfs[0])
def test_a_layer_lives_on_each_usual_disk(tmp_path: Path, mkfs: tuple) -> None:
    with file_system(tmp_path, *mkfs) as disk:
        live(disk)


def test_a_layer_lives_in_memory(tmp_path: Path) -> None:
    with mounted(tmp_path / "memory") as disk:
        live(disk)


def test_ext4_with_folders_that_ignore_case_is_refused_or_served(tmp_path: Path) -> None:
    """Kernels before 6.18 mount no overlay on such a disk; later ones where no folder does."""
    with file_system(tmp_path, *EXT4, "-O", "casefold") as disk:
        try:
            live(disk)
            refusal = None
        except DriverError as error:
            refusal = str(error)
        assert refusal is None or "ext4 (without casefold)" in refusal


NAMESPACE = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, os.getcwd())
    from tests.unit.test_overlay2_disks import *
    from tests.unit.stacks import start
    folder = Path(sys.argv[1])
    assert os.getuid() == 0
    with overlay2(folder) as driver:
        assert ("userxattr", "true") in driver.status()
        below = LayerTar().folder("d").file("d/a", b"a").file("gone").folder("e").file("e/x")
        apply(driver, "base", None, below)
        above = LayerTar().folder("d").opaque("d").file("d/n").whiteout("gone")
        apply(driver, "top", "base", above.device("null", 1, 3))
        assert sorted(view(driver, "top")) == ["d", "d/n", "e", "e/x"]
        create(driver, "work", "top")
        with inside(driver, "work") as tree:
            (tree / "d" / "n").unlink()
            (tree / "e" / "x").unlink()
            (tree / "e").rmdir()
            (tree / "e").mkdir()
        found = [f"{'CAD'[kind]} {path}" for path, kind in driver.changes("work", "top")]
        assert found == ["C /d", "D /d/n", "C /e", "D /e/x"], found
        assert list(entries(packed(driver, "work", "top"))) == ["d/", "d/.wh.n", "e/", "e/.wh.x"]
        assert os.getxattr(folder / "home/work/diff/e", "user.overlay.opaque") == b"y"
        for layer_id in ("work", "top", "base"):
            driver.remove(layer_id)
    print("served")
"""


def test_in_a_user_namespace_layers_are_served_with_records_that_a_user_may_write(
    tmp_path: Path,
) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c"]
    done = subprocess.run(
        [*command, textwrap.dedent(NAMESPACE), str(tmp_path)],
        capture_output=True,
        timeout=120,
    )
    if b"unshare failed" in done.stderr:
        pytest.skip("user namespaces are forbidden here")
    assert done.stdout == b"served\n", done.stderr.decode()


def test_root_without_its_powers_is_told_which_it_needs(tmp_path: Path) -> None:
    script = "import sys; from tests.unit.stacks import start; from pathlib import Path\n"
    script += "start(Path(sys.argv[1]))"
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = subprocess.run(
        [*without, sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, timeout=120
    )
    assert done.returncode == 1
    said = done.stderr.decode().splitlines()[-1]
    assert "Operation not permitted" in said
    assert "CAP_SYS_ADMIN" in said
