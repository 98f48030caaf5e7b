"""What a sandbox makes on the host and takes away again, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from manuka.linux.btrfs import create_subvolume
from manuka.linux.mount import MS_BIND, mount, unmount
from manuka.toolkit.host import DATA_PREFIX, DataFolder, SharedFolder, remove_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_a_folder_that_was_there_stays_with_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    folder.mkdir()
    SharedFolder(str(folder)).release()
    assert folder.is_dir()


@needs_root
def test_a_folder_that_was_made_goes_with_its_last_user(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    first, second = SharedFolder(str(folder)), SharedFolder(str(folder))
    first.release()
    assert folder.is_dir(), "a removal would take the second one's mount away"
    second.release()
    assert not folder.exists()


@needs_root
def test_a_folder_into_which_somebody_put_something_stays(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    made = SharedFolder(str(folder))
    (folder / "docker.sock").touch()
    made.release()
    assert (folder / "docker.sock").exists()


@needs_root
def test_missing_parents_come_and_go_as_well(tmp_path: Path) -> None:
    made = SharedFolder(str(tmp_path / "opt" / "containerd"))
    assert (tmp_path / "opt" / "containerd").is_dir()
    made.release()
    assert not (tmp_path / "opt").exists()


def test_a_data_folder_is_passed_through_but_not_listed_by_others(tmp_path: Path) -> None:
    data = DataFolder(str(tmp_path))
    assert os.stat(data.path).st_mode & 0o7777 == 0o711
    assert data.name.startswith(DATA_PREFIX)
    data.release()
    assert list(tmp_path.iterdir()) == []


def test_a_kept_data_folder_stays_when_later_ones_come(tmp_path: Path) -> None:
    data = DataFolder(str(tmp_path))
    data.kept = True
    data.release()
    DataFolder(str(tmp_path)).release()
    assert os.listdir(str(tmp_path)) == [data.name]
    assert os.listdir(data.path) == []


@needs_root
def test_a_new_data_folder_sweeps_up_abandoned_ones_only(tmp_path: Path) -> None:
    abandoned, living = DataFolder(str(tmp_path)), DataFolder(str(tmp_path))
    os.close(abandoned._fd)  # as the kernel does when a keeper is killed
    other = tmp_path / (DATA_PREFIX + "of-somebody-else")
    other.mkdir()
    DataFolder(str(tmp_path)).release()
    assert sorted(os.listdir(str(tmp_path))) == sorted([living.name, other.name])
    living.release()


def test_removing_a_tree_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "precious").exists()


def test_removing_a_tree_takes_any_depth(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    fd = os.open(str(top), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(str(top))
    assert not top.exists()


@needs_root
def test_removing_a_tree_takes_files_that_may_not_be_changed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "fixed").touch()
    done = subprocess.run(["chattr", "+i", str(tree / "fixed")], stderr=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.skip("this file system has no such flag")
    remove_tree(str(tree))
    assert not tree.exists()


@needs_root
def test_two_makers_at_once_agree_on_who_removes(tmp_path: Path) -> None:
    """Processes take and release the same folder again and again; in the end it is gone."""
    folder = tmp_path / "docker"
    work = (
        "import sys, os; from manuka.toolkit.host import SharedFolder\n"
        "for _ in range(200):\n"
        "    held = SharedFolder(sys.argv[1]); assert os.path.isdir(sys.argv[1]); held.release()\n"
    )
    import sys

    from manuka.toolkit.namespace import with_this_package

    workers = [
        subprocess.Popen(
            [sys.executable, "-c", work, str(folder)], env=with_this_package(os.environ)
        )
        for _ in range(3)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()


@needs_root
def test_removing_a_tree_takes_subvolumes_of_btrfs_but_not_what_is_mounted(
    tmp_path: Path, btrfs: Callable[[], Path]
) -> None:
    tree = btrfs() / "tree"
    (tree / "d").mkdir(parents=True)
    create_subvolume(str(tree / "d" / "one"))
    create_subvolume(str(tree / "d" / "one" / "two"))
    (tree / "d" / "one" / "file").touch()
    kept = btrfs() / "kept"
    create_subvolume(str(kept))
    create_subvolume(str(kept / "inside"))
    (tree / "m").mkdir()
    mount(str(kept), str(tree / "m"), "", MS_BIND)
    try:
        with pytest.raises(OSError, match=r"busy|cross|skipping"):
            remove_tree(str(tree))
    finally:
        unmount(str(tree / "m"))
    assert (kept / "inside").is_dir()
    assert os.listdir(tree) == ["m"]
    remove_tree(str(tree))
    assert not tree.exists()
