"""Plugins, disks and engines for the crash tests.

Tests with an engine use the fixtures of ``tests/engine``.  Crashes do not depend on the engine, so
only the first of ``MANUKA_ENGINES`` is tried, but for the tests that are marked ``every_engine``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.crash.plugins import Nursery
from tests.engine.conftest import (  # noqa: F401
    _engines,
    engine,
    make_sandbox,
    registry,
    workshop,
)
from tests.unit.mounts import mounted


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    first = _engines()[0]

    def wanted(item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        if not str(item.path).startswith(here) or callspec is None:
            return True
        every = item.get_closest_marker("every_engine") is not None
        return every or callspec.params.get("engine", first) == first

    items[:] = [item for item in items if wanted(item)]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder for a world, in memory: what a kill leaves does not depend on the disk."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a line at once, though the test passes."""

    def show(line: str) -> None:
        with capsys.disabled():
            # What a worker of pytest's says to its standard output goes nowhere.
            print(line, file=sys.stderr, flush=True)

    return show
