"""What is shown of a run: the faults, a table, a file of JSON; and the rules as lists.

Easy to get wrong: a reason may hold anything that a plugin sent, so it is never read as markup.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Dict, List, Mapping, Sequence, Tuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from manuka import __version__
from manuka.toolkit.conformance.plugin import (
    DIFFERS,
    FAILED,
    NOT_RUN,
    OUTCOMES,
    PASSED,
    SKIPPED,
    Result,
)
from manuka.toolkit.conformance.rules import NEEDED, Rule

_STYLES = {PASSED: "green", FAILED: "bold red", DIFFERS: "yellow", SKIPPED: "dim", NOT_RUN: "red"}
_REASON_LINES = 6


def show(
    console: Console,
    results: Sequence[Result],
    guide: Mapping[str, str],
    leftovers: Sequence[str],
) -> None:
    """The faults and differences, one by one, and the table of groups.

    guide: where in ``docs/`` there is more about a group.
    """
    for result in results:
        if result.outcome in (FAILED, DIFFERS):
            _show_fault(console, result, guide[result.group])
    _show_reasons(console, results)
    console.print(_table(results))
    for text in leftovers:
        console.print(Text(f"left behind: {text}", style="yellow"))


def verdict(results: Sequence[Result]) -> str:
    """The outcome in one line."""
    counts = Counter(result.outcome for result in results)
    if counts[FAILED]:
        return f"{counts[FAILED]} checks of what an engine needs failed"
    if counts[NOT_RUN]:
        return f"{counts[NOT_RUN]} checks were not run"
    if counts[DIFFERS]:
        return f"all that an engine needs is there; in {counts[DIFFERS]} choices it differs"
    return "all that an engine needs is there"


def to_json(socket: str, results: Sequence[Result]) -> str:
    """The run for other programs."""
    counts = Counter(result.outcome for result in results)
    return json.dumps(
        {
            "manuka": __version__,
            "socket": socket,
            "totals": {outcome: counts[outcome] for outcome in OUTCOMES},
            "checks": [
                {
                    "group": result.group,
                    "check": result.name,
                    "weight": result.rule.weight,
                    "rule": result.rule.text,
                    "source": result.rule.source,
                    "outcome": result.outcome,
                    "seconds": round(result.seconds, 3),
                    "reason": result.reason,
                }
                for result in results
            ],
        },
        indent=1,
    )


def list_checks(console: Console, checks: Sequence[Tuple[str, str, Rule]]) -> None:
    """Every check by group."""
    group = ""
    for check_group, name, rule in checks:
        if check_group != group:
            group = check_group
            console.print(Text(f"\n{group}", style="bold"))
        console.print(Text(f"  {name}"), Text(f"({rule.weight})", style="dim"), soft_wrap=True)
        console.print(Text(f"      {rule.text}", style="dim"), soft_wrap=True)


def rules_as_markdown(checks: Sequence[Tuple[str, str, Rule]], guide: Mapping[str, str]) -> str:
    """The rules by group, each once, as tables of Markdown, with a link to the guide."""
    lines: List[str] = []
    for group, rules in _by_group(checks).items():
        lines += ["", f"### {group}", "", f"More in the [guide]({guide[group]})."]
        lines += ["", "| rule | weight | from |", "| --- | --- | --- |"]
        lines += [
            f"| {_cell(rule.text)} | {rule.weight} | {_cell(rule.source)} |" for rule in rules
        ]
    return "\n".join(lines[1:])


def _by_group(checks: Sequence[Tuple[str, str, Rule]]) -> Dict[str, List[Rule]]:
    found: Dict[str, List[Rule]] = {}
    for group, _, rule in checks:
        rules = found.setdefault(group, [])
        if rule not in rules:
            rules.append(rule)
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _show_fault(console: Console, result: Result, guide: str) -> None:
    console.print()
    console.print(
        Text(result.outcome.upper(), style=_STYLES[result.outcome]),
        Text(f"{result.group}: {result.name.replace('_', ' ')}"),
        soft_wrap=True,
    )
    console.print(Text(f"  rule: {result.rule.text} [{result.rule.source}]"), soft_wrap=True)
    console.print(Text(f"  guide: docs/{guide}"), soft_wrap=True)
    lines = _printable(result.reason).splitlines()
    for line in lines[:_REASON_LINES]:
        console.print(Text(f"  {line[:400]}"), soft_wrap=True)


def _show_reasons(console: Console, results: Sequence[Result]) -> None:
    """Why checks were left out: each reason once, with its count."""
    counts = Counter((r.outcome, r.reason) for r in results if r.outcome in (SKIPPED, NOT_RUN))
    if counts:
        console.print()
    for (outcome, reason), count in counts.items():
        text = f"{count} {outcome}: {_printable(reason)}"
        console.print(Text(text, style=_STYLES[outcome]), soft_wrap=True)


def _printable(text: str) -> str:
    """Without what a terminal would obey, and without lone surrogates."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _table(results: Sequence[Result]) -> Table:
    columns = (PASSED, FAILED, DIFFERS, SKIPPED, NOT_RUN)
    table = Table("group", title_justify="left", show_footer=True)
    table.columns[0].footer = "all"
    groups: Dict[str, Counter[str]] = {}
    for result in results:
        groups.setdefault(result.group, Counter())[result.outcome] += 1
    for outcome in columns:
        total = sum(counts[outcome] for counts in groups.values())
        header = f"{outcome} ({NEEDED})" if outcome == FAILED else outcome
        table.add_column(header, justify="right", footer=str(total))
    for group, counts in groups.items():
        cells = [
            f"[{_STYLES[outcome]}]{counts[outcome]}[/]" if counts[outcome] else "-"
            for outcome in columns
        ]
        table.add_row(escape(group), *cells)
    return table
