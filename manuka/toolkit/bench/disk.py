"""Disks for the contenders: ext4 in loop files in memory, seen by this process and its children.

All mounts are made in a mount namespace of this process's own.  When the process ends, however it
ends, the kernel takes the namespace apart: file systems, loop devices (which `mount` makes to go
with their mounts) and the memory.  Neighbours: `run` makes the disks, `contender` uses them.  Easy
to get wrong: blocks that an ext4 frees stay in the loop file, and so in memory, until `trim`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import types
from typing import List, Optional, Sequence, Type

from manuka.errors import ManukaError
from manuka.linux.mount import MS_PRIVATE, MS_REC, mount, unmount
from manuka.linux.syncfs import syncfs
from manuka.toolkit.unshare import CLONE_NEWNS, setns, unshare

MB = 1_000_000
#: Folders that every system has, and one of which is covered, so that none has to be made.
_COVERABLE = ("/mnt", "/media", "/srv", "/opt")


class BenchError(ManukaError):
    """The benchmark cannot be made here, with what to do about it."""


class Disks:
    """A place in memory with disks in it, within a ``with`` block; all are gone with the block.

    needed: bytes of memory that must be free.
    visible: paths that must stay visible to this process and its children.
    """

    def __init__(self, needed: int, visible: Sequence[str]) -> None:
        if os.geteuid() != 0:
            raise BenchError("the benchmark mounts file systems: run it as root (sudo)")
        for program, package in (("mkfs.ext4", "e2fsprogs"), ("mount", "mount")):
            if shutil.which(program, path=os.defpath + ":/sbin:/usr/sbin") is None:
                raise BenchError(f"no {program} on this machine: apt-get install {package}")
        if not os.path.exists("/dev/loop-control"):
            raise BenchError("no loop devices (/dev/loop-control): modprobe loop, or a host's own")
        free = memory_available()
        if free < needed:
            raise BenchError(
                f"the benchmark keeps its disks in memory and needs {needed // MB} MB of it, but "
                f"only {free // MB} MB are available; --only NAME measures less, --quick the least"
            )
        self._needed = needed
        self._root = _coverable(visible)
        self._mounted: List[str] = []

    def __enter__(self) -> Disks:
        self._outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "", MS_REC | MS_PRIVATE)
            mount("tmpfs", self._root, "tmpfs", 0, "mode=0711,size=90%")
            self._mounted.append(self._root)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        while self._mounted:
            unmount(self._mounted.pop())
        setns(self._outside, CLONE_NEWNS)
        os.close(self._outside)

    def make(self, name: str, size: int) -> Disk:
        """A new, empty disk of `size` bytes, which take no memory until they are written."""
        image, folder = (os.path.join(self._root, name + end) for end in (".ext4", ""))
        with open(image, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        os.mkdir(folder, 0o711)
        # Without a thread in the kernel that fills tables while others are measured.
        try:
            _run("mount", "-o", "loop,noinit_itable", image, folder)
        except BenchError as error:
            raise BenchError(f"no loop device for a disk in memory: {error}") from None
        self._mounted.append(folder)
        return Disk(folder, image)


class Disk:
    """One disk.  folder: where it is mounted."""

    def __init__(self, folder: str, image: str) -> None:
        self.folder = folder
        self._image = image

    def settle(self) -> None:
        """Write out what is waiting, so that nobody else's time is spent on it."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def trim(self) -> None:
        """Give back the memory of what has been deleted."""
        self.settle()
        _run("fstrim", self.folder)

    @property
    def memory(self) -> int:
        """Bytes of memory that the disk takes."""
        return os.stat(self._image).st_blocks * 512


def memory_available() -> int:
    """Bytes that can be had without swapping (proc(5))."""
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    raise BenchError("/proc/meminfo does not tell how much memory is available")


def _coverable(visible: Sequence[str]) -> str:
    paths = [os.path.realpath(path) for path in visible]
    for folder in _COVERABLE:
        if os.path.isdir(folder) and not any(
            path == folder or path.startswith(folder + "/") for path in paths
        ):
            return folder
    raise BenchError(
        "no folder to mount on: one of {} has to be there".format(" ".join(_COVERABLE))
    )


def _run(*command: str) -> None:
    env = dict(os.environ, PATH=os.environ.get("PATH", os.defpath) + ":/sbin:/usr/sbin", LC_ALL="C")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        raise BenchError("{}: {}".format(" ".join(command), said))
