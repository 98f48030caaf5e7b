"""A tree to begin with, for tests that let `tests.parity.operations` change it at random."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
OLD = 1_400_000_000 * 10**9


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
