"""Connections as engines keep them: reused, idle for days, many, and broken off."""

from __future__ import annotations

import contextlib
import time

import pytest

from manuka.api import calls
from manuka.toolkit.client import BrokenReply, Client, encode
from manuka.toolkit.conformance.kit import Kit
from manuka.toolkit.conformance.layers import Layers
from manuka.toolkit.conformance.rules import ENGINE_CLIENT, choice, needed
from manuka.toolkit.layertar import LayerTar


@needed("One connection serves call after call, or says Connection: close.", ENGINE_CLIENT)
def check_a_connection_serves_many_calls(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f"))
    body = encode({"ID": layer.id})
    with layers.client.connect() as connection:
        for number in range(100):
            call = (calls.EXISTS, calls.GET, calls.PUT, calls.STATUS)[number % 4]
            reply = connection.call(call, body)
            reply.message()
            if reply.headers.get("connection", "").lower() == "close":
                return


@choice("Connections are kept open between calls.", ENGINE_CLIENT)
def check_connections_are_kept_open(client: Client) -> None:
    with client.connect() as connection:
        for _ in range(3):
            reply = connection.call(calls.STATUS, b"{}\n")
            assert reply.headers.get("connection", "").lower() != "close", "it says close"


@needed("A layer can be sent on a connection that served other calls, and after it.", ENGINE_CLIENT)
def check_a_stream_fits_between_calls(layers: Layers) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        for _ in range(2):
            reply = connection.call(calls.STATUS, b"{}\n")
            if reply.headers.get("connection", "").lower() == "close":
                pytest.skip("the plugin closes after each call")
        connection.begin_stream(f"{calls.APPLY_DIFF}?id={layer.id}&parent=")
        connection.send_chunk(LayerTar().file("f", b"x").bytes())
        reply = connection.end_stream()
        reply.message()
        if reply.headers.get("connection", "").lower() != "close":
            connection.call(calls.STATUS, b"{}\n").message()
    assert layer.names() == ["f"]


@needed("An idle connection stays usable (--idle says for how many seconds).", ENGINE_CLIENT)
def check_an_idle_connection_stays_usable(kit: Kit, client: Client) -> None:
    with client.connect() as connection:
        reply = connection.call(calls.STATUS, b"{}\n")
        if reply.headers.get("connection", "").lower() == "close":
            pytest.skip("the plugin closes after each call")
        assert not connection.is_answered(kit.settings.idle), "the plugin closed it"
        try:
            connection.call(calls.STATUS, b"{}\n").message()
        except BrokenReply as error:
            raise AssertionError(f"after {kit.settings.idle:g} s idle: {error}") from None


@needed("100 idle connections keep nobody from being answered.", ENGINE_CLIENT)
def check_many_idle_connections_do_no_harm(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f"))
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(layers.client.connect()) for _ in range(100)]
        for connection in idle[::10]:
            connection.call(calls.STATUS, b"{}\n").message()
        assert layer.names() == ["f"]
        idle[-1].call(calls.STATUS, b"{}\n").message()


@needed("Connections that come and go without a request do no harm.", ENGINE_CLIENT)
def check_connections_without_a_request_do_no_harm(client: Client) -> None:
    for number in range(50):
        with client.connect() as connection:
            if number % 2:
                connection.sock.sendall(b"POST /GraphDriver.Sta")
    client.status()


@needed("A request may come byte by byte.", ENGINE_CLIENT)
def check_a_request_may_come_byte_by_byte(client: Client) -> None:
    request = f"POST {calls.STATUS} HTTP/1.1\r\nHost: \r\nContent-Length: 3\r\n\r\n{{}}\n"
    with client.connect() as connection:
        for byte in request.encode():
            connection.send_raw(bytes([byte]))
            time.sleep(0.001)
        connection.reply().message()


@needed("An engine that hangs up before the answer leaves the plugin well.", ENGINE_CLIENT)
def check_hanging_up_before_the_answer_does_no_harm(layers: Layers) -> None:
    layer = layers.image(LayerTar().file("f"))
    for call in (calls.STATUS, calls.EXISTS, calls.CHANGES, calls.DIFF) * 10:
        with layers.client.connect() as connection:
            connection.begin_call(call, encode({"ID": layer.id}))
    assert layer.names() == ["f"]
