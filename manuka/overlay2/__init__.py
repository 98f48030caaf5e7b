"""The reference driver: Moby's overlay2.  Begin with `manuka.overlay2.driver`."""

from manuka.overlay2.driver import Overlay2

__all__ = ["Overlay2"]
