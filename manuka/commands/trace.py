"""``manuka trace``: what an engine and a plugin say.  `manuka.toolkit.trace` does the work."""

from __future__ import annotations

import argparse

from manuka.commands.arguments import UsageError, add_storage_opt, check_storage_opts
from manuka.errors import ManukaError

DESCRIPTION = """\
Show what an engine and a plugin say to each other: every call as it ends, with its layer, its
duration, bytes and errors, and a table of all at the end. In one of three ways: around a COMMAND
that gets a private engine; on the SOCKET of a plugin that serves an engine already, until Ctrl-C;
or from a file that was recorded before (--read).
"""

EXAMPLES = """\
examples:
  manuka trace -- docker run --rm --network none busybox true
      a private engine, which has an image busybox, and what it asks of manuka for one container
  manuka trace --svg run.svg -- docker run --rm --network none busybox true
      the same as a drawing
  manuka trace --socket /run/docker/plugins/manuka.sock --record calls.jsonl --layers layers/
      a plugin at work; its socket is taken aside meanwhile, and put back at the end
  manuka trace --read calls.jsonl --timeline
  manuka trace --replay calls.jsonl --layers layers/ --socket /tmp/other.sock
      the recorded calls again, on another plugin; exit code 1: it answers otherwise
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument("--socket", metavar="PATH", help="the socket of a plugin that runs")
    parser.add_argument(
        "--listen",
        metavar="PATH",
        help="with --socket: stand there instead of in the plugin's place",
    )
    parser.add_argument("--record", metavar="FILE", help="write the calls there, as JSON lines")
    parser.add_argument(
        "--layers", metavar="DIR", help="keep the layers that are sent, or take them from there"
    )
    parser.add_argument("--read", metavar="FILE", help="show the calls of a recording")
    parser.add_argument("--replay", metavar="FILE", help="make a recording's calls on --socket")
    parser.add_argument(
        "--home", metavar="DIR", help="with --replay: an empty folder for the driver's layers"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the calls over time")
    parser.add_argument("--timeline", action="store_true", help="the same as text")
    parser.add_argument(
        "--all", action="store_true", help="with COMMAND: also the engine's start and end"
    )
    parser.add_argument(
        "--driver", default="manuka", help="with COMMAND: as for sandbox (default: %(default)s)"
    )
    parser.add_argument("--engine", metavar="PATH", help="with COMMAND: the dockerd to run")
    add_storage_opt(parser, "with COMMAND: an option for the driver; may be repeated")
    parser.add_argument("arguments", nargs="*", metavar="COMMAND", help="what to run and trace")


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    ways = [bool(arguments.arguments), bool(arguments.read), bool(arguments.replay)]
    if sum(ways) > 1 or not (any(ways) or arguments.socket):
        raise UsageError("name what to trace: one of COMMAND, --socket, --read and --replay")
    if arguments.replay and not arguments.socket:
        raise UsageError("--replay needs the --socket of the plugin to make the calls on")
    if arguments.listen and (any(ways) or not arguments.socket):
        raise UsageError("--listen goes with --socket alone")
    check_storage_opts(arguments.storage_opt)
    try:
        import h11  # noqa: F401
    except ImportError:
        raise ManukaError("trace needs the package h11: pip install 'manuka[toolkit]'") from None

    from manuka.toolkit.trace import command

    if arguments.read:
        return command.show_recording(arguments.read, arguments.timeline, arguments.svg)
    if arguments.replay:
        return command.replay_recording(
            arguments.replay, arguments.socket, arguments.home, arguments.layers
        )
    output = command.Output(arguments.record, arguments.layers, arguments.timeline, arguments.svg)
    if arguments.arguments:
        return command.trace_command(
            output,
            arguments.arguments,
            arguments.driver,
            arguments.engine,
            arguments.storage_opt,
            arguments.all,
        )
    return command.trace_socket(output, arguments.socket, arguments.listen)
