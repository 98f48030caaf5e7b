"""Stands where an engine looks for a plugin, and forwards to the plugin.

Two threads for each connection carry bytes, one in each direction; `manuka.toolkit.trace.observer`
sees them pass.  Easy to get wrong: an end is forwarded too, each direction for itself, or an engine
would wait for ever; and one that the peer did not make must not be invented.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from typing import Callable, Set

from manuka.errors import ManukaError
from manuka.toolkit.trace.observer import Recorder

_PIECE = 1 << 17


class Proxy:
    """Listens at `front` until `close`, and forwards to the socket at `back`.

    Raises ManukaError if it cannot listen there.
    """

    def __init__(self, front: str, back: str, recorder: Recorder) -> None:
        self._front = front
        self._back = back
        self._recorder = recorder
        self._sockets: Set[socket.socket] = set()
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(front)
        except OSError as error:
            self._listener.close()
            raise ManukaError(f"cannot listen on {front}: {error.strerror}") from None
        finally:
            os.umask(mask)
        self._listener.listen(128)
        self._threads: Set[threading.Thread] = set()
        self._start(self._accept)

    def close(self, unlink: bool = True) -> None:
        """End the listening and every connection, and remove the socket unless it is not ours."""
        self._closed = True
        if unlink:
            with contextlib.suppress(OSError):
                os.unlink(self._front)
        self._hang_up(self._listener)
        for sock in list(self._sockets):
            self._hang_up(sock)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                engine, _ = self._listener.accept()
            except OSError:
                return
            self._start(functools.partial(self._serve, engine))

    def _serve(self, engine: socket.socket) -> None:
        observer = self._recorder.connection()
        plugin = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with engine, plugin:
            try:
                plugin.connect(self._back)
            except OSError:
                return  # which the engine sees as it would see the plugin's own absence
            self._sockets.update((engine, plugin))
            if self._closed:
                return
            back = threading.Thread(
                target=self._carry, args=(plugin, engine, observer.sent_by_plugin), daemon=True
            )
            back.start()
            self._carry(engine, plugin, observer.sent_by_engine)
            back.join()
            observer.over()
            self._sockets.difference_update((engine, plugin))

    @staticmethod
    def _carry(
        source: socket.socket, target: socket.socket, observe: Callable[[bytes], None]
    ) -> None:
        buffer = memoryview(bytearray(_PIECE))
        while True:
            try:
                count = source.recv_into(buffer)
            except OSError:
                count = 0
            data = bytes(buffer[:count])
            observe(data)
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                # The target takes no more: its own end comes the other way.
                with contextlib.suppress(OSError):
                    source.shutdown(socket.SHUT_RD)
                if not data:
                    return

    @staticmethod
    def _hang_up(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()


class Interposed:
    """A plugin's socket taken aside while a proxy stands in its place; within a ``with`` block.

    The listening process goes on listening under another name.  Should this process be killed, the
    socket stays aside as ``SOCKET.traced``: move it back, or restart the plugin.
    """

    def __init__(self, path: str, recorder: Recorder) -> None:
        self._path = path
        self._aside = path + ".traced"
        self._recorder = recorder

    def __enter__(self) -> Interposed:
        if os.path.exists(self._aside):
            raise ManukaError(
                f"{self._aside} is there: {self._path} is being traced already, or was when its "
                f"tracer was killed; then: mv {self._aside} {self._path}"
            )
        try:
            os.rename(self._path, self._aside)
        except OSError as error:
            raise ManukaError(f"no plugin's socket at {self._path}: {error.strerror}") from None
        try:
            self._proxy = Proxy(self._path, self._aside, self._recorder)
        except ManukaError:
            os.rename(self._aside, self._path)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.rename(self._aside, self._path)  # over the proxy's: no moment without one
        self._proxy.close(unlink=False)
