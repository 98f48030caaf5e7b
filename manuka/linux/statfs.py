"""Which file system a path is on.

Easy to get wrong: os.statvfs lacks the type, and the C struct differs from machine to machine;
only its first field, which is the type on all of them, is read here.
"""

from __future__ import annotations

import ctypes
import os

from manuka.linux.libc import c_string, call, function
from manuka.linux.presence import is_folder

OVERLAY = 0x794C7630
XFS = 0x58465342
BTRFS = 0x9123683E

_NAMES = {
    0xEF53: "extfs",
    XFS: "xfs",
    BTRFS: "btrfs",
    0x01021994: "tmpfs",
    OVERLAY: "overlayfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x6969: "nfs",
    0x65735546: "fuse",
}


class _Statfs(ctypes.Structure):
    _fields_ = [("type", ctypes.c_ulong), ("rest", ctypes.c_char * 248)]


_statfs = function("statfs", [ctypes.c_char_p, ctypes.POINTER(_Statfs)])


def magic(path: str) -> int:
    """The number of the file system's type, as in linux/magic.h."""
    buffer = _Statfs()
    call(_statfs, c_string(path), ctypes.byref(buffer), path=path)
    return int(buffer.type) & 0xFFFFFFFF


def filesystem_name(path: str) -> str:
    """The type's name as Docker shows it; "<unknown>" for one that is not in the table."""
    return _NAMES.get(magic(path), "<unknown>")


def existing_folder(path: str) -> str:
    """The folder itself, or the nearest above it that is there: where it will be made."""
    while not is_folder(path):
        path = os.path.dirname(path)
    return path
