"""Threads that stay with a connection: each request is read once, and answered."""

from __future__ import annotations

import time
from typing import Any, List

import pytest
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.task import Task  # type: ignore[import-untyped]

from manuka.api import calls
from manuka.server import channel
from manuka.server.channel import Channel
from tests.unit.wire import Running, Wire, request, running


def application(environ: Any, start_response: Any) -> List[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]


def with_thread(server: Running, wire: Wire) -> Channel:
    """The server's side of `wire`, with which a thread stays."""
    assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200
    (found,) = server.server.active_channels.values()
    assert isinstance(found, Channel)
    deadline = time.monotonic() + 60
    while found.requests and time.monotonic() < deadline:
        time.sleep(0.001)
    assert found.kept
    return found


def test_the_main_loop_does_not_read_where_a_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    whether_kept: List[bool] = []
    readable, handle_read = HTTPChannel.readable, HTTPChannel.handle_read

    def slowly(self: Channel) -> bool:
        time.sleep(0.01)  # in which a thread may come, serve the request, and stay
        return bool(readable(self))

    def watched(self: Channel) -> None:
        whether_kept.append(self.kept)
        handle_read(self)

    monkeypatch.setattr(HTTPChannel, "readable", slowly)
    monkeypatch.setattr(HTTPChannel, "handle_read", watched)
    with running(application) as server:
        for _ in range(10):
            with server.wire() as wire:
                for _ in range(3):
                    assert wire.call(calls.EXISTS, {"ID": "a"}).status == 200
                    time.sleep(0.03)  # for the main loop to look at the connection again
    assert False in whether_kept  # each connection's first one
    assert True not in whether_kept


def test_what_came_while_a_thread_stayed_is_served_after_it_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "_STAY", 1.0)
    with running(application) as server, server.wire() as wire:
        # As if somebody else had read it, for the thread looks at the socket.
        with_thread(server, wire).received(request(calls.EXISTS, {"ID": "b"}))
        assert wire.reply().status == 200


def test_a_thread_that_leaves_takes_no_place_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_STAY", 0.5)
    with running(application) as server, server.wire() as wire:
        for _ in range(3):
            kept = with_thread(server, wire)
            deadline = time.monotonic() + 60
            while kept.kept and time.monotonic() < deadline:
                time.sleep(0.01)
        assert not server.server.task_dispatcher._kept


@pytest.mark.parametrize("path", [calls.EXISTS, calls.DIFF])  # a thread of the pool, and its own
def test_a_server_that_fails_hangs_up_and_lets_nobody_wait(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Task) -> bytes:
        raise MemoryError

    with running(application) as server, server.wire() as wire:
        with monkeypatch.context() as failing:
            failing.setattr(Task, "build_response_header", fail)  # of an error's reply, too
            wire.send(request(path, {"ID": "a"}))
            assert wire.at_end()
        assert server.call(calls.EXISTS, {"ID": "a"}).status == 200
    assert "MemoryError" in caplog.text
