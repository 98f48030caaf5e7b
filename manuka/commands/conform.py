"""``manuka conform``: the conformance kit.  `manuka.toolkit.conform` does the work."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING, List

from manuka.commands.arguments import UsageError
from manuka.errors import ManukaError

if TYPE_CHECKING:
    from manuka.toolkit.conform import Choice

DESCRIPTION = """\
Check a graphdriver plugin, whatever it is written in, over its socket alone.

Checks of what an engine needs decide the exit code; where a driver made another choice, that is
told as "differs"."""

EXAMPLES = """\
examples:
  manuka conform /run/docker/plugins/mine.sock
      everything, on a folder of its own under the system's temporary one
  manuka conform SOCKET --home /mnt/btrfs --opt btrfs.min_space=1G
      where and how the driver is to work
  manuka conform SOCKET --group content --group whiteouts -k diff -x
      some groups, of these what has "diff" in its name, until the first failure
  manuka conform SOCKET --restart 'systemctl restart mine' --kill 'systemctl kill -s KILL mine'
  manuka conform SOCKET --no-init --home /var/lib/docker/mine
      a plugin that serves an engine right now
  manuka conform SOCKET --junit-xml report.xml --json r.json --pytest='--maxfail 3'
      reports, and any options of pytest
  manuka conform --list --json checks.json

exit codes: 0 all that an engine needs is there, 1 it is not, or (with --strict) a choice differs,
2 wrong arguments, 128 + N ended by signal N, so 130 after Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument("socket", nargs="?", metavar="SOCKET", help="the plugin's UNIX socket")
    _add_plugin_arguments(parser.add_argument_group("the plugin"))
    _add_choice_arguments(parser.add_argument_group("which checks, and what is told of them"))


def _add_plugin_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--home",
        metavar="DIR",
        help="make the driver's folder in DIR, which has to be there (default: the system's "
        "temporary one); with --no-init: the folder that the driver has",
    )
    group.add_argument(
        "--opt",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option for the driver; may be repeated",
    )
    group.add_argument(
        "--no-init",
        action="store_true",
        help="the plugin serves an engine: send neither Init nor Cleanup",
    )
    group.add_argument(
        "--restart", metavar="COMMAND", help="a shell command that stops and starts the plugin"
    )
    group.add_argument(
        "--kill", metavar="COMMAND", help="a shell command that ends the plugin as a crash would"
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a check may take (default: 60)",
    )
    group.add_argument(
        "--idle",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="how long a connection is left idle; engines leave it for days (default: 3)",
    )
    group.add_argument("--keep", action="store_true", help="leave the driver's folder behind")


def _add_choice_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--group", action="append", default=[], metavar="NAME", help="a group; may be repeated"
    )
    group.add_argument("-k", metavar="WORDS", help="only checks whose names have these words")
    group.add_argument("-m", metavar="MARK", help="only 'needed' checks, or only 'choice'")
    group.add_argument("-x", action="store_true", help="end at the first failure")
    group.add_argument("-v", action="store_true", help="a line for each check as it runs")
    group.add_argument("--junit-xml", metavar="FILE", help="write a report for CI servers")
    group.add_argument(
        "--json", metavar="FILE", help="write the results as JSON; with --list: the checks"
    )
    group.add_argument(
        "--strict", action="store_true", help="a choice that differs is a failure, too"
    )
    group.add_argument("--list", action="store_true", help="list the checks, and run none")
    group.add_argument(
        "--pytest",
        default="",
        metavar="OPTIONS",
        help="further options for pytest, in one word: --pytest='--maxfail 3'",
    )
    group.add_argument(
        "--rules", action="store_true", help="list the rules as tables of Markdown, and run none"
    )


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    for option in arguments.opt:
        if not option.partition("=")[0] or "=" not in option:
            raise UsageError(f"--opt: expected KEY=VALUE, got {option!r}")
    if arguments.opt and arguments.no_init:
        raise UsageError("--opt goes with Init, which --no-init leaves out")
    try:
        from manuka.toolkit import conform
    except ImportError as error:
        raise ManukaError(
            f"the kit needs the package {error.name}: pip install 'manuka[toolkit]'"
        ) from None
    from manuka.toolkit.conformance.kit import KitSettings

    choice = _choice(arguments)
    try:
        if arguments.list or arguments.rules:
            if arguments.junit_xml is not None:
                raise UsageError("--junit-xml is a report of a run, and --list runs no check")
            return conform.list_checks(choice, markdown=arguments.rules)
        if arguments.socket is None:
            raise UsageError("name the plugin's socket, such as /run/docker/plugins/NAME.sock")
        settings = KitSettings(
            socket=arguments.socket,
            home=arguments.home and os.path.abspath(arguments.home),
            options=tuple(arguments.opt),
            init=not arguments.no_init,
            restart=arguments.restart,
            kill=arguments.kill,
            limit=arguments.timeout,
            idle=arguments.idle,
            keep=arguments.keep,
        )
        return conform.run_conform(settings, choice)
    except conform.NoSuchCheck as error:
        raise UsageError(str(error)) from None


def _choice(arguments: argparse.Namespace) -> Choice:
    from manuka.toolkit.conform import Choice

    options: List[str] = []
    for name in ("k", "m"):
        if getattr(arguments, name) is not None:
            options += [f"-{name}", getattr(arguments, name)]
    options += ["-x"] * arguments.x + ["-v"] * (2 * arguments.v)
    try:
        options += shlex.split(arguments.pytest)
    except ValueError as error:
        raise UsageError(f"--pytest: {error}") from None
    return Choice(
        tuple(arguments.group),
        tuple(options),
        arguments.json,
        arguments.junit_xml,
        arguments.strict,
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value
