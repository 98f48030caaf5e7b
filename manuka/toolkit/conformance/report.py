"""What is shown of a run: the faults, a table, a file of JSON; and the rules as lists.

Easy to get wrong: a reason may hold anything that a plugin sent, so it is never read as markup.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple
from xml.etree import ElementTree

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
_JUNIT = {FAILED: "failure", DIFFERS: "skipped", SKIPPED: "skipped", NOT_RUN: "error"}
_REASON_LINES = 8
_NAMED = 3  # so many more checks with the same reason are named, more are counted


class Run(NamedTuple):
    """One run of the kit.

    strict: a choice that differs is a failure.
    signal: the number of the one that ended it early; None: none did.
    """

    socket: str
    results: Sequence[Result]
    strict: bool = False
    signal: Optional[int] = None

    @property
    def counts(self) -> Counter[str]:
        """How many checks had each outcome."""
        return Counter(result.outcome for result in self.results)

    @property
    def faults(self) -> int:
        """How many checks keep this from being a success."""
        counts = self.counts
        return counts[FAILED] + counts[NOT_RUN] + (counts[DIFFERS] if self.strict else 0)

    @property
    def interrupted_by(self) -> Optional[str]:
        """The name of the signal that ended it early."""
        return None if self.signal is None else signal.Signals(self.signal).name


def show(console: Console, run: Run, leftovers: Sequence[str]) -> None:
    """The faults and differences, the same ones together, and the table of groups."""
    for outcome in (FAILED, DIFFERS):
        for same in _by_reason([r for r in run.results if r.outcome == outcome]):
            _show_fault(console, same)
    _show_reasons(console, run.results)
    console.print(_table(run.results))
    for text in leftovers:
        console.print(Text(f"left behind: {_printable(text)}", style="yellow"), soft_wrap=True)


def verdict(run: Run) -> str:
    """The outcome in one line."""
    counts = run.counts
    failed = _checks(counts[FAILED], "of what an engine needs failed")
    if run.signal is not None:
        done = len(run.results) - counts[NOT_RUN]
        text = (
            f"interrupted by {run.interrupted_by}: {done} of {len(run.results)} checks were run, "
            f"{counts[NOT_RUN]} were not, so there is no verdict"
        )
        return f"{text}; {failed}" if counts[FAILED] else text
    if counts[FAILED]:
        return failed
    if counts[NOT_RUN]:
        return _checks(counts[NOT_RUN], "not run", verb=True)
    if counts[DIFFERS]:
        text = f"all that an engine needs is there; in {_choices(counts[DIFFERS])} it differs"
        return f"{text}, which --strict takes for a failure" if run.strict else text
    return "all that an engine needs is there"


def to_json(run: Run) -> str:
    """The run for other programs."""
    counts = run.counts
    return json.dumps(
        {
            "manuka": __version__,
            "socket": run.socket,
            "interrupted": run.interrupted_by,
            "strict": run.strict,
            "verdict": verdict(run),
            "totals": {outcome: counts[outcome] for outcome in OUTCOMES},
            "checks": [
                {
                    **_described(result.group, result.name, result.rule),
                    "outcome": result.outcome,
                    "seconds": round(result.seconds, 3),
                    "reason": result.reason,
                }
                for result in run.results
            ],
        },
        indent=1,
    )


def to_junit(run: Run) -> str:
    """The run as CI servers read it.  A check that was not run is an error, so that nothing
    which was not tried looks like a success."""
    counts = run.counts
    failures = counts[FAILED] + (counts[DIFFERS] if run.strict else 0)
    suite = ElementTree.Element(
        "testsuite",
        name="manuka conform",
        tests=str(len(run.results)),
        failures=str(failures),
        errors=str(counts[NOT_RUN]),
        skipped=str(len(run.results) - failures - counts[NOT_RUN] - counts[PASSED]),
        time=f"{sum(result.seconds for result in run.results):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    told = {"socket": run.socket, "verdict": verdict(run)}
    if run.interrupted_by is not None:
        told["interrupted"] = run.interrupted_by
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", name=name, value=_printable(value))
    for result in run.results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=result.group,
            name=result.name,
            time=f"{result.seconds:.3f}",
        )
        kind = "failure" if run.strict and result.outcome == DIFFERS else _JUNIT.get(result.outcome)
        if kind is not None:
            reason = _printable(result.reason)
            message = (
                reason if result.outcome in (FAILED, SKIPPED) else f"{result.outcome}: {reason}"
            )
            told_of = ElementTree.SubElement(case, kind, message=message)
            told_of.text = f"{result.rule.text}\ndocs/{result.rule.guide}\n{reason}"
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, "unicode")


def list_as_json(checks: Sequence[Tuple[str, str, Rule]]) -> str:
    """Every check with its rule, for other programs."""
    listed = [_described(group, name, rule) for group, name, rule in checks]
    return json.dumps({"manuka": __version__, "checks": listed}, indent=1)


def _described(group: str, name: str, rule: Rule) -> Dict[str, object]:
    return {
        "group": group,
        "check": name,
        "weight": rule.weight,
        "rule": rule.text,
        "source": rule.source,
        "see": [f"docs/{rule.anchor}", f"docs/{rule.guide}"],
    }


def list_checks(console: Console, checks: Sequence[Tuple[str, str, Rule]]) -> None:
    """Every check by group."""
    group = ""
    for check_group, name, rule in checks:
        if check_group != group:
            group = check_group
            console.print(Text(f"\n{group}", style="bold"))
        console.print(Text(f"  {name}"), Text(f"({rule.weight})", style="dim"), soft_wrap=True)
        console.print(Text(f"      {rule.text}", style="dim"), soft_wrap=True)


def rules_as_markdown(checks: Sequence[Tuple[str, str, Rule]]) -> str:
    """The rules by group, each once and with an anchor, as tables of Markdown."""
    lines: List[str] = []
    for group, rules in _by_group(checks).items():
        lines += ["", f"### {group}", "", "| rule | weight | from | more |"]
        lines += ["| --- | --- | --- | --- |"]
        for rule in rules:
            anchor = f'<a id="{rule.anchor.partition("#")[2]}"></a>'
            more = f"[{rule.guide.partition('#')[2]}]({rule.guide})"
            text, source = _cell(rule.text), _cell(rule.source)
            lines.append(f"| {anchor}{text} | {rule.weight} | {source} | {more} |")
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


def _by_reason(results: Sequence[Result]) -> List[List[Result]]:
    """Results whose reasons say the same, whatever layer and time they are about, together."""
    found: Dict[str, List[Result]] = {}
    for result in results:
        reason = re.sub(r"[a-z0-9]{25,}|manuka-conform-\w+|\d{9,}", "…", result.reason)
        found.setdefault(reason, []).append(result)
    return list(found.values())


def _show_fault(console: Console, same: Sequence[Result]) -> None:
    """The first of several with the same reason, and of the others their names or number."""
    result, others = same[0], same[1:]
    console.print()
    console.print(
        Text(result.outcome.upper(), style=_STYLES[result.outcome]),
        Text(f"{result.group}: {_printable(_words(result.name))}"),
        soft_wrap=True,
    )
    told = [f"rule: {result.rule.text} [{result.rule.source}]"]
    told += [f"see: docs/{result.rule.anchor}", f"guide: docs/{result.rule.guide}"]
    told += [line[:400] for line in _printable(result.reason).splitlines()[:_REASON_LINES]]
    if 0 < len(others) <= _NAMED:
        told += [f"the same in {one.group}: {_printable(_words(one.name))}" for one in others]
    elif others:
        groups = Counter(one.group for one in others)
        where = ", ".join(f"{count} in {group}" for group, count in groups.items())
        told.append(f"the same in {len(others)} more checks: {where} (--json lists them)")
    for line in told:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _words(name: str) -> str:
    """A check's name as a sentence, with its parameter as it is."""
    name, bracket, parameter = name.partition("[")
    return name.replace("_", " ") + bracket + parameter


def _checks(count: int, words: str, verb: bool = False) -> str:
    """So many checks did so; verb: was or were has to stand between."""
    what = "1 check" if count == 1 else f"{count} checks"
    if verb:
        what += " was" if count == 1 else " were"
    return f"{what} {words}"


def _choices(count: int) -> str:
    return "1 choice" if count == 1 else f"{count} choices"


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
