"""Ids and parents that are wrong, and what a plugin must not do for them."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from manuka.api import calls
from manuka.toolkit.client import Client, Refused
from manuka.toolkit.conformance.kit import Guard, Kit
from manuka.toolkit.conformance.layers import Layers, new_id
from manuka.toolkit.conformance.rules import (
    CONFINEMENT,
    ENGINE_CLIENT,
    ENGINE_LAYERS,
    GRAPHTEST,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import LayerTar

WRONG = ["..", ".", "/", "../guard", "../guard/folder", "a/b", "/etc", "x/../../guard", "a\0b", " "]

each_wrong = pytest.mark.parametrize("wrong", WRONG, ids=[repr(wrong) for wrong in WRONG])


@needed("Create on a parent that is not there is refused, and makes nothing.", ENGINE_LAYERS)
@pytest.mark.parametrize("call", [calls.CREATE, calls.CREATE_READ_WRITE])
def check_an_unknown_parent_is_refused(layers: Layers, call: str) -> None:
    layer = layers.known()
    with refused(f"{call[1:]} on an unknown parent", Refused):
        layers.client.ask(call, ID=layer.id, Parent=new_id())
    assert not layers.client.exists(layer.id), "the layer is there all the same"
    layers.client.create(layer.id)
    assert layer.names() == []


@needed("Ids that begin alike are different layers.", GRAPHTEST)
@pytest.mark.parametrize("length", [12, 32, 63])
def check_ids_are_compared_whole(layers: Layers, length: int) -> None:
    begin, end = new_id()[:length], new_id()[length + 1 :]
    one, two = layers.create(layer_id=f"{begin}0{end}"), layers.create(layer_id=f"{begin}1{end}")
    one.apply(LayerTar().file("one"))
    two.apply(LayerTar().file("two"))
    assert (one.names(), two.names()) == (["one"], ["two"])
    one.remove()
    assert two.names() == ["two"]


@needed("Remove without an id is refused, and removes nothing.", ENGINE_CLIENT, guide="remove")
@pytest.mark.parametrize("fields", [{}, {"ID": ""}, {"ID": None}], ids=["none", "empty", "null"])
def check_remove_without_an_id_is_refused(layers: Layers, fields: dict[str, str]) -> None:
    layer = layers.image(LayerTar().file("f", b"kept"))
    with refused("Remove without an id"):
        layers.client.ask(calls.REMOVE, **fields)
    assert layer.names() == ["f"]


@choice("Create and Get without an id are refused.", ENGINE_CLIENT)
@pytest.mark.parametrize("call", [calls.CREATE, calls.CREATE_READ_WRITE, calls.GET])
def check_calls_without_an_id_are_refused(client: Client, call: str) -> None:
    with refused(f"{call[1:]} without an id"):
        client.ask(call)
    with refused(f"{call[1:]} with an empty id"):
        client.ask(call, ID="")


@choice("Create refuses an id that is a path, and makes nothing.", CONFINEMENT)
@each_wrong
def check_create_refuses_paths(kit: Kit, client: Client, guard: Guard, wrong: str) -> None:
    with kit.watching_home():
        for call in (calls.CREATE, calls.CREATE_READ_WRITE):
            with refused(f"{call[1:]} with the id {wrong!r}"):
                client.ask(call, ID=wrong)


@choice("Get refuses an id that is a path.", CONFINEMENT, guide="get")
@each_wrong
def check_get_refuses_paths(client: Client, guard: Guard, wrong: str) -> None:
    with refused(f"Get with the id {wrong!r}"):
        client.get(wrong)


@choice("Remove and Put do nothing for an id that is a path.", CONFINEMENT, guide="remove")
@pytest.mark.parametrize("wrong", ["../guard/folder", "x/../../guard/folder", "../guard/secret"])
def check_remove_deletes_nothing_outside(
    kit: Kit, layers: Layers, guard: Guard, wrong: str
) -> None:
    layer = layers.image(LayerTar().file("f", b"kept"))
    with kit.watching_home():
        for call in (calls.REMOVE, calls.PUT):
            layers.client.call(call, b'{"ID":"%s"}' % wrong.encode())
    guard.assert_untouched()
    assert layer.names() == ["f"]


@choice(
    "ApplyDiff refuses an id that is a path, however it is written.", CONFINEMENT, guide="applydiff"
)
@pytest.mark.parametrize("written", ["../guard/folder", quote("../guard/folder", safe=""), ""])
def check_apply_diff_refuses_paths(client: Client, guard: Guard, written: str) -> None:
    with client.connect() as connection:
        connection.begin_stream(f"{calls.APPLY_DIFF}?id={written}&parent=")
        connection.send_chunk(LayerTar().file("planted", b"x").bytes())
        with refused(f"ApplyDiff with the id {written!r}"):
            connection.end_stream().message()


@choice("A parent that is a path is refused.", CONFINEMENT)
@pytest.mark.parametrize("wrong", ["..", "../guard", "/etc"])
def check_create_refuses_parents_that_are_paths(layers: Layers, guard: Guard, wrong: str) -> None:
    layer = layers.known()
    with refused(f"Create on the parent {wrong!r}"):
        layers.client.create(layer.id, wrong)


@choice("A layer cannot be its own parent.", CONFINEMENT)
def check_a_layer_cannot_be_its_own_parent(layers: Layers) -> None:
    layer = layers.known()
    with refused("Create of a layer on itself"):
        layers.client.create(layer.id, layer.id)
