"""Namespaces by system call: `unshare` and `setns`, which Python has only since 3.12.

Neighbours: `manuka.toolkit.keeper` makes namespaces with it, `manuka.toolkit.namespace` enters
them.  Easy to get wrong: joining a PID namespace moves nobody, it only decides where the calling
thread's next children are born (pid_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Iterator

from manuka.linux.libc import call, function

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_unshare = function("unshare", [ctypes.c_int])
_setns = function("setns", [ctypes.c_int, ctypes.c_int])


def unshare(flags: int) -> None:
    """Give the calling process namespaces of its own (unshare(2)); OSError when refused."""
    call(_unshare, flags)


def setns(namespace_fd: int, kind: int) -> None:
    """Join the namespace behind an open ``/proc/PID/ns`` file (setns(2)); OSError when refused."""
    call(_setns, namespace_fd, kind)


@contextlib.contextmanager
def children_born_in(pid_namespace_fd: int | None = None) -> Iterator[None]:
    """What this thread forks within the block is born in that PID namespace; None: in a new one."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if pid_namespace_fd is None:
            unshare(CLONE_NEWPID)
        else:
            setns(pid_namespace_fd, CLONE_NEWPID)
        try:
            yield
        finally:
            setns(own, CLONE_NEWPID)
    finally:
        os.close(own)
