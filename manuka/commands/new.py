"""``manuka new``: a project for a driver of one's own.  `manuka.toolkit.new` has the files."""

from __future__ import annotations

import argparse

from manuka.commands.arguments import UsageError

DESCRIPTION = "Make the folder of a project: a small driver that works, its tests, units, a README."

EXAMPLES = """\
examples:
  manuka new my-driver
      makes the folder my-driver, with a package my_driver and a class MyDriver in it
  manuka new my-driver --folder ~/src

NAME is also what the engine calls the driver: --storage-driver NAME.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `manuka.commands`."""
    parser.add_argument(
        "name", metavar="NAME", help="small letters, digits and hyphens; a letter first"
    )
    parser.add_argument(
        "--folder", default=".", metavar="DIR", help="where to make it (default: here)"
    )


def run(arguments: argparse.Namespace) -> int:
    """See `manuka.commands`."""
    from manuka.toolkit.new.project import FILES, NameNotUsable, make_project, names_for

    try:
        path = make_project(arguments.name, arguments.folder)
    except NameNotUsable as error:
        raise UsageError(str(error)) from None
    _, package, class_name = names_for(arguments.name)
    print(f"made {path}, with {len(FILES)} files; the driver is {package}/driver.py")
    print("see it run, on an engine of its own:")
    print(f"  cd {path}")
    print(f"  sudo manuka sandbox --driver {package}:{class_name} -- docker info")
    print("README.md has the other commands")
    return 0
