"""The command line: what it accepts, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from manuka import __version__, cli
from manuka.cli import COMMANDS, main
from manuka.commands.arguments import UsageError
from manuka.commands.drivers import load_driver
from tests.unit.drivers import KINDS
from tests.unit.folder_driver import FolderDriver

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = ["--driver", "tests.unit.folder_driver:FolderDriver"]


def _complaint(capsys: pytest.CaptureFixture, arguments: List[str], code: int) -> str:
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("manuka: ")
    assert said.err.count("\n") == 1
    return str(said.err[len("manuka: ") : -1])


def test_the_version_is_told(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"manuka {__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert re.search(rf"^    {name} +{re.escape(summary)}$", said, re.MULTILINE)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_examples(capsys: pytest.CaptureFixture, command: List[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert f"examples:\n  manuka {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["frob"], ["serve", "--frob"], ["serve", "extra"], ["serve", "--log", "info"]]
)
def test_wrong_arguments_end_with_2(arguments: List[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("name", ["overlay2", "overlay", "vfs", "btrfs", "zfs", "aufs",
                                  "devicemapper", "fuse-overlayfs"])  # fmt: skip
def test_a_name_that_engines_take_for_their_own_is_refused(
    capsys: pytest.CaptureFixture,
    name: str,
) -> None:
    said = _complaint(capsys, ["serve", "--name", name], 2)
    assert "they would never ask the plugin" in said


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x", "a b"])
def test_a_name_that_is_no_plain_one_is_refused(
    capsys: pytest.CaptureFixture,
    name: str,
) -> None:
    assert "is no plain name" in _complaint(capsys, ["serve", "--name", name], 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--home", "/h", "--storage-opt", "x"], "--storage-opt: expected KEY=VALUE, got 'x'"),
        (["--home", "/h", "--storage-opt", "=x"], "--storage-opt: expected KEY=VALUE, got '=x'"),
        (["--storage-opt", "a=b"], "--storage-opt needs --home"),
        (["--driver", "nowhere:Driver"], "--driver: cannot load 'nowhere:Driver': ModuleNotFound"),
        (["--driver", "folder_driver:Nothing"], "--driver: cannot load 'folder_driver:Nothing': "),
        (["--driver", ":X"], "--driver: cannot load ':X': ValueError"),
        (["--driver", "os:getcwd"], "--driver: 'os:getcwd' is no subclass of manuka.GraphDriver"),
        (["--driver", "json:JSONDecoder"], "--driver: 'json:JSONDecoder' is no subclass of"),
        (["--driver", "nothing"], "--driver: 'nothing' is neither MODULE:CLASS nor a driver that"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="serve wants root")
def test_what_cannot_be_served_is_explained(
    capsys: pytest.CaptureFixture,
    arguments: List[str],
    said: str,
) -> None:
    assert _complaint(capsys, ["serve", *arguments], 2).startswith(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="serve wants root")
def test_a_module_that_is_broken_is_no_traceback(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken_driver.py").write_text("def oops(:\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    said = _complaint(capsys, ["serve", "--driver", "broken_driver:X"], 2)
    assert said.startswith("--driver: cannot load 'broken_driver:X': SyntaxError: ")


@pytest.mark.parametrize("shown", [False, True])
def test_an_internal_error_is_one_line_unless_its_place_is_asked_for(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    def fault(argv: List[str]) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(cli, "_parser", fault)
    monkeypatch.setenv("MANUKA_DEBUG", "1" if shown else "")
    assert main(["serve"]) == 1
    *trace, said = capsys.readouterr().err.splitlines()
    assert said == "manuka: internal error: KeyError: 'lost' (MANUKA_DEBUG=1 shows where)"
    assert (f"line {fault.__code__.co_firstlineno + 1}, in fault" in "".join(trace)) is shown


def test_only_root_may_serve(
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _complaint(capsys, ["serve"], 1).startswith("serve needs root")


def test_a_driver_is_loaded_by_module_and_class() -> None:
    assert load_driver("tests.unit.folder_driver:FolderDriver") is FolderDriver


def test_a_driver_is_loaded_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "someones-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[manuka.drivers]\nfolders = folder_driver:FolderDriver\n"
    )
    script = (
        "from manuka.commands.drivers import load_driver\n"
        "from manuka.errors import ManukaError\n"
        "print(load_driver('folders').__name__)\n"
        "try:\n"
        "    load_driver('other')\n"
        "except ManukaError as error:\n"
        "    print(error)\n"
    )
    path = f"{ROOT}:{ROOT / 'tests' / 'unit'}:{tmp_path}"
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=path),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.splitlines()
    assert said[0] == "FolderDriver"
    assert "folders" in said[1].partition("(installed: ")[2]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_packages_own_drivers_are_loaded_by_their_names(name: str) -> None:
    assert load_driver(name) is KINDS[name]


def test_a_driver_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_driver.py").write_text(
        "from folder_driver import FolderDriver\nclass Mine(FolderDriver): pass\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert load_driver("here_driver:Mine").__name__ == "Mine"
    with pytest.raises(UsageError):
        load_driver("here_driver:Yours")


def test_the_sandbox_gets_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = pytest.importorskip("manuka.toolkit.command")
    asked: Dict[str, Any] = {}

    def fake(**arguments: Any) -> int:
        asked.update(arguments)
        return 7

    monkeypatch.setattr(sandbox, "run_sandbox", fake)
    arguments = ["sandbox", *FOLDERS, "--engine", "/e", "--storage-opt", "a=b", "--keep"]
    arguments += ["--data-dir", "/d", "--network", "--image", "i", "--load", "f", "--load", "g"]
    arguments += ["--", "docker", "run", "--rm", "x"]
    assert main(arguments) == 7
    assert asked == {
        "engine": "/e",
        "driver": "tests.unit.folder_driver:FolderDriver",
        "storage_opts": ["a=b"],
        "data_dir": "/d",
        "keep": True,
        "command": ["docker", "run", "--rm", "x"],
        "network": True,
        "references": ["i"],
        "files": ["f", "g"],
    }
    assert main(["sandbox"]) == 7
    assert asked["command"] == []
    assert asked["driver"] == "manuka"


def test_the_command_imports_no_server_before_it_is_needed() -> None:
    script = (
        "import sys, manuka.cli\n"
        "manuka.cli._parser(['serve'])\n"
        "heavy = {'bottle', 'waitress', 'manuka.driver', 'manuka.server', 'manuka.toolkit'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(sorted(name for name in sys.modules if name.startswith('manuka.commands.')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    assert said.splitlines() == [
        "[]",
        "['manuka.commands.arguments', 'manuka.commands.drivers', 'manuka.commands.serve']",
    ]


def test_the_package_exports_what_an_author_needs() -> None:
    import manuka
    from manuka import driver

    assert sorted(manuka.__all__) == sorted(driver.__all__)
    for name in manuka.__all__:
        assert getattr(manuka, name) is getattr(driver, name)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        manuka.Nothing  # noqa: B018
