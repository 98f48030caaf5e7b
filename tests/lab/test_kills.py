"""A play that is killed at any moment is made good by the next one.

MANUKA_LAB_KILLS=10 says how many times; each takes two minutes, so it is once without it, always at
the same moment.  MANUKA_LAB_SEED=7 names other moments.
"""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Iterator

import pytest
from machines import Machine

KILLS = int(os.environ.get("MANUKA_LAB_KILLS", "1"))
SEED = int(os.environ.get("MANUKA_LAB_SEED", "2"))
# What a run on a new machine has, some left out as it is.
TASKS = 105

pytestmark = pytest.mark.machine


@pytest.fixture
def machine(engine: None, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.remove()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_play_is_made_good_by_the_next(machine: Machine, number: int) -> None:
    choice = random.Random(SEED + number)
    last_task, pause = choice.randrange(1, TASKS), choice.random() * 2
    process = machine.start_play()
    assert process.stdout is not None
    tasks = (line for line in process.stdout if line.startswith("TASK ["))
    begun = list(islice(tasks, last_task))
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) in (-signal.SIGKILL, 0)
    process.stdout.close()
    moment = f"seed {SEED}, {pause:.1f} s into task {last_task}: {begun[-1].split(']')[0][6:]}"
    print(f"killed: {moment}")

    machine.play().expect_ok()
    assert machine.driver() == "manuka", moment
    machine.load_image("busybox:local")
    container = ["docker", "run", "--rm", "--network", "none", "busybox:local"]
    assert machine.run(*container, "/bin/busybox", "echo", "runs") == "runs", moment
