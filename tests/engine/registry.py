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
    os.mkdir(folder)
    try:
        with _serving(program, folder) as port:
            yield f"localhost:{port}"
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _serving(program: str, folder: str) -> Iterator[int]:
    """The port of a registry; another one when somebody takes the first before it listens."""
    for _ in range(10):
        server, port = _start(program, folder)
        try:
            if _listens(server, port):
                yield port
                return
        finally:
            server.terminate()
            server.wait(60)
    with open(os.path.join(folder, "log")) as log:
        raise RuntimeError(f"the registry does not start: {log.read()}")


def _start(program: str, folder: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = os.path.join(folder, "config.yml")
    with open(config, "w") as file:
        file.write(
            f"version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: tests}}\nlog: {{level: error}}\n"
        )
    with open(os.path.join(folder, "log"), "w") as log:
        return subprocess.Popen([program, "serve", config], stdout=log, stderr=log), port


def _listens(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server listens; False when it has ended instead."""
    deadline = time.monotonic() + 60
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server.poll() is None
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.1)
    return False
