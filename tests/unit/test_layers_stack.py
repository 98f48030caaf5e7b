"""manuka.layers.stack: lower layers as the kernel merges them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.layers import stack
from manuka.linux.tree import remove_tree
from tests.unit.mounts import mounted, needs_root

pytestmark = needs_root

NAMES = ["a", "b", "c"]
LEAVES = st.sampled_from(["file", "symlink", "whiteout", "fifo"])
FOLDERS = st.recursive(
    LEAVES,
    lambda children: st.tuples(st.booleans(), st.dictionaries(st.sampled_from(NAMES), children)),
    max_leaves=12,
)
LAYERS = st.lists(st.dictionaries(st.sampled_from(NAMES), FOLDERS), min_size=2, max_size=5)


def make(path, kind):
    """A file of this kind; a folder is a pair: whether it is opaque, and what it holds."""
    if kind == "file":
        with open(path, "w") as file:
            file.write(path)
    elif kind == "symlink":
        os.symlink("a", path)
    elif kind == "whiteout":
        os.mknod(path, stat.S_IFCHR, 0)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        opaque, children = kind
        os.mkdir(path)
        if opaque:
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        for name, child in children.items():
            make(f"{path}/{name}", child)


def seen_mounted(folder):
    """What a mounted overlay shows; a whiteout that it lists and hides is not there."""
    found = {}
    for name in os.listdir(folder):
        try:
            status = os.lstat(f"{folder}/{name}")
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            found[name] = seen_mounted(f"{folder}/{name}")
        else:
            found[name] = (stat.S_IFMT(status.st_mode), status.st_size)
    return found


def seen_by_stack(folders):
    found = {}
    for name in stack.visible_names(folders):
        entry = stack.look_up(folders, name)
        assert os.lstat(entry.path) == entry.status
        if entry.folders:
            found[os.fsdecode(name)] = seen_by_stack(entry.folders)
        else:
            found[os.fsdecode(name)] = (stat.S_IFMT(entry.status.st_mode), entry.status.st_size)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("stacks")


@settings(max_examples=200, deadline=None)
@given(LAYERS)
def test_a_stack_shows_what_a_mounted_overlay_shows(place, layers):
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        for number, children in enumerate(layers):
            make(f"{folder}/{number}", (False, children))
        paths = [f"{folder}/{number}" for number in range(len(layers))]
        data = f"lowerdir={':'.join(paths)}"
        with mounted(folder / "m", "overlay", "overlay", data=data) as tree:
            expected = seen_mounted(tree)
        assert seen_by_stack([os.fsencode(path) for path in paths]) == expected
    finally:
        remove_tree(str(folder))


@pytest.fixture
def folders(tmp_path):
    """Three layers: in the uppermost d is opaque, in the middle one x is a whiteout."""
    make(f"{tmp_path}/1", (False, {"d": (True, {"a": "file"}), "l": "symlink"}))
    make(
        f"{tmp_path}/2",
        (False, {"d": (False, {"b": "file"}), "x": "whiteout", "l": (False, {"a": "file"})}),
    )
    make(f"{tmp_path}/3", (False, {"e": (False, {"c": "file"}), "x": (False, {"a": "file"})}))
    return [os.fsencode(f"{tmp_path}/{number}") for number in (1, 2, 3)]


def test_a_path_is_found_in_the_layer_that_shows_it(folders):
    assert stack.find(folders, b"d/a").path == folders[0] + b"/d/a"
    assert stack.find(folders, b"e/c").path == folders[2] + b"/e/c"
    assert stack.find(folders, b"e").folders == [folders[2] + b"/e"]


@pytest.mark.parametrize("path", [b"d/b", b"x", b"x/a", b"l/a", b"nothing", b"d/a/deeper"])
def test_what_is_hidden_or_behind_a_link_or_not_there_is_not_found(folders, path):
    assert stack.find(folders, path) is None


def test_nothing_is_found_in_no_layers():
    assert stack.find([], b"a/b") is None
    assert stack.visible_names([]) == set()


def test_the_prefix_of_the_attributes_can_be_another(tmp_path):
    make(f"{tmp_path}/1", (False, {"d": (False, {})}))
    make(f"{tmp_path}/2", (False, {"d": (False, {"b": "file"})}))
    os.setxattr(f"{tmp_path}/1/d", "user.overlay.opaque", b"y")
    folders = [os.fsencode(f"{tmp_path}/{number}") for number in (1, 2)]
    assert stack.find(folders, b"d/b", "user.overlay.") is None
    assert stack.find(folders, b"d/b").path == folders[1] + b"/d/b"
