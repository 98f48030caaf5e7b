"""Control group hierarchies: which the kernel has, which are mounted, and mounting them all.

Processes are in every hierarchy that the kernel has, mounted or not, and ``/proc/self/cgroup``
lists all of them (cgroups(7)).  containerd's first runtime, which engines before 20.10 use, wants
to see each one that is listed, and else starts no container: "cannot find cgroup mount
destination".
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from manuka.linux.mount import MS_PRIVATE, MS_REC, mount
from manuka.linux.mountinfo import mounts
from manuka.toolkit.unshare import CLONE_NEWNS, unshare

FOLDER = "/sys/fs/cgroup"
_UNIFIED = ""  # how /proc/self/cgroup lists the hierarchy of cgroup v2


def listed() -> list[str]:
    """Each hierarchy: the controllers of one of v1, its ``name=``, or "" for that of v2."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return [line.split(":", 2)[1] for line in file.read().splitlines()]


def unmounted() -> list[str]:
    """The hierarchies of v1 that are listed, and mounted nowhere that this process sees."""
    seen = [set(one.super_options.split(",")) for one in mounts() if one.fstype == "cgroup"]
    return [
        one
        for one in listed()
        if one != _UNIFIED and not any(set(one.split(",")) <= options for options in seen)
    ]


def mount_all(folder: str = FOLDER) -> None:
    """Mount every listed hierarchy below `folder`, upon what is there: v2's on ``unified``.

    Each controller has a name, as systemd makes them: ``cpu`` leads to ``cpu,cpuacct``.
    """
    mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
    for hierarchy in listed():
        name = hierarchy[len("name=") :] if hierarchy.startswith("name=") else hierarchy
        point = os.path.join(folder, name or "unified")
        os.mkdir(point)
        if hierarchy == _UNIFIED:
            mount("cgroup2", point, "cgroup2")
            continue
        mount("cgroup", point, "cgroup", 0, f"none,{hierarchy}" if "=" in hierarchy else hierarchy)
        if "," in name:
            for controller in name.split(","):
                os.symlink(name, os.path.join(folder, controller))


def remove(name: str, patience: float = 5.0) -> None:
    """Remove the control groups called `name` from every hierarchy, once they are empty.

    Those that are mounted nowhere are mounted for it, in a mount namespace of a child process.
    """
    if not unmounted():
        _remove(name, patience)
        return
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "", MS_REC | MS_PRIVATE)
            mount_all()
            _remove(name, patience)
        except OSError as error:
            print(f"control groups of the sandbox: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _remove(name: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    points = [one.mount_point for one in mounts() if one.fstype in ("cgroup", "cgroup2")]
    tops = [os.path.join(point, name) for point in points]
    while True:
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # the last process is still on its way out
                    os.rmdir(folder)
        if not any(os.path.isdir(top) for top in tops) or time.monotonic() > deadline:
            return
        time.sleep(0.05)
