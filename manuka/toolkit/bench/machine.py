"""Where a report was made: what figures depend on beside the code."""

from __future__ import annotations

import os
import platform
import time
from typing import Dict

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


def is_busy() -> bool:
    """Whether something else has kept more than a quarter of the CPUs busy in the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 4


def load() -> str:
    """How busy the machine is with other things."""
    return "{:.1f}, {:.1f}, {:.1f} in 1, 5 and 15 minutes".format(*os.getloadavg())


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.machine()
