"""A plugin with layers that it has acknowledged, and every check of what a crash may not do.

A `World` knows each acknowledged layer as it was: its tree on the disk, its small files, its diff.
`assert_intact` compares, `assert_tidy` says that nothing is left over.  `World` is overlay2's;
`Trees` is that of the drivers whose layers are whole trees.  Neighbours: `plugins` is the process,
`scenarios` are the operations that crash.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Set, Tuple, Type

from manuka.linux.mount import unmount_below
from manuka.linux.mountinfo import is_mount_point, mounts_below
from manuka.toolkit.new.project import make_project
from tests.crash.plugins import Nursery, Plugin, base_tar, every_kind_tar, message
from tests.layertar import MTIME, LayerTar
from tests.snapshot import Snapshot, snapshot
from tests.unit.wire import Reply

EMPTY = LayerTar().bytes()
BASE = base_tar()
EVERY_KIND = every_kind_tar()


class Facts(NamedTuple):
    """An acknowledged layer."""

    parent: str
    tree: Snapshot
    link: str
    lower: str
    diff: bytes


class World:
    """A home with acknowledged layers, the plugin that serves it, and what is mounted."""

    #: What ``manuka serve`` is told of the driver.
    arguments: Tuple[str, ...] = ()
    #: The directory in a layer's that holds its files.
    tree = "diff"

    def __init__(
        self, nursery: Nursery, folder: Path, *options: str, home_on: Optional[Path] = None
    ) -> None:
        """`home_on`: another disk, for the layers alone."""
        self.folder = folder
        self.home = (home_on or folder) / "docker" / "manuka"
        self.home.parent.mkdir(parents=True)
        self.options = options
        self.plugin = Plugin(nursery, folder, *self.arguments)
        self.layers: Dict[str, Facts] = {}
        self.mounted: Set[str] = set()
        #: Whether an engine has started after the last crash.
        self.engine_is_new = False
        self.plugin.start()

    def populate(self) -> None:
        """Acknowledged layers: a base, one of every kind on it, and a container with changes."""
        self.init()
        self.make("base", "", BASE)
        self.make("every", "base", EVERY_KIND)
        for layer_id, parent in (("box-init", "every"), ("box", "box-init")):
            self.plugin.call("CreateReadWrite", **message(layer_id, parent))
            folder = Path(self.plugin.call("Get", ID=layer_id)["Dir"])
            (folder / "srv" / layer_id).write_text(layer_id)
            (folder / "etc" / "passwd").write_text("changed")
            with contextlib.suppress(FileNotFoundError):
                (folder / "srv" / "a").unlink()
            self.plugin.call("Put", ID=layer_id)
        for layer_id, parent in (("box-init", "every"), ("box", "box-init")):
            self.acknowledge(layer_id, parent)

    def close(self) -> None:
        self.plugin.kill()
        unmount_below(str(self.home.parent))

    # --- calls ------------------------------------------------------------------------------------

    def init(self) -> None:
        reply = self.try_init()
        assert reply is not None, "Init: the plugin is gone"
        assert reply.status == 200, reply.body

    def try_init(self) -> Optional[Reply]:
        """What an engine says first when it starts."""
        return self.plugin.try_call(
            "Init", {"Home": str(self.home), "Opts": list(self.options) or None}
        )

    def make(self, layer_id: str, parent: str, tar: bytes) -> None:
        """An image's layer, acknowledged."""
        self.plugin.call("Create", **message(layer_id, parent))
        self.plugin.apply(layer_id, parent, tar)
        self.acknowledge(layer_id, parent)

    def acknowledge(self, layer_id: str, parent: str) -> None:
        self.layers[layer_id] = self.facts(layer_id, parent)

    def remove(self, layer_id: str) -> None:
        self.layers.pop(layer_id, None)
        self.plugin.call("Remove", ID=layer_id)

    def facts(self, layer_id: str, parent: str) -> Facts:
        """The layer as it is."""
        return Facts(
            parent,
            self._tree(layer_id),
            self._text(layer_id, "link"),
            self._text(layer_id, "lower"),
            self.plugin.diff(layer_id, parent),
        )

    def assert_can_be_made_again(self, layer_id: str, parent: str) -> None:
        """An id that a crash left unfinished is free for a new try, and then for removal."""
        self.plugin.call("Remove", ID=layer_id)
        self.make(layer_id, parent, EVERY_KIND if parent == "base" else EMPTY)
        if parent == "base":
            self.assert_like_every(self.layers[layer_id])
        self.remove(layer_id)

    def assert_like_every(self, made: Facts) -> None:
        """It is whole: the same as another layer of the same tar, but for times of its making."""
        like = self.layers["every"]
        assert _timeless(made.tree) == _timeless(like.tree)
        assert len(made.diff) == len(like.diff)

    def assert_unmounted(self, *layer_ids: str) -> None:
        """What the driver mounted for itself is gone, or goes with a Put, like an engine's."""
        for layer_id in layer_ids:
            if is_mounted(self, layer_id):
                assert self.engine_is_new, f"{layer_id} is still mounted"
                self.plugin.call("Put", ID=layer_id)

    # --- crashes ----------------------------------------------------------------------------------

    def restart(self, engine_too: bool = False) -> None:
        """Start the plugin after a crash; with `engine_too`, an engine that has started as well.

        What the crash left in sight has to be named in the log when the first call was answered.
        """
        self.engine_is_new = engine_too
        rubbish = self.rubbish()
        seen = len(self.plugin.log_text())
        self.plugin.restart()
        if engine_too:
            self.init()
        elif (self.plugin.run_dir / "init.json").exists():
            self.plugin.call("Status")
        if self.home.exists():
            said = self.plugin.log_text()[seen:]
            for name in rubbish - self.rubbish():
                assert name in said, f"{name} was tidied without a word: {said}"

    def rubbish(self) -> Set[str]:
        """Names of what has no use, and is nothing that a call could still want."""
        found = set()
        with contextlib.suppress(FileNotFoundError):
            found.update(os.listdir(self.home / ".incomplete"))
            for name in os.listdir(self.home / "l"):
                if not os.path.exists(self.home / "l" / name):
                    found.add(name)
        for folder in (self.home, self.home.parent):
            with contextlib.suppress(FileNotFoundError):
                found.update(n for n in os.listdir(folder) if n.startswith(".overlay-check"))
        return found

    # --- checks -----------------------------------------------------------------------------------

    def assert_intact(self) -> None:
        """Every acknowledged layer is byte for byte what it was."""
        for layer_id, known in self.layers.items():
            now = self.facts(layer_id, known.parent)
            for field, was, is_now in zip(Facts._fields, known, now):
                assert was == is_now, f"{layer_id}: {field} has changed"
            if known.parent in self.layers:
                self.assert_is_parent(known.parent)

    def assert_is_parent(self, layer_id: str) -> None:
        """The layer is noted as one that may not change any more."""
        assert (self.home / layer_id / "committed").exists(), layer_id

    def assert_tidy(self) -> None:
        """Layers, links, mounts and records are those of the acknowledged layers, and no more."""
        assert self.rubbish() == set()
        known = {"l", ".incomplete", "backingFsBlockDev"}
        assert {n for n in os.listdir(self.home) if n not in known} == set(self.layers)
        links = {n: os.readlink(self.home / "l" / n) for n in os.listdir(self.home / "l")}
        assert links == {facts.link: f"../{i}/diff" for i, facts in self.layers.items()}
        self._assert_mounts()
        for layer_id, facts in self.layers.items():
            wanted = {"diff", "link"}
            if facts.lower:
                wanted |= {"lower", "work"}
            if layer_id in self.mounted:
                wanted.add("merged")
            found = set(os.listdir(self.home / layer_id)) - {"committed"}
            assert found == wanted, f"{layer_id}: {found}"
        run_dir = self.plugin.run_dir
        assert set(os.listdir(run_dir)) == {"driver", "init.json"}
        counts = run_dir / "driver" / "counts"
        left = set(os.listdir(counts)) if counts.exists() else set()
        assert left <= self.mounted, f"counts of layers that are not mounted: {left}"

    def _assert_mounts(self) -> None:
        wanted = {str(self.home / layer_id / "merged") for layer_id in self.mounted}
        assert set(mounts_below(str(self.home.parent))) == wanted

    def _tree(self, layer_id: str) -> Snapshot:
        return snapshot(self.home / layer_id / self.tree)

    def _text(self, layer_id: str, name: str) -> str:
        path = self.home / layer_id / name
        return path.read_text() if path.exists() else ""


class Trees(World):
    """The world of a driver that derives from `manuka.whole.WholeTrees`."""

    tree = "tree"

    def assert_is_parent(self, layer_id: str) -> None:
        """Nothing is noted: a child has all that its parent had."""

    def assert_tidy(self) -> None:
        """There is nothing but the acknowledged layers, and nothing in them but their trees."""
        assert self.rubbish() == set()
        assert set(os.listdir(self.home)) == {".incomplete", *self.layers}
        for layer_id in self.layers:
            assert os.listdir(self.home / layer_id) == ["tree"], layer_id
        assert mounts_below(str(self.home.parent)) == []
        assert set(os.listdir(self.plugin.run_dir)) == {"driver", "init.json"}


class Scaffold(Trees):
    """The world of the driver that ``manuka new`` makes, as it makes it."""

    arguments = ("--driver", "blue_store:BlueStore")

    def __init__(
        self, nursery: Nursery, folder: Path, *options: str, home_on: Optional[Path] = None
    ) -> None:
        nursery.ask("import_from", make_project("blue-store", str(folder)))
        super().__init__(nursery, folder, *options, home_on=home_on)


class Vfs(Trees):
    """The world of the driver vfs."""

    arguments = ("--driver", "vfs")


class Btrfs(Trees):
    """The world of the driver btrfs, whose home has to be on one."""

    arguments = ("--driver", "btrfs")


def _timeless(tree: Snapshot) -> Snapshot:
    return {
        path: {key: value for key, value in record.items() if key != "mtime_ns" or value == MTIME}
        for path, record in tree.items()
    }


@contextlib.contextmanager
def world_in(
    nursery: Nursery,
    parent: Path,
    *options: str,
    home_on: Optional[Path] = None,
    kind: Type[World] = World,
) -> Iterator[World]:
    """A world with acknowledged layers; all its mounts are gone afterwards."""
    world = kind(nursery, Path(tempfile.mkdtemp(dir=parent)), *options, home_on=home_on)
    try:
        world.populate()
        yield world
    finally:
        world.close()


def is_mounted(world: World, layer_id: str) -> bool:
    return is_mount_point(str(world.home / layer_id / "merged"))
