"""``manuka serve``: what the service runs.  `manuka.server.run` does the serving."""

from __future__ import annotations

import argparse
import os
import signal
from typing import Any

from manuka.commands.arguments import (
    UsageError,
    add_log_level,
    add_storage_opt,
    check_storage_opts,
    plugin_name,
    start_log,
)
from manuka.commands.drivers import ENTRY_POINTS, load_driver
from manuka.errors import ManukaError

DEFAULT_DRIVER = "manuka.overlay2:Overlay2"

DESCRIPTION = "Serve a storage driver to a Docker engine, until SIGTERM."

EXAMPLES = """\
examples:
  manuka serve
  manuka serve --driver mydriver:Driver --name mine --log-level debug
  manuka serve --socket /tmp/m.sock --run-dir /tmp/m --home /tmp/layers   without an engine

The engine sends the driver's folder and options when it starts.  After a restart of the plugin
alone, the last ones are taken from the run folder.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
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
    add_storage_opt(parser, "with --home: an option for the driver; may be repeated")
    add_log_level(parser)


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    name = plugin_name(arguments.name)
    check_storage_opts(arguments.storage_opt)
    if arguments.storage_opt and arguments.home is None:
        raise UsageError("--storage-opt needs --home; without, the engine sends its own options")
    if arguments.home == "":
        raise UsageError("--home is empty; name the folder for layers")
    if os.geteuid() != 0:
        raise ManukaError("serve needs root, to mount layers and to own their files; try sudo")
    start_log(arguments.log_level)
    driver_class = load_driver(arguments.driver)

    from manuka.api.instance import DriverInstance
    from manuka.api.messages import InitRequest
    from manuka.api.routes import make_app
    from manuka.home import check_home
    from manuka.server.run import serve
    from manuka.server.sockets import listen

    run_dir = os.path.abspath(arguments.run_dir or f"/run/manuka/{name}")
    instance = DriverInstance(driver_class, run_dir)
    home = None if arguments.home is None else "/" + os.path.abspath(arguments.home).lstrip("/")
    if home is not None:
        check_home(home)
    signal.signal(signal.SIGTERM, _interrupt)  # until `serve` has its own way to stop
    listener = listen(arguments.socket or f"/run/docker/plugins/{name}.sock")
    try:
        if home is not None:
            instance.initialise(InitRequest(home, tuple(arguments.storage_opt)))
        else:
            instance.restore()
        serve(make_app(instance), listener)
    finally:
        listener.close()
    return 0


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt(signum)
