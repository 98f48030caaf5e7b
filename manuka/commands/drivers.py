"""Finding a driver by the name that a user gives: ``MODULE:CLASS``, or an entry point.

A package offers its drivers in the entry points of the group ``manuka.drivers``::

    [project.entry-points."manuka.drivers"]
    mine = "mydriver:Driver"

Easy to get wrong: a module that fails while it is imported is its author's everyday fault, so it
gets a line that names it, and its traceback goes to the log at level debug.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Type

from manuka.commands.arguments import UsageError

if TYPE_CHECKING:
    from manuka.driver import GraphDriver

log = logging.getLogger(__name__)

ENTRY_POINTS = "manuka.drivers"


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
