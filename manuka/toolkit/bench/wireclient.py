"""The plugin's calls with next to no time of the client's own, on one connection that stays open.

`manuka.toolkit.client` reads replies with care; here some microseconds matter, and a plugin that
has passed its checks is trusted.  Neighbours: `wire` and `growth` measure with it, `sender` keeps a
plugin busy.  Easy to get wrong: the engine sends a layer in chunks of 32 KiB.
"""

from __future__ import annotations

import json
import socket
import struct
import types
from typing import Any, Dict, Iterable, Optional, Type

from manuka.api import calls
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.client import CHUNK, apply_target, encode

_TIMEOUT = struct.pack("ll", 300, 0)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_BUFFER = 1 << 20


class Wire:
    """A connection to a plugin.  Everything raises BenchError when it is refused."""

    def __init__(self, path: str) -> None:
        """Raises OSError when nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel's own limits: Python's would turn each call into two.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, call: str, **fields: object) -> Dict[str, Any]:
        """A message and its answer, for a call of `manuka.api.calls`."""
        body = encode(fields) if fields else b""
        self._socket.sendall(_head(call, f"Content-Length: {len(body)}") + body)
        return self._answer(call)

    def create(self, layer: str, parent: str = "") -> None:
        self.call(calls.CREATE, ID=layer, Parent=parent)

    def create_read_write(self, layer: str, parent: str = "") -> None:
        self.call(calls.CREATE_READ_WRITE, ID=layer, Parent=parent)

    def remove(self, layer: str) -> None:
        self.call(calls.REMOVE, ID=layer)

    def get_and_put(self, layer: str) -> None:
        self.call(calls.GET, ID=layer, MountLabel="")
        self.call(calls.PUT, ID=layer)

    def apply(self, layer: str, parent: str, body: Iterable[bytes]) -> None:
        """Unpack a tar into a layer."""
        self._socket.sendall(_head(apply_target(layer, parent), "Transfer-Encoding: chunked"))
        head = b"%x\r\n" % CHUNK
        for piece in body:
            view = memoryview(piece)
            for start in range(0, len(view), CHUNK):
                chunk = view[start : start + CHUNK]
                if len(chunk) < CHUNK:
                    head = b"%x\r\n" % len(chunk)
                wanted = len(head) + len(chunk) + 2
                sent = self._socket.sendmsg([head, chunk, b"\r\n"])
                if sent != wanted:
                    self._socket.sendall((head + bytes(chunk) + b"\r\n")[sent:])
                if len(chunk) < CHUNK:
                    head = b"%x\r\n" % CHUNK
        self._socket.sendall(b"0\r\n\r\n")
        self._answer(calls.APPLY_DIFF)

    def diff(self, layer: str, parent: str) -> int:
        """Read a layer's difference to nowhere; the bytes that came.  Ends the connection."""
        body = encode({"ID": layer, "Parent": parent})
        self._socket.sendall(_head(calls.DIFF, f"Content-Length: {len(body)}") + body)
        buffer = bytearray(_BUFFER)
        end, total = b"", 0
        while not end.endswith(_LAST_CHUNK):
            got = self._socket.recv_into(buffer)
            if total == 0 and not buffer.startswith(b"HTTP/1.1 200"):
                raise BenchError("Diff: " + bytes(buffer[:got]).decode(errors="replace"))
            if got == 0:
                raise BenchError("Diff: the answer breaks off")
            total += got
            end = (end + bytes(buffer[max(0, got - 8) : got]))[-8:]
        self.close()
        return total

    def _answer(self, call: str) -> Dict[str, Any]:
        data = self._socket.recv(65536)
        while b"\r\n\r\n" not in data:
            data += self._more(call)
        head, _, body = data.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if at < 0:
            raise BenchError(f"{call}: the answer does not tell its length")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._more(call)
        message: Dict[str, Any] = json.loads(body) if body.strip() else {}
        if message.get("Err"):
            raise BenchError("{}: {}".format(call, message["Err"]))
        return message

    def _more(self, call: str) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise BenchError(f"{call}: the plugin hung up")
        return data


def _head(target: str, length: str) -> bytes:
    return (
        f"POST {target} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"{length}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    ).encode()
