"""What can be a driver's home, and what is refused before anything in it is changed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List

import pytest

from manuka.api.instance import DriverInstance
from manuka.api.messages import InitRequest
from manuka.driver import DriverError
from manuka.linux import private
from manuka.overlay2 import Overlay2
from tests.unit.folder_driver import FolderDriver
from tests.unit.mounts import unmounted_after
from tests.unit.others import (
    STRANGER,
    give_away,
    paths_below,
    put_a_link,
    put_a_strangers_link,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="serve wants root")

DRIVERS = ["manuka.overlay2:Overlay2", "manuka.vfs:Vfs", "tests.unit.folder_driver:FolderDriver"]


def _serve(folder: Path, *arguments: str, driver: str = DRIVERS[0]) -> str:
    """What a serve says that gives up."""
    command = ["serve", "--run-dir", str(folder / "run"), "--driver", driver, *arguments]
    if "--socket" not in arguments:
        command += ["--socket", str(folder / "p" / "m.sock")]
    done = subprocess.run(
        [sys.executable, "-m", "manuka", *command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def _init(home: Path, driver: str) -> str:
    """What Init says to a home that it refuses."""
    module, _, name = driver.partition(":")
    factory = getattr(__import__(module, fromlist=[name]), name)
    with pytest.raises(DriverError) as error:
        DriverInstance(factory, None).initialise(InitRequest(str(home)))
    return str(error.value)


def _shape(folder: Path) -> List[Any]:
    return [
        (path, *(getattr(os.lstat(path), "st_" + key) for key in ("mode", "uid", "gid", "mtime")))
        for path in sorted(paths_below(folder))
    ]


def _is_a_file(home: Path) -> str:
    home.write_text("root:x:0:0")
    return "it is a file"


def _lies_below_a_file(home: Path) -> str:
    home.parent.rmdir()
    home.parent.write_text("")
    return f"it cannot be made: {home.parent} is a file"


def _leads_to_the_system(home: Path) -> str:
    home.symlink_to("/usr/lib")
    return "it leads to /usr/lib, which is a directory of the system"


def _leads_nowhere(home: Path) -> str:
    home.symlink_to("nowhere")
    return "is a link to nowhere"


def _is_a_strangers(home: Path) -> str:
    home.mkdir(0o755)
    os.chown(str(home), STRANGER, STRANGER)
    return "belongs to uid 1000 (mode 0755)"


def _is_a_strangers_link(home: Path) -> str:
    (home.parent / "there").mkdir()
    home.symlink_to("there")
    os.chown(str(home), STRANGER, STRANGER, follow_symlinks=False)
    return "belongs to uid 1000"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "make",
    [
        *(_is_a_file, _lies_below_a_file, _leads_to_the_system, _leads_nowhere),
        *(_is_a_strangers, _is_a_strangers_link),
    ],
)
def test_a_home_that_is_none_is_refused_by_every_driver_before_anything_changes(
    tmp_path: Path, make: Callable[[Path], str], driver: str
) -> None:
    home = tmp_path / "data" / "home"
    home.parent.mkdir()
    expected = make(home)
    before = _shape(tmp_path / "data")
    assert expected in _init(home, driver)
    assert expected in _serve(tmp_path, "--home", str(home), driver=driver)
    assert _shape(tmp_path / "data") == before
    assert not (tmp_path / "run").exists()


SYSTEM = ["/", "//", "/etc", "/etc/ssl", "/var/lib", "/tmp", "/usr", "/proc/sys", "/dev/shm/"]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("home", SYSTEM)
def test_a_directory_of_the_system_is_no_home(tmp_path: Path, home: str, driver: str) -> None:
    real = os.path.normpath(home)
    before = os.lstat(real)
    said = _serve(tmp_path, "--home", home, driver=driver)
    assert said.startswith(f"manuka: {real.replace('//', '/')!r} cannot be a driver's home: it ")
    assert "a directory of the system" in said
    after = os.lstat(real)
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        *(before.st_mode, before.st_uid, before.st_gid),
    )
    assert not os.path.lexists(real + "/.incomplete")


def _document(home: Path) -> str:
    (home / "letter.txt").write_text("dear")
    return "'letter.txt'"


def _tree(home: Path) -> str:
    (home / "src" / "diff" / "x").mkdir(parents=True)
    (home / "src" / "README").write_text("")
    return "'src'"


def _empty_directories(home: Path) -> str:
    (home / "photos").mkdir()
    (home / "usb").mkdir()
    return "'photos', 'usb'"


def _link_for_a_layer(home: Path) -> str:
    (home / "abc").symlink_to("/etc")
    return "'abc'"


def _many(home: Path) -> str:
    for number in range(9):
        (home / f"f{number}").write_text("")
    return "'f0', 'f1', 'f2' and 6 more"


@pytest.mark.parametrize("driver", DRIVERS[:2])
@pytest.mark.parametrize("make", [_document, _tree, _empty_directories, _link_for_a_layer, _many])
def test_a_home_with_what_is_not_ours_is_refused_naming_it(
    tmp_path: Path, make: Callable[[Path], str], driver: str
) -> None:
    home = tmp_path / "home"
    home.mkdir(0o755)
    expected = make(home)
    before = _shape(home)
    said = _serve(tmp_path, "--home", str(home), driver=driver)
    assert said == (
        f"manuka: {home} holds what is not this driver's: {expected}; move it away, or give the "
        "driver an empty directory as its home\n"
    )
    assert _init(home, driver) in said
    assert _shape(home) == before


@pytest.mark.parametrize(
    ("driver", "name"),
    [(DRIVERS[0], "l"), (DRIVERS[0], ".incomplete"), (DRIVERS[1], ".incomplete")],
)
@pytest.mark.parametrize("harm", [put_a_link, put_a_strangers_link, give_away])
def test_what_a_driver_empties_is_no_link_and_nobody_elses(
    tmp_path: Path, driver: str, name: str, harm: Callable[[Path], None]
) -> None:
    kept = tmp_path / "home" / name
    kept.mkdir(parents=True)
    (kept / "precious").write_text("precious")
    harm(kept)
    before = _shape(tmp_path / "home")
    assert f"{kept} is not this driver's: it is a" in _init(tmp_path / "home", driver)
    assert _shape(tmp_path / "home") == before


@pytest.mark.parametrize("driver", DRIVERS[:2])
def test_a_home_is_taken_that_is_new_empty_a_disks_top_or_behind_roots_own_link(
    tmp_path: Path, driver: str
) -> None:
    module, _, name = driver.partition(":")
    factory = getattr(__import__(module, fromlist=[name]), name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    (tmp_path / "link").symlink_to("empty")
    with unmounted_after(tmp_path):
        for home in ("new", "empty", "disk", "link"):
            for _ in range(2):
                request = InitRequest(str(tmp_path / home))
                DriverInstance(factory, None).initialise(request)
            assert stat.S_IMODE((tmp_path / home).stat().st_mode) == 0o710
    assert (tmp_path / "link").is_symlink()


def test_a_home_of_the_engines_own_driver_is_taken_with_what_it_left(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for layer in ("a" * 64, "b" * 64 + "-init", "half-made", "l"):
        (home / layer).mkdir(parents=True)
    for name in ("diff", "work", "merged"):
        (home / ("b" * 64 + "-init") / name).mkdir()
    for name in ("link", "lower", "committed"):
        (home / ("b" * 64 + "-init") / name).write_text("")
    (home / ("a" * 64) / "diff").mkdir()
    (home / "lost+found").mkdir()
    (home / "opaque-bug-check12345" / "l1").mkdir(parents=True)
    os.mknod(str(home / "backingFsBlockDev"), stat.S_IFBLK | 0o600, os.makedev(7, 99))
    with unmounted_after(tmp_path):
        DriverInstance(Overlay2, None).initialise(InitRequest(str(home)))


def test_an_empty_name_for_a_home_is_not_the_present_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manuka", "serve", "--home", ""],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "manuka: --home is empty; name the folder for layers\n",
    )


def test_a_restarted_plugin_looks_at_the_home_of_its_record(tmp_path: Path) -> None:
    request = InitRequest(str(tmp_path / "home"))
    DriverInstance(FolderDriver, str(tmp_path / "run")).initialise(request)
    record = json.loads((tmp_path / "run" / "init.json").read_text())
    record["Home"] = "/etc"
    private.write(str(tmp_path / "run" / "init.json"), json.dumps(record).encode())
    instance = DriverInstance(FolderDriver, str(tmp_path / "run"))
    instance.restore()
    with pytest.raises(DriverError, match="'/etc' cannot be a driver's home"):
        instance.driver()
