"""A limit for what a container may write, by an xfs project quota.

Each limited layer is a project of its own: the kernel counts what is written below a folder that
carries the project's number, and its new files inherit the number.

Source: ``quota/projectquota.go`` in the engine's ``daemon/graphdriver``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading

from manuka.driver import DriverError
from manuka.linux import quota

_DEVICE = "backingFsBlockDev"


class LayerQuota:
    """Hands out projects below one driver's home."""

    def __init__(self, home: str, filesystem: str) -> None:
        self._home = home
        self._filesystem = filesystem
        self._lock = threading.Lock()
        self._next = 0

    def require(self) -> None:
        """Raise DriverError, with what to do, unless limits can be set here."""
        if self._filesystem != "xfs" or not quota.supported(self._device()):
            raise DriverError(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option; "
                f"{self._home} lies on {self._filesystem}: put the data-root on an xfs mounted so"
            )

    def limit(self, folder: str, size: int) -> None:
        """Let `folder`, an empty one, never hold more than `size` bytes."""
        project = self._new_project()
        quota.set_project_id(folder, project)
        quota.set_quota(self._device(), project, size)

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
        with self._lock:
            if not self._next:
                self._next = max(quota.get_project_id(self._home), self._highest()) + 1
            project = self._next
            self._next += 1
            return project

    def _highest(self) -> int:
        """The highest number that a layer has from before."""
        highest = 0
        with os.scandir(self._home) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    highest = max(highest, quota.get_project_id(entry.path))
        return highest
