"""manuka.overlay2.changes: what a container changed, without comparing whole trees."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.layers.changes import Change, Kind, compare_trees
from manuka.overlay2.changes import Redirected, upper_changes
from tests.layertar import LayerTar
from tests.parity.operations import operations, perform
from tests.unit.mounts import mounted, needs_root
from tests.unit.small_tree import make_base
from tests.unit.stacks import apply, create, inside, overlay2, packed

pytestmark = needs_root

WAYS = ["manuka.diff=auto", "manuka.diff=naive"]
MODIFY, ADD, DELETE = Kind.MODIFY, Kind.ADD, Kind.DELETE
TIME = 1_400_000_000 * 10**9


@pytest.fixture(params=WAYS)
def driver(request, tmp_path):
    """A driver with the layer base, and upon it the empty layer top."""
    with overlay2(tmp_path, request.param) as driver:
        base = LayerTar().folder("d").file("d/a", b"one").file("d/sub/x").file("bin/x", b"x")
        apply(driver, "base", None, base.symlink("l", "tgt1", mtime_ns=TIME).file("k", b"kept"))
        create(driver, "top", "base")
        yield driver


def changed(driver, command):
    """What a shell's command in the container changes, as `docker diff` writes it."""
    with inside(driver, "top") as tree:
        subprocess.run(["sh", "-ec", command], cwd=tree, check=True)
    return [f"{'CAD'[kind]} {path}" for path, kind in driver.changes("top", "base")]


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("true", []),
        ("echo new > d/n", ["C /d", "A /d/n"]),
        ("echo more >> d/a", ["C /d", "C /d/a"]),
        ("rm d/a", ["C /d", "D /d/a"]),
        ("rm -r d", ["D /d"]),
        ("chmod 600 d/a", ["C /d", "C /d/a"]),
        ("chown 5 d/sub", ["C /d", "C /d/sub"]),
        ("mkdir nd; touch nd/f", ["A /nd", "A /nd/f"]),
        ("mkdir -p n/e/s/t", ["A /n", "A /n/e", "A /n/e/s", "A /n/e/s/t"]),
        ("rm -r d; mkdir d", ["C /d", "D /d/a", "D /d/sub"]),
        ("rm -r d; mkdir d; chmod 700 d; touch d/n", ["C /d", "D /d/a", "A /d/n", "D /d/sub"]),
        (
            "rm -r d; mkdir -p d/sub; touch d/sub/y",
            ["C /d", "D /d/a", "C /d/sub", "D /d/sub/x", "A /d/sub/y"],
        ),
        ("rm -r d; mkdir -p d/a d/sub", ["C /d", "C /d/a", "C /d/sub", "D /d/sub/x"]),
        ("rm -r d; touch d", ["C /d"]),
        ("rm k; mkdir k; touch k/f", ["C /k", "A /k/f"]),
        ("rm k; ln -s d k", ["C /k"]),
        ("mkdir foo; mv bin/x foo; rm foo/x; rmdir foo", ["C /bin", "D /bin/x"]),
        ("mv k k2", ["D /k", "A /k2"]),
        ("touch q; rm q", []),
        ("touch d/q; rm d/q", []),
        ("touch d; touch -d @1 d/sub", []),
        ("rm -r d/sub; mkdir d/sub; touch -d @1500000000 d/sub/x", []),
        ("mkfifo p; mknod c c 1 3; ln -s x s", ["A /c", "A /p", "A /s"]),
        ("touch 'a b' a a/b 2>&- || true", ["A /a", "A /a b"]),
    ],
)
def test_each_change_is_listed_once_with_the_folders_above_it(driver, command, changes):
    assert changed(driver, command) == changes


def test_a_link_that_leads_elsewhere_is_a_change_though_length_and_time_agree(driver):
    with inside(driver, "top") as tree:
        for target in ("tgt2", "/abs"):
            (tree / "l").unlink()
            (tree / "l").symlink_to(target)
            os.utime(tree / "l", ns=(TIME, TIME), follow_symlinks=False)
            assert driver.changes("top", "base") == [Change("/l", MODIFY)]
        (tree / "l").unlink()
        (tree / "l").symlink_to("tgt1")
        os.utime(tree / "l", ns=(TIME, TIME), follow_symlinks=False)
        assert driver.changes("top", "base") == []


def test_a_file_rewritten_within_the_same_second_is_a_change(driver):
    with inside(driver, "top") as tree:
        before = os.stat(tree / "k").st_mtime_ns
        (tree / "k").write_bytes(b"KEPT")
        os.utime(tree / "k", ns=(before + 1, before + 1))
        assert driver.changes("top", "base") == [Change("/k", MODIFY)]


def test_five_versions_of_a_file_in_a_second_are_five_changes(driver):
    parent = "base"
    for number in range(5):
        layer_id = create(driver, f"v{number}", parent)
        with inside(driver, layer_id) as tree:
            (tree / "k").write_text(f"ver{number}")
        assert driver.changes(layer_id, parent) == [Change("/k", MODIFY)]
        parent = layer_id
    with inside(driver, parent) as tree:
        assert (tree / "k").read_text() == "ver4"


def test_a_file_opened_for_writing_and_left_alone_is_no_change(driver):
    with inside(driver, "top") as tree:
        with open(tree / "k", "r+b"):
            pass
        assert os.path.exists(f"{driver.settings.home}/top/diff/k")
    assert driver.changes("top", "base") == []


def test_against_nothing_everything_is_new(driver):
    changes = driver.changes("base", None)
    assert {kind for _, kind in changes} == {ADD}
    assert len(changes) == len(driver.changes("top", None)) == 8


def test_against_a_layer_further_below_all_changes_are_listed(driver):
    with inside(driver, "top") as tree:
        (tree / "k").unlink()
    create(driver, "higher", "top")
    with inside(driver, "higher") as tree:
        (tree / "new").touch()
    assert driver.changes("higher", "top") == [Change("/new", ADD)]
    assert driver.changes("higher", "base") == [Change("/k", DELETE), Change("/new", ADD)]


def test_names_that_are_no_text_are_listed_with_their_bytes(driver):
    with inside(driver, "top") as tree:
        with open(os.fsencode(str(tree)) + b"/caf\xe9", "w"):
            pass
    assert [os.fsencode(path) for path, _ in driver.changes("top", "base")] == [b"/caf\xe9"]


def test_changes_can_be_asked_while_the_container_runs(driver):
    with inside(driver, "top") as tree:
        (tree / "new").touch()
        assert driver.changes("top", "base") == [Change("/new", ADD)]
    assert not os.path.exists(f"{driver.settings.home}/top/merged")


def mounted_with(option, folder, top, base):
    data = f"{option}=on,lowerdir={base}/diff,upperdir={top}/diff,workdir={top}/work"
    return mounted(folder, "overlay", "overlay", data=data)


def test_what_a_layers_folder_does_not_tell_is_found_by_comparing(tmp_path):
    """Layers of a driver that left redirect_dir on may be met in a home."""
    with overlay2(tmp_path) as driver:
        apply(driver, "base", None, LayerTar().file("d/a", b"one").file("k", b"kept"))
        create(driver, "top", "base")
        top, base = tmp_path / "home" / "top", tmp_path / "home" / "base"
        with mounted_with("redirect_dir", tmp_path / "m", top, base) as tree:
            os.rename(tree / "d", tree / "e")
        with pytest.raises(Redirected):
            upper_changes(f"{top}/diff", [f"{base}/diff"], "trusted.overlay.")
        expected = [Change("/d", DELETE), Change("/e", ADD), Change("/e/a", ADD)]
        assert driver.changes("top", "base") == expected


def test_a_file_without_its_contents_is_not_taken_for_whole(tmp_path):
    """Layers of a driver that left metacopy on may be met in a home."""
    with overlay2(tmp_path) as driver:
        apply(driver, "base", None, LayerTar().file("k", b"kept"))
        create(driver, "top", "base")
        top, base = tmp_path / "home" / "top", tmp_path / "home" / "base"
        with mounted_with("metacopy", tmp_path / "m", top, base) as tree:
            os.chmod(tree / "k", 0o600)
        with pytest.raises(Redirected):
            upper_changes(f"{top}/diff", [f"{base}/diff"], "trusted.overlay.")


@pytest.fixture(scope="module")
def module_driver(tmp_path_factory):
    with overlay2(tmp_path_factory.mktemp("changes")) as driver:
        yield driver


@settings(max_examples=120, deadline=None)
@given(st.lists(operations(10), min_size=1, max_size=3))
def test_the_changes_are_those_that_a_comparison_finds(module_driver, layers):
    driver = module_driver
    ids = ["base"]
    try:
        create(driver, "base")
        with inside(driver, "base") as tree:
            make_base(tree)
        for number, todo in enumerate(layers):
            parent = ids[-1]
            ids.append(create(driver, f"work-{number}", parent))
            with inside(driver, ids[-1]) as tree, inside(driver, parent) as base:
                perform(str(tree), todo)
                assert driver.changes(ids[-1], parent) == compare_trees(str(tree), str(base))
                tar = packed(driver, ids[-1], parent)
            ids.append(f"applied-{number}")
            apply(driver, ids[-1], parent, tar)
            with inside(driver, ids[-1]) as tree, inside(driver, parent) as base:
                assert driver.changes(ids[-1], parent) == compare_trees(str(tree), str(base))
    finally:
        for layer_id in reversed(ids):
            driver.remove(layer_id)
