"""A plugin's real process, for tests that ask what it is left with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from tests.unit.mounts import unmounted_after
from tests.unit.wire import Reply, Wire, accepts, request


class Plugin(NamedTuple):
    """`manuka serve` with overlay2 at `home`, as after Init."""

    process: subprocess.Popen
    socket: str
    home: Path

    def wire(self) -> Wire:
        return Wire(self.socket)

    def call(self, method: str, message: object) -> Reply:
        """A call on a connection of its own."""
        with self.wire() as wire:
            wire.send(request(f"/GraphDriver.{method}", message))
            return wire.reply()

    @property
    def peak_memory(self) -> int:
        """Bytes of the process' memory that were resident at most."""
        return int(self._status("VmHWM").split()[0]) << 10

    @property
    def threads(self) -> int:
        return int(self._status("Threads"))

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def settles_at(self, threads: int, descriptors: int) -> bool:
        """Whether it comes down to so many threads and descriptors within a minute."""
        deadline = time.monotonic() + 60
        while self.threads > threads or self.descriptors > descriptors:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _status(self, field: str) -> str:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return status.split(f"{field}:")[1].split("\n")[0]


@contextlib.contextmanager
def served(folder: Path, **how: Any) -> Iterator[Plugin]:
    """A plugin in `folder` for the length of a ``with`` block; `how` is Popen's."""
    socket, home = str(folder / "plugins" / "plugin.sock"), folder / "home"
    command = ["serve", "--socket", socket, "--run-dir", str(folder / "run"), "--home", str(home)]
    with unmounted_after(folder), open(folder / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "manuka", *command], stderr=log, **how)
        try:
            deadline = time.monotonic() + 60
            while not accepts(socket):
                assert process.poll() is None, "the plugin ended"
                assert time.monotonic() < deadline, "the plugin does not listen"
                time.sleep(0.05)
            yield Plugin(process, socket, home)
        finally:
            process.terminate()
            process.wait(60)
