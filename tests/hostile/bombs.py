"""Tars that are small for what they ask, in pieces, each of a size that is asked for.

`test_bombs` runs this file as a program, so that memory can be measured: it applies one bomb and
prints what that took, as JSON.
"""

from __future__ import annotations

import io
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Tuple

from manuka.errors import ManukaError
from tests.hostile.raw import END, block, padded, pax, record
from tests.unit.stacks import create, overlay2

Pieces = Iterator[bytes]


def file(name: bytes, data: bytes = b"") -> bytes:
    return block(name, b"0", len(data)) + padded(data)


def named(name: bytes, kind: bytes = b"0") -> bytes:
    return pax(record(b"path", name)) + block(b"x", kind)


def files(count: int) -> Pieces:
    for number in range(count):
        yield file(b"d/%d" % number)


def files_in_two_folders_by_turns(count: int) -> Pieces:
    yield block(b"a", b"5") + block(b"b", b"5")
    for number in range(count):
        yield file(b"%c/%d" % (b"ab"[number % 2], number))


def one_file_again_and_again(count: int) -> Pieces:
    for _ in range(count):
        yield file(b"f", b"x")


def a_folder_and_a_file_by_turns(count: int) -> Pieces:
    for _ in range(count):
        yield block(b"x", b"5") + file(b"x/y") + file(b"x")


def opaque_marks_upon_files(count: int) -> Pieces:
    yield from files(count)
    for _ in range(count):
        yield file(b"d/.wh..wh..opq")


def opaque_marks_from_the_bottom_up(count: int) -> Pieces:
    for number in range(count):
        yield named(b"d/" * 100 + b"%d" % number)
    for depth in range(100, 0, -1):
        yield named(b"d/" * depth + b".wh..wh..opq")


def opaque_marks_from_the_top_down(count: int) -> Pieces:
    for number in range(count):
        yield named(b"d/" * 100 + b"%d" % number)
    for depth in range(1, 101):
        yield named(b"d/" * depth + b".wh..wh..opq")


def whiteouts(count: int) -> Pieces:
    for number in range(count):
        yield file(b"d/.wh.%d" % number)


def hard_links(count: int) -> Pieces:
    yield file(b"f", b"x")
    for number in range(count):
        yield block(b"l/%d" % number, b"1", linkname=b"f")


def hard_links_to_lower_files(count: int) -> Pieces:
    for number in range(count):
        yield block(b"l%d" % number, b"1", linkname=b"d/%d" % number)


def attributes_that_links_cannot_have(count: int) -> Pieces:
    for number in range(count):
        attributes = [record(b"SCHILY.xattr.user.%d.%d" % (number, at), b"") for at in range(200)]
        yield pax(*attributes) + block(b"s%d" % number, b"2", linkname=b"x")


def extended_headers(count: int) -> Pieces:
    for _ in range(count):
        yield pax(record(b"comment", b"n" * 10_000))
    yield file(b"f")


def deep_folders(count: int) -> Pieces:
    for number in range(count):
        yield named(b"%d/" % number + b"a/" * 500 + b"f")


def one_very_deep_folder(depth: int) -> Pieces:
    yield named(b"a/" * depth + b"f")


def another_file_down_there(depth: int) -> Pieces:
    yield named(b"a/" * depth + b"g")


def a_sparse_file(size: int) -> Pieces:
    yield pax(
        record(b"GNU.sparse.major", b"0"),
        record(b"GNU.sparse.minor", b"1"),
        record(b"GNU.sparse.size", b"%d" % size),
        record(b"GNU.sparse.numblocks", b"2"),
        record(b"GNU.sparse.map", b"0,1,%d,1" % (size - 1)),
    ) + file(b"s", b"xy")


def a_hard_link_to_a_sparse_file(size: int) -> Pieces:
    yield block(b"l", b"1", linkname=b"s")


def zeros(mebibytes: int) -> Pieces:
    yield block(b"zeros", b"0", mebibytes << 20)
    for _ in range(mebibytes):
        yield bytes(1 << 20)


def two_folders(count: int) -> Pieces:
    yield file(b"d/x") + named(b"d/" * 100 + b"x")


#: What lies below a bomb that needs something there.
LOWER: Dict[Callable[[int], Pieces], Callable[[int], Pieces]] = {
    opaque_marks_upon_files: two_folders,
    opaque_marks_from_the_bottom_up: two_folders,
    opaque_marks_from_the_top_down: two_folders,
    whiteouts: two_folders,
    hard_links_to_lower_files: files,
    deep_folders: deep_folders,
    another_file_down_there: one_very_deep_folder,
    a_hard_link_to_a_sparse_file: a_sparse_file,
}


class Stream(io.RawIOBase):
    """Pieces of a tar, and its end mark, as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.size = 0
        self._pieces = iter(pieces)
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            self._left = END if piece is None else piece
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        self.size += count
        return count


def applied(name: str, amounts: List[int], way: str, folder: Path) -> List[Tuple[float, int, str]]:
    """Apply a bomb once for each amount; the processor's seconds, bytes of memory, any error."""
    bomb = globals()[name]
    took = []
    with overlay2(folder, f"manuka.diff={way}") as driver:
        for amount in amounts:
            parent = None
            if bomb in LOWER:
                parent = create(driver, "lower")
                driver.apply_diff(parent, None, Stream(LOWER[bomb](amount)))
            create(driver, "bomb", parent)
            before, began, error = peak(), time.process_time(), ""
            try:
                driver.apply_diff("bomb", parent, Stream(bomb(amount)))
            except ManukaError as failed:
                error = str(failed)
            took.append((time.process_time() - began, peak() - before, error))
            driver.remove("bomb")
            driver.remove("lower")
    return took


def peak() -> int:
    """Bytes of this process' memory that were resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    bomb_name, numbers, diff, where = sys.argv[1:]
    print(json.dumps(applied(bomb_name, json.loads(numbers), diff, Path(where))))
