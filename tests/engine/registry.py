"""A registry on this machine, which engines trust since it is local."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import Iterator


def find() -> str | None:
    """The registry's program, if it is on this machine."""
    return shutil.which("docker-registry") or shutil.which("registry")


@contextlib.contextmanager
def registry(program: str, folder: str) -> Iterator[str]:
    """Its address, for the length of a ``with`` block; it keeps its data in the new `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.mkdir(folder)
    config = os.path.join(folder, "config.yml")
    with open(config, "w") as file:
        file.write(
            f"version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: tests}}\nlog: {{level: error}}\n"
        )
    with open(os.path.join(folder, "log"), "w") as log:
        server = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        _wait_for_port(port)
        yield f"localhost:{port}"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
