"""Lower layers, seen as overlayfs merges them, without mounting anything.

A *place* in a stack is the list of folders that merge there, uppermost first: at the root, the
``diff`` folders of all layers.  `look_up` goes one name down.  The rules are the kernel's
(``fs/overlayfs/namei.c``): the first layer that has the name decides; folders go on merging with
the folders below them until one is opaque, or a layer has something else, or a whiteout.

Layers in a stack have children, so nothing writes to them any more and paths cannot change
under us.  Do not use this on an upper folder in use.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Sequence

from manuka.layers.whiteouts import TRUSTED, is_opaque, is_whiteout


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
    """What is visible at `path`, a clean relative one; symbolic links are not followed."""
    found: Found | None = None
    for name in path.split(b"/"):
        found = look_up(folders, name, overlay_xattrs)
        if found is None:
            return None
        folders = found.folders
    return found


def visible_names(folders: Sequence[bytes], overlay_xattrs: str = TRUSTED) -> set[bytes]:
    """The names that the merged `folders` show."""
    candidates: set[bytes] = set()
    for folder in folders:
        candidates.update(os.listdir(folder))
    return {name for name in candidates if look_up(folders, name, overlay_xattrs) is not None}
