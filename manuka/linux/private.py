"""Directories and files that are root's alone: made so, and looked at before they are believed.

What the plugin reads back after a restart decides what it serves, deletes and unmounts, so nobody
but root may have been able to write it.  `check` asks that of a file and of every directory on
the way to it, as sshd(8) does of its keys (``StrictModes``).  "Root" is the user of this process.

Modes are set by a call for each file, whatever the umask; `os.makedirs` gives its mode to the last
directory only, and those above it get what the umask leaves of 0777.
"""

from __future__ import annotations

import contextlib
import os
import stat

from manuka.errors import ManukaError

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # as in the kernel


class Distrusted(ManukaError):
    """Someone other than root may have made a file or may change it; the text says what to do."""


def make_directories(path: str, mode: int) -> None:
    """Make a directory and those above it that are missing, all with `mode`.

    One that is there stays as it is.  Raises OSError, also when something else is there.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        make_directories(parent, mode)
    try:
        os.mkdir(path, mode)  # never more than that, not even for a moment
    except FileExistsError:
        if os.path.isdir(path):  # another thread made it
            return
        raise
    set_mode(path, mode)


def set_mode(path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Give a directory its mode, and its owner (uid, gid).  Raises OSError for a symbolic link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Raise Distrusted unless `path` is a file or a directory that only root can have made.

    It, and each directory on the way to it, has to belong to root and be closed to the writing of
    others.  On the way, and only there, is allowed: a directory with the sticky bit, such as
    ``/tmp``, where nobody can replace what is root's; and a symbolic link of root's.
    Raises OSError when something is not there.
    """
    place = "/"
    _check_one(place, on_the_way=True)
    names = _names(os.path.abspath(path))
    links = 0
    while names:
        name = names.pop()
        if name == "..":  # in a link's target
            place = os.path.dirname(place)
            continue
        place = os.path.join(place, name)
        if not os.path.islink(place):
            _check_one(place, on_the_way=bool(names))
            continue
        links += 1
        status = os.lstat(place)
        if not names or links > _MOST_LINKS or not _is_own(status):
            raise _distrusted(place, status, "is a symbolic link", f"rm {place}")
        target = os.readlink(place)
        names += _names(target)
        place = "/" if target.startswith("/") else os.path.dirname(place)


def read(path: str) -> bytes:
    """A file that only root can have made.  Raises Distrusted, or OSError."""
    check(path)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read()


def write(path: str, data: bytes) -> None:
    """Write a file with mode 0600, in place of what is there; nobody sees it half written.

    After an error, a full disk for example, all is as before.  Raises OSError.
    """
    unfinished = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(unfinished, flags, 0o600)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _check_one(place: str, on_the_way: bool) -> None:
    status = os.lstat(place)
    if not (stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and not on_the_way)):
        raise _distrusted(place, status, "is neither a file nor a directory", f"rm {place}")
    shared = status.st_mode & _OTHERS_MAY_WRITE
    if on_the_way and status.st_mode & stat.S_ISVTX:
        shared = 0
    if shared or not _is_own(status):
        cure = f"chown root:root {place}; chmod go-w {place}"
        raise _distrusted(place, status, "can be changed by others than root", cure)


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _distrusted(place: str, status: os.stat_result, what: str, cure: str) -> Distrusted:
    mode = stat.S_IMODE(status.st_mode)
    return Distrusted(f"{place} {what} (owner {status.st_uid}, mode {mode:04o}); {cure}")


def _names(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
