"""manuka.layers.changes: comparing two trees."""

from __future__ import annotations

import os
import struct

import pytest

from manuka.layers.apply import apply_layer
from manuka.layers.changes import Change, ChangeList, Kind, compare_trees
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root

pytestmark = needs_root

MODIFY, ADD, DELETE = Kind.MODIFY, Kind.ADD, Kind.DELETE
SECOND = 10**9


@pytest.fixture
def compare(tmp_path):
    """Compare what two tars hold, the later with the earlier."""

    def run(before, after):
        for name, tar in (("before", before), ("after", after)):
            (tmp_path / name).mkdir()
            apply_layer(tar.stream(), str(tmp_path / name))
        changes = compare_trees(str(tmp_path / "after"), str(tmp_path / "before"))
        return [f"{'CAD'[kind]} {path}" for path, kind in changes]

    return run


def test_the_numbers_of_the_kinds_are_the_protocols():
    assert [(kind.name, int(kind)) for kind in Kind] == [("MODIFY", 0), ("ADD", 1), ("DELETE", 2)]


FILE = {"mode": 0o644, "uid": 1, "gid": 2, "mtime_ns": SECOND + 5}
CAPABILITY = {"security.capability": struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    "other",
    [
        {"mode": 0o600},
        {"mode": 0o4644},
        {"uid": 3},
        {"gid": 3},
        {"mtime_ns": SECOND + 6},
        {"mtime_ns": 2 * SECOND},
        {"content": b"longer"},
        {"xattrs": CAPABILITY},
    ],
)
def test_a_file_is_changed_when_any_of_its_facts_is(compare, other):
    after = LayerTar().file("f", **{"content": b"same", **FILE, **other})
    assert compare(LayerTar().file("f", b"same", **FILE), after) == ["C /f"]


@pytest.mark.parametrize("other", [{}, {"xattrs": {"user.x": b"1"}}, {"content": b"SAME"}])
def test_a_file_is_unchanged_when_these_agree(compare, other):
    after = LayerTar().file("f", **{"content": b"same", **FILE, **other})
    assert compare(LayerTar().file("f", b"same", **FILE), after) == []


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ({"mode": 0o700}, ["C /d"]),
        ({"uid": 9}, ["C /d"]),
        ({"xattrs": CAPABILITY}, ["C /d"]),
        ({"mtime_ns": 5}, []),
        ({"xattrs": {"user.x": b"1"}}, []),
    ],
)
def test_a_folder_is_changed_by_what_is_its_own(compare, other, changes):
    assert (
        compare(LayerTar().folder("d").file("d/f"), LayerTar().folder("d", **other).file("d/f"))
        == changes
    )


def test_devices_differ_by_their_numbers(compare):
    before = LayerTar().device("c", 1, 3).device("b", 7, 0, block=True)
    after = LayerTar().device("c", 1, 5).device("b", 7, 0, block=True)
    assert compare(before, after) == ["C /c"]


def test_links_differ_by_their_targets(compare):
    before = LayerTar().symlink("a", "one").symlink("b", "one")
    assert compare(before, LayerTar().symlink("a", "two").symlink("b", "one")) == ["C /a"]


def test_links_are_not_followed(compare, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").touch()
    one = LayerTar().symlink("l", str(tmp_path / "outside"))
    assert compare(one, one) == []


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (LayerTar(), LayerTar(), []),
        (LayerTar(), LayerTar().file("d/sub/f"), ["A /d", "A /d/sub", "A /d/sub/f"]),
        (LayerTar().file("d/sub/f"), LayerTar(), ["D /d"]),
        (
            LayerTar().file("d/sub/f"),
            LayerTar().folder("d/sub"),
            ["C /d", "C /d/sub", "D /d/sub/f"],
        ),
        (LayerTar().file("x/f"), LayerTar().file("x"), ["C /x"]),
        (LayerTar().file("x"), LayerTar().file("x/f"), ["C /x", "A /x/f"]),
        (LayerTar().file("x/f"), LayerTar().symlink("x", "y"), ["C /x"]),
    ],
)
def test_what_came_is_listed_whole_and_what_went_by_its_top(compare, before, after, changes):
    assert compare(before, after) == changes


def test_the_folders_above_a_change_are_changed_and_keep_their_own_kind():
    found = ChangeList()
    found.add("/a/b/c", DELETE)
    found.add("/n", ADD)
    found.add("/n/x", ADD)
    found.add("/a/b/d", ADD)
    assert found.sorted() == [
        Change("/a", MODIFY),
        Change("/a/b", MODIFY),
        Change("/a/b/c", DELETE),
        Change("/a/b/d", ADD),
        Change("/n", ADD),
        Change("/n/x", ADD),
    ]


def test_trees_of_deep_folders_are_compared(tmp_path):
    for name in ("before", "after"):
        folder = tmp_path / name
        folder.mkdir()
        os.makedirs(folder / "/".join(["d"] * 600))
    assert compare_trees(str(tmp_path / "after"), str(tmp_path / "before")) == []
