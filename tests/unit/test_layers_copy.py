"""manuka.layers.copy: a copy cannot be told from the original."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from manuka.layers.copy import copy_tree
from manuka.linux.reflink import can_clone
from tests.parity.operations import operations, perform
from tests.snapshot import snapshot
from tests.unit.mounts import file_system, needs_root
from tests.unit.small_tree import CAPABILITY, make_base

pytestmark = needs_root


def _copied(source: Path) -> Path:
    target = source.parent / "copy"
    target.mkdir()
    copy_tree(str(source), str(target))
    return target


def _root(folder: Path):
    status = os.stat(folder)
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, os.listxattr(folder)


@settings(max_examples=60, deadline=None)
@given(todo=operations(30))
def test_whatever_a_container_did_to_its_files_is_in_the_copy(todo):
    folder = Path(tempfile.mkdtemp(prefix="manuka-copy-"))
    try:
        source = folder / "source"
        source.mkdir()
        make_base(source)
        perform(str(source), todo)
        target = _copied(source)
        assert snapshot(target) == snapshot(source)
        assert _root(target) == _root(source)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    return source


def test_the_folder_itself_is_copied_with_its_mode_owner_time_and_attributes(source):
    os.chown(source, 5, 6)
    os.chmod(source, 0o2751)
    os.setxattr(source, "trusted.mine", b"yes")
    os.utime(source, ns=(1, 123456789))
    target = _copied(source)
    assert _root(target) == _root(source)
    assert os.getxattr(target, "trusted.mine") == b"yes"


def test_names_of_one_file_are_names_of_one_file_in_any_order(source):
    (source / "b").mkdir()
    (source / "b" / "one").write_bytes(b"x")
    for name in ("a", "c", "b/two"):
        os.link(source / "b" / "one", source / name)
    os.symlink("a", source / "s")
    os.link(source / "s", source / "t", follow_symlinks=False)
    target = _copied(source)
    assert snapshot(target) == snapshot(source)
    assert os.stat(target / "a").st_nlink == 4
    assert os.lstat(target / "s").st_nlink == 2


def test_a_capability_and_the_bits_that_a_chown_drops_are_kept(source):
    file = source / "file"
    file.write_bytes(b"x")
    os.chown(file, 7, 8)
    os.chmod(file, 0o6755)
    os.setxattr(file, "security.capability", CAPABILITY)
    target = _copied(source)
    assert os.getxattr(target / "file", "security.capability") == CAPABILITY
    assert os.stat(target / "file").st_mode & 0o7777 == 0o6755


def test_holes_stay_holes(source):
    with open(source / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"island" * 1000)
        file.truncate(1 << 30)
    (source / "hole").write_bytes(b"")
    os.truncate(source / "hole", 1 << 30)
    target = _copied(source)
    for name in ("sparse", "hole"):
        assert os.stat(target / name).st_size == 1 << 30
    with open(target / "sparse", "rb") as file:
        file.seek(1 << 20)
        assert file.read(6000) == b"island" * 1000
        assert not file.read(10).strip(b"\0")
    assert os.stat(target / "sparse").st_blocks * 512 < 1 << 17
    assert os.stat(target / "hole").st_blocks == 0


def test_names_that_are_no_text_and_sockets_are_copied(source):
    (source / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    target = _copied(source)
    assert snapshot(target) == snapshot(source)
    assert snapshot(target)["socket"]["type"] == "socket"


def test_an_access_list_that_files_would_inherit_is_on_its_folder_only(source):
    (source / "d").mkdir()
    default = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff")
    (source / "d" / "before").write_bytes(b"")
    (source / "d" / "e").mkdir()
    try:
        os.setxattr(source / "d", "system.posix_acl_default", default)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    target = _copied(source)
    assert snapshot(target) == snapshot(source)
    assert os.listxattr(target / "d") == ["system.posix_acl_default"]


@pytest.mark.parametrize("mkfs", [["mkfs.btrfs", "--quiet"], ["mkfs.xfs", "-q", "-m", "reflink=1"]])
def test_copies_share_blocks_where_the_file_system_can(tmp_path, mkfs):
    with file_system(tmp_path, *mkfs) as folder:
        assert can_clone(str(folder))
        source = folder / "source"
        source.mkdir()
        (source / "large").write_bytes(os.urandom(60 << 20))
        os.sync()
        before = shutil.disk_usage(folder).free
        target = _copied(source)
        os.sync()
        assert before - shutil.disk_usage(folder).free < 20 << 20
        assert snapshot(target) == snapshot(source)


def test_a_file_that_cannot_be_cloned_is_copied_and_the_next_one_cloned(btrfs):
    source = btrfs() / "source"
    source.mkdir()
    try:
        # On btrfs a file without checksums, which chattr +C makes, shares with none that has them.
        (source / "plain").touch()
        _set_no_cow(source / "plain")
        for name in ("plain", "other"):
            (source / name).write_bytes(b"some data" * 10_000)
        assert snapshot(_copied(source)) == snapshot(source)
    finally:
        shutil.rmtree(source)
        shutil.rmtree(source.parent / "copy", ignore_errors=True)


def _set_no_cow(path):
    import fcntl
    import struct

    with open(path, "rb") as file:
        fcntl.ioctl(file.fileno(), 0x40086602, struct.pack("l", 0x00800000))


def test_where_files_cannot_share_blocks_there_is_an_answer(tmp_path):
    assert can_clone(str(tmp_path)) in (True, False)
    assert not can_clone("/dev/shm")
