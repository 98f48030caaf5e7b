"""Every planted fault is caught, and by the check that is meant for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.conformance.faulty import FAULTS, Fault
from tests.conformance.runs import conform, needs_root, roomy_folder
from tests.unit.wire import running

pytestmark = needs_root


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_caught_by_its_check(fault: Fault) -> None:
    with fault.serve(fault.app()) as plugin:
        if fault.tune is not None:
            fault.tune(plugin)
        chosen = () if "-k" in fault.arguments else ("-k", " or ".join(fault.checks))
        run = conform(
            plugin.path, "--home", roomy_folder(), "--group", fault.group,
            "--timeout", "60", *chosen, *fault.arguments,
        )  # fmt: skip
    caught = run.of(fault.outcome)
    assert set(fault.checks) <= set(caught), run.said
    assert run.code == (1 if run.of("failed") else 0)
    assert "Traceback" not in run.said


def test_a_fault_shows_in_its_group_and_leaves_the_others_alone() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "kinds of changes are swapped")
    with running(fault.app()) as plugin:
        run = conform(plugin.path, "--home", roomy_folder())
    assert run.code == 1
    assert set(fault.checks) <= set(run.of("failed"))
    groups = {check["group"] for check in run.checks if check["outcome"] == "failed"}
    assert "changes" in groups
    assert groups <= {"changes", "depth", "names", "concurrency", "hostile"}


def test_what_escapes_to_above_the_home_is_found_and_taken_away(tmp_path: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "layers escape through links")
    with running(fault.app()) as plugin:
        run = conform(plugin.path, "--home", tmp_path, "--group", "hostile", "-k", "one-up")
    assert run.code == 1
    found = "\n".join(str(check["reason"]) for check in run.checks)
    planted = rf"'{re.escape(str(tmp_path))}/manuka-conform-\w+-planted'"
    assert re.search(f"further up: .*{planted}", found)
    assert os.listdir(str(tmp_path)) == []
