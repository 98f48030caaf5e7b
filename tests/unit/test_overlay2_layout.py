"""manuka.overlay2.layout: how layers lie on the disk, appear, vanish, and survive accidents."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from manuka.driver import CreateOptions, DriverError
from manuka.overlay2.layout import Home
from tests.layertar import LayerTar, content, entries
from tests.snapshot import snapshot
from tests.unit.mounts import mounted, needs_root
from tests.unit.stacks import REMAPPED, apply, create, inside, overlay2, packed, start, view

pytestmark = needs_root


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def driver(tmp_path):
    with overlay2(tmp_path) as driver:
        yield driver


def shape(path):
    """A file's type, mode and owner, e.g. "folder 0o755 0:0"."""
    record = snapshot(path.parent)[path.name]
    return f"{record['type']} {record['mode']} {record['owner']}"


# --- the layout ----------------------------------------------------------------------------------


def test_a_base_layer_has_a_folder_and_a_link_and_nothing_else(driver, home):
    create(driver, "base")
    assert shape(home) == "folder 0o710 0:0"
    assert shape(home / "l") == "folder 0o700 0:0"
    assert shape(home / "base") == "folder 0o710 0:0"
    assert shape(home / "base" / "diff") == "folder 0o755 0:0"
    assert shape(home / "base" / "link") == "file 0o644 0:0"
    assert sorted(os.listdir(home / "base")) == ["diff", "link"]
    short = (home / "base" / "link").read_text()
    assert re.fullmatch("[A-Z2-7]{26}", short)
    assert os.listdir(home / "l") == [short]
    assert os.readlink(home / "l" / short) == "../base/diff"


def test_a_layer_with_a_parent_lists_what_is_below_it(driver, home):
    for layer_id, parent in [("one", None), ("two", "one"), ("three", "two")]:
        create(driver, layer_id, parent)
    shorts = {name: (home / name / "link").read_text() for name in ("one", "two", "three")}
    assert not (home / "one" / "lower").exists()
    assert (home / "two" / "lower").read_text() == f"l/{shorts['one']}"
    assert (home / "three" / "lower").read_text() == f"l/{shorts['two']}:l/{shorts['one']}"
    assert sorted(os.listdir(home / "three")) == ["diff", "link", "lower", "work"]
    assert shape(home / "three" / "lower") == "file 0o644 0:0"
    assert shape(home / "three" / "work") == "folder 0o700 0:0"


def test_a_layer_with_a_child_is_marked_as_committed(driver, home):
    create(driver, "one")
    create(driver, "two", "one")
    assert shape(home / "one" / "committed") == "file 0o600 0:0"
    assert (home / "one" / "committed").read_bytes() == b""
    assert not (home / "two" / "committed").exists()


def test_the_mount_point_exists_only_while_mounted(driver, home):
    create(driver, "one")
    create(driver, "two", "one")
    assert not (home / "two" / "merged").exists()
    with inside(driver, "two") as tree:
        assert tree == home / "two" / "merged"
        assert shape(home / "two" / "work" / "work").endswith("0:0")
    assert not (home / "two" / "merged").exists()


def test_folders_belong_to_the_remapped_root(tmp_path, home):
    with overlay2(tmp_path, id_maps=REMAPPED) as driver:
        create(driver, "one")
        create(driver, "two", "one")
        assert shape(home) == "folder 0o710 0:200000"
        assert shape(home / "l") == "folder 0o700 0:0"
        assert shape(home / "two") == "folder 0o710 0:200000"
        assert shape(home / "two" / "diff") == "folder 0o755 100000:200000"
        assert shape(home / "two" / "work") == "folder 0o700 100000:200000"
        with inside(driver, "two") as tree:
            assert (os.stat(tree).st_uid, os.stat(tree).st_gid) == (100000, 200000)
            assert shape(home / "two" / "work" / "work").endswith(" 100000:200000")


def test_modes_do_not_depend_on_the_umask(tmp_path, home):
    before = os.umask(0o077)
    try:
        with overlay2(tmp_path) as driver:
            create(driver, "one")
            create(driver, "two", "one")
    finally:
        os.umask(before)
    assert shape(home / "two" / "diff") == "folder 0o755 0:0"
    assert shape(home / "two" / "lower") == "file 0o644 0:0"


def test_a_home_that_exists_gets_the_right_mode(tmp_path, home):
    home.mkdir(mode=0o777)
    with overlay2(tmp_path):
        assert shape(home) == "folder 0o710 0:0"


def test_a_home_is_made_with_the_folders_above_it(tmp_path):
    with overlay2(tmp_path / "a" / "b"):
        assert shape(tmp_path / "a" / "b") == "folder 0o711 0:0"


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer_id",
    ["", "l", ".", "..", ".incomplete", "a/b", "/etc", "../x", "a b", "-x", "x\n", "ü", "a" * 256],
)
def test_an_id_that_is_no_plain_name_is_refused_by_every_call(driver, layer_id):
    calls = [
        lambda: driver.create(layer_id, None, CreateOptions()),
        lambda: driver.create("new", layer_id, CreateOptions()),
        lambda: driver.remove(layer_id),
        lambda: driver.get(layer_id),
        lambda: driver.put(layer_id),
        lambda: driver.exists(layer_id),
        lambda: driver.metadata(layer_id),
    ]
    for call in calls:
        with pytest.raises(DriverError, match="cannot be a layer's id"):
            call()


@pytest.mark.parametrize(
    "layer_id", ["0", "Base", "a" * 64, "f" * 64 + "-init", "j2zr1kq9c1g1w0d8m3v4b5n6p", "a.b_c"]
)
def test_ids_of_the_engine_and_of_its_builder_are_taken(driver, layer_id):
    create(driver, layer_id)
    assert driver.exists(layer_id)


# --- creating and removing -----------------------------------------------------------------------


def test_an_id_that_is_taken_is_refused(driver, home):
    create(driver, "one")
    (home / "one" / "diff" / "file").write_text("precious")
    before = snapshot(home)
    with pytest.raises(DriverError, match="layer one exists already"):
        create(driver, "one")
    assert snapshot(home) == before


def test_an_unknown_parent_is_refused_and_leaves_nothing(driver, home):
    create(driver, "one")
    before = snapshot(home, ignore=["folder times"])
    with pytest.raises(DriverError, match=r"the parent layer nobody does not exist: .*docker rmi"):
        create(driver, "two", "nobody")
    assert snapshot(home, ignore=["folder times"]) == before


def test_an_unfinished_parent_is_refused_and_leaves_nothing(driver, home):
    create(driver, "one")
    (home / "one" / "unpacking").touch()
    before = snapshot(home, ignore=["folder times"])
    with pytest.raises(DriverError, match="the parent layer one is not whole"):
        create(driver, "two", "one")
    assert snapshot(home, ignore=["folder times"]) == before


def test_a_half_made_parent_is_refused(driver, home):
    (home / "half").mkdir()
    with pytest.raises(DriverError, match="the parent layer half is not whole"):
        create(driver, "two", "half")


@pytest.mark.parametrize("inodes", range(8))
def test_a_layer_that_finds_no_room_on_the_disk_leaves_nothing(tmp_path, inodes):
    with mounted(tmp_path / "disk", data="nr_inodes=4k"), overlay2(tmp_path / "disk") as driver:
        home = tmp_path / "disk" / "home"
        create(driver, "one")
        status = os.statvfs(home)
        for number in range(status.f_ffree - inodes):
            (home / "l" / f"filler{number}").touch()
        before = snapshot(home, ignore=["folder times"])
        try:
            create(driver, "two", "one")
        except OSError:
            assert snapshot(home, ignore=["folder times"]) == before
        else:
            assert inodes == 7, "that room is not enough"


def test_removing_takes_the_short_link_along(driver, home):
    before = snapshot(home, ignore=["folder times"])
    create(driver, "one")
    driver.remove("one")
    assert snapshot(home, ignore=["folder times"]) == before


def test_removing_what_is_not_there_is_no_error(driver):
    driver.remove("nobody")
    create(driver, "one")
    driver.remove("one")
    driver.remove("one")


def test_a_mounted_layer_can_be_removed(driver, home):
    create(driver, "one")
    create(driver, "two", "one")
    driver.get("two")
    driver.remove("two")
    assert not driver.exists("two")
    create(driver, "two", "one")
    assert driver.get("two") == str(home / "two" / "merged")


def test_many_children_can_be_made_of_a_parent_at_once(driver, home):
    create(driver, "one")
    failed = []

    def work(number):
        try:
            create(driver, f"child-{number}", "one")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(os.listdir(home / "one")) == ["committed", "diff", "link"]


# --- accidents -----------------------------------------------------------------------------------


def make_stack(driver, *ids):
    """Layers on top of each other, each with a file of its own name."""
    parent = None
    for layer_id in ids:
        parent_before, parent = parent, layer_id
        apply(driver, layer_id, parent_before, LayerTar().file(layer_id, layer_id.encode()))


def empty_folder(folder):
    for name in os.listdir(folder):
        os.unlink(folder / name)


def test_lost_short_links_are_made_again_at_start(tmp_path, driver, home, caplog):
    make_stack(driver, "one", "two", "three")
    before = snapshot(home / "l", ignore=["mtime_ns"])
    empty_folder(home / "l")
    driver = start(tmp_path)
    assert snapshot(home / "l", ignore=["mtime_ns"]) == before
    assert "layer two: its short link" in caplog.text
    with inside(driver, "three") as tree:
        assert sorted(os.listdir(tree)) == ["one", "three", "two"]


def test_lost_short_links_are_made_again_when_a_layer_is_mounted(driver, home):
    make_stack(driver, "one", "two", "three")
    before = snapshot(home / "l", ignore=["mtime_ns"])
    empty_folder(home / "l")
    with inside(driver, "three") as tree:
        assert sorted(os.listdir(tree)) == ["one", "three", "two"]
    assert snapshot(home / "l", ignore=["mtime_ns"]) == before


def test_many_may_find_the_short_links_lost_at_once(driver, home):
    make_stack(driver, "one")
    for number in range(16):
        create(driver, f"child-{number}", "one")
    empty_folder(home / "l")
    failed = []

    def work(number):
        try:
            driver.get(f"child-{number}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_short_link_that_leads_nowhere_is_removed_at_start(tmp_path, driver, home, caplog):
    make_stack(driver, "one")
    os.symlink("../gone/diff", home / "l" / ("A" * 26))
    start(tmp_path)
    assert os.listdir(home / "l") == [(home / "one" / "link").read_text()]
    assert "which leads nowhere" in caplog.text


def test_layers_that_were_being_made_or_removed_are_swept_away_at_start(tmp_path, home, caplog):
    caplog.set_level(logging.WARNING)
    with overlay2(tmp_path):
        (home / ".incomplete" / "one.ABC" / "diff" / "deep").mkdir(parents=True)
        (home / ".incomplete" / "one.ABC" / "link").write_text("ABC")
        start(tmp_path)
    assert os.listdir(home / ".incomplete") == []
    assert ".incomplete/one.ABC, left by a crash" in caplog.text


def test_what_cannot_be_swept_away_does_not_keep_the_driver_from_starting(tmp_path, home, caplog):
    with overlay2(tmp_path):
        stuck = home / ".incomplete" / "stuck"
        stuck.mkdir()
        (stuck / "file").touch()
        if os.system(f"chattr +i {stuck}/file"):
            pytest.skip("files cannot be made immutable here")
        try:
            create(start(tmp_path), "one")
        finally:
            os.system(f"chattr -i {stuck}/file")
        assert "stuck" in caplog.text


@pytest.mark.parametrize("layer_id", ["half", "one"])
def test_an_id_with_something_half_made_is_made_anew(driver, home, layer_id):
    (home / layer_id).mkdir()
    (home / layer_id / "link.new").write_text("")
    create(driver, layer_id)
    assert sorted(os.listdir(home / layer_id)) == ["diff", "link"]


def test_a_layer_that_is_gone_is_named_when_it_is_needed(driver, home):
    make_stack(driver, "one", "two", "three")
    short = (home / "one" / "link").read_text()
    shutil.rmtree(home / "one")
    with pytest.raises(DriverError, match=rf"layer three needs a layer that is gone.*{short}"):
        driver.get("three")
    with pytest.raises(DriverError, match="layer three needs a layer that is gone"):
        driver.metadata("three")
    assert not (home / "three" / "merged").exists()


def test_a_layer_whose_folder_is_gone_is_named_when_it_is_needed(driver, home):
    make_stack(driver, "one", "two")
    shutil.rmtree(home / "one" / "diff")
    with pytest.raises(DriverError, match="layer two needs a layer that is gone"):
        driver.get("two")


def test_the_other_layers_serve_when_one_is_gone(tmp_path, driver, home):
    make_stack(driver, "one", "two")
    make_stack(driver, "other", "child")
    shutil.rmtree(home / "one")
    driver = start(tmp_path)
    with inside(driver, "child") as tree:
        assert sorted(os.listdir(tree)) == ["child", "other"]
    driver.remove("two")


def test_a_link_file_that_a_power_failure_emptied_is_written_again(driver, home):
    make_stack(driver, "one")
    short = (home / "one" / "link").read_text()
    (home / "one" / "link").write_text("")
    create(driver, "two", "one")
    assert (home / "one" / "link").read_text() == short
    assert (home / "two" / "lower").read_text() == f"l/{short}"


def test_a_link_file_that_was_lost_with_its_short_link_is_made_anew(driver, home):
    make_stack(driver, "one")
    os.unlink(home / "one" / "link")
    empty_folder(home / "l")
    create(driver, "two", "one")
    links = {(home / layer_id / "link").read_text() for layer_id in ("one", "two")}
    assert set(os.listdir(home / "l")) == links
    with inside(driver, "two") as tree:
        assert os.listdir(tree) == ["one"]


def lose(link, other):
    link.unlink()


def empty(link, other):
    link.write_text("")


def fill_with_junk(link, other):
    link.write_text("../../etc")


def name_what_is_not_there(link, other):
    link.write_text("A" * 26)


def name_another_layer(link, other):
    link.write_text(other.read_text())


def make_a_folder_of(link, other):
    link.unlink()
    link.mkdir()


def make_a_symlink_of(link, other):
    link.unlink()
    link.symlink_to(other)


def make_a_pipe_of(link, other):
    link.unlink()
    os.mkfifo(link)


DAMAGES = [
    lose,
    empty,
    fill_with_junk,
    name_what_is_not_there,
    name_another_layer,
    make_a_folder_of,
    make_a_symlink_of,
    make_a_pipe_of,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_removing_takes_the_short_link_along_whatever_the_link_file_says(driver, home, damage):
    make_stack(driver, "other", "child")
    before = snapshot(home, ignore=["folder times"])
    create(driver, "one")
    damage(home / "one" / "link", home / "other" / "link")
    driver.remove("one")
    assert snapshot(home, ignore=["folder times"]) == before


@pytest.mark.parametrize("damage", [name_another_layer, make_a_symlink_of, make_a_pipe_of])
def test_a_child_lies_upon_its_parent_whatever_the_link_file_says(driver, home, damage, tmp_path):
    make_stack(driver, "other")
    make_stack(driver, "one")
    damage(home / "one" / "link", home / "other" / "link")
    driver = start(tmp_path)
    for name in ("one", "other"):
        create(driver, f"on-{name}", name)
        with inside(driver, f"on-{name}") as tree:
            assert os.listdir(tree) == [name]


@pytest.mark.parametrize("text", ["", "l/", "l/../etc", "/etc", "l/" + "A" * 25, "l/:l/"])
def test_a_damaged_list_of_lower_layers_is_never_believed(tmp_path, driver, home, text):
    make_stack(driver, "one", "two")
    (home / "two" / "lower").write_text(text)
    driver = start(tmp_path)
    for call in (driver.get, driver.metadata):
        with pytest.raises(DriverError, match=r"layer two is damaged.*docker rm"):
            call("two")
    with pytest.raises(DriverError, match="layer two is damaged"):
        create(driver, "three", "two")
    assert not driver.exists("three")
    driver.remove("two")
    assert not driver.exists("two")


@pytest.mark.parametrize("name", ["link", "lower"])
def test_a_damaged_layer_does_not_keep_the_driver_from_starting(tmp_path, driver, home, name):
    make_stack(driver, "one", "two")
    make_stack(driver, "other", "child")
    os.unlink(home / "two" / name)
    (home / "two" / name).mkdir()  # as bad as a file that cannot be read
    driver = start(tmp_path)
    with inside(driver, "child") as tree:
        assert sorted(os.listdir(tree)) == ["child", "other"]
    driver.remove("two")
    assert not driver.exists("two")


def test_strange_files_in_the_home_are_left_alone(tmp_path, driver, home):
    make_stack(driver, "one")
    (home / "lost+found").mkdir()
    (home / "backingFsBlockDev").write_text("")
    (home / "l" / "README").write_text("")
    start(tmp_path)
    assert (home / "lost+found").is_dir()
    assert (home / "backingFsBlockDev").is_file()
    assert (home / "l" / "README").is_file()
    assert [layer.id for layer in Home(str(home), REMAPPED).layers()] == ["one"]


def test_a_layer_says_where_it_lies(driver, home):
    make_stack(driver, "one", "two", "three")
    assert driver.metadata("one") == {
        "WorkDir": f"{home}/one/work",
        "MergedDir": f"{home}/one/merged",
        "UpperDir": f"{home}/one/diff",
    }
    assert driver.metadata("three") == {
        "WorkDir": f"{home}/three/work",
        "MergedDir": f"{home}/three/merged",
        "UpperDir": f"{home}/three/diff",
        "LowerDir": f"{home}/two/diff:{home}/one/diff",
    }
    with pytest.raises(DriverError, match="there is no layer nobody"):
        driver.metadata("nobody")


def test_the_layout_is_one_that_the_engines_driver_made(tmp_path, home):
    """As `docker` 20.10 leaves it: no .incomplete, and a transient folder of its own checks."""
    short = {"one": "A" * 26, "two": "B" * 26}
    for layer_id in short:
        (home / layer_id / "diff").mkdir(parents=True)
        (home / layer_id / "diff" / layer_id).write_text(layer_id)
        (home / layer_id / "link").write_text(short[layer_id])
        (home / "l").mkdir(exist_ok=True)
        os.symlink(f"../{layer_id}/diff", home / "l" / short[layer_id])
    (home / "two" / "work").mkdir()
    (home / "two" / "lower").write_text(f"l/{short['one']}")
    (home / "one" / "committed").touch()
    with overlay2(tmp_path) as driver, inside(driver, "two") as tree:
        assert sorted(os.listdir(tree)) == ["one", "two"]
        assert Path(driver.metadata("two")["LowerDir"]) == home / "one" / "diff"


def made_with(tmp_path, options, work):
    """A home whose layer top was changed by `work` on a mount with these options of overlayfs."""
    with overlay2(tmp_path) as driver:
        below = LayerTar().folder("d").file("d/a", b"one").file("k", b"kept").symlink("l", "k")
        apply(driver, "base", None, below)
        create(driver, "top", "base")
    base, top = tmp_path / "home" / "base", tmp_path / "home" / "top"
    data = f"{options},lowerdir={base}/diff,upperdir={top}/diff,workdir={top}/work"
    with mounted(tmp_path / "m", "overlay", "overlay", data=data) as tree:
        work(tree)
    (tmp_path / "home" / ".incomplete").rmdir()


@pytest.mark.parametrize("options", ["redirect_dir=on", "redirect_dir=on,metacopy=on"])
def test_what_another_driver_left_to_lower_layers_is_served_and_packed_whole(
    tmp_path, options, caplog
):
    def work(tree):
        os.chmod(tree / "k", 0o600)
        os.rename(tree / "d", tree / "e")

    made_with(tmp_path, options, work)
    with overlay2(tmp_path) as driver:
        assert "layer top was made with redirect_dir or metacopy" in caplog.text
        with inside(driver, "top") as tree:
            assert (tree / "e" / "a").read_text() == "one"
            assert (tree / "k").read_text() == "kept"
        tar = packed(driver, "top", "base")
        assert list(entries(tar)) == [".wh.d", "e/", "e/a", "k"]
        assert (content(tar, "e/a"), content(tar, "k")) == (b"one", b"kept")
        assert driver.diff_size("top", "base") == len("one" + "kept")
        assert [path for path, _ in driver.changes("top", "base")] == ["/d", "/e", "/e/a", "/k"]
        apply(driver, "again", "base", tar)
        assert view(driver, "again") == view(driver, "top")
    caplog.clear()
    with overlay2(tmp_path):
        assert "redirect_dir" not in caplog.text, "it is looked for once"


def test_layers_of_another_driver_that_hold_all_are_packed_as_they_lie(tmp_path, caplog):
    made_with(tmp_path, "redirect_dir=off", lambda tree: os.chmod(tree / "k", 0o600))
    shutil.rmtree(tmp_path / "home" / "base" / "diff" / "d")  # a damaged layer is no obstacle
    with overlay2(tmp_path) as driver:
        assert caplog.text == ""
        assert not (tmp_path / "home" / "top" / "redirected").exists()
        assert content(packed(driver, "top", "base"), "k") == b"kept"
