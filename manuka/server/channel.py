"""What Manuka adds to waitress: bodies and replies that are streams, and threads that stay.

Waitress reads a request in its main loop, queues it, and a thread runs the application; which one,
`manuka.server.dispatcher` decides.  Its classes are extended here, by the places it has for that:

* `Parser` calls an ``ApplyDiff`` complete when its headers are in; the rest becomes a
  `manuka.server.body.LiveBody`.
* `StreamTask` sends the pieces of a ``Diff`` from the thread that makes them.
* `Channel` lets the thread that has served a request wait for the connection's next one itself.
  Engines send theirs one after the other, and to wake two threads for each, which then want the
  interpreter at the same time, costs more than most calls do.

Easy to get wrong: who reads from the connection.  Waitress' loop does not while the channel has a
request under way (``channel_request_lookahead`` is 0) or a thread that stays, so these may.  What
a body received too much, it gives back through the channel before the request counts as done; and
what a thread that stays cannot do, such as to close, it leaves to the loop.  And the end: closing a
UNIX socket in which unread bytes lie takes the reply away from the peer (it sees ECONNRESET), so an
early reply is followed by `Channel.linger`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Any, List, Optional

from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser, ParsingError  # type: ignore[import-untyped]
from waitress.task import ErrorTask, WSGITask  # type: ignore[import-untyped]

from manuka.api import calls
from manuka.api.errors import JSON_TYPE, error_body
from manuka.server.body import LiveBody
from manuka.server.turns import Turn

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# How long a peer may go on sending after its reply, in seconds: a layer, and anything else.
_LINGER_STREAM = 60.0
_LINGER_MESSAGE = 1.0

# How long a thread stays with a connection on which nothing comes, in seconds.
_STAY = 10.0


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """A request; one with a live body is complete as soon as its headers are."""

    path = ""
    content_length: int = 0
    expect_continue: bool = False
    live = False
    live_length: Optional[int] = None  # None: chunked
    begun = b""
    wants_continue = False
    body: Optional[LiveBody] = None

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if not self.command:
            raise ParsingError("the first line is no request")  # waitress 2 lets it pass
        if self.path == calls.APPLY_DIFF and self.command == "POST":
            self.live = True
            self.live_length = None if self.chunked else self.content_length
            self.wants_continue = self.expect_continue
            self.expect_continue = False
            # Without a receiver for a body the request is complete here, of any size.
            self.body_rcv, self.content_length = None, 0

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.live and self.completed and not self.error:
            self.begun = data[consumed:]
            consumed = len(data)
        return consumed

    def get_body_stream(self) -> Any:
        return self.body if self.live else super().get_body_stream()


class StreamTask(WSGITask):  # type: ignore[misc]
    """Answers one request, by itself where the reply is a stream."""

    wrote_header: bool = False

    def execute(self) -> None:
        if self.request.path in calls.STREAMS:
            with self.channel.turn:
                super().execute()
        else:
            super().execute()

    def build_response_header(self) -> bytes:
        body = self.request.body
        if body is not None and not body.complete:
            # The rest of the body is in the way of a next request.
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header

    def write(self, data: bytes) -> None:
        if not self.wrote_header:
            if self.complete and data and self.content_length == len(data):
                header = self.build_response_header()
                self.wrote_header = True
                self.content_bytes_written = len(data)
                self.channel.write_soon(header + data)
                return
            super().write(b"")
        if self.chunked_response:
            if data:
                self.channel.send_now([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            super().write(data)

    def finish(self) -> None:
        super().finish()
        body = self.request.body
        if body is None:
            return
        # While this request is still listed the main loop does not read, so order is kept.
        if not self.close_on_finish:
            self.channel.received(body.leftover())
        elif not body.complete:
            self.channel.linger(_LINGER_STREAM)


class JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that is no proper HTTP, or too long, so that the engine can show why."""

    def execute(self) -> None:
        error = self.request.error
        body = error_body(f"{error.reason}: {error.body}")
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", JSON_TYPE))
        # Both versions of waitress that are in use close for a peer that asked for it.
        self.request.headers["CONNECTION"] = "close"
        self.close_on_finish = True
        self.content_length = len(body)
        self.write(body)

    def finish(self) -> None:
        super().finish()
        self.channel.linger(_LINGER_MESSAGE)


class _Serving(threading.local):
    channel: Optional[Channel] = None


#: The connection whose request the calling thread serves; None in other threads.
serving = _Serving()


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection."""

    parser_class = Parser
    task_class = StreamTask
    error_task_class = JsonErrorTask

    #: Whether a thread stays with this connection, so that the main loop has nothing to do here.
    kept = False

    def __init__(self, server: Any, *arguments: Any, **more: Any) -> None:
        super().__init__(server, *arguments, **more)
        self.turn = Turn(server.turns)

    def service(self) -> None:
        """Serve a request, and those that follow it while this thread may stay."""
        dispatcher = self.server.task_dispatcher
        # A thread that may not stay must not look at `kept`: once its request is answered, the
        # next one may have another thread, that may.
        kept = self.kept = dispatcher.keep(self)
        serving.channel = self
        try:
            self._serve()
            while kept and dispatcher.keeps and self._next_request():
                self._serve()
        except BaseException:
            # The main loop hangs up, so that the engine does not wait for a reply.  Not `cancel`,
            # with which waitress 2 does so never, and goes round and round.
            with self.requests_lock:
                self.requests.clear()
                self.will_close = True
            self.server.pull_trigger()
            raise
        finally:
            if kept:
                self._leave()
            serving.channel = None

    def _leave(self) -> None:
        self.server.task_dispatcher.leave(self)
        with self.requests_lock:
            self.kept = False
            if self.requests:  # they came while they needed no other thread
                self.server.add_task(self)
        self.server.pull_trigger()

    def needs_loop(self) -> bool:
        """Whether the main loop has to look at this connection: to send, to close, or to read."""
        left = self.total_outbufs_len or self.close_when_flushed or self.will_close
        return bool(left or not self.kept)

    def readable(self) -> bool:
        # Without the lock, a thread could serve all there is, and stay, between the two looks.
        with self.requests_lock:
            return bool(super().readable()) and not self.kept

    def _next_request(self) -> bool:
        """Wait until a request has come; False when the main loop is to go on."""
        sock = self.socket
        while sock is not None and not self.requests:
            if self.needs_loop() or not _arrives(sock, _STAY):
                return False
            try:
                data = sock.recv(self.adj.recv_bytes)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self.will_close = True
                return False
            self.last_activity = time.time()
            self.received(data)
        return bool(self.requests)

    def _serve(self) -> None:
        request = self.requests[0]
        sock = self.socket
        if request.live and not request.error and sock is not None:
            request.body = LiveBody(sock, request.begun, request.live_length, self.turn)
            if request.wants_continue:
                self.write_soon(_CONTINUE)
        try:
            super().service()
        finally:
            if request.body is not None:
                # Bottle's environment refers to itself, so the body would stay for a while.
                request.body.close()

    def send_now(self, pieces: List[bytes]) -> None:
        """Send without waitress' buffers; returns when the kernel has it all.

        For the thread that serves the request.  Raises ClientDisconnected.
        """
        sock = self.socket
        self._wait_for_buffers()
        if not self.connected or sock is None:
            raise ClientDisconnected
        self.turn.share()
        views = [memoryview(piece) for piece in pieces]
        while views:
            try:
                sent = sock.sendmsg(views)
            except BlockingIOError:
                with self.turn.pause():
                    _wait_until_writable(sock)
                continue
            except OSError:
                raise ClientDisconnected from None
            while views and sent >= len(views[0]):
                sent -= len(views[0])
                del views[0]
            if sent:
                views[0] = views[0][sent:]

    def linger(self, patience: float) -> None:
        """Say that the reply was the last, and read on until the peer has closed.

        An engine that still sends learns of its reply only if its writes go on to succeed: an
        error there makes it try again with a body that is used up (pkg/plugins/client.go).
        For the thread that serves the request; at most `patience` seconds.
        """
        self._wait_for_buffers()
        sock = self.socket
        if not self.connected or sock is None:
            return
        deadline = time.monotonic() + patience
        scratch = bytearray(1 << 16)
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):  # the peer is gone, and needs nothing any more
            sock.shutdown(socket.SHUT_WR)
            while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                if not sock.recv_into(scratch):
                    return

    def _wait_for_buffers(self) -> None:
        """Until the main loop has sent what was left to it: headers, or an earlier reply."""
        if self.total_outbufs_len:
            with self.outbuf_lock:
                while self.connected and self.total_outbufs_len:
                    self.server.pull_trigger()
                    self.outbuf_lock.wait(1)

    @property
    def streaming(self) -> bool:
        """Whether a layer is on its way over this connection."""
        requests = self.requests
        return bool(requests) and requests[0].path in calls.STREAMS

    def hurry(self) -> None:
        """Let a thread that stays here, with nothing to do, take in what was sent, and leave."""
        sock = self.socket
        if sock is not None and self.kept and not self.requests:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)

    def break_off(self) -> None:
        """Make the thread that reads or writes a stream here fail at once."""
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):  # the peer may have been faster
                sock.shutdown(socket.SHUT_RDWR)


def _arrives(sock: socket.socket, patience: float) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(patience * 1000))


def _wait_until_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    poll.poll()
