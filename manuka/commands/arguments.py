"""What the arguments of several commands have in common: their checks, and the log.

Easy to get wrong: an argument that cannot be meant ends with exit code 2 and one line, like those
that argparse refuses; raise `UsageError` for it.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from typing import List

from manuka.errors import ManukaError

LOG_LEVELS = ("debug", "info", "warning", "error")

#: The engine looks for a driver of its own first, and never asks a plugin with such a name.
BUILT_INTO_ENGINES = frozenset(
    ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "zfs")
)

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class UsageError(ManukaError):
    """An argument that cannot be meant."""


def add_storage_opt(parser: argparse.ArgumentParser, text: str) -> None:
    """Accept ``--storage-opt KEY=VALUE``, any number of times; `text` is its help."""
    parser.add_argument(
        "--storage-opt", action="append", default=[], metavar="KEY=VALUE", help=text
    )


def check_storage_opts(options: List[str]) -> None:
    """Raise UsageError for one that is not ``KEY=VALUE``."""
    for option in options:
        if not option.partition("=")[0] or "=" not in option:
            raise UsageError(f"--storage-opt: expected KEY=VALUE, got {option!r}")


def plugin_name(name: str) -> str:
    """A name by which an engine can ask for a plugin.  Raises UsageError for any other."""
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(f"--name: {name!r} is no plain name (letters, digits, '_', '.', '-')")
    if name in BUILT_INTO_ENGINES:
        raise UsageError(
            f"--name: {name!r} is a driver that engines have built in, so they would never ask "
            "the plugin; choose another name"
        )
    return name


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """Accept ``--log-level``, for `start_log`."""
    parser.add_argument(
        "--log-level",
        default="info",
        choices=LOG_LEVELS,
        help="what to log on stderr (default: %(default)s)",
    )


def start_log(level: str) -> None:
    """Log to stderr from `level` up."""
    # The journal adds the time itself.
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        level=level.upper(), format=when + "%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
