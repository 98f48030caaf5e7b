"""What a new process, or a new engine, makes of what an old one left.

`tests/crash` kills real processes at each step; here each kind of remains is laid out by hand.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from manuka.driver import CreateOptions, DriverError
from manuka.linux.mountinfo import is_mount_point
from manuka.overlay2 import Overlay2
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root, unmounted_after
from tests.unit.stacks import apply, create, start

pytestmark = needs_root


def started(folder: Path) -> Overlay2:
    """A driver whose run folder is kept: the next one is that of a plugin started anew."""
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    return start(folder, run_dir=run_dir)


def break_off(driver: Overlay2, layer_id: str) -> None:
    create(driver, layer_id)
    with pytest.raises(Exception, match="unexpected end"):
        driver.apply_diff(
            layer_id, None, io.BytesIO(LayerTar().file("f", b"f" * 600).bytes()[:700])
        )


def test_an_unfinished_layer_stays_for_an_engine_that_lives(tmp_path: Path) -> None:
    break_off(started(tmp_path), "half")
    driver = started(tmp_path)
    assert driver.exists("half")
    for refused in (driver.get, lambda layer: driver.diff(layer, None)):
        with pytest.raises(DriverError, match="not whole"):
            refused("half")


def test_an_unfinished_layer_goes_when_an_engine_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = started(tmp_path)
    break_off(driver, "half")
    apply(driver, "whole", None, LayerTar().file("f"))
    os.rename(str(tmp_path / "run"), str(tmp_path / "run.old"))  # as for an Init
    driver = started(tmp_path)
    assert not driver.exists("half")
    assert driver.exists("whole")
    assert "half" in caplog.text


def test_what_a_dead_driver_mounted_for_itself_is_unmounted(tmp_path: Path) -> None:
    with unmounted_after(tmp_path):
        driver = started(tmp_path)
        apply(driver, "base", None, LayerTar().file("f"))
        for layer_id in ("own", "container"):
            driver.create_read_write(layer_id, "base", CreateOptions())
        driver.get("container")
        with driver.mounted("own") as own, driver.mounted("container") as container:
            started(tmp_path)
            assert not is_mount_point(own)
            assert is_mount_point(container)


def test_the_drivers_own_use_and_the_engines_are_counted_apart(tmp_path: Path) -> None:
    with unmounted_after(tmp_path):
        driver = started(tmp_path)
        apply(driver, "base", None, LayerTar().file("f"))
        driver.create_read_write("container", "base", CreateOptions())
        with driver.mounted("container") as tree:
            driver.get("container")
        assert is_mount_point(tree)
        with driver.mounted("container"):
            driver.put("container")
            assert is_mount_point(tree)
        assert not is_mount_point(tree)


def test_a_mount_point_without_a_mount_is_removed_at_the_start(tmp_path: Path) -> None:
    driver = started(tmp_path)
    apply(driver, "base", None, LayerTar().file("f"))
    driver.create_read_write("container", "base", CreateOptions())
    merged = tmp_path / "home" / "container" / "merged"
    merged.mkdir()
    started(tmp_path)
    assert not merged.exists()


def test_removing_a_layer_drops_a_record_that_this_process_never_read(tmp_path: Path) -> None:
    with unmounted_after(tmp_path):
        driver = started(tmp_path)
        apply(driver, "base", None, LayerTar().file("f"))
        driver.create_read_write("container", "base", CreateOptions())
        for _ in range(2):
            driver.get("container")
        counts = tmp_path / "run" / "counts"
        assert os.listdir(str(counts)) == ["container"]
        started(tmp_path).remove("container")
        assert os.listdir(str(counts)) == []
