"""Subvolumes of btrfs: folders that can be copied and deleted as a whole, at once.

Easy to get wrong: a subvolume may hold others, which anyone can make who may write there, so a
container as well.  A snapshot of it has empty folders in their place, and it cannot be deleted as
long as there are any; and each may be read-only.  `copy_subvolume` and `delete_subvolume` deal
with them; they are looked for only where there are some, for that takes a walk through the files.

Source: ``linux/btrfs.h``, ``Documentation/btrfs-ioctl.rst`` of btrfs-progs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import Iterator, Sequence

from manuka.linux.libc import c_string
from manuka.linux.openat2 import open_folder

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_GET_SUBVOL_ROOTREF = 0xD000943D
_RDONLY = 1 << 1

_VOL_ARGS = struct.Struct("=q4088s")  # fd, name
_VOL_ARGS_V2 = struct.Struct("=qQQ32s4040s")  # fd, transid, flags, unused, name
_ROOTREFS = struct.Struct("=Q4080sB7s")  # first id to tell, ids, how many, padding
_FLAGS = struct.Struct("=Q")
_NAME_MAX = 255
_ROOT_INODE = 256

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_subvolume(path: str) -> bool:
    """Whether `path`, which lies on a btrfs, is the top of a subvolume; False: or not there."""
    try:
        return _is_top(os.lstat(path))
    except FileNotFoundError:
        return False


def create_subvolume(path: str) -> None:
    """Make an empty subvolume, whose folder is this process' and has the mode 0777 & ~umask."""
    with _parent_of(path) as (folder, name):
        _ioctl(folder, _SUBVOL_CREATE, _VOL_ARGS.pack(0, name), path)


def copy_subvolume(source: str, path: str) -> None:
    """Make `path` a snapshot of the subvolume `source`, with those inside it; all can be written.

    Raises OSError: EINVAL when `source` is no subvolume, EXDEV when it lies on another btrfs.
    """
    with _opened(source) as original, _parent_of(path) as (folder, name):
        _snapshot(original, folder, name, path)
        if not _may_hold_others(original):
            return
        with _opened(path) as copy:
            for names in _nested(original):
                with _opened_below(original, names) as nested, _opened_below(
                    copy, names[:-1]
                ) as at:
                    os.rmdir(names[-1], dir_fd=at)
                    _snapshot(nested, at, _name(names[-1]), os.path.join(path, *names))


def delete_subvolume(path: str) -> None:
    """Delete a subvolume with all that it holds, other subvolumes too.

    It vanishes at once; the kernel frees its blocks by and by.
    """
    with _parent_of(path) as (folder, name), _opened(path) as top:
        _make_writable(top)
        try:
            _destroy(folder, name, path)
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        others = _nested(top)
        for names in others:
            with _opened_below(top, names) as nested:
                _make_writable(nested)
        for names in reversed(others):
            with _opened_below(top, names[:-1]) as at:
                _destroy(at, _name(names[-1]), os.path.join(path, *names))
        _destroy(folder, name, path)


def set_read_only(path: str) -> None:
    """Let nothing in a subvolume be changed."""
    with _opened(path) as top:
        _ioctl(top, _SUBVOL_SETFLAGS, _FLAGS.pack(_RDONLY), path)


def _make_writable(top: int) -> None:
    flags: int = _FLAGS.unpack(_ioctl(top, _SUBVOL_GETFLAGS, bytes(_FLAGS.size)))[0]
    if flags & _RDONLY:
        _ioctl(top, _SUBVOL_SETFLAGS, _FLAGS.pack(flags & ~_RDONLY))


def _snapshot(source: int, folder: int, name: bytes, shown: str) -> None:
    _ioctl(folder, _SNAP_CREATE_V2, _VOL_ARGS_V2.pack(source, 0, 0, b"", name), shown)


def _destroy(folder: int, name: bytes, shown: str) -> None:
    _ioctl(folder, _SNAP_DESTROY, _VOL_ARGS.pack(0, name), shown)


def _may_hold_others(top: int) -> bool:
    """Whether other subvolumes lie in this one; before Linux 4.18 nobody knows without looking."""
    try:
        answer = _ioctl(top, _GET_SUBVOL_ROOTREF, _ROOTREFS.pack(0, b"", 0, b""))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOVERFLOW):
            return True
        raise
    return bool(_ROOTREFS.unpack(answer)[2])


def _nested(top: int) -> list[tuple[str, ...]]:
    """The subvolumes below an open folder, each as the names that lead to it, outer ones first.

    One descriptor walks, for folders may be nested deeper than descriptors or paths reach.
    """
    found = []
    way: list[str] = []
    pending = [_folders(top)]
    fd = os.dup(top)
    try:
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                try:
                    child = open_folder(fd, name)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                        continue
                    raise
                os.close(fd)
                fd = child
                way.append(name)
                if _is_top(os.fstat(fd)):
                    found.append(tuple(way))
                pending.append(_folders(fd))
            elif way:
                child, fd = fd, os.open("..", _FOLDER, dir_fd=fd)
                os.close(child)
                way.pop()
                pending.pop()
            else:
                return found
    finally:
        os.close(fd)


def _folders(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _is_top(status: os.stat_result) -> bool:
    return status.st_ino == _ROOT_INODE


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_below(folder: int, names: Sequence[str]) -> Iterator[int]:
    """The folder to which `names` lead, one by one."""
    fd = os.dup(folder)
    try:
        for name in names:
            child = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _parent_of(path: str) -> Iterator[tuple[int, bytes]]:
    folder, name = os.path.split(path)
    with _opened(folder or ".") as fd:
        yield fd, _name(name)


def _name(name: str) -> bytes:
    encoded = c_string(name)
    if len(encoded) > _NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return encoded


def _ioctl(fd: int, request: int, argument: bytes, shown: str | None = None) -> bytes:
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(fd, request, buffer, True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, shown) from None
    return bytes(buffer)
