"""Serving until told to stop.

`serve` is what ``manuka serve`` ends in; `PluginServer` is the same for tests and tools, without
signals.  Easy to get wrong: stopping.  Mounts stay, for containers live on without the plugin;
calls that were sent are answered, since the engine's retry would come without its body; and a
layer under way is broken off, so that the engine knows.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import threading
import time
from typing import Any, Callable, Iterable, List

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.server import UnixWSGIServer  # type: ignore[import-untyped]

from manuka.api import calls
from manuka.server import notify
from manuka.server.channel import Channel, serving
from manuka.server.dispatcher import Dispatcher
from manuka.server.sockets import Listener
from manuka.server.turns import Turns

log = logging.getLogger(__name__)

App = Callable[..., Iterable[bytes]]

_POOL_THREADS = 12
_SHORT_CALLS_GRACE = 5.0  # seconds
_STREAMS_GRACE = 2.0
_IDLE_TURN = 60.0
_NEVER = 10**9  # seconds
_UNBOUNDED = 1 << 40

#: What accept(2) fails with while this process, or the machine, has no descriptor or memory left.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PATIENCE = 0.05  # seconds
_COMPLAINT_INTERVAL = 10.0

#: How long a thread may keep the interpreter from others, in seconds.  Python's 5 ms would be what
#: a Get waits, several times, while a layer is unpacked.
SWITCH_INTERVAL = 0.0005

_SETTINGS = {
    "threads": _POOL_THREADS,
    "ident": "manuka",
    "expose_tracebacks": False,
    # The engine keeps idle connections for as long as it runs and does not expect them to close.
    "channel_timeout": _NEVER,
    "cleanup_interval": 3600,
    "connection_limit": 4096,
    "asyncore_use_poll": True,  # select() ends at 1024 descriptors
    "max_request_body_size": calls.MESSAGE_LIMIT + 1,
    "inbuf_overflow": calls.MESSAGE_LIMIT * 2,  # messages stay in memory
    # The engine's have 300 bytes.  Waitress looks at all of an unfinished one at each byte.
    "max_request_header_size": 1 << 14,
    "recv_bytes": 1 << 16,
    "outbuf_overflow": _UNBOUNDED,  # and so do replies,
    "outbuf_high_watermark": 1 << 20,  # of which this much may wait
    "channel_request_lookahead": 0,  # see manuka.server.channel
    "clear_untrusted_proxy_headers": False,  # there is no proxy
    "log_socket_errors": True,
}


class PluginServer(UnixWSGIServer):  # type: ignore[misc]
    """Serves `application` on the listener's socket.

    `run` blocks; `stop` may be called from any thread or signal handler and makes it return.
    """

    channel_class = Channel

    def __init__(self, application: App, listener: Listener) -> None:
        sock = listener.sock
        self._listener = listener
        self._stopping = False
        self._has_loop = True
        self._loop_lock = threading.RLock()  # a signal may come while this thread holds it
        self._watchdog = notify.watchdog_interval()
        self._next_sign_of_life = 0.0
        self._next_complaint = 0.0
        self.turns = Turns()
        dispatcher = Dispatcher()
        dispatcher.set_thread_count(_POOL_THREADS)
        super().__init__(
            application,
            map={},
            _sock=sock,
            dispatcher=dispatcher,
            adj=Adjustments(sockets=[sock], **_SETTINGS),
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
        )

    def run(self) -> None:
        """Serve until `stop`, then answer what was asked, break off streams, and hang up.

        Closes the listener.
        """
        while not self._stopping:
            self._turn(self._watchdog or _IDLE_TURN)
        notify.notify(notify.STOPPING)
        self.del_channel()
        self._listener.close()
        self.task_dispatcher.keeps = False
        for channel in self._channels():
            channel.hurry()
        self._turn_while(self._short_calls, _SHORT_CALLS_GRACE)
        for channel in self._channels():
            if channel.streaming:
                channel.break_off()
        self._turn_while(self._busy_channels, _STREAMS_GRACE)
        still = [request.path[1:] for channel in self._busy_channels()
                 for request in channel.requests[:1]]  # fmt: skip
        if still:
            log.warning("stopping in the middle of %s", ", ".join(still))
        self.task_dispatcher.shutdown(timeout=0.5)
        for channel in self._channels():
            channel.handle_close()
        with self._loop_lock:
            self.trigger.close()
            self._has_loop = False

    def accept(self) -> Any:
        """A new connection; None when there is none, or none that can be had now."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            # It stays in the queue, and poll would report it again at once.
            if time.monotonic() >= self._next_complaint:
                log.error("cannot take a connection now: %s", error.strerror)
                self._next_complaint = time.monotonic() + _COMPLAINT_INTERVAL
            time.sleep(_PATIENCE)
            return None

    def stop(self) -> None:
        """Let `run` return."""
        with self._loop_lock:
            if not self._stopping:
                self._stopping = True
                self.pull_trigger()

    def pull_trigger(self) -> None:
        """Wake the main loop, unless a thread that serves a connection can do without it."""
        channel = serving.channel
        if channel is None or channel.needs_loop():
            with self._loop_lock:
                if self._has_loop:  # a thread may go on when the loop has ended
                    super().pull_trigger()

    def _turn(self, timeout: float) -> None:
        wasyncore.poll2(timeout, self._map)
        if self._watchdog is not None and time.monotonic() >= self._next_sign_of_life:
            notify.notify(notify.ALIVE)
            self._next_sign_of_life = time.monotonic() + self._watchdog / 2

    def _turn_while(self, busy: Callable[[], List[Channel]], grace: float) -> None:
        deadline = time.monotonic() + grace
        self._turn(0)  # takes in what was sent just before
        while busy() and time.monotonic() < deadline:
            self._turn(0.05)

    def _channels(self) -> List[Channel]:
        return list(self.active_channels.values())

    def _busy_channels(self) -> List[Channel]:
        return [
            channel
            for channel in self._channels()
            if channel.requests or channel.request is not None or channel.total_outbufs_len
        ]

    def _short_calls(self) -> List[Channel]:
        return [channel for channel in self._busy_channels() if not channel.streaming]


def _allow_many_files() -> None:
    """Take as many open files as this process may have: each idle or stuck peer holds one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(application: App, listener: Listener) -> None:
    """Serve until SIGTERM or SIGINT; for the main thread of a process that does only this.

    Sets the process' umask to 022: nothing that a driver makes without a thought can be written by
    others, and containers can read their root folders whatever the umask was.  Raises the limit of
    open files to the hard one.  Mounts are left as they are.
    """
    os.umask(0o022)
    _allow_many_files()
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = PluginServer(application, listener)

    def stop(signum: int, frame: Any) -> None:
        log.info("stopping: %s", signal.Signals(signum).name)
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("listening on %s", listener.address)
    notify.notify(notify.READY)
    server.run()
