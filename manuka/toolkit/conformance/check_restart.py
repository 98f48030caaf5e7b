"""A plugin that is stopped, or dies, and comes again: with ``--restart``, and ``--kill``."""

from __future__ import annotations

import os
import time

import pytest

from manuka.toolkit.client import apply_target
from manuka.toolkit.conformance.kit import Kit
from manuka.toolkit.conformance.layers import Layer, Layers, is_mounted
from manuka.toolkit.conformance.rules import (
    ENGINE_DRIVER,
    ENGINE_LAYERS,
    SAFETY,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import LayerTar
from manuka.toolkit.snapshot import snapshot


def _restart(kit: Kit) -> None:
    """As when plugin and engine are started anew."""
    if kit.settings.restart is None:
        pytest.skip("needs --restart")
    kit.restart()
    kit.ready()


def _crash(kit: Kit) -> None:
    if kit.settings.kill is None or kit.settings.restart is None:
        pytest.skip("needs --kill and --restart")
    kit.kill()
    kit.restart()
    kit.ready()


def _stack(layers: Layers) -> Layer:
    base = layers.image(LayerTar().file("below", b"b").file("hidden"))
    return layers.image(LayerTar().file("own", b"o", 0o4755, uid=7).whiteout("hidden"), base)


@needed("All layers are there after a restart, as they were.", ENGINE_LAYERS)
def check_layers_outlive_a_restart(kit: Kit, layers: Layers) -> None:
    image = _stack(layers)
    container = layers.container(image)
    with container.tree() as tree:
        (tree / "written").write_bytes(b"w")
    before = (image.view(), container.view(), container.changes(), container.size())
    _restart(kit)
    after = (image.view(), container.view(), container.changes(), container.size())
    assert after == before
    container.remove()
    assert layers.image(LayerTar().file("new"), image).names() == ["below", "new", "own"]


@needed("A restart leaves mounted layers mounted: containers go on.", ENGINE_DRIVER)
def check_mounted_layers_stay_over_a_restart(kit: Kit, layers: Layers) -> None:
    container = layers.container(_stack(layers))
    tree = container.get()
    with open(str(tree / "written"), "wb", buffering=0) as file:
        file.write(b"before")
        _restart(kit)
        file.write(b" and after")
    assert (tree / "own").read_bytes() == b"o", "the tree is gone"
    assert container.get() == tree, "Get names another path than before"
    container.put()
    assert (tree / "own").exists(), "the Put for a Get after the restart took the tree away"
    container.put()
    with container.tree() as again:
        assert (again / "written").read_bytes() == b"before and after"


@choice(
    "A lone Put after a restart unmounts what an engine left mounted.", ENGINE_DRIVER, guide="put"
)
def check_a_lone_put_after_a_restart_unmounts(kit: Kit, layers: Layers) -> None:
    container = layers.container(_stack(layers))
    tree = container.get()
    _restart(kit)
    container.put()
    assert not is_mounted(str(tree)), f"{tree} is a mount point still"


@choice("A plugin that is restarted alone goes on: the engine sends no Init then.", ENGINE_DRIVER)
def check_a_plugin_goes_on_without_a_new_init(kit: Kit, layers: Layers) -> None:
    if kit.settings.restart is None:
        pytest.skip("needs --restart")
    container = layers.container(_stack(layers))
    kit.restart()
    try:
        names = container.names()
    finally:
        kit.ready()
    assert names == ["below", "own"]


@needed("A layer that was acknowledged is whole after a crash.", SAFETY, guide="applydiff")
def check_acknowledged_layers_outlive_a_crash(kit: Kit, layers: Layers) -> None:
    image = _stack(layers)
    before = image.view()
    removed = layers.image(LayerTar().file("removed"))
    removed.remove()
    _crash(kit)
    assert image.view() == before
    assert not layers.client.exists(removed.id), "what was removed is there again"


@needed(
    "A layer is whole when a crash comes right after its ApplyDiff was answered.",
    SAFETY,
    guide="applydiff",
)
def check_a_crash_right_after_the_answer_loses_nothing(kit: Kit, layers: Layers) -> None:
    tar = LayerTar().file("first", b"x")
    for number in range(100):
        tar.file(f"d/{number}", b"%d" % number * 2000)
    image = layers.image(tar.file("last", b"x"))
    _crash(kit)
    with image.tree() as tree:
        assert len(os.listdir(str(tree / "d"))) == 100
        assert (tree / "d/99").read_bytes() == b"99" * 2000
        assert (tree / "last").read_bytes() == b"x"


@needed("What a container wrote until its Put is there after a crash.", SAFETY, guide="put")
def check_a_containers_writes_outlive_a_crash(kit: Kit, layers: Layers) -> None:
    container = layers.container(_stack(layers))
    with container.tree() as tree:
        (tree / "own").write_bytes(b"changed")
        (tree / "below").unlink()
        (tree / "written").write_bytes(b"w")
        os.chmod(str(tree / "written"), 0o4711)
        before = snapshot(tree)
    _crash(kit)
    assert container.view() == before


@needed(
    "A layer whose sending a crash ended can be removed, and sent again.", SAFETY, guide="applydiff"
)
def check_a_layer_can_be_sent_again_after_a_crash(kit: Kit, layers: Layers) -> None:
    base = layers.image(LayerTar().file("below"))
    layer = layers.create(base)
    tar = LayerTar().file("first", b"x").file("big", bytes(100_000)).bytes()
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, base.id))
        connection.send_chunk(tar[:50_000])
        time.sleep(0.2)
        _crash(kit)
        with refused("a layer whose sending a crash ended"):
            connection.end_stream().message()
    layer.remove()
    again = layers.create(base, layer_id=layer.id)
    again.apply(tar)
    assert again.names() == ["below", "big", "first"]


@choice(
    "A layer whose sending a crash ended is not served as if it were whole.",
    SAFETY,
    guide="applydiff",
)
def check_a_half_sent_layer_is_not_served_after_a_crash(kit: Kit, layers: Layers) -> None:
    layer = layers.create()
    tar = LayerTar().file("first", b"x").file("big", bytes(100_000)).bytes()
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, None))
        connection.send_chunk(tar[:50_000])
        time.sleep(0.2)
        _crash(kit)
    with refused("Get of a half-sent layer"):
        layer.get()
