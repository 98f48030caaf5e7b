"""``manuka new``: a project that works as it is made, or nothing at all."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Iterator

import pytest

from manuka.cli import main
from manuka.toolkit.new import project
from manuka.toolkit.new.project import FILES, NameNotUsable, Names, make_project, names_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return Path(make_project("blue-store", str(tmp_path)))


def _texts(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_text()


def test_the_package_and_the_class_are_called_like_the_project() -> None:
    assert names_for("blue-store") == Names("blue-store", "blue_store", "BlueStore")
    assert names_for("mine2") == Names("mine2", "mine2", "Mine2")


def test_a_project_has_a_driver_tests_units_and_a_readme(made: Path) -> None:
    found = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert found == [
        ".gitignore",
        "README.md",
        "blue_store/__init__.py",
        "blue_store/driver.py",
        "pyproject.toml",
        "systemd/blue-store.service",
        "systemd/blue-store.socket",
        "tests/test_conformance.py",
        "tests/test_driver.py",
    ]
    assert not [text for text in _texts(made) if "$" in text]
    assert 'blue-store = "blue_store:BlueStore"' in (made / "pyproject.toml").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_its_own_tests_pass(made: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_driver.py"],
        cwd=str(made),
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b"6 passed" in done.stdout


def test_its_units_name_the_socket_and_make_no_mount_namespace(made: Path) -> None:
    units = {}
    for kind in ("service", "socket"):
        units[kind] = configparser.ConfigParser(strict=False, interpolation=None)
        units[kind].optionxform = str  # type: ignore[assignment]
        units[kind].read(str(made / "systemd" / f"blue-store.{kind}"))
    assert units["socket"]["Socket"]["ListenStream"] == "/run/docker/plugins/blue-store.sock"
    service = units["service"]["Service"]
    assert service["ExecStart"].endswith("manuka serve --driver blue-store --name blue-store")
    namespaces = re.compile("Private|Protect|.*Paths|DynamicUser|MountFlags|Root|Bind|Temporary")
    assert not [key for key in service if namespaces.match(key)]


def test_the_command_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("made mine, with 9 files; the driver is mine/driver.py\n")
    assert "cd mine\n" in said
    assert "manuka sandbox --driver mine:Mine -- docker info\n" in said
    assert main(["new", "other", "--folder", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "other" / "other" / "driver.py").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "cannot be a driver's name: take") for name in ("", "Mine", "1st", "a_b", "a--b",
          "a-", "a/b", "../a", "a.b", "é", "a" * 41)),
        ("overlay2", "is a driver that engines have built in"),
        ("vfs", "is a driver that engines have built in"),
        ("my-overlay2", "engines unmount what they take for left over"),
        ("class", "Python has something called 'class' already"),
        ("json", "Python has something called 'json' already"),
        ("sys", "Python has something called 'sys' already"),
        ("manuka", "Python has something called 'manuka' already"),
        ("tests", "Python has something called 'tests' already"),
    ],
)  # fmt: skip
def test_a_name_that_would_not_work_is_refused_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, said: str
) -> None:
    with pytest.raises(NameNotUsable):
        names_for(name)
    assert main(["new", name, "--folder", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_what_is_there_already_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    os.symlink("nowhere", tmp_path / "other")
    for name in ("mine", "other"):
        assert main(["new", name, "--folder", str(tmp_path)]) == 1
        assert f"{tmp_path}/{name} exists already" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["mine", "other"]
    assert os.listdir(tmp_path / "mine") == ["file"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["new", "mine", "--folder", str(tmp_path / "no")]) == 1
    assert f"there is no folder {tmp_path}/no to make the project in" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_project_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(project.FILES, "tests/last.py", "no-such.in")
    with pytest.raises(OSError, match="no-such"):
        make_project("mine", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_wheel_of_manuka_has_the_templates(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(str(ROOT / "manuka"), str(source / "manuka"), ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(str(ROOT / name), str(source / name))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*build, "-w", str(tmp_path)], cwd=str(source), check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(str(wheel)) as archive:
        names = archive.namelist()
    for template in FILES.values():
        assert f"manuka/toolkit/new/templates/{template}" in names
