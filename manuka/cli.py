"""The command ``manuka``: finds the command that is meant, runs it, and words its faults.

The commands themselves lie in `manuka.commands`, one module each; only the one that was asked for
is imported.  Exit codes: 0 done, 1 it failed (one line on stderr says why), 2 wrong arguments;
128 + N signal N ended it; a command may have others of its own.

Easy to get wrong: importing at the top.  The engine waits for the plugin, and every module
costs a part of that wait.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from typing import Any, Callable, Dict, List, Optional

from manuka import __version__
from manuka.commands.arguments import UsageError
from manuka.errors import ManukaError

#: Each command with its line in ``manuka --help``, in the order in which that lists them.
COMMANDS: Dict[str, str] = {
    "serve": "serve a driver to the engine",
    "new": "begin a driver of your own",
    "sandbox": "run a private engine on a driver",
    "conform": "check a plugin over its socket",
    "trace": "show what an engine and a plugin say to each other",
    "doctor": "tell why an engine won't come up on a plugin",
    "bench": "measure manuka against the engine's own overlay2",
}

_EXAMPLES = """\
examples:
  manuka serve
      serve overlay2 to the engine, as the plugin "manuka"
  manuka serve --driver mydriver:Driver --name mine
      serve a driver of your own; the engine then runs with --storage-driver mine
  manuka sandbox -- docker info
      start a private engine on manuka and run a command against it
"""

_DEBUG = "MANUKA_DEBUG"


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except UsageError as error:
        return _complain(str(error), 2)
    except ManukaError as error:
        return _complain(str(error), 1)
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        return _complain(f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        return _complain("interrupted", 128 + number)
    except Exception as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        return _complain(
            f"internal error: {type(error).__name__}: {error} ({_DEBUG}=1 shows where)", 1
        )


def _complain(text: str, code: int) -> int:
    print("manuka: " + " ".join(text.split()), file=sys.stderr)
    return code


def _parser(argv: List[str]) -> argparse.ArgumentParser:
    """The parser for all commands, but with arguments only for the one that `argv` begins with."""
    parser: argparse.ArgumentParser = _command_parser(
        argparse.ArgumentParser,
        prog="manuka",
        description="Docker's overlay2 storage driver as a plugin, and a kit to write others.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"manuka {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    commands.required = True
    asked_for = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == asked_for:
            _add_command(commands, name, summary)
        else:
            commands.add_parser(name, help=summary)
    return parser


def _add_command(commands: Any, name: str, summary: str) -> None:
    module = importlib.import_module("manuka.commands." + name.replace("-", "_"))
    parser = _command_parser(
        commands.add_parser,
        name,
        help=summary,
        description=module.DESCRIPTION,
        epilog=module.EXAMPLES,
    )
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)


def _command_parser(make: Callable[..., Any], *names: str, **settings: Any) -> Any:
    return make(
        *names, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
    )
