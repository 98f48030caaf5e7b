"""A disk that fails costs the call that it hits, and nothing else.

A fault is made by the kernel's own answer to one system call: each call about a file, of each
operation, fails in turn.  ``MANUKA_KILLS=all`` lets each one fail; by default it is a share.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Callable, List, Optional, Type

import pytest

from tests.crash import tracer
from tests.crash.plugins import Nursery
from tests.crash.scenarios import CASES, SCENARIOS
from tests.crash.test_kills import finish, steps_of, sweep
from tests.crash.tracer import FALLIBLE, Plan, Step
from tests.crash.worlds import World
from tests.unit.mounts import needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(not tracer.supported, reason="knows the system calls of x86_64 only"),
]

SHARE = 3


def error_for(step: Step, number: int) -> int:
    """What such a call fails with on a failing, full or read-only disk; in turn."""
    if step.changes:
        return (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)[number % 4]
    return (errno.EIO, errno.EMFILE)[number % 2] if "open" in step.name else errno.EIO


def fail_at(world: World, name: str, number: int, step: Step) -> bool:
    """Whether it came to the fault."""
    error = error_for(step, number)
    acts = SCENARIOS[name](world)
    next(acts)
    world.plugin.refusals.clear()
    world.plugin.arm(plan_for(world, number, error))
    next(acts)
    seen = world.plugin.disarm()
    assert seen.alive, "the plugin did not survive"
    for layer_id, text in world.plugin.refusals:
        assert_clear(text, layer_id, error)
    world.assert_intact()
    finish(acts)
    world.init()
    world.assert_intact()
    world.assert_tidy()
    return seen.done


def assert_clear(text: str, layer_id: str, error: int) -> None:
    """It names the cause and the layer."""
    assert os.strerror(error) in text, f"no cause in {text!r}"
    assert layer_id in text, f"no layer in {text!r}"
    assert "internal error" not in text


def plan_for(world: World, number: int = 0, error: Optional[int] = None) -> Plan:
    """The run folder lies in memory, which can always be read."""
    return Plan(number, error, FALLIBLE, str(world.folder), str(world.plugin.run_dir))


def chosen(steps: List[Step]) -> List[int]:
    """The numbers of the steps to fail."""
    numbers = list(range(1, len(steps) + 1))
    if os.environ.get("MANUKA_KILLS") in ("all", "every"):
        return numbers
    shares = {(2 * at + 1) * len(numbers) // (2 * SHARE) for at in range(SHARE)}
    return [numbers[at] for at in sorted(shares) if numbers]


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.timeout(4 * 3600 if "MANUKA_KILLS" in os.environ else 600)
def test_a_fault_anywhere_is_told_and_costs_nothing_else(
    nursery: Nursery, disk: Path, kind: Type[World], name: str, tell: Callable[[str], None]
) -> None:
    def at(number: int, step: Step) -> str:
        return f"{errno.errorcode[error_for(step, number)]} at {number}, {step}"

    steps, hit, failed = sweep(
        *(nursery, disk, kind, name, lambda world: steps_of(world, name, plan_for(world))),
        *(chosen, fail_at, at),
    )
    tell(f"{kind.__name__}, {name}: {len(steps)} calls about files, {hit} faults")
    assert not failed, "\n".join(f"{where}:\n  {error}" for where, error in failed.items())
