"""What the lab's tests share: roots to play on, and why there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import roots


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory):
    """`roots.play` in a folder of its own."""
    reason = roots.why_none()
    if reason and os.environ.get("CI"):
        pytest.fail(f"{reason}: in CI these tests have to run")
    if reason:
        pytest.skip(reason)

    def run(playbook: str, hosts: dict, *arguments: str) -> dict:
        folder: Path = tmp_path_factory.mktemp("play")
        return roots.play(folder, playbook, hosts, *arguments)

    return run
