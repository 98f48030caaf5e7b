"""What a container may do to its files, drawn at random."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from pathlib import Path
from typing import Tuple

from hypothesis import strategies as st

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
OLD = 1_400_000_000 * 10**9

_PATHS = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "s", "n", "n/a"])
_TIMES = st.sampled_from([OLD, OLD + 1, OLD + 10**9])

#: One operation: its name, and its arguments.
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), _PATHS),
    st.tuples(st.just("write"), _PATHS, st.sampled_from([b"", b"base", b"BASE", b"longer text"])),
    st.tuples(st.just("append"), _PATHS),
    st.tuples(st.just("open"), _PATHS),
    st.tuples(st.just("chmod"), _PATHS, st.sampled_from([0o644, 0o600, 0o755, 0o4711])),
    st.tuples(st.just("chown"), _PATHS, st.sampled_from([0, 7]), st.sampled_from([0, 8])),
    st.tuples(st.just("utime"), _PATHS, _TIMES),
    st.tuples(st.just("rename"), _PATHS, _PATHS),
    st.tuples(st.just("symlink"), _PATHS, st.sampled_from(["a", "b", "longer"])),
    st.tuples(st.just("retarget"), _PATHS, st.sampled_from(["a", "b"]), _TIMES),
    st.tuples(st.just("unlink"), _PATHS),
    st.tuples(st.just("rmdir"), _PATHS),
    st.tuples(st.just("mkdir"), _PATHS),
    st.tuples(st.just("renew"), _PATHS),
    st.tuples(st.just("rmtree"), _PATHS),
    st.tuples(st.just("link"), _PATHS, _PATHS),
    st.tuples(st.just("mknod"), _PATHS),
    st.tuples(st.just("capability"), _PATHS),
    st.tuples(st.just("become"), _PATHS),
)


def make_base(tree: Path) -> None:
    """Some files of every type, all of the same old time."""
    for folder in ("d", "d/e"):
        (tree / folder).mkdir()
    for file in ("a", "b", "d/a", "d/e/a", "d/e/b"):
        (tree / file).write_bytes(b"base")
    (tree / "s").symlink_to("a")
    os.link(tree / "d" / "a", tree / "d" / "b")
    os.mknod(tree / "c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo(tree / "p")
    for folder, _, names in os.walk(tree):
        for name in names:
            os.utime(os.path.join(folder, name), ns=(OLD, OLD), follow_symlinks=False)
        os.utime(folder, ns=(OLD, OLD))


def perform(tree: Path, operation: Tuple) -> None:
    """Do it, if it can be done."""
    name, path, *arguments = operation
    try:
        globals()[f"_{name}"](tree / path, *arguments, *([tree] if name in _WITH_TREE else []))
    except OSError:
        pass


_WITH_TREE = ("rename", "link")


def _create(path):
    path.touch(exist_ok=False)


def _write(path, data):
    if not path.is_symlink():
        path.write_bytes(data)


def _append(path):
    with open(path, "ab") as file:
        file.write(b"more")


def _open(path):
    os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK))


def _chmod(path, mode):
    if not path.is_symlink():
        os.chmod(path, mode)


def _chown(path, uid, gid):
    os.chown(path, uid, gid, follow_symlinks=False)


def _utime(path, mtime_ns):
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _rename(path, other, tree):
    os.rename(path, tree / other)


def _symlink(path, target):
    os.symlink(target, path)


def _retarget(path, target, mtime_ns):
    if path.is_symlink():
        path.unlink()
        os.symlink(target, path)
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _unlink(path):
    path.unlink()


def _rmdir(path):
    path.rmdir()


def _mkdir(path):
    path.mkdir()


def _rmtree(path):
    if not path.is_symlink():
        shutil.rmtree(path)


def _renew(path):
    """Remove a folder with all in it, and make one of its name."""
    _rmtree(path)
    path.mkdir()


def _link(path, other, tree):
    os.link(path, tree / other, follow_symlinks=False)


def _mknod(path):
    os.mknod(path, stat.S_IFBLK | 0o640, os.makedev(7, 1))


def _capability(path):
    os.setxattr(path, "security.capability", CAPABILITY, follow_symlinks=False)


def _become(path):
    """Turn a folder into a file, and anything else into a folder with a file in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        path.write_bytes(b"was a folder")
    else:
        path.unlink()
        path.mkdir()
        (path / "a").write_bytes(b"was none")
