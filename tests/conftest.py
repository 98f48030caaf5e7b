"""What all kinds of tests share: a mark for those that one engine is enough for, and no deadlines.

A machine that is busy with something else makes no test fail.
"""

from __future__ import annotations

import contextlib
from typing import List

import pytest

with contextlib.suppress(ImportError):  # which tests of machines do without
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Of tests marked ``one_engine`` keep those on the first engine, whatever others there are."""
    first = None
    kept, left_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        engine = None if callspec is None else callspec.params.get("engine")
        if engine is not None and first is None:
            first = engine
        surplus = engine != first and item.get_closest_marker("one_engine")
        (left_out if surplus else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
