"""Makes calls of the bytes of one connection, without touching them.

h11 reads the HTTP of both directions: one `h11.Connection` plays the plugin for what the engine
sends, another plays the engine for what the plugin sends, and each is told what its side would
have said in between.

Easy to get wrong: a plugin may answer before it has read the request to its end, so each direction
goes on by itself, and a call is over when both are.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import threading
import time
from typing import IO, Any, Callable, Deque, Dict, Optional

import h11

from manuka.toolkit.trace.call import Call

_MESSAGE_LIMIT = 1 << 20  # of a body that is kept, to be read as JSON

OnCall = Callable[[Call], None]


class _Pending:
    """A call whose reply is not whole yet."""

    def __init__(self, number: int, target: str) -> None:
        self.number = number
        path, _, self.query = target.partition("?")
        self.name = path.lstrip("/")
        self.began = time.time()
        self.clock = time.perf_counter()
        self.message = bytearray()
        self.received = 0
        self.complete = False
        self.status: Optional[int] = None
        self.reply = bytearray()
        self.sent = 0
        self.layer: Optional[IO[bytes]] = None

    @property
    def has_layer(self) -> bool:
        return self.name == "GraphDriver.ApplyDiff"


class Recorder:
    """Counts calls over all connections, and hands on those that are over.

    on_call: gets each call; one at a time.
    layers: a folder for the bodies of ApplyDiff, ``NUMBER.tar`` each; None: they are not kept.
    """

    def __init__(self, on_call: OnCall, layers: Optional[str] = None) -> None:
        self._on_call = on_call
        self._layers = layers
        self._numbers = itertools.count(1)
        self._connections = itertools.count(1)
        self._lock = threading.Lock()

    def connection(self) -> Observer:
        """An observer for a new connection."""
        return Observer(self, next(self._connections))

    def begin(self, target: str) -> _Pending:
        pending = _Pending(next(self._numbers), target)
        if pending.has_layer and self._layers is not None:
            path = os.path.join(self._layers, f"{pending.number}.tar")
            pending.layer = open(path, "wb")  # noqa: SIM115 - closed at the call's end
        return pending

    def end(self, connection: int, pending: _Pending, error: Optional[str]) -> None:
        took = time.perf_counter() - pending.clock
        if pending.layer is not None:
            pending.layer.close()
        reply = _json(pending.reply)
        said = (reply or {}).get("Err")
        if said is None and pending.status not in (None, 200):
            said = bytes(pending.reply[:200]).decode("utf-8", "replace") or f"{pending.status}"
        call = Call(
            pending.number,
            connection,
            pending.name,
            pending.query,
            pending.began,
            took,
            _json(pending.message),
            pending.received,
            pending.status,
            reply,
            pending.sent,
            error or (str(said) if said else None),
        )
        with self._lock:
            self._on_call(call)


class Observer:
    """One connection: `sent_by_engine` and `sent_by_plugin` get its bytes, `over` its end."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self._recorder = recorder
        self._number = number
        self._lock = threading.Lock()
        self._pending: Deque[_Pending] = collections.deque()
        self._current: Optional[_Pending] = None  # whose body the engine is sending
        self._requests: Optional[h11.Connection] = h11.Connection(h11.SERVER)
        self._replies: Optional[h11.Connection] = h11.Connection(h11.CLIENT)

    def sent_by_engine(self, data: bytes) -> None:
        """Bytes from the engine; b"" when it has sent its last."""
        with self._lock:
            if self._requests is not None:
                try:
                    self._requests.receive_data(data)
                    self._read_requests(self._requests)
                except h11.RemoteProtocolError as error:
                    self._requests = None
                    if data:
                        self._fail(f"the engine's request is no HTTP: {error}")

    def sent_by_plugin(self, data: bytes) -> None:
        """Bytes from the plugin; b"" when it has sent its last."""
        with self._lock:
            if self._replies is not None and (data or self._pending):
                try:
                    self._expect_reply(self._replies)
                    self._replies.receive_data(data)
                    self._read_replies(self._replies)
                except h11.RemoteProtocolError as error:
                    self._replies = None
                    why = f"the reply is no HTTP: {error}" if data else "the reply breaks off"
                    self._fail(why)

    def over(self) -> None:
        """The connection is closed on both sides."""
        with self._lock:
            self._fail("the connection was closed before the reply was whole")

    def _read_requests(self, http: h11.Connection) -> None:
        while True:
            event = http.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._current = self._recorder.begin(event.target.decode("latin-1"))
                self._pending.append(self._current)
            elif self._current is None:
                return
            elif isinstance(event, h11.Data):
                self._take_body(self._current, event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._current.complete = True
                self._current = None
                http.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                http.send(h11.EndOfMessage())
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return  # the last request on this connection
                http.start_next_cycle()

    @staticmethod
    def _take_body(pending: _Pending, data: bytes) -> None:
        pending.received += len(data)
        if pending.layer is not None:
            pending.layer.write(data)
        elif not pending.has_layer and len(pending.message) < _MESSAGE_LIMIT:
            pending.message += data

    @staticmethod
    def _expect_reply(http: h11.Connection) -> None:
        if http.our_state is h11.IDLE:
            http.send(h11.Request(method="POST", target="/", headers=[("host", "")]))
            http.send(h11.EndOfMessage())

    def _read_replies(self, http: h11.Connection) -> None:
        while self._pending:
            pending = self._pending[0]
            event = http.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Response):
                pending.status = event.status_code
            elif isinstance(event, h11.Data):
                pending.sent += len(event.data)
                if len(pending.reply) < _MESSAGE_LIMIT and not self._is_stream(pending):
                    pending.reply += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._pending.popleft()
                cut = not pending.complete and pending.status == 200
                self._recorder.end(
                    self._number, pending, "answered before the request's end" if cut else None
                )
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return  # the last reply on this connection
                http.start_next_cycle()
                self._expect_reply(http)

    @staticmethod
    def _is_stream(pending: _Pending) -> bool:
        return pending.name == "GraphDriver.Diff" and pending.status == 200

    def _fail(self, error: str) -> None:
        while self._pending:
            self._recorder.end(self._number, self._pending.popleft(), error)


def _json(data: bytearray) -> Optional[Dict[str, Any]]:
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
