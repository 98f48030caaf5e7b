"""A sample of the soak (`benchmarks.soak`): a dozen seconds of its work.

There is no verdict on growth, which takes an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.registry import find

from .conftest import DRIVER

pytestmark = pytest.mark.skipif(DRIVER != "manuka", reason="it looks at the plugin")


def test_a_soak_fails_nowhere_and_leaves_nothing_behind(first_engine: str, tmp_path: Path) -> None:
    if find() is None:
        pytest.skip("no registry: apt-get install docker-registry")
    report = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.2", "--workers", "2",
         "--disk", "1G", "--engine", first_engine, "--json", str(report)],
        cwd=str(Path(__file__).parents[2]),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=280,
    )  # fmt: skip
    assert report.exists(), done.stdout.decode(errors="replace")
    found = json.loads(report.read_text())
    assert found["errors"] == []
    assert {"load", "run", "rmi"} <= set(found["operations"])
    for name in ("layers", "mounts"):
        assert found["rows"][name]["end"] == found["rows"][name]["start"]
