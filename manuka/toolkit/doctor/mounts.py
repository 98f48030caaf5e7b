"""Checks of where mounts are seen: plugin, engine and containerd have to see the same ones.

Easy to get wrong: a slave copy of the host's mounts receives what is mounted there and sends
nothing back, so a plugin in one mounts for itself alone, and containers start on empty folders.
Source: mount_namespaces(7).
"""

from __future__ import annotations

import os
from typing import Iterator

from manuka.linux.mountinfo import Mount
from manuka.linux.mountinfo import parse as parse_mount
from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import Patient
from manuka.toolkit.doctor.plugin import plugin_process
from manuka.toolkit.doctor.processes import Process, listeners, processes

_CONTAINERD = "/run/containerd/containerd.sock"
_MOUNT_MAX = "/proc/sys/fs/mount-max"

_UNIT = (
    "Take out of the plugin's unit what gives it mounts of its own (PrivateTmp, ProtectSystem, "
    "ProtectHome, PrivateDevices, ReadWritePaths, MountFlags and the like), and restart it."
)


def namespaces(patient: Patient) -> Iterator[Finding]:
    """Whether what the plugin mounts shows where the engine and containerd look."""
    plugin = plugin_process(patient)
    if plugin is None or plugin.mount_namespace is None:
        return
    others = ([patient.engine] if patient.engine is not None else []) + _containerd(patient)
    apart = [
        str(one)
        for one in others
        if one.mount_namespace not in (None, plugin.mount_namespace)
        and not _reaches(plugin.pid, one.pid, patient.home)
    ]
    if apart:
        yield Finding(
            "mount-namespace",
            PROBLEM,
            f"What {plugin} mounts is not seen by {', '.join(apart)}: it has a mount namespace of "
            "its own. Pulling works then, and containers start on empty folders.",
            _UNIT,
        )
    elif others:
        names = ", ".join(str(one) for one in others)
        yield Finding("mount-namespace", OK, f"What {plugin} mounts is seen by {names}.")


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Mounts below the driver's folder, when no engine is there to use them."""
    home = patient.home if patient.is_apart else os.path.realpath(patient.home)
    prefix = home + "/"
    pid = patient.engine.pid if patient.engine is not None else os.getpid()
    found = [mount for mount in _mounts(pid) if mount.mount_point.startswith(prefix)]
    if found and patient.engine is None:
        yield Finding(
            "leftover-mounts",
            NOTE,
            f"{len(found)} layers are mounted below {patient.home}, the first at "
            f"{found[0].mount_point}, though no engine runs.",
            "Containers may still run on them (live-restore); the driver takes them up again.",
        )


def crowd(patient: Patient) -> Iterator[Finding]:
    """Whether the kernel will soon refuse to mount more (``fs.mount-max``, proc_sys_fs(5))."""
    with open(_MOUNT_MAX, encoding="ascii") as file:
        most = int(file.read())
    count = len(_lines(patient.engine.pid if patient.engine is not None else os.getpid()))
    if count * 5 > most * 4:
        yield Finding(
            "mount-max",
            WARNING,
            f"{count} file systems are mounted; the kernel's limit is {most}, and then no "
            "container starts.",
            f"sysctl fs.mount-max={2 * most}",
        )


def _containerd(patient: Patient) -> list[Process]:
    """The containerd that the engine uses: its child, or the one behind the socket it is told.

    Source: ``initContainerd`` in the engine's ``cmd/dockerd``.
    """
    if patient.engine is not None:
        pid = patient.engine.pid
        found = [one for one in processes() if one.name == "containerd" and one.parent == pid]
        if found:
            return found
    path = patient.reach(str(patient.setting("containerd", "--containerd") or _CONTAINERD))
    try:
        return [one for one in listeners(path) if one.name == "containerd"]
    except OSError:
        return []


def _reaches(plugin_pid: int, other_pid: int, home: str) -> bool:
    """Whether a mount of the plugin below `home` propagates to the other process."""
    own = _peer_group(plugin_pid, home)
    return own is not None and own in _peer_groups(other_pid)


def _peer_group(pid: int, path: str) -> str | None:
    """The ``shared:N`` of the mount that `path` lies on, as process `pid` sees it."""
    best = ("", None)
    for point, shared, _ in _propagation(pid):
        below = path == point or path.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(best[0]):
            best = (point, shared)  # type: ignore[assignment]
    return best[1]


def _peer_groups(pid: int) -> set[str]:
    """The peer groups from which process `pid` receives mounts."""
    return {group for _, shared, master in _propagation(pid) for group in (shared, master) if group}


def _propagation(pid: int) -> list[tuple[str, str | None, str | None]]:
    """Mount point, own peer group, and the group that is received from, of each mount."""
    found = []
    for line in _lines(pid):
        fields = os.fsdecode(line).split(" ")
        tags = dict(field.partition(":")[::2] for field in fields[6 : fields.index("-", 6)])
        found.append((parse_mount(line).mount_point, tags.get("shared"), tags.get("master")))
    return found


def _mounts(pid: int) -> list[Mount]:
    return [parse_mount(line) for line in _lines(pid)]


def _lines(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            return [line for line in file.read().split(b"\n") if line]
    except OSError:
        return []
