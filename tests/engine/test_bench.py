"""``manuka bench`` on a real engine: it measures, and leaves nothing, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, Optional

import pytest

from manuka.linux.mountinfo import mounts
from manuka.toolkit.bench.rows import ROWS
from manuka.toolkit.namespace import with_this_package
from tests.processes import Marked

from .conftest import DRIVER

pytestmark = [
    pytest.mark.one_engine,
    pytest.mark.skipif(DRIVER != "manuka", reason="it brings its own drivers"),
]


class Bench:
    """A quick run, whose processes can be told from those of others."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.all = Marked()
        self.report = folder / "report.json"
        self.errors = folder / "errors"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "manuka", "bench", "--quick", "--no-go"),
                    *("--engine", engine, "--json", str(self.report)),
                    *("--svg", str(folder / "report.svg")),
                ],
                env=self.all.environment(with_this_package(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def wait_for(self, words: str) -> None:
        """Until it says what it is about to do."""
        deadline = time.monotonic() + 240
        while words not in self.errors.read_text():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.05)

    def end(self, number: Optional[int] = None) -> str:
        """What it has said when it has ended, perhaps by a signal."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=280)[0].decode()


@pytest.fixture
def bench(engine: str, tmp_path: Path) -> Iterator[Bench]:
    """A quick run that has begun; when the test is over, nothing of it may be left."""
    run = Bench(engine, tmp_path)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
    try:
        assert run.all.gone()
    finally:
        run.all.end()
    here = [mount.mount_point for mount in mounts()]
    assert not [point for point in here if point.endswith(("/native", "/manuka"))]


def test_a_quick_run_measures_engines_and_plugin(bench: Bench) -> None:
    said = bench.end()
    assert bench.process.returncode == 0, said + bench.errors.read_text()
    report = json.loads(bench.report.read_text())
    assert report["failures"] == []
    figures = report["figures"]
    for row in ("run", "rm", "cp-in", "cp-out", "run-8", "load-many", "load-60-layers",
                "rmi-60-layers", "save-many", "diff", "commit"):  # fmt: skip
        assert set(figures[row]) == {"native", "manuka"}
        assert all(found["figure"] > 0 for found in figures[row].values())
    for row in ("get-put", "exists", "apply-many", "memory-4", "memory-diff-4", "start", "idle"):
        assert figures[row]["manuka"]["unit"] == ROWS[row].unit
        assert figures[row]["manuka"]["figure"] >= 0
    assert report["facts"]["kernel"] == os.uname().release
    assert ROWS["run"].title in said
    assert (bench.report.parent / "report.svg").read_text().endswith("</svg>\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_reports_what_it_has(bench: Bench, number: int) -> None:
    bench.wait_for("many files: preparing")
    said = bench.end(number)
    assert bench.process.returncode == 128 + number
    warning = f"interrupted by {signal.Signals(number).name}: these are not all figures"
    assert said.startswith(warning)
    assert warning in (bench.report.parent / "report.svg").read_text()
    report = json.loads(bench.report.read_text())
    assert report["interrupted"] == signal.Signals(number).name
    assert set(report["figures"]["run"]) == {"native", "manuka"}
    assert "memory-4" not in report["figures"]


def test_a_run_that_is_killed_leaves_nothing(bench: Bench) -> None:
    bench.wait_for("8 at once: round")
    assert len(bench.all.pids()) > 5
    bench.end(signal.SIGKILL)
