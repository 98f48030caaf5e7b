"""The smallest driver that is right: plain copies.  Begin with `manuka.vfs.driver`."""

from manuka.vfs.driver import Vfs

__all__ = ["Vfs"]
