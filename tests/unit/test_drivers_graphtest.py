"""Every driver: what the engine's own suite for drivers (graphtest) asks of one."""

from __future__ import annotations

import os
import random
import stat

import pytest

from manuka.driver import CreateOptions, DriverError
from manuka.layers.changes import Change, Kind
from tests.unit.mounts import needs_root
from tests.unit.stacks import create, inside, overlay2, packed

pytestmark = needs_root

DEPTH = 128


@pytest.fixture
def driver(make_driver):
    return make_driver()


def make_base(driver):
    driver.create_read_write("Base", None, CreateOptions())
    with inside(driver, "Base") as tree:
        (tree / "a subdir").mkdir(mode=0o705)
        os.chown(tree / "a subdir", 1, 2)
        os.chmod(tree / "a subdir", 0o1705)
        (tree / "a file").write_text("Some data")
        os.chmod(tree / "a file", 0o4222)


def assert_is_base(driver, layer_id):
    with inside(driver, layer_id) as tree:
        assert sorted(os.listdir(tree)) == ["a file", "a subdir"]
        folder, file = os.lstat(tree / "a subdir"), os.lstat(tree / "a file")
        assert folder.st_mode == stat.S_IFDIR | 0o1705
        assert (folder.st_uid, folder.st_gid) == (1, 2)
        assert file.st_mode == stat.S_IFREG | 0o4222
        assert (file.st_uid, file.st_gid) == (0, 0)
        assert (tree / "a file").read_text() == "Some data"


def random_bytes(seed, number):
    return bytes(random.Random(f"{seed} {number}").choices(range(256), k=64))


def write_files(tree, seed, count, per_folder=10):
    """Files as ``directory-N/file-N``, in folders of ten."""
    for number in range(count):
        folder = tree / f"directory-{number // per_folder}"
        folder.mkdir(exist_ok=True)
        (folder / f"file-{number}").write_bytes(random_bytes(seed, number))


def test_an_empty_layer_is_an_empty_folder_of_root(driver):
    create(driver, "empty")
    assert driver.exists("empty")
    with inside(driver, "empty") as tree:
        status = os.lstat(tree)
        assert status.st_mode == stat.S_IFDIR | 0o755
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert os.listdir(tree) == []
    driver.remove("empty")
    assert not driver.exists("empty")


def test_a_base_layer_keeps_what_was_written_into_it(driver):
    make_base(driver)
    assert_is_base(driver, "Base")
    driver.remove("Base")


def test_a_layer_shows_what_its_parent_holds(driver):
    make_base(driver)
    create(driver, "Snap", "Base")
    assert_is_base(driver, "Snap")
    driver.remove("Snap")
    assert_is_base(driver, "Base")
    driver.remove("Base")


@pytest.mark.parametrize("folder", ["short", "x" * 170])
def test_overlay2_shows_128_layers_below_a_layer_and_refuses_129(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with overlay2(tmp_path / folder) as driver:
        make_numbered_layers(driver, DEPTH)
        assert_shows_numbered_layers(driver, DEPTH)
        with pytest.raises(DriverError, match="max depth exceeded"):
            create(driver, "one-too-many", f"layer-{DEPTH}")
        assert not driver.exists("one-too-many")


def test_a_layer_shows_what_many_below_it_hold(driver):
    make_numbered_layers(driver, 30)
    assert_shows_numbered_layers(driver, 30)


def make_numbered_layers(driver, depth):
    create(driver, "layer-0")
    with inside(driver, "layer-0") as tree:
        (tree / "testfile.txt").write_text("made at the bottom")
    for number in range(1, depth + 1):
        add_numbered_layer(driver, number)


def assert_shows_numbered_layers(driver, depth):
    with inside(driver, f"layer-{depth}") as tree:
        assert (tree / "top-id").read_text() == f"layer-{depth}"
        for number in range(depth, 0, -1):
            assert (tree / f"layer-{number}" / "layer-id").read_text() == f"layer-{number}"
            parent = (tree / f"layer-{number}" / "parent-id").read_text()
            assert parent == f"layer-{number - 1}"
        assert (tree / "testfile.txt").read_text() == "made at the bottom"


def add_numbered_layer(driver, number):
    layer_id = create(driver, f"layer-{number}", f"layer-{number - 1}")
    with inside(driver, layer_id) as tree:
        (tree / "top-id").write_text(layer_id)
        (tree / layer_id).mkdir()
        (tree / layer_id / "layer-id").write_text(layer_id)
        (tree / layer_id / "parent-id").write_text(f"layer-{number - 1}")


def test_a_diff_can_be_applied_and_has_the_size_that_was_told(driver, tmp_path):
    create(driver, "base")
    with inside(driver, "base") as tree:
        write_files(tree, "one", 10)
        (tree / "file-remove.txt").write_text("remove me")
        (tree / "var" / "lib").mkdir(parents=True)
    create(driver, "upper", "base")
    with inside(driver, "upper") as tree:
        write_files(tree, "two", 10)
        (tree / "file-remove.txt").unlink()
        (tree / "var" / "lib").rmdir()

    size = driver.diff_size("upper", None)
    create(driver, "diff", "base")
    with inside(driver, "diff") as tree:
        assert (tree / "directory-0" / "file-3").read_bytes() == random_bytes("one", 3)
        assert (tree / "file-remove.txt").exists()

    create(driver, "applied", "base")
    tar = tmp_path / "diff.tar"
    tar.write_bytes(packed(driver, "upper", "base"))
    with open(tar, "rb") as stream:
        assert driver.apply_diff("applied", "base", stream) == size == 640
    assert driver.diff_size("applied", "base") == size
    with inside(driver, "applied") as tree:
        for number in range(10):
            assert (tree / f"directory-0/file-{number}").read_bytes() == random_bytes("two", number)
        assert not os.path.lexists(str(tree / "file-remove.txt"))
        assert os.listdir(tree / "var") == []


def test_changes_lists_each_folder_and_each_changed_file(driver):
    assert_lists_changes(driver)


def test_changes_lists_the_same_by_comparing_trees(tmp_path):
    with overlay2(tmp_path, "manuka.diff=naive") as driver:
        assert_lists_changes(driver)


def assert_lists_changes(driver):
    create(driver, "base")
    with inside(driver, "base") as tree:
        write_files(tree, "one", 20)
    create(driver, "upper", "base")
    expected = []
    with inside(driver, "upper") as tree:
        for number in range(20):
            folder, old = f"directory-{number // 10}", f"file-{number}"
            expected.append(Change(f"/{folder}", Kind.MODIFY))
            if number % 3 == 0:
                (tree / folder / old).write_bytes(random_bytes("two", number))
                expected.append(Change(f"/{folder}/{old}", Kind.MODIFY))
            elif number % 3 == 1:
                (tree / folder / f"new-{number}").write_bytes(b"new")
                expected.append(Change(f"/{folder}/new-{number}", Kind.ADD))
            else:
                (tree / folder / old).unlink()
                expected.append(Change(f"/{folder}/{old}", Kind.DELETE))
    assert driver.changes("upper", "base") == sorted(set(expected))
