"""manuka.overlay2: a layer's difference from its parent as a tar, natively and by comparison."""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct

import pytest
from hypothesis import given, settings

from manuka.layers.export import ExportError
from tests.layertar import LayerTar, content, entries
from tests.parity.operations import operations, perform
from tests.unit.mounts import make_deep_folder, needs_root, unmounted_after
from tests.unit.small_tree import make_base
from tests.unit.stacks import REMAPPED, apply, create, inside, overlay2, packed, start, view

pytestmark = needs_root

WAYS = ["manuka.diff=auto", "manuka.diff=naive"]
SECOND = 10**9


@pytest.fixture(params=WAYS)
def driver(request, tmp_path):
    """A driver with the layer base, and upon it the empty layer top."""
    with overlay2(tmp_path, request.param) as driver:
        apply(driver, "base", None, BASE)
        create(driver, "top", "base")
        yield driver


@pytest.fixture
def native(tmp_path):
    """The same with native diffs only."""
    with overlay2(tmp_path) as driver:
        apply(driver, "base", None, BASE)
        create(driver, "top", "base")
        yield driver


BASE = (
    LayerTar()
    .folder("d", mode=0o750, uid=1, gid=2)
    .file("d/a", b"aaa", mode=0o4755, uid=3, gid=4)
    .file("d/sub/b", b"bbb")
    .symlink("s", "d/a")
    .file("k", b"kept")
)


def names(driver):
    return list(entries(packed(driver, "top", "base")))


def is_naive(driver):
    return "manuka.diff=naive" in driver.settings.options


# --- names and order -----------------------------------------------------------------------------


def test_an_unchanged_layer_is_an_empty_tar(driver):
    assert packed(driver, "top", "base") == bytes(1024)


def test_names_are_relative_and_in_order_with_folders_before_what_they_hold(driver):
    with inside(driver, "top") as tree:
        (tree / "d" / "sub" / "b").write_text("changed")
        (tree / "new" / "deep").mkdir(parents=True)
        (tree / "new" / "deep" / "f").touch()
        (tree / "d" / "sub.x").touch()
        (tree / "k").unlink()
    order = ["d/", "d/sub/", "d/sub/b", "d/sub.x", "new/", "new/deep/", "new/deep/f"]
    found = names(driver)
    assert sorted(found) == sorted([".wh.k", *order])
    assert [name for name in found if name.startswith("new/")] == order[-3:]
    assert found.index("d/") < found.index("d/sub/") < found.index("d/sub/b")


def test_each_type_has_its_entry(driver):
    with inside(driver, "top") as tree:
        (tree / "f").write_bytes(b"content")
        os.chmod(tree / "f", 0o4755)
        os.chown(tree / "f", 5, 6)
        os.chmod(tree / "f", 0o4755)
        os.symlink("nowhere", tree / "l")
        os.mkfifo(tree / "p")
        os.mknod(tree / "c", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tree / "b", stat.S_IFBLK | 0o660, os.makedev(7, 300))
        os.mkdir(tree / "n")
        os.chmod(tree / "n", 0o1777)
        os.utime(tree / "f", ns=(0, 12 * SECOND + 999_999_999))
    tar = packed(driver, "top", "base")
    found = entries(tar)
    file = found["f"]
    assert (file.type, file.mode & 0o7777, file.uid, file.gid) == (b"0", 0o4755, 5, 6)
    assert (file.size, file.mtime, content(tar, "f")) == (7, 12, b"content")
    assert (found["l"].type, found["l"].linkname, found["l"].size) == (b"2", "nowhere", 0)
    assert found["p"].type == b"6"
    assert (found["c"].type, found["c"].devmajor, found["c"].devminor) == (b"3", 1, 3)
    assert (found["b"].type, found["b"].devmajor, found["b"].devminor) == (b"4", 7, 300)
    assert (found["n/"].type, found["n/"].mode & 0o7777) == (b"5", 0o1777)
    assert {info.uname + info.gname for info in found.values()} == {""}
    assert {tuple(info.pax_headers) for info in found.values()} == {()}


# --- what is gone --------------------------------------------------------------------------------


def test_a_deleted_file_is_a_whiteout_without_contents(driver):
    with inside(driver, "top") as tree:
        (tree / "d" / "a").unlink()
    found = entries(packed(driver, "top", "base"))
    assert list(found) == ["d/", "d/.wh.a"]
    mark = found["d/.wh.a"]
    assert (mark.type, mark.size, mark.mode & 0o7777, mark.linkname) == (b"0", 0, 0o600, "")
    assert (mark.uid, mark.gid) == (0, 0)
    assert (found["d/"].mode & 0o7777, found["d/"].uid, found["d/"].gid) == (0o750, 1, 2)


def test_a_folder_made_anew_keeps_its_own_entry_and_is_opaque(native):
    with inside(native, "top") as tree:
        os.system(f"rm -r {tree}/d")
        (tree / "d").mkdir(mode=0o750)
        os.chown(tree / "d", 9, 9)
        (tree / "d" / "n").write_text("n")
    found = entries(packed(native, "top", "base"))
    assert list(found) == ["d/", "d/.wh..wh..opq", "d/n"]
    mark = found["d/.wh..wh..opq"]
    assert (mark.type, mark.size, mark.mode, mark.mtime) == (b"0", 0, 0o750, 0)
    assert (found["d/"].mode & 0o7777, found["d/"].uid) == (0o750, 9)


def test_a_new_folder_is_not_opaque(driver):
    with inside(driver, "top") as tree:
        (tree / "nd").mkdir()
        (tree / "nd" / "f").touch()
    assert names(driver) == ["nd/", "nd/f"]


def test_a_folder_replaced_by_a_file_is_one_entry(driver):
    with inside(driver, "top") as tree:
        os.system(f"rm -r {tree}/d")
        (tree / "d").write_text("file")
    found = entries(packed(driver, "top", "base"))
    assert [(name, info.type) for name, info in found.items()] == [("d", b"0")]


def test_a_file_replaced_by_a_link_is_one_entry(driver):
    with inside(driver, "top") as tree:
        (tree / "k").unlink()
        (tree / "k").symlink_to("d")
    found = entries(packed(driver, "top", "base"))
    assert [(name, info.type) for name, info in found.items()] == [("k", b"2")]


@pytest.mark.parametrize("name", [".wh.foo", ".wh..wh..opq", ".wh."])
def test_a_file_that_bears_a_whiteouts_name_is_an_error_before_the_first_byte(driver, name):
    with inside(driver, "top") as tree:
        (tree / "d" / "sub" / name).touch()
    with pytest.raises(ExportError, match=f"/d/sub/{name}: a layer's tar cannot hold") as caught:
        driver.diff("top", "base")
    assert "rename it in the container" in str(caught.value)


# --- hard links ----------------------------------------------------------------------------------


def test_the_further_names_of_a_file_are_hard_links(driver):
    with inside(driver, "top") as tree:
        (tree / "one").write_text("one")
        (tree / "sub").mkdir()
        os.link(tree / "one", tree / "sub" / "two")
        os.link(tree / "one", tree / "three")
        os.symlink("x", tree / "l1")
        os.link(tree / "l1", tree / "l2", follow_symlinks=False)
    found = entries(packed(driver, "top", "base"))
    assert {name: (info.type, info.linkname) for name, info in found.items()} == {
        "l1": (b"2", "x"),
        "l2": (b"1", "l1"),
        "one": (b"0", ""),
        "sub/": (b"5", ""),
        "sub/two": (b"1", "one"),
        "three": (b"1", "one"),
    }
    assert found["three"].size == 0


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_the_further_names_of_a_device_have_its_numbers(driver, kind):
    with inside(driver, "top") as tree:
        os.mknod(tree / "one", kind | 0o600, os.makedev(259, 65537))
        os.link(tree / "one", tree / "two")
    found = entries(packed(driver, "top", "base"))["two"]
    assert (found.type, found.linkname, found.mode, found.size) == (b"1", "one", 0o600, 0)
    assert (found.devmajor, found.devminor) == (259, 65537)


def test_a_new_name_for_a_lower_file_stays_the_same_file(native):
    with inside(native, "top") as tree:
        os.link(tree / "d" / "a", tree / "d" / "l")
    found = entries(packed(native, "top", "base"))
    assert [(name, info.type, info.linkname) for name, info in found.items()] == [
        ("d/", b"5", ""),
        ("d/a", b"0", ""),
        ("d/l", b"1", "d/a"),
    ]


# --- attributes ----------------------------------------------------------------------------------


def capability(revision, root_id=b""):
    return struct.pack("<IIIII", revision << 24 | 1, 1 << 13, 0, 0, 0) + root_id


def test_capabilities_are_packed_and_no_other_attributes(driver):
    with inside(driver, "top") as tree:
        (tree / "f").write_text("f")
        for name, value in [
            ("user.x", b"1"),
            ("trusted.x", b"2"),
            ("security.capability", capability(2)),
        ]:
            os.setxattr(tree / "f", name, value)
        os.link(tree / "f", tree / "g")
    found = entries(packed(driver, "top", "base"))
    for name in ("f", "g"):
        value = found[name].pax_headers.pop("SCHILY.xattr.security.capability")
        assert value.encode("utf-8", "surrogateescape") == capability(2)
        assert found[name].pax_headers == {}


def test_a_capability_of_a_namespace_loses_its_root(native):
    diff = f"{native.settings.home}/top/diff"
    with open(f"{diff}/f", "w"):
        pass
    rooted = capability(3, struct.pack("<I", 100000))
    os.setxattr(f"{diff}/f", "security.capability", rooted)
    info = entries(packed(native, "top", "base"))["f"]
    value = info.pax_headers["SCHILY.xattr.security.capability"]
    assert value.encode("utf-8", "surrogateescape") == capability(2)


@pytest.mark.parametrize("way", WAYS)
def test_a_host_owner_outside_of_the_map_is_an_error_that_names_the_file(tmp_path, way):
    with overlay2(tmp_path, way, id_maps=REMAPPED) as driver:
        create(driver, "base")
        create(driver, "top", "base")
        with inside(driver, "top") as tree:
            (tree / "mine").touch()
        with pytest.raises(ExportError, match="/mine: host user id 0 cannot be mapped"):
            packed(driver, "top", "base")


# --- odd trees -----------------------------------------------------------------------------------


def test_sockets_are_left_out_and_logged(driver, caplog):
    with inside(driver, "top") as tree:
        with socket.socket(socket.AF_UNIX) as server:
            old = os.getcwd()
            os.chdir(tree)
            try:
                server.bind("sock")
            finally:
                os.chdir(old)
        (tree / "f").touch()
    assert names(driver) == ["f"]
    assert "sock is left out: a tar cannot hold a socket" in caplog.text


@pytest.mark.parametrize("depth", [600, 1500])
def test_folders_nested_deeply_are_packed(driver, depth):
    try:
        with inside(driver, "top") as tree:
            make_deep_folder(tree, depth, "x")
        tar = packed(driver, "top", "base")
        assert len(entries(tar)) == depth
        apply(driver, "again", "base", tar)
        assert driver.changes("again", "top") == []
    finally:
        driver.remove("again")
        driver.remove("top")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 262144, 262145, 3 << 20])
def test_a_file_of_any_size_is_followed_by_the_next_entry(driver, size):
    data = os.urandom(size)
    with inside(driver, "top") as tree:
        (tree / "big").write_bytes(data)
        (tree / "next").write_text("next")
    tar = packed(driver, "top", "base")
    assert content(tar, "big") == data
    assert content(tar, "next") == b"next"
    assert max(map(len, driver.diff("top", "base"))) < 2 << 20


def test_a_file_that_shrinks_while_it_is_packed_is_filled_up_with_zeros(driver, caplog):
    with inside(driver, "top") as tree:
        (tree / "log").write_bytes(b"x" * (1 << 20))
        (tree / "next").write_text("next")
        pieces = driver.diff("top", "base")
        first = next(pieces)
        os.truncate(tree / "log", 1000)
        tar = first + b"".join(pieces)
    found = content(tar, "log")
    assert len(found) == 1 << 20
    assert found[-1000:] == bytes(1000)
    assert content(tar, "next") == b"next"
    assert "shrank while it was packed" in caplog.text


def test_a_file_that_grows_while_it_is_packed_is_cut(driver):
    with inside(driver, "top") as tree:
        (tree / "log").write_bytes(b"x" * (1 << 20))
        (tree / "next").write_text("next")
        pieces = driver.diff("top", "base")
        first = next(pieces)
        with open(tree / "log", "ab") as file:
            file.write(b"y" * 100_000)
        tar = first + b"".join(pieces)
    assert content(tar, "log") == b"x" * (1 << 20)
    assert content(tar, "next") == b"next"


@pytest.mark.parametrize("replacement", ["nothing", "symlink", "fifo", "folder", "file"])
def test_a_file_that_vanishes_while_the_layer_is_packed_is_left_out(driver, replacement):
    with inside(driver, "top") as tree:
        (tree / "a big file").write_bytes(b"x" * (1 << 20))
        (tree / "b").write_text("b")
        (tree / "c").write_text("c")
        pieces = driver.diff("top", "base")
        first = next(pieces)
        (tree / "b").unlink()
        {
            "nothing": lambda path: None,
            "symlink": lambda path: path.symlink_to("c"),
            "fifo": os.mkfifo,
            "folder": os.mkdir,
            "file": lambda path: path.write_text("new"),
        }[replacement](tree / "b")
        found = entries(first + b"".join(pieces))
    assert "c" in found
    assert ("b" in found or "b/" in found) == (replacement != "nothing")


def test_a_folder_that_vanishes_while_it_is_packed_is_left_out_from_there_on(native):
    with inside(native, "top") as tree:
        (tree / "new" / "deep").mkdir(parents=True)
        (tree / "new" / "deep" / "big").write_bytes(b"x" * (1 << 20))
        (tree / "new" / "z").write_text("z")
        (tree / "z").write_text("z")
        pieces = native.diff("top", "base")
        first = next(pieces)
        os.system(f"rm -r {tree}/new")
        found = entries(first + b"".join(pieces))
    assert list(found) == ["new/", "new/deep/", "new/deep/big", "z"]


def test_two_can_pack_a_layer_at_once_and_one_may_break_off(driver):
    with inside(driver, "top") as tree:
        (tree / "big").write_bytes(b"x" * (1 << 20))
    descriptors = len(os.listdir("/proc/self/fd"))
    one, two = driver.diff("top", "base"), driver.diff("top", "base")
    next(one)
    next(two)
    one.close()
    rest = b"".join(two)
    assert rest[-1024:] == bytes(1024)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not os.path.exists(f"{driver.settings.home}/top/merged")


def test_a_diff_that_nobody_reads_leaves_nothing_mounted(driver):
    driver.diff("top", "base").close()
    assert not os.path.exists(f"{driver.settings.home}/top/merged")


def test_a_layer_can_be_packed_and_unpacked_at_the_same_time(driver):
    """As `docker commit` does: one is piped into the other."""
    with inside(driver, "top") as tree:
        (tree / "f").write_text("f")
        assert apply(driver, "copy", "base", packed(driver, "top", "base")) == 1
    assert view(driver, "copy", ["mtime_ns"]) == view(driver, "top", ["mtime_ns"])


# --- which way -----------------------------------------------------------------------------------


def test_the_difference_from_nothing_is_the_whole_tree(driver):
    found = entries(packed(driver, "top", None))
    assert list(found) == ["d/", "d/a", "d/sub/", "d/sub/b", "k", "s"]
    assert driver.diff_size("top", None) == len("aaa" + "bbb" + "d/a" + "kept")


def test_the_difference_from_a_layer_further_below_is_made_by_comparing(native):
    with inside(native, "top") as tree:
        (tree / "k").unlink()
    create(native, "higher", "top")
    with inside(native, "higher") as tree:
        (tree / "h").write_text("12345")
    assert sorted(entries(packed(native, "higher", "base"))) == [".wh.k", "h"]
    assert native.diff_size("higher", "base") == 5


def test_a_naive_diff_is_told_in_the_log_and_in_the_status(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with overlay2(tmp_path, "manuka.diff=naive") as driver:
        assert ("Native Overlay Diff", "false") in driver.status()
        assert "which is slow: the option manuka.diff=naive" in caplog.text
    assert ("Native Overlay Diff", "true") in start(tmp_path).status()


# --- there and back ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    with unmounted_after(folder):
        yield [start(folder / str(number), way) for number, way in enumerate(WAYS)]


def listed(tar):
    """What a tar says of each entry, but of a whiteout when it was made on this disk."""
    return [
        (name, info.type, info.mode, info.uid, info.gid, info.size, info.linkname, time)
        for name, info in entries(tar).items()
        for time in ["any" if "/.wh." in f"/{name}" else info.mtime]
    ]


def unseen(driver):
    """Files of another content whose length and time were made those of before.

    A comparison of trees takes them for unchanged, the engine's as well.
    """
    base, top = view(driver, "base"), view(driver, "top")
    return [
        path
        for path in base.keys() & top.keys()
        if base[path].get("content") != top[path].get("content")
        and base[path].get("size") == top[path].get("size")
        and base[path]["mtime_ns"] == top[path]["mtime_ns"]
    ]


@settings(max_examples=60, deadline=None)
@given(operations(12))
def test_a_diff_that_is_applied_gives_the_same_tree(drivers, todo):
    todo = [operation for operation in todo if operation.kind != "set xattr"]  # not in a diff
    for driver in drivers:
        ids = ["base", "top", "copy", "copy of the copy".replace(" ", "-")]
        try:
            create(driver, "base")
            with inside(driver, "base") as tree:
                make_base(tree)
            create(driver, "top", "base")
            with inside(driver, "top") as tree:
                perform(str(tree), todo)
            tar = packed(driver, "top", "base")
            assert apply(driver, "copy", "base", tar) >= driver.diff_size("copy", "base")
            ignored = ["mtime_ns"] + ["links"] * is_naive(driver)
            copy, top = view(driver, "copy", ignored), view(driver, "top", ignored)
            for path in unseen(driver) if is_naive(driver) else ():
                del copy[path]["content"], top[path]["content"]
            assert copy == top
            again = packed(driver, "copy", "base")
            apply(driver, ids[3], "base", again)
            if not is_naive(driver):
                assert entries(again).keys() == entries(tar).keys()
                assert listed(again) == listed(packed(driver, ids[3], "base"))
        finally:
            for layer_id in reversed(ids):
                driver.remove(layer_id)
