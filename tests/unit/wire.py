"""Speaking to a plugin's socket byte by byte, as an engine does or as one never would."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from typing import Any, Dict, Iterator, NamedTuple, Optional

from manuka.server.run import PluginServer
from manuka.server.sockets import listen


class Reply(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes
    whole: bool  # False: the connection ended before the body did

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["Err"])


class Wire:
    """One connection."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(120)  # a busy machine is no error
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def call(self, path: str, message: Any = None, method: str = "POST") -> Reply:
        """A JSON call; `message` may be bytes to send as they are."""
        self.send(request(path, message, method))
        return self.reply()

    def stream(self, target: str, body: bytes, chunk: int = 32768) -> Reply:
        """An ApplyDiff as the engine sends it."""
        self.send(stream_head(target) + chunked(body, chunk))
        return self.reply()

    def reply(self) -> Reply:
        head = self._until(b"\r\n\r\n")
        assert head.endswith(b"\r\n\r\n"), f"no reply: {head!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            body, whole = self._chunks()
        else:
            size = int(headers["content-length"])
            body = self._exactly(size)
            whole = len(body) == size
        return Reply(status, headers, body, whole)

    def at_end(self) -> bool:
        """Whether the server has hung up, with nothing more to read."""
        return not self._received and not self._more()

    def _chunks(self) -> Any:
        body = b""
        while True:
            line = self._until(b"\r\n")
            if not line.endswith(b"\r\n"):
                return body, False
            size = int(line, 16)
            piece = self._exactly(size + 2)
            if len(piece) < size + 2:
                return body + piece, False
            if size == 0:
                return body, True
            body += piece[:-2]

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received and self._more():
            pass
        head, found, rest = self._received.partition(mark)
        self._received = rest
        return head + found

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size and self._more():
            pass
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError:
            data = b""
        self._received += data
        return bool(data)


def accepts(path: str) -> bool:
    """Whether somebody listens: the file alone may be there a moment before."""
    try:
        Wire(path).sock.close()
    except OSError:
        return False
    return True


def request(path: str, message: Any = None, method: str = "POST") -> bytes:
    """A JSON request, byte for byte like those of engine 20.10."""
    if message is None:
        body = b""
    elif isinstance(message, bytes):
        body = message
    else:
        body = json.dumps(message).encode() + b"\n"
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    )
    return head.encode() + body


def stream_head(target: str) -> bytes:
    """The head of a request whose body comes in chunks."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n"
        "Transfer-Encoding: chunked\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    )
    return head.encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(body: bytes, size: int = 32768) -> bytes:
    pieces = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
    return b"".join(pieces) + b"0\r\n\r\n"


class Running(NamedTuple):
    """A server in a thread of this process."""

    path: str
    server: PluginServer
    thread: threading.Thread

    def wire(self) -> Wire:
        return Wire(self.path)

    def call(self, path: str, message: Any = None) -> Reply:
        with self.wire() as wire:
            return wire.call(path, message)

    def stop(self, patience: Optional[float] = 120) -> None:
        self.server.stop()
        self.thread.join(patience)
        assert not self.thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def running(app: Any) -> Iterator[Running]:
    """Serve `app` for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plugin.sock")
        server = PluginServer(app, listen(path))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        found = Running(path, server, thread)
        try:
            yield found
        finally:
            if thread.is_alive():
                found.stop()
