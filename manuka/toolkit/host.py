"""What a sandbox leaves on the host while it lives: directories to cover, and data.

Neighbours: `manuka.toolkit.keeper` is the only caller.  Easy to get wrong: removing a folder
takes away every mount upon it *in every mount namespace*, so a folder that several sandboxes
cover goes only with the last of them, and only if a sandbox made it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
import subprocess
import tempfile
from typing import Iterator

from manuka.linux import statfs
from manuka.linux.btrfs import delete_subvolume, is_subvolume
from manuka.linux.mountinfo import mounts_below
from manuka.linux.private import make_directories
from manuka.toolkit import cgroups

# Engine and containerd put sockets, state and optional plugins there whatever their
# configuration says, so each sandbox covers them with folders of its own.
COVERED = ("/run/docker", "/run/containerd", "/opt/containerd")

DATA_PREFIX = "manuka-sandbox-"
_MARK = "trusted.manuka.sandbox"
_MARK_FILE = "made-by-manuka-sandbox"


class SharedFolder:
    """A folder that must exist on the host as long as any sandbox covers it.

    One that was there before is left as it is.  One that a sandbox makes carries a mark, and a
    shared lock of every sandbox that uses it; the last removes it, if it is empty.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None
        parent = os.path.dirname(path)
        self._parent = SharedFolder(parent) if not os.path.isdir(parent) else None
        with _one_at_a_time():
            made = not os.path.isdir(path)
            if made:
                make_directories(path, 0o755)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if made:
                with contextlib.suppress(OSError):  # no extended attributes here: ours alone
                    os.setxattr(fd, _MARK, b"1")
            elif not _is_marked(fd):
                os.close(fd)
                return
            fcntl.flock(fd, fcntl.LOCK_SH)
            self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            with _one_at_a_time():
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass
                else:
                    with contextlib.suppress(OSError):  # somebody put something into it
                        os.rmdir(self.path)
                os.close(self._fd)
                self._fd = None
        if self._parent is not None:
            self._parent.release()


class DataFolder:
    """The folder of one sandbox, locked while its keeper lives.

    kept: leave it at the end, to its owner; no later sandbox sweeps it away.
    """

    kept = False

    def __init__(self, parent: str) -> None:
        _sweep(parent)
        self.path = tempfile.mkdtemp(prefix=DATA_PREFIX, dir=parent)
        self.name = os.path.basename(self.path)
        # Remapped root owners have to pass through, but nobody has to look around.
        os.chmod(self.path, 0o711)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        mark = os.path.join(self.path, _MARK_FILE)
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def release(self) -> None:
        if self.kept:
            os.unlink(os.path.join(self.path, _MARK_FILE))
        else:
            remove_tree(self.path)
        os.close(self._fd)


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it; OSError with what is left when that fails.

    ``rm`` follows no link, crosses no mount with this option, and knows no limit of depth.  A
    subvolume of btrfs is another file system to it, so those are deleted here.
    """
    for _ in range(2):
        done = subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", path],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode == 0:
            return
        _make_mutable(path)
        _delete_subvolumes(path)
    raise OSError(errno.EBUSY, done.stderr.decode(errors="replace").strip(), path)


def _sweep(parent: str) -> None:
    """Remove what sandboxes left whose keeper was killed: they hold no lock any more."""
    for mark in glob.glob(os.path.join(parent, DATA_PREFIX + "*", _MARK_FILE)):
        folder = os.path.dirname(mark)
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid != 0:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
                cgroups.remove(os.path.basename(folder))
            finally:
                os.close(fd)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """One sandbox on the machine at a time."""
    fd = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_marked(fd: int) -> bool:
    try:
        return os.getxattr(fd, _MARK) == b"1"
    except OSError:
        return False


def _delete_subvolumes(path: str) -> None:
    """Delete the subvolumes of btrfs in a tree, but nothing of what is mounted there."""
    mounted = set(mounts_below(path))
    for folder, names, _ in os.walk(path):
        names[:] = [name for name in names if os.path.join(folder, name) not in mounted]
        for name in names:
            inside = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if is_subvolume(inside) and statfs.magic(inside) == statfs.BTRFS:
                    delete_subvolume(inside)


def _make_mutable(path: str) -> None:
    """Take the immutable and append-only flags off a tree (ioctl_iflags(2))."""
    get_flags, set_flags = 0x80086601, 0x40086602
    for folder, _, files in os.walk(path):
        for name in [folder] + [os.path.join(folder, file) for file in files]:
            with contextlib.suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    answer = fcntl.ioctl(fd, get_flags, struct.pack("l", 0))
                    flags = struct.unpack("l", answer)[0]
                    if flags & 0x30:
                        fcntl.ioctl(fd, set_flags, struct.pack("l", flags & ~0x30))
                finally:
                    os.close(fd)
