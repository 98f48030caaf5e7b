"""What a plugin costs while nobody asks anything of it, and how long it takes to be there.

`processes` reads the kernel's figures; memory and CPU under load are taken by `wire` and `run`.
Easy to get wrong: the start that a user waits for ends with a reply, not with a socket.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import List

from manuka.api import calls
from manuka.toolkit.bench.contender import Choice
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.bench.rows import GO
from manuka.toolkit.bench.wireclient import Wire
from manuka.toolkit.bench.wireplugin import program
from manuka.toolkit.namespace import with_this_package

IDLE_SECONDS = 30.0
_PATIENCE = 60.0


def start_of_service(name: str, choice: Choice) -> float:
    """Milliseconds from the start of the plugin's process to its first reply."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        socket = os.path.join(folder, "plugin.sock")
        words = program(name, choice)
        if name == GO:
            words += [socket]
        else:
            words += ["--socket", socket, "--run-dir", os.path.join(folder, "run")]
        began = time.perf_counter()
        child = _quiet(words)
        try:
            while True:
                try:
                    with Wire(socket) as wire:
                        wire.call(calls.ACTIVATE)
                    return (time.perf_counter() - began) * 1000
                except OSError:
                    if child.poll() is not None or time.perf_counter() - began > _PATIENCE:
                        raise BenchError("{} does not start".format(" ".join(words))) from None
                    time.sleep(0.0005)
        finally:
            child.terminate()
            child.wait()


def start_of_python() -> float:
    """Milliseconds that ``python -c pass`` takes."""
    began = time.perf_counter()
    _quiet([sys.executable, "-c", "pass"]).wait()
    return (time.perf_counter() - began) * 1000


def _quiet(words: List[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *words],  # which ends it with this process
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=with_this_package(os.environ),
        start_new_session=True,
    )
