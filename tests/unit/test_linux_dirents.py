"""manuka.linux.dirents: whether listings tell the files' types."""

from __future__ import annotations

import os

import pytest

from manuka.linux.dirents import has_d_type
from tests.unit.mounts import file_system, needs_root


def test_a_usual_file_system_tells_types_also_of_an_empty_folder(tmp_path):
    assert has_d_type(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / ("n" * 255)).write_text("")
    os.mkfifo(tmp_path / os.fsdecode(b"\xff"))
    assert has_d_type(str(tmp_path))


@needs_root
@pytest.mark.parametrize(
    "mkfs",
    [
        ("mkfs.ext4", "-q", "-O", "^filetype"),
        ("mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=0"),
    ],
    ids=lambda mkfs: mkfs[0],
)
def test_a_file_system_made_without_types_does_not(tmp_path, mkfs):
    with file_system(tmp_path, *mkfs) as target:
        assert not has_d_type(str(target))
        (target / "empty").mkdir()
        assert not has_d_type(str(target / "empty"))
        assert list((target / "empty").iterdir()) == []


@needs_root
def test_xfs_as_it_is_made_now_tells_types(tmp_path):
    with file_system(tmp_path, "mkfs.xfs", "-q") as target:
        assert has_d_type(str(target))


def test_a_missing_folder_and_a_file_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        has_d_type(str(tmp_path / "missing"))
    assert caught.value.filename == str(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        has_d_type(str(tmp_path / "file"))


def test_no_descriptor_is_left_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        has_d_type(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before
