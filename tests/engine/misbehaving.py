"""Plugins with one fault each, for what an engine then says (`test_guide`)."""

from __future__ import annotations

import os
import signal
from typing import Any, Optional

import bottle

from manuka.api import routes
from manuka.driver import CreateOptions, DriverError
from manuka.overlay2 import Overlay2


class RefusesToStart(Overlay2):
    def __init__(self, settings: Any) -> None:
        raise DriverError("the shelf is locked")


class AnswersInHtml(Overlay2):
    def create_read_write(
        self, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        super().create_read_write(layer_id, parent, options)
        routes._Call.succeed = lambda call, reply: b"<html>done</html>"  # type: ignore


class AnswersWithAnObject(Overlay2):
    def create_read_write(
        self, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        routes._Call.fail = _with_an_object  # type: ignore
        raise DriverError("the shelf is full")


def _with_an_object(call: Any, error: BaseException) -> bytes:
    bottle.response.status = 200
    return b'{"Err": {"message": "the shelf is full"}}'


class GivesTwoPaths(Overlay2):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        self._gets = getattr(self, "_gets", 0) + 1
        return super().get(layer_id, mount_label) + "/." * (self._gets % 5)


class MountsElsewhere(Overlay2):
    """As in a mount namespace of its own: what it gives is the empty folder below the mount."""

    def get(self, layer_id: str, mount_label: str = "") -> str:
        path = super().get(layer_id, mount_label)
        if path.endswith("merged") and not layer_id.endswith("-init"):
            super().put(layer_id)
            os.makedirs(path, exist_ok=True)
        return path


class DiesInACall(Overlay2):
    def create_read_write(
        self, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
