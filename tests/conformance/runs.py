"""Runs of the kit as its users start it, in a process of its own, and what came of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Union

import pytest

from tests.unit.wire import accepts

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


def command(*arguments: object) -> List[str]:
    """The command line of ``manuka conform`` with these arguments."""
    return [sys.executable, "-m", "manuka", "conform", *map(str, arguments)]


def environment() -> Dict[str, str]:
    """What it runs in: this source, and no plugin of pytest's that happens to be installed."""
    return dict(os.environ, PYTHONPATH=str(ROOT), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def conform(
    *arguments: object, timeout: float = 280, report: Union[Path, str, None] = "report.json"
) -> Run:
    """``manuka conform`` with these arguments; report: where to write the results as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        if report is not None:
            report = os.path.join(folder, str(report))
            arguments = (*arguments, "--json", report)
        ended = subprocess.run(
            command(*arguments),
            env=environment(),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        checks = []
        if report is not None and os.path.exists(report):
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


class Served(NamedTuple):
    """socket: of a ``manuka serve`` process.  restart, kill: shell commands for it."""

    socket: Path
    restart: str
    kill: str


@contextlib.contextmanager
def serving(tmp_path: Path, driver: str) -> Iterator[Served]:
    """A ``manuka serve`` process with this driver, and the commands to restart and kill it."""
    path, pid = tmp_path / "plugin.sock", tmp_path / "pid"
    serve = (
        f"PYTHONPATH={ROOT} exec {sys.executable} -m manuka serve --socket {path} "
        f"--driver {driver} --run-dir {tmp_path / 'run'} >>{tmp_path / 'log'} 2>&1"
    )
    start = f"sh -c 'echo $$ >{pid}; {serve}' &"
    end = f"while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.05; done"
    subprocess.run(start, shell=True, check=True)
    while not accepts(str(path)):
        pass
    try:
        yield Served(
            path,
            restart=f"kill $(cat {pid}) 2>/dev/null; {end}; {start}",
            kill=f"kill -KILL $(cat {pid}); {end}",
        )
    finally:
        subprocess.run(f"kill -KILL $(cat {pid})", shell=True, check=True)
