"""The command lines of ``./lab`` and of the scripts beside it, in a copy of this checkout.

Help and refusals find nothing on the PATH but what reads text, so whatever else they tried would
fail; and the copy is compared before and after.  ``down`` and ``clean`` run in earnest: no Docker
engine and no Vagrant is in reach, and the copy has a lab's own engine of another name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest

ROOT = Path(__file__).resolve().parents[2]

VERBS = ["up", "shell", "down", "clean", "demo", "test", "engines", "fuzz", "lock", "help"]
PARTS = ["lint", "unit", "engine", "roles", "lab", "guest"]
SCRIPTS = [
    ".ci/run",
    "benchmarks/goplugin/build",
    "lab.d/engine",
    "molecule/machine",
    "tests/engines/fetch",
    "tests/guest/run",
    "tests/vagrant/box",
    "tests/vagrant/packages",
    "tests/vagrant/private",
]

#: What a lab that was used has made: its machines' records, and what was downloaded and built.
RECORDS = [".vagrant/machines/manuka/libvirt/action", ".lab/molecule/pair/state.yml"]
BUILT = [
    ".lab/log",
    ".venv/bin/python",
    ".venv-lab/bin/ansible",
    ".venv-3.7/bin/python",
    ".engines/20.10.5/dockerd",
    ".guest/disk",
    ".fuzz/tars/1",
    ".mypy_cache/x",
    ".pytest_cache/x",
    "tests/lab/.pytest_cache/x",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for name in ["lab", "pyproject.toml", *SCRIPTS]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(ROOT / name), str(copy / name))
    for name in os.listdir(str(ROOT / "lab.d")):
        shutil.copy2(str(ROOT / "lab.d" / name), str(copy / "lab.d" / name))
    for name in RECORDS + BUILT:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(name)
    return copy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with the programs that read text, and no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "sed"):
        program = shutil.which(name)
        assert program is not None
        (folder / name).symlink_to(program)
    return folder


def call(checkout: Path, *command: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    # Nothing of this machine's environment: no DOCKER_HOST, no settings of the lab.
    return subprocess.run(
        command,
        cwd=str(checkout),
        env={"HOME": str(checkout), "LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def tree(folder: Path) -> Dict[str, Any]:
    """Each file's and folder's time of change, and a file's content."""
    found: Dict[str, Any] = {}
    for name in sorted(folder.rglob("*")):
        status = name.lstat()
        content = name.read_bytes() if name.is_file() else b""
        found[str(name.relative_to(folder))] = (status.st_mtime_ns, status.st_mode, content)
    return found


@pytest.mark.parametrize("words", [["--help"], ["-h"]], ids=" ".join)
@pytest.mark.parametrize("verb", VERBS + PARTS)
def test_help_is_the_verbs_usage_and_changes_nothing(checkout, path, verb, words) -> None:
    before = tree(checkout)
    done = call(checkout, "./lab", verb, *words, PATH=str(path))
    assert done.stdout.splitlines()[0].split()[:3] == ["Usage:", "./lab", verb]
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(checkout) == before


@pytest.mark.parametrize(
    "line",
    ["up --vm --help", "up foo --help", "down --force -h", "test unit --help", "fuzz 60 -h"],
)
def test_help_goes_before_all_other_words(checkout, path, line) -> None:
    before = tree(checkout)
    done = call(checkout, "./lab", *line.split(), PATH=str(path))
    assert done.stdout.startswith(f"Usage: ./lab {line.split()[0]}")
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(checkout) == before


@pytest.mark.parametrize("line", ["", "help", "-h", "--help"])
def test_the_lab_itself_has_a_usage_that_names_each_verb(checkout, path, line) -> None:
    done = call(checkout, "./lab", *line.split(), PATH=str(path))
    assert (done.returncode, done.stderr) == (0, "")
    listed = {
        text.split()[0]
        for text in done.stdout.splitlines()
        if text.startswith("  ") and text[2] != " "
    }
    assert set(VERBS) - {"help"} <= listed


def test_help_describes_the_verb_that_is_named(checkout, path) -> None:
    done = call(checkout, "./lab", "help", "down", PATH=str(path))
    assert done.stdout == call(checkout, "./lab", "down", "--help", PATH=str(path)).stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["up", "foo"], "foo"),
        (["up", "--force"], "--force"),
        (["up", "--vm", "x"], "'x'"),
        (["up", "--", "--vm"], "'--vm'"),
        (["down", "--force"], "--force"),
        (["down", "x"], "'x'"),
        (["down", ""], "''"),
        (["down", "--", "--help"], "'--help'"),
        (["clean", "--all"], "--all"),
        (["clean", "x"], "'x'"),
        (["demo", "x"], "'x'"),
        (["engines", "x"], "'x'"),
        (["lock", "x"], "'x'"),
        (["lint", "x"], "'x'"),
        (["shell", "--tty"], "--tty"),
        (["fuzz", "soon"], "'soon'"),
        (["fuzz", "0"], "'0'"),
        (["fuzz", "60", "60"], "'60'"),
        (["test", "unit", "nonsense"], "'nonsense'"),
        (["test", "lint unit"], "'lint unit'"),
        (["test", "--fast"], "--fast"),
        (["help", "nonsense"], "nonsense"),
        (["help", "up", "down"], "one command at a time"),
        (["nonsense"], "no command nonsense"),
        (["--force"], "no command --force"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_a_verb_does_not_take_is_refused_by_name_and_nothing_changes(
    checkout, path, words, named
) -> None:
    before = tree(checkout)
    done = call(checkout, "./lab", *words, PATH=str(path))
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("lab: ")
    assert tree(checkout) == before


@pytest.mark.parametrize("words", [["ls", "--help"], ["--", "--help"], ["--"], []], ids=" ".join)
def test_the_words_of_a_command_on_the_machine_are_not_the_labs(checkout, words) -> None:
    done = call(checkout, "./lab", "shell", *words, PATH=private_path(checkout))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lab: There is no machine here")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_scripts_help_is_about_it_and_changes_nothing(checkout, path, script) -> None:
    before = tree(checkout)
    done = call(checkout, f"./{script}", "--help", PATH=str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 80
    assert tree(checkout) == before


@pytest.mark.parametrize(
    "line",
    [".ci/run x", "lab.d/engine stop x", "lab.d/engine --force", "molecule/machine bookworm x",
     "tests/engines/fetch x", "tests/vagrant/packages x", "benchmarks/goplugin/build --force"],
)  # fmt: skip
def test_what_a_script_does_not_take_is_refused_and_nothing_changes(checkout, path, line) -> None:
    for name in ("cksum", "cut"):  # with which an engine's name is made
        program = shutil.which(name)
        assert program is not None
        (path / name).symlink_to(program)
    before = tree(checkout)
    done = call(checkout, *f"./{line}".split(), PATH=str(path))
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert tree(checkout) == before


def test_every_script_that_is_called_by_hand_is_tried_here() -> None:
    """The two others run in a machine: its first process, and what shows a container."""
    listed = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--exclude-dir=.*", "^#!.*sh$",
         *("lab.d", "molecule", "tests", "benchmarks")],
        cwd=str(ROOT), stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    scripts = {name for name in listed.stdout.split() if os.access(str(ROOT / name), os.X_OK)}
    assert scripts - {"lab.d/show", "tests/guest/init"} == set(SCRIPTS) - {".ci/run"}


def private_path(checkout: Path) -> str:
    """A PATH with neither docker nor vagrant, nor anything that installs them."""
    folder = checkout.parent / "programs"
    folder.mkdir()
    names = "cat cksum cut dirname find grep head id mkdir pwd rm rmdir sed sleep tail xargs"
    for name in names.split():
        program = shutil.which(name)
        if program is not None:
            (folder / name).symlink_to(program)
    return str(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the lab's own engine is root's")


@needs_root
def test_down_removes_machines_and_keeps_what_was_downloaded_and_built(checkout) -> None:
    done = call(checkout, "./lab", "down", PATH=private_path(checkout))
    assert (done.returncode, done.stderr) == (0, "")
    assert "./lab clean" in done.stdout
    assert not (checkout / ".vagrant").exists()
    assert not (checkout / ".lab/molecule").exists()
    assert {name: (checkout / name).read_text() for name in BUILT} == {name: name for name in BUILT}


@needs_root
def test_clean_removes_what_was_downloaded_and_built_and_nothing_of_the_checkout(checkout) -> None:
    done = call(checkout, "./lab", "clean", PATH=private_path(checkout))
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in BUILT + RECORDS if (checkout / name).exists()] == []
    assert all((checkout / name).exists() for name in ["lab", "lab.d/engine", *SCRIPTS])


@needs_root
@pytest.mark.parametrize("verb", ["down", "clean"])
def test_while_the_engine_with_the_machine_is_off_nothing_is_removed(checkout, verb) -> None:
    (checkout / ".lab/molecule/lab").mkdir()
    before = tree(checkout)
    done = call(checkout, "./lab", verb, PATH=private_path(checkout))
    assert done.returncode == 1
    assert "No Docker engine answers, and the machine is on one" in done.stderr
    assert tree(checkout) == before


def test_clean_refuses_while_there_is_a_virtual_machine(checkout) -> None:
    (checkout / ".vagrant/machines/manuka/libvirt/id").write_text("it is there")
    before = tree(checkout)
    done = call(checkout, "./lab", "clean", PATH=private_path(checkout))
    assert done.returncode == 1
    assert "./lab down removes it" in done.stderr
    assert tree(checkout) == before
