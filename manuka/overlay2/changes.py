"""What a layer changes, read off its own folder.

The engine mounts a layer and its parent and compares every file of both.  But whatever differs
has been copied up, so the layer's own folder, the *upper*, names all candidates; each is looked
up in the layers below to see what it was before.  The result is that of the comparison
(`manuka.layers.changes`), in time that depends on the change alone.

Easy to get wrong: a file in the upper need not differ (it may have been opened for writing, or
changed back); and an opaque folder deletes whatever is below it, at any depth, without naming it.
"""

from __future__ import annotations

import os
import stat
from typing import Sequence

from manuka.layers import stack
from manuka.layers.changes import Change, ChangeList, Entry, Kind, same
from manuka.layers.walk import opened_folder, opened_root
from manuka.layers.whiteouts import is_opaque, is_whiteout
from manuka.linux.xattr import at, get_xattr


class Redirected(Exception):
    """The upper does not hold all that it shows: a folder or a file's contents lie elsewhere."""


def upper_changes(upper: str, lowers: Sequence[str], overlay_xattrs: str) -> list[Change]:
    """What the folder `upper` changes in the layers `lowers`, nearest first; sorted by path.

    Raises Redirected for layers made with ``redirect_dir`` or ``metacopy``.
    """
    return _UpperWalk(lowers, overlay_xattrs).run(upper)


class _UpperWalk:
    def __init__(self, lowers: Sequence[str], overlay_xattrs: str) -> None:
        self._found = ChangeList()
        self._xattrs = overlay_xattrs
        # Folders of the upper still to look at, each with what it was before: the folders below
        # that merged there, and whether a folder above it hides them now.
        self._pending: list[tuple[str, list[bytes], bool]] = [
            ("", [os.fsencode(lower) for lower in lowers], False)
        ]

    def run(self, upper: str) -> list[Change]:
        with opened_root(upper) as root:
            while self._pending:
                path, below, hidden = self._pending.pop()
                try:
                    with opened_folder(root, path) as folder:
                        self._look_at_folder(folder, path, below, hidden)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # It vanished while we walked: a container may be running on it.
        return self._found.sorted()

    def _look_at_folder(self, folder: int, path: str, below: list[bytes], hidden: bool) -> None:
        # The kernel marks the uppermost of folders made anew, and none of those in it.
        hidden = hidden or bool(path and below and is_opaque(folder, self._xattrs))
        names = os.listdir(folder)
        for name in names:
            self._look_at(folder, path, name, below, hidden)
        if hidden and below:
            here = {os.fsencode(name) for name in names}
            for gone in stack.visible_names(below, self._xattrs) - here:
                self._found.add(f"{path}/{os.fsdecode(gone)}", Kind.DELETE)

    def _look_at(
        self, folder: int, parent: str, name: str, below: list[bytes], hidden: bool
    ) -> None:
        path = f"{parent}/{name}"
        encoded = os.fsencode(name)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        before = stack.look_up(below, encoded, self._xattrs)
        if is_whiteout(status):
            if before:
                self._found.add(path, Kind.DELETE)
            return
        entry = Entry(at(folder, encoded), status)
        self._refuse_redirection(entry)
        if before is None:
            self._found.add(path, Kind.ADD)
        elif not same(entry, Entry(before.path, before.status)):
            self._found.add(path, Kind.MODIFY)
        if entry.is_folder:
            self._pending.append((path, before.folders if before else [], hidden))

    def _refuse_redirection(self, entry: Entry) -> None:
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            record = "redirect"
        elif stat.S_ISREG(mode):
            record = "metacopy"
        else:
            return
        if get_xattr(entry.handle, self._xattrs + record) is not None:
            raise Redirected
