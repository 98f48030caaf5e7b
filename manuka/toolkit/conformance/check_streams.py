"""ApplyDiff's body and Diff's reply as they really come: in pieces, late, cut off, or wrong.

Easy to get wrong: an engine cannot tell a layer that is whole from one that is not; it believes
what ApplyDiff says.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from typing import Optional

import pytest

from manuka.api import calls
from manuka.toolkit.client import ClientError, apply_target, encode, size_of
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import (
    ENGINE_CLIENT,
    ENGINE_LAYERS,
    ENGINE_PROXY,
    ENGINE_UNTAR,
    SAFETY,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import LayerTar

_NOISE = hashlib.sha512(b"noise").digest() * 2048  # 128 KiB


def _tar() -> LayerTar:
    tar = LayerTar().folder("d").file("d/first", b"1" * 1000).file("d/big", _NOISE)
    return tar.file("last", b"the end")


NAMES = ["d", "d/big", "d/first", "last"]

#: Where a body is cut: how many bytes of `_tar` are sent.
CUTS = {
    "nothing": 0,
    "in-a-header": 300,
    "between-entries": 512,
    "in-a-file": 20_000,
    "before-the-end-mark": -1024,
    "in-the-end-mark": -512,
    "before-the-last-chunk": None,
}


# --- whole bodies ---------------------------------------------------------------------------------


@needed("A body may come in chunks of any size.", ENGINE_CLIENT)
@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 4096, 1 << 20])
def check_chunks_may_have_any_size(layers: Layers, size: int) -> None:
    layer = layers.create()
    tar = LayerTar().file("a", b"x" * 700).file("b", b"y") if size < 100 else _tar()
    layer.apply(tar, chunk=size)
    assert layer.names() == (["a", "b"] if size < 100 else NAMES)


@needed("A body may come with pauses.", ENGINE_CLIENT)
def check_a_body_may_come_slowly(layers: Layers) -> None:
    layer, data = layers.create(), _tar().bytes()
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, None))
        for at in (0, 300, 512, 1500, 40_000):
            time.sleep(0.2)
            end = {0: 300, 300: 512, 512: 1500, 1500: 40_000}.get(at)
            connection.send_chunk(data[at:end])
        size_of(connection.end_stream())
    assert layer.names() == NAMES


@needed(
    "ApplyDiff is answered when the whole body was read, and not before: the engine stops hashing "
    "the layer when the answer comes.",
    ENGINE_CLIENT,
)
@pytest.mark.parametrize("padding", [0, 512, 1 << 16, 1 << 20])
def check_the_answer_comes_after_the_whole_body(layers: Layers, padding: int) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, None))
        connection.send_chunk(_tar().bytes())
        for _ in range(0, padding, 1 << 16):
            connection.send_chunk(bytes(min(padding, 1 << 16)))
        assert not connection.is_answered(0.5), "there is an answer before the last chunk"
        size_of(connection.end_stream())
    assert layer.names() == NAMES


@needed("The empty layer of an engine is two blocks of zeros, and is no error.", ENGINE_LAYERS)
def check_an_empty_tar_is_a_layer(layers: Layers) -> None:
    base = layers.image(LayerTar().file("below"))
    assert layers.image(bytes(1024), base).names() == ["below"]
    assert layers.image(bytes(1024)).names() == []


@needed(
    "A body that ends without a byte is an empty layer, if the diffs are not exact: docker import "
    "of nothing.",
    ENGINE_LAYERS,
)
def check_an_empty_body_is_an_empty_layer(layers: Layers) -> None:
    reply = layers.client.call(calls.CAPABILITIES, b"{}\n")
    told = {} if reply.status == 404 else reply.message().get("Capabilities")
    if isinstance(told, dict) and told.get("ReproducesExactDiffs"):
        pytest.skip("the engine ends the body of a repeated call as well")
    base = layers.image(LayerTar().file("below"))
    layer = layers.create(base)
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, base.id))
        assert size_of(connection.end_stream()) == 0
    assert layer.names() == ["below"]


@choice("A body with a Content-Length is read as well.", ENGINE_CLIENT)
def check_a_body_may_have_a_length(layers: Layers) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        size_of(connection.call(apply_target(layer.id, None), _tar().bytes()))
    assert layer.names() == NAMES


# --- bodies that are cut off ----------------------------------------------------------------------


def _cut(layers: Layers, layer: Layer, sent: Optional[int]) -> None:
    """Hang up in the middle of a body, and wait until the plugin has noticed."""
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, layer.parent_id))
        connection.send_chunk(_tar().bytes()[:sent])
        connection.is_answered(0.05)
    time.sleep(0.05)


@needed("After a body that was cut off, the layer can be removed and sent again.", SAFETY)
@pytest.mark.parametrize("where", list(CUTS))
def check_a_cut_layer_can_be_sent_again(layers: Layers, where: str) -> None:
    base = layers.image(LayerTar().file("below"))
    layer = layers.create(base)
    _cut(layers, layer, CUTS[where])
    layer.remove()
    assert not layers.client.exists(layer.id), "after Remove it is said to exist"
    again = layers.create(base, layer_id=layer.id)
    again.apply(_tar())
    assert sorted(again.names()) == sorted(["below", *NAMES])


@needed("A body that ends without its last chunk is not acknowledged.", SAFETY)
@pytest.mark.parametrize("where", list(CUTS))
def check_a_cut_body_is_not_acknowledged(layers: Layers, where: str) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        connection.begin_stream(apply_target(layer.id, None))
        connection.send_chunk(_tar().bytes()[: CUTS[where]])
        # The engine's own half of the connection ends; the other can still carry an answer.
        connection.sock.shutdown(socket.SHUT_WR)
        try:
            size = size_of(connection.reply())
        except ClientError:
            return
    raise AssertionError(f"it was acknowledged, with the size {size}")


@choice("A half-applied layer is never served as if it were whole.", SAFETY)
def check_a_half_applied_layer_is_not_served(layers: Layers) -> None:
    layer = layers.create()
    _cut(layers, layer, 20_000)
    time.sleep(0.2)
    with refused("Get of a half-applied layer"):
        layer.get()


@choice("Nothing can be built upon a half-applied layer.", SAFETY)
def check_nothing_is_built_on_a_half_applied_layer(layers: Layers) -> None:
    layer = layers.create()
    _cut(layers, layer, 20_000)
    time.sleep(0.2)
    with refused("Create on a half-applied layer"):
        layers.create(layer)


@choice("A second ApplyDiff to a half-applied layer fails, or makes it whole.", SAFETY)
def check_a_retried_layer_is_refused_or_whole(layers: Layers) -> None:
    layer = layers.create()
    _cut(layers, layer, 20_000)
    time.sleep(0.2)
    try:
        layer.apply(_tar())
    except ClientError:
        return
    assert layer.names() == NAMES


# --- bodies that are wrong ------------------------------------------------------------------------


@needed("A tar that breaks off in the middle of a file is an error.", SAFETY)
@pytest.mark.parametrize("where", ["in-a-header", "in-a-file"])
def check_a_tar_that_breaks_off_is_refused(layers: Layers, where: str) -> None:
    layer = layers.create()
    with refused("a tar that breaks off"):
        layer.apply(_tar().bytes()[: CUTS[where]])
    layer.remove()


@needed("A body that is no tar is an error.", SAFETY)
@pytest.mark.parametrize(
    "body",
    [b"not a tar" * 200, _NOISE, b"\x1f\x8b\x08" + bytes(1021)],
    ids=["text", "noise", "gzip"],
)
def check_a_body_that_is_no_tar_is_refused(layers: Layers, body: bytes) -> None:
    layer = layers.create()
    with refused("a body that is no tar"):
        layer.apply(body)
    layer.remove()


@needed("A header whose checksum is wrong is an error.", ENGINE_UNTAR)
def check_a_wrong_checksum_is_refused(layers: Layers) -> None:
    tar = bytearray(_tar().bytes())
    tar[512 + 20] ^= 1
    layer = layers.create()
    with refused("a header with a wrong checksum"):
        layer.apply(bytes(tar))


@choice("A request without a body is an error: an engine sends a layer in chunks.", SAFETY)
def check_a_missing_body_is_refused(layers: Layers) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        connection.begin_call(apply_target(layer.id, None), b"")
        with pytest.raises(ClientError):
            size_of(connection.reply())


@needed("After a refused body the layer can be removed and sent again.", SAFETY)
def check_a_refused_layer_can_be_sent_again(layers: Layers) -> None:
    layer = layers.create()
    with refused("a tar that breaks off"):
        layer.apply(_tar().bytes()[:20_000])
    layer.remove()
    again = layers.create(layer_id=layer.id)
    again.apply(_tar())
    assert again.names() == NAMES


# --- Diff -----------------------------------------------------------------------------------------


def _big_container(layers: Layers, mebibytes: int) -> Layer:
    container = layers.container(layers.create())
    with container.tree() as tree:
        with open(str(tree / "big"), "wb") as file:
            for number in range(mebibytes):
                file.write(hashlib.sha512(b"%d" % number).digest() * 16384)
    return container


@needed("A Diff arrives whole, whatever its size.", ENGINE_PROXY, guide="diff")
def check_a_big_diff_is_whole(layers: Layers) -> None:
    container = _big_container(layers, 24)
    again = layers.committed(container)
    assert again.view(ignore=["mtime_ns"]) == container.view(ignore=["mtime_ns"])


@needed(
    "An engine that hangs up in the middle of a Diff leaves the layer usable.",
    ENGINE_CLIENT,
    guide="diff",
)
def check_hanging_up_in_a_diff_does_no_harm(layers: Layers) -> None:
    container = _big_container(layers, 24)
    for _ in range(3):
        with layers.client.connect() as connection:
            connection.begin_call(calls.DIFF, _diff_message(container))
            with connection.open_reply() as response:
                next(connection.pieces(response, 1000))
    with container.tree() as tree:
        assert os.path.getsize(str(tree / "big")) == 24 << 20
    assert len(container.diff()) > 24 << 20
    container.remove()
    assert not layers.client.exists(container.id), "after Remove it is said to exist"


def _diff_message(layer: Layer) -> bytes:
    return encode({"ID": layer.id, "Parent": layer.parent_id})


@needed("A slow reader gets the whole Diff.", ENGINE_CLIENT, guide="diff")
def check_a_slow_reader_gets_the_whole_diff(layers: Layers) -> None:
    container = _big_container(layers, 4)
    received = 0
    with layers.client.connect() as connection:
        connection.begin_call(calls.DIFF, _diff_message(container))
        with connection.open_reply() as response:
            time.sleep(0.3)
            for piece in connection.pieces(response, 1 << 19):
                received += len(piece)
                time.sleep(0.02)
    assert received > 4 << 20, f"only {received} bytes came"
