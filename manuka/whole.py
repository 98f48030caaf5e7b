"""Drivers whose layers are whole trees: each begins as a copy of its parent.

Nothing is mounted and nothing counted: `get` gives the folder.  A subclass says how a tree is
made, copied and deleted (`manuka.vfs`, `manuka.btrfs`, the driver that ``manuka new`` makes); here
is what makes it safe, without its author's asking.

::

    HOME/               0710
    HOME/ID/tree/       all files of the layer and of those below it
    HOME/ID/unpacking   empty: a tar is being unpacked, or was when the plugin died
    HOME/.incomplete/   layers being made or removed; what is here at start is rubbish

A layer appears under its id, and vanishes, by one rename, so that one which is there has all that
its parent had; and the mark ``unpacking`` stands before the first byte of a tar is written and
goes behind the last.  Easy to get wrong: an engine that died in the middle may come back and ask
for the layer, and only that mark tells that it is not whole.

Options: ``NAME.sync=filesystem``, where NAME is the driver's or ``manuka``, writes a layer to the
disk before it is acknowledged; else ``none``.  SELinux labels are not set.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import re
import secrets

from manuka.driver import PARENT_CURE, CreateOptions, DriverError, GraphDriver, LayerId, Settings
from manuka.home import check_contents
from manuka.layers.apply import apply_layer
from manuka.layers.tar import Stream
from manuka.layers.walk import opened_root
from manuka.linux.presence import is_folder, is_there
from manuka.linux.private import make_directories, set_mode
from manuka.linux.statfs import existing_folder, filesystem_name
from manuka.linux.syncfs import syncfs
from manuka.locks import LayerLocks

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_INCOMPLETE = ".incomplete"


class WholeTrees(GraphDriver):
    """A driver of whole trees: a subclass implements `make_tree`, `copy_tree` and `remove_tree`.

    The class calls these with paths in a directory that no layer's id leads to, and the
    layer appears, or has vanished, by one rename.  So none of them has to be atomic, and any may
    be killed, or raise OSError, half-way.
    """

    #: How messages and options call the driver: ``NAME.sync=filesystem``.
    name: str

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._sync = self._parse(settings.options)
        check_contents(settings.home, (_INCOMPLETE,), ("tree", "unpacking"), (), settings.id_maps)
        self.examine(existing_folder(settings.home))
        self._locks = LayerLocks()
        self._incomplete = f"{settings.home}/{_INCOMPLETE}"
        make_directories(os.path.dirname(settings.home), 0o711)
        self._make_folder(os.path.realpath(settings.home))
        self._make_folder(self._incomplete)
        self._tidy()

    # --- what a subclass decides -----------------------------------------------------------------

    def examine(self, folder: str) -> None:
        """Raise DriverError if `folder`, which will hold the home, is no place for the driver.

        Called once, at the start, before anything is made.  The default accepts every place.
        """

    @abc.abstractmethod
    def make_tree(self, path: str) -> None:
        """Make an empty tree at `path`, where nothing is; mode and owner are set afterwards."""

    @abc.abstractmethod
    def copy_tree(self, source: str, path: str) -> None:
        """Make a tree at `path`, where nothing is, that a container cannot tell from `source`.

        Several threads may copy from one source, which does not change meanwhile if it is an
        image's layer.
        """

    @abc.abstractmethod
    def remove_tree(self, path: str) -> None:
        """Delete the tree at `path`, or what there is of it: perhaps half, perhaps nothing."""

    # --- the five --------------------------------------------------------------------------------

    def create(self, layer_id: LayerId, parent: LayerId | None, options: CreateOptions) -> None:
        """Copy the parent's tree."""
        if options.storage_opt:
            asked = ", ".join(f"{key}={value}" for key, value in options.storage_opt.items())
            raise DriverError(
                f"--storage-opt {asked}: the driver {self.name} cannot limit a container's size, "
                "and has no other options for one"
            )
        layer = self._layer(layer_id)
        with self._locks.hold(layer_id):
            self._make_way(layer)
            below = None if parent is None else self._whole(parent, "parent layer")
            staged = _Layer(self._incomplete, f"{layer_id}.{secrets.token_hex(4)}")
            try:
                self._make_folder(staged.path)
                if below is None:
                    self.make_tree(staged.tree)
                    os.chmod(staged.tree, 0o755)
                    os.chown(staged.tree, *self.settings.id_maps.root)
                else:
                    self.copy_tree(below.tree, staged.tree)
                self._write_out(staged.path)
                os.rename(staged.path, layer.path)
            except BaseException:
                self._delete(staged)
                raise

    def remove(self, layer_id: LayerId) -> None:
        """Take the layer out of sight at once, then delete it."""
        layer = self._layer(layer_id)
        with self._locks.hold(layer_id):
            self._discard(layer)

    def get(self, layer_id: LayerId, mount_label: str = "") -> str:
        """The layer's folder; there is nothing to mount."""
        with self._locks.hold(layer_id):
            return self._whole(layer_id, "layer").tree

    def put(self, layer_id: LayerId) -> None:
        """Nothing: there is nothing to unmount."""

    def exists(self, layer_id: LayerId) -> bool:
        """Whether there is such a layer, whole or not."""
        return self._layer(layer_id).exists()

    # --- the rest --------------------------------------------------------------------------------

    def status(self) -> list[tuple[str, str]]:
        """The file system that the layers are on."""
        return [("Backing Filesystem", filesystem_name(self.settings.home))]

    def metadata(self, layer_id: LayerId) -> dict[str, str]:
        """The folder that `get` gives."""
        layer = self._layer(layer_id)
        if not layer.exists():
            raise DriverError(f"there is no layer {layer_id}")
        return {"MergedDir": layer.tree}

    def apply_diff(self, layer_id: LayerId, parent: LayerId | None, stream: Stream) -> int:
        """Unpack into the tree; the layer counts as whole only when this returned."""
        with self._locks.hold(layer_id):
            layer = self._whole(layer_id, "layer")
            os.close(os.open(layer.unpacking, os.O_CREAT | os.O_EXCL, 0o600))
            size = apply_layer(stream, layer.tree, self.settings.id_maps).content_size
            self._write_out(layer.path)
            os.unlink(layer.unpacking)
            if self._sync:
                with opened_root(layer.path) as folder:
                    os.fsync(folder)
            return size

    # --- layers ----------------------------------------------------------------------------------

    def _layer(self, layer_id: LayerId) -> _Layer:
        if not _ID.fullmatch(layer_id):
            raise DriverError(f"{layer_id!r} cannot be a layer's id: it is no plain name")
        return _Layer(self.settings.home, layer_id)

    def _whole(self, layer_id: LayerId, what: str) -> _Layer:
        """A layer that can be shown.  Raises DriverError; `what` is it called in the text."""
        layer = self._layer(layer_id)
        if not layer.exists():
            cure = f": {PARENT_CURE}" if what == "parent layer" else ""
            raise DriverError(f"there is no {what} {layer_id}{cure}")
        if not layer.is_whole():
            raise DriverError(
                f"the {what} {layer_id} is not whole: unpacking its tar did not reach the end, in "
                "this process or in one before it; the engine has to remove it and to send it "
                "again from the start"
            )
        return layer

    def _make_way(self, layer: _Layer) -> None:
        """An id is taken, unless by what a crash left."""
        if not layer.exists():
            return
        if layer.is_whole():
            raise DriverError(f"layer {layer.id} exists already")
        log.warning("layer %s was left unfinished by a crash; it is made anew", layer.id)
        self._discard(layer)

    def _discard(self, layer: _Layer) -> None:
        removed = _Layer(self._incomplete, f"{layer.id}.{secrets.token_hex(4)}")
        try:
            os.rename(layer.path, removed.path)
        except FileNotFoundError:
            return
        self._delete(removed)

    def _delete(self, layer: _Layer) -> None:
        self.remove_tree(layer.tree)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layer.unpacking)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(layer.path)

    def _tidy(self) -> None:
        for name in os.listdir(self._incomplete):
            log.warning("removing %s/%s, left by a crash", self._incomplete, name)
            try:
                self._delete(_Layer(self._incomplete, name))
            except OSError as error:
                log.warning("it stays there: %s", error)

    def _make_folder(self, path: str) -> None:
        """Make a folder that remapped owners can pass through."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o710)
        set_mode(path, 0o710, (os.geteuid(), self.settings.id_maps.root[1]))

    def _write_out(self, path: str) -> None:
        if self._sync:
            with opened_root(path) as folder:
                syncfs(folder)

    def _parse(self, options: tuple[str, ...]) -> bool:
        """Whether to write out; raises DriverError for any other option."""
        sync = False
        for option in options:
            key, _, value = option.partition("=")
            driver, _, name = key.strip().lower().partition(".")
            if driver not in (self.name, "manuka") or name != "sync":
                limit = "; it cannot limit a container's size" if name == "size" else ""
                raise DriverError(
                    f"{self.name}: unknown option {key}; there is: {self.name}.sync{limit}"
                )
            if value.strip() not in ("none", "filesystem"):
                raise DriverError(
                    f"storage option {key}: {value!r} is not one of: none, filesystem"
                )
            sync = value.strip() == "filesystem"
        return sync


class _Layer:
    """The paths of one layer."""

    def __init__(self, home: str, layer_id: str) -> None:
        self.id = layer_id
        self.path = f"{home}/{layer_id}"
        self.tree = f"{self.path}/tree"
        self.unpacking = f"{self.path}/unpacking"

    def exists(self) -> bool:
        return is_folder(self.path)

    def is_whole(self) -> bool:
        return is_folder(self.tree) and not is_there(self.unpacking)
