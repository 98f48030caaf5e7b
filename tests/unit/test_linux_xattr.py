"""manuka.linux.xattr: extended attributes."""

from __future__ import annotations

import os

import pytest

from manuka.linux.xattr import at, get_xattr, may_have_xattrs
from tests.unit.mounts import needs_root


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    try:
        os.setxattr(path, "user.test", b"\0value\xff")
    except OSError as error:
        pytest.skip(f"no attributes of users here: {error}")
    return path


def test_a_value_is_read_by_path_by_bytes_and_by_descriptor(file):
    assert get_xattr(str(file), "user.test") == b"\0value\xff"
    assert get_xattr(os.fsencode(file), "user.test") == b"\0value\xff"
    with file.open() as opened:
        assert get_xattr(opened.fileno(), "user.test") == b"\0value\xff"


def test_an_empty_value_is_not_the_same_as_none(file):
    os.setxattr(file, "user.empty", b"")
    assert get_xattr(str(file), "user.empty") == b""
    assert get_xattr(str(file), "user.missing") is None


def test_a_file_system_without_attributes_has_none():
    assert get_xattr("/proc/self/status", "user.test") is None


def test_only_a_file_without_any_surely_has_none(file, tmp_path):
    assert may_have_xattrs(str(file))
    os.removexattr(file, "user.test")
    assert not may_have_xattrs(os.fsencode(file))
    with file.open() as opened:
        assert not may_have_xattrs(opened.fileno())
    os.setxattr(file, "user.test", b"")
    (tmp_path / "link").symlink_to(file)
    assert not may_have_xattrs(str(tmp_path / "link"))
    assert may_have_xattrs(str(tmp_path / "missing")), "asking for one tells the error"


@needs_root
def test_a_symlink_is_asked_itself(file, tmp_path):
    (tmp_path / "link").symlink_to(file)
    os.setxattr(file, "trusted.test", b"of the file")
    assert get_xattr(str(tmp_path / "link"), "trusted.test") is None
    os.setxattr(tmp_path / "link", "trusted.test", b"of the link", follow_symlinks=False)
    assert get_xattr(str(tmp_path / "link"), "trusted.test") == b"of the link"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        get_xattr(str(tmp_path / "missing"), "user.test")
    assert caught.value.filename == str(tmp_path / "missing")


def test_at_names_a_file_in_an_open_folder(file, tmp_path):
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert get_xattr(at(fd, b"file"), "user.test") == b"\0value\xff"
    finally:
        os.close(fd)
