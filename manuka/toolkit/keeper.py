"""The process that makes a sandbox's private world, and takes it down whatever happens.

The world is a mount namespace and a PID namespace, held by a process that is number 1 in it.  The
keeper stays outside and waits on a pipe from the sandbox (its standard input).  When that pipe
closes, because the sandbox has ended, crashed or been killed, the keeper ends process 1: the
kernel then ends every other process in the world and frees every mount, and the keeper removes
what was on the host's disk.  Should the keeper itself be killed, process 1 sees *its* pipe close
and ends; the next sandbox sweeps up the folder.

Run by `manuka.toolkit.namespace` as ``python -m manuka.toolkit.keeper PARENT WISH…``.  The wishes
are ``keep``, the data; ``network``, a network namespace as well, with its loopback device up; and
``cgroups``, every hierarchy mounted.  It writes one line of JSON, either ``{"pid", "data",
"in_memory"}`` or ``{"error"}``.  Nobody else may hold the writing end of either pipe, or an end
goes unseen.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
from typing import Any, Collection, NoReturn

from manuka.linux.mount import MS_PRIVATE, MS_REC, mount, unmount
from manuka.linux.private import make_directories
from manuka.toolkit import cgroups, host
from manuka.toolkit.unshare import CLONE_NEWNET, CLONE_NEWNS, children_born_in, unshare

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SHARED = 2, 4, 8, 1 << 20


def main(parent: str, wishes: Collection[str]) -> int:
    """Make the world, report it, wait for the sandbox's end, and tidy up; the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with contextlib.ExitStack() as on_host:
            try:
                report = _make_world(on_host, parent, wishes)
            except OSError as error:
                report = {"error": str(error)}
            print(json.dumps(report), flush=True)
            if "error" not in report:
                with contextlib.suppress(InterruptedError):
                    os.read(0, 1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
    except OSError as error:
        print(f"left behind by the sandbox: {error}", file=sys.stderr)
        return 1
    return 0


def _make_world(
    on_host: contextlib.ExitStack, parent: str, wishes: Collection[str]
) -> dict[str, Any]:
    for path in host.COVERED:
        on_host.callback(host.SharedFolder(path).release)
    data = host.DataFolder(parent)
    on_host.callback(data.release)
    on_host.callback(cgroups.remove, data.name)
    lifeline_read, lifeline_write = os.pipe()
    report_read, report_write = os.pipe()
    with children_born_in(None):
        pid = os.fork()
        if pid == 0:
            os.close(lifeline_write)
            _process_one(data.path, wishes, lifeline_read, report_write)
    os.close(lifeline_read)
    os.close(report_write)
    on_host.callback(_end_process_one, pid, lifeline_write)
    with os.fdopen(report_read) as reader:
        report: dict[str, Any] = json.loads(reader.read())
    report.update(pid=pid, data=data.path)
    data.kept = "keep" in wishes and not report.get("in_memory")
    return report


def _process_one(data: str, wishes: Collection[str], lifeline: int, report_to: int) -> NoReturn:
    """Furnish the mount namespace, then do nothing but exist until the lifeline closes."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # The kernel then reaps what containers leave behind.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with open(os.devnull, "r+") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        try:
            report: dict[str, Any] = {"in_memory": _furnish(data, wishes)}
        except OSError as error:
            report = {"error": str(error)}
        with os.fdopen(report_to, "w") as writer:
            writer.write(json.dumps(report))
        os.read(lifeline, 1)
    finally:
        os._exit(0)


def _furnish(data: str, wishes: Collection[str]) -> bool:
    """Mount what the world needs; True if `data` had to be put into memory."""
    if "network" in wishes:
        unshare(CLONE_NEWNET)
        _loopback_up()
    unshare(CLONE_NEWNS)
    # Cut off from the host first, then shared within: a layer that is mounted by the plugin has
    # to show in the mount namespaces that engine and runtime make below this one.
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", "/", "", MS_REC | MS_SHARED)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in host.COVERED:
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    if "cgroups" in wishes:
        cgroups.mount_all()
    if _carries_overlays(data):
        return False
    mount("tmpfs", data, "tmpfs", 0, "mode=0711")
    return True


def _carries_overlays(folder: str) -> bool:
    """Whether the file system can hold the upper folder of an overlay mount."""
    probe = os.path.join(folder, "probe")
    parts = [os.path.join(probe, name) for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        make_directories(part, 0o700)
    try:
        layers = "lowerdir={},upperdir={},workdir={}".format(*parts)
        mount("overlay", parts[3], "overlay", 0, layers)
    except OSError:
        return False
    else:
        unmount(parts[3])
        return True
    finally:
        host.remove_tree(probe)


def _loopback_up() -> None:
    """Switch on the loopback device of this network namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)


def _end_process_one(pid: int, lifeline: int) -> None:
    os.close(lifeline)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    # Its end takes as long as that of all others in the namespace.  One whose parent died and was
    # replaced by a process 1 that reaps nothing stays for ever, as a zombie that holds nothing.
    deadline = time.monotonic() + 10
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _end(number: int, frame: object) -> None:
    raise InterruptedError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
