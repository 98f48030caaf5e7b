"""Where a report was made: what figures depend on beside the code."""

from __future__ import annotations

import os
import platform
import time
from typing import Dict, Tuple

from manuka import __version__


def facts(engine_version: str) -> Dict[str, str]:
    """By what each is called in the report."""
    return {
        "manuka": __version__,
        "engine": f"Docker {engine_version}",
        "kernel": platform.release(),
        "CPUs": f"{os.cpu_count()} ({_cpu_model()})",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "Python": platform.python_version(),
        "disks": "ext4 in loop files on tmpfs",
        "date": time.strftime("%Y-%m-%d"),
    }


def share_in_use(seconds: float = 2.0) -> float:
    """The share of the CPUs' time, 0 to 1, that others use now.  Takes so many seconds.

    The load average would tell of what ended a minute ago, too.
    """
    busy, all_of_it = _cpu_times()
    time.sleep(seconds)
    busy_then, all_then = _cpu_times()
    return (busy_then - busy) / max(1, all_then - all_of_it)


def _cpu_times() -> Tuple[int, int]:
    """Busy and altogether, in ticks since the start (proc(5))."""
    with open("/proc/stat") as file:
        user, nice, system, idle, iowait, *more = map(int, file.readline().split()[1:9])
    busy = user + nice + system + sum(more)
    return busy, busy + idle + iowait


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.machine()
