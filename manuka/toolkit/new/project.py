"""A project for a storage driver of one's own: a small driver that works, tests, units, a README.

``manuka new`` is the command for it (`manuka.commands.new`).  The files are those of
``templates``, with the project's names put in; each is what its author would write, so that it
can be changed without knowing that it was generated.

Easy to get wrong: half a project.  It is made in a folder beside, and renamed when it is whole.
"""

from __future__ import annotations

import importlib.machinery
import keyword
import os
import pkgutil
import re
import secrets
import string
import sys
from typing import NamedTuple

from manuka.errors import ManukaError
from manuka.linux.tree import remove_tree
from manuka.toolkit.engine import BUILT_IN

#: Each file of a project and the template that it is made of; names have placeholders as well.
FILES = {
    ".gitignore": "gitignore.in",
    "README.md": "README.md.in",
    "pyproject.toml": "pyproject.toml.in",
    "${package}/__init__.py": "init.py.in",
    "${package}/driver.py": "driver.py.in",
    "systemd/${name}.service": "service.in",
    "systemd/${name}.socket": "socket.in",
    "tests/test_conformance.py": "test_conformance.py.in",
    "tests/test_driver.py": "test_driver.py.in",
}

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_TAKEN = frozenset(("docker", "manuka", "pytest", "systemd", "test", "tests"))


class ProjectError(ManukaError):
    """A project cannot be made."""


class NameNotUsable(ProjectError):
    """A project cannot have this name."""


class Names(NamedTuple):
    """What a project's parts are called.

    name: the project, and the plugin for the engine: ``blue-store``.
    package: the Python package: ``blue_store``.
    class_name: the driver's class: ``BlueStore``.
    """

    name: str
    package: str
    class_name: str


def names_for(name: str) -> Names:
    """The names that follow from a project's.  Raises NameNotUsable."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise NameNotUsable(
            f"{name!r} cannot be a driver's name: take small letters, digits and single hyphens, a "
            f"letter first and {_LONGEST} at most, such as my-driver"
        )
    if name in BUILT_IN:
        raise NameNotUsable(
            f"{name!r} is a driver that engines have built in, so they would never ask a plugin of "
            "that name; choose another"
        )
    if name.endswith(("overlay", "overlay2")):
        raise NameNotUsable(
            f"engines unmount what they take for left over from a driver whose name ends like "
            f"{name!r}; choose another"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in _TAKEN or _is_in_standard_library(package):
        raise NameNotUsable(f"Python has something called {package!r} already; choose another name")
    return Names(name, package, "".join(part.capitalize() for part in name.split("-")))


def make_project(name: str, folder: str) -> str:
    """Make the project `name` in `folder`; returns its path.

    Raises NameNotUsable, or ProjectError when something is there already; nothing is changed then.
    """
    names = names_for(name)
    path = os.path.normpath(os.path.join(folder, name))
    if os.path.lexists(path):
        raise ProjectError(f"{path} exists already; choose another name, or move it away")
    if not os.path.isdir(folder):
        raise ProjectError(f"there is no folder {folder} to make the project in")
    unfinished = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        for file, template in FILES.items():
            target = os.path.join(unfinished, _filled(file, names))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as output:
                output.write(_filled(_template(template), names))
        os.rename(unfinished, path)
    except BaseException:
        remove_tree(unfinished)
        raise
    return path


def _filled(text: str, names: Names) -> str:
    return string.Template(text).substitute(names._asdict())


def _template(name: str) -> str:
    data = pkgutil.get_data(__package__, f"templates/{name}")
    if data is None:
        raise ProjectError(f"this installation of manuka lacks the template {name}; install anew")
    return data.decode("utf-8")


def _is_in_standard_library(package: str) -> bool:
    """Whether a project of this name would hide a module that comes with Python."""
    if package in sys.builtin_module_names:
        return True
    finder = importlib.machinery.PathFinder
    return finder.find_spec(package, [os.path.dirname(os.__file__)]) is not None
