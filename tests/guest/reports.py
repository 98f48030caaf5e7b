"""A plugin for pytest in the guest, which was made to have all that its tests need.

So a test that is skipped there has failed; and what has failed is told at once, for a machine as
slow as this may be ended before pytest comes to its summary.
"""

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
    if report.failed:
        item.config.get_terminal_writer().line(f"\n{item.nodeid}\n{report.longreprtext}")
