"""What lies in a folder, as a dictionary that two of can be compared and read."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Collection, Dict, List, Tuple

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

Snapshot = Dict[str, Dict[str, Any]]


def snapshot(root: object, ignore: Collection[str] = ()) -> Snapshot:
    """Every file below `root` by its path, with what is known about it.

    type, mode, owner and mtime_ns always; size and content (a hash) of files, target of links,
    device of devices; xattrs and links (all paths of an inode) where there are any.  `ignore`
    names what to leave out, "folder times" too.
    """
    found: Snapshot = {}
    inodes: Dict[Tuple[int, int], List[str]] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for name in os.listdir(os.path.join(str(root), folder)):
            path = os.path.join(folder, name)
            status = os.lstat(os.path.join(str(root), path))
            found[path] = _record(os.path.join(str(root), path), status)
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
                if "folder times" in ignore:
                    del found[path]["mtime_ns"]
            elif status.st_nlink > 1:
                inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
    for paths in inodes.values():
        for path in paths if len(paths) > 1 else ():
            found[path]["links"] = sorted(paths)
    for record in found.values():
        for field in ignore:
            record.pop(field, None)
    return dict(sorted(found.items()))


def _record(path: str, status: os.stat_result) -> Dict[str, Any]:
    mode = status.st_mode
    record: Dict[str, Any] = {
        "type": _TYPES[stat.S_IFMT(mode)],
        "mode": oct(stat.S_IMODE(mode)),
        "owner": f"{status.st_uid}:{status.st_gid}",
        "mtime_ns": status.st_mtime_ns,
    }
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            record["content"] = hashlib.sha256(file.read()).hexdigest()[:12]
        record["size"] = status.st_size
    elif stat.S_ISLNK(mode):
        record["target"] = os.readlink(path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        record["device"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    }
    if xattrs:
        record["xattrs"] = xattrs
    return record
