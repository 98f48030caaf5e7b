"""What ``docker diff`` shows, and what ``docker ps --size`` adds up."""

from __future__ import annotations

import os
import shutil
from typing import Callable, Dict

import pytest

from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import (
    ENGINE_LAYERS,
    ENGINE_PROXY,
    ENGINE_UNTAR,
    GRAPHTEST,
    choice,
    needed,
)
from manuka.toolkit.layertar import LayerTar

MEBIBYTE = 1 << 20


def _base(layers: Layers) -> Layer:
    tar = LayerTar().folder("d").file("d/a", b"one").file("d/b", b"two").folder("d/e")
    return layers.image(tar.file("d/e/f", b"x").file("top", b"three").symlink("link", "top"))


def _write(tree: str) -> None:
    with open(tree + "/d/a", "wb") as file:
        file.write(b"longer than before")


def _same_length(tree: str) -> None:
    with open(tree + "/d/a", "wb") as file:
        file.write(b"ONE")


def _add(tree: str) -> None:
    with open(tree + "/d/new", "wb") as file:
        file.write(b"new")


def _add_folder(tree: str) -> None:
    os.makedirs(tree + "/n/m")
    with open(tree + "/n/m/file", "wb"):
        pass


def _delete(tree: str) -> None:
    os.unlink(tree + "/d/b")


def _delete_folder(tree: str) -> None:
    shutil.rmtree(tree + "/d/e")


def _delete_at_top(tree: str) -> None:
    os.unlink(tree + "/top")


def _chmod(tree: str) -> None:
    os.chmod(tree + "/top", 0o600)


def _chown(tree: str) -> None:
    os.chown(tree + "/top", 5, 6)


def _touch(tree: str) -> None:
    os.utime(tree + "/top", (1_600_000_000, 1_600_000_000))


def _move(tree: str) -> None:
    os.rename(tree + "/d/a", tree + "/d/z")


def _nothing(tree: str) -> None:
    with open(tree + "/d/a", "rb") as file:
        file.read()


WORK: Dict[str, tuple[Callable[[str], None], dict[str, str]]] = {
    "written": (_write, {"/d": "modified", "/d/a": "modified"}),
    "same-length": (_same_length, {"/d": "modified", "/d/a": "modified"}),
    "added": (_add, {"/d": "modified", "/d/new": "added"}),
    "folder-added": (_add_folder, {"/n": "added", "/n/m": "added", "/n/m/file": "added"}),
    "deleted": (_delete, {"/d": "modified", "/d/b": "deleted"}),
    "folder-deleted": (_delete_folder, {"/d": "modified", "/d/e": "deleted"}),
    "deleted-at-top": (_delete_at_top, {"/top": "deleted"}),
    "permissions": (_chmod, {"/top": "modified"}),
    "owner": (_chown, {"/top": "modified"}),
    "time": (_touch, {"/top": "modified"}),
    "moved": (_move, {"/d": "modified", "/d/a": "deleted", "/d/z": "added"}),
    "only-read": (_nothing, {}),
}


@needed(
    "Changes are the files added, modified and deleted, the folders above them as modified, and "
    "of what was deleted only the uppermost.",
    GRAPHTEST,
)
@pytest.mark.parametrize("work", list(WORK))
def check_changes_tell_what_was_done(layers: Layers, work: str) -> None:
    container = layers.container(_base(layers))
    do, expected = WORK[work]
    with container.tree() as tree:
        do(str(tree))
    changes = container.changes()
    assert changes == expected, f"expected {expected}, got {changes}"


@needed("A file changed within a second, with the same size, is in Changes and Diff.", ENGINE_UNTAR)
def check_a_change_within_a_second_is_told(layers: Layers) -> None:
    second = 1_600_000_000 * 10**9
    base = layers.create()
    with base.tree() as tree:
        (tree / "f").write_bytes(b"before")
        os.utime(str(tree / "f"), ns=(second + 1000, second + 1000))
    container = layers.container(base)
    with container.tree() as tree:
        (tree / "f").write_bytes(b"behind")
        os.utime(str(tree / "f"), ns=(second + 500_000_000, second + 500_000_000))
    assert container.changes() == {"/f": "modified"}
    with layers.committed(container).tree() as tree:
        assert (tree / "f").read_bytes() == b"behind"


@needed("A file that was deleted while it was open is gone, and nothing else came.", ENGINE_LAYERS)
def check_an_open_file_can_be_deleted(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        with open(str(tree / "d/new"), "w+b") as new, open(str(tree / "d/a"), "r+b") as old:
            for file, name in ((new, "new"), (old, "a")):
                file.write(b"NEW")
                file.flush()
                os.unlink(str(tree / "d" / name))
            assert sorted(os.listdir(str(tree / "d"))) == ["b", "e"]
            assert container.changes() == {"/d": "modified", "/d/a": "deleted"}
            assert "d/a" not in layers.committed(container).names(), "the Diff lacks the deletion"
    assert container.names() == ["d", "d/b", "d/e", "d/e/f", "link", "top"]


@needed("Changes are told also while the layer is mounted: the container may run.", ENGINE_LAYERS)
def check_changes_of_a_mounted_layer(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        _add(str(tree))
        changes = container.changes()
        assert changes == {"/d": "modified", "/d/new": "added"}, f"got {changes}"
        _delete(str(tree))
        assert container.changes().get("/d/b") == "deleted"
        assert (tree / "d" / "new").exists(), "Changes took the tree away"


@needed("Paths of changes begin with a slash, and none ends with one or is empty.", ENGINE_PROXY)
def check_paths_of_changes_are_whole(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        for do, _ in WORK.values():
            if do not in (_same_length, _move, _nothing, _delete_at_top):
                do(str(tree))
    for path, kind in container.changes().items():
        assert path.startswith("/"), f"{path!r} begins without a slash"
        assert not path.endswith("/"), f"{path!r} ends with a slash"
        assert kind in ("added", "modified", "deleted"), f"{path} is {kind}"


@needed("A layer in which nothing changed has no changes.", GRAPHTEST)
def check_an_unchanged_layer_has_no_changes(layers: Layers) -> None:
    assert layers.container(_base(layers)).changes() == {}
    assert layers.create().changes() == {}


@needed("Of a layer on nothing everything is added.", GRAPHTEST)
def check_of_a_base_layer_everything_is_added(layers: Layers) -> None:
    changes = _base(layers).changes()
    expected = ["/d", "/d/a", "/d/b", "/d/e", "/d/e/f", "/link", "/top"]
    assert changes == dict.fromkeys(expected, "added"), f"got {changes}"


@choice("A symbolic link that leads elsewhere is a modification.", ENGINE_UNTAR)
def check_a_link_that_leads_elsewhere_is_a_change(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        before = os.lstat(str(tree / "link")).st_mtime_ns
        os.unlink(str(tree / "link"))
        os.symlink("pot", str(tree / "link"))
        os.utime(str(tree / "link"), ns=(before, before), follow_symlinks=False)
    assert container.changes() == {"/link": "modified"}


@choice("A file that became a folder, or the other way, is a modification.", ENGINE_UNTAR)
def check_a_change_of_type_is_a_modification(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        os.unlink(str(tree / "top"))
        os.mkdir(str(tree / "top"))
        shutil.rmtree(str(tree / "d"))
        (tree / "d").write_bytes(b"a file now")
    assert container.changes() == {"/top": "modified", "/d": "modified"}


# --- sizes ----------------------------------------------------------------------------------------


@needed(
    "DiffSize is a number of bytes that grows with what is written.",
    ENGINE_LAYERS,
    guide="diffsize",
)
def check_the_size_grows_with_the_layer(layers: Layers) -> None:
    container = layers.container(_base(layers))
    before = container.size()
    with container.tree() as tree:
        with open(str(tree / "new"), "wb") as file:
            file.write(os.urandom(MEBIBYTE))
            file.flush()
            os.fsync(file.fileno())  # some file systems count only what is on the disk
        grown = container.size() - before
    assert grown > MEBIBYTE // 2, f"after a file of 1 MiB it is {grown} bytes more"


@needed("Sizes are whole numbers, and none is negative.", ENGINE_PROXY, guide="diffsize")
def check_sizes_are_whole_numbers(layers: Layers) -> None:
    base = _base(layers)
    for size in (base.told_size, base.size(), layers.create().size()):
        assert isinstance(size, int), f"a size is {size}"
        assert size >= 0, f"a size is {size}"


@choice(
    "DiffSize is the sum of the layer's files, hard links counted once.",
    GRAPHTEST,
    guide="diffsize",
)
def check_the_size_is_that_of_the_files(layers: Layers) -> None:
    tar = LayerTar().file("a", b"x" * 1000).file("b", b"y" * 500).hardlink("c", "a").folder("d")
    layer = layers.image(tar, _base(layers))
    assert layer.size() == 1500, f"it is {layer.size()}"


@choice("ApplyDiff and DiffSize tell the same size.", GRAPHTEST, guide="diffsize")
def check_both_sizes_are_the_same(layers: Layers) -> None:
    tar = LayerTar().file("a", b"x" * 1000).folder("d").file("d/b", b"y").symlink("s", "target")
    layer = layers.image(tar, _base(layers))
    assert layer.told_size == layer.size(), f"{layer.told_size} and {layer.size()}"


@choice("ApplyDiff of an empty tar has the size 0.", GRAPHTEST, guide="applydiff")
def check_an_empty_tar_has_no_size(layers: Layers) -> None:
    assert layers.image(LayerTar(), _base(layers)).told_size == 0
