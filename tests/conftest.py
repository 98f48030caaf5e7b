"""What all kinds of tests share: marks for those that need not run on every engine, no deadlines.

A machine that is busy with something else makes no test fail.
"""

from __future__ import annotations

import contextlib
from typing import Dict, List

import pytest

with contextlib.suppress(ImportError):  # which tests of machines do without
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Of tests marked ``one_engine`` or ``engines_in_turn`` leave out the runs on other engines."""
    engines: Dict[pytest.Item, str] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "engine" in callspec.params:
            engines[item] = callspec.params["engine"]
    order = list(dict.fromkeys(engines.values()))
    turns: Dict[str, int] = {}
    kept, left_out = [], []
    for item in items:
        turn = 0
        if item.get_closest_marker("engines_in_turn"):
            name = item.nodeid.replace(engines.get(item, ""), "")
            turn = turns.setdefault(name, len(turns)) % max(len(order), 1)
        elif not item.get_closest_marker("one_engine"):
            kept.append(item)
            continue
        surplus = item in engines and engines[item] != order[turn]
        (left_out if surplus else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
