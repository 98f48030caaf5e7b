"""The pairs of engines that are held against each other, on each dockerd of ``MANUKA_ENGINES``."""

from __future__ import annotations

from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox
from tests.engine.conftest import engine, workshop

from .comparison import Pair
from .sides import Side

__all__ = ["engine", "workshop"]


@pytest.fixture(scope="session")
def native(engine: str, workshop: str) -> Iterator[Side]:
    """The engine on its own overlay2."""
    with Sandbox(engine, "overlay2", data_dir=workshop) as sandbox:
        yield Side(sandbox)


@pytest.fixture(scope="session")
def manuka(engine: str, workshop: str) -> Iterator[Side]:
    """The engine on the plugin."""
    with Sandbox(engine, data_dir=workshop) as sandbox:
        yield Side(sandbox)


@pytest.fixture(scope="session")
def pair(native: Side, manuka: Side) -> Pair:
    """Both, side by side."""
    return Pair(native, manuka, better=True)
