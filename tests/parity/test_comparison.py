"""The comparison itself: it finds what is planted, field by field, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import strategies as st

from manuka.toolkit.sandbox import Sandbox

from .comparison import Pair, compare
from .operations import Operation, operations
from .sides import Side
from .stacks import CAPABILITY, NOON, Content, Entry, Stack, layer, sample, stacks

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


def test_random_stacks_on_two_engines_of_one_kind_do_not_differ(engine: str, workshop: str) -> None:
    # Engines of their own: a layer that was read before has other access times.
    cases = sample(st.tuples(stacks(), operations().map(tuple)), 10, number=7)
    with Sandbox(engine, "overlay2", data_dir=workshop) as left:
        with Sandbox(engine, "overlay2", data_dir=workshop) as right:
            assert Pair(Side(left), Side(right), better=False).differences(cases) == [[]] * 10


def test_a_planted_change_in_a_container_is_found(native: Side) -> None:
    touch = Operation("touch", 0, 0, b"new", 0, 0, 0, NOON, Content())
    later = dataclasses.replace(touch, time=NOON + 10**9)
    first, second = native.play([(stack(FILE), (touch,)), (stack(FILE), (later,))])
    lines = compare(stack(FILE), first, second, better=True)
    assert any(line.startswith("changed tree b'd'") for line in lines), lines
    assert any(line.startswith("committed layer b'd'") for line in lines), lines
    assert not any(line.startswith("tree") for line in lines), lines


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(pair: Pair, fault: str) -> None:
    planted = dataclasses.replace(FILE, **FAULTS[fault])
    [(left, right)] = pair.play([(stack(FILE), ())], [(stack(planted), ())])
    lines = compare(stack(FILE), left, right, better=True)
    assert any(line.startswith("tree") for line in lines), lines
    assert any("layers sent and saved, right" in line for line in lines), lines
