"""Layers on layers, up to what an engine allows and a little beyond."""

from __future__ import annotations

import os

import pytest

from manuka.toolkit.client import Refused
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import ENGINE_LAYERS, GRAPHTEST, choice, needed
from manuka.toolkit.layertar import LayerTar

#: An image has at most 125 layers; a container adds two, and tests of the engine go to 128.
DEEPEST = 128


def _layer_tar(number: int) -> LayerTar:
    tar = LayerTar().file(f"own-{number}", b"%d" % number).file("top", b"%d" % number)
    tar.file(f"shared/{number}", b"x")
    if number > 1:
        tar.whiteout(f"shared/{number - 2}") if number % 2 == 0 else tar.file("odd", b"%d" % number)
    return tar


def _stack(layers: Layers, height: int) -> Layer:
    layer = layers.image(_layer_tar(0))
    for number in range(1, height):
        layer = layers.image(_layer_tar(number), layer)
    return layer


def _expected_shared(height: int) -> set[str]:
    names = {str(number) for number in range(height)}
    return names - {str(number - 2) for number in range(2, height, 2)}


def _assert_is_whole(layer: Layer, height: int) -> None:
    with layer.tree() as tree:
        assert (tree / "top").read_bytes() == b"%d" % (height - 1), "the top layer is not on top"
        for number in range(height):
            found = (tree / f"own-{number}").read_bytes()
            assert found == b"%d" % number, f"layer {number} is not to be seen"
        shared = set(os.listdir(str(tree / "shared")))
    assert shared == _expected_shared(height), "whiteouts count wrong"


@needed("A stack shows all of its layers, the upper ones on top.", GRAPHTEST)
@pytest.mark.parametrize("height", [1, 2, 3, 10, 40])
def check_a_stack_shows_all_its_layers(layers: Layers, height: int) -> None:
    _assert_is_whole(_stack(layers, height), height)


@needed("128 layers on top of each other work: mounted, written to, compared, packed.", GRAPHTEST)
def check_128_layers_work(layers: Layers) -> None:
    top = _stack(layers, DEEPEST - 1)
    _assert_is_whole(top, DEEPEST - 1)
    container = layers.container(top)
    with container.tree() as tree:
        (tree / "written").write_bytes(b"w")
        (tree / "own-0").unlink()
        os.chmod(str(tree / "own-60"), 0o600)
    expected = {"/written": "added", "/own-0": "deleted", "/own-60": "modified"}
    changes = container.changes()
    assert changes == expected, f"its changes are {changes}"
    assert container.size() >= 1
    assert layers.committed(container).names() == container.names()


@needed("Each layer of a deep stack can be removed, from the top down.", ENGINE_LAYERS)
def check_a_stack_can_be_removed_from_the_top(layers: Layers) -> None:
    layer: Layer | None = _stack(layers, 12)
    height = 12
    while layer is not None:
        _assert_is_whole(layer, height)
        layer.remove()
        layer, height = layer.parent, height - 1


@choice("Where the layers are too many, Create says so, and leaves nothing behind.", GRAPHTEST)
def check_too_many_layers_are_refused_by_create(layers: Layers) -> None:
    layer = layers.create()
    for _ in range(200):
        child = layers.known(layer)
        try:
            layers.client.create(child.id, layer.id)
        except Refused:
            assert not layers.client.exists(child.id), "the refused layer is there"
            assert layer.names() == [], "the layer below cannot be used any more"
            return
        layer = child
    assert layer.names() == [], "200 layers were taken, and cannot be used"
