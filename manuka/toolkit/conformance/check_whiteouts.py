"""What a layer takes away from those below it: whiteouts, opaque folders, both ways."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from typing import List

from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import (
    CONFINEMENT,
    ENGINE_UNTAR,
    IMAGES,
    choice,
    needed,
)
from manuka.toolkit.layertar import LayerTar


def _base(layers: Layers) -> Layer:
    tar = LayerTar().file("file", b"1").folder("d").file("d/a", b"2").file("d/b", b"3")
    return layers.image(tar.folder("d/e").file("d/e/f", b"4").symlink("link", "file"))


ALL = ["d", "d/a", "d/b", "d/e", "d/e/f", "file", "link"]


def _without(*paths: str) -> List[str]:
    return [name for name in ALL if name not in paths]


@needed("A whiteout hides what lower layers have of its name: file, link, or folder.", IMAGES)
def check_a_whiteout_hides(layers: Layers) -> None:
    base = _base(layers)
    for path, gone in (("file", ["file"]), ("link", ["link"]), ("d/e", ["d/e", "d/e/f"])):
        names = layers.image(LayerTar().whiteout(path), base).names()
        assert names == _without(*gone), f"after the whiteout of {path} there is {names}"
    names = layers.image(LayerTar().whiteout("d"), base).names()
    assert names == ["file", "link"], f"after the whiteout of d there is {names}"


@needed("A whiteout is never seen as a file.", IMAGES)
def check_a_whiteout_is_no_file(layers: Layers) -> None:
    layer = layers.image(
        LayerTar().whiteout("d/a").whiteout("no-such").opaque("d/e"), _base(layers)
    )
    odd = [name for name in layer.names() if ".wh." in name or "no-such" in name]
    assert not odd, f"there is {odd}"
    view = layer.view()
    devices = [name for name, record in view.items() if "device" in record]
    assert not devices, f"there are devices: {devices}"


@choice("A whiteout of what is not there leaves nothing to be seen.", IMAGES)
def check_a_whiteout_of_nothing_leaves_nothing(layers: Layers) -> None:
    tar = LayerTar().whiteout("no/such/file").file("f", b"x")
    names = layers.image(tar).names()
    assert [name for name in names if name not in ("no", "no/such")] == ["f"], f"there is {names}"
    names = layers.image(LayerTar().whiteout("d/none"), _base(layers)).names()
    assert names == ALL


@needed("What a layer hid can come back in a layer above.", IMAGES)
def check_what_was_hidden_can_come_back(layers: Layers) -> None:
    base = _base(layers)
    hidden = layers.image(LayerTar().whiteout("file").whiteout("d"), base)
    back = layers.image(LayerTar().file("file", b"new").folder("d").file("d/new"), hidden)
    assert back.names() == ["d", "d/new", "file", "link"]
    assert layers.image(LayerTar().whiteout("d/new"), back).names() == ["d", "file", "link"]


@needed("A folder that takes the place of a hidden one shows nothing of it.", IMAGES)
def check_a_folder_made_anew_is_empty(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        shutil.rmtree(str(tree / "d"))
        os.mkdir(str(tree / "d"), 0o755)
        (tree / "d" / "new").write_bytes(b"n")
    expected = ["d", "d/new", "file", "link"]
    assert container.names() == expected
    assert layers.container(container).names() == expected
    assert layers.committed(container).names() == expected, "its Diff lost that the folder is new"


@needed("An opaque folder hides all that lower layers have in it.", IMAGES)
def check_an_opaque_folder_hides(layers: Layers) -> None:
    tar = LayerTar().folder("d").opaque("d").file("d/new", b"n")
    layer = layers.image(tar, _base(layers))
    assert layer.names() == ["d", "d/new", "file", "link"]
    child = layers.image(LayerTar().file("d/newer"), layer)
    assert child.names() == ["d", "d/new", "d/newer", "file", "link"], "a child sees through it"


@needed("An opaque mark hides lower layers only, wherever it stands in its tar.", IMAGES)
def check_an_opaque_mark_spares_its_own_layer(layers: Layers) -> None:
    tar = LayerTar().folder("d").file("d/before", b"1").opaque("d").file("d/behind", b"2")
    layer = layers.image(tar, _base(layers))
    assert layer.names() == ["d", "d/before", "d/behind", "file", "link"]


@needed("An opaque mark works in a folder that the tar has no entry for.", IMAGES)
def check_an_opaque_mark_implies_its_folder(layers: Layers) -> None:
    layer = layers.image(LayerTar().opaque("d/e").file("d/e/new"), _base(layers))
    assert layer.names() == ["d", "d/a", "d/b", "d/e", "d/e/new", "file", "link"]


@needed("Deletions are in a Diff, as whiteouts.", IMAGES)
def check_deletions_are_in_a_diff(layers: Layers) -> None:
    container = layers.container(_base(layers))
    with container.tree() as tree:
        (tree / "file").unlink()
        (tree / "d" / "a").unlink()
        shutil.rmtree(str(tree / "d" / "e"))
    with tarfile.open(fileobj=io.BytesIO(container.diff()), mode="r:") as archive:
        names = [name.lstrip("./") or name for name in archive.getnames()]
        found = sorted(name for name in archive.getnames() if ".wh." in name)
    plain = sorted(name[2:] if name.startswith("./") else name for name in found)
    assert plain == [".wh.file", "d/.wh.a", "d/.wh.e"], f"the Diff holds {names}"
    assert layers.committed(container).names() == ["d", "d/b", "link"]


@needed("A whiteout and a new file of the same name in one layer: the file is there.", IMAGES)
def check_a_whiteout_and_a_file_of_its_name(layers: Layers) -> None:
    tar = LayerTar().whiteout("file").file("file", b"new").whiteout("d").folder("d").file("d/new")
    layer = layers.image(tar, _base(layers))
    with layer.tree() as tree:
        assert (tree / "file").read_bytes() == b"new"
    names = layer.names()
    assert "d/new" in names, f"there is {names}"


@choice("A whiteout behind a new file of its name hides what is below, and the file stays.", IMAGES)
def check_a_whiteout_behind_a_file_of_its_name(layers: Layers) -> None:
    tar = LayerTar().file("file", b"new").whiteout("file")
    with layers.image(tar, _base(layers)).tree() as tree:
        assert (tree / "file").read_bytes() == b"new"


@choice("An opaque root hides all of the layers below.", IMAGES)
def check_an_opaque_root_hides_everything(layers: Layers) -> None:
    layer = layers.image(LayerTar().opaque().file("only", b"x"), _base(layers))
    assert layer.names() == ["only"]


@choice("What AUFS kept for itself in an old image is not shown.", ENGINE_UNTAR)
def check_leftovers_of_aufs_are_hidden(layers: Layers) -> None:
    tar = LayerTar().file(".wh..wh.aufs").folder(".wh..wh.orph").folder(".wh..wh.plnk")
    names = layers.image(tar.file("f"), _base(layers)).names()
    assert names == sorted([*ALL, "f"]), f"there is {names}"


@choice("Attributes by which an image could plant overlayfs' own records are dropped.", CONFINEMENT)
def check_an_image_cannot_plant_an_opaque_flag(layers: Layers) -> None:
    planted = {"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y"}
    layer = layers.image(LayerTar().folder("d", xattrs=planted), _base(layers))
    assert layer.names() == ALL
    container = layers.container(layer)
    assert container.names() == ALL
