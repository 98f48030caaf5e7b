"""All sixteen calls over a real socket, with a driver that keeps folders."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import tarfile
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from manuka.api import calls
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.driver import CreateOptions, DriverError
from manuka.layers.changes import Change, Kind
from manuka.layers.tar import Stream
from tests.unit.folder_driver import FolderDriver
from tests.unit.wire import Reply, Running, Wire, chunk, running, stream_head

JSON_TYPE = "application/vnd.docker.plugins.v1.2+json"


class Driver(FolderDriver):
    """A driver that can be told to fail, and remembers what it was asked."""

    fault: Optional[BaseException] = None

    def _fail(self) -> None:
        if Driver.fault is not None:
            raise Driver.fault

    created: List[Tuple[str, str, Optional[str], CreateOptions]]

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        self._remember("create", layer_id, parent, options)
        super().create(layer_id, parent, options)

    def create_read_write(
        self, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        self._remember("create_read_write", layer_id, parent, options)
        super().create(layer_id, parent, options)

    def _remember(
        self, how: str, layer_id: str, parent: Optional[str], options: CreateOptions
    ) -> None:
        self.created = [*getattr(self, "created", []), (how, layer_id, parent, options)]

    def get(self, layer_id: str, mount_label: str = "") -> str:
        self._fail()
        path = super().get(layer_id, mount_label)
        return path if not mount_label else f"{path}#{mount_label}"

    def metadata(self, layer_id: str) -> Dict[str, str]:
        return {"MergedDir": self.get(layer_id)}


class Plugin(NamedTuple):
    server: Running
    instance: DriverInstance
    home: Path

    def call(self, name: str, message: Any = None) -> Reply:
        return self.server.call("/" + name, message)

    def apply(self, layer_id: str, tar: bytes, parent: str = "") -> Reply:
        with self.server.wire() as wire:
            return wire.stream(f"{calls.APPLY_DIFF}?id={layer_id}&parent={parent}", tar)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Plugin]:
    """A plugin that no engine has called."""
    Driver.fault = None
    instance = DriverInstance(Driver, str(tmp_path / "run"))
    with running(make_app(instance)) as server:
        yield Plugin(server, instance, tmp_path / "home")


@pytest.fixture
def plugin(fresh: Plugin) -> Plugin:
    """A plugin after Init."""
    assert fresh.call("GraphDriver.Init", {"Home": str(fresh.home), "Opts": None}).status == 200
    return fresh


def _tar(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def test_the_sixteen_calls_in_the_life_of_a_layer(fresh: Plugin) -> None:
    home = str(fresh.home)

    def call(name: str, message: Any = None) -> Any:
        reply = fresh.call(name, message)
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"] == JSON_TYPE
        assert int(reply.headers["content-length"]) == len(reply.body)
        return reply.json

    assert call("Plugin.Activate") == {"Implements": ["GraphDriver"]}
    assert call("GraphDriver.Init", {"Home": home, "Opts": ["a=b"], "UIDMaps": None}) == {}
    assert call("GraphDriver.Capabilities", {}) == {"Capabilities": {"ReproducesExactDiffs": False}}
    assert call("GraphDriver.Status", {}) == {"Status": [["Kept in", home]]}
    assert call("GraphDriver.Create", {"ID": "base"}) == {}
    assert fresh.apply("base", _tar(a="one", b="two")).json == {"Size": 6}
    assert call("GraphDriver.Exists", {"ID": "base"}) == {"Exists": True}
    assert call("GraphDriver.CreateReadWrite", {"ID": "top", "Parent": "base"}) == {}
    assert call("GraphDriver.Get", {"ID": "top"}) == {"Dir": f"{home}/top"}
    Path(home, "top", "c").write_text("three")
    os.unlink(f"{home}/top/a")
    assert call("GraphDriver.Put", {"ID": "top"}) == {}
    assert call("GraphDriver.GetMetadata", {"ID": "top"}) == {
        "Metadata": {"MergedDir": f"{home}/top"}
    }
    changes = call("GraphDriver.Changes", {"ID": "top", "Parent": "base"})["Changes"]
    assert {"Path": "/a", "Kind": 2} in changes
    assert {"Path": "/c", "Kind": 1} in changes
    assert call("GraphDriver.DiffSize", {"ID": "top", "Parent": "base"}) == {"Size": 5}
    diff = fresh.call("GraphDriver.Diff", {"ID": "top", "Parent": "base"})
    assert (diff.status, diff.whole) == (200, True)
    assert diff.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(diff.body)) as tar:
        names = tar.getnames()
    assert {"c", ".wh.a"} <= set(names)
    assert call("GraphDriver.Remove", {"ID": "top"}) == {}
    assert call("GraphDriver.Exists", {"ID": "top"}) == {"Exists": False}
    assert call("GraphDriver.Cleanup", {}) == {}


def test_create_passes_on_everything(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    plugin.call(
        "GraphDriver.CreateReadWrite",
        {"ID": "b", "Parent": "a", "MountLabel": "l", "StorageOpt": {"size": "1G"}},
    )
    driver = plugin.instance.driver()
    assert isinstance(driver, Driver)
    assert driver.created == [
        ("create", "a", None, CreateOptions("", {})),
        ("create_read_write", "b", "a", CreateOptions("l", {"size": "1G"})),
    ]
    assert plugin.call("GraphDriver.Get", {"ID": "b", "MountLabel": "x"}).json["Dir"].endswith("#x")


def test_changes_that_are_no_utf8_are_still_json(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Change(os.fsdecode(b"/\xff"), Kind.ADD)
    monkeypatch.setattr(Driver, "changes", lambda *arguments: [change], raising=False)
    reply = plugin.call("GraphDriver.Changes", {"ID": "a"})
    assert reply.json == {"Changes": [{"Path": "/\udcff", "Kind": 1}]}
    assert b"\\udcff" in reply.body


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in calls.ALL if path != calls.ACTIVATE])
def test_before_init_every_call_but_activate_says_so(fresh: Plugin, path: str) -> None:
    if path == calls.INIT:
        return
    if path == calls.APPLY_DIFF:
        reply = fresh.apply("a", _tar(a="x"))
    else:
        reply = fresh.server.call(path, {"ID": "a"})
    assert reply.status == 500
    assert reply.error == (
        "GraphDriver.Init has not been called on this plugin; restart the engine"
    )


_WITHOUT_FIELDS = {calls.ACTIVATE, calls.CAPABILITIES, calls.STATUS, calls.CLEANUP}


@pytest.mark.parametrize(
    "path", [path for path in calls.ALL if path not in _WITHOUT_FIELDS | {calls.APPLY_DIFF}]
)
def test_an_empty_body_is_refused_by_every_call_that_has_fields(plugin: Plugin, path: str) -> None:
    reply = plugin.server.call(path, b"")
    assert reply.status == 500
    assert "the request has no body" in reply.error


@pytest.mark.parametrize("path", sorted(_WITHOUT_FIELDS))
@pytest.mark.parametrize("body", [b"", b"{}\n", b"no JSON"])
def test_the_body_of_a_call_without_fields_is_ignored(
    plugin: Plugin, path: str, body: bytes
) -> None:
    assert plugin.server.call(path, body).status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"ID":"../x"}', b'{"ID":7}'])
def test_a_malformed_message_is_explained(plugin: Plugin, body: bytes) -> None:
    reply = plugin.server.call(calls.GET, body)
    assert reply.status == 500
    assert reply.headers["content-type"] == JSON_TYPE
    assert list(reply.json) == ["Err"]
    assert "expected" in reply.error or "malformed JSON" in reply.error


@pytest.mark.parametrize("path", ["/", "/GraphDriver.Frob", "/VolumeDriver.Get", "/x/%2e%2e"])
def test_an_unknown_call_is_answered_with_what_there_is(plugin: Plugin, path: str) -> None:
    reply = plugin.server.call(path, {})
    assert reply.status == 404
    assert reply.headers["content-type"] == JSON_TYPE
    assert reply.error.startswith("no such call: /")
    assert all(call[1:] in reply.error for call in calls.ALL)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_method_than_post_is_refused(plugin: Plugin, method: str) -> None:
    with plugin.server.wire() as wire:
        reply = wire.call(calls.GET, {"ID": "a"}, method)
    assert reply.status == 405
    assert reply.headers["content-type"] == JSON_TYPE
    assert reply.error == f"{method} /GraphDriver.Get: every call is a POST"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "id: missing"),
        ("?parent=a", "id: missing"),
        ("?id=&parent=", "id: missing"),
        ("?id=..%2fx&parent=", "id: expected an id of letters"),
        ("?id=a&parent=l", "parent: expected an id of letters"),
        ("?id=a&parent=a", "parent: layer 'a' cannot be its own parent"),
        ("?id=a&id=b", "id: given 2 times in the query"),
    ],
)
def test_a_layer_needs_proper_ids_in_the_query(plugin: Plugin, query: str, complaint: str) -> None:
    with plugin.server.wire() as wire:
        reply = wire.stream(calls.APPLY_DIFF + query, _tar(a="x"))
        assert reply.status == 500
        assert reply.error.startswith(complaint)
        assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200


# --- errors of drivers ----------------------------------------------------------------------------


def _get(plugin: Plugin, fault: BaseException) -> Reply:
    Driver.fault = fault
    with plugin.server.wire() as wire:
        reply = wire.call(calls.GET, {"ID": "4f" * 32})
        Driver.fault = None
        assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200, "the connection goes on"
    assert reply.status == 500
    assert reply.headers["content-type"] == JSON_TYPE
    return reply


def test_a_drivers_error_is_told_as_it_is_with_the_layer_in_front(plugin: Plugin) -> None:
    error = _get(plugin, DriverError("no room: \u00fc")).error
    assert error == "layer 4f4f4f4f4f4f: no room: \u00fc"
    named = "no layer 4f4f4f4f4f4f4f4f"
    assert _get(plugin, DriverError(named)).error == named


def test_a_system_error_names_the_layer_and_the_path(plugin: Plugin) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/h/diff")
    assert _get(plugin, error).error == ("layer 4f4f4f4f4f4f: No such file or directory: '/h/diff'")
    error = OSError(18, "Invalid cross-device link", b"/a", None, b"/b")
    assert _get(plugin, error).error == (
        "layer 4f4f4f4f4f4f: Invalid cross-device link: '/a' -> '/b'"
    )
    assert _get(plugin, OSError(28, "No space left on device")).error == (
        "layer 4f4f4f4f4f4f: No space left on device"
    )


@pytest.mark.parametrize(
    "fault",
    [KeyError("x"), OSError("odd"), MemoryError("x"), SystemExit(3), RecursionError("deep")],
)
def test_a_bug_is_an_internal_error_whose_traceback_is_in_the_log_alone(
    plugin: Plugin, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    reply = _get(plugin, fault)
    assert reply.error == (
        f"internal error in GraphDriver.Get: {type(fault).__name__}: {fault} (see the plugin's log)"
    )
    assert "Traceback" in caplog.text
    assert b"Traceback" not in reply.body
    assert b"<html" not in reply.body.lower()


def test_calls_are_logged_with_their_layer_and_time(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "manuka")
    plugin.call("GraphDriver.Exists", {"ID": "4f" * 32})
    (line,) = [line for line in caplog.messages if "Exists" in line]
    assert line.startswith("GraphDriver.Exists 4f4f4f4f4f4f: done in 0.")
    assert line.endswith(" ms")


# --- layers in and out ----------------------------------------------------------------------------


def test_a_layer_is_read_to_its_end_with_the_padding(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        tar = _tar(a="one") + bytes(1 << 20)
        assert wire.stream(calls.APPLY_DIFF + "?id=a&parent=", tar).json == {"Size": 3}
        assert wire.call(calls.EXISTS, {"ID": "a"}).json == {"Exists": True}


class _Lazy(Driver):
    """Reads almost nothing of a layer."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Stream) -> int:
        stream.readinto(bytearray(10))
        return 10


def test_what_a_driver_leaves_of_a_layer_is_read_before_the_reply(tmp_path: Path) -> None:
    instance = DriverInstance(_Lazy, None)
    with running(make_app(instance)) as server, server.wire() as wire:
        wire.call(calls.INIT, {"Home": str(tmp_path / "home")})
        wire.send(stream_head(calls.APPLY_DIFF + "?id=a&parent=") + chunk(bytes(1000000)))
        wire.sock.settimeout(0.3)
        with pytest.raises(socket.timeout):
            wire.sock.recv(1)
        wire.sock.settimeout(120)
        wire.send(b"0\r\n\r\n")
        assert wire.reply().json == {"Size": 10}
        wire.send(stream_head(calls.APPLY_DIFF + "?id=a&parent=") + chunk(bytes(1000000)))
        wire.sock.shutdown(socket.SHUT_WR)
        assert "broke the layer's stream off after 1000000 bytes" in wire.reply().error


@pytest.mark.parametrize("kept", [0, 1, 300, 512, 1024, 2047])
def test_a_layer_cut_off_anywhere_is_not_acknowledged(plugin: Plugin, kept: int) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        wire.send(stream_head(calls.APPLY_DIFF + "?id=a&parent="))
        if kept:
            wire.send(chunk(_tar(a="one")[:kept]))
        wire.sock.shutdown(socket.SHUT_WR)
        reply = wire.reply()
        assert reply.status == 500
        assert f"broke the layer's stream off after {kept} bytes" in reply.error


def test_an_error_about_a_layer_is_told_when_the_layer_has_been_sent(plugin: Plugin) -> None:
    """Engines that hear of it earlier repeat the call, or fall: see `make_app`."""
    plugin.call("GraphDriver.Create", {"ID": "a"})
    bad = _tar(**{"n" * 256: "name too long"})
    for target in ("?id=a&parent=", "?id=none&parent=", "?id=no/name&parent="):
        with plugin.server.wire() as wire:
            wire.send(stream_head(calls.APPLY_DIFF + target) + chunk(bad))
            wire.sock.settimeout(0.3)
            with pytest.raises(socket.timeout):
                wire.sock.recv(1)
            wire.sock.settimeout(120)
            wire.send(chunk(bytes(1 << 20)) + b"0\r\n\r\n")
            assert wire.reply().status == 500
            assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200


def _begin_layer(wire: Wire, head: bytes) -> None:
    target = (calls.APPLY_DIFF + "?id=a&parent=").encode()
    wire.send(b"POST %s HTTP/1.1\r\nHost: \r\n%s\r\n\r\n" % (target, head))


def test_a_layer_without_a_byte_that_ends_is_an_empty_layer(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        _begin_layer(wire, b"Transfer-Encoding: chunked")
        wire.send(b"0\r\n\r\n")
        assert wire.reply().json == {"Size": 0}
        assert wire.call(calls.EXISTS, {"ID": "a"}).json == {"Exists": True}


def test_a_layer_of_which_only_headers_come_is_cut_off(plugin: Plugin) -> None:
    """The retry of an engine, once it has sent the layer (moby#35459)."""
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        _begin_layer(wire, b"Transfer-Encoding: chunked")
        wire.sock.shutdown(socket.SHUT_WR)
        reply = wire.reply()
        assert reply.status == 500
        assert "broke the layer's stream off after 0 bytes" in reply.error


@pytest.mark.parametrize("head", [b"Content-Length: 0", b"X: y"])
def test_a_layer_without_a_body_is_refused(plugin: Plugin, head: bytes) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        _begin_layer(wire, head)
        reply = wire.reply()
        assert reply.status == 500
        assert "the request has no body" in reply.error


def test_a_driver_of_exact_diffs_takes_no_empty_layer(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines end the retry of a call to one, with nothing in it."""
    monkeypatch.setattr(Driver, "reproduces_exact_diffs", True, raising=False)
    plugin.call("GraphDriver.Create", {"ID": "a"})
    with plugin.server.wire() as wire:
        _begin_layer(wire, b"Transfer-Encoding: chunked")
        wire.send(b"0\r\n\r\n")
        reply = wire.reply()
        assert reply.status == 500
        assert "the layer's stream is empty" in reply.error


def test_a_diff_that_cannot_begin_is_an_ordinary_error(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> Iterator[bytes]:
        raise OSError(5, "Input/output error", "/h/a")
        yield b""

    monkeypatch.setattr(Driver, "diff", broken, raising=False)
    with plugin.server.wire() as wire:
        reply = wire.call(calls.DIFF, {"ID": "a"})
        assert reply.status == 500
        assert reply.error == "layer a: Input/output error: '/h/a'"
        assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200
    reply = plugin.call("GraphDriver.Diff", {"ID": "a", "Parent": "a"})
    assert reply.status == 500


def test_a_diff_without_a_byte_is_an_error(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "diff", lambda *arguments: iter([b"", b""]), raising=False)
    reply = plugin.call("GraphDriver.Diff", {"ID": "a"})
    assert reply.status == 500
    assert "the driver's diff gave no bytes" in reply.error


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), SystemExit(1)])
def test_a_diff_that_fails_half_way_is_broken_off_and_logged(
    plugin: Plugin,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: BaseException,
) -> None:
    def broken(*arguments: object) -> Iterator[bytes]:
        yield b"first"
        raise fault

    monkeypatch.setattr(Driver, "diff", broken, raising=False)
    with plugin.server.wire() as wire:
        reply = wire.call(calls.DIFF, {"ID": "a"})
        assert (reply.status, reply.body, reply.whole) == (200, b"first", False)
        assert wire.at_end()
    assert "GraphDriver.Diff a: " in caplog.text


def test_a_naive_diff_lets_go_of_its_mounts_when_the_engine_hangs_up(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()

    def endless(*arguments: object) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            closed.set()

    monkeypatch.setattr(Driver, "diff", endless, raising=False)
    with plugin.server.wire() as wire:
        wire.send(b"POST /GraphDriver.Diff HTTP/1.1\r\nContent-Length: 10\r\n\r\n" + b'{"ID":"a"}')
        wire.sock.recv(1000)
    assert closed.wait(60)


# --- init -----------------------------------------------------------------------------------------


def test_init_may_come_again(plugin: Plugin) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    message = {"Home": str(plugin.home), "Opts": ["x=y"]}
    assert plugin.call("GraphDriver.Init", message).status == 200
    assert plugin.instance.driver().settings.options == ("x=y",)
    assert plugin.call("GraphDriver.Exists", {"ID": "a"}).json == {"Exists": True}


def test_a_failed_init_says_why_and_changes_nothing(plugin: Plugin) -> None:
    message = {"Home": str(plugin.home), "Opts": ["folder.broken=yes"]}
    reply = plugin.call("GraphDriver.Init", message)
    assert reply.status == 500
    assert reply.error == "folder.broken is set, so there is no driver"
    assert plugin.call("GraphDriver.Status", {}).status == 200


def test_the_plugin_after_a_restart_needs_no_init(plugin: Plugin, tmp_path: Path) -> None:
    plugin.call("GraphDriver.Create", {"ID": "a"})
    again = DriverInstance(Driver, str(tmp_path / "run"))
    again.restore()
    with running(make_app(again)) as server:
        assert server.call(calls.EXISTS, {"ID": "a"}).json == {"Exists": True}
        assert json.loads((tmp_path / "run" / "init.json").read_text())["Home"] == str(plugin.home)
