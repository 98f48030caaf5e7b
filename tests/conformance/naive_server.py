"""A plugin's server as a first attempt would be: `http.server`, with bodies read into memory.

It takes the end of a connection for the end of a body, which is the fault that it is here for.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import socketserver
import tempfile
import threading
from typing import Any, ContextManager, Dict, Iterator, List, NamedTuple, Type


class Naive(NamedTuple):
    """A server in a thread of this process."""

    path: str


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        path, _, query = self.path.partition("?")
        environ: Dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "naive",
            "SERVER_PORT": "0",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
        }
        begun: List[Any] = []
        reply = self.server.app(environ, lambda *begin: begun.append(begin))  # type: ignore
        data = b"".join(reply)
        self.send_response(int(begun[0][0].split()[0]))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while True:
            line = self.rfile.readline().strip()
            size = int(line or b"0", 16)
            if not size:
                self.rfile.readline()
                return body
            body += self.rfile.read(size)
            self.rfile.readline()

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *what: object) -> None:
        pass


class _Threads(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class _OneThread(socketserver.UnixStreamServer):
    request_queue_size = 64


def serving(app: Any) -> ContextManager[Naive]:
    """Serve `app` for the length of a ``with`` block."""
    return _serve(app, _Threads)


def serving_one_at_a_time(app: Any) -> ContextManager[Naive]:
    """The same with one thread, which stays with a connection until that ends."""
    return _serve(app, _OneThread)


@contextlib.contextmanager
def _serve(app: Any, kind: Type[socketserver.BaseServer]) -> Iterator[Naive]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plugin.sock")
        server: Any = kind(path, _Handler)  # type: ignore[arg-type]
        server.app = app
        server.handle_error = lambda request, address: None  # who hangs up is no news
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Naive(path)
        finally:
            server.shutdown()
            thread.join(20)
            server.server_close()
