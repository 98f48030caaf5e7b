"""How a plugin says no, and what it says no to."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from manuka.api import calls
from manuka.toolkit.client import Client, ClientError, Connection, Refused
from manuka.toolkit.conformance.kit import Kit
from manuka.toolkit.conformance.layers import Layers, new_id
from manuka.toolkit.conformance.rules import (
    ENGINE_CLIENT,
    ENGINE_DRIVER,
    ENGINE_PROXY,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import LayerTar

LAYER_CALLS = [
    calls.CREATE,
    calls.CREATE_READ_WRITE,
    calls.REMOVE,
    calls.GET,
    calls.PUT,
    calls.EXISTS,
    calls.GET_METADATA,
    calls.DIFF,
    calls.CHANGES,
    calls.DIFF_SIZE,
]


@needed("Get of a layer that is not there is an error.", ENGINE_PROXY, guide="get")
def check_get_of_an_unknown_layer_is_an_error(client: Client) -> None:
    with refused("Get of an unknown layer", Refused) as errors:
        client.get(new_id())
    texts = [error.text for error in errors if isinstance(error, Refused)]
    assert "".join(texts).strip(), "the error has no text for the user"


@needed("An Err is a string: engines cannot read another one.", ENGINE_PROXY)
def check_an_error_is_a_string(client: Client) -> None:
    reply = client.call(calls.GET, json.dumps({"ID": new_id()}).encode())
    value = json.loads(reply.body.decode("utf-8"))
    assert isinstance(value, dict), f"the reply is {value!r}"
    assert isinstance(value.get("Err"), str), f"Err is {value.get('Err')!r}"
    assert value["Err"], "Err is empty"


@needed(
    "Diff tells an error by its status: with 200 any body is taken for the tar.",
    ENGINE_PROXY,
    guide="diff",
)
def check_diff_tells_an_error_by_its_status(client: Client) -> None:
    reply = client.call(calls.DIFF, json.dumps({"ID": new_id()}).encode())
    if reply.status == 200:
        with tarfile.open(fileobj=io.BytesIO(reply.body), mode="r:") as archive:
            assert archive.getnames() == [], "an unknown layer has a Diff with files"


@choice("ApplyDiff to a layer that was not created is an error.", ENGINE_PROXY, guide="applydiff")
def check_apply_diff_to_an_unknown_layer_is_an_error(layers: Layers) -> None:
    layer = layers.known()
    with refused("ApplyDiff to an unknown layer"):
        layer.apply(LayerTar().file("f"))
    with refused("Get of a layer that only had an ApplyDiff", Refused):
        layer.get()


@choice(
    "Changes and DiffSize of a layer that is not there are errors.", ENGINE_DRIVER, guide="changes"
)
@pytest.mark.parametrize("call", [calls.CHANGES, calls.DIFF_SIZE])
def check_questions_about_unknown_layers_are_errors(client: Client, call: str) -> None:
    with refused(f"{call[1:]} of an unknown layer", Refused):
        client.ask(call, ID=new_id())


@choice("An error is a JSON object with Err, and no HTML or text.", ENGINE_CLIENT)
@pytest.mark.parametrize("call", [calls.GET, calls.DIFF])
def check_errors_are_json(client: Client, call: str) -> None:
    body = client.call(call, json.dumps({"ID": new_id()}).encode()).body
    assert isinstance(json.loads(body.decode("utf-8")), dict), f"it is {body[:80]!r}"


@choice("An error has no traceback in it.", ENGINE_CLIENT)
def check_errors_have_no_traceback(client: Client) -> None:
    for body in (json.dumps({"ID": new_id()}).encode(), b"[]", b"{"):
        said = client.call(calls.GET, body).error_text()
        assert "Traceback" not in said, f"it is {said}"
        assert "goroutine" not in said, f"it is {said}"


@needed(
    "A request without a body is refused: it is a retry whose body was lost, and nobody knows any "
    "more what it asked for.",
    ENGINE_CLIENT,
)
@pytest.mark.parametrize(
    "call", [calls.CREATE, calls.CREATE_READ_WRITE, calls.REMOVE, calls.GET, calls.DIFF]
)
def check_an_empty_request_is_refused(layers: Layers, call: str) -> None:
    layer = layers.image(LayerTar().file("f", b"kept"))
    reply = layers.client.call(call, b"")
    with refused(f"{call[1:]} without a body"):
        reply.message()
    assert layer.names() == ["f"]


@choice("A request without a body is refused by every call about a layer.", ENGINE_CLIENT)
@pytest.mark.parametrize(
    "call", [calls.PUT, calls.EXISTS, calls.GET_METADATA, calls.CHANGES, calls.DIFF_SIZE]
)
def check_an_empty_question_is_refused(client: Client, call: str) -> None:
    with refused(f"{call[1:]} without a body"):
        client.call(call, b"").message()


@choice("Init without a body is refused, and the driver goes on.", ENGINE_CLIENT, guide="init")
def check_an_empty_init_is_refused(kit: Kit, layers: Layers) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
    layer = layers.image(LayerTar().file("f", b"kept"))
    try:
        layers.client.call(calls.INIT, b"").message()
    except ClientError:
        assert layer.names() == ["f"]
        return
    kit.initialise()
    raise AssertionError("an Init without a body was accepted")


@choice("A request that is no JSON, or no object, is refused.", ENGINE_PROXY)
@pytest.mark.parametrize("call", LAYER_CALLS)
def check_broken_requests_are_refused(client: Client, call: str) -> None:
    for body in (b"{", b"nonsense", b"[]", b'"text"', b'{"ID":', b"\xff\xfe", b'{"ID":7}'):
        reply = client.call(call, body)
        assert reply.status != 200 or b"Err" in reply.body, f"{body!r} was taken"


@needed("A refused call leaves the plugin as it was, on the same connection too.", ENGINE_CLIENT)
def check_the_plugin_goes_on_after_errors(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f", b"kept"))
    unknown = json.dumps({"ID": new_id()}).encode()
    connection: Connection = layers.client.connect()
    with connection:
        for call in (calls.GET, calls.CHANGES, calls.DIFF):
            reply = connection.call(call, unknown)
            if reply.headers.get("connection", "").lower() == "close":
                return _assert_is_usable(layers, layer.id)
        connection.call(calls.STATUS, b"{}\n").message()
    _assert_is_usable(layers, layer.id)


def _assert_is_usable(layers: Layers, layer_id: str) -> None:
    assert layers.client.exists(layer_id), "after the errors the layer does not exist"


@choice("What is no HTTP does not end the plugin.", ENGINE_CLIENT)
@pytest.mark.parametrize(
    "garbage",
    [b"\0\1\2\3" * 100, b"GET", b"POST /GraphDriver.Status HTTP/9.9\r\n\r\n", b"\r\n" * 50,
     b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"A" * 70000,
     b"POST /GraphDriver.Status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids=["binary", "half", "version", "lines", "negative", "long", "chunk"],
)  # fmt: skip
def check_garbage_does_not_end_the_plugin(client: Client, garbage: bytes) -> None:
    with client.connect() as connection:
        try:
            connection.sock.sendall(garbage)
        except OSError:
            pass
        connection.is_answered(0.2)
    client.status()
