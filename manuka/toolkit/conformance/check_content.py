"""Every type of file and all that is known about it: through ApplyDiff into Get, and on by Diff."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from manuka.toolkit.client import Client
from manuka.toolkit.conformance.layers import Layer, Layers, seconds
from manuka.toolkit.conformance.rules import (
    ENGINE_LAYERS,
    ENGINE_UNTAR,
    IMAGES,
    TAR,
    choice,
    needed,
)
from manuka.toolkit.conformance.words import refused
from manuka.toolkit.layertar import MTIME, LayerTar

SECOND = 10**9

#: A version 2 capability set: cap_net_bind_service=ep, little-endian as everywhere.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def _everything(tmp: Path) -> LayerTar:
    """One of each that this machine lets one make."""
    tar = (
        LayerTar()
        .folder("etc", 0o751, uid=3, gid=4, mtime_ns=MTIME + 5 * SECOND)
        .file("etc/file", b"content\0\xff" * 100, 0o640, uid=1000, gid=1001)
        .file("etc/empty", b"", 0o600)
        .file("bin/set-id", b"#!", 0o6755, uid=7, gid=8)
        .symlink("etc/link", "file", uid=5, gid=6)
        .symlink("dangling", "/no/such/file")
        .hardlink("etc/second", "etc/file", 0o640, uid=1000, gid=1001)
        .folder("tmp", 0o1777)
        .fifo("tmp/fifo", 0o644)
    )
    if _can_make_devices(tmp):
        tar.device("dev/console", 5, 1, 0o620, gid=5).device("dev/disk", 8, 1, 0o660, block=True)
    return tar


def _can_make_devices(tmp: Path) -> bool:
    try:
        os.mknod(str(tmp / "device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError:
        return False
    return True


def _one(layer: Layer, path: str) -> Dict[str, Any]:
    view = layer.view()
    assert path in view, f"{path} is not there, but {sorted(view)}"
    return view[path]


# --- files ----------------------------------------------------------------------------------------


@needed("A file has the bytes that the tar has of it, of any length.", IMAGES)
def check_files_have_their_content(layers: Layers) -> None:
    contents = {
        f"{size}": bytes((at * 7 + size) % 256 for at in range(size))
        for size in (0, 1, 511, 512, 513, 1024, 4096, 65537)
    }
    tar = LayerTar()
    for name, content in contents.items():
        tar.file(name, content)
    with layers.image(tar).tree() as tree:
        for name, content in contents.items():
            assert (tree / name).read_bytes() == content, f"the file of {name} bytes is another"


@needed("A big file arrives whole.", IMAGES)
def check_a_big_file_arrives_whole(layers: Layers) -> None:
    block = os.urandom(1 << 20)
    count = 64
    info = tarfile.TarInfo("big")
    info.size = count << 20
    expected = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        yield info.tobuf()
        for number in range(count):
            piece = number.to_bytes(8, "big") + block[8:]
            expected.update(piece)
            yield piece
        yield bytes(1024)

    layer = layers.create()
    size = layers.client.apply_diff(layer.id, None, pieces(), 1 << 18)
    found = hashlib.sha256()
    with layer.tree() as tree, open(str(tree / "big"), "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            found.update(piece)
    assert found.digest() == expected.digest(), "its bytes are not those that were sent"
    assert size == 0 or size >= info.size, f"its size is told as {size}"


@needed("Permissions are kept, with the set-id and sticky bits.", IMAGES)
@pytest.mark.parametrize("mode", [0o000, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777])
def check_permissions_are_kept(layers: Layers, mode: int) -> None:
    tar = LayerTar().file("file", b"x", mode, uid=1000, gid=1000).folder("folder", mode)
    view = layers.image(tar).view()
    found = (view["file"]["mode"], view["folder"]["mode"])
    assert found == (oct(mode), oct(mode)), f"file and folder have {found}"


@needed("Owners are kept as numbers, for every type of file.", IMAGES)
@pytest.mark.parametrize("owner", [1, 1000, 65534, 2097152, 4000000000])
def check_owners_are_kept(layers: Layers, owner: int) -> None:
    owners = {"uid": owner, "gid": owner - 1}
    tar = LayerTar().file("f", b"x", **owners).folder("d", **owners).symlink("l", "f", **owners)
    for path, record in layers.image(tar.fifo("p", **owners)).view().items():
        assert record["owner"] == f"{owner}:{owner - 1}", f"{path} belongs to {record['owner']}"


@needed("Modification times are kept to the second, on folders too.", IMAGES)
@pytest.mark.parametrize("when", [1, 86400, 1_500_000_000, 2**31 + 7])
def check_times_are_kept(layers: Layers, when: int) -> None:
    time = {"mtime_ns": when * SECOND}
    tar = LayerTar().folder("d", **time).file("d/f", b"x", **time).symlink("d/l", "f", **time)
    for path, record in layers.image(tar.folder("d/e", **time)).view().items():
        found = record["mtime_ns"] // SECOND
        assert found == when, f"{path} is of {found}, {found - when} s off"


@choice("Modification times are kept to the nanosecond.", ENGINE_UNTAR)
def check_times_are_kept_to_the_nanosecond(layers: Layers) -> None:
    time = MTIME + 123_456_789
    found = _one(layers.image(LayerTar().file("f", b"x", mtime_ns=time)), "f")["mtime_ns"]
    assert found == time, f"it is {found - time} ns off"


# --- links ----------------------------------------------------------------------------------------


@needed("A symbolic link keeps its target as it is written, wherever it leads.", IMAGES)
def check_symbolic_links_keep_their_targets(layers: Layers) -> None:
    targets = {
        "relative": "a/b",
        "absolute": "/etc/passwd",
        "dangling": "no/such",
        "up": "../../../..",
        "itself": "itself",
        "slashes": "a//b/./c/",
        "long": "/".join(["folder"] * 140),
    }
    tar = LayerTar()
    for name, target in targets.items():
        tar.symlink(name, target)
    view = layers.image(tar).view()
    for name, target in targets.items():
        assert view[name]["target"] == target, f"{name} leads to {view[name].get('target')!r}"


@needed("Hard links are names of one file.", IMAGES)
def check_hard_links_are_one_file(layers: Layers) -> None:
    tar = LayerTar().file("d/first", b"shared").hardlink("second", "d/first").folder("e")
    with layers.image(tar.hardlink("e/third", "second")).tree() as tree:
        inodes = {os.lstat(str(tree / n)).st_ino for n in ("d/first", "second", "e/third")}
        assert len(inodes) == 1, "they are several files"
        assert os.lstat(str(tree / "second")).st_nlink == 3
        assert (tree / "e/third").read_bytes() == b"shared"


@needed("Hard links are one file also after Diff and ApplyDiff.", IMAGES, guide="diff")
def check_hard_links_survive_a_diff(layers: Layers) -> None:
    layer = layers.container(layers.create())
    with layer.tree() as tree:
        (tree / "first").write_bytes(b"shared")
        os.link(str(tree / "first"), str(tree / "second"))
    assert layers.committed(layer).view()["first"].get("links") == ["first", "second"]


@choice("A hard link may lead to a symbolic link.", ENGINE_UNTAR)
def check_a_hard_link_to_a_symbolic_link(layers: Layers) -> None:
    tar = LayerTar().symlink("link", "target").hardlink("second", "link")
    assert _one(layers.image(tar), "second")["type"] == "symlink"


@choice("A hard link may lead to a file of a lower layer.", IMAGES)
def check_a_hard_link_into_a_lower_layer(layers: Layers) -> None:
    base = layers.image(LayerTar().file("f", b"of below", 0o640))
    with layers.image(LayerTar().hardlink("g", "f", 0o640), base).tree() as tree:
        assert (tree / "g").read_bytes() == b"of below"


@needed("A hard link to what is not there is an error.", ENGINE_UNTAR)
def check_a_hard_link_to_nothing_is_refused(layers: Layers) -> None:
    layer = layers.create()
    with refused("a hard link to a file that does not exist"):
        layer.apply(LayerTar().hardlink("g", "no-such-file"))


# --- other types ----------------------------------------------------------------------------------


@needed("Devices and fifos are made, with their numbers.", IMAGES)
def check_devices_and_fifos_are_made(layers: Layers, tmp_path: Path) -> None:
    if not _can_make_devices(tmp_path):
        pytest.skip("devices cannot be made here")
    tar = LayerTar().device("null", 1, 3, 0o666).device("disk", 8, 17, 0o660, block=True)
    view = layers.image(tar.device("far", 240, 300).fifo("fifo", 0o622)).view()
    assert (view["null"]["type"], view["null"]["device"]) == ("character device", "1:3")
    assert (view["disk"]["type"], view["disk"]["device"]) == ("block device", "8:17")
    assert view["far"]["device"] == "240:300"
    assert (view["fifo"]["type"], view["fifo"]["mode"]) == ("fifo", "0o622")


@needed("security.capability is kept, which is binary.", ENGINE_UNTAR)
def check_file_capabilities_are_kept(layers: Layers, tmp_path: Path) -> None:
    _need_attribute(tmp_path, "security.capability", CAPABILITY)
    tar = LayerTar().file("ping", b"x", 0o755, xattrs={"security.capability": CAPABILITY})
    layer = layers.image(tar)
    found = _one(layer, "ping").get("xattrs", {})
    assert found.get("security.capability") == CAPABILITY, f"its attributes are {found}"


@needed("security.capability is in a Diff.", ENGINE_UNTAR, guide="diff")
def check_file_capabilities_survive_a_diff(layers: Layers, tmp_path: Path) -> None:
    _need_attribute(tmp_path, "security.capability", CAPABILITY)
    container = layers.container(layers.create())
    with container.tree() as tree:
        (tree / "ping").write_bytes(b"x")
        os.setxattr(str(tree / "ping"), "security.capability", CAPABILITY)
    found = _one(layers.committed(container), "ping").get("xattrs", {})
    assert found.get("security.capability") == CAPABILITY, f"its attributes are {found}"


@needed("Other extended attributes of a tar are set, where the file system can.", ENGINE_UNTAR)
def check_user_attributes_are_kept(layers: Layers) -> None:
    value = b"\0binary\xff="
    attributes = {"user.note": value, "user.empty": b"x"}
    layer = layers.image(LayerTar().file("f", b"x", xattrs=attributes).folder("d"))
    with layer.tree() as tree:
        try:
            os.setxattr(str(tree / "d"), "user.probe", b"1")
        except OSError:
            pytest.skip("the driver's file system has no user attributes")
        found = {name: os.getxattr(str(tree / "f"), name) for name in os.listxattr(str(tree / "f"))}
    assert found.get("user.note") == value, f"its attributes are {found}"


@choice("A type of entry that is not known is an error.", ENGINE_UNTAR)
def check_an_unknown_type_is_refused(layers: Layers) -> None:
    info = tarfile.TarInfo("strange")
    info.type = b"Z"
    layer = layers.create()
    with refused("an entry of the unknown type Z"):
        layer.apply(LayerTar().raw(info))


def _need_attribute(folder: Path, name: str, value: bytes) -> None:
    (folder / "probe").write_bytes(b"")
    try:
        os.setxattr(str(folder / "probe"), name, value)
    except OSError:
        pytest.skip(f"{name} cannot be set here")


# --- sparse files ---------------------------------------------------------------------------------

_SPARSE = [(0, b"begin"), (1 << 20, b"middle" * 100), (5 << 20, b"x" * 512)]
_SPARSE_SIZE = 8 << 20


def _sparse_content() -> bytes:
    content = bytearray(_SPARSE_SIZE)
    for at, data in _SPARSE:
        content[at : at + len(data)] = data
    return bytes(content)


def _old_gnu(segments: list[tuple[int, bytes]], size: int) -> bytes:
    """The entry that GNU tar writes by default: a map in the header, continued behind it."""
    fields = [b"%011o\0%011o\0" % (at, len(data)) for at, data in segments]
    header = bytearray(512)
    header[0:6] = b"sparse"
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    data = b"".join(data for _, data in segments)
    header[124:136] = b"%011o\0" % len(data)
    header[136:148] = b"%011o\0" % (MTIME // SECOND)
    header[156:157] = b"S"
    header[257:265] = b"ustar  \0"
    header[386 : 386 + 24 * len(fields[:4])] = b"".join(fields[:4])
    more = fields[4:]
    header[482] = bool(more)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = bytes(header)
    while more:
        block = bytearray(512)
        block[0 : 24 * len(more[:21])] = b"".join(more[:21])
        more = more[21:]
        block[504] = bool(more)
        blocks += bytes(block)
    return blocks + data + bytes(-len(data) % 512)


def _pax_sparse(version: str) -> LayerTar:
    records = {"GNU.sparse.name": "sparse"}
    data = b"".join(data for _, data in _SPARSE)
    if version == "1.0":
        numbers = [len(_SPARSE)] + [n for at, data in _SPARSE for n in (at, len(data))]
        listing = "".join(f"{number}\n" for number in numbers).encode()
        data = listing + bytes(-len(listing) % 512) + data
        records.update({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
        records["GNU.sparse.realsize"] = str(_SPARSE_SIZE)
    else:
        records["GNU.sparse.map"] = ",".join(f"{at},{len(data)}" for at, data in _SPARSE)
        records["GNU.sparse.size"] = str(_SPARSE_SIZE)
        records["GNU.sparse.numblocks"] = str(len(_SPARSE))
    info = tarfile.TarInfo("GNUSparseFile.0/sparse")
    info.size, info.pax_headers = len(data), records
    return LayerTar().raw(info, data)


@choice("A sparse entry is the file that it stands for, in each of GNU tar's formats.", TAR)
@pytest.mark.parametrize("form", ["old", "0.1", "1.0"])
def check_sparse_entries_are_expanded(layers: Layers, form: str) -> None:
    tar = _old_gnu(_SPARSE, _SPARSE_SIZE) + bytes(1024) if form == "old" else _pax_sparse(form)
    with layers.image(tar).tree() as tree:
        names = os.listdir(str(tree))
        assert names == ["sparse"], f"there is {names}"
        content = (tree / "sparse").read_bytes()
    assert len(content) == _SPARSE_SIZE, f"it has {len(content)} bytes, not {_SPARSE_SIZE}"
    assert content == _sparse_content(), "its bytes are others"


@choice("A sparse entry may have more pieces than fit into its header.", TAR)
def check_sparse_entries_with_many_pieces(layers: Layers) -> None:
    segments = [(number << 14, b"%05d" % number) for number in range(60)]
    tar = _old_gnu(segments, 1 << 20) + LayerTar().file("behind", b"x").bytes()
    with layers.image(tar).tree() as tree:
        content = (tree / "sparse").read_bytes()
        assert (tree / "behind").read_bytes() == b"x"
    assert len(content) == 1 << 20
    for at, data in segments:
        assert content[at : at + 5] == data, f"at {at} it has {content[at : at + 5]!r}"


@choice("Holes of a sparse entry take no room on the disk.", TAR)
def check_holes_take_no_room(layers: Layers) -> None:
    layer = layers.image(_old_gnu([(0, b"a"), (64 << 20, b"b")], (64 << 20) + 1) + bytes(1024))
    with layer.tree() as tree:
        room = os.lstat(str(tree / "sparse")).st_blocks * 512
    assert room < 1 << 20, f"it takes {room} bytes"


# --- forms of tars --------------------------------------------------------------------------------


@needed("Tars of every kind are read: ustar, GNU's, pax.", TAR)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def check_every_kind_of_tar_is_read(layers: Layers, form: int) -> None:
    folder = "/".join(["folder"] * 10)
    name = f"{folder}/" + "n" * 90
    if form != tarfile.USTAR_FORMAT:
        name = f"{folder}/" + "/".join(["n" * 120] * 3)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = 4, 1_500_000_000
        tar.addfile(info, io.BytesIO(b"data"))
    with layers.image(content.getvalue()).tree() as tree:
        assert (tree / name).read_bytes() == b"data"


@needed("Numbers too large for octal digits are read in GNU's binary form.", TAR)
def check_binary_numbers_are_read(layers: Layers) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.uid, info.gid, info.mtime = 3_000_000_000, 2_500_000_000, 1_500_000_000
        tar.addfile(info)
    assert _one(layers.image(content.getvalue()), "f")["owner"] == "3000000000:2500000000"


@needed("A global pax header is no file.", TAR)
def check_a_global_header_is_skipped(layers: Layers) -> None:
    head = tarfile.TarInfo.create_pax_global_header({"comment": "made by git"})
    tar = head + LayerTar().file("f", b"x").bytes()
    assert layers.image(tar).names() == ["f"]


@needed("Names may begin with ./, and the root may have an entry of its own.", ENGINE_UNTAR)
def check_names_may_begin_with_a_dot(layers: Layers) -> None:
    tar = LayerTar().folder("./").folder("./etc/").file("./etc/file", b"x").file("./top", b"y")
    layer = layers.image(tar)
    assert layer.names() == ["etc", "etc/file", "top"]


@needed("A folder that the tar has no entry for is made, root's, with mode 0755.", ENGINE_UNTAR)
def check_missing_folders_are_made(layers: Layers) -> None:
    view = layers.image(LayerTar().file("a/b/c", b"x", 0o600, uid=9)).view()
    for path in ("a", "a/b"):
        found = (view[path]["type"], view[path]["mode"], view[path]["owner"])
        assert found == ("folder", "0o755", "0:0"), f"{path} is {found}"


@choice("A folder that the tar has no entry for keeps mode and owner of the one below.", IMAGES)
def check_missing_folders_are_like_those_below(layers: Layers) -> None:
    base = layers.image(LayerTar().folder("d", 0o1777, uid=5, gid=6).file("d/old"))
    record = _one(layers.image(LayerTar().file("d/new", b"x"), base), "d")
    assert (record["mode"], record["owner"]) == ("0o1777", "5:6")


@needed("An entry takes the place of an earlier one of the same name, whatever that was.", TAR)
def check_later_entries_win(layers: Layers) -> None:
    tar = LayerTar().file("a", b"1").file("a", b"2").folder("b").file("b/x").file("b", b"file")
    tar.file("c", b"file").folder("c").file("c/y").symlink("d", "a").file("d", b"3")
    with layers.image(tar).tree() as tree:
        assert (tree / "a").read_bytes() == b"2"
        assert (tree / "b").read_bytes() == b"file"
        assert (tree / "c" / "y").exists(), "c/y is missing"
        assert not (tree / "d").is_symlink(), "d is still the symbolic link"
        assert (tree / "a").read_bytes() == b"2", "an entry was written through a symbolic link"


@needed("A second entry for a folder keeps what is in it.", TAR)
def check_a_folders_second_entry_keeps_its_files(layers: Layers) -> None:
    tar = LayerTar().folder("d", 0o755).file("d/f", b"x").folder("d", 0o700)
    view = layers.image(tar).view()
    assert sorted(view) == ["d", "d/f"]
    assert view["d"]["mode"] == "0o700"


@needed("A child's entry takes the place of the parent's, whatever that was.", IMAGES)
@pytest.mark.parametrize("below", ["file", "folder", "symlink"])
@pytest.mark.parametrize("above", ["file", "folder", "symlink"])
def check_types_change_between_layers(layers: Layers, below: str, above: str) -> None:
    base = layers.image(_typed(below, "of below"))
    view = layers.image(_typed(above, "of above"), base).view()
    assert view["x"]["type"] == above, f"it is a {view['x']['type']}"
    merged = ["x", "x/of above", "x/of below"] if below == above == "folder" else None
    assert sorted(view) == (merged or sorted(_typed_names(above, "of above")))


def _typed(kind: str, mark: str) -> LayerTar:
    tar = LayerTar()
    if kind == "folder":
        return tar.folder("x").file(f"x/{mark}", b"1")
    return tar.symlink("x", mark) if kind == "symlink" else tar.file("x", mark.encode())


def _typed_names(kind: str, mark: str) -> List[str]:
    return ["x", f"x/{mark}"] if kind == "folder" else ["x"]


@needed("Files go through a symbolic link to a folder that the same tar has.", ENGINE_UNTAR)
def check_files_go_through_linked_folders(layers: Layers) -> None:
    tar = LayerTar().folder("usr/lib").symlink("lib", "usr/lib").file("lib/f", b"x")
    with layers.image(tar).tree() as tree:
        assert (tree / "lib").is_symlink(), "the link is gone"
        assert (tree / "usr/lib/f").read_bytes() == b"x"


# --- Diff -----------------------------------------------------------------------------------------


@needed(
    "Diff of a layer, applied to its parent, makes the same layer: docker commit.",
    IMAGES,
    guide="diff",
)
@pytest.mark.parametrize("with_parent", [False, True], ids=["base", "child"])
def check_a_diff_makes_the_same_layer(layers: Layers, tmp_path: Path, with_parent: bool) -> None:
    parent = layers.image(LayerTar().file("below", b"b")) if with_parent else None
    layer = layers.image(_everything(tmp_path), parent)
    expected = seconds(layer.view(ignore=["xattrs"]))
    found = seconds(layers.committed(layer).view(ignore=["xattrs"]))
    for path in sorted(set(expected) | set(found)):
        assert found.get(path) == expected.get(path), (
            f"{path} was {expected.get(path)} and became {found.get(path)}"
        )


@needed("What a container wrote, deleted and changed is in its Diff.", ENGINE_LAYERS, guide="diff")
def check_a_containers_changes_are_in_its_diff(layers: Layers) -> None:
    tar = LayerTar().file("changed", b"1").file("deleted", b"2").folder("gone").file("gone/x")
    base = layers.image(tar.file("mode", b"3").file("same", b"4").file("moved", b"5").folder("d"))
    container = layers.container(base)
    with container.tree() as tree:
        (tree / "changed").write_bytes(b"other")
        (tree / "deleted").unlink()
        (tree / "gone" / "x").unlink()
        (tree / "gone").rmdir()
        os.chmod(str(tree / "mode"), 0o600)
        (tree / "moved").rename(tree / "d" / "moved")
        (tree / "new").write_bytes(b"6")
        os.symlink("new", str(tree / "link"))
    before = container.view(ignore=["folder times", "xattrs"])
    after = layers.committed(container).view(ignore=["folder times", "xattrs"])
    assert seconds(after) == seconds(before)


@needed(
    "A Diff is a tar from its first byte to its end mark, and not compressed.", IMAGES, guide="diff"
)
def check_a_diff_is_a_whole_tar(layers: Layers, tmp_path: Path) -> None:
    tar = layers.image(_everything(tmp_path)).diff()
    assert len(tar) % 512 == 0, f"{len(tar)} bytes are no whole blocks"
    assert tar[-1024:] == bytes(1024), "it has no end mark"
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        names = archive.getnames()
    assert "etc/file" in [name.lstrip("./") for name in names], f"it holds {names}"


@needed(
    "Diff of a layer that holds nothing is an empty tar, not nothing.", ENGINE_LAYERS, guide="diff"
)
def check_an_empty_layer_has_an_empty_tar(layers: Layers) -> None:
    for layer in (layers.create(), layers.container(layers.create())):
        tar = layer.diff()
        assert tar, "there are no bytes"
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            assert [n for n in archive.getnames() if n not in (".", "./", "")] == []
        assert layers.committed(layer).names() == []


@choice("Names in a Diff are relative, without ./ before them.", ENGINE_UNTAR, guide="diff")
def check_names_in_a_diff_are_plain(layers: Layers, tmp_path: Path) -> None:
    tar = layers.image(_everything(tmp_path)).diff()
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        odd = [name for name in archive.getnames() if name.startswith((".", "/"))]
    assert not odd, f"there are {odd}"


@choice("Diff without a parent is the layer's whole tree.", ENGINE_LAYERS, guide="diff")
def check_a_diff_from_nothing_is_everything(layers: Layers) -> None:
    base = layers.image(LayerTar().file("a", b"1").file("b", b"2"))
    child = layers.image(LayerTar().file("c", b"3").whiteout("b"), base)
    tar = layers.client.diff(child.id, None)
    assert layers.image(tar).names() == ["a", "c"]


@needed("Sockets, which a tar cannot hold, do not spoil a Diff.", ENGINE_UNTAR, guide="diff")
def check_sockets_are_left_out(layers: Layers) -> None:
    container = layers.container(layers.create())
    with container.tree() as tree:
        os.mknod(str(tree / "a.sock"), stat.S_IFSOCK | 0o600)
        (tree / "file").write_bytes(b"x")
    assert layers.committed(container).names() == ["file"]


@needed(
    "A plugin that says ReproducesExactDiffs gives back the very tar.",
    ENGINE_LAYERS,
    guide="capabilities",
)
def check_exact_diffs_are_exact(client: Client, layers: Layers, tmp_path: Path) -> None:
    reply = client.call("/GraphDriver.Capabilities", b"{}\n")
    told = {} if reply.status == 404 else reply.message().get("Capabilities") or {}
    if not told.get("ReproducesExactDiffs"):
        pytest.skip("the plugin does not say ReproducesExactDiffs")
    tar = _everything(tmp_path).bytes()
    assert layers.image(tar).diff() == tar
