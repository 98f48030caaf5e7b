"""manuka.linux.btrfs: subvolumes made, copied and deleted, with others inside them."""

from __future__ import annotations

import errno
import os

import pytest

from manuka.linux.btrfs import (
    copy_subvolume,
    create_subvolume,
    delete_subvolume,
    is_subvolume,
    set_read_only,
)
from tests.unit.mounts import make_deep_folder, needs_root

pytestmark = needs_root


@pytest.fixture
def folder(btrfs, tmp_path):
    folder = btrfs() / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture
def top(folder):
    create_subvolume(str(folder / "top"))
    return folder / "top"


def with_others_inside(top):
    """A subvolume in a folder, one in that, and one beside them that is read-only."""
    (top / "d").mkdir()
    create_subvolume(str(top / "d" / "one"))
    (top / "d" / "one" / "e").mkdir()
    create_subvolume(str(top / "d" / "one" / "e" / "two"))
    (top / "d" / "one" / "e" / "two" / "file").write_text("deep inside")
    create_subvolume(str(top / "three"))
    (top / "three" / "file").write_text("in three")
    set_read_only(str(top / "three"))


def test_a_subvolume_is_an_empty_folder_and_is_known_as_one(folder, top):
    assert is_subvolume(str(top))
    assert os.listdir(top) == []
    (top / "folder").mkdir()
    assert not is_subvolume(str(top / "folder"))
    assert not is_subvolume(str(folder / "nothing"))


def test_a_copy_has_what_was_there_and_neither_sees_what_comes_later(folder, top):
    (top / "file").write_text("before")
    copy_subvolume(str(top), str(folder / "copy"))
    (folder / "copy" / "file").write_text("in the copy")
    (top / "later").touch()
    assert (top / "file").read_text() == "before"
    assert os.listdir(folder / "copy") == ["file"]


def test_subvolumes_inside_are_copied_with_what_they_hold(folder, top):
    with_others_inside(top)
    copy = folder / "copy"
    copy_subvolume(str(top), str(copy))
    assert (copy / "d" / "one" / "e" / "two" / "file").read_text() == "deep inside"
    assert (copy / "three" / "file").read_text() == "in three"
    (copy / "d" / "one" / "e" / "two" / "file").write_text("changed")
    (copy / "three" / "new").touch()
    assert (top / "d" / "one" / "e" / "two" / "file").read_text() == "deep inside"
    assert os.listdir(top / "three") == ["file"]
    delete_subvolume(str(copy))
    delete_subvolume(str(top))
    assert os.listdir(folder) == []


def test_a_subvolume_is_deleted_with_all_that_it_holds(folder, top):
    (top / "folder").mkdir()
    (top / "folder" / "file").write_text("x")
    delete_subvolume(str(top))
    assert os.listdir(folder) == []


def test_read_only_subvolumes_inside_each_other_are_deleted(folder, top):
    with_others_inside(top)
    set_read_only(str(top / "d" / "one" / "e" / "two"))
    set_read_only(str(top / "d" / "one"))
    set_read_only(str(top))
    delete_subvolume(str(top))
    assert os.listdir(folder) == []


def test_a_subvolume_deeper_than_a_path_may_be_long_is_found(folder, top):
    create_subvolume(str(folder / "other"))
    make_deep_folder(top, 1500, "deep")
    fd = os.open(str(top), os.O_RDONLY)
    for _ in range(1500):
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    _create_at(fd, "nested")
    os.close(fd)
    delete_subvolume(str(top))
    assert os.listdir(folder) == ["other"]


def _create_at(fd, name):
    old = os.getcwd()
    os.fchdir(fd)
    try:
        create_subvolume(name)
    finally:
        os.chdir(old)


def test_links_to_elsewhere_are_not_followed(folder, top):
    create_subvolume(str(folder / "other"))
    create_subvolume(str(folder / "other" / "inner"))
    with_others_inside(top)
    (top / "link").symlink_to(folder / "other")
    (top / "d" / "link").symlink_to("../../other/inner")
    delete_subvolume(str(top))
    assert os.listdir(folder) == ["other"]
    assert is_subvolume(str(folder / "other" / "inner"))


def test_what_is_no_subvolume_is_neither_copied_nor_deleted(folder):
    (folder / "plain").mkdir()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        copy_subvolume(str(folder / "plain"), str(folder / "copy"))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        delete_subvolume(str(folder / "plain"))
    assert os.listdir(folder) == ["plain"]


def test_an_error_names_the_path(folder, top):
    with pytest.raises(FileExistsError) as caught:
        create_subvolume(str(top))
    assert caught.value.filename == str(top)
    with pytest.raises(OSError, match="too long"):
        create_subvolume(str(folder / ("n" * 256)))
    with pytest.raises(OSError, match="NUL"):
        create_subvolume(str(folder) + "/a\0b")


def test_another_file_system_has_no_subvolumes():
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        create_subvolume("/dev/shm/manuka-none")
