"""The plugin's process in a sandbox: ``manuka serve`` on the socket where engines look for it.

The sandbox covers ``/run/docker``, so the socket has its usual name without meeting another one
on the host.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Sequence

from manuka.linux.private import make_directories
from manuka.toolkit.daemon import Daemon
from manuka.toolkit.namespace import Namespace, with_this_package

SOCKET_FOLDER = "/run/docker/plugins"
DEFAULT_NAME = "manuka"


class Plugin(Daemon):
    """``manuka serve`` for one driver.

    driver: ``manuka`` for the one of this package, or what ``manuka serve --driver`` takes: a
        ``MODULE:CLASS``, or a name from the entry points.
    run_dir: where it records what must outlive it.
    socket: where it listens; None: where the engine looks for it.
    arguments: further ones for ``manuka serve``.
    program: another plugin instead of ``manuka serve``: the words that start it, to which the
        socket's path is added.  `driver` is then its name for the engine.
    """

    name = "the plugin"

    def __init__(
        self,
        namespace: Namespace,
        log: str,
        driver: str,
        run_dir: str,
        arguments: Sequence[str] = (),
        socket: str | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        super().__init__(namespace)
        self.log = log
        self.driver_name = name_of(driver)
        #: Where the engine looks for the plugin.
        self.engines_socket = f"{SOCKET_FOLDER}/{self.driver_name}.sock"
        self.socket = socket or self.engines_socket
        self._arguments = ["--socket", self.socket] if socket else []
        self._arguments += ["--name", self.driver_name, "--run-dir", run_dir]
        if driver != DEFAULT_NAME:
            self._arguments += ["--driver", driver]
        self._arguments += arguments
        self._program = program

    def command(self) -> list[str]:
        if self._program is not None:
            # Any program can listen in a folder that is there; `manuka serve` makes its own.
            make_directories(os.path.dirname(self._namespace.inside(self.socket)), 0o700)
            return [*self._program, self.socket]
        return [sys.executable, "-m", "manuka", "serve", *self._arguments]

    def environment(self) -> dict[str, str]:
        return with_this_package(os.environ)

    def is_ready(self) -> bool:
        return accepts(self._namespace.inside(self.socket))


def name_of(driver: str) -> str:
    """The name by which the engine knows a driver; a ``MODULE:CLASS`` goes by the usual one.

    It is not made from the class, for engines unmount behind the back of a driver whose name
    ends like that of one of their own.
    """
    return DEFAULT_NAME if ":" in driver else driver


def accepts(path: str) -> bool:
    """Whether a process listens on the UNIX socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(path)
        except OSError:
            return False
        return True
