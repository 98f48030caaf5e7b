"""What whiteouts and opaque marks hide: only what lies below their layer, in whatever order.

OCI image specification, ``layer.md``: "Whiteout files MUST only apply to resources in lower/parent
layers.  Files that are present in the same layer as a whiteout file can only be hidden by whiteout
files in subsequent layers."  `shown` is that, in a few lines, for layers given as lists of entries;
every driver has to agree with it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from manuka.driver import GraphDriver, Settings
from manuka.overlay2 import Overlay2
from manuka.vfs import Vfs
from tests.layertar import LayerTar
from tests.unit.folder_driver import FolderDriver
from tests.unit.mounts import needs_root, unmounted_after
from tests.unit.stacks import apply, view

pytestmark = needs_root

Tree = Dict[str, str]

WAYS: Dict[str, Callable[[str], GraphDriver]] = {
    "overlay2": lambda home: Overlay2(Settings(home)),
    "naive": lambda home: Overlay2(Settings(home, ("manuka.diff=naive",))),
    "vfs": lambda home: Vfs(Settings(home)),
    "an author's": lambda home: FolderDriver(Settings(home)),
}


class Entry(NamedTuple):
    """kind: Directory, File, Symbolic link, Whiteout, or Q for an opaque mark of `path`."""

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


Layer = Tuple[Entry, ...]


def layer(text: str) -> Layer:
    """``D t, F t/t`` as entries."""
    return tuple(Entry(*part.split()) for part in text.split(",")) if text else ()


def tar(entries: Layer, number: int) -> LayerTar:
    made = LayerTar()
    for kind, path in entries:
        if kind == "D":
            made.folder(path)
        elif kind == "F":
            made.file(path, b"%d" % number)
        elif kind == "S":
            made.symlink(path, f"to{number}")
        elif kind == "W":
            made.whiteout(path)
        else:
            made.opaque(path)
    return made


def above(path: str) -> List[str]:
    """The directories that `path` lies in."""
    return [str(folder) for folder in Path(path).parents][:-1]


def shown(layers: Sequence[Layer]) -> Tree:
    """What each path is that a container sees: a directory, or a file or link of which layer."""
    tree: Tree = {}
    for number, entries in enumerate(layers):
        own: Tree = {}
        for kind, path in entries:
            if kind in "DFS":
                own[path] = "D" if kind == "D" else f"{kind}{number}"
                own.update(dict.fromkeys(above(path), "D"))
        gone = {path for kind, path in entries if kind == "W"}
        emptied = {path for kind, path in entries if kind == "Q"}
        emptied |= gone | {path for path, what in own.items() if what != "D"}
        gone |= {path for path, what in tree.items() if what != "D" and own.get(path) == "D"}
        below = {
            path: what
            for path, what in tree.items()
            if path not in gone and not (emptied | gone).intersection(above(path))
        }
        tree = {**below, **own}
    return tree


def found(driver: GraphDriver, layers: Sequence[Layer], run: int) -> Tree:
    """The same, of a real driver."""
    parent = None
    for number, entries in enumerate(layers):
        name = f"{run}-{number}"
        apply(driver, name, parent, tar(entries, number))
        parent = name
    tree = {}
    for path, record in view(driver, f"{run}-{len(layers) - 1}").items():
        if record["type"] == "file":
            with driver.mounted(f"{run}-{len(layers) - 1}") as root:
                tree[path] = "F" + (Path(root) / path).read_text()
        elif record["type"] == "symlink":
            tree[path] = "S" + str(record["target"])[len("to") :]
        else:
            tree[path] = "D"
    return tree


@pytest.fixture(params=list(WAYS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GraphDriver]:
    with unmounted_after(tmp_path):
        yield WAYS[request.param](str(tmp_path / "home"))


CASES = {
    "a directory filled before its whiteout": ("D t, F t/t", "D t, F t/n, W t", "t t/n"),
    "a file before its whiteout": ("F a", "F a, W a", "a"),
    "a link before its whiteout": ("F a", "S a, W a", "a"),
    "an implied directory before its whiteout": ("D t, F t/t", "F t/n, W t", "t t/n"),
    "an empty directory before its whiteout": ("D t, F t/t", "D t, W t", "t"),
    "a whiteout above another": ("D t, F t/t, F k", "W t, W t/t", "k"),
    "a whiteout below another": ("D t, F t/t, F k", "W t/t, W t", "k"),
    "a whiteout far above another": ("F t/t/u, F k", "W t, W t/t/u", "k"),
    "a whiteout far below another": ("F t/t/u, F k", "W t/t/u, W t", "k"),
    "whiteouts of what never was": ("F k", "W t, W t/t/u, W v/v, Q w", "k"),
    "whiteouts below a file": ("F k/a", "W k/a/b, W k/a/b/c, Q k/a", "k k/a"),
    "a whiteout below a directory that became a file": ("D d, F d/f", "F d, W d/f", "d"),
    "the same, the whiteout before": ("D d, F d/f", "W d/f, F d", "d"),
    "a whiteout below a directory that became a link": ("F d/f", "S d, W d/f", "d"),
    "an opaque mark of a directory that became a file": ("D d, F d/f", "F d, Q d", "d"),
    "an opaque mark behind its own files": ("D d, F d/a", "D d, F d/n, Q d", "d d/n"),
    "an opaque mark alone": ("F d/a, F d/e/b", "Q d", "d"),
    "an opaque mark below a whiteout": ("D d, F d/a, F k", "W d, Q d", "k"),
    "an opaque mark above its directory's whiteout": ("D d, F d/a, F k", "Q d, W d", "k"),
    "an opaque mark behind a deeper whiteout": ("F d/e/a, F d/b", "W d/e/a, Q d", "d"),
    "an opaque mark before a deeper whiteout": ("F d/e/a, F d/b", "Q d, W d/e/a", "d"),
    "a file beside a whiteout, then one above": (
        "F d/e/a, F d/e/b, F d/c",
        "W d/e/a, F d/e/n, W d",
        "d d/e d/e/n",
    ),
    "a whiteout, a file in another directory, one above": (
        "F d/e/a, F d/f/b, F d/c",
        "W d/e/a, F d/f/n, W d",
        "d d/f d/f/n",
    ),
    "a directory by its entry behind a deeper whiteout": ("F d/a, F d/b", "W d/a, D d, W d", "d"),
    "a root that is opaque behind a whiteout": ("F d/a, F d/b, F k", "W d/a, Q .", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_layer_hides_is_below_it(driver: GraphDriver, case: str) -> None:
    below, above_it, left = CASES[case]
    assert " ".join(found(driver, [layer(below), layer(above_it)], 0)) == left


def test_a_whiteout_of_a_file_that_a_link_brought_up_hides_it(driver: GraphDriver) -> None:
    for number, order in enumerate(("link first", "in one directory", "made anew")):
        base, top = f"base{number}", f"top{number}"
        apply(driver, base, None, LayerTar().file("d/a", b"x").file("k"))
        linked = LayerTar().hardlink("d/b" if number else "b", "d/a").whiteout("d/a")
        apply(driver, top, base, linked.file("d/a", b"y") if number == 2 else linked)
        expected = [["b", "d", "k"], ["d", "d/b", "k"], ["d", "d/a", "d/b", "k"]][number]
        assert list(view(driver, top)) == expected, order


def test_an_opaque_mark_hides_a_file_that_a_link_brought_up(driver: GraphDriver) -> None:
    apply(driver, "base", None, LayerTar().file("d/a", b"x"))
    apply(driver, "top", "base", LayerTar().hardlink("b", "d/a").opaque("d"))
    assert list(view(driver, "top")) == ["b", "d"]


@pytest.mark.parametrize(
    ("entries", "is_kept"),
    [
        ("F d/e/n", True),
        ("F d/e/n, W d/e/f", True),
        ("F d/e/n, Q d/e", True),
        ("F d/e/n, Q d", False),
        ("Q d, F d/e/n", False),
        ("F d/e/n, W d/e", False),
        ("W d/e, F d/e/n", False),
        ("F d/e/n, W d", False),
        ("F d/e/n, Q d/e, Q d", False),
        ("F d/e/n, Q .", False),
    ],
)
def test_an_implied_directory_is_like_a_lower_one_only_if_that_still_shows(
    driver: GraphDriver, entries: str, is_kept: bool
) -> None:
    base = LayerTar().folder("d").folder("d/e", mode=0o700).file("d/e/f")
    apply(driver, "base", None, base)
    apply(driver, "top", "base", tar(layer(entries), 1))
    with driver.mounted("top") as root:
        mode = os.stat(f"{root}/d/e").st_mode & 0o7777
    assert mode == (0o700 if is_kept else 0o755)


# --- any layers, in any order --------------------------------------------------------------------

_PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join)


@st.composite
def layers(draw: Callable) -> Layer:
    """Entries that do not contradict each other: nothing lies in a file, no path is there twice."""
    chosen: Dict[str, str] = {}
    for _ in range(draw(st.integers(0, 5))):
        path, kind = draw(_PATHS), draw(st.sampled_from("DFFS"))
        in_a_leaf = any(chosen.get(folder, "D") != "D" for folder in above(path))
        fills = any(path in above(other) for other in chosen)
        if path not in chosen and not in_a_leaf and not (fills and kind != "D"):
            chosen[path] = kind
    hiding = draw(st.lists(st.tuples(st.sampled_from("WWQ"), _PATHS), max_size=4, unique=True))
    entries = [Entry(kind, path) for path, kind in chosen.items()]
    return tuple(draw(st.permutations(entries + [Entry(*pair) for pair in hiding])))


_runs = itertools.count(1)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(layers(), min_size=2, max_size=4))
@example([layer("F a/b"), layer("W a/b, W a"), layer("D a")])
@example([layer("F a/b, F a/a"), layer("W a/b"), layer("W a/a, F a/b/b, W a")])
def test_every_driver_shows_what_the_specification_says(
    driver: GraphDriver, stack: List[Layer]
) -> None:
    run = next(_runs)
    try:
        assert found(driver, stack, run) == shown(stack)
    finally:
        for number in reversed(range(len(stack))):
            driver.remove(f"{run}-{number}")
