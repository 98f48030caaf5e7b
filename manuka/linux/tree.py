"""Deleting a folder with everything in it.

A layer's files are a container's, so no name in them is trusted: nothing is opened by its whole
path, symlinks are not followed, and what is mounted below is unmounted, never emptied.  Easy to
get wrong: a container can nest folders deeper than a process may have open files, than Python
may have calls, and than a path may be long.  So there is one descriptor, which goes down by name
and up by "..", and on the way up it is checked to have come back to where it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import NamedTuple

from manuka.linux.mount import unmount
from manuka.linux.openat2 import open_folder

_TRIES = 50
_PAUSE = 0.1
_BUSY = os.strerror(errno.EBUSY)
_PASSING = (errno.EBUSY, errno.EXDEV, errno.ENOTEMPTY, errno.EISDIR)
_O_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _Level(NamedTuple):
    """A folder on the way down: what identifies it, and the names in it still to delete."""

    identity: tuple[int, int]
    names: list[str]


def remove_tree(path: str) -> None:
    """Delete `path` and everything below it; fine when it is not there.

    Mounts at and below it are detached first.  Raises OSError with the path of what cannot be
    deleted: because it is immutable, say, or stays busy for five seconds.
    """
    parent, name = os.path.split(os.path.abspath(path))
    try:
        fd = os.open(parent, _O_FOLDER)
    except FileNotFoundError:
        return
    removal = _Removal(parent, fd)
    try:
        removal.run(name)
    finally:
        os.close(removal.fd)


class _Removal:
    """One run of remove_tree.  `fd` is the folder of the last level, the last of its `names` is
    what is being worked on."""

    def __init__(self, parent: str, fd: int) -> None:
        self.parent = parent
        self.fd = fd
        self.levels: list[_Level] = []
        self.tries = 0

    def run(self, name: str) -> None:
        self.levels.append(_Level(_identity(self.fd), [name]))
        try:
            while True:
                if self.levels[-1].names:
                    self._delete(self.levels[-1].names[-1])
                elif len(self.levels) > 1:
                    self._ascend()
                else:
                    return
        except OSError as error:
            # EXDEV: a mount resisted. The reader need not know how we noticed.
            busy = error.errno == errno.EXDEV
            code, reason = (errno.EBUSY, _BUSY) if busy else (error.errno, error.strerror)
            raise OSError(code, reason, self._path()) from None

    def _delete(self, name: str) -> None:
        """Delete `name`, or go down into it when there are folders in it."""
        with contextlib.suppress(OSError):  # an empty folder is a tenth of the work
            os.rmdir(name, dir_fd=self.fd)
            self.levels[-1].names.pop()
            return
        try:
            child = open_folder(self.fd, name)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._delete_file(name)
            else:
                self._failed(name, error)
            return
        try:
            names = _delete_files(child)
            if names:
                self.levels.append(_Level(_identity(child), names))
                self.fd, child = child, self.fd
        finally:
            os.close(child)
        if not names:
            self._delete_folder(name)

    def _delete_file(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.fd)
        except OSError as error:
            self._failed(name, error)
        else:
            self.levels[-1].names.pop()

    def _delete_folder(self, name: str) -> None:
        try:
            os.rmdir(name, dir_fd=self.fd)
        except OSError as error:
            self._failed(name, error)
        else:
            self.levels[-1].names.pop()

    def _ascend(self) -> None:
        self.levels.pop()
        parent = os.open("..", _O_FOLDER, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = parent
        level = self.levels[-1]
        if _identity(parent) != level.identity:
            raise OSError(errno.ESTALE, "what is in it was moved while it was being deleted")
        self._delete_folder(level.names[-1])

    def _failed(self, name: str, error: OSError) -> None:
        """Make way for another try, unless `name` is gone; raises when nothing helps."""
        if error.errno == errno.ENOENT:
            self.levels[-1].names.pop()
            return
        if error.errno in (errno.EBUSY, errno.EXDEV):
            helped = self._unmount(name)
        elif error.errno == errno.EACCES:
            helped = self._permit(name)
        else:
            helped = False
        if helped:
            return
        self.tries += 1
        if self.tries >= _TRIES or error.errno not in _PASSING:
            raise error
        time.sleep(_PAUSE)

    def _unmount(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            unmount(f"/proc/self/fd/{self.fd}/{name}", detach=True)
            return True
        return False

    def _permit(self, name: str) -> bool:
        """Give the owner all rights to the folder at hand and to `name`; whether that is new."""
        changed = len(self.levels) > 1 and _permit(self.fd)
        with contextlib.suppress(OSError):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                changed = _permit(fd) or changed
            finally:
                os.close(fd)
        return changed

    def _path(self) -> str:
        return os.path.join(self.parent, *(level.names[-1] for level in self.levels))


def _delete_files(fd: int) -> list[str]:
    """Delete what is in an open folder, except folders and what resists; returns their names."""
    left = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.name)
                continue
            try:
                os.unlink(entry.name, dir_fd=fd)
            except OSError:
                left.append(entry.name)
    return left


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _permit(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    if not stat.S_ISDIR(mode) or mode & 0o700 == 0o700:
        return False
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode & 0o7777 | 0o700)
    except OSError:
        return False
    return True
