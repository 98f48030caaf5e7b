"""A plugin that is killed, at any system call of any operation, has lost nothing when it is back.

``MANUKA_KILLS=all`` kills at each one that changes anything, ``every`` also at those that look; by
default a share of them, evenly chosen, is tried.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple, Type

import pytest

from tests.crash import tracer
from tests.crash.plugins import Nursery
from tests.crash.scenarios import CASES, SCENARIOS
from tests.crash.tracer import Plan, Step
from tests.crash.worlds import World, world_in
from tests.unit.mounts import needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(not tracer.supported, reason="knows the system calls of x86_64 only"),
]

#: How many kills an operation gets when not all are asked for.
SHARE = 4


def steps_of(world: World, name: str, plan: Plan = Plan()) -> List[Step]:  # noqa: B008
    """The system calls of an operation that nothing happens to."""
    acts = SCENARIOS[name](world)
    next(acts)
    world.plugin.arm(plan)
    next(acts)
    seen = world.plugin.disarm()
    assert seen.alive
    finish(acts)
    world.assert_intact()
    world.assert_tidy()
    return seen.steps


def kill_at(world: World, name: str, number: int, step: Step) -> bool:
    """Whether it came to the kill: the number of steps differs a little from run to run."""
    acts = SCENARIOS[name](world)
    next(acts)
    world.plugin.arm(Plan(at=number))
    next(acts)
    seen = world.plugin.disarm()
    world.restart(engine_too=number % 2 == 0)
    world.assert_intact()
    finish(acts)
    world.assert_intact()
    world.assert_tidy()
    return not seen.alive


def finish(acts: Iterator[None]) -> None:
    assert next(acts, "end") == "end"


def chosen(steps: List[Step]) -> List[int]:
    """The numbers of the steps to be killed at."""
    wanted = os.environ.get("MANUKA_KILLS", "")
    if wanted == "every":
        return list(range(1, len(steps) + 1))
    numbers = [number for number, step in enumerate(steps, 1) if step.changes]
    if wanted == "all":
        return numbers
    return [numbers[(2 * at + 1) * len(numbers) // (2 * SHARE)] for at in range(SHARE)]


def sweep(
    nursery: Nursery,
    disk: Path,
    kind: Type[World],
    name: str,
    steps_in: Callable[[World], List[Step]],
    choose: Callable[[List[Step]], List[int]],
    strike: Callable[[World, str, int, Step], bool],
    title: Callable[[int, Step], str],
) -> Tuple[List[Step], int, Dict[str, AssertionError]]:
    """Strike an operation at each of the chosen steps.

    Returns its steps, how often it came to the strike, and what failed, by its title.
    """
    failed: Dict[str, AssertionError] = {}
    struck = 0
    steps: List[Step] = []
    points = [0]
    while points:  # What one strike broke, the others need not suffer from.
        with world_in(nursery, disk, kind=kind) as world:
            if not steps:
                steps = steps_in(world)
                points = choose(steps)
            try:
                while points:
                    number = points.pop(0)
                    struck += strike(world, name, number, steps[number - 1])
            except AssertionError as error:
                failed[title(number, steps[number - 1])] = error
    return steps, struck, failed


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.timeout(4 * 3600 if "MANUKA_KILLS" in os.environ else 600)
def test_killed_anywhere_the_plugin_loses_nothing(
    nursery: Nursery, disk: Path, kind: Type[World], name: str, tell: Callable[[str], None]
) -> None:
    def at(number: int, step: Step) -> str:
        return f"killed at {number}, {step}"

    steps, killed, failed = sweep(
        nursery, disk, kind, name, lambda world: steps_of(world, name), chosen, kill_at, at
    )
    tell(f"{kind.__name__}, {name}: {len(steps)} system calls, {killed} kills")
    assert not failed, "\n".join(f"{where}:\n  {error}" for where, error in failed.items())
