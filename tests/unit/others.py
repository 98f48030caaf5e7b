"""What users without rights can do to files, and what they may have put in place of ours.

The kernel is asked, by a process of such a user: run as ``python others.py``, with paths on its
standard input, this is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List

_NOBODY = 65534
STRANGER = 1000


def paths_below(folder: Path, skip: Callable[[str], bool] = lambda path: False) -> List[str]:
    """Every path in a tree, and the tree's own; without what is at and below those to skip."""
    found = [str(folder)]
    for place, folders, files in os.walk(str(folder)):
        folders[:] = [name for name in folders if not skip(os.path.join(place, name))]
        found += [os.path.join(place, name) for name in folders + files]
    return [path for path in found if not skip(path)]


def open_to_others(
    paths: List[str], start: Callable[..., subprocess.Popen[Any]] = subprocess.Popen
) -> List[str]:
    """Those that anybody may read or write, as ``"r- PATH"``, though the names were secret.

    start: starts the process that tries, where the paths are.
    """
    command = [sys.executable, os.path.abspath(__file__)]
    process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    said, _ = process.communicate("\0".join(paths).encode(), timeout=120)
    assert process.returncode == 0
    lines: List[str] = said.decode().splitlines()
    return lines


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


def open_to_group(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def give_away(path: Path) -> None:
    os.chown(str(path), STRANGER, STRANGER)


def put_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def put_a_strangers_link(path: Path) -> None:
    put_a_link(path)
    os.chown(str(path), STRANGER, STRANGER, follow_symlinks=False)


def main() -> None:
    """Print what this process may do once it is nobody's."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for path in sys.stdin.read().split("\0"):
        if os.path.islink(path):
            continue  # the kernel asks for no rights to one
        rights = "".join(
            letter if os.access(path, way) else "-"
            for letter, way in (("r", os.R_OK), ("w", os.W_OK))
        )
        if rights != "--":
            print(rights, path)


if __name__ == "__main__":
    main()
