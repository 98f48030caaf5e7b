"""Who runs on this machine and who listens where, from /proc.

Easy to get wrong: processes end while they are looked at, and a socket that systemd made is held
by systemd and by the service at once.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, NamedTuple


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
    """Who holds the listening UNIX socket at `path`; systemd last, for it only keeps it open."""
    inodes = set()
    with open("/proc/net/unix", "rb") as file:
        for line in file.read().splitlines()[1:]:
            fields = line.split(None, 7)
            # Flag 0x10000 is set on a socket that listens (unix(7), __SO_ACCEPTCON).
            if len(fields) == 8 and int(fields[3], 16) & 0x10000 and os.fsdecode(fields[7]) == path:
                inodes.add(f"socket:[{int(fields[6])}]")
    found = [one for one in processes() if inodes and inodes & _open_files(one.pid)]
    return sorted(found, key=lambda one: (one.pid == 1, one.pid))


def _open_files(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"{folder}/{name}"))
    return found
