"""The report as tables of Markdown, for docs/benchmark.md.

Neighbours: `table` words the cells.
"""

from __future__ import annotations

import re
from typing import List, Sequence

from manuka.toolkit.bench import table
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.bench.results import Results
from manuka.toolkit.bench.rows import NATIVE, PARTS

MARKS = ("<!-- manuka bench: from here -->", "<!-- manuka bench: to here -->")


def report(results: Results) -> str:
    """Everything: machine, tables, series, notes."""
    parts = [f"**{results.warning}**"] if results.warning is not None else []
    parts.append(_facts(results))
    for part in PARTS:
        rows = [row for row in results.rows if row.part == part]
        if not rows:
            continue
        names = [
            name for name in results.contenders if any(results.rounds(row, name) for row in rows)
        ]
        plugins = [name for name in names if name != NATIVE]
        head = [part[0].upper() + part[1:], *(table.TITLES.get(name, name) for name in names)]
        head += ["ratio" if name == "manuka" else "ratio, Go" for name in plugins]
        head += ["bar", "reached"]
        lines = [
            [
                row.title,
                *(table.figure(results, row, name) for name in names),
                *(table.ratio(results, row, name) for name in plugins),
                table.bar(row),
                table.judged(results.verdict(row)),
            ]
            for row in rows
        ]
        parts.append(_table(head, lines))
    for series in results.series:
        names = [name for name in table.TITLES if name in series.points]
        at = sorted({point.at for points in series.points.values() for point in points})
        lines = []
        for size in at:
            cells = [f"{size:,.0f}"]
            for name in names:
                found = [point.value for point in series.points[name] if point.at == size]
                cells.append(table.number(found[0]) if found else "")
            lines.append(cells)
        head = [series.axis, *(f"{table.TITLES[name]}, {series.unit}" for name in names)]
        parts.append(f"**{series.title}**\n\n" + _table(head, lines))
    for note in results.notes + [f"Failed: {failure}" for failure in results.failures]:
        parts.append(note)
    return "\n\n".join(parts) + "\n"


def write(path: str, results: Results) -> None:
    """Write the report to a file; into one that has the two marks, between them.

    Raises BenchError when there is only one mark.
    """
    text = report(results)
    try:
        with open(path, encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    if any(mark in before for mark in MARKS):
        pattern = "{}.*{}".format(*map(re.escape, MARKS))
        whole = f"{MARKS[0]}\n{text}{MARKS[1]}"
        text, count = re.subn(pattern, lambda _: whole, before, count=1, flags=re.DOTALL)
        if count == 0:
            raise BenchError(f"{path} has only one of the marks {' and '.join(MARKS)}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _facts(results: Results) -> str:
    return "; ".join(f"{name}: {value}" for name, value in results.facts.items()) + "."


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text: List[str] = [_line(head), _line(["---"] + ["--:"] * (len(head) - 1))]
    text += [_line(line) for line in lines]
    return "\n".join(text)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
