"""Runs of the kit as its users start it, in a process of its own, and what came of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kit looks into layers as root")


class Run(NamedTuple):
    """code: the exit code.  said: stdout and stderr.  checks: the report of each check."""

    code: int
    said: str
    checks: List[Dict[str, Any]]

    def of(self, outcome: str) -> List[str]:
        """The names of checks with this outcome, without parameters, each once."""
        return sorted(
            {c["check"].partition("[")[0] for c in self.checks if c["outcome"] == outcome}
        )

    def reason(self, check: str) -> str:
        return next(
            c["reason"] for c in self.checks if c["check"].startswith(check) and c["reason"]
        )


def conform(*arguments: object, timeout: float = 280) -> Run:
    """``manuka conform`` with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        ended = subprocess.run(
            [sys.executable, "-m", "manuka", "conform", *map(str, arguments), "--json", report],
            env=dict(os.environ, PYTHONPATH=str(ROOT), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        checks = []
        if os.path.exists(report):
            with open(report, encoding="utf-8") as file:
                checks = json.load(file)["checks"]
        return Run(ended.returncode, ended.stdout.decode("utf-8", "replace"), checks)


def roomy_folder() -> str:
    """Where homes of drivers are best made: in memory, if there is enough."""
    for folder in ("/dev/shm", "/var/tmp"):
        if os.path.isdir(folder):
            room = os.statvfs(folder)
            if room.f_bavail * room.f_frsize > 2 << 30:
                return folder
    return tempfile.gettempdir()
