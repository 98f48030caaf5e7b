"""Vfs: a layer is a copy of its parent, file by file.

It runs on any file system and in any kernel, and needs as much room as all layers together; where
the file system can share blocks between files (btrfs, xfs) it needs no more than what differs.
Use it where an overlayfs cannot be had, such as inside a container; and to see what a driver is.
`manuka.whole` keeps layers safe, `manuka.layers.copy` copies.

Its idea is that of the engine's ``daemon/graphdriver/vfs``; the layout is its own.
"""

from __future__ import annotations

import os

from manuka.driver import Settings
from manuka.layers.copy import copy_tree
from manuka.linux.reflink import can_clone
from manuka.linux.tree import remove_tree
from manuka.whole import WholeTrees


class Vfs(WholeTrees):
    """See the module's text."""

    name = "vfs"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._clones = can_clone(settings.home)

    def status(self) -> list[tuple[str, str]]:
        """Also, whether copies share their blocks."""
        return [*super().status(), ("Copies share blocks", "true" if self._clones else "false")]

    def make_tree(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def copy_tree(self, source: str, path: str) -> None:
        os.mkdir(path, 0o700)
        copy_tree(source, path)

    def remove_tree(self, path: str) -> None:
        remove_tree(path)
