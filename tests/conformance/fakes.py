"""Servers that are no good plugins: they hang, talk nonsense, break off, or die."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import tempfile
import threading
from typing import Callable, Iterator

#: What to do with one connection; it is closed afterwards.
Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def fake(talk: Talk) -> Iterator[str]:
    """A server whose every connection is handed to `talk`; its socket's path."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "plugin.sock")
        listener.bind(path)
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener, talk), daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, talk: Talk) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection, talk), daemon=True).start()


def _serve(connection: socket.socket, talk: Talk) -> None:
    with connection, contextlib.suppress(OSError):
        talk(connection)


def hangs(connection: socket.socket) -> None:
    """Reads, and never answers."""
    while connection.recv(65536):
        pass


def answers_html(connection: socket.socket) -> None:
    body = b"<html><body>It works!</body></html>"
    while connection.recv(65536):
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )


def answers_half(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"Implements": ["Gra')


def answers_endlessly(connection: socket.socket) -> None:
    connection.recv(65536)
    while True:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)


def is_no_http(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example ESMTP\r\n")
    connection.recv(65536)


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


def drips(connection: socket.socket) -> None:
    """One byte of an answer now and then, so that no wait is ever in vain."""
    connection.recv(65536)
    done = threading.Event()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b" " * 10000:
        connection.sendall(bytes([byte]))
        done.wait(0.2)


def answers_nonsense(connection: socket.socket) -> None:
    """HTTP, and of each reply's fields the wrong type."""
    bodies = [b"[]", b"7", b'{"Err": {}}', b'{"Implements": 3}', b'"', b"\xff\xfe", b"null"]
    while connection.recv(65536):
        body = random.choice(bodies)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)


def agrees_to_everything(connection: socket.socket) -> None:
    """Activates, and says yes without doing anything."""
    body = (
        b'{"Implements": ["GraphDriver"], "Dir": "/no/such/folder", "Size": 1, "Exists": true,'
        b'"Status": [[]], "Changes": [{"Path": 3}], "Metadata": {"a": 1}, "Capabilities": 7}'
    )
    while connection.recv(1 << 20):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
