"""GraphDriver: what a storage driver has to do for Docker, as a class to subclass.

A driver keeps *layers*.  A layer is a file tree stored as the difference from its parent layer;
an image is a chain of layers, and a container is one more layer on top that can be written to.
Docker names each layer by an id, asks for its file tree as a folder on the host (``get``), and
moves layers in and out as tar streams (``apply_diff``, ``diff``).

An author writes five methods: `create`, `remove`, `get`, `put` and `exists`.  Everything else is
made from them here by mounting two layers and comparing them, which is right for every driver
and slow; a driver that knows better overrides it.  The engine calls this the *naive diff*
(``daemon/graphdriver/fsdiff.go``).

The life of a layer
    *An image's*: `create`, then `apply_diff` once; from then on its content never changes, and
    it may become a parent.  If anything fails in between, the engine sends `remove`.
    *A container's*: `create_read_write` for a layer ``ID-init``, into which the engine writes a
    few files between `get` and `put`, and then for ``ID`` on top of that.  `get` and `put` frame
    each time that the container runs or is looked into; `diff` makes an image's layer of it.
    BuildKit also writes into layers that came from `create`, by way of `get`, before they become
    a parent.

Calls arrive on many threads at once, for different layers and for the same: ``docker commit``
reads `diff` of one layer while it sends `apply_diff` for another, and two containers share their
image's layers.  A lock for each id (`manuka.locks`) is right; one for the driver delays every
container's start while a large layer arrives.

Errors: raise DriverError, with what the reader can do about it, or let an OSError through.  Its
text becomes the ``Err`` of the reply and reaches the engine's user; anything else is a fault of
the driver, whose traceback goes to the plugin's log.  After an error the engine takes it that
nothing was done.  Easy to get wrong: `remove` and `put` must *not* fail for what is not there.
Engines that crashed send them to clean up, and repeat until they succeed.
"""

from __future__ import annotations

import abc
import contextlib
import tempfile
from types import MappingProxyType
from typing import Iterator, Mapping, NamedTuple

from manuka.errors import ManukaError
from manuka.layers.apply import apply_layer
from manuka.layers.changes import Change, Kind, compare_trees
from manuka.layers.export import export_changes
from manuka.layers.idmap import IDENTITY, IdMaps, IdRange
from manuka.layers.size import changes_size
from manuka.layers.tar import Stream

__all__ = [
    "Change",
    "CreateOptions",
    "DriverError",
    "GraphDriver",
    "IdMaps",
    "IdRange",
    "Kind",
    "LayerId",
    "Settings",
    "Stream",
]

#: A layer's name.  What reaches a driver has been checked: letters, digits, ``_``, ``.`` and
#: ``-``, at most 255, and none but a letter or a digit first.  So it is safe as the name of a
#: file, and names that begin with a dot are the driver's to use.  Mostly 64 hexadecimal digits,
#: with ``-init`` behind for the layer below a container; BuildKit's are 25 letters and digits.
LayerId = str


class DriverError(ManukaError):
    """A driver cannot do what was asked: an unknown layer, a wrong option, an unfit disk."""


#: What helps when the parent of a new layer is gone, for the text of a DriverError.  An engine of
#: 18.09 or 19.03 that is killed during ``docker rmi`` keeps its record of a layer that is removed,
#: and takes the layer for loaded ever after.
PARENT_CURE = "remove the image that has it (docker rmi), then pull or load that image again"


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

    mount_label: the SELinux label for its mount, or empty.  Engines send it for the layer below
        a container's, and to `GraphDriver.get` for the container's own.
    storage_opt: the ``docker run --storage-opt`` values; empty for images.  A driver refuses what
        it does not know, or the user would believe in a limit that is none.
    """

    mount_label: str = ""
    storage_opt: Mapping[str, str] = MappingProxyType({})


class GraphDriver(abc.ABC):
    """A storage driver.  See the module's text for what calls what."""

    #: Whether `diff` gives back, byte for byte, the tar that `apply_diff` was given.  Leave it
    #: False: the engine then keeps what it needs to make the same tar of the files again, and an
    #: empty layer can be told from a repeated call.
    reproduces_exact_diffs = False

    def __init__(self, settings: Settings) -> None:
        """Make ready to serve `settings.home`, creating it when it is not there.

        Raises DriverError when this machine, disk or option cannot work: the engine then does
        not start, and its log has the text.  One layer that is damaged is no reason: raise when
        that layer is asked for.  May run again in a living process, when the engine was
        restarted: the new object must adopt what the old one left mounted, and count it as one
        `get`, for containers may run on it (``--live-restore``).
        """
        self.settings = settings

    # --- the five that an author writes ----------------------------------------------------------

    @abc.abstractmethod
    def create(self, layer_id: LayerId, parent: LayerId | None, options: CreateOptions) -> None:
        """Make a layer on top of `parent` (None: on nothing), showing just what that shows.

        A layer on nothing is an empty folder with mode 0755, of the owner ``id_maps.root``.
        Raises DriverError when the id is taken, when `parent` does not exist or never became
        whole, or for an unknown option; then nothing is left, so that the engine can try again.
        The parent has to stay as it is from now on.
        """

    @abc.abstractmethod
    def remove(self, layer_id: LayerId) -> None:
        """Delete a layer, whole or not, with what is still mounted of it.

        One that does not exist is no error.  Engines remove children before their parents; but
        the order of a crash is any.  After an error, the engine keeps what it knows of the layer
        and asks again: on ``docker rm``, and when it stops.
        """

    @abc.abstractmethod
    def get(self, layer_id: LayerId, mount_label: str = "") -> str:
        """Make the layer's whole tree visible and return its absolute path on the host.

        The tree can be written to, as long as no child was made of the layer.  Calls nest: it
        stays until `put` was called as often as `get`.  The path is the same each time, for the
        engine insists on it, and has to be visible to the engine and to containerd, in their
        mount namespace.  Raises DriverError for an unknown layer, and for one whose tar was not
        unpacked to the end.
        """

    @abc.abstractmethod
    def put(self, layer_id: LayerId) -> None:
        """Undo one `get`.  A layer that is unknown or not mounted is no error.

        One that comes with no `get` before, for a layer that is mounted, ends what an engine
        before this one left: unmount it.
        """

    @abc.abstractmethod
    def exists(self, layer_id: LayerId) -> bool:
        """Whether there is such a layer, whole or not.  Not mounted for the answer."""

    # --- what follows from the five; override what you can do better -----------------------------

    def create_read_write(
        self, layer_id: LayerId, parent: LayerId | None, options: CreateOptions
    ) -> None:
        """Make a layer that a container or a build step will write to; else as `create`."""
        self.create(layer_id, parent, options)

    def status(self) -> list[tuple[str, str]]:
        """Rows for ``docker info``, in order.  Asked for often, so it has to be quick."""
        return [("Driver class", f"{type(self).__module__}:{type(self).__qualname__}")]

    def metadata(self, layer_id: LayerId) -> dict[str, str]:
        """What ``docker inspect`` shows as ``GraphDriver.Data``.

        An error makes the inspection fail, so raise DriverError only for an unknown layer.
        """
        if not self.exists(layer_id):
            raise DriverError(f"there is no layer {layer_id}")
        return {}

    def cleanup(self) -> None:
        """The engine stops: release what is mounted, and leave every layer.

        Does not come when the engine crashes, nor when containers live on without it.
        """

    def diff(self, layer_id: LayerId, parent: LayerId | None) -> Iterator[bytes]:
        """The layer's difference from `parent` as an uncompressed tar, in pieces.

        The form is that of an image's layer (OCI image specification, "Representing Changes"): a
        file that is gone is an empty file ``.wh.NAME``.  `parent` is nearly always the layer's
        own; None asks for the whole tree.  The layer may be in use meanwhile.

        Faults known before the first piece are raised by the call itself, later ones by the
        iterator: the reply is then broken off, so that the engine cannot take it for whole.  If
        the iterator has a method ``close``, it is called at the end in any case.
        """
        return self._naive_diff(layer_id, parent)

    def _naive_diff(self, layer_id: LayerId, parent: LayerId | None) -> Iterator[bytes]:
        stack = contextlib.ExitStack()
        try:
            tree, base = self._mount_both(stack, layer_id, parent)
            changes = compare_trees(tree, base)
            return _Packing(export_changes(tree, changes, self.settings.id_maps), stack)
        except BaseException:
            stack.close()
            raise

    def changes(self, layer_id: LayerId, parent: LayerId | None) -> list[Change]:
        """What differs between the two trees, sorted by path (``docker diff``).

        The rules are in `manuka.layers.changes`.  An empty list is an answer, not an error.
        """
        with contextlib.ExitStack() as stack:
            return compare_trees(*self._mount_both(stack, layer_id, parent))

    def apply_diff(self, layer_id: LayerId, parent: LayerId | None, stream: Stream) -> int:
        """Unpack a tar into a layer made by `create`; return the size of what it holds, in bytes.

        `stream` is read to its end, also behind the tar's end mark: the engine hashes what it
        sends, and stops hashing when nobody reads.  Whoever returns promises that the layer is
        whole.  Raises TarError or ApplyError for a bad or broken-off tar; the layer is then
        neither to be shown nor to be a parent until it was removed and made again, also after
        this process has died: the engine may repeat a request that it believes lost.

        This default unpacks into what `get` gives, and cannot keep that last promise, for it does
        not know where a driver keeps its layers.  `manuka.whole.WholeTrees` keeps it.
        """
        with self.mounted(layer_id) as tree:
            return apply_layer(stream, tree, id_maps=self.settings.id_maps).content_size

    def diff_size(self, layer_id: LayerId, parent: LayerId | None) -> int:
        """Bytes that the layer adds to its parent (``docker ps --size``)."""
        with contextlib.ExitStack() as stack:
            tree, base = self._mount_both(stack, layer_id, parent)
            return changes_size(tree, compare_trees(tree, base))

    # --- for subclasses --------------------------------------------------------------------------

    @contextlib.contextmanager
    def mounted(self, layer_id: LayerId) -> Iterator[str]:
        """The layer's tree for the length of a ``with`` block."""
        tree = self.get(layer_id)
        try:
            yield tree
        finally:
            self.put(layer_id)

    def _mount_both(
        self, stack: contextlib.ExitStack, layer_id: LayerId, parent: LayerId | None
    ) -> tuple[str, str]:
        """Mount a layer and its parent (nothing: an empty folder) until `stack` is closed."""
        tree = stack.enter_context(self.mounted(layer_id))
        if parent is None:
            return tree, stack.enter_context(tempfile.TemporaryDirectory(prefix="manuka-empty-"))
        return tree, stack.enter_context(self.mounted(parent))


class _Packing(Iterator[bytes]):
    """The pieces of a tar that is being packed from mounted trees.

    These are released at the end, at a fault, and by `close`, even before the first piece was
    asked for, when a generator's own ``close`` would run nothing.
    """

    def __init__(self, pieces: Iterator[bytes], mounts: contextlib.ExitStack) -> None:
        self._pieces = pieces
        self._mounts = mounts

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self._mounts.close()
            raise

    def close(self) -> None:
        """Release the trees.  May be called again."""
        close = getattr(self._pieces, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._mounts.close()
