"""Btrfs: a layer is a subvolume, and begins as a snapshot of its parent's.

To make one takes the same time however much it holds, and it needs room for what differs only.
`manuka.whole` keeps layers safe, `manuka.linux.btrfs` speaks to the kernel.  Sizes are not
limited: a qgroup for each layer would slow the whole file system down, so the option is refused.

Its idea is that of the engine's ``daemon/graphdriver/btrfs``; the layout is its own.  Easy to get
wrong: a container may make subvolumes in its own, which a snapshot shows as empty folders.
"""

from __future__ import annotations

from manuka.driver import DriverError
from manuka.layers.copy import copy_tree
from manuka.linux import statfs
from manuka.linux.btrfs import copy_subvolume, create_subvolume, delete_subvolume, is_subvolume
from manuka.linux.tree import remove_tree
from manuka.whole import WholeTrees


class Btrfs(WholeTrees):
    """See the module's text."""

    name = "btrfs"

    def examine(self, folder: str) -> None:
        if statfs.magic(folder) != statfs.BTRFS:
            raise DriverError(
                f"the driver btrfs needs a btrfs for its layers, but {folder} is on "
                f"{statfs.filesystem_name(folder)}: mount a btrfs there, or put the engine's "
                "data-root on one"
            )

    def make_tree(self, path: str) -> None:
        create_subvolume(path)

    def copy_tree(self, source: str, path: str) -> None:
        if is_subvolume(source):
            copy_subvolume(source, path)
        else:  # brought here by a backup, or by the driver vfs
            create_subvolume(path)
            copy_tree(source, path)

    def remove_tree(self, path: str) -> None:
        if is_subvolume(path):
            delete_subvolume(path)
        else:
            remove_tree(path)
