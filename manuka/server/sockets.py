"""The listening socket: from systemd, or one of our own.

The engine looks for ``/run/docker/plugins/NAME.sock``.  With ``NAME.socket`` systemd makes it and
keeps it over restarts of the service, so that no call is refused; without, `listen` does.

Easy to get wrong: removing.  A socket's file that nobody listens on costs the engine 15 s at each
look-up, so ours goes when we go; but only if it is still ours, and never systemd's.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from typing import Optional, Tuple

from manuka.errors import ManukaError
from manuka.linux.private import make_directories

log = logging.getLogger(__name__)

_FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START
_PATH_LIMIT = 107  # sun_path is 108 bytes, with a NUL at the end
_ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class SocketError(ManukaError):
    """The plugin cannot listen where it was told to."""


class Listener:
    """A listening socket, and what to do with its file at the end."""

    def __init__(self, sock: socket.socket, path: Optional[str] = None) -> None:
        self.sock = sock
        self._path = path  # None: not ours to remove
        self._identity = None if path is None else _identity(path)

    @property
    def address(self) -> str:
        """The path that the engine connects to."""
        return str(self.sock.getsockname())

    def close(self) -> None:
        """Stop listening, and remove the socket's file if we made it and it is still the same.

        May be called again.
        """
        path, self._path = self._path, None
        try:
            if path is not None and _identity(path) == self._identity:
                os.unlink(path)
        except OSError as error:
            log.warning("cannot remove the socket %s: %s", path, error.strerror)
        self.sock.close()


def listen(path: str) -> Listener:
    """The socket that systemd passed on, or else a new one at `path`, for root alone.

    Missing folders are made.  Raises SocketError.
    """
    return passed_listener() or _new_listener(path)


def passed_listener() -> Optional[Listener]:
    """The socket of ``sd_listen_fds(3)``; None without socket activation.  Raises SocketError."""
    values = {name: os.environ.pop(name, "") for name in _ACTIVATION}
    if values["LISTEN_PID"] != str(os.getpid()):
        return None
    if values["LISTEN_FDS"] != "1":
        raise SocketError(
            f"systemd passed {values['LISTEN_FDS'] or 'no'} sockets, expected one; "
            "keep one ListenStream= in the socket unit"
        )
    try:
        sock = socket.socket(fileno=_FIRST_PASSED_FD)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SocketError(f"what systemd passed is no socket: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listening:
        sock.detach()
        raise SocketError(
            "systemd passed another kind of socket than a listening UNIX stream socket; "
            "the socket unit needs ListenStream=/run/docker/plugins/NAME.sock"
        )
    sock.set_inheritable(False)
    return Listener(sock)


def _new_listener(path: str) -> Listener:
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise SocketError(
            f"the socket's path is longer than {_PATH_LIMIT} bytes, the most a UNIX socket can "
            f"have: {path}"
        )
    try:
        make_directories(os.path.dirname(path), 0o700)
        _make_way(path)
        return Listener(_bind(path), path)
    except OSError as error:
        raise SocketError(f"cannot listen on {path}: {error.strerror}") from None


def _bind(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # By umask and not by chmod afterwards: in between, anyone could connect.
    old_umask = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen()
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(old_umask)
    return sock


def _make_way(path: str) -> None:
    """Remove a socket that was left behind.  Raises SocketError for anything else there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} is in the way: it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(path)
        if result in (0, errno.EAGAIN):  # EAGAIN: its queue is full, so there is one
            raise SocketError(f"another process is listening on {path}{_owner(probe)}")
    if result != errno.ECONNREFUSED:
        raise SocketError(f"cannot tell whether {path} is in use: {os.strerror(result)}")
    log.info("removing the stale socket %s", path)
    os.unlink(path)


def _owner(probe: socket.socket) -> str:
    layout = struct.Struct("3i")  # struct ucred: pid, uid, gid
    credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
    pid = layout.unpack(credentials)[0]
    return f": pid {pid}" if pid > 0 else ""


def _identity(path: str) -> Tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
