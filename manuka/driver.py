"""GraphDriver: what a storage driver has to do for Docker, as a class to subclass.

A driver keeps *layers*.  A layer is a file tree stored as the difference from its parent layer;
an image is a chain of layers, and a container is one more layer on top that can be written to.
Docker names each layer by an id, asks for its file tree as a folder on the host (``get``), and
moves layers in and out as tar streams (``apply_diff``, ``diff``).

An author writes five methods: `create`, `remove`, `get`, `put` and `exists`.  Everything else is
made from them here by mounting two layers and comparing them, which is right for every driver
and slow; a driver that knows better overrides it.  The engine calls this the *naive diff*
(``daemon/graphdriver/fsdiff.go``).

Calls arrive on many threads at once, also for the same id.  Methods raise
`manuka.errors.ManukaError` or OSError; the text reaches the engine's user.
"""

from __future__ import annotations

import abc
import contextlib
import tempfile
from types import MappingProxyType
from typing import Iterator, Mapping, NamedTuple

from manuka.errors import ManukaError
from manuka.layers.apply import apply_layer
from manuka.layers.changes import Change, compare_trees
from manuka.layers.export import export_changes
from manuka.layers.idmap import IDENTITY, IdMaps
from manuka.layers.size import changes_size
from manuka.layers.tar import Stream


class DriverError(ManukaError):
    """A driver cannot do what was asked: an unknown layer, a wrong option, an unfit disk."""


class Settings(NamedTuple):
    """What a driver is told when it starts, once for each start of the engine.

    home: the driver's own folder, absolute; everything it stores lies below it.
    options: the engine's ``--storage-opt`` values, each ``KEY=VALUE``, unfiltered.
    id_maps: the owners that stand for container owners, for ``--userns-remap``.
    run_dir: a folder for records that should outlive the driver's process but not the engine's:
        it is emptied when the engine starts, and gone after a reboot.  None: there is no such.
    """

    home: str
    options: tuple[str, ...] = ()
    id_maps: IdMaps = IDENTITY
    run_dir: str | None = None


class CreateOptions(NamedTuple):
    """What comes with a new layer.

    mount_label: the SELinux label for its mount, or empty.
    storage_opt: the ``docker run --storage-opt`` values.
    """

    mount_label: str = ""
    storage_opt: Mapping[str, str] = MappingProxyType({})


class GraphDriver(abc.ABC):
    """A storage driver.  See the module's text for what calls what."""

    #: Whether `diff` gives back, byte for byte, the tar that `apply_diff` was given.
    reproduces_exact_diffs = False

    def __init__(self, settings: Settings) -> None:
        """Make ready to serve `settings.home`, creating it when it is not there.

        Raises DriverError when this machine, disk or option cannot work: the engine then does
        not start, and its log has the text.  May run again in a living process, when the engine
        was restarted: the new object must adopt what the old one left mounted.
        """
        self.settings = settings

    # --- the five that an author writes ----------------------------------------------------------

    @abc.abstractmethod
    def create(self, layer_id: str, parent: str | None, options: CreateOptions) -> None:
        """Make a layer on top of `parent` (None: on nothing).  On an error, leave nothing."""

    @abc.abstractmethod
    def remove(self, layer_id: str) -> None:
        """Delete a layer.  One that does not exist is no error."""

    @abc.abstractmethod
    def get(self, layer_id: str, mount_label: str = "") -> str:
        """Make the layer's whole tree visible and return its absolute path on the host.

        Calls nest: the tree stays until `put` was called as often as `get`.  The path is the
        same each time, for the engine insists on it.
        """

    @abc.abstractmethod
    def put(self, layer_id: str) -> None:
        """Undo one `get`.  A layer that is unknown or not mounted is no error."""

    @abc.abstractmethod
    def exists(self, layer_id: str) -> bool:
        """Whether there is such a layer."""

    # --- what follows from the five; override what you can do better -----------------------------

    def create_read_write(self, layer_id: str, parent: str | None, options: CreateOptions) -> None:
        """Make a layer that a container or a build step will write to."""
        self.create(layer_id, parent, options)

    def status(self) -> list[tuple[str, str]]:
        """Rows for ``docker info``, in order."""
        return []

    def metadata(self, layer_id: str) -> dict[str, str]:
        """What ``docker inspect`` shows as ``GraphDriver.Data``.  Raises for an unknown layer."""
        return {}

    def cleanup(self) -> None:
        """The engine stops: release what is mounted."""

    def diff(self, layer_id: str, parent: str | None) -> Iterator[bytes]:
        """The layer's difference from `parent` as an uncompressed tar, in pieces.

        Faults known before the first piece are raised by the call itself, later ones by the
        iterator: the reply is then broken off, so that the engine cannot take it for whole.
        """
        return self._naive_diff(layer_id, parent)

    def _naive_diff(self, layer_id: str, parent: str | None) -> Iterator[bytes]:
        stack = contextlib.ExitStack()
        try:
            tree, base = self._mount_both(stack, layer_id, parent)
            changes = compare_trees(tree, base)
        except BaseException:
            stack.close()
            raise
        return _until_closed(export_changes(tree, changes, self.settings.id_maps), stack)

    def changes(self, layer_id: str, parent: str | None) -> list[Change]:
        """What differs between the two trees, sorted by path (``docker diff``)."""
        with contextlib.ExitStack() as stack:
            return compare_trees(*self._mount_both(stack, layer_id, parent))

    def apply_diff(self, layer_id: str, parent: str | None, stream: Stream) -> int:
        """Unpack a tar into a layer made by `create`; return the size of what it holds, in bytes.

        `stream` is read to its end, also behind the tar's end mark: the engine hashes what it
        sends, and stops hashing when nobody reads.
        """
        with self.mounted(layer_id) as tree:
            return apply_layer(stream, tree, id_maps=self.settings.id_maps).content_size

    def diff_size(self, layer_id: str, parent: str | None) -> int:
        """Bytes that the layer adds to its parent (``docker ps --size``)."""
        with contextlib.ExitStack() as stack:
            tree, base = self._mount_both(stack, layer_id, parent)
            return changes_size(tree, compare_trees(tree, base))

    # --- for subclasses --------------------------------------------------------------------------

    @contextlib.contextmanager
    def mounted(self, layer_id: str) -> Iterator[str]:
        """The layer's tree for the length of a ``with`` block."""
        tree = self.get(layer_id)
        try:
            yield tree
        finally:
            self.put(layer_id)

    def _mount_both(
        self, stack: contextlib.ExitStack, layer_id: str, parent: str | None
    ) -> tuple[str, str]:
        """Mount a layer and its parent (nothing: an empty folder) until `stack` is closed."""
        tree = stack.enter_context(self.mounted(layer_id))
        if parent is None:
            return tree, stack.enter_context(tempfile.TemporaryDirectory(prefix="manuka-empty-"))
        return tree, stack.enter_context(self.mounted(parent))


def _until_closed(pieces: Iterator[bytes], stack: contextlib.ExitStack) -> Iterator[bytes]:
    with stack:
        yield from pieces
