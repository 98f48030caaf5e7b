"""manuka.linux.statfs: which file system a path is on."""

from __future__ import annotations

import pytest

from manuka.linux import statfs
from tests.unit.mounts import file_system, mounted, needs_root, overlay


@needs_root
def test_a_tmpfs_and_an_overlay_are_known_by_name(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        assert statfs.filesystem_name(str(disk)) == "tmpfs"
    with overlay(tmp_path / "disk") as merged:
        assert statfs.magic(str(merged)) == statfs.OVERLAY
        assert statfs.filesystem_name(str(merged)) == "overlayfs"


@needs_root
@pytest.mark.parametrize(
    ("mkfs", "name", "magic"),
    [
        ("mkfs.ext4", "extfs", 0xEF53),
        ("mkfs.xfs", "xfs", statfs.XFS),
        ("mkfs.btrfs", "btrfs", statfs.BTRFS),
    ],
)
def test_file_systems_on_disk_are_known_by_name(tmp_path, mkfs, name, magic):
    with file_system(tmp_path, mkfs, "-q") as target:
        assert statfs.filesystem_name(str(target)) == name
        assert statfs.magic(str(target)) == magic


def test_another_file_system_is_unknown():
    assert statfs.magic("/proc") == 0x9FA0
    assert statfs.filesystem_name("/proc") == "<unknown>"


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        statfs.magic(str(tmp_path / "missing"))
    assert caught.value.filename == str(tmp_path / "missing")
