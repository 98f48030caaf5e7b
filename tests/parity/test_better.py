"""Where manuka is better than overlay2 on purpose, and what random stacks must not be blamed for.

Each test shows what either side does, on a real engine.  What concerns a layer's entries as such
(implied folders, links to lower layers, planted records, leftovers of AUFS) is in ``test_field``;
here are changes that the engine's own comparison overlooks, names without a file, and holes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.engine.images import gnu_sparse_entry

from .comparison import Pair
from .operations import Operation
from .sides import Played, Refused, Side
from .stacks import CAPABILITY, NOON, Content, Entry, Layer, Stack, Written, archive, layer

SIZE = 8 << 20


def play(pair: Pair, stack: Stack, *todo: Operation) -> tuple[Played, Played]:
    """What the engine's own overlay2 and what manuka shows of an image and a container on it."""
    [played] = pair.play([(stack, todo)], [(stack, todo)])
    return played


def operation(kind: str, time: int = NOON) -> Operation:
    """Done to the only file of its type that there is."""
    return Operation(kind, 0, 0, b"new", 0o644, 0, 0, time, Content())


# --- docker diff ----


@pytest.mark.parametrize("target", [b"first", b"/first"])
def test_docker_diff_sees_a_link_that_points_elsewhere_since(pair: Pair, target: bytes) -> None:
    stack = Stack((layer(Entry("S", b"l", target=target)),))
    native, manuka = play(pair, stack, operation("retarget"))
    assert native.after[b"l"] == manuka.after[b"l"] != manuka.before[b"l"]
    assert native.changes == []
    assert manuka.changes == [("/l", 0)]
    assert list(native.committed) == list(manuka.committed) == [b"l"]


def test_docker_diff_sees_a_file_that_was_rewritten_within_its_second(pair: Pair) -> None:
    stack = Stack((layer(Entry("F", b"f", content=Content(10))),))
    native, manuka = play(pair, stack, operation("rewrite", NOON + 1))
    assert native.changes == []
    assert manuka.changes == [("/f", 0)]


def test_docker_diff_sees_the_new_time_of_a_block_device(pair: Pair) -> None:
    stack = Stack((layer(Entry("B", b"b", device=(240, 0))),))
    native, manuka = play(pair, stack, operation("touch", NOON + 5 * 10**9))
    assert native.changes == []
    assert manuka.changes == [("/b", 0)]


def test_both_see_what_can_be_told_by_the_second(pair: Pair) -> None:
    stack = Stack((layer(Entry("F", b"f", content=Content(10))),))
    native, manuka = play(pair, stack, operation("rewrite", NOON + 10**9))
    assert native.changes == manuka.changes == [("/f", 0)]


# --- entries ----


def test_no_folder_lists_a_name_that_a_whiteout_hides(pair: Pair) -> None:
    folder = Entry("D", b"d", mode=0o755)
    native, manuka = play(pair, Stack((layer(folder, Entry("W", b"d/none")), layer())))
    assert native.before[b"d/none"].type == "phantom"
    assert b"d/none" not in manuka.before


def test_a_further_name_does_not_take_a_capability_away(pair: Pair) -> None:
    capability = (("security.capability", CAPABILITY),)
    program = Entry("F", b"p", content=Content(10), xattrs=capability)
    native, manuka = play(pair, Stack((layer(program, Entry("H", b"q", target=b"p")),)))
    assert native.before[b"p"].xattrs == native.before[b"q"].xattrs == ()
    assert manuka.before[b"p"].xattrs == manuka.before[b"q"].xattrs == capability


# --- holes ----


def blocks(side: Side, part: Layer, tag: str, path: str) -> tuple[int, int]:
    """Length of a file of an image, and the bytes that it has on the disk."""
    side.load(archive({tag: Stack((part,))}))
    with side.mounted(side.create(tag)) as root:
        status = os.stat(os.path.join(root, path))
        return status.st_size, status.st_blocks * 512


def test_runs_of_zeros_take_no_room(pair: Pair) -> None:
    part = layer(Entry("F", b"log", content=Content(SIZE, -1)))
    assert blocks(pair.left, part, "better:zeros", "log") == (SIZE, SIZE)
    size, room = blocks(pair.right, part, "better:zeros", "log")
    assert size == SIZE
    assert room < SIZE // 16


def sparse_by_pax() -> Written:
    """As GNU tar writes a hole with an island in it today."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "log").open("wb") as file:
            file.truncate(SIZE)
            file.seek(SIZE // 2)
            file.write(b"island")
        command = ["tar", "-C", folder, "--format=posix", "--sparse", "-cf-", "log"]
        return Written((), made=subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def test_holes_of_a_sparse_entry_stay_holes(pair: Pair) -> None:
    part = sparse_by_pax()
    assert blocks(pair.left, part, "better:holes", "log") == (SIZE, SIZE)
    size, room = blocks(pair.right, part, "better:holes", "log")
    assert size == SIZE
    assert room < SIZE // 16


def test_a_sparse_entry_of_gnus_old_type_is_read(pair: Pair) -> None:
    part = Written((), made=gnu_sparse_entry("log", SIZE, b"island", SIZE // 2) + bytes(1024))
    with pytest.raises(Refused, match="unhandled tar header type 83"):
        pair.left.load(archive({"better:gnu": Stack((part,))}))
    size, room = blocks(pair.right, part, "better:gnu", "log")
    assert size == SIZE
    assert room < SIZE // 16


def test_no_engine_saves_an_image_with_sparse_entries_on_whatever_driver(pair: Pair) -> None:
    # The engine notes how to write the tar again as if each entry held its file's full length.
    images = archive({"better:saved": Stack((sparse_by_pax(),))})
    for side in (pair.left, pair.right):
        side.load(images)
        with pytest.raises(Refused, match="could not verify layer data"):
            side.save(["better:saved"])
