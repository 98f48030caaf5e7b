"""Overlay2 drivers on temporary folders, and short words for what tests do with their layers."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Collection, Iterator, Optional, Union

from manuka.driver import CreateOptions, Settings
from manuka.layers.idmap import IDENTITY, IdMaps, IdRange
from manuka.overlay2 import Overlay2
from tests.layertar import LayerTar
from tests.snapshot import Snapshot, snapshot
from tests.unit.mounts import unmounted_after

REMAPPED = IdMaps((IdRange(0, 100000, 65536),), (IdRange(0, 200000, 65536),))


@contextlib.contextmanager
def overlay2(folder: Path, *options: str, id_maps: IdMaps = IDENTITY) -> Iterator[Overlay2]:
    """A driver at ``home`` in `folder`, its mounts gone afterwards."""
    with unmounted_after(folder):
        yield start(folder, *options, id_maps=id_maps)


def start(
    folder: Path, *options: str, id_maps: IdMaps = IDENTITY, run_dir: Optional[Path] = None
) -> Overlay2:
    """The driver that a new process, or an engine's new start, would make of ``home``."""
    run = None if run_dir is None else str(run_dir)
    return Overlay2(Settings(str(folder / "home"), options, id_maps, run))


def create(driver: Overlay2, layer_id: str, parent: Optional[str] = None) -> str:
    """A new layer with nothing in it; its id."""
    driver.create(layer_id, parent, CreateOptions())
    return layer_id


def apply(
    driver: Overlay2, layer_id: str, parent: Optional[str], tar: Union[LayerTar, bytes]
) -> int:
    """A new layer with what a tar holds; the size that the driver tells."""
    create(driver, layer_id, parent)
    data = tar if isinstance(tar, bytes) else tar.bytes()
    return driver.apply_diff(layer_id, parent, io.BytesIO(data))


def packed(driver: Overlay2, layer_id: str, parent: Optional[str] = None) -> bytes:
    """The layer's difference from its parent, as a tar."""
    return b"".join(driver.diff(layer_id, parent))


def view(driver: Overlay2, layer_id: str, ignore: Collection[str] = ()) -> Snapshot:
    """What a container would see of a layer."""
    with driver.mounted(layer_id) as tree:
        return snapshot(tree, ignore)


@contextlib.contextmanager
def inside(driver: Overlay2, layer_id: str) -> Iterator[Path]:
    """The layer's tree, mounted as for a container."""
    with driver.mounted(layer_id) as tree:
        yield Path(tree)
