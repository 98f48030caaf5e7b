"""A plugin for pytest in the guest: it was made to have all that tests need, so none is skipped."""

from __future__ import annotations

from typing import Any, Iterator

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped where all that it needs is there: {report.longrepr}"
