"""manuka.linux.mountinfo: what is mounted."""

from __future__ import annotations

import os

import pytest

from manuka.linux.btrfs import create_subvolume
from manuka.linux.mount import MS_BIND, mount, unmount
from manuka.linux.mountinfo import Mount, is_mount_point, mounts, mounts_below, parse
from tests.unit.mounts import mounted, needs_root, overlay


def test_a_line_is_read_field_by_field():
    line = rb"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    assert parse(line) == Mount(
        mount_id=36,
        parent_id=35,
        root="/mnt1",
        mount_point="/mnt2",
        options="rw,noatime",
        fstype="ext3",
        source="/dev/root",
        super_options="rw,errors=continue",
    )


@pytest.mark.parametrize("optional", [b"", b"shared:7 ", b"shared:7 master:1 propagate_from:2 "])
def test_any_number_of_optional_fields_is_skipped(optional):
    line = b"1 2 0:5 / /m rw " + optional + b"- fuse.x-y none rw"
    assert (parse(line).fstype, parse(line).source) == ("fuse.x-y", "none")


def test_octal_escapes_in_paths_are_undone():
    found = parse(rb"1 2 0:5 /r\011 /a\040b\134040\012 rw - tmpfs my\040disk rw,x=a\054b")
    assert found.root == "/r\t"
    assert found.mount_point == "/a b\\040\n"
    assert found.source == "my disk"
    assert found.super_options == r"rw,x=a\054b"


def test_a_dash_as_a_mount_point_is_not_the_separator():
    assert parse(b"1 2 0:5 - - - - tmpfs - rw").fstype == "tmpfs"


def test_the_root_and_proc_are_mounted():
    points = {mount.mount_point: mount.fstype for mount in mounts()}
    assert points["/proc"] == "proc"
    assert "/" in points


@needs_root
def test_a_mount_is_found_whatever_bytes_its_name_has(tmp_path):
    name = os.fsdecode(b"blank tab\t line\n back\\slash\\040 hash# \xc3\xa9 \xff")
    with mounted(tmp_path / name, source="my source", data="size=4m"):
        found = [mount for mount in mounts() if mount.mount_point == str(tmp_path / name)]
        assert [(mount.fstype, mount.source) for mount in found] == [("tmpfs", "my source")]
        assert "size=4096k" in found[0].super_options
        assert mounts_below(str(tmp_path)) == [str(tmp_path / name)]


@needs_root
def test_mounts_below_are_deepest_first_and_strictly_below(tmp_path):
    with mounted(tmp_path / "a") as a, mounted(a / "b") as b, mounted(b / "c") as c:
        with mounted(tmp_path / "ab"):
            assert mounts_below(str(a)) == [str(c), str(b)]
            assert mounts_below(str(a) + "/") == [str(c), str(b)]
            assert mounts_below(str(tmp_path / "a" / ".."))[:2] == [str(c), str(b)]
            assert set(mounts_below("/")) >= {str(a), str(b), str(c), "/proc"}


@needs_root
def test_an_overlay_is_a_mount_point_only_while_it_is_mounted(tmp_path):
    with overlay(tmp_path / "disk") as merged:
        assert is_mount_point(str(merged))
        assert is_mount_point(str(merged) + "/")
        (merged / "inside").mkdir()
        assert not is_mount_point(str(merged / "inside"))
    assert not is_mount_point(str(merged))


@needs_root
def test_a_mount_point_is_seen_through_a_symlink_to_its_folder_and_nothing_else_is(tmp_path):
    with mounted(tmp_path / "disk") as disk, mounted(disk / "m"):
        (disk / "plain").mkdir()
        (tmp_path / "link").symlink_to(disk)
        assert is_mount_point(str(tmp_path / "link" / "m"))
        assert not is_mount_point(str(tmp_path / "link" / "plain"))
        assert not is_mount_point(str(tmp_path / "link"))


@needs_root
def test_a_subvolume_of_btrfs_is_a_mount_point_only_while_something_is_mounted_on_it(
    btrfs, tmp_path
):
    subvolume = btrfs() / "subvolume"
    create_subvolume(str(subvolume))
    (tmp_path / "link").symlink_to(btrfs())
    assert is_mount_point(str(btrfs()))
    assert not is_mount_point(str(subvolume))
    with mounted(subvolume):
        assert is_mount_point(str(subvolume))
    mount(str(subvolume), str(subvolume), "", MS_BIND)
    try:
        assert is_mount_point(str(tmp_path / "link" / "subvolume"))
    finally:
        unmount(str(subvolume))
    assert not is_mount_point(str(subvolume))


def test_what_is_missing_is_no_mount_point(tmp_path):
    (tmp_path / "file").write_text("")
    assert not is_mount_point(str(tmp_path / "missing"))
    assert not is_mount_point(str(tmp_path / "missing" / "below"))
    assert not is_mount_point(str(tmp_path / "file" / "below"))


def test_a_relative_path_is_asked_from_the_working_folder():
    assert not is_mount_point(".")
    assert not is_mount_point("missing")
