"""syncfs(2): all of one file system onto the disk, in place of an fsync for each of its files.

Easy to get wrong: before Linux 5.8 it does not report write errors.
"""

from __future__ import annotations

import ctypes

from manuka.linux.libc import call, function

_syncfs = function("syncfs", [ctypes.c_int])


def syncfs(fd: int) -> None:
    """Write out everything of the file system that `fd` is on."""
    call(_syncfs, fd, path=f"/proc/self/fd/{fd}")
