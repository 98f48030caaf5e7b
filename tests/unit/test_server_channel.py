"""Waitress with live bodies and streamed replies, over real sockets."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from manuka.api import calls
from manuka.errors import ManukaError
from manuka.server import run, turns
from tests.unit.wire import Running, Wire, chunk, chunked, request, running, stream_head

APPLY = calls.APPLY_DIFF + "?id=a&parent="

Handler = Callable[[Dict[str, Any]], Any]


class Application:
    """A WSGI application of handlers by path; each gives a reply's body, or an iterator."""

    def __init__(self, handlers: Dict[str, Handler]) -> None:
        self.handlers = handlers

    def __call__(self, environ: Dict[str, Any], start_response: Any) -> Any:
        handler = self.handlers.get(environ["PATH_INFO"], lambda environ: b"{}")
        status = "200 OK"
        try:
            body = handler(environ)
        except ManukaError as error:
            status, body = "500 Internal Server Error", str(error).encode()
        if isinstance(body, bytes):
            start_response(status, [("Content-Length", str(len(body)))])
            return [body]
        start_response(status, [("Content-Type", "application/x-tar")])
        return body


def count(environ: Dict[str, Any]) -> bytes:
    """Read the body to its end and tell its size."""
    stream = environ["wsgi.input"]
    buffer = bytearray(1 << 18)
    total = 0
    size = stream.readinto(buffer)
    while size:
        total += size
        size = stream.readinto(buffer)
    return b"%d" % total


@pytest.fixture
def counting() -> Iterator[Running]:
    with running(Application({calls.APPLY_DIFF: count})) as server:
        yield server


def _resident_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def test_a_layer_is_read_while_the_engine_still_sends_it() -> None:
    started = threading.Event()

    def handler(environ: Dict[str, Any]) -> bytes:
        first = environ["wsgi.input"].read(5)
        started.set()
        return bytes(first + environ["wsgi.input"].read())

    with running(Application({calls.APPLY_DIFF: handler})) as server, server.wire() as wire:
        wire.send(stream_head(APPLY) + chunk(b"begin"))
        assert started.wait(60)
        wire.send(chunk(b"-end") + b"0\r\n\r\n")
        assert wire.reply().body == b"begin-end"


@pytest.mark.parametrize("size", [1, 7, 4096, 100000])
def test_a_layer_arrives_whole_in_chunks_of_any_size(counting: Running, size: int) -> None:
    with counting.wire() as wire:
        assert wire.stream(APPLY, bytes(100001), size).body == b"100001"


def test_a_head_that_arrives_byte_by_byte_begins_a_stream_too(counting: Running) -> None:
    with counting.wire() as wire:
        for byte in stream_head(APPLY) + chunked(b"abcdef", 4):
            wire.send(bytes([byte]))
        assert wire.reply().body == b"6"


def test_a_layer_may_come_with_a_content_length(counting: Running) -> None:
    with counting.wire() as wire:
        wire.send(request(APPLY, bytes(3 << 20)))
        assert wire.reply().body == b"%d" % (3 << 20)
        assert wire.call(calls.GET, {"ID": "a"}).status == 200


def test_a_layer_of_any_size_passes_in_little_memory(counting: Running) -> None:
    piece = chunk(bytes(32768)) * 32
    with counting.wire() as wire:
        wire.stream(APPLY, bytes(1 << 20))
        before = highest = _resident_kib()
        wire.send(stream_head(APPLY))
        for _ in range(300):
            wire.send(piece)
            highest = max(highest, _resident_kib())
        wire.send(b"0\r\n\r\n")
        assert wire.reply().body == b"%d" % (300 << 20)
    assert highest - before < 4096


def test_an_engine_faster_than_the_driver_has_to_wait() -> None:
    go_on = threading.Event()

    def handler(environ: Dict[str, Any]) -> bytes:
        go_on.wait(20)
        return count(environ)

    with running(Application({calls.APPLY_DIFF: handler})) as server, server.wire() as wire:
        wire.sock.settimeout(0.5)
        data = memoryview(stream_head(APPLY) + chunked(bytes(8 << 20)))
        sent = 0
        with contextlib.suppress(socket.timeout):
            while sent < len(data):
                sent += wire.sock.send(data[sent:])
        assert sent < 1 << 20
        go_on.set()
        wire.sock.settimeout(120)
        wire.send(bytes(data[sent:]))
        assert wire.reply().body == b"%d" % (8 << 20)


def test_the_connection_serves_the_next_call_after_a_layer(counting: Running) -> None:
    with counting.wire() as wire:
        for size in (10, 200000, 1):
            assert wire.stream(APPLY, bytes(size)).body == b"%d" % size
            assert wire.call(calls.EXISTS, {"ID": "a"}).body == b"{}"


def test_calls_sent_behind_a_layer_without_waiting_are_served_in_order(counting: Running) -> None:
    with counting.wire() as wire:
        wire.send(
            stream_head(APPLY)
            + chunked(b"x" * 11)
            + request(calls.GET, {"ID": "a"})
            + stream_head(APPLY)
            + chunked(b"x" * 70000, 999)
            + request(calls.GET, {"ID": "a"})
        )
        assert [wire.reply().body for _ in range(4)] == [b"11", b"{}", b"70000", b"{}"]


def test_a_call_that_arrived_in_part_with_the_layers_end_is_completed(counting: Running) -> None:
    call = request(calls.GET, {"ID": "a"})
    with counting.wire() as wire:
        wire.send(stream_head(APPLY) + chunked(b"xyz") + call[:40])
        assert wire.reply().body == b"3"
        wire.send(call[40:])
        assert wire.reply().body == b"{}"


def test_a_layer_cut_off_is_answered_with_an_error_and_a_closed_connection(
    counting: Running,
) -> None:
    with counting.wire() as wire:
        wire.send(stream_head(APPLY) + chunk(b"half a layer"))
        wire.sock.shutdown(socket.SHUT_WR)
        reply = wire.reply()
        assert reply.status == 500
        assert b"broke the layer's stream off after 12 bytes" in reply.body
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_an_error_is_answered_while_the_engine_still_sends() -> None:
    def handler(environ: Dict[str, Any]) -> bytes:
        environ["wsgi.input"].read(10)
        raise ManukaError("no room")

    with running(Application({calls.APPLY_DIFF: handler})) as server, server.wire() as wire:
        wire.send(stream_head(APPLY) + chunk(b"x" * 100))
        reply = wire.reply()
        assert (reply.status, reply.body) == (500, b"no room")
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_an_early_error_reaches_an_engine_that_sends_its_whole_layer_first() -> None:
    def refuse(environ: Dict[str, Any]) -> bytes:
        raise ManukaError("no room")

    with running(Application({calls.APPLY_DIFF: refuse})) as server, server.wire() as wire:
        wire.send(stream_head(APPLY))
        for _ in range(200):
            wire.send(chunk(b"x" * 100_000))
        wire.send(b"0\r\n\r\n")
        assert wire.reply().body == b"no room"
        assert wire.at_end()


def test_an_application_that_fails_on_a_layer_shows_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(environ: Dict[str, Any]) -> bytes:
        raise KeyError("secret")

    with running(Application({calls.APPLY_DIFF: handler})) as server, server.wire() as wire:
        wire.send(stream_head(APPLY) + chunk(b"x"))
        reply = wire.reply()
        assert reply.status == 500
        assert "unexpected internal server error" in reply.error
        assert b"secret" not in reply.body
        assert wire.at_end()


def test_expect_100_continue_is_honoured_for_a_layer(counting: Running) -> None:
    with counting.wire() as wire:
        wire.send(stream_head(APPLY).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert wire.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(chunked(b"abc"))
        assert wire.reply().body == b"3"


# --- replies that are streams ---------------------------------------------------------------------


def test_a_diff_is_sent_in_chunks_with_a_final_one() -> None:
    pieces = [b"a" * 10, b"", b"b" * 300000, b"c"]
    with running(Application({calls.DIFF: lambda environ: iter(pieces)})) as server:
        reply = server.call(calls.DIFF, {"ID": "a"})
        assert reply.headers["transfer-encoding"] == "chunked"
        assert reply.whole
        assert reply.body == b"".join(pieces)


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(5, "I/O error"), ManukaError("x")])
def test_a_diff_that_fails_half_way_has_no_final_chunk(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a" * 100000
        raise error

    with running(Application({calls.DIFF: lambda environ: pieces()})) as server:
        with server.wire() as wire:
            reply = wire.call(calls.DIFF, {"ID": "a"})
            assert reply.status == 200
            assert reply.body == b"a" * 100000
            assert not reply.whole
            assert wire.at_end()
    assert "Exception while serving /GraphDriver.Diff" in caplog.text


class Pieces:
    """An endless diff that knows how much was taken from it and when it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.taken += 1
        return bytes(65536)

    def close(self) -> None:
        self.closed.set()


def test_a_diff_ends_soon_after_the_engine_hung_up() -> None:
    pieces = Pieces()
    with running(Application({calls.DIFF: lambda environ: pieces})) as server:
        with server.wire() as wire:
            wire.send(request(calls.DIFF, {"ID": "a"}))
            wire.sock.recv(100000)
        assert pieces.closed.wait(60)


def test_a_diff_goes_no_faster_than_the_engine_reads() -> None:
    pieces = Pieces()
    with running(Application({calls.DIFF: lambda environ: pieces})) as server:
        with server.wire() as wire:
            wire.send(request(calls.DIFF, {"ID": "a"}))
            wire.sock.recv(1)
            time.sleep(0.3)
            taken = pieces.taken
            time.sleep(0.3)
            assert pieces.taken == taken < 40
        assert pieces.closed.wait(60)


def test_a_long_reply_to_a_json_call_arrives_whole() -> None:
    body = bytes(range(256)) * 40000
    with running(Application({calls.CHANGES: lambda environ: body})) as server:
        with server.wire() as wire:
            wire.send(request(calls.CHANGES, {"ID": "a"}))
            time.sleep(0.1)
            assert wire.reply().body == body
            assert wire.call(calls.EXISTS, {"ID": "a"}).body == b"{}"


# --- threads --------------------------------------------------------------------------------------


def test_forty_stuck_layers_and_diffs_do_not_delay_a_get() -> None:
    handlers: Dict[str, Handler] = {
        calls.APPLY_DIFF: count,
        calls.DIFF: lambda environ: Pieces(),
    }
    with running(Application(handlers)) as server:
        wires: List[Wire] = []
        for index in range(40):
            wire = server.wire()
            if index % 2:
                wire.send(request(calls.DIFF, {"ID": "a"}))
            else:
                wire.send(stream_head(APPLY) + chunk(b"x"))
            wires.append(wire)
        time.sleep(0.2)
        began = time.monotonic()
        for _ in range(20):
            assert server.call(calls.GET, {"ID": "a"}).status == 200
        assert time.monotonic() - began < 1
        for wire in wires[::2]:
            wire.send(b"0\r\n\r\n")
            assert wire.reply().body == b"1"
        for wire in wires:
            wire.sock.close()


# --- ordinary requests ----------------------------------------------------------------------------


def test_calls_that_wait_for_a_stuck_layer_do_not_delay_those_for_another() -> None:
    free = threading.Event()

    def get(environ: Dict[str, Any]) -> bytes:
        if b"stuck" in environ["wsgi.input"].read():
            free.wait(60)
        return b"{}"

    with running(Application({calls.GET: get})) as server, contextlib.ExitStack() as stack:
        stack.callback(free.set)
        stuck = [stack.enter_context(server.wire()) for _ in range(40)]
        for wire in stuck:
            wire.send(request(calls.GET, {"ID": "stuck"}))
        for _ in range(20):
            assert server.call(calls.GET, {"ID": "other"}).status == 200
        free.set()
        assert [wire.reply().status for wire in stuck] == [200] * 40


def test_a_body_of_an_ordinary_call_is_refused_beyond_its_limit(counting: Running) -> None:
    with counting.wire() as wire:
        wire.send(request(calls.GET, b" " * (calls.MESSAGE_LIMIT * 3)))
        reply = wire.reply()
        assert reply.status == 413
        assert "Request Entity Too Large: exceeds max_body of 1048577" in reply.error
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_the_largest_message_is_taken() -> None:
    def size(environ: Dict[str, Any]) -> bytes:
        return b"%d" % len(environ["wsgi.input"].read())

    with running(Application({calls.GET: size})) as server:
        reply = server.call(calls.GET, b" " * calls.MESSAGE_LIMIT)
        assert reply.body == b"%d" % calls.MESSAGE_LIMIT


@pytest.mark.parametrize(
    "head",
    [
        b"GARBAGE\r\n\r\n",
        b"POST /GraphDriver.Get HTTP/1.1\r\nBad Header\r\n\r\n",
        b"POST /GraphDriver.Get HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /GraphDriver.ApplyDiff HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400_and_no_traceback(
    counting: Running, head: bytes
) -> None:
    with counting.wire() as wire:
        wire.send(head)
        reply = wire.reply()
        assert reply.status == 400
        assert reply.error.startswith("Bad Request: ")
        assert b"Traceback" not in reply.body
        assert wire.at_end()


def test_an_unknown_transfer_encoding_is_refused(counting: Running) -> None:
    with counting.wire() as wire:
        wire.send(stream_head(APPLY).replace(b"chunked", b"gzip, chunked"))
        assert wire.reply().status == 501
        assert wire.at_end()


def test_a_call_that_outlives_the_server_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_SHORT_CALLS_GRACE", 0.1)
    monkeypatch.setattr(run, "_STREAMS_GRACE", 0.1)
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def handler(environ: Dict[str, Any]) -> bytes:
        began.set()
        may_end.wait(60)
        ended.set()
        return b"{}"

    with running(Application({calls.GET: handler})) as server, server.wire() as wire:
        wire.send(request(calls.GET, b"{}"))
        assert began.wait(60)
        server.stop()
        assert server.server.trigger._fds == []
        server.server.pull_trigger()  # as the thread does when it is done
        may_end.set()
        assert ended.wait(60)


def test_an_idle_connection_is_kept_for_months(counting: Running) -> None:
    with counting.wire() as wire:
        assert wire.call(calls.GET, {"ID": "a"}).status == 200
        counting.server.maintenance(time.time() + 90 * 86400)
        counting.server.pull_trigger()
        time.sleep(0.1)
        assert wire.call(calls.GET, {"ID": "a"}).status == 200


def test_an_empty_host_and_no_content_type_are_fine() -> None:
    seen: Dict[str, Any] = {}

    def handler(environ: Dict[str, Any]) -> bytes:
        seen.update(environ)
        return b"{}"

    with running(Application({calls.GET: handler})) as server:
        assert server.call(calls.GET, {"ID": "a"}).status == 200
    assert seen["HTTP_HOST"] == ""
    assert "CONTENT_TYPE" not in seen


def test_twelve_hundred_connections_are_served(counting: Running) -> None:
    wires = [counting.wire() for _ in range(1200)]
    try:
        assert wires[-1].call(calls.GET, {"ID": "a"}).status == 200
        assert wires[0].call(calls.GET, {"ID": "a"}).status == 200
    finally:
        for wire in wires:
            wire.sock.close()


def test_parallel_streams_do_not_mix(counting: Running) -> None:
    results: List[bytes] = []

    def apply(size: int) -> None:
        with counting.wire() as wire:
            results.append(wire.stream(APPLY, bytes(size), 1000).body)

    threads = [threading.Thread(target=apply, args=(100000 + n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [b"%d" % (100000 + n) for n in range(12)]


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_answers_the_call_that_is_being_served() -> None:
    entered = threading.Event()

    def handler(environ: Dict[str, Any]) -> bytes:
        entered.set()
        time.sleep(0.4)
        return b"done"

    with running(Application({calls.GET: handler})) as server, server.wire() as wire:
        wire.send(request(calls.GET, {"ID": "a"}))
        assert entered.wait(60)
        server.server.stop()
        assert wire.reply().body == b"done"
        assert wire.at_end()
        server.stop()


def test_a_stop_breaks_streams_off_at_once() -> None:
    cut_off: List[str] = []

    def apply(environ: Dict[str, Any]) -> bytes:
        try:
            return count(environ)
        except ManukaError as error:
            cut_off.append(str(error))
            raise

    pieces = Pieces()
    handlers: Dict[str, Handler] = {calls.APPLY_DIFF: apply, calls.DIFF: lambda environ: pieces}
    with running(Application(handlers)) as server, server.wire() as into, server.wire() as out:
        into.send(stream_head(APPLY) + chunk(b"x"))
        out.send(request(calls.DIFF, {"ID": "a"}))
        out.sock.recv(1)
        time.sleep(0.2)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.5
        assert len(cut_off) == 1
        assert pieces.closed.is_set()
        assert not os.path.exists(server.path)


def test_a_stop_hangs_up_idle_connections(counting: Running) -> None:
    with counting.wire() as wire:
        assert wire.call(calls.GET, {"ID": "a"}).status == 200
        counting.stop()
        assert wire.at_end()


def test_wsgi_input_of_an_ordinary_call_is_a_plain_file(counting: Running) -> None:
    kinds: List[bool] = []

    def handler(environ: Dict[str, Any]) -> bytes:
        kinds.append(isinstance(environ["wsgi.input"], io.BytesIO))
        return b"{}"

    with running(Application({calls.GET: handler})) as server:
        server.call(calls.GET, {"ID": "a"})
    assert kinds == [True]


def test_waitress_logs_nothing_at_start_and_stop(
    counting: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counting.stop()
    assert caplog.messages == []


# --- turns ---------------------------------------------------------------------------------------


def test_one_stream_is_worked_on_at_a_time_and_other_calls_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 60.0)
    at_work: List[str] = []
    most: List[int] = []
    go_on = threading.Event()

    def handler(environ: Dict[str, Any]) -> bytes:
        count(environ)
        at_work.append(environ["QUERY_STRING"])
        most.append(len(at_work))
        go_on.wait(20)
        at_work.remove(environ["QUERY_STRING"])
        return b"done"

    application = Application({calls.APPLY_DIFF: handler})
    with running(application) as server, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(3)]
        for number, wire in enumerate(wires):
            wire.send(stream_head(f"{calls.APPLY_DIFF}?id={number}") + chunked(b"layer"))
        with server.wire() as other:
            for _ in range(20):
                assert other.call(calls.EXISTS, {"ID": "a"}).status == 200
        go_on.set()
        assert [wire.reply().body for wire in wires] == [b"done"] * 3
    assert most == [1, 1, 1]
