"""Whether a directory can be a driver's home, asked before anything in it is changed.

A driver changes the home's mode and owner, and deletes what it takes for the rest of a crash.  So
a home named by mistake must not cost anything: `check_home` is asked for every driver, an author's
too, whether the engine's Init or ``manuka serve --home`` names the home; `check_contents` by those
drivers that know their own layout.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Collection

from manuka.driver import DriverError
from manuka.layers.idmap import IDENTITY, IdMaps

#: Directories of the system (hier(7)) that others rely on, empty or not.
_SYSTEM = frozenset(
    (
        *("/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/lib32", "/lib64"),
        *(
            "/libx32",
            "/media",
            "/mnt",
            "/opt",
            "/proc",
            "/root",
            "/run",
            "/run/docker",
            "/run/lock",
        ),
        *("/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/games", "/usr/include"),
        *("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/libx32", "/usr/local"),
        *("/usr/sbin", "/usr/share", "/usr/src", "/var", "/var/backups", "/var/cache", "/var/lib"),
        *("/var/lib/containerd", "/var/lib/docker", "/var/local", "/var/log", "/var/mail"),
        *("/var/opt", "/var/spool", "/var/tmp"),
    )
)

#: Trees of the system in which nobody keeps layers.
_SYSTEM_TREES = ("/bin/", "/boot/", "/etc/", "/lib/", "/lib64/", "/proc/", "/sbin/", "/sys/",
                 "/usr/bin/", "/usr/lib/", "/usr/lib64/", "/usr/sbin/")  # fmt: skip

#: What a file system keeps at its top, where a disk is mounted at the home; and the engine's device
#: node for quotas (``quota/projectquota.go``).
_NOBODYS = frozenset(
    ("lost+found", "aquota.user", "aquota.group", "aquota.project", "backingFsBlockDev")
)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_MOST_NAMED = 3


def check_home(home: str, id_maps: IdMaps = IDENTITY) -> None:
    """Raise DriverError, with what to do, when `home` cannot be a driver's home.

    It has to be an absolute path without detours, of a directory, or of none yet below one; no
    directory of the system, nor a link to one; and if it is there, root's (or the remapped root's,
    as engines before 20.10 made it).  Changes nothing.
    """
    if not home.startswith("/") or "/" + os.path.normpath(home).lstrip("/") != home:
        raise _unfit(home, "is no absolute path without '.', '..' and surplus slashes")
    real = os.path.realpath(home)
    for path in (home, real):
        within = path.startswith(_SYSTEM_TREES)
        if within or path in _SYSTEM:
            what = f"{'lies in' if within else 'is'} a directory of the system"
            raise _unfit(home, what if path == home else f"leads to {path}, which {what}")
    there = home
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        if os.path.islink(there):
            raise _unfit(home, f"leads nowhere: {there} is a link to {os.readlink(there)}")
        raise _unfit(home, "is a file" if there == home else f"cannot be made: {there} is a file")
    if there == home:
        for status in (os.lstat(home), os.stat(home)):
            if status.st_uid not in _owners(id_maps):
                raise DriverError(
                    f"{home} belongs to uid {status.st_uid} (mode {status.st_mode & 0o7777:04o}): "
                    "a driver's home has to be root's, or its owner could put anything into it; "
                    f"if you trust what is in it: chown -h root:root {home}"
                )


def check_contents(
    home: str,
    own: Collection[str],
    layer: Collection[str],
    passing: Collection[str] = (),
    id_maps: IdMaps = IDENTITY,
) -> None:
    """Raise DriverError, naming it, when a home holds what its driver has not put there.

    own: the names of the directories that a driver keeps beside its layers.  They have to be
        directories of root's, since the driver deletes what is in them.
    layer: the names of what can be in a layer.
    passing: how the names of directories begin that a crash may have left.

    A home that is empty or missing is all right.  Changes nothing.
    """
    try:
        with os.scandir(home) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    strange, doubtful, ours = [], [], False
    for entry in entries:
        if entry.name in _NOBODYS or entry.name.startswith(tuple(passing)):
            continue
        if entry.name in own:
            _check_own(entry.path, id_maps)
            ours = True
            continue
        kind = _is_layer(entry, layer)
        if kind is None:
            doubtful.append(entry.name)
        elif kind:
            ours = True
        else:
            strange.append(entry.name)
    if not ours:
        strange += doubtful  # empty directories alone may be anyone's
    if strange:
        named = ", ".join(repr(name) for name in strange[:_MOST_NAMED])
        more = f" and {len(strange) - _MOST_NAMED} more" if len(strange) > _MOST_NAMED else ""
        raise DriverError(
            f"{home} holds what is not this driver's: {named}{more}; move it away, or give the "
            "driver an empty directory as its home"
        )


def _is_layer(entry: os.DirEntry[str], names: Collection[str]) -> bool | None:
    """Whether a home's entry is a layer; None for an empty directory, which may be one."""
    if not _ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
        return False
    try:
        found = os.listdir(entry.path)
    except OSError:  # One damaged layer must not keep the others from being served.
        return True
    return set(found) <= set(names) if found else None


def _check_own(path: str, id_maps: IdMaps) -> None:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR and status.st_uid in _owners(id_maps):
        return
    what = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}.get(kind, "file")
    raise DriverError(
        f"{path} is not this driver's: it is a {what} of uid {status.st_uid} (mode "
        f"{stat.S_IMODE(status.st_mode):04o}), and should be a directory of root's; move it away"
    )


def _owners(id_maps: IdMaps) -> tuple[int, ...]:
    return 0, os.geteuid(), id_maps.root[0]


def _unfit(home: str, why: str) -> DriverError:
    return DriverError(
        f"{home!r} cannot be a driver's home: it {why}; give the driver a directory of its own, "
        "such as /var/lib/docker/manuka"
    )
