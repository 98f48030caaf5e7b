"""Every driver of the package, for tests that hold for each of them.

`make_driver` is a fixture that makes a driver of one kind after the other; `whole_trees` has only
those whose layers are whole trees.  The one of btrfs gets its own file system, once a module.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Type

import pytest

from manuka.btrfs import Btrfs
from manuka.driver import GraphDriver, Settings
from manuka.layers.idmap import IDENTITY, IdMaps
from manuka.overlay2 import Overlay2
from manuka.vfs import Vfs
from tests.unit.mounts import file_system, unmounted_after

KINDS: Dict[str, Type[Any]] = {"overlay2": Overlay2, "vfs": Vfs, "btrfs": Btrfs}

_numbers = itertools.count()


class Maker:
    """Makes drivers of one kind; a second one of the same `home` is that of a new process."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.driver_class = KINDS[kind]
        self.folder = folder

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def __call__(self, *options: str, id_maps: IdMaps = IDENTITY) -> GraphDriver:
        driver: GraphDriver = self.driver_class(Settings(str(self.home), options, id_maps))
        return driver


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Gives the folder of a btrfs, which is made when it is first asked for."""
    with contextlib.ExitStack() as stack:
        mounted = []

        def folder() -> Path:
            if not mounted:
                base = tmp_path_factory.mktemp("btrfs")
                mounted.append(stack.enter_context(file_system(base, "mkfs.btrfs", "--quiet")))
            return mounted[0]

        yield folder


def _maker(kind: str, tmp_path: Path, btrfs: Callable[[], Path]) -> Maker:
    if kind != "btrfs":
        return Maker(kind, tmp_path)
    folder = btrfs() / str(next(_numbers))
    folder.mkdir()
    return Maker(kind, folder)


@pytest.fixture(params=sorted(KINDS))
def make_driver(request: Any, tmp_path: Path, btrfs: Callable[[], Path]) -> Iterator[Maker]:
    """A `Maker` for each kind of driver."""
    with unmounted_after(tmp_path):
        yield _maker(request.param, tmp_path, btrfs)


@pytest.fixture(params=["vfs", "btrfs"])
def whole_trees(request: Any, tmp_path: Path, btrfs: Callable[[], Path]) -> Maker:
    """A `Maker` for each kind of driver whose layers are whole trees."""
    return _maker(request.param, tmp_path, btrfs)
