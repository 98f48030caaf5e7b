"""The contenders: the same engine on the engine's own overlay2, on Manuka, and on the Go plugin.

Each has a disk, an engine in a sandbox with its data there, and `Docker` to ask it.  Neighbours:
`run` makes them, `scenarios` sets them to work.  Easy to get wrong: the plugins are told apart by
what runs them, not by the driver, which is overlay2 in all three.
"""

from __future__ import annotations

import types
from typing import List, NamedTuple, Optional, Type

from manuka.toolkit.bench.disk import Disk
from manuka.toolkit.bench.docker import Docker
from manuka.toolkit.bench.rows import GO, MANUKA, NATIVE
from manuka.toolkit.sandbox import Sandbox


class Choice(NamedTuple):
    """Who takes part.

    engine: the path of a dockerd; None: the first on the PATH.
    go: the path of the Go plugin; None: it takes no part.
    """

    engine: Optional[str] = None
    go: Optional[str] = None

    @property
    def names(self) -> List[str]:
        return [NATIVE, MANUKA] + [GO] * (self.go is not None)

    @property
    def plugins(self) -> List[str]:
        return self.names[1:]


class Contender:
    """One engine on one driver, within a ``with`` block."""

    def __init__(self, name: str, disk: Disk, choice: Choice) -> None:
        self.name = name
        self.disk = disk
        self._sandbox = Sandbox(
            choice.engine,
            "overlay2" if name == NATIVE else name,
            data_dir=disk.folder,
            plugin_program=[choice.go] if name == GO and choice.go else None,
            settings={"max-concurrent-downloads": 3},
        )

    def __enter__(self) -> Contender:
        self._sandbox.__enter__()
        self.docker = Docker(self._sandbox.inside(self._sandbox.engine.socket))
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        self._sandbox.close()

    @property
    def plugin_pid(self) -> Optional[int]:
        """None for the engine's own driver."""
        return None if self._sandbox.plugin is None else self._sandbox.plugin.pid

    @property
    def engine_version(self) -> str:
        return self._sandbox.program.version_text

    def log_end(self) -> str:
        """What engine and plugin said last."""
        return self._sandbox.last_words()
