"""A registry on this machine for `scenarios.Pull`: docker-registry, with its data in memory.

Engines trust a registry on 127.0.0.1 without TLS.  It ends with this process, whatever ends it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Optional

from manuka.toolkit.bench.disk import BenchError

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: '{address}'}}
"""


def find() -> Optional[str]:
    """The registry's program, if it is there."""
    return shutil.which("docker-registry") or shutil.which("registry")


class Registry:
    """A registry that is started when it is needed.

    parent: where its folder is made.
    address: where it listens, once it is started.
    """

    address = ""

    def __init__(self, program: str, parent: str) -> None:
        self._program = program
        self._parent = parent
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = tempfile.mkdtemp(prefix="registry-", dir=self._parent)
        config = os.path.join(self._folder, "config.yml")
        with open(config, "w") as file:
            file.write(_CONFIG.format(folder=self._folder, address=self.address))
        self._process = subprocess.Popen(
            # It has to end when this process does, even if it is killed.
            ["setpriv", "--pdeathsig", "KILL", self._program, "serve", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            shutil.rmtree(self._folder)

    def _wait(self) -> None:
        assert self._process is not None
        host, _, port = self.address.partition(":")
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{self._program} does not come up") from None
                time.sleep(0.05)
