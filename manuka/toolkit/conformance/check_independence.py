"""What is done in one layer shows in no other: not in a parent, a sibling, or a twin.

A twin is an unrelated layer with the same content, which a driver may keep only once.  Each check
does everything in one tree, each work on a file of its own, whose name says which it was.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Callable, Dict, Iterator, NamedTuple

import pytest

from manuka.toolkit.conformance import specimen, words
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.limits import together
from manuka.toolkit.conformance.rules import (
    ENGINE_BUILDER,
    ENGINE_DRIVER,
    ENGINE_LAYERS,
    GRAPHTEST,
    IMAGES,
    needed,
)
from manuka.toolkit.layertar import LayerTar
from manuka.toolkit.snapshot import Snapshot

_CONTENT = b"of both\n" * 1024
_BLOCK = 4096

# --- what is done ---------------------------------------------------------------------------------


def _write(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"WRITTEN")


def _append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _map(path: str) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[_BLOCK : _BLOCK + 6] = b"MAPPED"


def _replace(path: str) -> None:
    with open(path + ".new", "wb") as file:
        file.write(b"another")
    os.replace(path + ".new", path)


def _relink(path: str) -> None:
    os.unlink(path)
    os.symlink("elsewhere", path)


def _set_attribute(path: str) -> None:
    with contextlib.suppress(OSError):  # a file system without them
        os.setxattr(path, "user.kit", b"set")


_WORK: Dict[str, Callable[[str], object]] = {
    "written": _write,
    "appended": _append,
    "mapped": _map,
    "truncated": lambda path: os.truncate(path, 10),
    "emptied": lambda path: os.truncate(path, 0),
    "permissions": lambda path: os.chmod(path, 0o4711),
    "owner": lambda path: os.chown(path, 77, 78),
    "time": lambda path: os.utime(path, (1_600_000_000, 1_600_000_000)),
    "attribute": _set_attribute,
    "replaced": _replace,
    "removed": os.unlink,
    "renamed": lambda path: os.rename(path, path + ".away"),
    "linked": lambda path: os.link(path, path + ".link"),
    "became-link": _relink,
}

_FOLDER_WORK: Dict[str, Callable[[str], object]] = {
    "folder-filled": lambda path: os.mkdir(path + "/new"),
    "folder-permissions": lambda path: os.chmod(path, 0o700),
    "folder-owner": lambda path: os.chown(path, 77, 78),
    "folder-attribute": _set_attribute,
    "folder-removed": os.rmdir,
}


def _tar() -> LayerTar:
    tar = LayerTar().folder("d")
    for name in _WORK:
        tar.file(f"d/{name}", _CONTENT, xattrs={"user.note": b"of both"})
    for name in _FOLDER_WORK:
        tar.folder(name)
    return tar.file("first", _CONTENT).hardlink("second", "first")


def _fill(tree: object) -> None:
    """The same as `_tar`, in place."""
    os.mkdir(f"{tree}/d")
    for name in _WORK:
        with open(f"{tree}/d/{name}", "wb") as file:
            file.write(_CONTENT)
    for name in _FOLDER_WORK:
        os.mkdir(f"{tree}/{name}")
    with open(f"{tree}/first", "wb") as file:
        file.write(_CONTENT)
    os.link(f"{tree}/first", f"{tree}/second")


def _spoil(tree: object) -> None:
    for name, work in _WORK.items():
        work(f"{tree}/d/{name}")
    for name, work in _FOLDER_WORK.items():
        work(f"{tree}/{name}")
    with open(f"{tree}/second", "r+b") as file:
        file.write(b"WRITTEN")


# --- layers that have to be independent -----------------------------------------------------------


class Related(NamedTuple):
    """one: the layer that is written to.  others: by what they are to it."""

    one: Layer
    others: Dict[str, Layer]


def _written(layers: Layers, parent: Layer | None = None) -> Layer:
    layer = layers.create(parent)
    with layer.tree() as tree:
        _fill(tree)
    return layer


def _child(layers: Layers) -> Related:
    base = layers.image(_tar())
    parent = layers.image(LayerTar().file("d/own", b"of the parent"), base)
    return Related(layers.container(parent), {"the parent": parent, "the parent's parent": base})


def _siblings(layers: Layers) -> Related:
    base = layers.image(_tar())
    one, other = layers.container(base), layers.container(base)
    return Related(one, {"the parent": base, "the sibling": other})


def _image_siblings(layers: Layers) -> Related:
    base = layers.image(_tar())
    one, other = layers.create(base), layers.create(base)
    return Related(one, {"the parent": base, "the sibling": other})


def _sibling_of_a_layer_with_a_child(layers: Layers) -> Related:
    base = layers.image(_tar())
    other = layers.create(base)
    one, child = layers.container(base), layers.container(other)
    return Related(one, {"the sibling": other, "the sibling's child": child})


def _twins(layers: Layers) -> Related:
    return Related(layers.image(_tar()), {"a layer with the same content": layers.image(_tar())})


def _twins_in_place(layers: Layers) -> Related:
    other = _written(layers)
    return Related(_written(layers), {"a layer with the same content": other})


def _children_of_twins(layers: Layers) -> Related:
    one, other = layers.image(_tar()), layers.image(_tar())
    return Related(
        layers.container(one),
        {"the parent": one, "the parent's twin": other, "its child": layers.container(other)},
    )


def _committed(layers: Layers) -> Related:
    container = _written(layers, layers.image(LayerTar().file("below")))
    image = layers.committed(container)
    return Related(container, {"the image made of it": image, "its child": layers.container(image)})


_RELATED = {
    "child": _child,
    "siblings": _siblings,
    "image-siblings": _image_siblings,
    "nephew": _sibling_of_a_layer_with_a_child,
    "twins": _twins,
    "twins-in-place": _twins_in_place,
    "children-of-twins": _children_of_twins,
    "committed": _committed,
}


def _related(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("relate", [_RELATED[name] for name in names], ids=names)


@contextlib.contextmanager
def _unchanged(others: Dict[str, Layer], by: str) -> Iterator[None]:
    """Fail when a layer shows something else after the block than before."""
    before = {name: layer.view() for name, layer in others.items()}
    yield
    for name, layer in others.items():
        _assert_same(layer.view(), before[name], f"{by} changed {name}")


def _assert_same(found: Snapshot, expected: Snapshot, what: str) -> None:
    if found != expected:
        raise AssertionError("\n".join([what, *words.compared("==", found, expected)[1:]]))


# --- writing --------------------------------------------------------------------------------------


@needed("What is done in a child shows neither in its parents nor in its siblings.", ENGINE_DRIVER)
@_related("child", "siblings", "image-siblings", "nephew")
def check_relatives_are_independent(layers: Layers, relate: Callable[[Layers], Related]) -> None:
    one, others = relate(layers)
    with _unchanged(others, "work in a layer"), one.tree() as tree:
        _spoil(tree)


@needed("Layers with the same content share nothing that can be written to.", ENGINE_BUILDER)
@_related("twins", "twins-in-place", "children-of-twins", "committed")
def check_twins_are_independent(layers: Layers, relate: Callable[[Layers], Related]) -> None:
    one, others = relate(layers)
    with _unchanged(others, "work in a layer"), one.tree() as tree:
        _spoil(tree)


@needed("Layers that are written to at the same time have files of their own.", ENGINE_DRIVER)
@_related("siblings", "image-siblings", "twins", "twins-in-place", "children-of-twins")
def check_layers_in_use_share_no_file(layers: Layers, relate: Callable[[Layers], Related]) -> None:
    one, others = relate(layers)
    other = list(others.values())[-1]
    with one.tree() as tree, other.tree() as second:
        paths = [str(tree / "d/written"), str(second / "d/written")]
        with open(paths[0], "r+b") as file, open(paths[1], "r+b") as file_of_other:
            for turn in range(8):
                file.seek(turn * 512)
                file.write(b"one")
                file.flush()
                file_of_other.seek(turn * 512)
                file_of_other.write(b"two")
                file_of_other.flush()
            identities = [
                (status.st_dev, status.st_ino)
                for status in (os.fstat(file.fileno()), os.fstat(file_of_other.fileno()))
            ]
        for path, mark in zip(paths, (b"one", b"two")):
            with open(path, "rb") as written:
                content = written.read()
            found = {content[turn * 512 :][:3] for turn in range(8)}
            assert found == {mark}, f"{path} holds what was written to the other layer"
        assert identities[0] != identities[1], "both trees show the same inode"


@needed("Containers of one image can write all at once, each for itself.", ENGINE_LAYERS)
def check_siblings_are_written_at_once(layers: Layers) -> None:
    base = layers.image(_tar())
    before = base.view()
    children = [layers.container(base) for _ in range(8)]

    def live(child: Layer) -> Callable[[], None]:
        def work() -> None:
            mark = child.id.encode()
            for turn in range(4):
                with child.tree() as tree:
                    for name in ("d/written", "d/appended", "second"):
                        with open(str(tree / name), "r+b") as file:
                            file.write(mark)
                    (tree / f"d/{turn}").write_bytes(mark)

        return work

    together([live(child) for child in children])
    for child in children:
        with child.tree() as tree:
            for name in ("d/written", "d/appended", "second", "d/0", "d/3"):
                found = (tree / name).read_bytes()[:64]
                assert found == child.id.encode(), f"{name} has what another child wrote"
    _assert_same(base.view(), before, "children that wrote at once changed the parent")


@needed("A tar that is applied to a child changes neither parent nor siblings.", IMAGES)
def check_a_tar_changes_no_other_layer(layers: Layers) -> None:
    base = layers.image(_tar().file("both", b"1", 0o644).folder("opaque").file("opaque/f"))
    others = {"the parent": base, "the sibling": layers.container(base)}
    tar = LayerTar().file("d/written", b"of the tar").file("both", b"1", 0o600, uid=9)
    tar.file("first", b"not linked any more").whiteout("d/removed").opaque("opaque")
    tar.symlink("d/replaced", "written").folder("d", 0o711, uid=3).folder("d/truncated")
    tar.hardlink("d/linked", "both").file("d/appended", _CONTENT + b"more")
    with _unchanged(others, "a tar for a child"):
        child = layers.image(tar, base)
        assert "d/removed" not in child.names(), "d/removed is still there"


# --- removing -------------------------------------------------------------------------------------


@needed("A layer that is removed takes nothing from one with the same content.", ENGINE_LAYERS)
@_related("siblings", "twins", "twins-in-place", "children-of-twins", "committed")
def check_removing_spares_the_others(layers: Layers, relate: Callable[[Layers], Related]) -> None:
    one, others = relate(layers)
    with _unchanged(others, "Remove of a layer"):
        one.remove()
    left = list(others.values())[-1]
    with layers.container(left).tree() as tree:
        assert (tree / "d/written").read_bytes() == _CONTENT


@needed("Content that was removed with one layer can come again with another.", ENGINE_LAYERS)
def check_content_can_come_again(layers: Layers) -> None:
    expected = layers.image(_tar()).view()
    for turn in range(3):
        one, other = layers.image(_tar()), layers.image(_tar())
        (one, other)[turn % 2].remove()
        left = (other, one)[turn % 2]
        _assert_same(left.view(), expected, "Remove of a layer changed one with the same content")
        left.remove()
        again = layers.image(_tar())
        _assert_same(again.view(), expected, "content that came again is not whole:")
        again.remove()


@needed("Files with the same content stay apart in mode, owner, time and attributes.", IMAGES)
def check_same_content_keeps_its_properties(layers: Layers) -> None:
    plain = LayerTar().file("f", _CONTENT, 0o644).file("g", _CONTENT, 0o600, uid=5)
    other = LayerTar().file("f", _CONTENT, 0o4755, uid=7, gid=8, mtime_ns=10**18)
    other.file("g", _CONTENT, 0o644, xattrs={"security.capability": specimen.CAPABILITY})
    one, two = layers.image(plain).view(), layers.image(other).view()
    modes = [view[name]["mode"] for view in (one, two) for name in ("f", "g")]
    assert modes == ["0o644", "0o600", "0o4755", "0o644"], f"the modes are {modes}"
    owners = [view[name]["owner"] for view in (one, two) for name in ("f", "g")]
    assert owners == ["0:0", "5:0", "7:8", "0:0"], f"the owners are {owners}"
    assert two["f"]["mtime_ns"] == 10**18, "the time is another file's"
    assert "links" not in {**one["f"], **one["g"], **two["f"], **two["g"]}, "files became links"


@needed("Files of the same size and time stay apart in content.", GRAPHTEST)
def check_same_size_and_time_keep_their_content(layers: Layers) -> None:
    layers.image(LayerTar().file("f", b"A" * 5000).file("g", b"B" * 5000))
    with layers.image(LayerTar().file("f", b"C" * 5000).file("g", b"D" * 5000)).tree() as tree:
        found = {name: (tree / name).read_bytes()[:1] for name in ("f", "g")}
    assert found == {"f": b"C", "g": b"D"}
