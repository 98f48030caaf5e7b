"""The body that is read while it arrives, on a real pair of sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Iterator, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manuka.server.body import BodyCutOff, BodyError, LiveBody, NoBody
from manuka.server.turns import Turn, Turns
from tests.unit.wire import chunk, chunked

Pair = Tuple[socket.socket, socket.socket]


def _pair() -> Pair:
    engine, plugin = socket.socketpair()
    plugin.setblocking(False)
    engine.settimeout(120)
    return engine, plugin


@pytest.fixture
def pair() -> Iterator[Pair]:
    engine, plugin = _pair()
    with engine, plugin:
        yield engine, plugin


def _body_of(pair: Pair, wire: bytes, length: Optional[int] = None) -> LiveBody:
    """A body that `wire` is sent for, after which the engine hangs up."""
    engine, plugin = pair
    threading.Thread(target=_send_and_close, args=(engine, wire), daemon=True).start()
    return LiveBody(plugin, b"", length, Turn(Turns()))


def _send_and_close(engine: socket.socket, wire: bytes) -> None:
    with contextlib.suppress(OSError):  # the test may be through before
        engine.sendall(wire)
        engine.shutdown(socket.SHUT_WR)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(min_size=1, max_size=5000),
    st.lists(st.integers(1, 900), min_size=1, max_size=20),
    st.lists(st.integers(1, 300), min_size=1, max_size=20),
    st.lists(st.integers(1, 700), min_size=1, max_size=20),
    st.integers(0, 6000),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    data: bytes, chunks: List[int], packets: List[int], reads: List[int], begun: int
) -> None:
    wire = b"".join(chunk(piece) for piece in _cut(data, chunks)) + b"0\r\n\r\nNEXT"
    engine, plugin = _pair()

    def send() -> None:
        for packet in _cut(wire[begun:], packets):
            engine.sendall(packet)

    with engine, plugin:
        sender = threading.Thread(target=send)
        sender.start()
        body = LiveBody(plugin, wire[:begun], None, Turn(Turns()))
        assert b"".join(_read_all(body, reads)) == data
        assert body.complete
        assert body.received == len(data)
        sender.join()
        rest = body.leftover()
        engine.shutdown(socket.SHUT_WR)
        assert rest + plugin.recv(100) == b"NEXT"


def _cut(data: bytes, sizes: List[int]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        for size in sizes:
            if at < len(data):
                yield data[at : at + size]
                at += size


def _read_all(body: LiveBody, sizes: List[int]) -> Iterator[bytes]:
    while True:
        for size in sizes:
            buffer = bytearray(size)
            count = body.readinto(buffer)
            if count == 0:
                return
            yield bytes(buffer[:count])


def test_a_body_with_a_content_length_ends_with_its_last_byte(pair: Pair) -> None:
    body = _body_of(pair, b"x" * 1000 + b"NEXT", 1000)
    assert body.read() == b"x" * 1000
    assert body.complete
    assert body.leftover() == b"NEXT"


def test_large_chunks_are_received_whole(pair: Pair) -> None:
    data = bytes(range(256)) * 40000
    body = _body_of(pair, chunk(data[:9000000]) + chunk(data[9000000:]) + b"0\r\n\r\n")
    buffer = bytearray(1 << 20)
    found = bytearray()
    count = body.readinto(buffer)
    while count:
        found += buffer[:count]
        count = body.readinto(buffer)
    assert found == data


def test_one_read_takes_all_the_chunks_that_have_arrived(pair: Pair) -> None:
    engine, plugin = pair
    engine.sendall(chunk(b"a" * 100) + chunk(b"b" * 100) + chunk(b"c" * 100))
    body = LiveBody(plugin, b"", None, Turn(Turns()))
    assert body.readinto(bytearray(1000)) == 300


def test_what_has_arrived_is_given_without_waiting_for_more(pair: Pair) -> None:
    engine, plugin = pair
    body = LiveBody(plugin, b"", None, Turn(Turns()))
    for wire in (b"5\r\nhello", b"\r\n", b"5", b"\r\nworld\r\n"):
        engine.sendall(wire)
        if wire.endswith((b"hello", b"world\r\n")):
            assert body.read(100) in (b"hello", b"world")


@pytest.mark.parametrize("size", [1, 5, 6, 7, 1000])
def test_small_chunks_are_read_up_to_the_last_and_not_what_looks_like_one(
    pair: Pair, size: int
) -> None:
    begun = chunk(b"ab") + chunk(b"cde") + chunk(b"f") + b"0\r\n\r\n" + b"\r\n3\r\nXYZ"
    body = LiveBody(pair[1], begun, None, Turn(Turns()))
    assert b"".join(iter(lambda: body.read(size), b"")) == b"abcdef"
    assert (body.received, body.complete) == (6, True)
    assert body.leftover() == b"\r\n3\r\nXYZ"


def test_extensions_and_trailers_of_chunks_are_skipped(pair: Pair) -> None:
    wire = b'3;name="v"\r\nabc\r\n00 ;x\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\nNEXT'
    body = _body_of(pair, wire)
    assert body.read() == b"abc"
    assert body.leftover() == b"NEXT"


_WIRE = chunk(b"a" * 40) + chunk(b"b" * 40) + b"0\r\n\r\n"


@pytest.mark.parametrize("kept", range(len(_WIRE)))
def test_a_body_cut_off_at_any_byte_is_never_an_end(pair: Pair, kept: int) -> None:
    body = _body_of(pair, _WIRE[:kept])
    with pytest.raises(BodyCutOff, match=r"broke the layer's stream off after \d+ bytes"):
        body.read()
    with pytest.raises(BodyCutOff):
        body.read(1)
    assert not body.complete


@pytest.mark.parametrize("kept", [0, 1, 99])
def test_a_body_shorter_than_its_content_length_is_cut_off(pair: Pair, kept: int) -> None:
    body = _body_of(pair, b"x" * kept, 100)
    with pytest.raises(BodyCutOff, match=f"after {kept} bytes"):
        body.read()


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        (b"g\r\nabc\r\n", "malformed chunk size.*'g'"),
        (b"-3\r\nabc\r\n", "malformed chunk size"),
        (b"0x3\r\nabc\r\n", "malformed chunk size"),
        (b"+3\r\nabc\r\n", "malformed chunk size"),
        (b"3_0\r\nabc\r\n", "malformed chunk size"),
        (b"\r\nabc\r\n", "malformed chunk size"),
        (b"1" * 16 + b"\r\nabc\r\n", "malformed chunk size"),
        (b"3\nabc\r\n", "malformed line end"),
        (b"3\r\nabcd\r\n", "longer than its size|no line end"),
        (b"3\r\nabcxx\r\n0\r\n\r\n", "longer than its size|no line end"),
        (b"1" * 5000, "no line end within 4096 bytes"),
        (b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 20000, "more than 65536 bytes follow"),
    ],
)
def test_malformed_chunks_are_refused(pair: Pair, wire: bytes, complaint: str) -> None:
    body = _body_of(pair, wire)
    with pytest.raises(BodyError, match=complaint):
        body.read()
    with pytest.raises(BodyError, match=complaint):
        body.read(1)
    assert not body.complete


@pytest.mark.parametrize("wire", [b"0\r\n\r\n", b"000;x\r\nX-Sum: 1\r\n\r\n"])
def test_a_body_that_ends_without_a_byte_is_an_empty_one(pair: Pair, wire: bytes) -> None:
    body = _body_of(pair, wire + b"NEXT")
    assert body.read() == b""
    assert body.read(1) == b""
    assert (body.received, body.complete, body.leftover()) == (0, True, b"NEXT")


def test_a_request_that_says_it_has_no_body_is_refused(pair: Pair) -> None:
    body = _body_of(pair, b"NEXT", 0)
    for _ in range(2):
        with pytest.raises(NoBody, match="the request has no body"):
            body.read()


def test_a_reader_that_waits_ends_when_the_connection_is_shut_down(pair: Pair) -> None:
    _, plugin = pair
    body = LiveBody(plugin, b"3\r\nabc\r\n", None, Turn(Turns()))
    assert body.read(3) == b"abc"
    threading.Timer(0.2, plugin.shutdown, (socket.SHUT_RDWR,)).start()
    began = time.monotonic()
    with pytest.raises(BodyCutOff, match="after 3 bytes"):
        body.read(3)
    assert time.monotonic() - began < 2


def test_nothing_is_read_ahead_beyond_one_buffer(pair: Pair) -> None:
    engine, plugin = pair
    body = LiveBody(plugin, b"", None, Turn(Turns()))
    engine.settimeout(0.5)
    wire = memoryview(chunked(bytes(4 << 20)))
    sent = 0
    with contextlib.suppress(socket.timeout):
        while sent < len(wire):
            sent += engine.send(wire[sent:])
            if sent < 1000:
                body.read(1)
    assert sent < 1 << 20
