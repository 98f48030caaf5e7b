"""Calls at the same time: an engine pulls, builds and runs all at once, and commits through itself.

Easy to get wrong: a commit sends a Diff that it is reading into an ApplyDiff that it is writing;
with one thread, the plugin waits for itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Callable, Iterator, List

import pytest

from manuka.api import calls
from manuka.linux.mountinfo import mounts
from manuka.toolkit.client import (
    ClientError,
    Connection,
    NoAnswer,
    Refused,
    apply_target,
    encode,
    size_of,
)
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.limits import together
from manuka.toolkit.conformance.rules import (
    ENGINE_BUILDER,
    ENGINE_CLIENT,
    ENGINE_DRIVER,
    ENGINE_LAYERS,
    choice,
    needed,
)
from manuka.toolkit.layertar import LayerTar


def _container(layers: Layers) -> Layer:
    return layers.container(layers.image(LayerTar().file("f", b"x")))


@needed(
    "Many Gets of one layer at once are one mount with as many users.", ENGINE_LAYERS, guide="get"
)
def check_many_gets_of_one_layer(layers: Layers) -> None:
    layer = _container(layers)
    folders = together([lambda: layer.client.get(layer.id)] * 32)
    layer.gets = len(folders)
    assert len(set(folders)) == 1, f"they are at {set(folders)}"
    tree = folders[0]
    together([lambda: layer.client.put(layer.id)] * 31)
    assert os.path.exists(tree + "/f"), "one Get is left, and the tree is gone"
    layer.client.put(layer.id)
    layer.gets = 0
    assert layer.names() == ["f"]


@needed("Get and Put of one layer on several threads lose no user.", ENGINE_LAYERS, guide="get")
def check_gets_and_puts_of_one_layer_at_once(layers: Layers) -> None:
    layer = _container(layers)
    tree = layer.get()

    def use() -> None:
        for _ in range(15):
            folder = layer.client.get(layer.id)
            assert os.path.exists(folder + "/f"), "the tree is gone while it is in use"
            layer.client.put(layer.id)

    together([use] * 8)
    assert (tree / "f").exists(), "one Get is left, and the tree is gone"
    layer.put()
    assert layer.names() == ["f"]


@needed(
    "Layers on one parent can be made at once: two containers of an image.",
    ENGINE_LAYERS,
    guide="create-and-createreadwrite",
)
def check_many_children_at_once(layers: Layers) -> None:
    base = layers.image(LayerTar().file("below"))
    children = [layers.known(base) for _ in range(24)]

    def make(child: Layer) -> Callable[[], None]:
        def work() -> None:
            child.client.create_read_write(child.id, base.id)
            child.apply(LayerTar().file(child.id))

        return work

    together([make(child) for child in children])
    for child in children:
        assert child.names() == sorted(["below", child.id])


@needed(
    "Two Creates of one id at once leave one whole layer.",
    ENGINE_DRIVER,
    guide="create-and-createreadwrite",
)
@pytest.mark.parametrize("turn", range(3))
def check_two_creates_of_one_id(layers: Layers, turn: int) -> None:
    base = layers.image(LayerTar().file("below"))
    for _ in range(4):
        layer = layers.known(base)
        _race(layer)
        layer.apply(LayerTar().file("own"))
        assert layer.names() == ["below", "own"]
        layer.remove()
        assert not layers.client.exists(layer.id), "after Remove it is said to exist"


@choice(
    "Of two Creates of one id at once, one is refused.",
    ENGINE_DRIVER,
    guide="create-and-createreadwrite",
)
def check_one_of_two_creates_is_refused(layers: Layers) -> None:
    for _ in range(8):
        made = _race(layers.known(layers.create()))
        assert made == 1, f"{made} of them were told that they made it"


def _race(layer: Layer) -> int:
    """Create a layer on several threads; how many were told that they did."""

    def create() -> bool:
        try:
            layer.client.create(layer.id, layer.parent_id)
        except Refused:
            return False
        return True

    return sum(together([create] * 4))


@needed(
    "A Diff can be read while an ApplyDiff is written with it: docker commit.",
    ENGINE_LAYERS,
    guide="diff",
)
def check_a_diff_can_feed_an_apply_diff(layers: Layers) -> None:
    container = _container(layers)
    with container.tree() as tree:
        (tree / "big").write_bytes(os.urandom(1 << 20) * 12)
    before = container.view(ignore=["mtime_ns"])
    new = layers.create(container.parent)
    container.get()
    with layers.client.connect() as reading, layers.client.connect() as writing:
        reading.begin_call(calls.DIFF, _diff_message(container))
        with reading.open_reply() as response:
            assert response.status == 200
            writing.begin_stream(apply_target(new.id, new.parent_id))
            for piece in reading.pieces(response, 32768):
                writing.send_chunk(piece)
        size_of(writing.end_stream())
    container.put()
    assert new.view(ignore=["mtime_ns"]) == before


def _diff_message(layer: Layer) -> bytes:
    return encode({"ID": layer.id, "Parent": layer.parent_id})


@needed("A layer that arrives slowly holds up no other call.", ENGINE_LAYERS, guide="applydiff")
@pytest.mark.parametrize("streams", [1, 6, 12])
def check_a_stalled_layer_holds_up_nobody(layers: Layers, streams: int) -> None:
    other = _container(layers)
    with contextlib.ExitStack() as stack:
        stalled = [_begin(stack, layers) for _ in range(streams)]
        with _in_time("while a layer is arriving"):
            _use_everything(layers, other)
        for layer, connection in stalled:
            connection.send_chunk(LayerTar().file("late", b"x").bytes()[200:])
            size_of(connection.end_stream())
            assert layer.names() == ["late"]


def _begin(stack: contextlib.ExitStack, layers: Layers) -> tuple[Layer, Connection]:
    layer = layers.create()
    connection = stack.enter_context(layers.client.connect())
    connection.begin_stream(apply_target(layer.id, None))
    connection.send_chunk(LayerTar().file("late", b"x").bytes()[:200])
    return layer, connection


@needed("A Diff that nobody reads holds up no other call.", ENGINE_LAYERS, guide="diff")
@pytest.mark.parametrize("streams", [1, 6])
def check_a_stalled_diff_holds_up_nobody(layers: Layers, streams: int) -> None:
    other, container = _container(layers), _container(layers)
    with container.tree() as tree:
        (tree / "big").write_bytes(bytes(1 << 20) * 16)
    with contextlib.ExitStack() as stack:
        for _ in range(streams):
            connection = stack.enter_context(layers.client.connect())
            connection.begin_call(calls.DIFF, _diff_message(container))
            connection.is_answered(5)
        with _in_time("while a Diff is not read"):
            _use_everything(layers, other)
            with container.tree():
                pass


@contextlib.contextmanager
def _in_time(when: str) -> Iterator[None]:
    try:
        yield
    except NoAnswer as error:
        raise AssertionError(f"{when}: {error}") from None


def _use_everything(layers: Layers, container: Layer) -> None:
    layers.client.status()
    with container.tree() as tree:
        assert (tree / "f").exists(), "a file of the layer is missing"
    container.changes()
    container.size()
    container.diff()
    assert layers.image(LayerTar().file("g"), container.parent).names() == ["f", "g"]


@needed("Pulls, builds and containers at once do not mix.", ENGINE_BUILDER)
def check_everything_at_once(layers: Layers) -> None:
    base = layers.image(LayerTar().file("below", b"b").file("hidden"))

    def live(number: int) -> Callable[[], None]:
        def work() -> None:
            for turn in range(4):
                mark = f"{number}-{turn}"
                image = layers.image(LayerTar().file(mark, mark.encode()).whiteout("hidden"), base)
                container = layers.container(image)
                with container.tree() as tree:
                    (tree / "written").write_bytes(mark.encode())
                    assert (tree / mark).read_bytes() == mark.encode()
                assert container.changes() == {"/written": "added"}
                again = layers.committed(container)
                assert again.names() == sorted(["below", mark, "written"])
                for layer in (again, container, image):
                    layer.remove()

        return work

    together([live(number) for number in range(6)])
    assert base.names() == ["below", "hidden"]


@needed(
    "Remove of one layer and use of another do not disturb each other.",
    ENGINE_LAYERS,
    guide="remove",
)
def check_removing_disturbs_no_other_layer(layers: Layers) -> None:
    base = layers.image(LayerTar().file("f", b"x"))
    used = layers.container(base)
    doomed = [layers.container(base) for _ in range(12)]
    tree = used.get()
    seen: List[bool] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append((tree / "f").exists())
            done.wait(0.001)

    def remove_all() -> None:
        try:
            for layer in doomed:
                layer.get()
                layer.put()
                layer.remove()
        finally:
            done.set()

    together([watch, remove_all])
    assert all(seen), "the layer in use was gone for a while"
    used.put()


@choice("Get and Put leave nothing mounted, however often.", ENGINE_CLIENT, guide="get")
def check_get_and_put_leak_no_mount(layers: Layers) -> None:
    layer = _container(layers)
    layer.get()
    layer.put()
    before = len(mounts())
    for _ in range(100):
        layer.get()
        layer.put()
    left = len(mounts()) - before
    assert left <= 5, f"{left} mounts more than before"


@choice(
    "Of two ApplyDiffs to one layer at once, at most one succeeds.",
    ENGINE_DRIVER,
    guide="applydiff",
)
def check_two_apply_diffs_to_one_layer(layers: Layers) -> None:
    layer = layers.create()

    def apply() -> bool:
        try:
            layer.apply(LayerTar().file("f", b"x" * 300_000))
        except ClientError:
            return False
        return True

    succeeded = sum(together([apply] * 3))
    if succeeded:
        assert layer.names() == ["f"]
