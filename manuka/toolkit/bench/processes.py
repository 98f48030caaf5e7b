"""Memory and CPU of a plugin: its process with all below it.

A plugin may unpack in children (the one in Go runs copies of itself), so they count.  The memory
is that which is resident, at its highest since `Watch` began: the process's own peak is kept by
the kernel (VmHWM of proc(5)), that of children is looked at now and then.  Easy to get
wrong: the CPU time of children that have ended and were waited for is the parent's ``cutime``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import types
from typing import Dict, List, Optional, Type

_TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> List[int]:
    """A process and all below it."""
    found, open_ends = [pid], [pid]
    while open_ends:
        parent = open_ends.pop()
        with contextlib.suppress(OSError):  # it has just ended
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    children = [int(word) for word in file.read().split()]
                found += children
                open_ends += children
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of its living children and of those it waited for."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(OSError):
            with open(f"/proc/{process}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICK


def run_nanoseconds(pid: int) -> int:
    """Time on a CPU of a process and its living children; finer than `cpu_seconds`."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{process}/task"):
                with contextlib.suppress(OSError), open(
                    f"/proc/{process}/task/{task}/schedstat"
                ) as file:
                    total += int(file.read().split()[0])
    return total


def peak_bytes(pid: int) -> int:
    """The highest that the process was resident since the last reset; 0 if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Watch:
    """Memory and CPU of a plugin during a ``with`` block.

    peak: bytes; cpu: seconds; both when the block has ended.
    pause: seconds between two looks at the children.
    """

    peak = 0
    cpu = 0.0

    def __init__(self, pid: int, pause: float = 0.1) -> None:
        self._pid = pid
        self._pause = pause
        self._children_peak = 0
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        for process in family(self._pid):
            with contextlib.suppress(OSError), open(f"/proc/{process}/clear_refs", "w") as file:
                file.write("5")
        self._cpu_before = cpu_seconds(self._pid)
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look_once()
        self.peak = peak_bytes(self._pid) + self._children_peak
        self.cpu = cpu_seconds(self._pid) - self._cpu_before

    def _look(self) -> None:
        while not self._end.wait(self._pause):
            self._look_once()

    def _look_once(self) -> None:
        children = sum(peak_bytes(process) for process in family(self._pid)[1:])
        self._children_peak = max(self._children_peak, children)


def idle_cpu(pids: Dict[str, int], seconds: float) -> Dict[str, float]:
    """Seconds of CPU in a minute that processes take while nobody asks them for anything."""
    before = {name: run_nanoseconds(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {
        name: (run_nanoseconds(pid) - before[name]) / 1e9 * 60 / seconds
        for name, pid in pids.items()
    }
