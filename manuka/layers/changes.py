"""What differs between two trees: the answer to ``docker diff``, and what a naive diff packs.

The rules are the engine's (``pkg/archive/changes.go``), with two faults mended: a symbolic link
that points elsewhere is a change, and so is a file rewritten within the same second.

- Two entries are the same when type, permissions, owner and device number agree, and so do,
  for anything but a folder, length, modification time and ``security.capability``.
- A folder's own time and length do not count; whatever changes in it does, and makes the folder,
  and each above it but the root, a modification.
- Of what was deleted only the top is listed; of what was added, everything.

`compare_trees` walks both trees, whatever they are.  `manuka.overlay2.changes` finds the same
answer faster.
"""

from __future__ import annotations

import enum
import os
import stat
from typing import NamedTuple

from manuka.layers.walk import opened_folder, opened_root
from manuka.linux.xattr import at, get_xattr

_CAPABILITY = "security.capability"


class Kind(enum.IntEnum):
    """What happened to a path; the numbers are the protocol's."""

    MODIFY = 0
    ADD = 1
    DELETE = 2


class Change(NamedTuple):
    """path: absolute within the tree, without a slash at its end."""

    path: str
    kind: Kind


class ChangeList:
    """Collects changes, and with each the modified folders above it."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def add(self, path: str, kind: Kind) -> None:
        """Note that `path` changed."""
        self._kinds[path] = kind
        folder = path.rpartition("/")[0]
        while folder and folder not in self._kinds:
            self._kinds[folder] = Kind.MODIFY
            folder = folder.rpartition("/")[0]

    def sorted(self) -> list[Change]:
        """All changes, folders before what they hold."""
        return [Change(path, kind) for path, kind in sorted(self._kinds.items())]


class Entry(NamedTuple):
    """One side of a comparison.

    handle: a path that leads to the file itself, for its attributes and its link target.
    """

    handle: bytes
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder (and not a link to one)."""
        return stat.S_ISDIR(self.status.st_mode)


def same(new: Entry, old: Entry) -> bool:
    """Whether two entries count as unchanged, apart from what folders hold."""
    a, b = new.status, old.status
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev):
        return False
    if not new.is_folder and (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns):
        return False
    if stat.S_ISLNK(a.st_mode) and os.readlink(new.handle) != os.readlink(old.handle):
        return False
    return get_xattr(new.handle, _CAPABILITY) == get_xattr(old.handle, _CAPABILITY)


def compare_trees(tree: str, base: str) -> list[Change]:
    """What makes `tree` of `base`, both folders, sorted by path."""
    found = ChangeList()
    with opened_root(tree) as tree_fd, opened_root(base) as base_fd:
        pending: list[tuple[str, bool]] = [("", True)]
        while pending:
            path, in_base = pending.pop()
            try:
                pending.extend(_compare_folder(found, path, tree_fd, base_fd if in_base else None))
            except (FileNotFoundError, NotADirectoryError):
                continue  # It vanished while we walked: a container may be running on it.
    return found.sorted()


def _compare_folder(
    found: ChangeList, path: str, tree: int, base: int | None
) -> list[tuple[str, bool]]:
    """Compare the entries of one folder; return the folders in it that are still to compare."""
    with opened_folder(tree, path) as new_folder:
        new = _entries(new_folder)
        if base is None:
            for name in new:
                found.add(f"{path}/{name}", Kind.ADD)
            return [(f"{path}/{name}", False) for name, entry in new.items() if entry.is_folder]
        with opened_folder(base, path) as old_folder:
            old = _entries(old_folder)
            return _compare_entries(found, path, new, old)


def _compare_entries(
    found: ChangeList, path: str, new: dict[str, Entry], old: dict[str, Entry]
) -> list[tuple[str, bool]]:
    folders = []
    for name, entry in new.items():
        before = old.pop(name, None)
        if before is None:
            found.add(f"{path}/{name}", Kind.ADD)
        elif not same(entry, before):
            found.add(f"{path}/{name}", Kind.MODIFY)
        if entry.is_folder:
            folders.append((f"{path}/{name}", before is not None and before.is_folder))
    for name in old:
        found.add(f"{path}/{name}", Kind.DELETE)
    return folders


def _entries(folder: int) -> dict[str, Entry]:
    entries = {}
    for name in os.listdir(folder):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue  # Deleted meanwhile, or a whiteout that an overlayfs lists but hides.
        entries[name] = Entry(at(folder, os.fsencode(name)), status)
    return entries
