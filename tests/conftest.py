"""What all kinds of tests share: marks for those that need not run on every engine, no deadlines.

A machine that is busy with something else makes no test fail.
"""

from __future__ import annotations

import contextlib
from typing import Dict, List, Optional

import pytest

with contextlib.suppress(ImportError):  # which tests of machines do without
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


def _engine(item: pytest.Item) -> Optional[str]:
    """The engine that this run of a test is for; None if it is for none."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("engine")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Of tests marked ``one_engine`` or ``engines_in_turn`` leave out the runs on other engines."""
    order = list(dict.fromkeys(filter(None, map(_engine, items))))
    turns: Dict[str, int] = {}
    kept, left_out = [], []
    for item in items:
        engine = wanted = _engine(item)
        if engine is not None and item.get_closest_marker("one_engine"):
            wanted = order[0]
        elif engine is not None and item.get_closest_marker("engines_in_turn"):
            name = item.nodeid.replace(engine, "")
            wanted = order[turns.setdefault(name, len(turns)) % len(order)]
        (kept if engine == wanted else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
