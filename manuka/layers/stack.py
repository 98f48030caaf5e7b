"""Lower layers, seen as overlayfs merges them, without mounting anything.

A *place* in a stack is the list of folders that merge there, uppermost first: at the root, the
``diff`` folders of all layers.  `look_up` goes one name down.  The rules are the kernel's
(``fs/overlayfs/namei.c``): the first layer that has the name decides; folders go on merging with
the folders below them until one is opaque, or a layer has something else, or a whiteout.

Layers in a stack have children, so nothing writes to them any more and paths cannot change
under us.  Do not use this on an upper folder in use.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple, Sequence

from manuka.layers.whiteouts import TRUSTED, is_opaque, is_whiteout
from manuka.linux.xattr import at

_FOLDER = os.O_PATH | os.O_DIRECTORY


class Found(NamedTuple):
    """What a stack shows under a name.

    path: the file on disk that is visible.
    status: its ``lstat``.
    folders: when it is a folder, all folders that merge there, uppermost first; else empty.
    """

    path: bytes
    status: os.stat_result
    folders: list[bytes]


def look_up(folders: Sequence[bytes], name: bytes, overlay_xattrs: str = TRUSTED) -> Found | None:
    """What is visible as `name` in the merged `folders`, or None."""
    top: Found | None = None
    for folder in folders:
        path = folder + b"/" + name
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return top or Found(path, status, [])
        if top is None:
            top = Found(path, status, [])
        top.folders.append(path)
        if is_opaque(path, overlay_xattrs):
            break
    return top


def find(folders: Sequence[bytes], path: bytes, overlay_xattrs: str = TRUSTED) -> Found | None:
    """What is visible at `path`, a clean relative one; symbolic links are not followed.

    Each step takes the same time, however long `path` is.
    """
    above, _, name = path.rpartition(b"/")
    place = [(folder, os.open(folder, _FOLDER)) for folder in folders]
    try:
        for step in above.split(b"/") if above else ():
            below = _step_down(place, step, overlay_xattrs)
            _close(place)
            place = below
        found = look_up([at(fd, b"") for _, fd in place], name, overlay_xattrs)
        if found is None:
            return None
        prefixes = {at(fd, b"") + b"/" + name: folder + b"/" + path for folder, fd in place}
        return Found(
            prefixes[found.path], found.status, [prefixes[folder] for folder in found.folders]
        )
    finally:
        _close(place)


def _step_down(
    place: Sequence[tuple[bytes, int]], name: bytes, overlay_xattrs: str
) -> list[tuple[bytes, int]]:
    """The folders that merge one name down: each layer's own, and an open descriptor of it."""
    below: list[tuple[bytes, int]] = []
    for folder, fd in place:
        try:
            child = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                break
            _close(below)
            raise
        below.append((folder, child))
        if is_opaque(at(fd, name), overlay_xattrs):
            break
    return below


def _close(place: Sequence[tuple[bytes, int]]) -> None:
    for _, fd in place:
        os.close(fd)


def visible_names(folders: Sequence[bytes], overlay_xattrs: str = TRUSTED) -> set[bytes]:
    """The names that the merged `folders` show."""
    candidates: set[bytes] = set()
    for folder in folders:
        candidates.update(os.listdir(folder))
    return {name for name in candidates if look_up(folders, name, overlay_xattrs) is not None}
