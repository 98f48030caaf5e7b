"""What a tree looks like to a program in the container, as data to compare two engines by.

`read_tree` reads a mounted tree without following a link out of it; `differing` names what is not
equal between two.  Easy to get wrong: reading changes a tree.  Access times move when a file is
read, so all ``lstat`` come before the first ``read``; and whatever the engine makes itself gets the
present as its time, which no two engines share, so times from this run are told as `RECENT`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import time
from typing import Dict, Iterator, Mapping, Optional, Tuple, Union

STARTED = time.time_ns()
RECENT = "during this run"

#: What an engine puts into every container (its "init layer"), which no operation may touch.
ENGINES_OWN = (b"dev", b"etc", b"proc", b"sys", b".dockerenv")

Time = Union[int, str]


@dataclasses.dataclass(frozen=True)
class File:
    """One path of a tree.

    links: other names of the same file, for all but folders.
    size, content: of regular files; content as its sha256.
    atime: not of folders, which the walk itself reads.
    """

    type: str
    mode: int
    uid: int
    gid: int
    mtime: Time
    atime: Optional[Time] = None
    size: int = 0
    device: int = 0
    nlink: int = 0
    links: Tuple[bytes, ...] = ()
    target: bytes = b""
    content: str = ""
    xattrs: Tuple[Tuple[str, bytes], ...] = ()


Tree = Dict[bytes, File]

#: A name in a folder's list with nothing behind it.
PHANTOM = File("phantom", 0, 0, 0, RECENT)

_LETTERS = {
    stat.S_IFREG: "F",
    stat.S_IFDIR: "D",
    stat.S_IFLNK: "S",
    stat.S_IFCHR: "C",
    stat.S_IFBLK: "B",
    stat.S_IFIFO: "P",
    stat.S_IFSOCK: "socket",
}


def walk(root: str) -> Iterator[Tuple[bytes, Optional[os.stat_result]]]:
    """Every path below `root` with its ``lstat``, folders before what they hold.

    None instead of it where a name is listed but nothing is there: the kernel shows a whiteout in
    a folder that merges with none below.
    """
    pending = [b""]
    top = os.fsencode(root)
    while pending:
        folder = pending.pop()
        for name in sorted(os.listdir(top + b"/" + folder), reverse=True):
            path = folder + b"/" + name if folder else name
            try:
                status = os.lstat(top + b"/" + path)
            except FileNotFoundError:
                yield path, None
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)


def read_tree(root: str) -> Tree:
    """The whole tree below `root`, and `root` itself under the empty path."""
    statuses = {b"": os.lstat(root), **dict(walk(root))}
    names: dict[tuple[int, int], list[bytes]] = {}
    for path, status in statuses.items():
        if status is not None:
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
    tree: Tree = {}
    for path, status in sorted(statuses.items()):
        if status is None:
            tree[path] = PHANTOM
            continue
        full = os.path.join(os.fsencode(root), path)
        others = names[status.st_dev, status.st_ino]
        tree[path] = _read(full, status, tuple(sorted(set(others) - {path})))
    return tree


def _read(path: bytes, status: os.stat_result, others: Tuple[bytes, ...]) -> File:
    letter = _LETTERS[stat.S_IFMT(status.st_mode)]
    folder = letter == "D"
    content = ""
    if letter == "F":
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    return File(
        type=letter,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=moment(status.st_mtime_ns),
        atime=None if folder else moment(status.st_atime_ns),
        size=status.st_size if letter == "F" else 0,
        device=status.st_rdev,
        nlink=0 if folder else status.st_nlink,
        links=() if folder else others,
        target=os.readlink(path) if letter == "S" else b"",
        content=content,
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
    )


def moment(nanoseconds: int) -> Time:
    """A time as it can be compared: the present is `RECENT`."""
    # The kernel's clock for files lags behind by up to a tick, and tars cut seconds.
    return RECENT if nanoseconds >= STARTED - 2 * 10**9 and nanoseconds < 2**62 else nanoseconds


def differing(left: Mapping[bytes, object], right: Mapping[bytes, object], what: str) -> list[str]:
    """A line for each path, or each field of a path, that is not equal."""
    lines = []
    for path in sorted(set(left) | set(right)):
        if path not in right or path not in left:
            here, there = ("left", "right") if path in left else ("right", "left")
            lines.append(f"{what} {path!r}: only {here}, not {there}")
        elif left[path] != right[path]:
            one, other = left[path], right[path]
            if type(one) is not type(other) or not dataclasses.is_dataclass(one):
                lines.append(f"{what} {path!r}: {one!r} left, {other!r} right")
                continue
            for field in dataclasses.fields(one):
                a, b = getattr(one, field.name), getattr(other, field.name)
                if a != b:
                    lines.append(f"{what} {path!r}: {field.name} {_told(a)} left, {_told(b)} right")
    return lines


def _told(value: object) -> str:
    return oct(value) if isinstance(value, int) and value < 0o10000 else repr(value)[:200]
