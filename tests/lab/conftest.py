"""What the lab's tests share: roots to play on, an engine for machines, and why there are none."""

from __future__ import annotations

import os
from pathlib import Path

import machines
import pytest
import roots


def _go_on_without(reason: str) -> None:
    """Skips the test if there is a reason; in CI there must be none."""
    if reason and os.environ.get("CI"):
        pytest.fail(f"{reason}: in CI these tests have to run")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory):
    """`roots.play` in a folder of its own."""
    _go_on_without(roots.why_none())

    def run(playbook: str, hosts: dict, *arguments: str) -> dict:
        folder: Path = tmp_path_factory.mktemp("play")
        return roots.play(folder, playbook, hosts, *arguments)

    return run


@pytest.fixture(scope="session")
def engine() -> None:
    """The Docker engine that `docker` reaches can hold machines."""
    _go_on_without(machines.why_none())
