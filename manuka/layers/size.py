"""How many bytes a layer holds, as ``docker images`` and ``docker ps --size`` show it.

The rule is the engine's (``pkg/directory``): the lengths of everything that is not a folder,
symbolic links included; a file with several names counts once; holes count as data.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterable

from manuka.layers.changes import Change, Kind
from manuka.layers.walk import opened_folder, opened_root, walk


class SizeCounter:
    """Adds up file sizes, each inode once."""

    def __init__(self) -> None:
        self.total = 0
        self._linked: set[tuple[int, int]] = set()

    def add(self, status: os.stat_result) -> None:
        """Count one name of a file."""
        if status.st_size == 0 or stat.S_ISDIR(status.st_mode):
            return
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            if inode in self._linked:
                return
            self._linked.add(inode)
        self.total += status.st_size


def tree_size(root: str) -> int:
    """Bytes in all files below the folder `root`.  Files that vanish meanwhile do not count."""
    counter = SizeCounter()
    for folder, _, entries in walk(root):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                _add_if_there(counter, folder, entry.name)
    return counter.total


def changes_size(tree: str, changes: Iterable[Change]) -> int:
    """Bytes in the files of `tree` that `changes` lists as added or modified."""
    counter = SizeCounter()
    with opened_root(tree) as root:
        for change in changes:
            if change.kind is Kind.DELETE:
                continue
            parent, _, name = change.path.rpartition("/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with opened_folder(root, parent) as folder:
                    _add_if_there(counter, folder, name)
    return counter.total


def _add_if_there(counter: SizeCounter, folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        counter.add(os.stat(name, dir_fd=folder, follow_symlinks=False))
