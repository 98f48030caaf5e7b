"""manuka.linux.quota: project ids and their limits."""

from __future__ import annotations

import errno
import os

import pytest

from manuka.linux.mountinfo import mounts
from manuka.linux.quota import (
    get_project_id,
    get_quota,
    is_in_use,
    set_project_id,
    set_quota,
    supported,
)
from tests.unit.mounts import file_system, loop_device, mounted, needs_root

pytestmark = needs_root

XFS = ("mkfs.xfs", "-q")
EXT4 = ("mkfs.ext4", "-q", "-O", "project,quota", "-E", "lazy_itable_init=1")
with_project_ids = pytest.mark.parametrize("mkfs", [XFS, EXT4], ids=lambda mkfs: mkfs[0])


def device_of(disk):
    """The block device that is mounted at a folder."""
    return next(mount.source for mount in mounts() if mount.mount_point == str(disk))


@with_project_ids
def test_what_is_made_in_a_folder_inherits_its_project_id(tmp_path, mkfs):
    with file_system(tmp_path, *mkfs) as disk:
        folder = disk / "layer"
        folder.mkdir()
        (folder / "before").mkdir()
        assert get_project_id(str(folder)) == 0
        set_project_id(str(folder), 4_000_000_000)
        (folder / "diff").mkdir()
        (folder / "diff" / "file").write_text("")
        assert get_project_id(str(folder)) == 4_000_000_000
        assert get_project_id(str(folder / "diff")) == 4_000_000_000
        assert get_project_id(str(folder / "diff" / "file")) == 4_000_000_000
        assert get_project_id(str(folder / "before")) == 0
        assert get_project_id(str(disk)) == 0


@with_project_ids
def test_a_folder_keeps_its_other_attributes(tmp_path, mkfs):
    with file_system(tmp_path, *mkfs) as disk:
        folder = disk / "layer"
        folder.mkdir(mode=0o710)
        set_project_id(str(folder), 1)
        set_project_id(str(folder), 2)
        assert get_project_id(str(folder)) == 2
        assert folder.stat().st_mode & 0o777 == 0o710


def test_a_file_system_without_project_ids_is_an_error(tmp_path):
    with pytest.raises(OSError, match="proc") as caught:
        set_project_id("/proc", 1)
    assert caught.value.errno in (errno.ENOTTY, errno.EOPNOTSUPP)
    assert caught.value.filename == "/proc"
    with pytest.raises(FileNotFoundError) as caught:
        get_project_id(str(tmp_path / "missing"))
    assert caught.value.filename == str(tmp_path / "missing")


def test_the_project_id_of_a_symlink_is_not_the_one_of_its_target(tmp_path):
    with file_system(tmp_path, *XFS) as disk:
        (disk / "link").symlink_to(disk)
        with pytest.raises(OSError, match="link"):
            get_project_id(str(disk / "link"))


def test_xfs_mounted_without_pquota_does_not_support_quotas_and_says_so(tmp_path):
    with file_system(tmp_path, *XFS) as disk:
        device = device_of(disk)
        assert not supported(device)
        with pytest.raises(OSError, match=device) as caught:
            set_quota(device, 7, 1 << 20)
        assert caught.value.filename == device


def test_a_device_that_is_not_mounted_does_not_support_quotas(tmp_path):
    with loop_device(tmp_path, *XFS) as device:
        assert not supported(device)


def test_the_node_of_a_disk_without_a_block_device_does_not_support_quotas(tmp_path):
    with mounted(tmp_path / "disk") as disk:
        os.mknod(str(tmp_path / "node"), 0o60600, disk.stat().st_dev)
        assert not supported(str(tmp_path / "node"))


def test_a_missing_device_and_a_file_are_errors(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        try:
            answer = supported(str(path))
        except OSError as error:
            answer = error.filename
        # A kernel without any quotas does not even look at the device.
        assert answer in (False, str(path))


def test_a_folder_with_a_quota_cannot_outgrow_it(tmp_path):
    """On xfs alone: ext4 lets root pass its limits."""
    with file_system(tmp_path, *XFS, data="pquota") as disk:
        device = device_of(disk)
        assert supported(device)
        for name in ("limited", "free"):
            (disk / name).mkdir()
        set_project_id(str(disk / "limited"), 17)
        assert get_quota(device, 17) == 0
        set_quota(device, 17, 50 << 20)
        assert get_quota(device, 17) == 50 << 20
        assert get_quota(device, 18) == 0
        (disk / "limited" / "diff").mkdir()
        write(disk / "limited" / "diff" / "first", 25 << 20)
        with pytest.raises(OSError, match=r"quota|space") as caught:
            write(disk / "limited" / "diff" / "second", 50 << 20)
        assert caught.value.errno in (errno.EDQUOT, errno.ENOSPC)
        write(disk / "free" / "file", 60 << 20)
        set_quota(device, 17, 0)
        write(disk / "limited" / "diff" / "third", 60 << 20)


def test_a_project_is_in_use_while_it_has_a_file_or_a_limit(tmp_path):
    with file_system(tmp_path, *XFS, data="pquota") as disk:
        device = device_of(disk)
        assert not is_in_use(device, 17)
        set_quota(device, 17, 1 << 20)
        assert is_in_use(device, 17)
        set_quota(device, 17, 0)
        assert not is_in_use(device, 17)
        (disk / "folder").mkdir()
        set_project_id(str(disk / "folder"), 17)
        assert is_in_use(device, 17)
        with pytest.raises(OSError, match="missing"):
            is_in_use(str(disk / "missing"), 17)


def write(path, size):
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
