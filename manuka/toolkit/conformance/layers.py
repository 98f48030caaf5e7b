"""What checks do with layers, in the words of the domain; everything made is cleaned up.

    base = layers.image(LayerTar().file("etc/motd", b"hello"))
    with base.tree() as tree:
        assert (tree / "etc/motd").read_bytes() == b"hello"

Easy to get wrong: cleaning up.  A check that failed may have left a layer mounted, and its
children have to go before it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Callable, Collection, Dict, Iterator, List, Optional, Union

from manuka.linux.mountinfo import mounts_below
from manuka.toolkit.client import CHUNK, Client, ClientError, Unreachable
from manuka.toolkit.layertar import LayerTar
from manuka.toolkit.snapshot import Snapshot, snapshot

Tar = Union[LayerTar, bytes]


def new_id() -> str:
    """An id as the engine makes them: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def is_mounted(folder: str) -> bool:
    """Whether something is mounted at a folder; a subvolume of btrfs is not."""
    return folder in mounts_below(os.path.dirname(folder))


def seconds(view: Snapshot) -> Snapshot:
    """A snapshot with times in whole seconds, all that a tar of the engine keeps."""
    return {
        path: {
            key: value // 10**9 * 10**9 if key == "mtime_ns" else value
            for key, value in record.items()
        }
        for path, record in view.items()
    }


class Layer:
    """A layer of the plugin.

    told_size: what ApplyDiff said, if a tar was applied.
    """

    def __init__(self, client: Client, layer_id: str, parent: Optional[Layer]) -> None:
        self.client = client
        self.id = layer_id
        self.parent = parent
        self.told_size: Optional[int] = None
        self.gets = 0

    @property
    def parent_id(self) -> Optional[str]:
        return None if self.parent is None else self.parent.id

    def apply(self, tar: Tar, chunk: int = CHUNK) -> int:
        """Send a tar; the size that the plugin tells."""
        data = tar if isinstance(tar, bytes) else tar.bytes()
        self.told_size = self.client.apply_diff(self.id, self.parent_id, [data], chunk)
        return self.told_size

    def get(self) -> Path:
        folder = self.client.get(self.id)
        self.gets += 1
        return Path(folder)

    def put(self) -> None:
        self.client.put(self.id)
        self.gets = max(0, self.gets - 1)

    @contextlib.contextmanager
    def tree(self) -> Iterator[Path]:
        """The layer's tree, between a Get and a Put."""
        yield self.get()
        self.put()

    def view(self, ignore: Collection[str] = ()) -> Snapshot:
        """What a container would see of the layer."""
        with self.tree() as tree:
            return snapshot(tree, ignore)

    def names(self) -> List[str]:
        """The paths of everything in the layer's tree, sorted."""
        return list(self.view())

    def diff(self) -> bytes:
        """The layer's difference from its parent, as a tar."""
        return self.client.diff(self.id, self.parent_id)

    def changes(self) -> Dict[str, str]:
        """What differs from its parent, by path."""
        return self.client.changes(self.id, self.parent_id)

    def size(self) -> int:
        """What it adds to its parent, in bytes."""
        return self.client.diff_size(self.id, self.parent_id)

    def remove(self) -> None:
        self.client.remove(self.id)


class Layers:
    """Makes layers for one check, and removes them after it."""

    def __init__(self, client: Client, left_over: Callable[[str], None]) -> None:
        """`left_over` hears of each layer that could not be removed."""
        self.client = client
        self._left_over = left_over
        self._made: List[Layer] = []

    def known(self, parent: Optional[Layer] = None, layer_id: Optional[str] = None) -> Layer:
        """A layer that the check makes itself; it is removed afterwards."""
        layer = Layer(self.client, layer_id or new_id(), parent)
        self._made.append(layer)
        return layer

    def create(self, parent: Optional[Layer] = None, layer_id: Optional[str] = None) -> Layer:
        """An image's layer with nothing in it."""
        layer = self.known(parent, layer_id)
        self.client.create(layer.id, layer.parent_id)
        return layer

    def image(self, tar: Tar, parent: Optional[Layer] = None) -> Layer:
        """An image's layer with what a tar holds."""
        layer = self.create(parent)
        layer.apply(tar)
        return layer

    def container(self, parent: Optional[Layer] = None) -> Layer:
        """A layer to write to."""
        layer = self.known(parent)
        self.client.create_read_write(layer.id, layer.parent_id)
        return layer

    def committed(self, layer: Layer) -> Layer:
        """A new layer on the same parent, with the layer's own Diff applied: docker commit."""
        return self.image(layer.diff(), layer.parent)

    def clean_up(self) -> None:
        """Put and remove everything, the youngest first.  Stops when the plugin is gone."""
        for layer in reversed(self._made):
            layer.client = Client(layer.client.path, min(15, layer.client.timeout))
            try:
                while layer.gets:
                    layer.gets -= 1
                    with contextlib.suppress(ClientError):
                        layer.client.put(layer.id)
                layer.remove()
            except Unreachable:
                return
            except ClientError as error:
                self._left_over(str(error))
        self._made.clear()
