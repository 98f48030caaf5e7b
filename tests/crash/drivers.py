"""Drivers for the retry trap: one that stalls in a layer, and one without Manuka's guards.

A file ``stall`` beside the driver's home makes the next ApplyDiff stop half-way, until the plugin
is killed; by then the engine has sent the whole layer.
"""

from __future__ import annotations

import io
import os
import time
from typing import Any, Optional

import manuka.api.routes
from manuka.errors import ManukaError
from manuka.layers.tar import Stream
from manuka.overlay2 import Overlay2


class Stalling(Overlay2):
    """Manuka's own driver, that can be met in the middle of a layer."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Stream) -> int:
        flag = os.path.join(os.path.dirname(self.settings.home), "stall")
        if os.path.exists(flag):
            return super().apply_diff(layer_id, parent, _Half(stream, flag))
        return super().apply_diff(layer_id, parent, stream)


class StallingExact(Stalling):
    """The same, and the engine believes that its diffs are exact: it then keeps no record of its
    own of a layer's tar, and its retry is a request whose body ends at once, instead of one that
    it breaks off itself."""

    reproduces_exact_diffs = True


class Unguarded(StallingExact):
    """What a simple driver does: no mark on a layer that is not whole, and a body is what comes."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Stream) -> int:
        layer = self._home.existing(layer_id)
        if layer.is_unpacking():
            os.unlink(layer.unpacking)
        try:
            body = _everything(stream)
        except ManukaError:
            body = b""
        if not body:
            return 0
        return super().apply_diff(layer_id, parent, io.BytesIO(body))


def _serve_without_the_servers_guard(stream: Any) -> None:
    """For `manuka.api.routes`: nobody asks whether there was anything in the body."""


if os.environ.get("MANUKA_UNGUARDED"):
    manuka.api.routes._refuse_empty = _serve_without_the_servers_guard


class _Half(io.RawIOBase):
    """Takes the whole stream, hands on one half, and waits for the end of the world."""

    def __init__(self, stream: Stream, flag: str) -> None:
        self._all = _everything(stream)
        self._half = io.BytesIO(self._all[: len(self._all) // 2])
        self._flag = flag

    def readinto(self, buffer: Any) -> int:
        data = self._half.read(len(buffer))
        if not data:
            os.rename(self._flag, self._flag + "ed")
            time.sleep(3600)
        buffer[: len(data)] = data
        return len(data)


def _everything(stream: Stream) -> bytes:
    found = io.BytesIO()
    room = bytearray(1 << 16)
    count = stream.readinto(room)
    while count:
        found.write(room[:count])
        count = stream.readinto(room)
    return found.getvalue()
