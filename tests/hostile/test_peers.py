"""Peers that are slow, stuck, or send what is no request: the others do not notice them."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from manuka.server.sockets import listen
from tests.hostile.plugin import Plugin, served
from tests.hostile.tars import ROWS, Refused, lower
from tests.layertar import LayerTar
from tests.unit.mounts import needs_root
from tests.unit.wire import Wire, chunk, chunked, request, stream_head

pytestmark = needs_root

GET = "/GraphDriver.Get"
EXISTS = "/GraphDriver.Exists"
APPLY = "/GraphDriver.ApplyDiff?id={}&parent="
MOST_MEMORY = 80 << 20


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Iterator[Plugin]:
    with served(tmp_path_factory.mktemp("peers")) as plugin:
        yield plugin


def layer(plugin: Plugin, name: str, parent: str = "") -> str:
    message = {"ID": name, **({"Parent": parent} if parent else {})}
    assert plugin.call("Create", message).json == {}
    return name


def mounts_work(plugin: Plugin, name: str) -> None:
    """Get and Put, as for containers that start and stop."""
    for _ in range(20):
        assert "Dir" in plugin.call("Get", {"ID": name}).json
        assert plugin.call("Put", {"ID": name}).json == {}


# --- who may speak --------------------------------------------------------------------------------

CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def test_nobody_but_root_can_connect(plugin: Plugin) -> None:
    assert stat.S_IMODE(os.stat(plugin.socket).st_mode) == 0o600
    folder = os.path.dirname(plugin.socket)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    result = connected_as_nobody(plugin.socket)
    assert "PermissionError" in result.stderr


def test_nobody_but_root_can_connect_in_a_folder_open_to_all(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    opened = tmp_path.parents[0]
    modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in (opened, *opened.parents)}
    for path in modes:
        os.chmod(path, modes[path] | 0o011)
    listener = listen(str(tmp_path / "plugin.sock"))
    try:
        assert "PermissionError" in connected_as_nobody(str(tmp_path / "plugin.sock")).stderr
    finally:
        listener.close()
        for path in modes:
            os.chmod(path, modes[path])


def connected_as_nobody(path: str) -> subprocess.CompletedProcess:
    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    return subprocess.run(
        ["/usr/bin/env", "python3", "-c", CONNECT, path],
        preexec_fn=become_nobody,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
    )


# --- stuck peers ----------------------------------------------------------------------------------


def stuck_requests(name: str) -> List[bytes]:
    """What a peer has sent when it sends no more."""
    apply = stream_head(APPLY.format(name))
    return [
        b"",
        b"P",
        b"POST /GraphDriver.Get HTTP/1.1\r\nHost: \r\n",
        b"POST /GraphDriver.Get HTTP/1.1\r\nContent-Length: 50\r\n\r\n",
        request(GET, {"ID": name})[:-3],
        stream_head(GET) + b"5",
        stream_head(GET) + b"ffff\r\n{",
        apply,
        apply + b"1",
        apply + b"200\r\n",
        apply + chunk(LayerTar().file("f", bytes(2000)).bytes()[:1000]),
        apply + chunk(LayerTar().file("f").bytes()) + b"0\r\n",
        request("/GraphDriver.Diff", {"ID": "large"}),
        request("/GraphDriver.Status", {}) * 300,
    ]


def test_32_stuck_peers_and_3_layers_on_their_way_keep_nobody_waiting(plugin: Plugin) -> None:
    layer(plugin, "below")
    layer(plugin, "container", "below")
    layer(plugin, "large")
    with plugin.wire() as wire:
        assert "Size" in wire.stream(APPLY.format("large"), large()).json
    assert plugin.settles_at(plugin.threads, plugin.descriptors)
    threads, descriptors = plugin.threads, plugin.descriptors
    with contextlib.ExitStack() as peers:
        for number in range(32):
            name = layer(plugin, f"stuck-{number}")
            wire = peers.enter_context(plugin.wire())
            sent = stuck_requests(name)
            wire.send(sent[number % len(sent)])
        sending = Sending(plugin, 3)
        mounts_work(plugin, "container")
        sending.end()
        mounts_work(plugin, "container")
    assert plugin.settles_at(threads, descriptors)
    for number in range(32):
        assert plugin.call("Remove", {"ID": f"stuck-{number}"}).json == {}


def large() -> bytes:
    return LayerTar().file("large", os.urandom(8 << 20)).bytes()


class Sending:
    """Layers that are sent without an end, until `end`."""

    def __init__(self, plugin: Plugin, count: int) -> None:
        self._over = threading.Event()
        self.errors: List[str] = []
        self._threads = [
            threading.Thread(target=self._send, args=(plugin, layer(plugin, f"sent-{number}")))
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert self.errors == []

    def _send(self, plugin: Plugin, name: str) -> None:
        with plugin.wire() as wire:
            wire.sock.settimeout(60)
            wire.send(stream_head(APPLY.format(name)))
            number = 0
            while not self._over.is_set():
                tar = LayerTar()
                for _ in range(50):
                    tar.file(f"d/{number % 5000}", bytes(100))
                    number += 1
                wire.send(chunk(tar.bytes()[:-1024]))
            wire.send(chunk(bytes(1024)) + b"0\r\n\r\n")
            reply = wire.reply()
            if reply.status != 200:
                self.errors.append(reply.error)
        plugin.call("Remove", {"ID": name})


def test_a_peer_that_sends_a_byte_at_a_time_is_answered_and_delays_nobody(plugin: Plugin) -> None:
    layer(plugin, "slow")
    sent = stream_head(APPLY.format("slow")) + chunked(LayerTar().file("f", b"x").bytes(), 700)
    with plugin.wire() as wire:
        for at in range(len(sent)):
            wire.send(sent[at : at + 1])
            if at % 200 == 0:
                assert plugin.call("Exists", {"ID": "slow"}).json == {"Exists": True}
        assert wire.reply().json == {"Size": 1}


def test_forty_connections_that_break_off_in_the_middle_leave_nothing(plugin: Plugin) -> None:
    layer(plugin, "first")  # the pool is up when a call has been answered
    time.sleep(1)
    threads, descriptors = plugin.threads, plugin.descriptors
    for number in range(40):
        name = layer(plugin, f"broken-{number}")
        with plugin.wire() as wire:
            wire.send(stream_head(APPLY.format(name)) + b"3000\r\n" + bytes(512))
    assert plugin.settles_at(threads, descriptors)
    for number in range(40):
        # One whose connection was gone before it was looked at has not been begun.
        reply = plugin.call("Get", {"ID": f"broken-{number}"}).json
        assert "not whole" in reply.get("Err", "not whole")
        assert plugin.call("Remove", {"ID": f"broken-{number}"}).json == {}


def test_more_peers_are_served_than_a_shell_lets_a_process_have_open_files(tmp_path) -> None:
    def like_a_shell() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))

    with served(tmp_path, preexec_fn=like_a_shell) as plugin, contextlib.ExitStack() as peers:
        for _ in range(200):
            peers.enter_context(plugin.wire()).send(b"POST /")
        assert "Err" not in plugin.call("Status", {}).json


def test_thousands_of_requests_on_one_connection_are_answered_in_order(plugin: Plugin) -> None:
    layer(plugin, "there")
    with plugin.wire() as wire:
        wire.sock.settimeout(120)
        calls = [request(EXISTS, {"ID": "there" if n % 3 else "gone"}) for n in range(3000)]
        sender = threading.Thread(target=wire.send, args=(b"".join(calls),))
        sender.start()
        for number in range(3000):
            assert wire.reply().json == {"Exists": bool(number % 3)}
        sender.join()


# --- what is no proper request --------------------------------------------------------------------

BODY = b'{"ID":"x"}'
HIDDEN = b"POST /GraphDriver.Evil HTTP/1.1\r\n\r\n"


def head(*lines: bytes, first: bytes = b"POST /GraphDriver.Exists HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: ", *lines, b"", b""])


#: What is sent before the peer ends, and the status of each reply.  Where the request is not seen
#: to have an end there is none.  A request within a body never has one of its own.
FORMS: List[Tuple[str, bytes, List[int]]] = [
    ("a body of one length", head(b"Content-Length: 10") + BODY, [200]),
    ("the same length twice", head(b"Content-Length: 10", b"Content-Length: 10") + BODY, [400]),
    ("two lengths", head(b"Content-Length: 10", b"Content-Length: 0") + BODY, [400]),
    ("two lengths in one", head(b"Content-Length: 10, 0") + BODY, [400]),
    ("a length with a sign", head(b"Content-Length: +10") + BODY, [400]),
    ("a length in words", head(b"Content-Length: ten") + BODY, [400]),
    ("a length with blanks in it", head(b"Content-Length: 1 0") + BODY, [400]),
    ("a folded length", head(b"Content-Length: 1\r\n 0") + BODY, [400]),
    ("a blank before the colon", head(b"Content-Length : 10") + BODY, [400]),
    ("bare line feeds", head(b"Content-Length: 10").replace(b"\r\n", b"\n") + BODY, []),
    ("one bare line feed", head(b"A: b\nContent-Length: 10") + BODY, [400]),
    ("a NUL in a header", head(b"A: b\0", b"Content-Length: 10") + BODY, [400]),
    ("a header without a name", head(b": b", b"Content-Length: 10") + BODY, [400]),
    ("chunked", head(b"Transfer-Encoding: chunked") + chunked(BODY), [200]),
    ("chunked in capitals", head(b"transfer-encoding: CHUNKED") + chunked(BODY), [200]),
    ("chunked by another name", head(b"Transfer-Encoding: xchunked") + chunked(BODY), [501]),
    ("chunked and more", head(b"Transfer-Encoding: chunked, gzip") + chunked(BODY), [501]),
    ("a tab in chunked", head(b"Transfer-Encoding: chun\tked") + chunked(BODY), [501]),
    (
        "chunks and a length that ends before them",
        head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + chunked(BODY + HIDDEN),
        [500],
    ),
    (
        "a request in a body",
        head(b"Content-Length: %d" % len(BODY + HIDDEN)) + BODY + HIDDEN,
        [500],
    ),
    (
        "chunk extensions",
        head(b"Transfer-Encoding: chunked") + b'a;x="\r\n' + BODY + b"\r\n0\r\n\r\n",
        [400],
    ),
    (
        "a chunk's size with a sign",
        head(b"Transfer-Encoding: chunked") + b"+a\r\n" + BODY + b"\r\n0\r\n\r\n",
        [400],
    ),
    (
        "a chunk's size in another notation",
        head(b"Transfer-Encoding: chunked") + b"0xa\r\n" + BODY + b"\r\n0\r\n\r\n",
        [400],
    ),
    (
        "a chunk's size of 20 digits",
        head(b"Transfer-Encoding: chunked") + b"f" * 20 + b"\r\n",
        [],
    ),
    (
        "a chunk that is longer than its size",
        head(b"Transfer-Encoding: chunked") + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
        [400],
    ),
    (
        "a body for a call that has none",
        head(b"Content-Length: %d" % len(HIDDEN), first=b"POST /Plugin.Activate HTTP/1.1") + HIDDEN,
        [200],
    ),
    (
        "a body for a GET",
        head(b"Content-Length: 10", first=b"GET /GraphDriver.Exists HTTP/1.1") + BODY,
        [405],
    ),
    (
        "an unknown version",
        head(b"Content-Length: 10", first=b"POST /GraphDriver.Exists HTTP/9.9") + BODY,
        [200],
    ),
    ("a header of 300,000 bytes", head(b"A: " + b"b" * 300_000), [431]),
    ("a hundred thousand headers", head(*[b"A: b"] * 100_000), [431]),
    ("a line without an end", b"POST /" + b"x" * 300_000, [431]),
    (
        "dots in the path",
        head(b"Content-Length: 10", first=b"POST /../GraphDriver.Exists HTTP/1.1") + BODY,
        [404],
    ),
    (
        "an absolute target",
        head(b"Content-Length: 10", first=b"POST http://x/GraphDriver.Exists HTTP/1.1") + BODY,
        [200],
    ),
]


@pytest.mark.parametrize(
    ("sent", "statuses"), [form[1:] for form in FORMS], ids=[f[0] for f in FORMS]
)
def test_each_form_of_a_request_is_read_in_one_way_only(plugin, sent, statuses) -> None:
    with plugin.wire() as wire:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(sent)
            wire.sock.shutdown(socket.SHUT_WR)
        assert replies_of(wire) == statuses


def replies_of(wire: Wire) -> List[int]:
    """The status of each reply until the plugin hangs up."""
    found = []
    while not wire.at_end():
        reply = wire.reply()
        assert b"Traceback" not in reply.body
        found.append(reply.status)
    return found


MESSAGES = [
    b'{"ID":"\xff\xfe"}',
    b"[" * 100_000,
    b'{"ID":' * 100_000,
    b'{"ID":' + b"9" * 1_000_000 + b"}",
    b'{"ID":1e999999999}',
    b'{"ID":"' + b"\\ud800" * 1000 + b'"}',
    b'{"ID":"../../etc"}',
    b'{"ID":"x","ID":"../x"}',
    b"\0" * 1000,
    b'{"ID":"x\\u0000"}',
    b'{"ID":{"ID":"x"}}',
    b"{" + b'"k":1,' * 100_000 + b'"ID":""}',
]


@pytest.mark.parametrize("message", MESSAGES, ids=[repr(m[:20]) for m in MESSAGES])
def test_a_message_that_means_harm_is_refused_in_one_line(plugin: Plugin, message: bytes) -> None:
    reply = plugin.call("Get", message)
    assert reply.status == 500
    assert reply.error.isprintable()
    assert len(reply.error) < 500
    assert "internal" not in reply.error


# --- hostile tars, as an engine would pass them on ------------------------------------------------


def test_every_hostile_tar_is_answered_by_a_plugin_that_stays_small(plugin: Plugin) -> None:
    outside = "/nowhere/outside"
    layer(plugin, "lower")
    with plugin.wire() as wire:
        assert "Size" in wire.stream(APPLY.format("lower"), lower(outside).bytes()).json
        for number, row in enumerate(ROWS):
            name = layer(plugin, f"row-{number}", "lower")
            reply = wire.stream(APPLY.format(name) + "lower", row.tar(outside))
            if isinstance(row.comes_out, Refused):
                assert reply.status == 500, row.name
                text = row.comes_out.text.replace("OUT", outside.lstrip("/"))
                assert f": {text}" in f": {reply.error}", row.name
            else:
                assert "Size" in reply.json, row.name
            if reply.headers.get("connection") == "close":
                wire = plugin.wire()
            assert plugin.call("Remove", {"ID": name}).json == {}
    wire.sock.close()
    assert plugin.process.poll() is None
    assert plugin.peak_memory < MOST_MEMORY
