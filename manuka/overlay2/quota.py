"""A limit for what a container may write, by an xfs project quota.

Each limited layer is a project of its own: the kernel counts what is written below a directory that
carries the project's number, and its new files inherit the number.

Numbers belong to the whole disk, and others use them as well.  The engine numbers its volumes
(``docker volume create -o size=20m``) and the layers of its own overlay2 upwards from the highest
number that it finds among them, which is mostly 0; administrators choose small ones (projid(5)).
So ours come from a range far above, highest first, and one that is in use is left out.  Whatever
the engine has counted up from, one of ours included, it never comes down into the range.  Layers of
before have small numbers, and keep them.

The directories that are numbered are those that a container writes to, and not the layer's: the
driver's home may belong to a project of the administrator's, and what belongs to another cannot be
renamed into it (``xfs_rename`` in the kernel).

Source: ``quota/projectquota.go`` in the engine, ``daemon/graphdriver/quota`` before 20.10.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading

from manuka.driver import DriverError
from manuka.linux import quota
from manuka.overlay2.layout import Layer

log = logging.getLogger(__name__)

_DEVICE = "backingFsBlockDev"

#: The numbers of layers: those whose highest byte is an "M".
_NUMBERS = range(0x4DFFFFFF, 0x4D000000, -1)


class LayerQuota:
    """Hands out projects below one driver's home."""

    def __init__(self, home: str, filesystem: str) -> None:
        self._home = home
        self._filesystem = filesystem
        self._lock = threading.Lock()
        self._at = 0  # in _NUMBERS, of the next one to try

    def require(self) -> None:
        """Raise DriverError, with what to do, unless limits can be set here."""
        if self._filesystem != "xfs" or not quota.supported(self._device()):
            raise DriverError(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option; "
                f"{self._home} lies on {self._filesystem}: put the data-root on an xfs mounted so"
            )

    def limit(self, layer: str, size: int) -> None:
        """Let the directories in that of a layer, which are empty, hold `size` bytes at most."""
        project = self._new_project()
        try:
            for name in os.listdir(layer):
                quota.set_project_id(f"{layer}/{name}", project)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise DriverError(
                f"the xfs of {self._home} has project ids of 16 bits only, which cannot limit a "
                "container: unmount it and enable 32 bits with xfs_admin -p, or make it anew"
            ) from None
        quota.set_quota(self._device(), project, size)

    def project(self, layer: Layer) -> int:
        """The project that `limit` gave a layer; 0 when it has none, or one of before."""
        if self._filesystem == "xfs":
            with contextlib.suppress(OSError):  # it is damaged, or not there: then it has none
                project = quota.get_project_id(layer.diff)
                return project if project in _NUMBERS else 0
        return 0

    def release(self, project: int) -> None:
        """Lift the limit of a project whose layer was removed, so that the number is free again."""
        if project:
            try:
                quota.set_quota(self._device(), project, 0)
            except OSError as error:
                log.warning("project %d keeps its limit, and is not used again: %s", project, error)

    def _device(self) -> str:
        """A device node for the disk, which the quota calls want by name."""
        path = f"{self._home}/{_DEVICE}"
        device = os.stat(self._home).st_dev
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if stat.S_ISBLK(status.st_mode) and status.st_rdev == device:
                return path
            os.unlink(path)
        os.mknod(path, stat.S_IFBLK | 0o600, device)
        return path

    def _new_project(self) -> int:
        device = self._device()
        with self._lock:
            for _ in _NUMBERS:
                project = _NUMBERS[self._at]
                self._at = (self._at + 1) % len(_NUMBERS)
                if not quota.is_in_use(device, project):
                    return project
        raise DriverError(f"no project id is free for a limit on the disk of {self._home}")
