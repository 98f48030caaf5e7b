"""What was measured: samples by row, contender and round; and the figures that are made of them.

Neighbours: `turns` fills it in, `table`, `markdown` and `chart` show it, and it goes to JSON and
comes back.  Easy to get wrong: rounds stay apart, for contenders are compared round by round.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, NamedTuple, Optional

from manuka.toolkit.bench import stats
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.bench.rows import MANUKA, NATIVE, ROWS, Row

#: What becomes of a bar: reached, not, or nearer to it than the noise allows to tell.
MET, MISSED, OPEN = "met", "missed", "noise"

_FORMAT = 1


class Point(NamedTuple):
    """How something is at one size."""

    at: float
    value: float


class Series(NamedTuple):
    """How something grows: points by contender."""

    title: str
    axis: str
    unit: str
    points: Dict[str, List[Point]]


class Verdict(NamedTuple):
    """How a row stands to its bar.  value: the ratio, or the figure itself."""

    state: str
    value: float
    bar: float
    interval: Optional[stats.Interval]


class Results:
    """Everything that one run has found.

    interrupted: the name of the signal that ended it early; None: it has all that was asked for.
    """

    def __init__(self) -> None:
        self.interrupted: Optional[str] = None
        self.facts: Dict[str, str] = {}
        self.notes: List[str] = []
        self.failures: List[str] = []
        self.series: List[Series] = []
        self._samples: Dict[str, Dict[str, List[List[float]]]] = {}

    def add(self, row: str, contender: str, round_number: int, value: float) -> None:
        """A sample, in the row's unit."""
        rounds = self._samples.setdefault(ROWS[row].name, {}).setdefault(contender, [])
        while len(rounds) <= round_number:
            rounds.append([])
        rounds[round_number].append(value)

    def grew(self, title: str, axis: str, unit: str, contender: str, point: Point) -> None:
        """A point of a series."""
        for series in self.series:
            if series.title == title:
                series.points.setdefault(contender, []).append(point)
                return
        self.series.append(Series(title, axis, unit, {contender: [point]}))

    @property
    def warning(self) -> Optional[str]:
        """What every report of a run has to begin with that was ended early."""
        if self.interrupted is None:
            return None
        return f"interrupted by {self.interrupted}: these are not all figures"

    # --- what comes out --------------------------------------------------------------------------

    @property
    def rows(self) -> List[Row]:
        """Those with a figure, in their order."""
        return [row for row in ROWS.values() if row.name in self._samples]

    @property
    def contenders(self) -> List[str]:
        """Who has a figure, in the order of taking part."""
        found: List[str] = []
        for by_contender in self._samples.values():
            found += [name for name in by_contender if name not in found]
        order = [NATIVE, MANUKA]
        return sorted(found, key=lambda name: order.index(name) if name in order else len(order))

    def rounds(self, row: Row, contender: str) -> List[List[float]]:
        return self._samples.get(row.name, {}).get(contender, [])

    def figure(self, row: Row, contender: str) -> Optional[float]:
        """The quantile that the row asks for; None when there is no sample."""
        samples = stats.pooled(self.rounds(row, contender))
        return stats.quantile(samples, row.fraction) if samples else None

    def spread(self, row: Row, contender: str) -> Optional[float]:
        """The interquartile range; None when there are too few samples (under 3)."""
        samples = stats.pooled(self.rounds(row, contender))
        return stats.spread(samples) if len(samples) >= 3 else None

    def ratio(self, row: Row, contender: str) -> Optional[float]:
        """The figure divided by native's; None when one of them is missing."""
        ours, theirs = self.figure(row, contender), self.figure(row, NATIVE)
        return ours / theirs if ours is not None and theirs else None

    def verdict(self, row: Row, contender: str = MANUKA) -> Optional[Verdict]:
        """None when the row has no bar, or there is no figure to hold against it."""
        ours, theirs = self.rounds(row, contender), self.rounds(row, NATIVE)
        if row.ratio_bar is not None:
            value, bar = self.ratio(row, contender), row.ratio_bar
            interval = stats.ratio_interval(ours, theirs, row.fraction)
        elif row.bar is not None:
            value, bar = self.figure(row, contender), row.bar
            interval = stats.figure_interval(ours, row.fraction)
        else:
            return None
        if value is None:
            return None
        state = MET if value <= bar else MISSED
        if state == MISSED and interval is not None and interval.low <= bar:
            state = OPEN
        return Verdict(state, value, bar, interval)

    # --- JSON ------------------------------------------------------------------------------------

    def to_json(self) -> str:
        figures = {
            row.name: {
                name: {
                    "figure": self.figure(row, name),
                    "unit": row.unit,
                    "iqr": self.spread(row, name),
                    "ratio": self.ratio(row, name),
                }
                for name in self.contenders
                if self.rounds(row, name)
            }
            for row in self.rows
        }
        verdicts = {row.name: self.verdict(row) for row in self.rows}
        return json.dumps(
            {
                "format": _FORMAT,
                "interrupted": self.interrupted,
                "facts": self.facts,
                "notes": self.notes,
                "failures": self.failures,
                "figures": figures,
                "verdicts": {
                    name: {"state": found.state, "value": found.value, "bar": found.bar}
                    for name, found in verdicts.items()
                    if found is not None
                },
                "series": [series._asdict() for series in self.series],
                "samples": self._samples,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Raises BenchError when it is no report of this version."""
        try:
            data: Dict[str, Any] = json.loads(text)
            if data["format"] != _FORMAT:
                raise KeyError("format")
            results = cls()
            results.facts, results.notes = data["facts"], data["notes"]
            results.failures = data["failures"]
            results.interrupted = data.get("interrupted")
            for item in data["series"]:
                points = {
                    name: [Point(*point) for point in found]
                    for name, found in item["points"].items()
                }
                results.series.append(Series(item["title"], item["axis"], item["unit"], points))
            results._samples = {
                row: samples for row, samples in data["samples"].items() if row in ROWS
            }
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(f"that is no report of this manuka bench: {error!r}") from None
        return results
