"""``manuka bench``: the benchmark.  `manuka.toolkit.bench.run` does the work."""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING, Optional

from manuka.commands.arguments import UsageError
from manuka.errors import ManukaError

if TYPE_CHECKING:
    from manuka.toolkit.bench.results import Results

DESCRIPTION = """\
Measure manuka against the engine's own overlay2, and against a plugin in Go if there is one.

Each has an engine of its own, and its data on a disk of its own in memory; they take turns, so
that a drift of the machine meets all alike. Needs root, a dockerd, loop devices, 7 GB of memory
and about 15 minutes. Nothing stays behind."""

EXAMPLES = """\
examples:
  manuka bench --json bench.json --svg bench.svg --markdown docs/benchmark.md
      everything, with all reports
  manuka bench --only run get-put get-put-p99
      some figures; --list has their names
  manuka bench --only apply-many --rounds 10
  manuka bench --quick
      does it work here? Its figures mean little
  manuka bench --from bench.json --svg bench.svg
      show an earlier run again, and write another report of it

A figure is the median of its samples, ± half the interquartile range. A bar that is missed by less
than the noise allows to tell is marked "noise".
exit codes: 0 everything was measured, 1 something could not be, 2 wrong arguments, 128 + N ended by
signal N, so 130 after Ctrl-C: the reports have what was measured until then, and say so
"""

_WIDTH = 160  # of the tables in a file
_BUILT_GO = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    *("benchmarks", "goplugin", "goplugin"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these figures")
    parser.add_argument("--list", action="store_true", help="list the figures, and measure none")
    parser.add_argument(
        "--rounds", type=_count, metavar="N", help="so many rounds of everything (default: by need)"
    )
    parser.add_argument("--quick", action="store_true", help="once, small, in under a minute")
    parser.add_argument(
        "--growth", action="store_true", help="also how it grows with files, bytes and layers"
    )
    parser.add_argument("--engine", metavar="PATH", help="the dockerd to run (default: on PATH)")
    parser.add_argument(
        "--go",
        metavar="PATH",
        help="the Go plugin (default: what benchmarks/goplugin/build made, if it did)",
    )
    parser.add_argument("--no-go", action="store_true", help="leave the Go plugin out")
    parser.add_argument("--json", metavar="FILE", help="write figures and samples as JSON")
    parser.add_argument("--svg", metavar="FILE", help="write a picture of the ratios")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="write the tables; into a file that has the marks, between them",
    )
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="a report as JSON, instead of measuring"
    )


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    try:
        from rich.console import Console
    except ImportError as error:
        raise ManukaError(
            f"the benchmark needs the package {error.name}: pip install 'manuka[toolkit]'"
        ) from None
    from manuka.toolkit.bench import table
    from manuka.toolkit.bench.rows import ROWS

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    unknown = [name for name in arguments.only if name not in ROWS]
    if unknown:
        raise UsageError(f"--only: there is no figure {unknown[0]!r}; --list names them")
    if arguments.list:
        for row in ROWS.values():
            console.print(f"{row.name:18} {row.title} ({row.part})", markup=False, soft_wrap=True)
        return 0
    for path in (arguments.json, arguments.svg, arguments.markdown):
        if path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise UsageError(f"there is no folder for {path}")
    results = _measured(arguments) if arguments.source is None else _earlier(arguments.source)
    table.show(console, results)
    _write(arguments, results)
    if results.interrupted is not None and arguments.source is None:
        return 128 + signal.Signals[results.interrupted]
    return 1 if results.failures or results.interrupted is not None else 0


def _measured(arguments: argparse.Namespace) -> Results:
    from rich.console import Console

    from manuka.toolkit.bench.contender import Choice
    from manuka.toolkit.bench.run import Options, run_bench

    options = Options(
        Choice(arguments.engine, _go_plugin(arguments)),
        tuple(arguments.only),
        arguments.rounds,
        arguments.quick,
        arguments.growth,
    )
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return run_bench(options, lambda text: console.print("bench: " + text, markup=False))
    with console.status("") as status:
        return run_bench(options, lambda text: status.update(text.replace("[", "\\[")))


def _earlier(path: str) -> Results:
    from manuka.toolkit.bench.results import Results

    with open(path, encoding="utf-8") as file:
        return Results.from_json(file.read())


def _write(arguments: argparse.Namespace, results: Results) -> None:
    from manuka.toolkit.bench import chart, markdown

    for path, text in (
        (arguments.json, results.to_json() if arguments.json else ""),
        (arguments.svg, chart.svg(results) if arguments.svg else ""),
    ):
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    if arguments.markdown is not None:
        markdown.write(arguments.markdown, results)


def _go_plugin(arguments: argparse.Namespace) -> Optional[str]:
    if arguments.no_go:
        return None
    path: str = arguments.go or _BUILT_GO
    if os.access(path, os.X_OK):
        return os.path.abspath(path)
    if arguments.go is not None:
        raise UsageError(f"--go: there is no program {path}; benchmarks/goplugin/build makes one")
    return None


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise ValueError(text)
    return value
