"""manuka.driver: what a driver of five methods gets from the base."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import Dict, Iterator, Optional

import pytest

from manuka.driver import Change, CreateOptions, DriverError, GraphDriver, Kind, Settings
from manuka.layers.export import ExportError
from manuka.layers.idmap import IdMaps, IdRange
from tests.layertar import LayerTar
from tests.snapshot import snapshot
from tests.unit.folder_driver import FolderDriver


class Counting(FolderDriver):
    """Knows how often each layer is in use."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.users: Dict[str, int] = {}

    def get(self, layer_id: str, mount_label: str = "") -> str:
        path = super().get(layer_id, mount_label)
        self.users[layer_id] = self.users.get(layer_id, 0) + 1
        return path

    def put(self, layer_id: str) -> None:
        self.users[layer_id] -= 1

    @property
    def in_use(self) -> bool:
        return any(self.users.values())


@pytest.fixture
def driver(tmp_path: Path) -> Counting:
    driver = Counting(Settings(str(tmp_path / "home")))
    driver.create("base", None, CreateOptions())
    base = LayerTar().folder("d").file("d/old", b"old").file("d/gone").file("same", b"same")
    driver.apply_diff("base", None, io.BytesIO(base.bytes()))
    driver.create("top", "base", CreateOptions())
    top = LayerTar().file("d/old", b"newer").whiteout("d/gone").file("new", b"new")
    driver.apply_diff("top", "base", io.BytesIO(top.bytes()))
    return driver


def test_a_driver_of_fewer_than_five_methods_cannot_be_made() -> None:
    class Unfinished(GraphDriver):
        def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
            pass

    with pytest.raises(TypeError, match="abstract method"):
        Unfinished(Settings("/nowhere"))  # type: ignore[abstract]


def test_changes_and_size_follow_from_the_five(driver: Counting) -> None:
    assert driver.changes("top", "base") == [
        Change("/d", Kind.MODIFY),
        Change("/d/gone", Kind.DELETE),
        Change("/d/old", Kind.MODIFY),
        Change("/new", Kind.ADD),
    ]
    assert driver.diff_size("top", "base") == len("newer") + len("new")
    assert driver.diff_size("top", None) == len("newer") + len("new") + len("same")
    assert not driver.in_use


def test_a_diff_makes_the_same_layer_on_another(driver: Counting) -> None:
    tar = b"".join(driver.diff("top", "base"))
    driver.create("again", "base", CreateOptions())
    assert driver.apply_diff("again", "base", io.BytesIO(tar)) == len("newer") + len("new")
    assert snapshot(driver.path("again"), ["mtime_ns"]) == snapshot(
        driver.path("top"), ["mtime_ns"]
    )
    assert not driver.in_use


def test_what_is_shown_of_driver_and_layers_follows_as_well(driver: Counting) -> None:
    assert GraphDriver.status(driver) == [("Driver class", f"{__name__}:Counting")]
    assert driver.metadata("top") == {}
    with pytest.raises(DriverError, match="there is no layer nothing"):
        driver.metadata("nothing")


def _unstarted(pieces: Iterator[bytes]) -> None:
    pass


def _started(pieces: Iterator[bytes]) -> None:
    next(pieces)


def _read(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


@pytest.mark.parametrize("use", [_unstarted, _started, _read])
def test_closing_a_diff_lets_go_of_both_layers_however_far_it_was_read(
    driver: Counting, use: object
) -> None:
    gc.disable()
    try:
        pieces = driver.diff("top", "base")
        assert driver.users == {"top": 1, "base": 1}
        use(pieces)  # type: ignore[operator]
        pieces.close()  # type: ignore[attr-defined]
        assert not driver.in_use
        pieces.close()  # type: ignore[attr-defined]
        assert not driver.in_use
    finally:
        gc.enable()


def test_a_diff_that_cannot_be_packed_lets_go_of_both_layers(driver: Counting) -> None:
    Path(driver.path("top"), ".wh.name").touch()
    with pytest.raises(ExportError):
        driver.diff("top", "base")
    assert not driver.in_use


def test_a_fault_while_packing_lets_go_of_both_layers(driver: Counting) -> None:
    far_away = (IdRange(0, 100000, 10),)
    driver.settings = driver.settings._replace(id_maps=IdMaps(far_away, far_away))
    pieces = driver.diff("top", "base")
    with pytest.raises(ExportError, match="cannot be mapped"):
        next(pieces)
    assert not driver.in_use


def test_a_diff_from_a_layer_that_is_not_there_lets_go_of_the_other(driver: Counting) -> None:
    with pytest.raises(DriverError):
        driver.diff("top", "nowhere")
    assert not driver.in_use
