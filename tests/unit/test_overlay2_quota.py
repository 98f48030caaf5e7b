"""manuka.overlay2.quota: the projects of layers, beside those of others on the same disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator, Optional

import pytest

from manuka.driver import CreateOptions, DriverError
from manuka.linux.quota import get_project_id, get_quota, is_in_use, set_project_id, set_quota
from manuka.overlay2 import Overlay2
from manuka.overlay2 import quota as layer_quota
from tests.unit.mounts import file_system, needs_root, unmounted_after
from tests.unit.stacks import create, inside, start
from tests.unit.test_linux_quota import XFS, device_of

pytestmark = needs_root

MIB = 1 << 20
FIRST, SECOND, THIRD = 0x4DFFFFFF, 0x4DFFFFFE, 0x4DFFFFFD


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with quota_disk(tmp_path) as mounted:
        yield mounted


@contextlib.contextmanager
def quota_disk(folder: Path, *options: str) -> Iterator[Path]:
    with file_system(folder, *XFS, *options, data="pquota") as mounted, unmounted_after(mounted):
        yield mounted


def limited(driver: Overlay2, layer_id: str, parent: Optional[str] = "base") -> int:
    """A container's layer of 20 MiB; its project."""
    driver.create_read_write(layer_id, parent, CreateOptions(storage_opt={"size": "20m"}))
    return project(driver, layer_id)


def project(driver: Overlay2, layer_id: str) -> int:
    return get_project_id(f"{driver.settings.home}/{layer_id}/diff")


def fill(folder: Path) -> int:
    """Write until there is no more room, or 40 MiB; what was written, in MiB."""
    with (folder / "filling").open("wb", buffering=0) as file:
        for number in range(40):
            try:
                file.write(bytes(MIB))
                os.fsync(file.fileno())
            except OSError:
                return number
    return 40


def test_projects_are_counted_down_from_far_above_what_others_use(disk: Path) -> None:
    driver = start(disk)
    create(driver, "base")
    assert project(driver, "base") == 0
    assert [limited(driver, name) for name in ("a", "b")] == [FIRST, SECOND]
    again = start(disk)
    assert limited(again, "c") == THIRD
    for name in ("a", "c"):
        with inside(again, name) as tree:
            assert 17 <= fill(tree) <= 20


@pytest.mark.parametrize("use", ["a directory", "a limit"])
def test_a_project_that_another_uses_is_left_alone(disk: Path, use: str) -> None:
    if use == "a directory":
        (disk / "other").mkdir()
        set_project_id(str(disk / "other"), FIRST)
    else:
        set_quota(device_of(disk), FIRST, MIB)
    driver = start(disk)
    create(driver, "base")
    assert limited(driver, "a") == SECOND
    assert get_quota(device_of(disk), FIRST) == (0 if use == "a directory" else MIB)


def test_a_second_driver_on_the_same_disk_has_projects_of_its_own(disk: Path) -> None:
    one, other = start(disk), start(disk / "other")
    for driver in (one, other):
        create(driver, "base")
    found = [limited(driver, name) for name in ("a", "b") for driver in (one, other)]
    assert len(set(found)) == 4


def test_a_layer_that_is_removed_gives_its_project_back(disk: Path) -> None:
    driver = start(disk)
    create(driver, "base")
    with_file = limited(driver, "a")
    with inside(driver, "a") as tree:
        (tree / "file").write_text("x")
    driver.remove("a")
    driver.remove("a")
    assert get_quota(device_of(disk), with_file) == 0
    os.sync()
    assert not is_in_use(device_of(disk), with_file)


def test_layers_of_before_keep_their_limit_and_a_volumes_is_not_lifted_with_them(
    disk: Path,
) -> None:
    """Layers and volumes may share small numbers, since both were once counted up from 1."""
    driver = start(disk)
    create(driver, "base")
    driver.create_read_write("old", "base", CreateOptions())
    for folder in ("diff", "work"):
        set_project_id(f"{driver.settings.home}/old/{folder}", 2)
    set_quota(device_of(disk), 2, 10 * MIB)
    again = start(disk)
    with inside(again, "old") as tree:
        assert 7 <= fill(tree) <= 10
    assert limited(again, "new") == FIRST
    again.remove("old")
    assert get_quota(device_of(disk), 2) == 10 * MIB


def test_a_home_in_a_project_of_the_administrators_has_limited_layers(disk: Path) -> None:
    """xfs refuses to rename into a project's directory what belongs to another."""
    (disk / "home").mkdir()
    set_project_id(str(disk / "home"), 999)
    driver = start(disk)
    create(driver, "base")
    assert project(driver, "base") == 999
    assert limited(driver, "a") == FIRST
    with inside(driver, "a") as tree:
        (tree / "file").write_text("x")
        (tree / "file").rename(tree / "renamed")
        assert 17 <= fill(tree) <= 20
    driver.remove("a")
    assert not driver.exists("a")


def test_a_layer_on_nothing_is_limited(disk: Path) -> None:
    driver = start(disk)
    assert limited(driver, "a", None) == FIRST
    with inside(driver, "a") as tree:
        assert 17 <= fill(tree) <= 20


def test_when_no_project_is_free_the_user_is_told_and_nothing_is_left(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_quota, "_NUMBERS", range(FIRST, SECOND - 1, -1))
    driver = start(disk)
    create(driver, "base")
    assert [limited(driver, name) for name in ("a", "b")] == [FIRST, SECOND]
    with pytest.raises(DriverError, match="no project id is free"):
        limited(driver, "c")
    assert not driver.exists("c")
    driver.remove("a")
    os.sync()
    assert limited(driver, "c") == FIRST


def test_a_disk_with_project_ids_of_16_bits_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with quota_disk(tmp_path, "-m", "crc=0", "-i", "projid32bit=0", "-n", "ftype=1") as disk:
        driver = start(disk)
        create(driver, "base")
        with pytest.raises(DriverError, match="xfs_admin -p"):
            limited(driver, "a")
        assert not driver.exists("a")
        assert os.listdir(disk / "home" / ".incomplete") == []
