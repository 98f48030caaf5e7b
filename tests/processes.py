"""Processes of one test, told apart from those of all others on the machine.

Other tests run at the same time, and perhaps other people's: a test that looks at the machine's
processes has to look for what no other's have, a folder's name in the command line or a mark in
the environment.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
import uuid
from typing import Dict, List, Mapping


def commands_with(text: str) -> List[str]:
    """Command lines with `text` in them, but for this process' own."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            command = file.read().replace(b"\0", b" ").decode(errors="replace")
            if text in command and not path.startswith(f"/proc/{os.getpid()}/"):
                found.append(command)
    return found


class Marked:
    """Processes with a mark in their environment; children inherit it, also after `setsid`."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex

    def environment(self, env: Mapping[str, str]) -> Dict[str, str]:
        """`env` with the mark, for the first of them."""
        return dict(env, MANUKA_TEST_MARK=self._mark)

    def pids(self) -> List[int]:
        """Those that run."""
        found = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if self._mark.encode() in file.read():
                    found.append(int(path.split("/")[2]))
        return found

    def gone(self, patience: float = 60) -> bool:
        """Whether all of them end by themselves within `patience` seconds."""
        deadline = time.monotonic() + patience
        while self.pids():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self, patience: float = 60) -> None:
        """End those that still run: by SIGTERM, and by SIGKILL after `patience` seconds."""
        self._signal(signal.SIGTERM)
        if not self.gone(patience):
            self._signal(signal.SIGKILL)
            assert self.gone(patience), "a process survives SIGKILL"

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
