"""Random stacks of layers, with random changes made upon them, on manuka and on overlay2.

What is compared: the mounted trees before and after the changes with every attribute,
``docker diff``, the layer that ``docker commit`` makes, sizes, and the digests of what
``docker save`` gives back.  ``MANUKA_PARITY_EXAMPLES`` asks for more stacks,
``MANUKA_PARITY_SEED`` for others.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import strategies as st

from .comparison import Pair
from .operations import operations
from .sides import Case
from .stacks import Entry, Stack, layer, sample, stacks

EXAMPLES = int(os.environ.get("MANUKA_PARITY_EXAMPLES", "60"))
SEED = int(os.environ.get("MANUKA_PARITY_SEED", "1"))
BATCH = 20


SET_GID, LINK = Entry("D", b"d", mode=0o2700), Entry("S", b"d/e/f/a", target=b"nowhere")
#: What was found by chance, and whether ``d/e`` and ``d/e/f`` then have the set-group-id bit.
FOUND = {
    "implied below a lower layer's set-group-id folder": ((layer(SET_GID), layer(LINK)), False),
    "implied below a set-group-id folder": ((layer(), layer(SET_GID, LINK)), True),
    "implied below one that has an entry in both": ((layer(SET_GID), layer(SET_GID, LINK)), True),
}


@pytest.mark.parametrize(("layers", "is_set"), FOUND.values(), ids=FOUND)
def test_a_stack_that_was_found_once_is_the_same_on_both(
    pair: Pair, layers: tuple, is_set: bool
) -> None:
    case: Case = Stack(layers), ()
    assert pair.differences([case]) == [[]]
    [(native, manuka)] = pair.play([case], [case])
    for side in (native, manuka):
        modes = {side.before[path].mode for path in (b"d/e", b"d/e/f")}
        assert modes == {0o2755 if is_set else 0o755}


def test_an_implied_folder_has_nothing_of_one_that_is_hidden_later(pair: Pair) -> None:
    below = layer(Entry("D", b"c/a", mode=0o1652, uid=9, mtime_ns=0))
    above = layer(Entry("F", b"b"), Entry("H", b"c/a/a", target=b"b"), Entry("Q", b"c"))
    assert pair.differences([(Stack((below, above)), ())]) == [[]]


@pytest.mark.timeout(120 + 10 * EXAMPLES)
def test_random_stacks_are_the_same_on_manuka_and_on_overlay2(pair: Pair) -> None:
    cases: list[Case] = sample(st.tuples(stacks(), operations().map(tuple)), EXAMPLES, SEED)
    for start in range(0, len(cases), BATCH):
        batch = pair.apart(cases[start : start + BATCH])
        for case, lines in zip(batch, pair.differences(batch)):
            if lines:
                pytest.fail(report(pair, case, lines))


def report(pair: Pair, case: Case, lines: list[str]) -> str:
    """The failure with the simplest case that could be found for it."""
    simple, simple_lines = pair.shrunk(case)
    text = ["", "The simplest case:", str(simple[0]), *map(str, simple[1]), "", *simple_lines]
    return "\n".join([*text, "", "As it was found first:", *lines])
