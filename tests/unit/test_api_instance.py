"""The driver between Init, Init again, and a restart of the plugin."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import List

import pytest

from manuka.api.instance import NOT_INITIALISED, DriverInstance
from manuka.api.messages import InitRequest
from manuka.driver import DriverError, Settings
from manuka.layers.idmap import IdMaps, IdRange
from tests.unit.folder_driver import FolderDriver


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def init(tmp_path: Path) -> InitRequest:
    maps = IdMaps((IdRange(0, 1000, 10),), (IdRange(0, 2000, 10),))
    return InitRequest(str(tmp_path / "home"), ("a=b",), maps)


def _broken(init: InitRequest) -> InitRequest:
    return init._replace(options=("folder.broken=yes",))


def test_before_init_there_is_no_driver(run_dir: Path) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.restore()
    with pytest.raises(DriverError, match="restart the engine"):
        instance.driver()


def test_init_makes_the_driver_with_all_that_it_was_told(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.initialise(init)
    driver = instance.driver()
    assert driver is instance.driver()
    assert driver.settings == Settings(
        init.home, init.options, init.id_maps, str(run_dir / "driver")
    )
    assert stat.S_IMODE((run_dir / "driver").stat().st_mode) == 0o700
    assert stat.S_IMODE((run_dir / "init.json").stat().st_mode) == 0o600


def test_without_a_run_folder_the_driver_has_none(init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, None)
    instance.restore()
    instance.initialise(init)
    assert instance.driver().settings.run_dir is None


def test_a_restarted_plugin_serves_what_it_served_before(run_dir: Path, init: InitRequest) -> None:
    first = DriverInstance(FolderDriver, str(run_dir))
    first.initialise(init)
    (run_dir / "driver" / "mounts").write_text("kept")
    second = DriverInstance(FolderDriver, str(run_dir))
    second.restore()
    assert second.driver().settings == first.driver().settings
    assert (run_dir / "driver" / "mounts").read_text() == "kept"


def test_init_empties_the_drivers_run_folder(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.initialise(init)
    (run_dir / "driver" / "mounts").write_text("of the old engine")
    instance.initialise(init)
    assert os.listdir(str(run_dir / "driver")) == []
    assert sorted(os.listdir(str(run_dir))) == ["driver", "init.json"]


def test_a_second_init_replaces_the_driver(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.initialise(init)
    old = instance.driver()
    instance.initialise(init._replace(options=("c=d",)))
    assert instance.driver() is not old
    assert instance.driver().settings.options == ("c=d",)


def test_a_failed_init_leaves_all_as_it_was(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.initialise(init)
    old = instance.driver()
    (run_dir / "driver" / "mounts").write_text("kept")
    record = (run_dir / "init.json").read_bytes()
    with pytest.raises(DriverError, match=r"folder\.broken"):
        instance.initialise(_broken(init))
    assert instance.driver() is old
    assert (run_dir / "driver" / "mounts").read_text() == "kept"
    assert (run_dir / "init.json").read_bytes() == record
    assert sorted(os.listdir(str(run_dir))) == ["driver", "init.json"]


def test_a_failed_first_init_can_be_repeated(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    with pytest.raises(DriverError):
        instance.initialise(_broken(init))
    with pytest.raises(DriverError, match=NOT_INITIALISED.partition(";")[0]):
        instance.driver()
    instance.initialise(init)
    assert instance.driver().settings.home == init.home


def test_a_plugin_killed_during_init_serves_as_before_it(run_dir: Path, init: InitRequest) -> None:
    DriverInstance(FolderDriver, str(run_dir)).initialise(init)
    (run_dir / "driver" / "mounts").write_text("kept")
    (run_dir / "driver").rename(run_dir / "driver.old")
    (run_dir / "driver").mkdir()
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.restore()
    assert (run_dir / "driver" / "mounts").read_text() == "kept"
    instance.initialise(init)
    assert sorted(os.listdir(str(run_dir))) == ["driver", "init.json"]


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"Home": "not/absolute"}', b"\xff"])
def test_a_damaged_record_is_logged_and_counts_as_none(
    run_dir: Path, record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir.mkdir()
    (run_dir / "init.json").write_bytes(record)
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.restore()
    assert "cannot use the record of the last Init" in caplog.text
    with pytest.raises(DriverError, match="restart the engine"):
        instance.driver()


def test_a_driver_that_cannot_be_made_again_is_tried_at_each_call(
    run_dir: Path, init: InitRequest
) -> None:
    DriverInstance(FolderDriver, str(run_dir)).initialise(init)
    os.rmdir(init.home)
    Path(init.home).write_text("in the way")
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.restore()
    with pytest.raises(DriverError, match="it is a file"):
        instance.driver()
    os.unlink(init.home)
    assert instance.driver().settings.home == init.home


def test_many_first_calls_at_once_make_one_driver(run_dir: Path, init: InitRequest) -> None:
    DriverInstance(FolderDriver, str(run_dir)).initialise(init)
    made: List[FolderDriver] = []
    gate = threading.Event()

    def factory(settings: Settings) -> FolderDriver:
        gate.wait(60)
        made.append(FolderDriver(settings))
        return made[-1]

    instance = DriverInstance(factory, str(run_dir))
    instance.restore()
    seen: List[object] = []
    threads = [threading.Thread(target=lambda: seen.append(instance.driver())) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert seen == made * 8


def test_an_init_succeeds_over_what_a_killed_one_left(run_dir: Path, init: InitRequest) -> None:
    instance = DriverInstance(FolderDriver, str(run_dir))
    instance.initialise(init)
    (run_dir / "driver.old").mkdir()
    (run_dir / "driver.old" / "mounts").write_text("of an engine before")
    instance.initialise(init)
    assert sorted(os.listdir(str(run_dir))) == ["driver", "init.json"]
