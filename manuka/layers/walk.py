"""Walking a tree that somebody may be changing, without ever leaving it.

A container can replace a folder by a link to ``/etc`` while the host walks through its files.
So every folder is opened from the root's descriptor, and no path is resolved outside of it.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from manuka.linux.openat2 import open_in_root

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def opened_root(root: str) -> Iterator[int]:
    """A descriptor of the folder `root` for the length of a ``with`` block."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_folder(root: int, path: str) -> Iterator[int]:
    """A descriptor of the folder at `path` ("" or "/": the root itself) below `root`."""
    descriptor = open_in_root(root, os.fsencode(path.lstrip("/") or "."), _OPEN_FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def walk(root: str) -> Iterator[tuple[int, str, list[os.DirEntry[str]]]]:
    """Each folder of the tree once: its descriptor, its path ("" for the root), its entries.

    The descriptor is valid until the next step.  Folders that vanish meanwhile are left out.
    The order is not defined, but that a folder comes before what it holds.
    """
    with opened_root(root) as root_fd:
        pending = [""]
        while pending:
            path = pending.pop()
            try:
                with opened_folder(root_fd, path) as folder, os.scandir(folder) as scan:
                    entries = list(scan)
                    yield folder, path, entries
            except (FileNotFoundError, NotADirectoryError):
                continue
            pending.extend(
                f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)
            )
