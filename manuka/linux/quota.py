"""Project quotas of xfs: a limit for a folder and all that is made below it.

A folder carries a project id, what is made in it inherits the id, and the file system counts and
limits each id's blocks.  See xfs_quota(8), ioctl_xfs_fsgetxattr(2) and quotactl(2).  Easy to get
wrong: the limit is per file system and id, so it is set on the block device, in units of 512
bytes, while the id is set on the folder, and only what is made afterwards inherits it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Any

from manuka.linux.libc import c_string, call, function
from manuka.linux.presence import is_there

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
# struct fsxattr: xflags, extsize, nextents, projid, cowextsize, padding
_FSXATTR = struct.Struct("=5I8s")

_PROJECT_QUOTA = 2
_Q_XGETQUOTA = (ord("X") << 8) + 3
_Q_XSETQLIM = (ord("X") << 8) + 4
_Q_XGETQSTAT = (ord("X") << 8) + 5
_BOTH_ON = 1 << 4 | 1 << 5  # accounting and enforcement
_BLOCK = 512

# What the kernel answers when it, the file system, or its mount options lack quotas, and when the
# device's node is of no use: on a file system mounted with nodev, or in a container.
_UNSUPPORTED = (
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENODEV,
    errno.ESRCH,
    errno.EACCES,
    errno.EPERM,
)


class _DiskQuota(ctypes.Structure):
    """struct fs_disk_quota of linux/dqblk_xfs.h."""

    _fields_ = [
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_int8),
        ("fieldmask", ctypes.c_uint16),
        ("id", ctypes.c_uint32),
        ("blk_hardlimit", ctypes.c_uint64),
        ("blk_softlimit", ctypes.c_uint64),
        ("ino_hardlimit", ctypes.c_uint64),
        ("ino_softlimit", ctypes.c_uint64),
        ("bcount", ctypes.c_uint64),
        ("icount", ctypes.c_uint64),
        ("itimer", ctypes.c_int32),
        ("btimer", ctypes.c_int32),
        ("iwarns", ctypes.c_uint16),
        ("bwarns", ctypes.c_uint16),
        ("padding2", ctypes.c_int32),
        ("rtb_hardlimit", ctypes.c_uint64),
        ("rtb_softlimit", ctypes.c_uint64),
        ("rtbcount", ctypes.c_uint64),
        ("rtbtimer", ctypes.c_int32),
        ("rtbwarns", ctypes.c_uint16),
        ("padding3", ctypes.c_int16),
        ("padding4", ctypes.c_char * 8),
    ]


class _QuotaState(ctypes.Structure):
    """struct fs_quota_stat of linux/dqblk_xfs.h, of which only the flags are read."""

    _fields_ = [
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_uint16),
        ("rest", ctypes.c_char * 124),
    ]


_FS_DQUOT_VERSION = 1
_FS_PROJ_QUOTA = 2
_FS_DQ_BSOFT = 1 << 2
_FS_DQ_BHARD = 1 << 3

_quotactl = function("quotactl", [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p])


def get_project_id(path: str) -> int:
    """The project id of a file or folder; 0 when it has none."""
    fd = _open(path)
    try:
        return int(_FSXATTR.unpack(_read_fsxattr(fd, path))[3])
    finally:
        os.close(fd)


def set_project_id(path: str, project_id: int) -> None:
    """Give a folder a project id, which everything made in it from now on inherits."""
    fd = _open(path)
    try:
        xflags, extsize, nextents, _, cowextsize, padding = _FSXATTR.unpack(_read_fsxattr(fd, path))
        changed = _FSXATTR.pack(
            xflags | _FS_XFLAG_PROJINHERIT, extsize, nextents, project_id, cowextsize, padding
        )
        try:
            fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, changed)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def set_quota(device: str, project_id: int, size_bytes: int) -> None:
    """Limit what `project_id` may use on the file system of `device` (a block device's path).

    size_bytes is rounded down to whole blocks of 512 bytes; 0 means no limit.
    """
    blocks = size_bytes // _BLOCK
    quota = _DiskQuota(
        version=_FS_DQUOT_VERSION,
        flags=_FS_PROJ_QUOTA,
        fieldmask=_FS_DQ_BHARD | _FS_DQ_BSOFT,
        id=project_id,
        blk_hardlimit=blocks,
        blk_softlimit=blocks,
    )
    _quota_call(_Q_XSETQLIM, device, project_id, quota)


def get_quota(device: str, project_id: int) -> int:
    """The limit of `project_id`, in bytes; 0 means no limit."""
    return int(_record(device, project_id).blk_hardlimit) * _BLOCK


def is_in_use(device: str, project_id: int) -> bool:
    """Whether a file or directory belongs to `project_id`, or anything is limited for it."""
    record = _record(device, project_id)
    fields = ("icount", "bcount", "rtbcount")
    limits = ("blk_hardlimit", "blk_softlimit", "ino_hardlimit", "ino_softlimit")
    return any(getattr(record, field) for field in (*fields, *limits))


def _record(device: str, project_id: int) -> _DiskQuota:
    quota = _DiskQuota()
    try:
        _quota_call(_Q_XGETQUOTA, device, project_id, quota)
    except OSError as error:
        # For an id for which nothing was ever counted or limited there is no record.
        if error.errno != errno.ENOENT or not is_there(device):
            raise
    return quota


def supported(device: str) -> bool:
    """Whether the file system on `device` counts and enforces project quotas.

    False when the kernel has no quotas, the file system is another one, it was mounted without
    ``pquota``, or `device` may not be used.  Raises OSError when that is missing or no device.
    """
    state = _QuotaState()
    try:
        _quota_call(_Q_XGETQSTAT, device, 0, state)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return int(state.flags) & _BOTH_ON == _BOTH_ON


def _quota_call(command: int, device: str, project_id: int, argument: Any) -> None:
    call(
        _quotactl,
        ctypes.c_int(command << 8 | _PROJECT_QUOTA),
        c_string(device),
        ctypes.c_int(project_id),
        ctypes.byref(argument),
        path=device,
    )


def _open(path: str) -> int:
    # Not blocking, or a fifo would wait for its other end.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_fsxattr(fd: int, path: str) -> bytes:
    try:
        return fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
