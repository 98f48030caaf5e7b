"""What is mounted, from /proc/self/mountinfo.

`manuka.linux.mount` changes it.  Easy to get wrong: the kernel writes blanks, tabs, line ends and
backslashes in paths as octal escapes, the number of optional fields varies from line to line, and
mount points are real paths, without symlinks.  The format is proc(5)'s.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_ESCAPE = re.compile(rb"\\([0-7]{3})")

#: What the top of a subvolume of btrfs has, and hardly any other file system's top.
_SUBVOLUME_INODE = 256


class Mount(NamedTuple):
    """One line of mountinfo.

    root: the folder of the file system that is visible at `mount_point`.
    options, super_options: those of the mount and of the file system, separated by commas, as
        the kernel writes them (escapes and all, for they keep commas in values apart).
    """

    mount_id: int
    parent_id: int
    root: str
    mount_point: str
    options: str
    fstype: str
    source: str
    super_options: str


def mounts() -> list[Mount]:
    """All mounts that this process sees, in the kernel's order: parents before children."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [parse(line) for line in file.read().split(b"\n") if line]


def parse(line: bytes) -> Mount:
    """The mount in one line of mountinfo, without its line end."""
    fields = line.split(b" ")
    after = fields.index(b"-", 6) + 1
    return Mount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        root=_unescape(fields[3]),
        mount_point=_unescape(fields[4]),
        options=os.fsdecode(fields[5]),
        fstype=_unescape(fields[after]),
        source=_unescape(fields[after + 1]),
        super_options=os.fsdecode(fields[after + 2]),
    )


def mounts_below(folder: str) -> list[str]:
    """The mount points strictly below `folder`, deepest first.

    A mount point with several mounts on top of each other is there once for each.
    """
    prefix = os.path.realpath(folder).rstrip("/") + "/"
    found = [
        mount.mount_point
        for mount in mounts()
        if mount.mount_point.startswith(prefix) and mount.mount_point != prefix
    ]
    return sorted(found, key=lambda path: path.count("/"), reverse=True)


def is_mount_point(path: str) -> bool:
    """Whether a file system of its own, as an overlay is, is mounted at `path`.

    Cheap: it compares devices, and reads mountinfo only for what may be a subvolume of btrfs,
    which has a device of its own without being mounted.  So a bind mount of a folder of the same
    file system, and "/", are not seen.  False when `path` is missing or a symlink.
    """
    try:
        status = os.lstat(path.rstrip("/") or "/")
        folder, name = os.path.split(os.path.abspath(path))
        if status.st_dev == os.stat(folder).st_dev:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    if status.st_ino != _SUBVOLUME_INODE:
        return True
    canonical = os.path.join(os.path.realpath(folder), name)
    return any(mount.mount_point == canonical for mount in mounts())


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), field))
