"""Copying a tree whole, so that a container could not tell it from the original.

What is kept: types, permissions, owners, times to the nanosecond, all extended attributes, names
of one file (hard links), device numbers, and holes.  Where the file system can share blocks
between files, nothing is read or written but their names.  `manuka.vfs` makes layers so.

Easy to get wrong: the order owner, attributes, permissions, times, as in `manuka.layers.unpack`;
and a folder's, which come last, for a folder's time changes with each file that is made in it, and
a default access list would be inherited.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Iterator, Union

from manuka.layers.walk import opened_folder, opened_root
from manuka.linux.reflink import UNSUPPORTED, clone_file
from manuka.linux.xattr import at

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_HANDLE = os.O_PATH | os.O_NOFOLLOW
_AT_ONCE = 1 << 30

#: An open file, or a path that leads to the file itself.
_File = Union[int, bytes]


def copy_tree(source: str, target: str) -> None:
    """Make the folder `target`, which is there and empty, a copy of the folder `source`.

    Nothing may change in either meanwhile.  Raises OSError, and then leaves what it has made.
    """
    with opened_root(source) as source_fd, opened_root(target) as target_fd:
        _Copy(source_fd, target_fd).run()


class _Copy:
    """One run of `copy_tree`."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._clones = True
        self._names: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        pending = [""]
        while pending:
            path = pending.pop()
            with opened_folder(self._source, path) as source:
                with opened_folder(self._target, path) as target:
                    status = os.fstat(source)
                    for name in os.listdir(source):
                        if self._copy(source, target, path, name):
                            pending.append(f"{path}/{name}")
                    _copy_attributes(source, target, status)

    def _copy(self, source: int, target: int, path: str, name: str) -> bool:
        """Copy one file; True: it is a folder, of which only the name is there so far."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            return True
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first = self._names.setdefault(inode, f"{path}/{name}")
            if first != f"{path}/{name}":
                self._link(first, target, name)
                return False
        if stat.S_ISREG(status.st_mode):
            self._copy_file(source, target, name, status)
        elif stat.S_ISLNK(status.st_mode):
            _copy_symlink(source, target, name, status)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            with _handle(source, name) as old, _handle(target, name) as new:
                _copy_attributes(old, new, status)
        return False

    def _link(self, first: str, target: int, name: str) -> None:
        folder, _, first_name = first.rpartition("/")
        with opened_folder(self._target, folder) as fd:
            os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)

    def _copy_file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        old = os.open(name, _READ, dir_fd=source)
        try:
            new = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                if status.st_size and not self._cloned(old, new):
                    copy_data(old, new, status.st_size)
                _copy_attributes(old, new, status)
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _cloned(self, old: int, new: int) -> bool:
        if not self._clones:
            return False
        try:
            clone_file(old, new)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                self._clones = False
            elif error.errno != errno.EINVAL:
                raise
            return False
        return True


def copy_data(old: int, new: int, size: int) -> None:
    """Copy an open file of `size` bytes, holes left out: it may be of an exabyte, and be all hole.

    `new` is empty.  Raises OSError.
    """
    os.ftruncate(new, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(old, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # the rest is a hole
            raise
        end = os.lseek(old, start, os.SEEK_HOLE)
        os.lseek(new, start, os.SEEK_SET)
        while start < end:
            copied = os.sendfile(new, old, start, min(end - start, _AT_ONCE))
            if not copied:
                raise OSError(errno.EIO, "a file became shorter while it was copied")
            start += copied


def _copy_symlink(source: int, target: int, name: str, status: os.stat_result) -> None:
    os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    old, new = at(source, os.fsencode(name)), at(target, os.fsencode(name))
    for key in os.listxattr(old, follow_symlinks=False):
        value = os.getxattr(old, key, follow_symlinks=False)
        os.setxattr(new, key, value, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_attributes(old: _File, new: _File, status: os.stat_result) -> None:
    os.chown(new, status.st_uid, status.st_gid)
    for key in os.listxattr(old):
        os.setxattr(new, key, os.getxattr(old, key))
    os.chmod(new, stat.S_IMODE(status.st_mode))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextlib.contextmanager
def _handle(folder: int, name: str) -> Iterator[bytes]:
    """A path to a file that must not be opened, such as a device."""
    fd = os.open(name, _HANDLE, dir_fd=folder)
    try:
        yield b"/proc/self/fd/%d" % fd
    finally:
        os.close(fd)
