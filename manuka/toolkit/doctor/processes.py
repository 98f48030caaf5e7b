"""Who runs on this machine and who listens where, from /proc.

Processes end while they are looked at, and a socket that systemd made is held by systemd and by the
service at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Iterator, NamedTuple

from manuka.linux.sock_diag import listening_at
from manuka.toolkit.unshare import CLONE_NEWNET, setns


class Process(NamedTuple):
    """A running process as /proc shows it; `name` is the kernel's, cut at 15 bytes."""

    pid: int
    name: str
    arguments: list[str]

    @property
    def mount_namespace(self) -> str | None:
        """The identity of its mount namespace; None if that cannot be seen."""
        try:
            return os.readlink(f"/proc/{self.pid}/ns/mnt")
        except OSError:
            return None

    @property
    def folder(self) -> str | None:
        """Its working directory, as it sees it; None if that cannot be seen."""
        try:
            return os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            return None

    @property
    def parent(self) -> int:
        """The id of its parent; 0 if that cannot be seen."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return 0

    def environment(self) -> dict[str, str] | None:
        """The environment that it was started with; None if that cannot be seen."""
        try:
            with open(f"/proc/{self.pid}/environ", "rb") as file:
                pairs = os.fsdecode(file.read()).split("\0")
        except OSError:
            return None
        return {key: value for key, _, value in (pair.partition("=") for pair in pairs if pair)}

    def option(self, *names: str) -> str | None:
        """The value of a command-line option, the last if there are several; None: not given.

        An option without a value is "".
        """
        value = None
        for at, word in enumerate(self.arguments):
            head, equals, tail = word.partition("=")
            if head in names:
                following = self.arguments[at + 1 : at + 2]
                if equals:
                    value = tail
                elif following and not following[0].startswith("-"):
                    value = following[0]
                else:
                    value = ""
        return value

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def processes() -> Iterator[Process]:
    """All processes that this one can see."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                yield process(int(entry))


def process(pid: int) -> Process:
    """The process with that id; OSError if there is none."""
    with open(f"/proc/{pid}/comm", "rb") as file:
        name = os.fsdecode(file.read()).strip()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        arguments = os.fsdecode(file.read()).split("\0")[:-1]
    return Process(pid, name, arguments)


def listeners(path: str) -> list[Process]:
    """Who holds a socket that listens at the file `path`; systemd last, for it only keeps it open.

    The file decides, not its name: another mount namespace may have another socket at that path.
    Raises OSError when there is no such file.
    """
    try:
        names = {f"socket:[{inode}]" for inode in _listening(path)}
    except OSError:
        if not os.path.exists(path):
            raise
        return _caller_of_listen(path)  # the kernel was built without unix_diag
    found = [one for one in processes() if names and names & _open_files(one.pid)]
    return sorted(found, key=lambda one: (one.pid == 1, one.pid))


def _listening(path: str) -> set[int]:
    """The sockets at `path`, of this network namespace, or of the first other that has some."""
    found = listening_at(path)
    seen = {os.readlink("/proc/self/ns/net")}
    for one in () if found else processes():
        with contextlib.suppress(OSError):  # it has ended, or is not ours to enter
            name = os.readlink(f"/proc/{one.pid}/ns/net")
            if name in seen:
                continue
            seen.add(name)
            with _network_of(one.pid):
                found = listening_at(path)
            if found:
                break
    return found


@contextlib.contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Be in the network namespace of a process within the block."""
    own, other = (
        os.open(f"/proc/{which}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for which in ("self", pid)
    )
    try:
        setns(other, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(other)
        os.close(own)


def _caller_of_listen(path: str) -> list[Process]:
    """The process that called listen(2) on the socket, by SO_PEERCRED (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return [process(struct.unpack("iII", credentials)[0])]
        except OSError:  # nobody listens, or it has ended since
            return []


def _open_files(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"{folder}/{name}"))
    return found
