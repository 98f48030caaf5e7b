"""manuka.linux.tree: deleting folders."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from manuka.linux import tree
from manuka.linux.mount import MS_BIND, mount
from manuka.linux.mountinfo import is_mount_point, mounts_below
from manuka.linux.tree import remove_tree
from tests.unit.mounts import (
    file_system,
    make_deep_folder,
    mounted,
    needs_root,
    overlay,
    unmounted_after,
)


@pytest.fixture
def folder(tmp_path):
    """A folder to delete, with a neighbour to be left alone."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").write_text("precious")
    (tmp_path / "gone").mkdir()
    with unmounted_after(tmp_path):
        yield tmp_path / "gone"
    assert (tmp_path / "keep" / "file").read_text() == "precious"


def test_a_tree_of_everything_is_deleted(folder):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "empty").mkdir()
    (folder / "a" / "b" / "file").write_text("")
    (folder / "a" / "link to a file").symlink_to(folder.parent / "keep" / "file")
    (folder / "a" / "link to a folder").symlink_to(folder.parent / "keep")
    (folder / "dangling").symlink_to("nowhere")
    (folder / os.fsdecode(b"\xff\n \\")).mkdir()
    os.mkfifo(folder / "fifo")
    os.link(folder.parent / "keep" / "file", folder / "hard link")
    remove_tree(str(folder))
    assert os.listdir(folder.parent) == ["keep"]


@needs_root
def test_devices_are_deleted_and_not_opened(folder):
    os.mknod(str(folder / "whiteout"), stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(str(folder / "disk"), stat.S_IFBLK | 0o600, os.makedev(99, 99))
    remove_tree(str(folder))
    assert not folder.exists()


def test_a_missing_folder_is_fine(folder):
    remove_tree(str(folder / "missing"))
    remove_tree(str(folder / "missing" / "below"))
    assert folder.exists()


def test_a_symlink_to_a_folder_is_deleted_and_the_folder_is_not(folder):
    (folder / "link").symlink_to(folder.parent / "keep")
    remove_tree(str(folder / "link"))
    (folder / "link").symlink_to(folder.parent / "keep")
    remove_tree(str(folder / "link") + "/")
    assert os.listdir(folder) == []


def test_a_file_is_deleted(folder):
    (folder / "file").write_text("")
    remove_tree(str(folder / "file"))
    assert os.listdir(folder) == []


def test_a_relative_path_is_taken_from_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    remove_tree("gone")
    assert not folder.exists()


def test_a_tree_5000_folders_deep_is_deleted_with_few_open_files_and_calls(folder):
    make_deep_folder(folder, 5000)
    make_deep_folder(folder, 50, "wide")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        remove_tree(str(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not folder.exists()


def test_a_folder_of_many_files_is_deleted_without_a_rest(folder):
    for number in range(20_000):
        (folder / str(number)).touch()
    start = time.monotonic()
    remove_tree(str(folder))
    assert not folder.exists()
    assert time.monotonic() - start < 10


def test_no_descriptor_is_left_open(folder):
    before = os.listdir("/proc/self/fd")
    for name in ("a/b/c", "a/d", "e"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("")
    remove_tree(str(folder))
    remove_tree(str(folder))
    assert os.listdir("/proc/self/fd") == before


@needs_root
def test_what_is_mounted_below_is_unmounted_and_not_emptied(folder):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "file").write_text("")
    keep = str(folder.parent / "keep")
    mount(keep, str(folder / "deep" / "er"), "", MS_BIND)
    mount(keep, str(folder / "deep" / "er"), "", MS_BIND)  # a second one on top
    mount(keep + "/file", str(folder / "file"), "", MS_BIND)
    remove_tree(str(folder))
    assert not folder.exists()
    assert mounts_below(str(folder.parent)) == []


@needs_root
def test_a_mount_at_the_folder_itself_is_unmounted(folder):
    mount(str(folder.parent / "keep"), str(folder), "", MS_BIND)
    remove_tree(str(folder))
    assert not folder.exists()


@needs_root
def test_a_busy_mount_below_does_not_hold_the_folder(folder):
    (folder / "disk").mkdir()
    mount("none", str(folder / "disk"), "tmpfs")
    with (folder / "disk" / "file").open("w"):
        remove_tree(str(folder))
    assert not folder.exists()


@needs_root
def test_a_mounted_overlay_is_unmounted_and_its_lower_layers_stay(tmp_path):
    with overlay(tmp_path / "disk") as merged:
        lower = merged.parent / "lower"
        (lower / "file").write_text("precious")
        remove_tree(str(merged))
        assert not merged.exists()
        assert (lower / "file").read_text() == "precious"
        assert os.listdir(merged.parent / "upper") == []


@needs_root
def test_a_tree_on_an_overlay_is_deleted(tmp_path):
    with overlay(tmp_path / "disk") as merged:
        (merged.parent / "lower" / "a" / "b").mkdir(parents=True)
        (merged.parent / "lower" / "a" / "b" / "file").write_text("")
        (merged / "a" / "b" / "c").mkdir()
        remove_tree(str(merged / "a"))
        assert os.listdir(merged) == []


@needs_root
def test_a_btrfs_subvolume_is_deleted_like_a_folder(tmp_path):
    with file_system(tmp_path, "mkfs.btrfs", "-q") as disk:
        (disk / "gone" / "a").mkdir(parents=True)
        subvolume = disk / "gone" / "a" / "subvolume"
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(subvolume)], check=True)
        (subvolume / "folder").mkdir()
        (subvolume / "folder" / "file").write_text("")
        remove_tree(str(disk / "gone"))
        assert not (disk / "gone").exists()


@needs_root
def test_without_openat2_mounts_are_not_entered_either(folder, monkeypatch):
    """An older kernel cannot be had here, so its way to open folders is put in place."""
    from manuka.linux.openat2 import open_folder_by_hand

    monkeypatch.setattr(tree, "open_folder", open_folder_by_hand)
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "link").symlink_to(folder.parent / "keep")
    mount(str(folder.parent / "keep"), str(folder / "a" / "b"), "", MS_BIND)
    remove_tree(str(folder))
    assert not folder.exists()


@needs_root
def test_a_mount_that_cannot_be_unmounted_is_an_error_after_all_tries(folder):
    """In a new user namespace, the mounts that come from outside are locked."""
    (folder / "a").mkdir()
    with mounted(folder / "a" / "locked"):
        result = run_program(
            "from manuka.linux import tree\n"
            "tree._PAUSE = 0.001\n"
            f"tree.remove_tree({str(folder)!r})",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
        )
        if "unshare:" in result.stderr:
            pytest.skip(f"no user namespaces here: {result.stderr}")
        assert (
            f"[Errno {errno.EBUSY}] Device or resource busy: '{folder}/a/locked'" in result.stderr
        )
        assert is_mount_point(str(folder / "a" / "locked"))


@needs_root
def test_an_immutable_file_is_an_error_with_its_whole_path(tmp_path):
    with file_system(tmp_path, "mkfs.ext4", "-q") as disk:
        (disk / "gone" / "a" / "b").mkdir(parents=True)
        stubborn = disk / "gone" / "a" / "b" / "stubborn"
        with stubborn.open("w") as file:
            set_flags(file, IMMUTABLE)
            (disk / "gone" / "other").write_text("")
            with pytest.raises(PermissionError) as caught:
                remove_tree(str(disk / "gone"))
            set_flags(file, 0)
        assert caught.value.filename == str(stubborn)
        assert caught.value.errno == errno.EPERM
        remove_tree(str(disk / "gone"))
        assert not (disk / "gone").exists()


@pytest.fixture
def public_folder():
    """A folder that everyone can get to and write in; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        yield path


@needs_root
def test_folders_without_permissions_are_deleted_by_their_owner(public_folder):
    result = run_program(AS_NOBODY.format(public_folder) + WITHOUT_PERMISSIONS)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


@needs_root
def test_a_file_in_a_folder_of_another_owner_is_an_error_at_once(public_folder):
    os.makedirs(os.path.join(public_folder, "gone", "a"))
    open(os.path.join(public_folder, "gone", "a", "file"), "w").close()
    start = time.monotonic()
    result = run_program(AS_NOBODY.format(public_folder) + "remove_tree('gone')")
    assert f"Permission denied: '{public_folder}/gone/a/file'" in result.stderr
    assert time.monotonic() - start < 4


def test_many_threads_delete_the_same_tree_at_once(folder):
    for number in range(200):
        (folder / str(number % 10) / str(number) / "x").mkdir(parents=True)
        (folder / str(number % 10) / str(number) / "x" / "file").write_text("")
    errors = []

    def work():
        try:
            remove_tree(str(folder))
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not folder.exists()


def test_files_that_come_while_the_tree_is_deleted_go_as_well(folder, monkeypatch):
    monkeypatch.setattr(tree, "_PAUSE", 0.01)
    for number in range(50):
        (folder / str(number) / "sub").mkdir(parents=True)
    stop = time.monotonic() + 0.1

    def write():
        number = 0
        while time.monotonic() < stop:
            number += 1
            try:
                (folder / str(number % 50) / f"new{number}").write_text("")
            except FileNotFoundError:
                continue

    thread = threading.Thread(target=write)
    thread.start()
    remove_tree(str(folder))
    thread.join()
    assert not folder.exists()


def test_a_folder_that_is_moved_away_meanwhile_does_not_lead_the_deletion_astray(folder):
    (folder / "a" / "b" / "c").mkdir(parents=True)

    class Moving(tree._Removal):
        def _ascend(self):
            if (folder / "a" / "b").exists():
                os.rename(folder / "a" / "b", folder.parent / "keep" / "b")
            super()._ascend()

    removal = Moving(str(folder.parent), os.open(folder.parent, os.O_PATH))
    try:
        with pytest.raises(OSError, match="moved while it was being deleted: ") as caught:
            removal.run("gone")
    finally:
        os.close(removal.fd)
    assert caught.value.errno == errno.ESTALE
    assert caught.value.filename == str(folder / "a" / "b")
    os.rmdir(folder.parent / "keep" / "b")


IMMUTABLE = 0x10


def set_flags(file, flags):
    """FS_IOC_SETFLAGS, as chattr does it."""
    fcntl.ioctl(file, 0x40086602, struct.pack("L", flags))


def run_program(text, *wrapper):
    return subprocess.run(
        [*wrapper, sys.executable, "-c", text],
        capture_output=True,
        encoding="utf-8",
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    )


AS_NOBODY = """
import os
from manuka.linux.tree import remove_tree
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.chdir({!r})
"""

WITHOUT_PERMISSIONS = """
for mode in (0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600):
    os.makedirs("gone/%o/in/side" % mode)
    open("gone/%o/file" % mode, "w").close()
    open("gone/%o/in/side/file" % mode, "w").close()
    os.symlink("/", "gone/%o/in/link" % mode)
    os.chmod("gone/%o/in/side" % mode, mode)
    os.chmod("gone/%o/in" % mode, mode)
    os.chmod("gone/%o" % mode, mode)
remove_tree("gone")
print(os.listdir("."))
"""
