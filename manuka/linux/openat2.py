"""Opening files inside a folder as if it were the root of the machine.

The unpacker in `manuka.layers` opens each path of a hostile tar through `open_in_root`, and
`manuka.linux.tree` enters each folder through `open_folder`.  openat2(2) does it since Linux 5.6;
on older kernels, or where a seccomp filter refuses that call, the same walk is done here, one
folder at a time.  Easy to get wrong: openat2 takes no flag for granted.  Without O_LARGEFILE it
refuses files of 2 GiB and more, and with O_PATH or without O_CREAT it refuses what open(2)
ignores.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import stat
from typing import Any

from manuka.linux.libc import c_string, failure, function, os_error

_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_IN_ROOT = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
_LINK_FREE = _RESOLVE_IN_ROOT | _RESOLVE_NO_SYMLINKS

# Python's own os.O_LARGEFILE is 0 on 64 bit machines, where open(2) always sets it.
_O_LARGEFILE = 0o400000 if platform.machine().startswith(("aarch64", "arm")) else 0o100000
_O_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY
_WITH_O_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
_PATH_MAX = 4096
# The kernel gives up with EAGAIN when a rename or mount anywhere happens during a "..".
_PASSING = (errno.EAGAIN, errno.EINTR)
_TRIES = 128


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


# Called some hundred thousand times for an image. To declare the arguments' types would cost a
# quarter of the call's time; callers pass an int, bytes without NUL, and what _how made.
_syscall = function("syscall", argtypes=None, restype=ctypes.c_long)
_NUMBER = ctypes.c_long(437)
_SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


def open_in_root(
    root_fd: int, path: bytes, flags: int, mode: int = 0, *, follow: bool = True
) -> int:
    """Open `path` as if the folder `root_fd` were "/"; returns a descriptor (close-on-exec).

    Absolute symlinks start at `root_fd`, ".." does not lead above it, and the links of /proc that
    jump to open files are not followed.  flags and mode are open(2)'s.
    follow: False: a symlink anywhere in `path` raises ELOOP.
    """
    if not _has_openat2 or b"\0" in path:
        return walk_in_root(root_fd, path, flags, mode, follow=follow)
    how = _how(flags, mode, _IN_ROOT if follow else _LINK_FREE)
    fd: int = _syscall(_NUMBER, root_fd, path, how, _SIZE)
    return fd if fd >= 0 else _try_again(root_fd, path, flags, mode, follow)


def _try_again(root_fd: int, path: bytes, flags: int, mode: int, follow: bool) -> int:
    how = _how(flags, mode, _IN_ROOT if follow else _LINK_FREE)
    for _ in range(_TRIES):
        if ctypes.get_errno() not in _PASSING:
            raise failure(path)
        fd: int = _syscall(_NUMBER, root_fd, path, how, _SIZE)
        if fd >= 0:
            return fd
    return walk_in_root(root_fd, path, flags, mode, follow=follow)


def open_folder(dir_fd: int, name: str) -> int:
    """Open the folder `name` in `dir_fd` for reading.

    Raises OSError: ENOTDIR when it is no folder (a symlink is none), EXDEV when it is a mount
    point, which bind mounts of the same file system are as well.
    """
    if _has_openat2:
        how = _how(_READ_FOLDER, 0, _RESOLVE_NO_XDEV)
        fd: int = _syscall(_NUMBER, dir_fd, c_string(name), how, _SIZE)
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in _PASSING:
            raise failure(name)
    return open_folder_by_hand(dir_fd, name)


def walk_in_root(
    root_fd: int, path: bytes, flags: int, mode: int = 0, *, follow: bool = True
) -> int:
    """`open_in_root` without openat2."""
    if not path:
        raise os_error(errno.ENOENT, path)
    if b"\0" in path:
        raise os_error(errno.EINVAL, path)
    if len(path) >= _PATH_MAX:
        raise os_error(errno.ENAMETOOLONG, path)
    walk = _Walk(root_fd, _MAX_LINKS if follow else 0)
    try:
        return walk.open(path, flags | os.O_CLOEXEC, mode)
    except OSError as error:
        raise os_error(error.errno or errno.EIO, path) from None
    finally:
        walk.close()


def open_folder_by_hand(dir_fd: int, name: str) -> int:
    """`open_folder` without openat2."""
    fd = os.open(name, _READ_FOLDER, dir_fd=dir_fd)
    try:
        if _mount_id(fd) != _mount_id(dir_fd):
            raise os_error(errno.EXDEV, name)
    except OSError:
        os.close(fd)
        raise
    return fd


class _Walk:
    """One resolution of a path: the folder reached so far, and its names below the root.

    The names are there for "..": the kernel's own would lead out of the root when someone moves
    the folder meanwhile, so the walk goes there again from the root.
    """

    def __init__(self, root_fd: int, most_links: int) -> None:
        self.root_fd = root_fd
        self.names: list[bytes] = []
        self.links_left = most_links
        self.folder = self._root()

    def close(self) -> None:
        os.close(self.folder)

    def open(self, path: bytes, flags: int, mode: int) -> int:
        todo = path.split(b"/")[::-1]
        if path.startswith(b"/"):
            todo.pop()
        while True:
            name = todo.pop()
            if name in (b"", b".", b".."):
                if name == b"..":
                    self._up()
                if not todo:
                    return os.open(b".", flags, mode, dir_fd=self.folder)
            elif todo:
                if flags & os.O_CREAT and not any(todo):
                    raise os_error(errno.EISDIR)
                self._down(name, todo)
            else:
                fd = self._last(name, flags, mode, todo)
                if fd is not None:
                    return fd

    def _down(self, name: bytes, todo: list[bytes]) -> None:
        """Go into the folder `name`, or put what the symlink `name` says in front of `todo`."""
        try:
            self._enter(name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self._link(name, todo):
                raise
        else:
            self.names.append(name)

    def _last(self, name: bytes, flags: int, mode: int, todo: list[bytes]) -> int | None:
        """Open the path's last name; None when it is a symlink, whose path is then in `todo`."""
        exclusive = os.O_CREAT | os.O_EXCL
        follow = not flags & os.O_NOFOLLOW and flags & exclusive != exclusive
        if follow and self._link(name, todo):
            return None
        fd = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.folder)
        if follow and flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            raise os_error(errno.ELOOP)  # it became a symlink after we looked
        return fd

    def _link(self, name: bytes, todo: list[bytes]) -> bool:
        try:
            target = os.readlink(name, dir_fd=self.folder)
        except OSError:
            return False
        self.links_left -= 1
        if self.links_left < 0:
            raise os_error(errno.ELOOP)
        if target.startswith(b"/"):
            self._replace(self._root())
            self.names = []
        todo.extend(target.lstrip(b"/").split(b"/")[::-1])
        return True

    def _up(self) -> None:
        names = self.names[:-1]
        self._replace(self._root())
        for name in names:
            self._enter(name)
        self.names = names

    def _enter(self, name: bytes) -> None:
        self._replace(os.open(name, _FOLDER, dir_fd=self.folder))

    def _root(self) -> int:
        return os.open(b".", _FOLDER, dir_fd=self.root_fd)

    def _replace(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


@functools.lru_cache(maxsize=1024)
def _how(flags: int, mode: int, resolve: int) -> Any:
    """A pointer to the struct for these values, which nobody may change."""
    if flags & os.O_PATH:
        flags &= _WITH_O_PATH
    else:
        flags |= _O_LARGEFILE
    if not flags & (os.O_CREAT | _O_TMPFILE):
        mode = 0
    how = _OpenHow(flags | os.O_CLOEXEC, mode & 0o7777, resolve)
    return ctypes.cast(ctypes.pointer(how), ctypes.c_void_p)


def _mount_id(fd: int) -> bytes:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return line
    return b""


def _probe() -> bool:
    fd: int = _syscall(_NUMBER, -1, b"/", _how(os.O_PATH, 0, 0), _SIZE)
    if fd >= 0:
        os.close(fd)
    return fd >= 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM)


_has_openat2 = _probe()
