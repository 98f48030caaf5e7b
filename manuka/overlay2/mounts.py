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

from manuka.linux import private
from manuka.linux.kernel import page_size
from manuka.linux.mount import mount, mount_from, unmount
from manuka.linux.mountinfo import is_mount_point
from manuka.linux.presence import is_folder
from manuka.overlay2.layout import Layer

log = logging.getLogger(__name__)

#: What mount(2)'s option string cannot hold in a path without changing its meaning.
_SPECIAL = frozenset(':,\\"')


class MountCounts:
    """How often each layer is in use, by the engine and by the driver.  Callers hold its lock.

    What the engine holds has to outlive this process, what the driver mounts for itself must not.
    So the record is the number of the engine's users, and none is needed for the usual one.
    """

    def __init__(self, run_dir: str | None) -> None:
        """`run_dir` keeps counts over restarts of this process; None: they are not kept."""
        self._folder = None if run_dir is None else f"{run_dir}/counts"
        #: Whether the engine has just started, so that nothing of before is going on any more.
        self.engine_is_new = self._folder is not None and not is_folder(self._folder)
        if self._folder is not None:
            private.make_directories(self._folder, 0o700)
        self._counts: dict[str, int] = {}
        self._own: dict[str, int] = {}

    def get(self, layer: Layer) -> int:
        """The engine's users.  A mount that is met for the first time is adopted."""
        count = self._counts.get(layer.id)
        if count is None:
            if self.own(layer) or not is_mount_point(layer.merged):
                return 0
            recorded = self._recorded(layer)
            count = 1 if recorded is None else recorded
        return count

    def set(self, layer: Layer, count: int, before: int) -> None:
        """Change the number of the engine's users, which `get` gave as `before`, and its record."""
        if count > 1 or before > 1 or self.own(layer):
            self._record(layer, count if count > 1 or self.own(layer) else 1)
        if count:
            self._counts[layer.id] = count
        else:
            self._counts.pop(layer.id, None)

    def forget(self, layer: Layer) -> None:
        """The layer is going: so are its users, and what is recorded of them, known or not."""
        self._record(layer, 1)
        self._counts.pop(layer.id, None)

    def own(self, layer: Layer) -> int:
        """How often the driver uses the layer for itself."""
        return self._own.get(layer.id, 0)

    def set_own(self, layer: Layer, count: int) -> None:
        """Change that number: before a mount is made for the driver, and after it is gone."""
        users = self.get(layer)
        if users:
            self._counts[layer.id] = users
        else:
            self._record(layer, 0 if count else 1)
        if count:
            self._own[layer.id] = count
        else:
            self._own.pop(layer.id, None)

    def tidy(self, home: str) -> None:
        """Unmount what a driver that died had mounted for itself, and drop records of nothing."""
        for name in os.listdir(self._folder) if self._folder is not None else ():
            layer = Layer(home, name)
            if is_mount_point(layer.merged):
                if self._recorded(layer) != 0:
                    continue
                log.warning("unmounting %s, which a crash left mounted", layer.merged)
                unmount_layer(layer)
            os.unlink(f"{self._folder}/{name}")

    def clear(self) -> None:
        """Forget all counts: nothing is mounted any more."""
        self._counts.clear()
        if self._folder is not None:
            for name in os.listdir(self._folder):
                os.unlink(f"{self._folder}/{name}")

    def _recorded(self, layer: Layer) -> int | None:
        if self._folder is not None:
            try:
                count = int(private.read(f"{self._folder}/{layer.id}"))
                return count if count >= 0 else None
            except (FileNotFoundError, ValueError):
                pass
            except private.Distrusted as error:
                log.error("how often layer %s is in use is not believed: %s", layer.id, error)
        return None

    def _record(self, layer: Layer, count: int) -> None:
        if self._folder is None:
            return
        path = f"{self._folder}/{layer.id}"
        if count != 1:
            private.write(path, b"%d" % count)
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
        try:
            os.chown(f"{layer.work}/work", *owner)
        except FileNotFoundError:
            # On a full disk it cannot, and mounts read-only, with a word in its own log only.
            os.mkdir(f"{layer.work}/work", 0o700)  # raises what the reason is
            raise


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
