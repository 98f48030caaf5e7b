"""Every driver: what `manuka.driver.GraphDriver` promises of each method."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from manuka.driver import Change, CreateOptions, DriverError, Kind
from manuka.errors import ManukaError
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root
from tests.unit.stacks import REMAPPED, apply, create, inside, packed, view

pytestmark = needs_root

BASE = LayerTar().folder("d").file("d/a", b"a").file("d/b", b"b").symlink("link", "d/a")
TOP = LayerTar().whiteout("d/a").file("d/c", b"c" * 100)


@pytest.fixture
def driver(make_driver):
    return make_driver()


def test_an_image_of_two_layers_shows_the_upper_on_the_lower(driver):
    assert apply(driver, "base", None, BASE) == 1 + 1 + len("d/a")
    assert apply(driver, "top", "base", TOP) == 100
    assert sorted(view(driver, "top")) == ["d", "d/b", "d/c", "link"]
    assert sorted(view(driver, "base")) == ["d", "d/a", "d/b", "link"]
    assert driver.changes("top", "base") == [
        Change("/d", Kind.MODIFY),
        Change("/d/a", Kind.DELETE),
        Change("/d/c", Kind.ADD),
    ]
    assert driver.diff_size("top", "base") == 100


def test_what_is_written_into_a_child_is_not_in_its_parent(driver):
    apply(driver, "base", None, BASE)
    driver.create_read_write("child", "base", CreateOptions())
    before = view(driver, "base")
    with inside(driver, "child") as tree:
        (tree / "d" / "a").write_bytes(b"changed")
        os.chmod(tree / "d" / "b", 0o600)
        (tree / "link").unlink()
    assert view(driver, "base") == before


def test_a_diff_applied_to_another_child_makes_the_same_tree(driver):
    apply(driver, "base", None, BASE)
    create(driver, "child", "base")
    with inside(driver, "child") as tree:
        (tree / "d" / "new").write_bytes(b"new")
        os.link(tree / "d" / "new", tree / "d" / "again")
        (tree / "d" / "a").unlink()
        os.mkfifo(tree / "fifo")
        whole_second = 1_600_000_000 * 10**9
        for name in ("d/new", "fifo", "d"):
            os.utime(tree / name, ns=(whole_second, whole_second))
    apply(driver, "same", "base", packed(driver, "child", "base"))
    assert view(driver, "same") == view(driver, "child")


def test_a_layer_without_files_can_be_applied_and_packed(driver):
    for number, tar in enumerate((LayerTar(), b"")):
        assert apply(driver, f"empty{number}", None, tar) == 0
        assert not packed(driver, f"empty{number}").strip(b"\0")
        assert apply(driver, f"upper{number}", f"empty{number}", tar) == 0
        assert list(view(driver, f"upper{number}")) == []


def test_the_path_of_a_layer_is_the_same_each_time_and_absolute(driver):
    apply(driver, "base", None, BASE)
    create(driver, "top", "base")
    for layer in ("base", "top"):
        paths = {driver.get(layer) for _ in range(3)}
        for _ in range(3):
            driver.put(layer)
        paths.add(driver.get(layer))
        driver.put(layer)
        (path,) = paths
        assert path.startswith("/")


def test_a_tree_stays_until_the_last_put(driver):
    apply(driver, "base", None, BASE)
    create(driver, "top", "base")
    path = driver.get("top")
    driver.get("top")
    driver.put("top")
    assert sorted(os.listdir(path)) == ["d", "link"]
    driver.put("top")


def test_an_id_that_is_taken_is_refused_and_keeps_its_layer(driver):
    apply(driver, "base", None, BASE)
    before = view(driver, "base")
    with pytest.raises(DriverError, match="layer base exists already"):
        create(driver, "base")
    assert view(driver, "base") == before


def test_a_layer_on_one_that_does_not_exist_is_refused_and_leaves_nothing(driver, make_driver):
    with pytest.raises(DriverError, match=r"parent layer nothing.*docker rmi"):
        create(driver, "top", "nothing")
    assert not driver.exists("top")
    assert [name for name in os.listdir(make_driver.home) if name != "l"] == [".incomplete"]
    assert os.listdir(make_driver.home / ".incomplete") == []


def test_removing_and_putting_what_is_not_there_is_no_error(driver):
    driver.remove("nothing")
    driver.put("nothing")
    apply(driver, "base", None, BASE)
    driver.put("base")
    driver.remove("base")
    driver.remove("base")
    assert not driver.exists("base")


def test_a_removed_layer_leaves_nothing_on_the_disk(driver, make_driver):
    before = sorted(os.listdir(make_driver.home))
    apply(driver, "base", None, BASE)
    driver.remove("base")
    assert sorted(os.listdir(make_driver.home)) == before
    assert os.listdir(make_driver.home / ".incomplete") == []


def test_what_is_asked_of_an_unknown_layer_is_an_error_that_names_it(driver):
    for ask in (
        lambda: driver.get("nothing"),
        lambda: driver.metadata("nothing"),
        lambda: driver.diff("nothing", None),
        lambda: driver.diff_size("nothing", None),
        lambda: driver.changes("nothing", None),
        lambda: driver.apply_diff("nothing", None, io.BytesIO(BASE.bytes())),
    ):
        with pytest.raises(DriverError, match="there is no layer nothing"):
            ask()


@pytest.mark.parametrize("layer_id", ["", ".", "..", ".incomplete", "a/b", "../a", "a" * 256])
def test_an_id_that_is_no_plain_name_reaches_no_file(driver, layer_id):
    for ask in (
        lambda: create(driver, layer_id),
        lambda: driver.get(layer_id),
        lambda: driver.exists(layer_id),
        lambda: driver.remove(layer_id),
    ):
        with pytest.raises(DriverError, match="cannot be a layer's id"):
            ask()


def test_an_option_that_a_driver_does_not_know_is_refused(make_driver):
    with pytest.raises(DriverError, match=r"unknown option manuka\.frob; there "):
        make_driver("manuka.frob=1")
    with pytest.raises(DriverError, match=r"manuka\.sync: 'often' is not one of"):
        make_driver("manuka.sync=often")


def test_a_size_that_cannot_be_kept_is_refused_and_leaves_nothing(driver):
    with pytest.raises(DriverError, match="--storage-opt"):
        driver.create_read_write("top", None, CreateOptions("", {"size": "1G"}))
    with pytest.raises(DriverError, match="option"):
        driver.create_read_write("top", None, CreateOptions("", {"frob": "1"}))
    assert not driver.exists("top")


def test_a_layer_written_out_to_the_disk_is_the_same(make_driver):
    driver = make_driver("manuka.sync=filesystem")
    apply(driver, "base", None, BASE)
    apply(driver, "top", "base", TOP)
    assert sorted(view(driver, "top")) == ["d", "d/b", "d/c", "link"]


def test_owners_are_remapped_on_the_disk_and_not_in_tars(make_driver):
    driver = make_driver(id_maps=REMAPPED)
    apply(driver, "base", None, LayerTar().folder("d").file("d/a", b"a", uid=7, gid=8))
    create(driver, "top", "base")
    with inside(driver, "top") as tree:
        root, file = os.lstat(tree), os.lstat(tree / "d" / "a")
        assert (root.st_uid, root.st_gid) == (100000, 200000)
        assert (file.st_uid, file.st_gid) == (100007, 200008)
    driver.create("again", None, CreateOptions())
    driver.apply_diff("again", None, io.BytesIO(packed(driver, "base")))
    assert view(driver, "again") == view(driver, "base")


# --- crashes --------------------------------------------------------------------------------------


class _Stream(io.BytesIO):
    """A tar of which half arrives; then `at_end` happens."""

    def __init__(self, at_end):
        tar = LayerTar().file("first", b"1").file("second", bytes(100_000)).bytes()
        super().__init__(tar[:50_000])
        self._at_end = at_end

    def readinto(self, buffer):
        size = super().readinto(buffer)
        if not size:
            self._at_end()
        return size


def assert_is_not_whole(driver, layer_id):
    assert driver.exists(layer_id)
    for ask in (
        lambda: driver.get(layer_id),
        lambda: create(driver, "child", layer_id),
        lambda: driver.apply_diff(layer_id, None, io.BytesIO(BASE.bytes())),
    ):
        with pytest.raises(DriverError, match="not whole"):
            ask()


def assert_can_be_made_again(driver, layer_id):
    driver.remove(layer_id)
    apply(driver, layer_id, None, BASE)
    assert sorted(view(driver, layer_id)) == ["d", "d/a", "d/b", "link"]


def test_a_layer_whose_tar_broke_off_is_not_whole_and_can_be_made_again(driver):
    create(driver, "a")
    with pytest.raises(ManukaError):
        driver.apply_diff("a", None, _Stream(lambda: None))
    assert_is_not_whole(driver, "a")
    assert_can_be_made_again(driver, "a")


def test_a_layer_whose_plugin_was_killed_is_not_whole_and_can_be_made_again(driver, make_driver):
    create(driver, "a")
    child = os.fork()
    if child == 0:
        try:
            driver.apply_diff("a", None, _Stream(lambda: os.kill(os.getpid(), signal.SIGKILL)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    again = make_driver()
    assert_is_not_whole(again, "a")
    assert_can_be_made_again(again, "a")


def test_an_unfinished_layer_makes_way_for_a_new_one(driver):
    create(driver, "a")
    with pytest.raises(ManukaError):
        driver.apply_diff("a", None, _Stream(lambda: None))
    apply(driver, "a", None, BASE)
    assert sorted(view(driver, "a")) == ["d", "d/a", "d/b", "link"]


def test_a_new_start_finds_every_layer_as_it_was(driver, make_driver):
    apply(driver, "base", None, BASE)
    apply(driver, "top", "base", TOP)
    before = view(driver, "top")
    again = make_driver()
    assert view(again, "top") == before
    assert again.changes("top", "base") == driver.changes("top", "base")


# --- threads --------------------------------------------------------------------------------------


def test_a_layer_that_arrives_slowly_holds_up_no_other(driver):
    create(driver, "base")
    create(driver, "slow")
    arrived, go_on = threading.Event(), threading.Event()

    def wait():
        arrived.set()
        assert go_on.wait(60)

    def unpack():
        with pytest.raises(ManukaError):
            driver.apply_diff("slow", None, _Stream(wait))

    thread = threading.Thread(target=unpack)
    thread.start()
    try:
        assert arrived.wait(60)
        create(driver, "top", "base")
        with inside(driver, "top"):
            pass
        driver.remove("top")
    finally:
        go_on.set()
        thread.join()


def test_many_threads_may_use_and_make_children_of_one_layer(driver):
    apply(driver, "base", None, BASE)
    expected, found = sorted(view(driver, "base")), []

    def work(number):
        layer_id = create(driver, f"child{number}", "base")
        with inside(driver, layer_id) as tree, inside(driver, "base"):
            (tree / "mine").write_bytes(b"%d" % number)
            found.append(sorted(os.listdir(tree)))
        driver.remove(layer_id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["d", "link", "mine"]] * 8
    assert sorted(view(driver, "base")) == expected
