"""How an engine and a plugin meet: Activate, Init, Capabilities, and the form of every reply."""

from __future__ import annotations

import pytest

from manuka.api import calls
from manuka.toolkit.client import Client, ClientError, Refused
from manuka.toolkit.conformance.kit import Kit
from manuka.toolkit.conformance.layers import Layers, new_id
from manuka.toolkit.conformance.rules import (
    ENGINE_CLIENT,
    ENGINE_DRIVER,
    ENGINE_PROXY,
    choice,
    needed,
)
from manuka.toolkit.layertar import LayerTar


@needed(
    'Plugin.Activate is answered with {"Implements": ["GraphDriver"]}.',
    ENGINE_CLIENT,
    guide="activate",
)
def check_activate_says_graphdriver(first_contact: Client) -> None:
    implements = first_contact.activate()
    assert "GraphDriver" in implements, f"Implements is {implements}"


@needed(
    "Activate may come again: each start of the engine sends one.", ENGINE_CLIENT, guide="activate"
)
def check_activate_can_be_repeated(kit: Kit) -> None:
    assert kit.client.activate() == kit.client.activate()


@needed(
    "Init with a home that is not there yet makes it ready and has no Err.",
    ENGINE_PROXY,
    guide="init",
)
def check_init_is_accepted(kit: Kit) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
    kit.initialise()


@needed(
    "Init may come again on a living plugin, and no layer is lost by it.",
    ENGINE_PROXY,
    guide="init",
)
def check_a_second_init_keeps_layers(kit: Kit, layers: Layers) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
    base = layers.image(LayerTar().file("f", b"kept"))
    top = layers.image(LayerTar().file("g", b"kept too"), base)
    kit.initialise()
    assert top.names() == ["f", "g"]


@needed(
    "Capabilities is answered with ReproducesExactDiffs, or with status 404: all false.",
    ENGINE_PROXY,
    guide="capabilities",
)
def check_capabilities_are_told_or_unknown(client: Client) -> None:
    reply = client.call(calls.CAPABILITIES, b"{}\n")
    if reply.status == 404:
        return
    told = reply.message().get("Capabilities") or {}
    assert isinstance(told, dict), f"Capabilities is {told!r}"
    exact = told.get("ReproducesExactDiffs", False)
    assert isinstance(exact, bool), f"ReproducesExactDiffs is {exact!r}"


@needed("No call depends on the Host header: engines send an empty one, or any.", ENGINE_CLIENT)
@pytest.mark.parametrize("host", ["", "plugin.moby.localhost", "-"])
def check_any_host_header_will_do(client: Client, host: str) -> None:
    with client.connect() as connection:
        reply = connection.call(calls.STATUS, b"{}\n", {"Host": host})
    reply.message()


@needed("Requests have no Content-Type, and are read as JSON all the same.", ENGINE_CLIENT)
def check_a_request_needs_no_content_type(layers: Layers) -> None:
    layer = layers.create()
    with layers.client.connect() as connection:
        reply = connection.call(calls.GET_METADATA, b'{"ID":"%s"}\n' % layer.id.encode())
    reply.message()


@choice("A request with a Content-Type is read as well.", ENGINE_CLIENT)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def check_a_content_type_does_no_harm(client: Client, content_type: str) -> None:
    with client.connect() as connection:
        reply = connection.call(calls.STATUS, b"{}\n", {"Content-Type": content_type})
    reply.message()


@needed("A field that is not known is ignored: newer engines may send one.", ENGINE_PROXY)
def check_unknown_fields_are_ignored(layers: Layers) -> None:
    layer = layers.create()
    layers.client.ask(calls.GET_METADATA, ID=layer.id, Later={"a": [1]})


@choice("JSON replies have the Content-Type application/vnd.docker.plugins.v1…", ENGINE_CLIENT)
@pytest.mark.parametrize("call", [calls.ACTIVATE, calls.STATUS])
def check_replies_have_the_plugins_content_type(client: Client, call: str) -> None:
    told = client.call(call, b"{}\n").headers.get("content-type", "nothing")
    assert told.startswith("application/vnd.docker.plugins.v1"), f"{call} replies with {told}"


@choice("A refusal has the plugins' Content-Type too.", ENGINE_CLIENT)
def check_refusals_have_the_plugins_content_type(client: Client) -> None:
    told = client.call(calls.GET, b'{"ID":"%s"}' % new_id().encode()).headers.get("content-type")
    assert str(told).startswith("application/vnd.docker.plugins.v1"), f"it is {told}"


@choice("A call that does not exist is answered with 404.", ENGINE_PROXY)
def check_an_unknown_call_is_404(client: Client) -> None:
    status = client.call("/GraphDriver.NoSuchCall", b"{}\n").status
    assert status == 404, f"the status is {status}"


@needed("Status is rows of two strings, for docker info.", ENGINE_PROXY, guide="status")
def check_status_is_rows_of_strings(client: Client) -> None:
    for row in client.status():
        assert isinstance(row, list), f"{row!r} is no row"
        assert len(row) == 2, f"{row!r} is no pair"
        assert all(isinstance(cell, str) for cell in row), f"{row!r} are no strings"


@choice("Status tells the user something.", ENGINE_DRIVER, guide="status")
def check_status_has_rows(client: Client) -> None:
    assert client.status(), "docker info will show nothing of the driver"


@choice("An option that is not known is refused by Init.", ENGINE_DRIVER, guide="init")
def check_an_unknown_option_is_refused(kit: Kit, client: Client) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
    assert kit.home is not None
    try:
        client.init(kit.home, [*kit.settings.options, "no.such.option=1"])
    except Refused:
        return
    finally:
        kit.initialise()
    raise AssertionError("Init took no.such.option=1")


@choice("After an Init that was refused, the driver serves as before.", ENGINE_DRIVER, guide="init")
def check_a_refused_init_changes_nothing(kit: Kit, layers: Layers) -> None:
    if not kit.settings.init:
        pytest.skip("the plugin serves an engine (--no-init)")
    layer = layers.image(LayerTar().file("f", b"kept"))
    try:
        layers.client.init("relative/home")
    except ClientError:
        pass
    else:
        kit.initialise()
        raise AssertionError("Init took the home 'relative/home'")
    try:
        names = layer.names()
    finally:
        kit.initialise()
    assert names == ["f"]
