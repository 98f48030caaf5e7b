"""The module daemon_json on files as owners leave them: nothing of theirs is lost."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "ansible/library/daemon_json.py"
MANUKA = {"experimental": True, "storage-driver": "manuka"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker/daemon.json"


@pytest.fixture
def owned(path: Path):
    """Writes the file as its owner has it."""

    def write(content: bytes) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o640)
        return path

    return write


def run(path: Path, check: bool = False, **options: object) -> dict:
    """What the module answers, run as Ansible would on the machine."""
    arguments = {"path": str(path), "_ansible_check_mode": check, **options}
    done = subprocess.run(
        [sys.executable, str(MODULE)], input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_where_there_is_none_it_is_made(path: Path) -> None:
    answer = run(path, set=MANUKA)
    assert (answer["changed"], answer["before"], answer["original"]) == (True, {}, None)
    assert json.loads(path.read_text()) == MANUKA
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_one_counts_as_one_without_keys(owned, content: bytes) -> None:
    path = owned(content)
    assert run(path, set=MANUKA)["changed"]
    assert json.loads(path.read_text()) == MANUKA


def test_other_keys_stay_in_their_order_and_mode_and_owner_too(owned) -> None:
    path = owned(b'{"z": [1], "storage-driver": "overlay2", "a": {"b": "\xc3\xa9"}}')
    os.chown(path, 0, 4)
    run(path, set=MANUKA)
    assert list(json.loads(path.read_text())) == ["z", "storage-driver", "a", "experimental"]
    assert "é" in path.read_text()
    status = path.stat()
    assert (status.st_mode & 0o777, status.st_gid) == (0o640, 4)


def test_a_link_is_followed_and_stays_one(owned, path: Path) -> None:
    owned(b'{"log-level": "info"}')
    link = path.with_name("link.json")
    link.symlink_to("daemon.json")
    run(link, set=MANUKA)
    assert link.is_symlink()
    assert json.loads(path.read_text()) == {"log-level": "info", **MANUKA}


def test_a_link_to_nothing_is_filled_where_it_leads(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("elsewhere.json")
    run(path, set=MANUKA)
    assert path.is_symlink()
    assert json.loads(path.with_name("elsewhere.json").read_text()) == MANUKA


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1]", "is no JSON object, but begins with [1]"),
        (b"null", "is no JSON object, but begins with null"),
        (b'{"a": 1,}', "is no JSON: Expecting property name"),
        (b'{"a": "\xe9"}', "is no UTF-8 text"),
    ],
)
def test_one_that_cannot_be_understood_is_told_and_left_alone(owned, content, reason) -> None:
    path = owned(content)
    answer = run(path, set=MANUKA)
    assert answer["failed"]
    assert reason in answer["msg"]
    assert "left as it is" in answer["msg"]
    assert path.read_bytes() == content


def test_what_it_has_already_is_no_change(owned) -> None:
    content = b'{"storage-driver":"manuka",  "experimental":true}'
    path = owned(content)
    assert not run(path, set=MANUKA, remove=["storage-opts"])["changed"]
    assert path.read_bytes() == content


def test_a_check_tells_the_change_and_makes_none(owned) -> None:
    path = owned(b"{}")
    answer = run(path, check=True, set=MANUKA)
    assert answer["changed"]
    assert json.loads(answer["diff"]["after"]) == MANUKA
    assert path.read_bytes() == b"{}"


def test_the_owners_text_comes_back_byte_for_byte(owned) -> None:
    content = b'{ "log-level":\t"info" }'
    path = owned(content)
    original = run(path, set=MANUKA, remove=["log-level"])["original"]
    assert json.loads(path.read_text()) == MANUKA
    assert base64.b64decode(original) == content
    run(path, restore=original)
    assert path.read_bytes() == content
