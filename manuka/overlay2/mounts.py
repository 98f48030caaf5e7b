"""Mounting a layer stack, and counting who needs it mounted.

`MountCounts` is the one owner of the counts.  The mount itself is the record of the first user;
each further one is noted in a file, so that a plugin started anew under running containers knows
what its predecessor knew.  The engine's own driver keeps counts in its process only, which is
enough there: its process is the engine.

Source: ``Get``, ``Put`` and ``mountFrom`` in the engine's ``daemon/graphdriver/overlay2``, and
``daemon/graphdriver/counter.go``.  Easy to get wrong: mount(2) takes one page of data, so that a
deep stack has to be mounted with relative paths; and a Put for a layer that was never counted may
mean a mount left by an engine that died.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Sequence

from manuka.linux.kernel import page_size
from manuka.linux.mount import mount, mount_from, unmount
from manuka.linux.mountinfo import is_mount_point
from manuka.overlay2.layout import Layer

log = logging.getLogger(__name__)

#: What mount(2)'s option string cannot hold in a path without changing its meaning.
_SPECIAL = frozenset(':,\\"')


class MountCounts:
    """How often each layer is in use.  Callers hold the layer's lock."""

    def __init__(self, run_dir: str | None) -> None:
        """`run_dir` keeps counts over restarts of this process; None: they are not kept."""
        self._folder = None if run_dir is None else f"{run_dir}/counts"
        if self._folder is not None:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._counts: dict[str, int] = {}

    def get(self, layer: Layer) -> int:
        """The layer's count.  A mount that is met for the first time is adopted with its record."""
        count = self._counts.get(layer.id)
        if count is None:
            count = max(1, self._recorded(layer)) if is_mount_point(layer.merged) else 0
        return count

    def set(self, layer: Layer, count: int) -> None:
        """Change the layer's count, and its record."""
        if count > 1 or self.get(layer) > 1:
            self._record(layer, count)
        if count:
            self._counts[layer.id] = count
        else:
            self._counts.pop(layer.id, None)

    def clear(self) -> None:
        """Forget all counts: nothing is mounted any more."""
        self._counts.clear()
        if self._folder is not None:
            for name in os.listdir(self._folder):
                os.unlink(f"{self._folder}/{name}")

    def _recorded(self, layer: Layer) -> int:
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError, ValueError):
                with open(f"{self._folder}/{layer.id}", encoding="ascii") as file:
                    return int(file.read())
        return 0

    def _record(self, layer: Layer, count: int) -> None:
        if self._folder is None:
            return
        path = f"{self._folder}/{layer.id}"
        if count > 1:
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.write(str(count))
            os.rename(f"{path}.new", path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def mount_layer(
    layer: Layer, lowers: Sequence[str], options: str, label: str, owner: tuple[int, int]
) -> None:
    """Mount a layer with its `lowers` (``l/SHORT``) at its ``merged`` folder.

    options: mount options for this kernel, each with a comma behind it.
    owner: that of the folder in the container's eyes, root's.

    A committed layer is mounted read-only: others are built upon it.  Raises OSError.
    """
    _make_mount_point(layer.merged, owner)
    committed = layer.is_committed()
    tail = f',context="{label}"' if label else ""
    data = _mount_data(f"{layer.home}/", layer, lowers, committed, options) + tail
    if len(os.fsencode(data)) < page_size() and not _SPECIAL & set(layer.home):
        mount("overlay", layer.merged, "overlay", 0, data)
    else:
        data = _mount_data("", layer, lowers, committed, options) + tail
        mount_from(layer.home, "overlay", f"{layer.id}/merged", "overlay", 0, data)
    if not committed:
        # The kernel makes this folder; a container's root must be able to use it.
        os.chown(f"{layer.work}/work", *owner)


def unmount_layer(layer: Layer) -> None:
    """Unmount a layer and remove its mount point.  What does not work is only logged."""
    try:
        unmount(layer.merged, detach=True)
    except OSError as error:
        log.debug("unmounting %s: %s", layer.merged, error)
    # Removing the mount point also ends copies of the mount in other mount namespaces.
    try:
        os.rmdir(layer.merged)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("removing the mount point %s: %s", layer.merged, error)


def _mount_data(
    prefix: str, layer: Layer, lowers: Sequence[str], committed: bool, options: str
) -> str:
    lower_paths = [prefix + lower for lower in lowers]
    own = f"{prefix}{layer.id}"
    if committed:
        return f"{options}lowerdir={':'.join([f'{own}/diff', *lower_paths])}"
    return f"{options}lowerdir={':'.join(lower_paths)},upperdir={own}/diff,workdir={own}/work"


def _make_mount_point(path: str, owner: tuple[int, int]) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    os.chown(path, *owner)
