"""Every planted fault is caught, and by the check that is meant for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from tests.conformance.faulty import FAULTS, Fault
from tests.conformance.losses import LOSSES, RESTARTED, Copies
from tests.conformance.runs import conform, needs_root, roomy_folder, serving
from tests.unit.wire import running

pytestmark = needs_root

#: What an author in another language cannot read, and what pytest would advise.
FOREIGN = ("Traceback", "DID NOT RAISE", "assert ", "where ", "AssertionError", "<class", "-vv")


@pytest.mark.parametrize("fault", FAULTS + LOSSES, ids=lambda fault: fault.name)
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
    for foreign in FOREIGN:
        assert foreign not in run.said


@pytest.mark.parametrize("fault", RESTARTED, ids=lambda fault: fault.name)
def test_what_a_restart_or_a_crash_loses_is_caught(fault: Fault, tmp_path: Path) -> None:
    with serving(tmp_path, f"{fault.driver.__module__}:{fault.driver.__name__}") as plugin:
        run = conform(
            plugin.socket, "--home", roomy_folder(), "--group", fault.group,
            "-k", " or ".join(fault.checks), "--restart", plugin.restart, "--kill", plugin.kill,
        )  # fmt: skip
    assert set(fault.checks) == set(run.of("failed")), run.said
    assert run.code == 1


@pytest.mark.parametrize("group", ["inheritance", "independence", "ids"])
def test_without_its_fault_the_same_driver_is_right(group: str) -> None:
    with running(make_app(DriverInstance(Copies, None))) as plugin:
        run = conform(plugin.path, "--home", roomy_folder(), "--group", group)
    assert run.of("failed") == [], run.said
    assert run.of("passed")


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
