"""The command ``manuka``: arguments in, an exit code out, one function a command.

``serve`` is what the service runs; the others are for people and import what they need when they
run, so that ``serve`` starts with nothing but Bottle and waitress.  Exit codes: 0 done, 1 it
failed (one line on stderr says why), 2 wrong arguments.

Easy to get wrong: importing at the top.  The engine waits for the plugin, and every module
costs a part of that wait.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Type

from manuka import __version__
from manuka.errors import ManukaError

if TYPE_CHECKING:
    from manuka.driver import GraphDriver

log = logging.getLogger(__name__)

DEFAULT_DRIVER = "manuka.overlay2:Overlay2"
ENTRY_POINTS = "manuka.drivers"

#: The engine looks for a driver of its own first, and never asks a plugin with such a name.
BUILT_INTO_ENGINES = frozenset(
    ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "zfs")
)

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_EXAMPLES = """\
examples:
  manuka serve
      serve overlay2 to the engine, as the plugin "manuka"
  manuka serve --driver mydriver:Driver --name mine
      serve a driver of your own; the engine then runs with --storage-driver mine
  manuka sandbox -- docker info
      start a private engine on manuka and run a command against it
"""

_SERVE_EXAMPLES = """\
examples:
  manuka serve
  manuka serve --driver mydriver:Driver --name mine --log-level debug
  manuka serve --socket /tmp/m.sock --run-dir /tmp/m --home /tmp/layers   without an engine

The engine sends the driver's folder and options when it starts.  After a restart of the plugin
alone, the last ones are taken from the run folder.
"""

_SANDBOX_EXAMPLES = """\
examples:
  manuka sandbox
      a container is run, and shown with the layers that it is made of
  manuka sandbox -- bash
      a shell in which docker talks to a private engine on manuka
  manuka sandbox --driver overlay2 -- docker info
      the same on the engine's own driver, to compare
  manuka sandbox --driver mydriver:Driver -- docker run --rm busybox true
  manuka sandbox --engine /opt/docker-26/dockerd --keep --data-dir /mnt/disk
"""


class UsageError(ManukaError):
    """An argument that cannot be meant."""


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except UsageError as error:
        return _complain(str(error), 2)
    except ManukaError as error:
        return _complain(str(error), 1)
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        return _complain(f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    except Exception as error:
        log.debug("internal error", exc_info=True)
        return _complain(
            f"internal error: {type(error).__name__}: {error} (--log-level debug shows where)", 1
        )


def _complain(text: str, code: int) -> int:
    print("manuka: " + " ".join(text.split()), file=sys.stderr)
    return code


# --- arguments ------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _command_parser(
        argparse.ArgumentParser,
        prog="manuka",
        description="Docker's overlay2 storage driver as a plugin, and a kit to write others.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"manuka {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    commands.required = True
    _add_serve(commands)
    _add_sandbox(commands)
    return parser


def _command_parser(make: Callable[..., Any], *names: str, **settings: Any) -> Any:
    return make(
        *names, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
    )


def _add_serve(commands: Any) -> None:
    parser = _command_parser(
        commands.add_parser,
        "serve",
        help="serve a driver to the engine",
        description="Serve a storage driver to a Docker engine, until SIGTERM.",
        epilog=_SERVE_EXAMPLES,
    )
    parser.set_defaults(run=_serve)
    parser.add_argument(
        "--driver",
        default=DEFAULT_DRIVER,
        metavar="MODULE:CLASS",
        help=f"the driver's class, or its name in the entry points {ENTRY_POINTS!r} "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--name", default="manuka", help="the plugin's name for the engine (default: %(default)s)"
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="where to listen (default: /run/docker/plugins/NAME.sock, or what systemd passes)",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="what must outlive a restart of the plugin (default: /run/manuka/NAME)",
    )
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="use this folder for layers at once, without waiting for an engine to send one",
    )
    _add_storage_opt(parser, "with --home: an option for the driver; may be repeated")
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="what to log on stderr (default: %(default)s)",
    )


def _add_sandbox(commands: Any) -> None:
    parser = _command_parser(
        commands.add_parser,
        "sandbox",
        help="run a private engine on a driver",
        description="Start a Docker engine of its own on a driver, apart from any other engine.",
        epilog=_SANDBOX_EXAMPLES,
    )
    parser.set_defaults(run=_sandbox)
    parser.add_argument(
        "--driver",
        default="manuka",
        help="'manuka', a driver that the engine has built in, such as overlay2 or vfs, or one of "
        "your own as for serve (default: %(default)s)",
    )
    parser.add_argument("--engine", metavar="PATH", help="the dockerd to run (default: on PATH)")
    _add_storage_opt(parser, "an option for the driver, through the engine; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep images and layers afterwards")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="the folder to make its data folder in (default: /var/tmp)",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="COMMAND",
        help="what to run, with DOCKER_HOST set (default: show a container and its layers)",
    )


def _add_storage_opt(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--storage-opt", action="append", default=[], metavar="KEY=VALUE", help=text
    )


# --- commands -------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    name = _plugin_name(arguments.name)
    _check_options(arguments.storage_opt)
    if arguments.storage_opt and arguments.home is None:
        raise UsageError("--storage-opt needs --home; without, the engine sends its own options")
    if os.geteuid() != 0:
        raise ManukaError("serve needs root, to mount layers and to own their files; try sudo")
    _start_log(arguments.log_level)
    driver_class = load_driver(arguments.driver)

    from manuka.api.instance import DriverInstance
    from manuka.api.messages import InitRequest
    from manuka.api.routes import make_app
    from manuka.server.run import serve
    from manuka.server.sockets import listen

    run_dir = os.path.abspath(arguments.run_dir or f"/run/manuka/{name}")
    instance = DriverInstance(driver_class, run_dir)
    signal.signal(signal.SIGTERM, _interrupt)  # until `serve` has its own way to stop
    listener = listen(arguments.socket or f"/run/docker/plugins/{name}.sock")
    try:
        if arguments.home is not None:
            home = os.path.abspath(arguments.home)
            instance.initialise(InitRequest(home, tuple(arguments.storage_opt)))
        else:
            instance.restore()
        serve(make_app(instance), listener)
    finally:
        listener.close()
    return 0


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _sandbox(arguments: argparse.Namespace) -> int:
    _check_options(arguments.storage_opt)

    from manuka.toolkit.command import run_sandbox

    return run_sandbox(
        engine=arguments.engine,
        driver=arguments.driver,
        storage_opts=arguments.storage_opt,
        data_dir=arguments.data_dir,
        keep=arguments.keep,
        command=arguments.arguments,
    )


def _plugin_name(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(f"--name: {name!r} is no plain name (letters, digits, '_', '.', '-')")
    if name in BUILT_INTO_ENGINES:
        raise UsageError(
            f"--name: {name!r} is a driver that engines have built in, so they would never ask "
            "the plugin; choose another name"
        )
    return name


def _check_options(options: List[str]) -> None:
    for option in options:
        if not option.partition("=")[0] or "=" not in option:
            raise UsageError(f"--storage-opt: expected KEY=VALUE, got {option!r}")


def _start_log(level: str) -> None:
    # The journal adds the time itself.
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        level=level.upper(), format=when + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


# --- drivers --------------------------------------------------------------------------------------


def load_driver(name: str) -> Type[GraphDriver]:
    """The driver's class, for ``MODULE:CLASS`` or an entry point.  Raises UsageError.

    Modules are also looked for in the current folder, after all others.
    """
    reference = name if ":" in name else _entry_point(name)
    module_name, _, class_name = reference.partition(":")
    driver_class: Any
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        driver_class = importlib.import_module(module_name)
        for part in class_name.split("."):
            driver_class = getattr(driver_class, part)
    except Exception as error:
        log.debug("cannot load %s", reference, exc_info=True)
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"--driver: cannot load {reference!r}: {reason}") from error

    from manuka.driver import GraphDriver

    if not isinstance(driver_class, type) or not issubclass(driver_class, GraphDriver):
        raise UsageError(f"--driver: {reference!r} is no subclass of manuka.GraphDriver")
    return driver_class


def _entry_point(name: str) -> str:
    known = _entry_points()
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise UsageError(
            f"--driver: {name!r} is neither MODULE:CLASS nor a driver that is installed "
            f"(installed: {there})"
        )
    return str(known[name])


def _entry_points() -> Any:
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        # Not an import statement: newer Pythons have it no more, nor its types.
        pkg_resources: Any = importlib.import_module("pkg_resources")
        return {
            point.name: f"{point.module_name}:{'.'.join(point.attrs)}"
            for point in pkg_resources.iter_entry_points(ENTRY_POINTS)
        }
    points: Any = metadata.entry_points()
    if hasattr(points, "select"):
        chosen = points.select(group=ENTRY_POINTS)
    else:  # Python 3.8 and 3.9
        chosen = points.get(ENTRY_POINTS, ())
    return {point.name: point.value for point in chosen}
