"""A driver on snapshots.  Begin with `manuka.btrfs.driver`."""

from manuka.btrfs.driver import Btrfs

__all__ = ["Btrfs"]
