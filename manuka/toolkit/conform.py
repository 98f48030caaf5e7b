"""The command ``manuka conform``: the kit run against a plugin, and its verdict.

`manuka.toolkit.conformance` has the checks.  Easy to get wrong: pytest reads settings of the
folder that it is called in; a run must not depend on it, so it gets the kit's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import pytest
from rich.console import Console

from manuka.errors import ManukaError
from manuka.toolkit.client import Client, ClientError, Unreachable
from manuka.toolkit.conformance import report
from manuka.toolkit.conformance.kit import Kit, KitSettings
from manuka.toolkit.conformance.plugin import FAILED, NAME, NOT_RUN, KitPlugin
from manuka.toolkit.conformance.rules import Rule

#: The groups in the order in which they run, what others rest on first; and where in ``docs/``
#: the guide says more about what they check.
GROUPS = {
    "handshake": "guide/2-calls.md#activate",
    "life": "guide/2-calls.md#create-and-createreadwrite",
    "content": "guide/2-calls.md#applydiff",
    "names": "guide/2-calls.md#applydiff",
    "whiteouts": "guide/3-overlay2.md#whiteouts-and-opaque-folders",
    "changes": "guide/2-calls.md#changes",
    "depth": "guide/3-overlay2.md#the-mount",
    "ids": "guide/2-calls.md#create-and-createreadwrite",
    "errors": "guide/2-calls.md#what-holds-for-every-call",
    "streams": "guide/3-overlay2.md#the-unfinished-marker",
    "hostile": "guide/2-calls.md#applydiff",
    "connections": "guide/2-calls.md#what-holds-for-every-call",
    "concurrency": "guide/2-calls.md#what-holds-for-every-call",
    "restart": "guide/2-calls.md#get",
}

_FOLDER = Path(__file__).parent / "conformance"
_NOTHING_FOUND = 5


class ConformError(ManukaError):
    """The kit could not be run."""


class NoSuchCheck(ConformError):
    """Nothing goes by what was chosen."""


class Choice(NamedTuple):
    """Which checks to run, and how to tell of them.

    groups: names of `GROUPS`; none: all.
    pytest_options: for pytest, as they are.
    json_file: where to write the results; None: nowhere.
    """

    groups: Tuple[str, ...] = ()
    pytest_options: Tuple[str, ...] = ()
    json_file: Optional[str] = None


def run_conform(settings: KitSettings, choice: Choice) -> int:
    """Run the checks; 0 if all that an engine needs is there, else 1.  Raises ConformError."""
    _check_groups(choice)
    if os.geteuid() != 0:
        raise ConformError("the kit needs root, to look into layers as an engine does; try sudo")
    try:
        Client(settings.socket).connect().close()
    except Unreachable as error:
        raise ConformError(f"{error}; start the plugin first") from None
    except ClientError:
        pass  # a fault of the plugin, for the checks to tell
    console = Console(highlight=False)
    with Kit(settings) as kit:
        where = f"home {kit.home}" if settings.init else "already initialised"
        console.print(f"checking {settings.socket}, {where}", markup=False, soft_wrap=True)
        sys.stdout.flush()
        plugin = KitPlugin(kit)
        status = _pytest(plugin, choice, ["--tb=no", "-q", "--no-header", "--no-summary"])
        results = plugin.results
        report.show(console, results, GROUPS, kit.leftovers)
    console.print(report.verdict(results), markup=False)
    if choice.json_file is not None:
        with open(choice.json_file, "w", encoding="utf-8") as file:
            file.write(report.to_json(settings.socket, results) + "\n")
    faults = any(result.outcome in (FAILED, NOT_RUN) for result in results)
    return 1 if faults or status != pytest.ExitCode.OK else 0


def list_checks(choice: Choice, markdown: bool) -> int:
    """Print the checks that `choice` leaves, with their rules."""
    checks = _collect(choice)
    if markdown:
        print(report.rules_as_markdown(checks, GROUPS))
    else:
        report.list_checks(Console(highlight=False), checks)
    return 0


def _collect(choice: Choice) -> List[Tuple[str, str, Rule]]:
    plugin = KitPlugin(None)
    with contextlib.redirect_stdout(io.StringIO()):
        _pytest(plugin, choice, ["--collect-only", "-q", "--no-header", "--no-summary"])
    return plugin.collected


def _pytest(plugin: KitPlugin, choice: Choice, options: Sequence[str]) -> int:
    _check_groups(choice)
    modules = [str(_FOLDER / f"check_{group}.py") for group in choice.groups or GROUPS]
    arguments = ["-c", str(_FOLDER / "pytest.ini"), f"--rootdir={_FOLDER}", *options]
    plugins = [_Named(plugin)]
    status = pytest.main([*arguments, *choice.pytest_options, *modules], plugins=plugins)
    if status == _NOTHING_FOUND:
        raise NoSuchCheck("no check goes by these options; --list shows all")
    if status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        raise NoSuchCheck("pytest does not take these options; its own message is above")
    return int(status)


def _check_groups(choice: Choice) -> None:
    for group in choice.groups:
        if group not in GROUPS:
            raise NoSuchCheck(f"--group: there is no {group!r}; there are {', '.join(GROUPS)}")


class _Named:
    """Registers the kit's plugin under the name by which fixtures find it."""

    def __init__(self, plugin: KitPlugin) -> None:
        self._plugin = plugin

    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._plugin, NAME)
