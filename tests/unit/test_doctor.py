"""Parts of ``manuka doctor`` that need no engine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Iterator

import pytest

from manuka.toolkit.doctor import mounts, report, storage
from manuka.toolkit.doctor.finding import Finding
from manuka.toolkit.doctor.patient import Patient
from manuka.toolkit.doctor.processes import Process, listeners, process


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["--storage-driver", "manuka"], "manuka"),
        (["--storage-driver=manuka", "-D"], "manuka"),
        (["-s", "vfs", "--storage-driver=manuka"], "manuka"),
        (["-s", "--debug"], ""),
        (["--storage-driver-x", "vfs"], None),
    ],
)
def test_an_option_is_read_from_a_command_line(arguments: list[str], value: str | None) -> None:
    dockerd = Process(1, "dockerd", ["dockerd", *arguments])
    assert dockerd.option("--storage-driver", "-s") == value


def test_the_process_that_listens_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert listeners(path) == []
        server.listen()
        assert [one.pid for one in listeners(path)] == [os.getpid()]
    assert listeners(path) == []


def test_this_process_is_described() -> None:
    found = process(os.getpid())
    assert found.mount_namespace == os.readlink("/proc/self/ns/mnt")
    assert (found.environment() or {}).keys() >= {"PATH"}
    with pytest.raises(FileNotFoundError):
        process(2**22 + 1)


def test_an_empty_configuration_file_is_as_none(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    assert Patient(config_path=str(config)).config_error is None
    config.write_text("\n")
    assert Patient(config_path=str(config)).config_error is None
    config.write_bytes(b"\xff")
    assert "utf-8" in str(Patient(config_path=str(config)).config_error)


def test_a_check_that_cannot_look_is_a_finding_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cannot_look(patient: Patient) -> Iterator[Finding]:
        yield Finding("first", "ok", "One.")
        os.listdir(tmp_path / "none")

    def looks(patient: Patient) -> Iterator[Finding]:
        yield Finding("second", "problem", "Two.", "Do.")

    monkeypatch.setattr(report, "PARTS", {"part": (cannot_look, looks)})
    found = report.examine(Patient(config_path=str(tmp_path / "none.json")))
    assert [(one.check, one.level) for _, one in found] == [
        ("first", "ok"),
        ("cannot-look", "warning"),
        ("second", "problem"),
    ]
    text = report.as_text(found, colour=False)
    assert text.splitlines()[-3:] == ["  problem  Two.", "           Do.", "1 problem, 1 warning"]
    assert json.loads(report.as_json(found))["healthy"] is False
    assert "\x1b[31mproblem \x1b[0m Two." in report.as_text(found, colour=True)


def patient_at(tmp_path: Path) -> Patient:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"data-root": str(tmp_path)}))
    return Patient(config_path=str(config))


def test_layers_that_an_engine_has_forgotten_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, container, forgotten = ("1" * 64, "2" * 64, "3" * 64)
    for name in (image, container, f"{container}-init", forgotten, "a" * 25, "l"):
        (tmp_path / "manuka" / name).mkdir(parents=True)
    database = tmp_path / "image" / "manuka" / "layerdb"
    for file, text in (
        ("sha256/x/cache-id", image),
        ("mounts/y/mount-id", container),
        ("mounts/y/init-id", f"{container}-init"),
    ):
        (database / file).parent.mkdir(parents=True, exist_ok=True)
        (database / file).write_text(text)
    assert list(storage.forgotten_layers(patient_at(tmp_path))) == []  # a pull may be at it
    monkeypatch.setattr(storage, "_SETTLED", -1)
    (found,) = storage.forgotten_layers(patient_at(tmp_path))
    assert (found.check, found.level) == ("forgotten-layers", "note")
    assert forgotten in found.remedy
    assert image not in found.remedy
    assert container not in found.remedy


def test_mounts_near_the_kernels_limit_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert list(mounts.crowd(patient_at(tmp_path))) == []
    limit = tmp_path / "mount-max"
    limit.write_text("3\n")
    monkeypatch.setattr(mounts, "_MOUNT_MAX", str(limit))
    (found,) = mounts.crowd(patient_at(tmp_path))
    assert found.level == "warning"
    assert found.remedy == "sysctl fs.mount-max=6"
