"""How pytest runs the checks: their limits, their outcomes, and a plugin that dies meanwhile.

An outcome is one of `OUTCOMES`.  pytest knows fewer, so "differs" is told to it as an expected
failure, and "not run" as a skip.  Easy to get wrong: a check has three phases for pytest, and
only one outcome here: the worst of the three.
"""

from __future__ import annotations

import contextlib
from typing import Any, Generator, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from manuka.toolkit.conformance import words
from manuka.toolkit.conformance.kit import Kit, NotRun
from manuka.toolkit.conformance.limits import limit
from manuka.toolkit.conformance.rules import CHOICE, Rule, group_of, name_of, rule_of
from manuka.toolkit.conformance.signals import Ended, Ending

NAME = "manuka-conform"

PASSED, FAILED, DIFFERS, SKIPPED, NOT_RUN = "passed", "failed", "differs", "skipped", "not run"
#: From best to worst.
OUTCOMES = (PASSED, SKIPPED, DIFFERS, NOT_RUN, FAILED)

_LETTERS = {DIFFERS: "d", NOT_RUN: "n"}
_CLEANING_LIMIT = 60


class Result(NamedTuple):
    """What came of one check.

    name: without ``check_``, with parameters in brackets.
    reason: why it did not pass, in words; empty if it did.
    """

    group: str
    name: str
    rule: Rule
    outcome: str
    seconds: float
    reason: str


class KitPlugin:
    """Registered with pytest under `NAME` for a run; `results` are there when it has ended."""

    def __init__(self, kit: Optional[Kit], ending: Ending) -> None:
        """`kit` is None when checks are only to be listed.  ending: what may end the run."""
        self.kit = kit
        self.collected: List[Tuple[str, str, Rule]] = []
        self._ending = ending
        self._results: List[Result] = []

    @property
    def results(self) -> List[Result]:
        """Of every check that was chosen, in order; those that never began are NOT_RUN."""
        begun = {(result.group, result.name) for result in self._results}
        left = [
            Result(group, name, rule, NOT_RUN, 0, self._why_ended)
            for group, name, rule in self.collected
            if (group, name) not in begun
        ]
        return self._results + left

    # --- hooks -----------------------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected = [(group_of(item), name_of(item), rule_of(item)) for item in session.items]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> Optional[bool]:
        """After a request to end, no further check begins."""
        return None if self._ending.number is None else True

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> List[str]:
        return words.compared(op, left, right)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        with self._limit():
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        with self._limit():
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        with self._ending.leaving(times=2), limit(_CLEANING_LIMIT):
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, None]:
        outcome = yield
        report = outcome.get_result()
        rule = rule_of(item)
        kind, reason = self._judge(call, report, rule)
        report.kit_outcome = kind
        if kind == FAILED:
            report.longrepr = reason
        if kind in (DIFFERS, NOT_RUN):
            report.outcome, report.wasxfail = "skipped", f"{kind}: {reason}"
        if kind in (FAILED, DIFFERS) and self.kit is not None:
            self.kit.suspect()
        self._note(Result(group_of(item), name_of(item), rule, kind, call.duration, reason))

    def pytest_report_teststatus(self, report: Any) -> Optional[Tuple[str, str, str]]:
        kind = getattr(report, "kit_outcome", None)
        if kind in _LETTERS:
            return kind, _LETTERS[kind], kind.upper()
        return None

    # --- inner -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _limit(self) -> Iterator[None]:
        assert self.kit is not None
        with self._ending.leaving(), limit(self.kit.settings.limit):
            yield

    def _judge(self, call: pytest.CallInfo[None], report: Any, rule: Rule) -> Tuple[str, str]:
        """The outcome of a phase, and the reason if it is not PASSED."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, Ended):
            return NOT_RUN, self._why_ended
        if isinstance(error, NotRun):
            return NOT_RUN, str(error)[len("not run: ") :]
        if report.skipped:
            return SKIPPED, str(error)
        if error is None:
            return PASSED, ""
        return (DIFFERS if rule.weight == CHOICE else FAILED), words.reason(error)

    @property
    def _why_ended(self) -> str:
        name = self._ending.name
        return "the run ended before it" if name is None else f"interrupted by {name}"

    def _note(self, result: Result) -> None:
        """Keep the worst outcome of a check's phases, and the time of all."""
        before = self._results[-1] if self._results else None
        if before is None or (before.group, before.name) != (result.group, result.name):
            self._results.append(result)
            return
        worst = max(before, result, key=lambda one: OUTCOMES.index(one.outcome))
        self._results[-1] = worst._replace(seconds=before.seconds + result.seconds)


def kit_of(config: pytest.Config) -> Kit:
    """The kit of this run of pytest."""
    plugin = config.pluginmanager.get_plugin(NAME)
    if not isinstance(plugin, KitPlugin) or plugin.kit is None:
        raise pytest.UsageError("run the checks by `manuka conform SOCKET`")
    return plugin.kit
