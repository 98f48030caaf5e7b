"""The comparison itself: it finds what is planted, field by field, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import pytest

from .comparison import Pair, compare
from .sides import Side
from .stacks import CAPABILITY, NOON, Content, Entry, Stack, layer

FILE = Entry("F", b"d/f", mode=0o640, uid=7, gid=8, mtime_ns=NOON + 5, content=Content(10, 1))

FAULTS = {
    "mode": {"mode": 0o600},
    "owner": {"uid": 9},
    "group": {"gid": 9},
    "nanoseconds": {"mtime_ns": NOON + 6},
    "content": {"content": Content(10, 2)},
    "attribute": {"xattrs": (("security.capability", CAPABILITY),)},
    "type": {"kind": "P", "content": Content()},
    "name": {"path": b"d/g"},
}


def stack(entry: Entry) -> Stack:
    return Stack((layer(Entry("D", b"d", mode=0o755)), layer(Entry("D", b"d", mode=0o755), entry)))


def test_an_engine_does_not_differ_from_itself(native: Side) -> None:
    first, second = native.play([(stack(FILE), ()), (stack(FILE), ())])
    assert compare(stack(FILE), first, second, better=False) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(pair: Pair, fault: str) -> None:
    planted = dataclasses.replace(FILE, **FAULTS[fault])
    [(left, right)] = pair.play([(stack(FILE), ())], [(stack(planted), ())])
    lines = compare(stack(FILE), left, right, better=True)
    assert any(line.startswith("tree") for line in lines), lines
    assert any("layers sent and saved, right" in line for line in lines), lines
