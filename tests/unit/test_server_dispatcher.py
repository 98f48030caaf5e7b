"""Which thread serves a request, and how long it stays with a connection."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Dict, Iterable, List

import pytest

from manuka.api import calls
from manuka.server import channel
from tests.unit.wire import request, running


class Threads:
    """A WSGI application that notes which thread serves each request."""

    def __init__(self) -> None:
        self.names: List[str] = []

    def __call__(self, environ: Dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.names.append(threading.current_thread().name)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]


def test_the_calls_of_a_connection_are_served_by_the_thread_that_had_the_first() -> None:
    application = Threads()
    with running(application) as server, server.wire() as wire:
        for call in (calls.GET, calls.PUT, calls.REMOVE, calls.EXISTS) * 5:
            assert wire.call(call, {"ID": "a"}).status == 200
    assert len(application.names) == 20
    assert len(set(application.names)) == 1


def test_calls_sent_together_are_answered_in_order_by_the_thread_that_stays() -> None:
    application = Threads()
    with running(application) as server, server.wire() as wire:
        wire.send(request(calls.GET, {"ID": "a"}) * 50)
        assert [wire.reply().status for _ in range(50)] == [200] * 50
        assert wire.call(calls.GET, {"ID": "a"}).status == 200
    assert len(set(application.names)) == 1


def test_more_connections_than_threads_may_stay_with_are_served_alike() -> None:
    with running(Threads()) as server, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(100)]
        for _ in range(3):
            for wire in wires:
                assert wire.call(calls.GET, {"ID": "a"}).status == 200


def test_a_thread_leaves_a_connection_on_which_nothing_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "_STAY", 0.05)
    with running(Threads()) as server, server.wire() as wire:
        first, second = request(calls.GET, {"ID": "a"}), request(calls.PUT, {"ID": "a"})
        for sent in (first, second[:30]):
            wire.send(sent)
            left = threading.Event()
            left.wait(0.3)  # longer than a thread stays
        wire.send(second[30:] + first)
        assert [wire.reply().status for _ in range(3)] == [200] * 3


def test_a_peer_that_hangs_up_frees_the_thread_that_stayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "_STAY", 3600.0)  # so that no thread leaves by itself
    with running(Threads()) as server:
        kept = server.server.task_dispatcher._kept
        for _ in range(40):  # three times as many as there are threads
            with server.wire() as wire:
                assert wire.call(calls.GET, {"ID": "a"}).status == 200
                assert len(kept) == 1
            deadline = time.monotonic() + 60
            while kept:
                assert time.monotonic() < deadline, "the thread stays with nobody"
                time.sleep(0.001)


def test_a_peer_that_only_closes_its_sending_half_gets_its_reply() -> None:
    with running(Threads()) as server, server.wire() as wire:
        assert wire.call(calls.GET, {"ID": "a"}).status == 200
        wire.send(request(calls.PUT, {"ID": "a"}))
        wire.sock.shutdown(1)
        assert wire.reply().status == 200
        assert wire.at_end()


def test_more_connections_than_threads_may_stay_with_have_each_its_own_replies() -> None:
    def app(environ: Any, start_response: Any) -> List[bytes]:
        body: bytes = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def ask(number: int, wrong: List[str]) -> None:
        for turn in range(300):
            try:
                with plugin.wire() as wire:
                    for call in range(4):
                        sent = f"{number} {turn} {call}".encode()
                        reply = wire.call("/GraphDriver.Exists", sent)
                        if reply.body != sent:
                            wrong.append(f"{sent!r} was answered by {reply.body!r}")
            except (AssertionError, OSError) as error:
                wrong.append(repr(error))

    wrong: List[str] = []
    with running(app) as plugin:
        peers = [threading.Thread(target=ask, args=(n, wrong)) for n in range(14)]
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
    assert wrong == []
