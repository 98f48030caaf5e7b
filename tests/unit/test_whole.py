"""manuka.whole, vfs and btrfs: drivers whose layers are whole trees."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from manuka.btrfs import Btrfs
from manuka.driver import CreateOptions, DriverError, Settings
from manuka.linux.btrfs import create_subvolume, is_subvolume, set_read_only
from manuka.linux.statfs import filesystem_name
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root
from tests.unit.stacks import apply, create, inside, view

pytestmark = needs_root

BASE = LayerTar().folder("d").file("d/a", b"a")


@pytest.fixture
def driver(whole_trees):
    return whole_trees()


def test_the_driver_is_named_where_it_lies(driver, whole_trees):
    rows = dict(driver.status())
    assert rows["Backing Filesystem"] == filesystem_name(str(whole_trees.home))
    create(driver, "a")
    assert driver.metadata("a") == {"MergedDir": driver.get("a")}


def test_folders_can_be_passed_by_others_but_not_looked_into(driver, whole_trees):
    create(driver, "a")
    for folder in (whole_trees.home, whole_trees.home / "a", whole_trees.home / ".incomplete"):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o710


def test_a_parent_that_is_gone_is_not_missed(driver):
    apply(driver, "base", None, BASE)
    create(driver, "top", "base")
    driver.remove("base")
    assert sorted(view(driver, "top")) == ["d", "d/a"]


def test_a_copy_that_fails_leaves_nothing(driver, whole_trees, monkeypatch):
    apply(driver, "base", None, BASE)

    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(driver), "copy_tree", fail)
    with pytest.raises(OSError, match="No space"):
        create(driver, "top", "base")
    assert not driver.exists("top")
    assert os.listdir(whole_trees.home / ".incomplete") == []


@pytest.mark.parametrize("moment", ["_make_folder", "copy_tree", "_write_out"])
def test_a_plugin_killed_while_it_makes_a_layer_leaves_nothing_that_counts(
    driver, whole_trees, moment, monkeypatch
):
    apply(driver, "base", None, BASE)
    work = getattr(type(driver), moment)
    child = os.fork()
    if child == 0:
        try:

            def and_die(*arguments):
                work(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(type(driver), moment, and_die)
            create(driver, "top", "base")
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert len(os.listdir(whole_trees.home / ".incomplete")) == 1
    again = whole_trees()
    assert os.listdir(whole_trees.home / ".incomplete") == []
    assert not again.exists("top")
    create(again, "top", "base")
    assert sorted(view(again, "top")) == ["d", "d/a"]


def test_a_plugin_killed_while_it_removes_a_layer_removes_it_when_it_starts_again(
    driver, whole_trees, monkeypatch
):
    apply(driver, "base", None, BASE)
    child = os.fork()
    if child == 0:
        try:
            kill = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            monkeypatch.setattr(type(driver), "remove_tree", kill)
            driver.remove("base")
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not driver.exists("base")
    whole_trees()
    assert sorted(os.listdir(whole_trees.home)) == [".incomplete"]
    assert os.listdir(whole_trees.home / ".incomplete") == []


def test_a_home_for_an_option_of_size_is_refused(whole_trees):
    kind = whole_trees.kind
    with pytest.raises(DriverError, match=rf"unknown option {kind}\.size; .* cannot limit"):
        whole_trees(f"{kind}.size=1G")
    whole_trees(f"{kind}.sync=none", f"{kind}.sync=filesystem")


# --- btrfs ----------------------------------------------------------------------------------------


@pytest.fixture
def on_btrfs(btrfs, tmp_path):
    folder = btrfs() / tmp_path.name
    return Btrfs(Settings(str(folder / "home")))


def test_btrfs_elsewhere_is_refused_with_what_to_do(tmp_path):
    home = tmp_path / "not" / "there" / "yet"
    with pytest.raises(DriverError, match=r"needs a btrfs for its layers, but .* is on \w+: mount"):
        Btrfs(Settings(str(home)))
    assert os.listdir(tmp_path) == []


def test_each_layer_of_btrfs_is_a_subvolume(on_btrfs):
    create(on_btrfs, "base")
    create(on_btrfs, "top", "base")
    assert is_subvolume(on_btrfs.get("base"))
    assert is_subvolume(on_btrfs.get("top"))


def test_subvolumes_that_a_container_made_are_in_its_children_and_go_with_it(on_btrfs):
    create(on_btrfs, "base")
    with inside(on_btrfs, "base") as tree:
        create_subvolume(str(tree / "machines"))
        (tree / "machines" / "file").write_text("kept")
        create_subvolume(str(tree / "machines" / "inner"))
        set_read_only(str(tree / "machines" / "inner"))
    create(on_btrfs, "top", "base")
    with inside(on_btrfs, "top") as tree:
        assert (tree / "machines" / "file").read_text() == "kept"
        assert os.listdir(tree / "machines" / "inner") == []
    assert on_btrfs.changes("top", "base") == []
    on_btrfs.remove("base")
    on_btrfs.remove("top")
    assert os.listdir(on_btrfs.settings.home) == [".incomplete"]
    assert os.listdir(f"{on_btrfs.settings.home}/.incomplete") == []


def test_a_layer_of_btrfs_that_is_a_plain_folder_is_used_and_removed(on_btrfs):
    """As a backup brings it back."""
    os.makedirs(f"{on_btrfs.settings.home}/base/tree/d")
    create(on_btrfs, "top", "base")
    assert sorted(view(on_btrfs, "top")) == ["d"]
    assert is_subvolume(on_btrfs.get("top"))
    on_btrfs.remove("base")
    assert not on_btrfs.exists("base")


def test_a_label_is_taken_and_not_set(driver):
    driver.create("a", None, CreateOptions("system_u:object_r:container_file_t:s0:c1,c2"))
    assert view(driver, "a") == {}
