"""Situations that broke drivers in the field: on manuka as on overlay2, or better on purpose.

The first table has what has to come out the same, the tests after it what is better, each with
what either side shows.
"""

from __future__ import annotations

import hashlib
import os
import tarfile

import pytest

from .comparison import Pair
from .sides import Played, Refused, Side
from .stacks import CAPABILITY, NOON, Content, Entry, Layer, Stack, Written, archive, layer
from .trees import Tree, read_tree


def folder(path: bytes, mode: int = 0o755, **more: object) -> Entry:
    return Entry("D", path, mode=mode, **more)


def file(path: bytes, pattern: int = 1, **more: object) -> Entry:
    return Entry("F", path, content=Content(20, pattern), **more)


def whiteout(path: bytes) -> Entry:
    return Entry("W", path)


def opaque(path: bytes) -> Entry:
    return Entry("Q", path)


def link(path: bytes, target: bytes) -> Entry:
    return Entry("H", path, target=target)


def symlink(path: bytes, target: bytes) -> Entry:
    return Entry("S", path, target=target)


def header(name: bytes = b"f", mode: bytes = b"0000644\0", type: bytes = b"0") -> bytes:
    """A tar header of an empty file, byte by byte as no tool of today writes it."""
    block = bytearray(layer(Entry("F", b"x")).tar[:512])
    block[0:100] = name.ljust(100, b"\0")
    block[100:108] = mode
    block[156:157] = type
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def global_header() -> bytes:
    """What `git archive` puts before all entries."""
    info = tarfile.TarInfo()
    return info.create_pax_global_header({"comment": "11981b5"})


D = folder(b"d")
SAME = {
    "a file deleted in a sub-folder": [layer(D, file(b"d/a")), layer(D, whiteout(b"d/a"))],
    "a deleted file made again above": [
        layer(D, file(b"d/a")),
        layer(D, whiteout(b"d/a")),
        layer(D, file(b"d/a", 2)),
    ],
    "an opaque folder with something new": [
        layer(D, file(b"d/a"), folder(b"d/s"), file(b"d/s/b")),
        layer(folder(b"d", 0o750, uid=9), opaque(b"d"), file(b"d/n")),
    ],
    "an opaque mark behind its folder's files": [
        layer(D, file(b"d/a")),
        layer(D, file(b"d/n"), opaque(b"d")),
    ],
    "a whiteout in an opaque folder": [
        layer(D, file(b"d/x"), file(b"d/y")),
        layer(D, opaque(b"d"), whiteout(b"d/x"), file(b"d/n")),
    ],
    "a whiteout at the root hides that path only": [
        layer(file(b"test"), folder(b"sub"), file(b"sub/test")),
        layer(whiteout(b"test")),
    ],
    "a whiteout of what never was": [layer(D, file(b"d/a")), layer(D, whiteout(b"d/none"))],
    "a device 0:0 is a whiteout": [
        layer(file(b"a"), file(b"b")),
        layer(Entry("C", b"a", mode=0, device=(0, 0))),
    ],
    "hard links within a layer": [layer(D, file(b"d/a"), link(b"d/b", b"d/a"), link(b"c", b"d/a"))],
    "a hard link by an absolute name": [layer(file(b"a"), link(b"b", b"/a"))],
    "a hard link in an implied folder": [layer(file(b"a"), link(b"x/y/a", b"a"))],
    "implied folders": [layer(file(b"etc/dnf/c"))],
    "a folder replaced by a link": [
        layer(folder(b"f"), file(b"f/k")),
        layer(symlink(b"f", b"x")),
    ],
    "a link replaced by a folder": [
        layer(symlink(b"f", b"x")),
        layer(folder(b"f"), file(b"f/k")),
    ],
    "a file replaced by a folder": [layer(file(b"f")), layer(folder(b"f"), file(b"f/k"))],
    "a folder replaced by a file": [layer(folder(b"f"), file(b"f/k")), layer(file(b"f"))],
    "a path through a lower layer's link": [
        layer(folder(b"run"), folder(b"var"), symlink(b"var/run", b"/run")),
        layer(file(b"var/run/x/f")),
    ],
    "names of odd bytes": [layer(D, file("d/ä ".encode() + b"\xff\n"))],
    "long names": [layer(folder(b"n" * 250), file(b"n" * 250 + b"/" + b"m" * 250))],
    "set-user-id and an owner": [layer(file(b"s", mode=0o6755, uid=1000, gid=1000))],
    "nanoseconds": [layer(file(b"f", mtime_ns=NOON + 123456789))],
    "large owners": [layer(file(b"f", uid=3_000_000_000, gid=2_500_000))],
    "a capability": [layer(file(b"c", xattrs=(("security.capability", CAPABILITY),)))],
    "an attribute of a user": [layer(file(b"c", xattrs=(("user.demo", b"1\x002"),)))],
    "a pipe": [layer(Entry("P", b"p"))],
    "a link far away": [layer(symlink(b"l", b"/" + b"t" * 4000))],
    "a link that is too long": [layer(symlink(b"l", b"t" * 5000))],
    "a name that is too long": [layer(file(b"n" * 256))],
    "a write through a link that leads outside": [
        layer(symlink(b"esc", b"/tmp/manuka-escaped"), file(b"esc/f"))
    ],
    "a whiteout without a name": [layer(Entry("F", b".wh."))],
    "a whiteout in a folder without an entry": [layer(D, file(b"d/a")), layer(whiteout(b"d/a"))],
    "a hard link ahead of its target": [layer(link(b"b", b"a"), file(b"a"))],
    "the last name of a file sets its time": [
        layer(file(b"a"), Entry("H", b"b", target=b"a", mtime_ns=NOON + 10**9))
    ],
    "a folder made where a layer below has a whiteout": [
        layer(D, file(b"d/a")),
        layer(whiteout(b"d")),
        layer(D, file(b"d/n")),
    ],
    "a folder made anew in one made anew": [
        layer(D, folder(b"d/s"), file(b"d/s/x")),
        layer(D, opaque(b"d"), folder(b"d/s"), file(b"d/s/y")),
        layer(D, folder(b"d/s"), file(b"d/s/z")),
    ],
    "a header for the whole tar": [Written((), made=global_header() + layer(file(b"f")).tar)],
    "type bits in a header's mode": [Written((), made=header(mode=b"0100644\0") + bytes(1024))],
    "a folder by an old header": [
        Written((), made=header(name=b"old/", mode=b"0000755\0", type=b"\0") + bytes(1024))
    ],
    "something behind the end": [Written((), made=layer(file(b"f")).tar + b"behind" * 5000)],
    "a name that is empty": [Written((), made=header(name=b"") + layer(file(b"f")).tar)],
}


@pytest.mark.parametrize("situation", SAME)
def test_it_comes_out_as_on_overlay2(pair: Pair, situation: str) -> None:
    [lines] = pair.differences([(Stack(tuple(SAME[situation])), ())])
    assert lines == []


def play(pair: Pair, *layers: Layer) -> tuple[Played, Played]:
    """What the engine's own overlay2 and what manuka shows of an image."""
    case = (Stack(layers), ())
    [(native, manuka)] = pair.play([case], [case])
    return native, manuka


def test_an_implied_folder_keeps_the_lower_owner_and_mode(pair: Pair) -> None:
    below = folder(b"d", 0o700, uid=9)
    native, manuka = play(pair, layer(below, file(b"d/o")), layer(file(b"d/n")))
    assert (native.before[b"d"].mode, native.before[b"d"].uid) == (0o755, 0)
    assert (manuka.before[b"d"].mode, manuka.before[b"d"].uid) == (0o700, 9)


def test_a_hard_link_to_a_lower_layers_file_works(pair: Pair) -> None:
    native, manuka = play(pair, layer(file(b"a", uid=5)), layer(link(b"b", b"a")))
    assert "no such file" in native.error
    assert manuka.error == ""
    assert manuka.before[b"b"].content == manuka.before[b"a"].content


def test_a_hard_link_to_nothing_says_so(pair: Pair) -> None:
    native, manuka = play(pair, layer(file(b"a")), layer(link(b"b", b"none")))
    assert native.error
    assert "hard link to 'none'" in manuka.error


@pytest.mark.parametrize("attribute", ["trusted.overlay.opaque", "user.overlay.origin"])
def test_an_image_cannot_plant_records_of_overlayfs(pair: Pair, attribute: str) -> None:
    below = layer(D, file(b"d/secret"))
    above = layer(folder(b"d", xattrs=((attribute, b"y"),)), file(b"d/n"))
    native, manuka = play(pair, below, above)
    assert b"d/secret" in manuka.before
    assert manuka.before[b"d"].xattrs == ()
    if attribute.startswith("trusted"):
        assert b"d/secret" not in native.before
    else:
        assert dict(native.before[b"d"].xattrs) == {attribute: b"y"}


def tree_of(side: Side, tag: str, *layers: Layer) -> Tree:
    """The tree of an image that cannot be saved again."""
    side.load(archive({tag: Stack(layers)}))
    with side.mounted(side.create(tag)) as root:
        return read_tree(root)


def test_leftovers_of_aufs_are_hidden_and_links_into_them_resolve(pair: Pair) -> None:
    # The price: the file that was left over is not there for ``docker save`` either.
    aufs = layer(
        folder(b".wh..wh.plnk", 0o700), file(b".wh..wh.plnk/1.2"), link(b"it", b".wh..wh.plnk/1.2")
    )
    native = tree_of(pair.left, "aufs:1", aufs)
    manuka = tree_of(pair.right, "aufs:1", aufs)
    assert b".wh..wh.plnk/1.2" in native
    assert [path for path in manuka if path.startswith(b".wh")] == []
    assert manuka[b"it"].content == native[b"it"].content


def test_names_that_leave_the_root_stay_within(pair: Pair) -> None:
    for side in (pair.left, pair.right):
        tree = tree_of(side, "escape:1", layer(file(b"../evil"), file(b"x/../../abs")))
        assert tree[b"evil"].type == tree[b"abs"].type == "F"


def test_an_opaque_mark_in_the_root_hides_all_that_is_below(pair: Pair) -> None:
    native, manuka = play(pair, layer(file(b"a"), D, file(b"d/x")), layer(opaque(b""), file(b"b")))
    assert b"a" in native.before
    assert b"a" not in manuka.before
    assert b"d" not in manuka.before
    assert b"b" in manuka.before


#: Whiteouts that hide nothing, or not all that is at their path, and what is left of ``d``, ``f``.
IDLE = {
    "behind a file of its own layer": (
        [layer(file(b"f")), layer(file(b"f", 2), whiteout(b"f"))],
        {b"f"},
    ),
    "behind a folder of its own layer": (
        [layer(D, file(b"d/d")), layer(D, file(b"d/f"), whiteout(b"d"))],
        {b"d", b"d/f"},
    ),
    "behind a folder without an entry": (
        [layer(D, file(b"d/d")), layer(file(b"d/f"), whiteout(b"d"))],
        {b"d", b"d/f"},
    ),
    "below another": ([layer(D, file(b"d/d")), layer(whiteout(b"d"), whiteout(b"d/d"))], set()),
    "above another": ([layer(D, file(b"d/d")), layer(whiteout(b"d/d"), whiteout(b"d"))], set()),
    "far below another": (
        [layer(D, folder(b"d/d"), file(b"d/d/f")), layer(whiteout(b"d"), whiteout(b"d/d/f"))],
        set(),
    ),
    "below what became a file": (
        [layer(D, file(b"d/f")), layer(file(b"d"), whiteout(b"d/f"))],
        {b"d"},
    ),
    "below what became a link": (
        [layer(D, file(b"d/f")), layer(symlink(b"d", b"x"), whiteout(b"d/f"))],
        {b"d"},
    ),
    "in an opaque mark's folder": (
        [layer(D, folder(b"d/d"), file(b"d/d/f")), layer(opaque(b"d"), whiteout(b"d/d/f"))],
        {b"d"},
    ),
    "above an opaque mark": ([layer(D, file(b"d/f")), layer(opaque(b"d"), whiteout(b"d"))], set()),
}


@pytest.mark.parametrize("situation", IDLE)
def test_a_whiteout_hides_what_is_below_its_layer_and_the_image_can_be_saved(
    pair: Pair, situation: str
) -> None:
    """The engine's own driver refuses such layers, or leaves folders that it made for whiteouts."""
    layers, left = IDLE[situation]
    [manuka] = pair.right.play([(Stack(tuple(layers)), ())])
    assert manuka.error == ""
    assert {path for path in manuka.before if path.partition(b"/")[0] in (b"d", b"f")} == left
    assert manuka.changes == []
    assert manuka.layers == [hashlib.sha256(part.tar).hexdigest() for part in layers]


@pytest.mark.parametrize("target", [b"real", b"/nix/real"])
def test_a_path_through_a_link_to_a_lower_folder_leads_there(pair: Pair, target: bytes) -> None:
    """nixpkgs#107021.  Behind an absolute link no file may be, or the image cannot be saved."""
    below = layer(folder(b"nix"), folder(b"nix/real"), file(b"nix/real/f"))
    through = [symlink(b"nix/link", target), folder(b"nix/link/dir")]
    if target == b"real":
        through.append(file(b"nix/link/dir/f", 2))
    native, manuka = play(pair, below, layer(*through))
    assert "no such file or directory" in native.error
    assert manuka.error == ""
    assert manuka.before[b"nix/link"].target == target
    assert manuka.before[b"nix/real/dir"].type == "D"
    assert b"nix/real/f" in manuka.before
    assert (b"nix/real/dir/f" in manuka.before) == (target == b"real")


def test_a_path_through_a_link_that_leads_nowhere_names_the_link(pair: Pair) -> None:
    _, manuka = play(
        pair, layer(folder(b"nix"), symlink(b"nix/link", b"gone"), file(b"nix/link/f"))
    )
    assert "'nix/link/f': the link 'nix/link' on its path leads to 'nix/gone'" in manuka.error


@pytest.mark.one_engine
def test_a_path_through_a_link_of_its_own_layer_stays_within(pair: Pair) -> None:
    """Such an image cannot be saved: the engine looks for its files by their names in the tar."""
    part = layer(folder(b"run"), folder(b"var"), symlink(b"var/run", b"/run"), file(b"var/run/x"))
    native = tree_of(pair.left, "through:1", part)
    manuka = tree_of(pair.right, "through:1", part)
    assert manuka[b"run/x"] == native[b"run/x"]
    assert manuka[b"var/run"] == native[b"var/run"]


@pytest.mark.one_engine
@pytest.mark.parametrize("kind", [b"D", b"7"], ids=["incremental", "contiguous"])
def test_entries_of_types_that_the_engine_refuses_are_read(pair: Pair, kind: bytes) -> None:
    """GNU tar's folder without a listing is a folder, and a contiguous file is a file."""
    part = Written((), made=header(name=b"x", type=kind, mode=b"0000755\0") + bytes(1024))
    images = archive({"types:1": Stack((part,))})
    with pytest.raises(Refused, match="unhandled tar header type"):
        pair.left.load(images)
    pair.right.load(images)
    with pair.right.mounted(pair.right.create("types:1")) as root:
        assert read_tree(root)[b"x"].type == ("D" if kind == b"D" else "F")


@pytest.mark.one_engine
def test_nothing_of_the_host_is_written_through_a_link_of_an_image(pair: Pair) -> None:
    outside = pair.right.sandbox.inside("/tmp/manuka-escaped")
    os.mkdir(outside)
    try:
        planted = layer(symlink(b"esc", b"/tmp/manuka-escaped"))
        below = Stack((planted, layer(file(b"esc/f"), whiteout(b"esc/g"), opaque(b"esc/h"))))
        pair.right.load(archive({"escape:2": below}))
        assert os.listdir(outside) == []
    finally:
        os.rmdir(outside)
