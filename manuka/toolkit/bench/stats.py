"""The statistics of the report: medians, quantiles, and how far a ratio can be trusted.

Samples come in rounds, since contenders take turns: a list of samples for each round.  Easy to
get wrong: the noise of this kind of measurement is a drift more than a scatter, so what is drawn
again for an interval is whole rounds, with all contenders of the round together.
"""

from __future__ import annotations

import math
import random
from typing import Callable, List, NamedTuple, Optional, Sequence

Rounds = Sequence[Sequence[float]]

_DRAWS = 400


class Interval(NamedTuple):
    """Where a figure lies with a confidence of 95 %."""

    low: float
    high: float


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of all lie, between two of them by their distance.

    Raises ValueError when there are none.
    """
    if not values:
        raise ValueError("no quantile of no values")
    ordered = sorted(values)
    position = (len(ordered) - 1) * fraction
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values: Sequence[float]) -> float:
    """Raises ValueError when there are none."""
    return quantile(values, 0.5)


def spread(values: Sequence[float]) -> float:
    """The distance from the first quartile to the third."""
    return quantile(values, 0.75) - quantile(values, 0.25)


def pooled(rounds: Rounds) -> List[float]:
    """The samples of all rounds."""
    return [sample for samples in rounds for sample in samples]


def figure_interval(rounds: Rounds, fraction: float) -> Optional[Interval]:
    """Of a quantile; None when there are too few rounds to tell (under 3)."""
    return _interval(
        len(rounds), lambda chosen: quantile(pooled([rounds[i] for i in chosen]), fraction)
    )


def ratio_interval(ours: Rounds, theirs: Rounds, fraction: float) -> Optional[Interval]:
    """Of the ratio of two quantiles; None when there are too few rounds that both took part in."""
    both = [i for i in range(min(len(ours), len(theirs))) if ours[i] and theirs[i]]

    def ratio(chosen: Sequence[int]) -> float:
        above = quantile(pooled([ours[both[i]] for i in chosen]), fraction)
        below = quantile(pooled([theirs[both[i]] for i in chosen]), fraction)
        return above / below if below else math.inf

    return _interval(len(both), ratio)


def _interval(count: int, figure: Callable[[Sequence[int]], float]) -> Optional[Interval]:
    """The middle 95 % of a figure when rounds are drawn again and again, the same each time."""
    if count < 3:
        return None
    draw = random.Random(count)
    found = [figure([draw.randrange(count) for _ in range(count)]) for _ in range(_DRAWS)]
    return Interval(quantile(found, 0.025), quantile(found, 0.975))
