"""manuka.layers.size and manuka.layers.walk: adding up files, without leaving the tree."""

from __future__ import annotations

import os
import socket

import pytest

from manuka.layers.apply import apply_layer
from manuka.layers.changes import Change, Kind
from manuka.layers.size import changes_size, tree_size
from manuka.layers.walk import opened_folder, opened_root, walk
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root

pytestmark = needs_root


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree").mkdir()
    tar = LayerTar().file("f", bytes(1000)).hardlink("h", "f").hardlink("d/h", "f")
    tar.symlink("s", "1234567").file("d/empty").device("c", 1, 3).fifo("p").folder("d/sub")
    apply_layer(tar.stream(), str(tmp_path / "tree"))
    return tmp_path / "tree"


def test_lengths_of_files_and_of_links_count_and_each_inode_once(tree):
    assert tree_size(str(tree)) == 1000 + 7


def test_folders_devices_and_sockets_do_not_count(tmp_path):
    for number in range(100):
        (tmp_path / f"folder {number}").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    assert tree_size(str(tmp_path)) == 0


def test_holes_count_as_data(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert tree_size(str(tmp_path)) == 1 << 40


def test_links_lead_nowhere_outside(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(bytes(1 << 20))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "l").symlink_to(tmp_path / "outside")
    assert tree_size(str(tmp_path / "tree")) == len(str(tmp_path / "outside"))


def test_of_changes_only_those_that_are_there_count(tree):
    changes = [
        Change("/d", Kind.MODIFY),
        Change("/d/h", Kind.ADD),
        Change("/f", Kind.MODIFY),
        Change("/gone", Kind.DELETE),
        Change("/s", Kind.ADD),
        Change("/vanished", Kind.ADD),
        Change("/vanished/with/its/folder", Kind.ADD),
        Change("/f/x", Kind.ADD),
    ]
    assert changes_size(str(tree), changes) == 1000 + 7


def test_a_walk_sees_each_folder_once_and_before_what_it_holds(tree):
    seen = []
    for folder, path, entries in walk(str(tree)):
        assert os.path.samefile(f"/proc/self/fd/{folder}", f"{tree}{path}")
        assert sorted(entry.name for entry in entries) == sorted(os.listdir(folder))
        seen.append(path)
    assert seen[0] == ""
    assert sorted(seen) == ["", "/d", "/d/sub"]


def test_a_walk_leaves_nothing_open_also_when_it_is_broken_off(tree):
    before = len(os.listdir("/proc/self/fd"))
    for _ in walk(str(tree)):
        break
    for _ in walk(str(tree)):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_walk_goes_on_when_folders_vanish_or_become_links(tree):
    (tree / "e").mkdir()
    seen = []
    for _, path, _ in walk(str(tree)):
        if not path:
            os.rmdir(tree / "e")
            os.rename(tree / "d", tree / "moved")
            os.symlink("/etc", tree / "d")
        seen.append(path)
    assert seen == [""]


def test_a_folder_is_opened_below_the_root_whatever_links_say(tree):
    os.symlink("/etc", tree / "out")
    with opened_root(str(tree)) as root:
        for path in ("", "/", "/d", "d/sub"):
            with opened_folder(root, path) as folder:
                assert os.path.samefile(f"/proc/self/fd/{folder}", tree / path.strip("/"))
        for path in ("out", "f"):
            with pytest.raises(NotADirectoryError), opened_folder(root, path):
                pass
        with pytest.raises(FileNotFoundError), opened_folder(root, "../../nothing"):
            pass
