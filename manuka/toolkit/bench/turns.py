"""Who measures when: contenders take turns within each round, and each round begins with another.

So a drift of the machine meets all of them alike.  Neighbours: `scenarios` and `wire` are what is
done in a turn, `results` takes the samples.  Easy to get wrong: a turn's dirty pages would be
written in the next one's time, so each disk is settled before a measurement begins.
"""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Iterator, List, Sequence, TypeVar

from manuka.toolkit.bench.disk import Disk
from manuka.toolkit.bench.results import Results
from manuka.toolkit.bench.rows import ROWS

T = TypeVar("T")
WARM_UP = -1


class Stopwatch:
    """Takes the time for one contender in one round; in the warm-up it throws it away."""

    def __init__(self, results: Results, contender: str, round_number: int, disk: Disk) -> None:
        self._results = results
        self._contender = contender
        self._round = round_number
        self._disk = disk

    @property
    def warming_up(self) -> bool:
        return self._round == WARM_UP

    @contextlib.contextmanager
    def measure(self, row: str, settle: bool = True) -> Iterator[None]:
        """A sample of the time that the block takes, in the row's unit: s or ms.

        settle: write out first what is waiting.
        """
        if settle:
            self._disk.settle()
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.note(row, took * 1000 if ROWS[row].unit == "ms" else took)

    def note(self, row: str, value: float) -> None:
        """A sample in the row's unit."""
        if not self.warming_up:
            self._results.add(row, self._contender, self._round, value)


def order(contenders: Sequence[T], round_number: int) -> List[T]:
    """Whose turn is when in a round: another one begins each time."""
    start = round_number % len(contenders)
    return [*contenders[start:], *contenders[:start]]


def take_turns(
    contenders: Sequence[T],
    rounds: int,
    warm_up: bool,
    turn: Callable[[T, int], None],
) -> None:
    """Call `turn` with each contender in each round, the first of which may be the warm-up."""
    for round_number in range(WARM_UP if warm_up else 0, rounds):
        for contender in order(contenders, round_number):
            turn(contender, round_number)
