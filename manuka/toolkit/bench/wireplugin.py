"""A plugin without an engine: in a namespace of its own, with its layers on a contender's disk.

Neighbours: `wire`, `costs` and `growth` measure on it.  Easy to get wrong: engines say Init first,
and so must the first to connect here.
"""

from __future__ import annotations

import os
import sys
import types
from typing import List, Optional, Type

from manuka.api import calls
from manuka.toolkit.bench.contender import Choice
from manuka.toolkit.bench.disk import Disk
from manuka.toolkit.bench.rows import GO
from manuka.toolkit.bench.wireclient import Wire
from manuka.toolkit.namespace import Namespace
from manuka.toolkit.plugin import Plugin


class WirePlugin:
    """The plugin of one contender, within a ``with`` block, initialised."""

    def __init__(self, name: str, disk: Disk, choice: Choice) -> None:
        self.name = name
        self.disk = disk
        self._program = program(name, choice)

    def __enter__(self) -> WirePlugin:
        self._namespace = Namespace(self.disk.folder)
        try:
            data = self._namespace.data
            self._plugin = Plugin(
                self._namespace,
                os.path.join(data, "log"),
                self.name,
                os.path.join(data, "run"),
                program=self._program if self.name == GO else None,
            )
            self.home = os.path.join(data, "home")
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, and initialise it as an engine does."""
        self._plugin.start()
        with self.connect() as wire:
            wire.call(calls.INIT, Home=self.home, Opts=None, UIDMaps=None, GIDMaps=None)

    def stop(self) -> None:
        """Stop it; its layers stay for another `start`."""
        self._plugin.stop()
        if os.path.exists(self.socket):  # a plain program leaves it
            os.unlink(self.socket)

    def close(self) -> None:
        self._plugin.stop(timeout=10)
        self._plugin.kill()
        self._namespace.close()

    @property
    def socket(self) -> str:
        return self._namespace.inside(self._plugin.socket)

    @property
    def pid(self) -> int:
        return self._plugin.pid

    def connect(self) -> Wire:
        return Wire(self.socket)


def program(name: str, choice: Choice) -> List[str]:
    """What starts a contender's plugin, but for the socket."""
    if name == GO:
        assert choice.go is not None
        return [choice.go]
    return [sys.executable, "-m", "manuka", "serve"]
