"""Mounting and unmounting.

`manuka.linux.mountinfo` tells what is mounted.  Easy to get wrong: mount(2) takes one page of
data and silently drops the rest, so an overlay with too many layers would mount without its
lowest ones; data that does not fit raises here.  When absolute paths do not fit, `mount_from`
mounts with relative ones.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

from manuka.linux.kernel import page_size
from manuka.linux.libc import c_string, call, function
from manuka.linux.mountinfo import mounts_below

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_CLONE_FS = 0x200
_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8

_string = ctypes.c_char_p
_mount = function("mount", [_string, _string, _string, ctypes.c_ulong, _string])
_umount2 = function("umount2", [_string, ctypes.c_int])
_unshare = function("unshare", [ctypes.c_int])


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2).  `data` must be shorter than a page, or OSError (E2BIG) is raised."""
    _checked_mount(source, target, fstype, flags, data, shown=target)


def mount_from(
    folder: str, source: str, target: str, fstype: str, flags: int = 0, data: str = ""
) -> None:
    """Like `mount`, with relative paths in `target` and `data` starting at `folder`.

    The process's working folder stays what it is: a thread of its own takes another one and
    ends.  It must not be a pool's thread, for it never shares its working folder again.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            call(_unshare, _CLONE_FS, path=folder)
            os.chdir(folder)
            _checked_mount(source, target, fstype, flags, data, os.path.join(folder, target))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="mount", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def unmount(target: str, detach: bool = False) -> None:
    """umount2(2) of the mount at `target`, which is not followed when it is a symlink.

    detach: take the mount out of sight at once, also when it is in use; the kernel ends it when
    its last user does.
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if detach else 0)
    call(_umount2, c_string(target), flags, path=target)


def unmount_below(folder: str) -> list[str]:
    """Detach every mount strictly below `folder`, deepest first; returns their mount points.

    All are tried before the last error is raised.  One that someone else unmounted meanwhile is
    no error.
    """
    done = []
    failed = {}
    for mount_point in mounts_below(folder):
        try:
            unmount(mount_point, detach=True)
        except OSError as error:
            failed[mount_point] = error
        else:
            done.append(mount_point)
    remaining = [path for path in mounts_below(folder) if path in failed] if failed else []
    if remaining:
        raise failed[remaining[-1]]
    return done


def _checked_mount(
    source: str, target: str, fstype: str, flags: int, data: str, shown: str
) -> None:
    options = c_string(data)
    if len(options) >= page_size():
        raise OSError(errno.E2BIG, "mount data is longer than a page", shown)
    call(
        _mount,
        c_string(source),
        c_string(target),
        c_string(fstype),
        flags,
        options or None,
        path=shown,
    )
