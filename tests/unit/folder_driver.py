"""The smallest driver for tests of what lies above drivers: a layer is a folder, whole."""

from __future__ import annotations

import os
import shutil
from typing import List, Optional, Tuple

from manuka.driver import CreateOptions, DriverError, GraphDriver, Settings


class FolderDriver(GraphDriver):
    """Layers are copies of their parents; nothing is mounted."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if "folder.broken=yes" in settings.options:
            raise DriverError("folder.broken is set, so there is no driver")
        os.makedirs(settings.home, exist_ok=True)

    def path(self, layer_id: str) -> str:
        return os.path.join(self.settings.home, layer_id)

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if parent is None:
            os.mkdir(self.path(layer_id), 0o755)
        else:
            shutil.copytree(self.path(parent), self.path(layer_id), symlinks=True)

    def remove(self, layer_id: str) -> None:
        shutil.rmtree(self.path(layer_id), ignore_errors=True)

    def get(self, layer_id: str, mount_label: str = "") -> str:
        if not self.exists(layer_id):
            raise DriverError(f"there is no layer {layer_id}")
        return self.path(layer_id)

    def put(self, layer_id: str) -> None:
        pass

    def exists(self, layer_id: str) -> bool:
        return os.path.isdir(self.path(layer_id))

    def status(self) -> List[Tuple[str, str]]:
        return [("Kept in", self.settings.home)]
