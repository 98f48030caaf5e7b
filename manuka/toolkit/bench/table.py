"""The report on a terminal.

Neighbours: `results` has the figures, `markdown` and `chart` show them elsewhere.
"""

from __future__ import annotations

from typing import List, Optional

from rich.console import Console
from rich.table import Table

from manuka.toolkit.bench.results import MET, MISSED, OPEN, Results, Verdict
from manuka.toolkit.bench.rows import GO, MANUKA, NATIVE, PARTS, Row

_STYLES = {MET: "green", MISSED: "red", OPEN: "yellow"}
TITLES = {NATIVE: "native", MANUKA: "manuka", GO: "Go plugin"}


def show(console: Console, results: Results) -> None:
    """Print everything; that a run was ended early stands at the top and at the end."""
    _warn(console, results)
    for part in PARTS:
        rows = [row for row in results.rows if row.part == part]
        if rows:
            console.print(_table(part, rows, results))
    for series in results.series:
        console.print(series.title, style="italic", markup=False)
        table = Table(box=None, pad_edge=False)
        table.add_column(series.axis, justify="right")
        names = [name for name in TITLES if name in series.points]
        for name in names:
            table.add_column(f"{TITLES[name]}, {series.unit}", justify="right")
        at = sorted({point.at for points in series.points.values() for point in points})
        for size in at:
            cells = [f"{size:,.0f}"]
            for name in names:
                found = [point.value for point in series.points[name] if point.at == size]
                cells.append(number(found[0]) if found else "")
            table.add_row(*cells)
        console.print(table)
    for name, value in results.facts.items():
        console.print(f"{name}: {value}", markup=False, soft_wrap=True)
    for note in results.notes:
        console.print("note: " + note, markup=False, soft_wrap=True)
    for failure in results.failures:
        console.print("failed: " + failure, markup=False, style="red", soft_wrap=True)
    _warn(console, results)


def _warn(console: Console, results: Results) -> None:
    if results.warning is not None:
        console.print(results.warning, markup=False, style="bold red", soft_wrap=True)


def _table(title: str, rows: List[Row], results: Results) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    names = [name for name in results.contenders if any(results.rounds(row, name) for row in rows)]
    for name in names:
        table.add_column(TITLES.get(name, name), justify="right", no_wrap=True)
    for name in names:
        if name != NATIVE:
            table.add_column("ratio" if name == MANUKA else "Go", justify="right", no_wrap=True)
    table.add_column("bar", justify="right")
    table.add_column("")
    for row in rows:
        verdict = results.verdict(row)
        table.add_row(
            row.title,
            *(figure(results, row, name) for name in names),
            *(ratio(results, row, name) for name in names if name != NATIVE),
            bar(row),
            judged(verdict),
            style=_STYLES[verdict.state] if verdict else None,
        )
    return table


def figure(results: Results, row: Row, name: str) -> str:
    """A figure with its unit and spread."""
    value, spread = results.figure(row, name), results.spread(row, name)
    if value is None:
        return ""
    factor, unit = (1000, "ms") if row.unit == "s" and value < 0.1 else (1, row.unit)
    text = f"{number(value * factor)} {unit}"
    if spread is not None and row.fraction == 0.5:
        text += f" ±{100 * spread / value / 2:.0f}%" if value else ""
    return text


def ratio(results: Results, row: Row, name: str) -> str:
    """To native; none for throughput, which says the same the other way round."""
    value = None if row.more_is_better else results.ratio(row, name)
    return "" if value is None else f"{value:.2f}"


def bar(row: Row) -> str:
    """What the row has to reach."""
    if row.ratio_bar is not None:
        return f"{row.ratio_bar:.2f}"
    return "" if row.bar is None else f"{row.bar:g} {row.unit}"


def judged(verdict: Optional[Verdict]) -> str:
    """The state, and where the value lies with a confidence of 95 %, if that is known."""
    if verdict is None:
        return ""
    if verdict.interval is None:
        return verdict.state
    return f"{verdict.state} ({verdict.interval.low:.2f} to {verdict.interval.high:.2f})"


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
