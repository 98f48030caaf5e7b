"""Overlay2: Moby's storage driver of that name, as a plugin.

A layer is a folder; a container's file system is a mount of the kernel's overlayfs, which shows
its layers' folders on top of each other and puts whatever is written into the uppermost.  This
class decides; its neighbours do the work:

- `layout`: where layers lie, how they appear and vanish
- `mounts`: mounting a stack of them, and who uses it
- `probe`: what this kernel and this disk can do
- `changes`, `manuka.layers`: tars in and out, and what differs
- `options`, `quota`: what the user may set

A layer's difference from its parent is what its own folder holds: packing that folder is the
*native* diff.  Where the kernel keeps part of the difference elsewhere, or when the difference
from another layer is asked for, both trees are mounted and compared: the *naive* diff of
`manuka.driver`.

Source: ``daemon/graphdriver/overlay2/overlay.go`` in the engine.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from typing import Iterator

from manuka.driver import CreateOptions, DriverError, GraphDriver, Settings
from manuka.home import check_contents
from manuka.layers.apply import apply_overlay
from manuka.layers.changes import Change
from manuka.layers.export import export_tree
from manuka.layers.size import tree_size
from manuka.layers.tar import Stream
from manuka.layers.walk import opened_root
from manuka.linux.mount import unmount_below
from manuka.linux.mountinfo import is_mount_point
from manuka.linux.statfs import existing_folder
from manuka.linux.syncfs import syncfs
from manuka.locks import LayerLocks
from manuka.overlay2.changes import Redirected, upper_changes
from manuka.overlay2.layout import HOMES_OWN, LAYERS_OWN, Home, Layer
from manuka.overlay2.mounts import MountCounts, mount_layer, unmount_layer
from manuka.overlay2.options import layer_size, parse_options
from manuka.overlay2.probe import LEFT_BY_CHECKS, examine, why_not_native
from manuka.overlay2.quota import LayerQuota

log = logging.getLogger(__name__)


class Overlay2(GraphDriver):
    """See the module's text."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = parse_options(settings.options)
        check_contents(settings.home, HOMES_OWN, LAYERS_OWN, LEFT_BY_CHECKS, settings.id_maps)
        self._overlayfs = examine(existing_folder(settings.home))
        self._home = Home(settings.home, settings.id_maps)
        self._quota = LayerQuota(settings.home, self._overlayfs.filesystem)
        if self._options.size:
            self._quota.require()
        self._locks = LayerLocks()
        self._counts = MountCounts(settings.run_dir)
        self._counts.tidy(settings.home)
        if self._counts.engine_is_new:
            self._home.remove_unfinished()
        self._native_check = threading.Lock()
        self._native: bool | None = None
        self._unpacking: set[str] = set()

    # --- layers ----------------------------------------------------------------------------------

    def create(self, layer_id: str, parent: str | None, options: CreateOptions) -> None:
        """Make an image's layer, which cannot have a size limit."""
        if layer_size(options.storage_opt, default=0):
            raise DriverError("--storage-opt size is only supported for containers' layers")
        self._create(layer_id, parent, 0)

    def create_read_write(self, layer_id: str, parent: str | None, options: CreateOptions) -> None:
        """Make a container's layer."""
        size = layer_size(options.storage_opt, default=self._options.size)
        if options.storage_opt:
            self._quota.require()
        self._create(layer_id, parent, size)

    def _create(self, layer_id: str, parent: str | None, size: int) -> None:
        with self._locks.hold(layer_id):
            below = None if parent is None else self._home.layer(parent)
            with self._home.new_layer(self._home.layer(layer_id), below) as folder:
                if size:
                    self._quota.limit(folder, size)

    def remove(self, layer_id: str) -> None:
        """Remove a layer, unmounting it when an engine that died left it mounted."""
        layer = self._home.layer(layer_id)
        with self._locks.hold(layer_id):
            if is_mount_point(layer.merged):
                unmount_layer(layer)
            self._counts.forget(layer)
            project = self._quota.project(layer)
            self._home.remove(layer)
            self._quota.release(project)

    def exists(self, layer_id: str) -> bool:
        """Whether there is such a layer, whole or not."""
        return self._home.layer(layer_id).exists()

    # --- mounting --------------------------------------------------------------------------------

    def get(self, layer_id: str, mount_label: str = "") -> str:
        """Mount a layer on those below it.  A base layer is not mounted: its folder is all."""
        layer = self._home.layer(layer_id)
        with self._locks.hold(layer_id):
            lowers = layer.lowers()
            if lowers is None:
                self._home.existing(layer_id)
            self._refuse_unfinished(layer)
            if lowers is None:
                return layer.diff
            count = self._counts.get(layer)
            in_use = count or self._counts.own(layer)
            if not in_use:
                self._mount(layer, lowers, mount_label)
            try:
                self._counts.set(layer, count + 1, count)
            except OSError:
                if not in_use:
                    unmount_layer(layer)
                raise
            return layer.merged

    @contextlib.contextmanager
    def mounted(self, layer_id: str) -> Iterator[str]:
        """The layer's tree for the driver itself, which needs it no more when it has crashed."""
        layer = self._home.existing(layer_id)
        with self._locks.hold(layer_id):
            self._refuse_unfinished(layer)
            lowers = layer.lowers()
            if lowers is not None:
                in_use = self._counts.get(layer) or self._counts.own(layer)
                self._counts.set_own(layer, self._counts.own(layer) + 1)
                if not in_use:
                    try:
                        self._mount(layer, lowers, "")
                    except BaseException:
                        self._counts.set_own(layer, 0)
                        raise
        try:
            yield layer.diff if lowers is None else layer.merged
        finally:
            if lowers is not None:
                with self._locks.hold(layer_id):
                    self._release(layer)

    def _release(self, layer: Layer) -> None:
        own = self._counts.own(layer) - 1
        if not own and not self._counts.get(layer):
            unmount_layer(layer)
        self._counts.set_own(layer, own)

    def _refuse_unfinished(self, layer: Layer) -> None:
        """Raise DriverError if the layer's unpacking was broken off."""
        if layer.id not in self._unpacking and layer.is_unpacking():
            raise _unfinished(layer)

    def _mount(self, layer: Layer, lowers: list[str], label: str) -> None:
        root = self.settings.id_maps.root
        overlayfs = self._overlayfs
        options = overlayfs.following if layer.is_redirected() else overlayfs.options
        try:
            mount_layer(layer, lowers, options, label, root)
        except OSError:
            unmount_layer(layer)
            self._home.diff_folders(layer)  # names a lost layer, and mends lost links
            try:
                mount_layer(layer, lowers, options, label, root)
            except OSError as error:
                unmount_layer(layer)
                labelled = f" with the label {label}" if label else ""
                raise DriverError(
                    f"mounting layer {layer.id} on {len(lowers)} layers{labelled} failed: "
                    f"{error.strerror}"
                ) from error

    def put(self, layer_id: str) -> None:
        """Unmount a layer when its last user is gone."""
        layer = self._home.layer(layer_id)
        with self._locks.hold(layer_id):
            count = self._counts.get(layer)
            if count > 1:
                self._counts.set(layer, count - 1, count)
            elif count == 1:
                if not self._counts.own(layer):
                    unmount_layer(layer)
                self._counts.set(layer, 0, count)

    def cleanup(self) -> None:
        """Unmount every layer: the engine stops, and no container is left."""
        unmount_below(self.settings.home)
        self._counts.clear()

    # --- what the engine shows -------------------------------------------------------------------

    def status(self) -> list[tuple[str, str]]:
        """Moby's rows, in Moby's order."""
        try:
            native = _yes(self._is_native())
        except OSError as error:
            native = f"unknown: {error.strerror}"
        return [
            ("Backing Filesystem", self._overlayfs.filesystem),
            ("Supports d_type", "true"),
            ("Using metacopy", _yes(self._overlayfs.metacopy)),
            ("Native Overlay Diff", native),
            ("userxattr", _yes(self._overlayfs.userxattr)),
        ]

    def metadata(self, layer_id: str) -> dict[str, str]:
        """A layer's folders; ``LowerDir`` only where there are any below it."""
        layer = self._home.existing(layer_id)
        folders = {"WorkDir": layer.work, "MergedDir": layer.merged, "UpperDir": layer.diff}
        lowers = self._home.diff_folders(layer)
        if lowers:
            folders["LowerDir"] = ":".join(lowers)
        return folders

    # --- tars and differences --------------------------------------------------------------------

    def apply_diff(self, layer_id: str, parent: str | None, stream: Stream) -> int:
        """Unpack a tar into a layer, which counts as whole only when this returned."""
        layer = self._home.existing(layer_id)
        with self._locks.hold(layer_id):
            if layer.is_unpacking():
                raise _unfinished(layer)
            self._unpacking.add(layer_id)
            try:
                os.close(os.open(layer.unpacking, os.O_CREAT | os.O_EXCL, 0o600))
                size = self._unpack(layer, parent, stream)
                if self._options.sync:
                    with opened_root(layer.path) as folder:
                        syncfs(folder)
                os.unlink(layer.unpacking)
                if self._options.sync:
                    with opened_root(layer.path) as folder:
                        os.fsync(folder)
            finally:
                self._unpacking.discard(layer_id)
            return size

    def _unpack(self, layer: Layer, parent: str | None, stream: Stream) -> int:
        if not self._has_native_diff(layer, parent):
            return super().apply_diff(layer.id, parent, stream)
        was_empty = not os.listdir(layer.diff)
        lowers = functools.partial(self._home.diff_folders, layer)
        id_maps, xattrs = self.settings.id_maps, self._overlayfs.xattrs
        applied = apply_overlay(stream, layer.diff, lowers, id_maps, xattrs)
        if applied.exact and was_empty:
            return applied.content_size
        return tree_size(layer.diff)

    def diff(self, layer_id: str, parent: str | None) -> Iterator[bytes]:
        """The layer's own folder as a tar, or the naive diff."""
        layer = self._whole(layer_id)
        if self._has_native_diff(layer, parent):
            return export_tree(layer.diff, self.settings.id_maps, self._overlayfs.xattrs)
        return super().diff(layer_id, parent)

    def diff_size(self, layer_id: str, parent: str | None) -> int:
        """Bytes in the layer's own folder, or those of the naive diff."""
        layer = self._whole(layer_id)
        if self._has_native_diff(layer, parent):
            return tree_size(layer.diff)
        return super().diff_size(layer_id, parent)

    def changes(self, layer_id: str, parent: str | None) -> list[Change]:
        """Read off the layer's own folder, or by comparing mounted trees."""
        layer = self._whole(layer_id)
        if not self._options.naive and self._is_direct_parent(layer, parent):
            lowers = self._home.diff_folders(layer)
            try:
                return upper_changes(layer.diff, lowers, self._overlayfs.xattrs)
            except Redirected:
                log.debug("layer %s has redirections; its tree is compared", layer_id)
        return super().changes(layer_id, parent)

    def _whole(self, layer_id: str) -> Layer:
        """The layer; raises DriverError when it is not there, or its unpacking was broken off."""
        layer = self._home.existing(layer_id)
        self._refuse_unfinished(layer)
        return layer

    def _has_native_diff(self, layer: Layer, parent: str | None) -> bool:
        """Whether the layer's own folder holds its difference from `parent`."""
        return (
            self._is_native()
            and not layer.is_redirected()
            and self._is_direct_parent(layer, parent)
        )

    def _is_direct_parent(self, layer: Layer, parent: str | None) -> bool:
        lowers = layer.lowers()
        if parent is None or lowers is None:
            return parent is None and lowers is None
        return lowers[0] == f"l/{self._home.layer(parent).short_link()}"

    def _is_native(self) -> bool:
        """Whether this kernel lets a layer's own folder tell the difference; found out once.

        Raises OSError when it cannot be found out now, to be asked again.
        """
        with self._native_check:
            if self._native is None:
                reason = (
                    "the option manuka.diff=naive"
                    if self._options.naive
                    else why_not_native(self.settings.home, self._overlayfs)
                )
                if reason:
                    log.warning("diffs are made by comparing trees, which is slow: %s", reason)
                self._native = reason is None
            return self._native


def _unfinished(layer: Layer) -> DriverError:
    return DriverError(
        f"layer {layer.id} is not whole: unpacking its tar did not reach the end, in this process "
        "or in one before it; the engine has to remove it and to send it again from the start"
    )


def _yes(value: bool) -> str:
    return "true" if value else "false"
