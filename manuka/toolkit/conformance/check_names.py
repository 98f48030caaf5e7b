"""Names as containers have them: any bytes but the slash and NUL, through every call."""

from __future__ import annotations

import os
from typing import List

import pytest

from manuka.toolkit.conformance.layers import Layers
from manuka.toolkit.conformance.rules import ENGINE_PROXY, IMAGES, choice, needed
from manuka.toolkit.layertar import LayerTar

NAMES = {
    "accents": ["caf\u00e9".encode(), "cafe\u0301".encode()],
    "scripts": ["\u65e5\u672c\u8a9e".encode(), "\u0440\u0443\u0441".encode(), b"\xf0\x9f\x90\x9d"],
    "not-utf-8": [b"latin-\xe9", b"\xff\xfe", b"\x80"],
    "controls": [b"new\nline", b"tab\there", b"\x1b[31m", b"\x7f", b"\r"],
    "blanks": [b" before", b"behind ", b"   "],
    "shell": [b"$(x)", b"a;b", b"*", b"`x`", b"'", b'"', b"\\", b"\\n", b"&", b"!"],
    "option": [b"-rf", b"--", b"@file"],
    "dots": [b"...", b"..data", b".hidden", b"a.", b".w", b".wh"],
    "mount-data": [b"a:b", b"a,b", b"upperdir=x", b"a=b", b"%2e%2e", b"a%00"],
    "cases": [b"Name", b"name", b"NAME"],
    "long": [b"n" * 255, "\u00e9".encode() * 127],
    "tar": [b"x" * 100, b"y" * 101, b"././@LongLink", b"PaxHeaders.0"],
}

each = pytest.mark.parametrize("names", list(NAMES.values()), ids=list(NAMES))


def _tar(names: List[bytes]) -> LayerTar:
    tar = LayerTar()
    for name in names:
        if b"/" not in name:
            tar.folder(b"folder " + name[:240]).file(b"folder " + name[:240] + b"/" + name, name)
            tar.file(name, name, uid=1)
    return tar


@needed("Names are bytes, and are kept as they are.", IMAGES)
@each
def check_names_are_kept(layers: Layers, names: List[bytes]) -> None:
    plain = [name for name in names if b"/" not in name]
    with layers.image(_tar(names)).tree() as tree:
        found = os.listdir(os.fsencode(str(tree)))
        expected = sorted(plain + [b"folder " + name[:240] for name in plain])
        assert sorted(found) == expected, f"there is {sorted(found)}"
        for name in plain:
            with open(os.path.join(os.fsencode(str(tree)), name), "rb") as file:
                assert file.read() == name, f"{name!r} has the content of another"


@needed("Names go through a Diff as they are.", IMAGES, guide="diff")
@each
def check_names_survive_a_diff(layers: Layers, names: List[bytes]) -> None:
    container = layers.container(layers.image(LayerTar().file("below")))
    plain = [name for name in names if b"/" not in name]
    with container.tree() as tree:
        for name in plain:
            with open(os.path.join(os.fsencode(str(tree)), name), "wb") as file:
                file.write(name)
    assert layers.committed(container).view().keys() == container.view().keys()


@needed("Any name can be hidden by a whiteout, and its deletion is in a Diff.", IMAGES)
@each
def check_any_name_can_be_deleted(layers: Layers, names: List[bytes]) -> None:
    names = [name for name in names if len(name) <= 251 and b"/" not in name]  # and .wh. before it
    tar, whiteouts = LayerTar().file("stays"), LayerTar()
    for name in names:
        tar.file(name, b"x")
        whiteouts.whiteout(name)
    base = layers.image(tar)
    assert layers.image(whiteouts, base).names() == ["stays"]
    container = layers.container(base)
    with container.tree() as tree:
        for name in names:
            os.unlink(os.path.join(os.fsencode(str(tree)), name))
    assert layers.committed(container).names() == ["stays"]


@needed("Links keep the bytes of their targets.", IMAGES)
def check_link_targets_are_bytes(layers: Layers) -> None:
    targets = [b"latin-\xe9", b"new\nline", "\u65e5\u672c".encode(), b"t" * 900]
    tar = LayerTar()
    for number, target in enumerate(targets):
        tar.symlink(str(number), target)
    with layers.image(tar).tree() as tree:
        for number, target in enumerate(targets):
            found = os.readlink(os.fsencode(str(tree / str(number))))
            assert found == target, f"it leads to {found!r}"


@needed("Paths may be deep and long.", IMAGES)
def check_paths_may_be_long(layers: Layers) -> None:
    path = "/".join(["d" * 100] * 20)
    layer = layers.image(LayerTar().file(f"{path}/file", b"deep"))
    with layer.tree() as tree:
        assert (tree / path / "file").read_bytes() == b"deep"
    assert layers.committed(layer).view().keys() == layer.view().keys()


@choice("Changes has names that are valid Unicode as they are.", ENGINE_PROXY, guide="changes")
@pytest.mark.parametrize("kind", ["accents", "scripts", "blanks", "shell", "mount-data", "dots"])
def check_changes_have_names_as_they_are(layers: Layers, kind: str) -> None:
    container = layers.container(layers.create())
    with container.tree() as tree:
        for name in NAMES[kind]:
            with open(os.path.join(os.fsencode(str(tree)), name), "wb"):
                pass
    expected = sorted("/" + name.decode() for name in NAMES[kind])
    assert sorted(container.changes()) == expected


@needed("A name that is no valid Unicode does not spoil Changes.", ENGINE_PROXY, guide="changes")
def check_changes_can_be_told_of_any_name(layers: Layers) -> None:
    container = layers.container(layers.create())
    with container.tree() as tree:
        for name in (b"latin-\xe9", b"new\nline", b"plain"):
            with open(os.path.join(os.fsencode(str(tree)), name), "wb"):
                pass
    changes = container.changes()
    assert changes.get("/plain") == "added", f"Changes says {changes}"
    assert len(changes) == 3
