"""What Manuka adds to waitress: bodies and replies that are streams, and threads for them.

Waitress reads a request in its main loop, queues it, and a pool thread runs the application.
Three of its classes are extended here, by the places it has for that:

* `Parser` calls an ``ApplyDiff`` complete when its headers are in; the rest becomes a
  `manuka.server.body.LiveBody`.
* `StreamTask` sends the pieces of a ``Diff`` from the thread that makes them.
* `Dispatcher` gives every call that may take long a thread of its own, and every other that finds
  the pool busy, so that whatever is stuck on one layer does not delay another's container.

Easy to get wrong: who reads from the connection.  Waitress' loop does not while the channel has a
request under way (``channel_request_lookahead`` is 0), so the body may.  What it received too
much, it gives back through the channel before the request counts as done.  And the end: closing a
UNIX socket in which unread bytes lie takes the reply away from the peer (it sees ECONNRESET), so an
early reply is followed by `Channel.linger`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Any, List, Optional, Set

from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser, ParsingError  # type: ignore[import-untyped]
from waitress.task import (  # type: ignore[import-untyped]
    ErrorTask,
    ThreadedTaskDispatcher,
    WSGITask,
)

from manuka.api import calls
from manuka.api.errors import JSON_TYPE, error_body
from manuka.server.body import LiveBody

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# How long a peer may go on sending after its reply, in seconds: a layer, and anything else.
_LINGER_STREAM = 60.0
_LINGER_MESSAGE = 1.0


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


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection."""

    parser_class = Parser
    task_class = StreamTask
    error_task_class = JsonErrorTask

    def service(self) -> None:
        request = self.requests[0]
        sock = self.socket
        if request.live and not request.error and sock is not None:
            request.body = LiveBody(sock, request.begun, request.live_length)
            if request.wants_continue:
                self.write_soon(_CONTINUE)
        super().service()

    def send_now(self, pieces: List[bytes]) -> None:
        """Send without waitress' buffers; returns when the kernel has it all.

        For the thread that serves the request.  Raises ClientDisconnected.
        """
        sock = self.socket
        self._wait_for_buffers()
        if not self.connected or sock is None:
            raise ClientDisconnected
        views = [memoryview(piece) for piece in pieces]
        while views:
            try:
                sent = sock.sendmsg(views)
            except BlockingIOError:
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

    def break_off(self) -> None:
        """Make the thread that reads or writes a stream here fail at once."""
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):  # the peer may have been faster
                sock.shutdown(socket.SHUT_RDWR)


def _wait_until_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    poll.poll()


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Waitress' pool for the short calls, a thread of its own for each long one.

    A short call waits while another has its layer; those that wait so must not hold up the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own_threads: Set[threading.Thread] = set()

    def add_task(self, task: Channel) -> None:
        if task.requests[0].path in calls.LONG or not self._queue(task):
            self._start_thread(task)

    def _start_thread(self, task: Channel) -> None:
        name = task.requests[0].path[1:]
        thread = threading.Thread(target=self._serve, args=(task,), name=name, daemon=True)
        self._own_threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no room for another thread
            self._own_threads.discard(thread)
            self.logger.warning("%s waits for a thread of the pool: %s", name, error)
            super().add_task(task)

    def _queue(self, task: Channel) -> bool:
        """Leave `task` to the pool if a thread of it is idle."""
        with self.lock:
            idle = len(self.threads) - self.stop_count - self.active_count - len(self.queue)
            if idle > 0:
                self.queue.append(task)
                self.queue_cv.notify()
        return bool(idle > 0)

    def _serve(self, task: Channel) -> None:
        try:
            task.service()
        except BaseException:
            self.logger.exception("Exception when servicing %r", task)
            task.break_off()
        finally:
            self._own_threads.discard(threading.current_thread())

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        deadline = time.monotonic() + timeout
        done: bool = super().shutdown(cancel_pending, timeout)
        for thread in list(self._own_threads):
            thread.join(max(0, deadline - time.monotonic()))
        return done and not self._own_threads
