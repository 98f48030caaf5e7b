"""One lock for each layer id, made when somebody wants it and gone with the last who does.

A call locks the layers it changes, never the driver: unpacking a large layer must not hold up
a container's start.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Iterator


class LayerLocks:
    """Locks by id.  A thread may take one that it holds already."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, _Counted] = {}

    @contextlib.contextmanager
    def hold(self, layer_id: str) -> Iterator[None]:
        """Keep other threads away from this layer for the length of a ``with`` block."""
        with self._guard:
            counted = self._locks.setdefault(layer_id, _Counted())
            counted.users += 1
        try:
            with counted.lock:
                yield
        finally:
            with self._guard:
                counted.users -= 1
                if not counted.users:
                    del self._locks[layer_id]


class _Counted:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
