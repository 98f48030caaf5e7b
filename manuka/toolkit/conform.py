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
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from rich.console import Console

from manuka.errors import ManukaError
from manuka.toolkit.client import Client, ClientError, Unreachable
from manuka.toolkit.conformance import report
from manuka.toolkit.conformance.kit import Kit, KitSettings
from manuka.toolkit.conformance.plugin import NAME, KitPlugin
from manuka.toolkit.conformance.report import Run
from manuka.toolkit.conformance.rules import GROUPS, Rule
from manuka.toolkit.conformance.signals import Ending

__all__ = ["GROUPS", "Choice", "ConformError", "NoSuchCheck", "list_checks", "run_conform"]

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
    json_file, junit_file: where to write the results; None: nowhere.
    strict: a choice that differs is a failure, too.
    """

    groups: Tuple[str, ...] = ()
    pytest_options: Tuple[str, ...] = ()
    json_file: Optional[str] = None
    junit_file: Optional[str] = None
    strict: bool = False


def run_conform(settings: KitSettings, choice: Choice) -> int:
    """Run the checks; 0 if all that an engine needs is there, 128 + N after signal N, else 1.

    Raises ConformError.
    """
    _check_groups(choice)
    if os.geteuid() != 0:
        raise ConformError("the kit needs root, to look into layers as an engine does; try sudo")
    try:
        Client(settings.socket).connect().close()
    except Unreachable as error:
        raise ConformError(f"{error}; start the plugin first") from None
    except ClientError:
        pass  # a fault of the plugin, for the checks to tell
    files = _reports(choice)
    console = Console(highlight=False)
    with Ending() as ending, Kit(settings) as kit:
        where = f"home {kit.home}" if settings.init else "already initialised"
        console.print(f"checking {settings.socket}, {where}", markup=False, soft_wrap=True)
        sys.stdout.flush()
        plugin = KitPlugin(kit, ending)
        status = _pytest(plugin, choice, ["--tb=no", "-q", "--no-header", "--no-summary"])
        run = Run(settings.socket, plugin.results, choice.strict, ending.number)
        report.show(console, run, kit.leftovers)
    console.print(report.verdict(run), markup=False, soft_wrap=True)
    for file, text in ((files.get("json"), report.to_json), (files.get("junit"), report.to_junit)):
        if file is not None:
            _write(file, text(run))
    if run.signal is not None:
        return 128 + run.signal
    return 1 if run.faults or status != pytest.ExitCode.OK else 0


def list_checks(choice: Choice, markdown: bool) -> int:
    """Print the checks that `choice` leaves, with their rules; write them as JSON if asked for."""
    files = _reports(choice)
    checks = _collect(choice)
    if markdown:
        print(report.rules_as_markdown(checks))
    else:
        report.list_checks(Console(highlight=False), checks)
    if "json" in files:
        _write(files["json"], report.list_as_json(checks))
    return 0


def _reports(choice: Choice) -> Dict[str, str]:
    """The reports to write, whose folders are there.  Raises ConformError."""
    files = {"json": choice.json_file, "junit": choice.junit_file}
    wanted = {kind: os.path.abspath(file) for kind, file in files.items() if file is not None}
    for file in wanted.values():
        if os.path.isdir(file) or not os.path.isdir(os.path.dirname(file)):
            raise ConformError(f"no report can be written to {file}: name a file in a folder")
    return wanted


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _collect(choice: Choice) -> List[Tuple[str, str, Rule]]:
    plugin = KitPlugin(None, Ending())
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
