"""The body of a request, read straight from the connection while the engine still sends it.

`manuka.server.channel` makes one for each ``ApplyDiff``; waitress itself would first collect the
whole layer in a temporary file.  Nothing is read ahead beyond one small buffer, so an engine that
is faster than the driver waits in its own ``write``.

Easy to get wrong: the end.  A body is complete when its final chunk (or the last byte of its
Content-Length) was read.  A connection that closes before is an error every time it is read again
and never an end of file, or half a layer would be taken for a whole one.  A layer without a single
byte comes as a final chunk.  An engine that repeats a call has no layer to send any more: it sends
the headers and closes (``callWithRetry`` in ``pkg/plugins/client.go`` and ``io.PipeReader.Read``,
the same from 17.03 to 27).
"""

from __future__ import annotations

import io
import re
import select
import socket
from typing import Any, Optional

from manuka.errors import ManukaError
from manuka.server.turns import Turn

_BUFFER_SIZE = 1 << 17
_LINE_LIMIT = 4096  # a chunk's size and its extensions; Go sends less than ten bytes
_TRAILER_LIMIT = 1 << 16
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_PLAIN_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")


class BodyError(ManukaError):
    """The body is not what its headers promised."""


class BodyCutOff(BodyError):
    """The connection ended in the middle of the body."""


class NoBody(BodyError):
    """There is no body where a layer should be."""


class LiveBody(io.RawIOBase):
    """A request body as a stream.  Belongs to the one thread that serves the request.

    sock: the connection, non-blocking; nobody else may read from it meanwhile.
    begun: what of the body has been received together with the headers, or more than the body.
    length: the body's size in bytes; None: it comes in chunks (RFC 9112, section 7.1); 0: there is
        none, for engines send even an empty layer in chunks.
    turn: is given back while nothing has arrived.

    Reading raises BodyCutOff, NoBody and BodyError.
    """

    def __init__(
        self, sock: socket.socket, begun: bytes, length: Optional[int], turn: Turn
    ) -> None:
        super().__init__()
        self._turn = turn
        self._sock = sock
        self._raw = bytearray(max(_BUFFER_SIZE, len(begun)))
        self._raw[: len(begun)] = begun
        self._view = memoryview(self._raw)
        self._start = 0
        self._end = len(begun)
        self._chunked = length is None
        self._left = length or 0  # bytes until the end of this chunk, or of the whole body
        self._between_chunks = False
        self._fault: Optional[BodyError] = None
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        #: Bytes of the body that were read so far.
        self.received = 0
        #: Whether the body was read to its end.
        self.complete = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what has arrived, waiting for at least one byte; 0 at the end."""
        if self._fault is not None:
            raise self._fault
        try:
            with memoryview(buffer).cast("B") as target:
                return self._read(target)
        except BodyError as error:
            self._fault = error
            raise

    def leftover(self) -> bytes:
        """What was received after the body: the beginning of the connection's next request."""
        rest = bytes(self._view[self._start : self._end])
        self._start = self._end
        return rest

    def close(self) -> None:
        """Give the buffer's memory back, and refuse to read on: what comes is no part of this."""
        self._fault = BodyError("the request for this layer was answered")
        self._view.release()
        self._raw = bytearray()
        super().close()

    def _read(self, target: memoryview) -> int:
        done = 0
        wanted = len(target)
        while done < wanted:
            if self._left == 0:
                done += self._copy_small_chunks(target[done:])
                if done == wanted or not self._next_chunk(wait=done == 0):
                    break
            here = min(self._left, wanted - done)
            buffered = self._end - self._start
            if buffered:
                count = min(here, buffered)
                target[done : done + count] = self._view[self._start : self._start + count]
                self._start += count
            elif done:
                break
            elif here >= _BUFFER_SIZE:
                count = self._receive(target[:here])
            else:
                self._fill()
                continue
            self._left -= count
            self.received += count
            done += count
        if self._left == 0 and not self._chunked:
            self._finish()
        return done

    def _copy_small_chunks(self, target: memoryview) -> int:
        """Fill `target` with those next chunks that have arrived whole, as far as they fit.

        A commit comes in three chunks for each file: header, data and padding.
        """
        if not self._between_chunks or self.complete:
            return 0
        raw, view, start, end = self._raw, self._view, self._start, self._end
        done, room = 0, len(target)
        plain = _PLAIN_CHUNK.match(raw, start, end)
        while plain is not None:
            data = plain.end()
            size = int(plain[1], 16)
            if not 0 < size <= room or data + size > end:
                break
            start = data + size
            target[done : done + size] = view[data:start]
            done += size
            room -= size
            plain = _PLAIN_CHUNK.match(raw, start, end)
        self._start = start
        self.received += done
        return done

    def _next_chunk(self, wait: bool) -> bool:
        """Read on to the next chunk's data; False at the end, or where that would mean to wait."""
        if self.complete or not self._chunked:
            return False
        if self._between_chunks:
            # The engine's way.
            plain = _PLAIN_CHUNK.match(self._raw, self._start, self._end)
            if plain is not None:
                self._start = plain.end()
                return self._begin_chunk(plain)
        if not wait and not self._has_size_line():
            return False
        if self._between_chunks and self._line(2):
            raise BodyError("a chunk of the layer's stream is longer than its size says")
        line = self._line(_LINE_LIMIT)
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BodyError(f"malformed chunk size in the layer's stream: {line[:40]!r}")
        self._between_chunks = True
        return self._begin_chunk(match)

    def _begin_chunk(self, size_line: re.Match[bytes]) -> bool:
        self._left = int(size_line[1], 16)
        if self._left == 0:
            self._skip_trailers()
            self._finish()
        return self._left > 0

    def _has_size_line(self) -> bool:
        """Whether the line end after a chunk and the next chunk's size are both in the buffer."""
        return self._raw.find(b"\n", self._start + 2, self._end) > 0

    def _finish(self) -> None:
        self.complete = True
        if not self._chunked and self.received == 0:
            raise NoBody("the request has no body: a layer comes in chunks, even an empty one")

    def _skip_trailers(self) -> None:
        room = _TRAILER_LIMIT
        line = self._line(_LINE_LIMIT)
        while line:
            room -= len(line)
            if room < 0:
                raise BodyError(f"more than {_TRAILER_LIMIT} bytes follow the layer's last chunk")
            line = self._line(_LINE_LIMIT)

    def _line(self, limit: int) -> bytes:
        """The next line without its CR LF; `limit` counts both."""
        scanned = self._start
        while True:
            at = self._raw.find(b"\n", scanned, min(self._end, self._start + limit))
            if at >= 0:
                break
            if self._end - self._start >= limit:
                raise BodyError(
                    f"malformed chunk in the layer's stream: no line end within {limit} bytes"
                )
            waiting = self._end - self._start
            self._fill()
            scanned = self._start + waiting
        line = bytes(self._view[self._start : at])
        self._start = at + 1
        if not line.endswith(b"\r"):
            raise BodyError(f"malformed line end in the layer's stream after {line[:40]!r}")
        return line[:-1]

    def _fill(self) -> None:
        """Receive more into the raw buffer, behind what is in it."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._raw):
            rest = self._view[self._start : self._end].tobytes()
            self._raw[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        self._end += self._receive(self._view[self._end :])

    def _receive(self, target: memoryview) -> int:
        self._turn.share()
        while True:
            try:
                count = self._sock.recv_into(target)
            except BlockingIOError:
                with self._turn.pause():
                    self._poll.poll()
                continue
            except OSError as error:
                raise self._cut_off(str(error.strerror)) from None
            if count == 0:
                raise self._cut_off("the connection was closed")
            return count

    def _cut_off(self, reason: str) -> BodyCutOff:
        return BodyCutOff(
            f"the engine broke the layer's stream off after {self.received} bytes ({reason}); "
            "the layer is not whole"
        )
