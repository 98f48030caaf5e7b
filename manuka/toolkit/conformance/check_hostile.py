"""Tars by people who mean harm.  A plugin may refuse them or keep them inside; nothing else.

Each is sent as a base layer and as a child, for drivers unpack these in different ways.  All names
that lead out lead to the guard (`manuka.toolkit.conformance.kit.Guard`), which a fixture compares
with what it was.  Easy to get wrong: reading outside counts as well as writing.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import Callable, Dict, Optional

import pytest

from manuka.toolkit.client import ClientError
from manuka.toolkit.conformance.kit import Guard, Kit
from manuka.toolkit.conformance.layers import Layer, Layers
from manuka.toolkit.conformance.rules import CONFINEMENT, choice, needed
from manuka.toolkit.layertar import LayerTar

Hostile = Callable[[Guard], LayerTar]

UP = "../" * 40


def _dot_dot(guard: Guard) -> LayerTar:
    return LayerTar().file(f"{UP}{guard.name}/planted", b"x")


def _dot_dot_inside(guard: Guard) -> LayerTar:
    return LayerTar().folder("a").file(f"a/{UP}{guard.name}/planted", b"x")


def _one_up(guard: Guard) -> LayerTar:
    tar = LayerTar()
    for depth in range(1, 8):
        up = "../" * depth + guard.place
        tar.file(f"{up}/guard/planted", b"x").file(f"{up}-planted", b"x")
    return tar


def _absolute(guard: Guard) -> LayerTar:
    return LayerTar().file(f"{guard.folder}/planted", b"x")


def _overwritten(guard: Guard) -> LayerTar:
    return LayerTar().file(f"{UP}{guard.name}/secret", b"x").file(f"{guard.secret}", b"x")


def _through_link(guard: Guard) -> LayerTar:
    return LayerTar().symlink("a", str(guard.folder)).file("a/planted", b"x").folder("a/new")


def _through_relative_link(guard: Guard) -> LayerTar:
    return LayerTar().symlink("a", UP + guard.name).file("a/planted", b"x")


def _through_links(guard: Guard) -> LayerTar:
    tar = LayerTar().folder("d").symlink("d/up", "..").symlink("d/b", f"up/../{UP}{guard.name}")
    return tar.symlink("c", "d/b").file("c/planted", b"x")


def _over_link(guard: Guard) -> LayerTar:
    """Writing to a name that is a link must replace the link."""
    return LayerTar().symlink("f", str(guard.secret)).file("f", b"x")


def _deleted_through_link(guard: Guard) -> LayerTar:
    tar = LayerTar().symlink("a", str(guard.folder))
    return tar.whiteout("a/secret").whiteout("a/folder")


def _deleted_dot_dot(guard: Guard) -> LayerTar:
    return LayerTar().whiteout(f"{UP}{guard.name}/secret").whiteout(f"{UP}{guard.name}")


def _opaque_through_link(guard: Guard) -> LayerTar:
    return LayerTar().symlink("a", str(guard.folder)).opaque("a").opaque(f"{UP}{guard.name}")


def _folder_over_link(guard: Guard) -> LayerTar:
    return LayerTar().symlink("a", str(guard.folder)).folder("a", 0o777, uid=99, mtime_ns=0)


def _folder_dot_dot(guard: Guard) -> LayerTar:
    return LayerTar().folder(UP + guard.name, 0o777, uid=99).folder(f"{UP}{guard.name}/folder/")


def _hard_link(guard: Guard) -> LayerTar:
    tar = LayerTar().hardlink("a", str(guard.secret), 0o777, uid=99)
    return tar.hardlink("b", UP + guard.name + "/secret")


def _hard_link_then_write(guard: Guard) -> LayerTar:
    tar = LayerTar().symlink("d", str(guard.folder)).hardlink("a", "d/secret", 0o777)
    return tar.file("a", b"x")


def _hard_link_to_link(guard: Guard) -> LayerTar:
    tar = LayerTar().symlink("s", str(guard.secret)).hardlink("h", "s", 0o777, uid=99, mtime_ns=0)
    return tar.file("h", b"x")


def _linked_out(guard: Guard) -> LayerTar:
    """A hard link is made outside, of a file inside."""
    tar = LayerTar().file("f", b"x").hardlink(f"{UP}{guard.name}/planted", "f")
    return tar.symlink("a", str(guard.folder)).hardlink("a/planted2", "f")


def _device_through_link(guard: Guard) -> LayerTar:
    tar = LayerTar().symlink("a", str(guard.folder))
    return tar.device("a/null", 1, 3).fifo("a/fifo").symlink("a/link", "x")


def _attributes_through_link(guard: Guard) -> LayerTar:
    xattrs = {"user.planted": b"1", "security.capability": b"\1\0\0\2" + bytes(16)}
    tar = LayerTar().symlink("s", str(guard.secret), xattrs=xattrs, uid=99)
    return tar.symlink("a", str(guard.folder)).file("a/secret", b"x", xattrs=xattrs)


def _parent_whiteouts(guard: Guard) -> LayerTar:
    tar = LayerTar().folder("a")
    for name in (".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."):
        tar.file(name)
    return tar


def _dot_dot_whiteouts(guard: Guard) -> LayerTar:
    """The name behind the prefix leads out."""
    return LayerTar().file(f".wh.{UP}{guard.name}/secret").file(f"a/.wh./../{UP}{guard.name}/x")


def _root_as_link(guard: Guard) -> LayerTar:
    tar = LayerTar().symlink(".", str(guard.folder)).symlink("./", str(guard.folder))
    return tar.file("planted", b"x")


def _proc_link(guard: Guard) -> LayerTar:
    return LayerTar().symlink("a", f"/proc/self/root{guard.folder}").file("a/planted", b"x")


def _swapped(guard: Guard) -> LayerTar:
    """A folder that was gone through becomes a link."""
    tar = LayerTar().folder("a").folder("a/b").file("a/b/f", b"x")
    tar.symlink("a/b", str(guard.folder)).file("a/b/planted", b"x")
    return tar.symlink("a", str(guard.folder)).file("a/planted", b"x")


def _sparse_name(guard: Guard) -> LayerTar:
    """The pax records of a sparse entry have a name of their own."""
    info = tarfile.TarInfo("harmless")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": f"{UP}{guard.name}/planted",
        "GNU.sparse.realsize": "0",
    }
    data = b"0\n" + bytes(510)
    info.size = len(data)
    return LayerTar().raw(info, data)


ESCAPES: Dict[str, Hostile] = {
    function.__name__.strip("_").replace("_", "-"): function
    for function in (
        _dot_dot, _dot_dot_inside, _one_up, _absolute, _overwritten, _through_link,
        _through_relative_link, _through_links, _over_link, _deleted_through_link,
        _deleted_dot_dot, _opaque_through_link, _folder_over_link, _folder_dot_dot, _hard_link,
        _hard_link_then_write, _hard_link_to_link, _linked_out, _device_through_link,
        _attributes_through_link, _parent_whiteouts, _dot_dot_whiteouts, _root_as_link,
        _proc_link, _swapped, _sparse_name,
    )
}  # fmt: skip


@needed("No layer writes, deletes or reads outside of itself.", CONFINEMENT)
@pytest.mark.parametrize("on", ["nothing", "a-layer"])
@pytest.mark.parametrize("way", list(ESCAPES))
def check_no_layer_leads_out(kit: Kit, layers: Layers, guard: Guard, way: str, on: str) -> None:
    parent = layers.image(LayerTar().file("below", b"b")) if on == "a-layer" else None
    victim = layers.image(LayerTar().file("victim", b"v"))
    layer = layers.create(parent)
    with kit.watching_home():
        accepted = _apply(layer, ESCAPES[way](guard))
    guard.assert_untouched()
    if accepted:
        _assert_holds_no_secret(layer, guard)
    assert victim.names() == ["victim"], "another layer was changed"
    layer.remove()
    guard.assert_untouched()


@needed("A link of a lower layer leads no file of an upper one out.", CONFINEMENT)
@pytest.mark.parametrize("target", ["absolute", "relative"])
def check_no_link_below_leads_out(layers: Layers, guard: Guard, target: str) -> None:
    leads = str(guard.folder) if target == "absolute" else UP + guard.name
    base = layers.image(LayerTar().symlink("a", leads).symlink("f", leads + "/secret"))
    child = layers.create(base)
    tar = LayerTar().file("a/planted", b"x").file("f", b"x").whiteout("a/secret").opaque("a")
    if _apply(child, tar):
        _assert_holds_no_secret(child, guard)


@needed("Removing a layer follows no link that leads out.", CONFINEMENT, guide="remove")
def check_removing_follows_no_link(layers: Layers, guard: Guard) -> None:
    tar = LayerTar().symlink("a", str(guard.folder)).folder("d").symlink("d/b", UP + guard.name)
    layer = layers.image(tar)
    container = layers.container(layer)
    with container.tree() as tree:
        os.symlink(str(guard.folder), str(tree / "c"))
    container.remove()
    layer.remove()


@needed("Diff and Changes follow no link that leads out.", CONFINEMENT, guide="diff")
def check_a_diff_follows_no_link(layers: Layers, guard: Guard) -> None:
    container = layers.container(layers.create())
    with container.tree() as tree:
        os.symlink(str(guard.folder), str(tree / "a"))
        os.symlink(str(guard.secret), str(tree / "s"))
    assert not guard.is_secret(container.diff()), "the Diff holds what the link leads to"
    assert sorted(container.changes()) == ["/a", "/s"]


# --- tars that lie --------------------------------------------------------------------------------


def _claiming(size: bytes, kind: bytes = b"0") -> bytes:
    header = bytearray(tarfile.TarInfo("f").tobuf())
    header[124:136] = size
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


LIES = {
    "eight-exbibytes": _claiming(b"\x80" + bytes(3) + (2**63 - 1).to_bytes(8, "big")),
    "negative": _claiming(b"\xff" * 12),
    "far-too-big": _claiming(b"\x80" + b"\xff" * 11),
    "pax-records-of-8-gib": _claiming(b"77777777777\0", b"x"),
    "name-of-8-gib": _claiming(b"77777777777\0", b"L"),
    "no-number": _claiming(b"not-a-number"),
    "pax-length": _claiming(b"00000000020\0", b"x") + b"99999999 path=x\n" + bytes(496),
    "pax-nonsense": _claiming(b"00000000020\0", b"x") + b"\xff\0=\n no record" + bytes(500),
    "pax-behind-pax": _claiming(b"00000000000\0", b"x") * 1000,
    "sparse-nonsense": _claiming(b"00000001000\0", b"S") + bytes(512),
}


#: Of these, what a reader may also skip.
SENSELESS = ["pax-nonsense", "pax-behind-pax", "sparse-nonsense"]


@needed("A tar that lies about sizes is refused in time, and the plugin goes on.", CONFINEMENT)
@pytest.mark.parametrize("lie", [lie for lie in LIES if lie not in SENSELESS])
def check_a_tar_that_lies_is_refused(layers: Layers, lie: str) -> None:
    layer = layers.create()
    assert not _apply(layer, LIES[lie] + b"data" * 128), "it was acknowledged"
    layer.remove()
    layers.client.status()


@needed("A senseless tar does not end the plugin.", CONFINEMENT)
@pytest.mark.parametrize("lie", SENSELESS)
def check_a_senseless_tar_does_not_end_the_plugin(layers: Layers, lie: str) -> None:
    layer = layers.create()
    _apply(layer, LIES[lie] + LayerTar().file("f").bytes())
    layers.client.status()
    layer.remove()


@needed("Links in a circle are links, and writing through them is an error.", CONFINEMENT)
def check_links_in_a_circle_do_no_harm(layers: Layers) -> None:
    layer = layers.create()
    circle = LayerTar().symlink("a", "b").symlink("b", "a")
    assert _apply(layers.create(), circle), "links in a circle were refused"
    assert not _apply(layer, circle.file("a/f", b"x")), "a file was written through them"


@choice("Folders may be nested deeper than a path can be long.", CONFINEMENT)
def check_folders_may_be_very_deep(layers: Layers) -> None:
    tar = LayerTar()
    layer = layers.create()
    for depth in range(1, 40):
        tar.folder("/".join(["d" * 100] * depth))
    assert _apply(layer, tar), "it was refused"
    layer.remove()


def _apply(layer: Layer, tar: LayerTar | bytes) -> bool:
    """Whether the plugin took the tar."""
    try:
        layer.apply(tar)
    except ClientError:
        return False
    return True


def _assert_holds_no_secret(layer: Layer, guard: Guard) -> None:
    try:
        tree: Optional[str] = str(layer.get())
    except ClientError:
        return
    assert tree is not None
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            # An overlayfs may list the whiteouts of a folder that it merges with nothing.
            if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    assert not guard.is_secret(file.read()), f"{path} is a file from outside"
    layer.put()
