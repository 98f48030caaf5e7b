"""The hostile tars: how each is made, and what has to come of it.

`ROWS` is the table.  `test_tars` applies each row to a real driver and looks at everything around
the layer; `tests/fuzz/tars.py` begins its search with them.  The layer below is `lower`.

What comes out is written as the layer's own folder, each path with a word for it, or as `Refused`
with how the error begins.  A row that has both ways' results the same says so once.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
from typing import Callable, Dict, List, NamedTuple, Optional, Union

from tests.hostile.raw import (
    END,
    GNU,
    base256,
    block,
    header_with_sum,
    long_name,
    padded,
    pax,
    record,
)
from tests.layertar import LayerTar

Tar = Union[LayerTar, bytes]


class Refused(NamedTuple):
    """The error's text begins so."""

    text: str


Outcome = Union[Refused, Dict[str, str]]


class Row(NamedTuple):
    """One hostile tar.

    make: makes it, given the path of a folder outside that it may aim at.
    comes_out: what is in the layer afterwards, as `described` says it, or how it is refused.
        OUT stands for the path of the folder outside.
    naive: the same for a tar that is unpacked into the mounted tree, where that is different:
        there, links of lower layers lead somewhere, and what is gone is not there.
    """

    name: str
    make: Callable[[str], Tar]
    comes_out: Outcome
    naive: Optional[Outcome] = None

    def tar(self, outside: str) -> bytes:
        made = self.make(outside)
        return made if isinstance(made, bytes) else made.bytes()


def lower(outside: str) -> LayerTar:
    """The layer below each hostile one, by the same hand."""
    return (
        LayerTar()
        .folder("etc", mode=0o750, uid=3)
        .file("etc/passwd", b"root")
        .file("etc/shadow", b"secret", mode=0o600)
        .hardlink("etc/shadow-", "etc/shadow", mode=0o600)
        .folder("deep/er")
        .file("deep/er/file", b"1")
        .symlink("out", outside)
        .symlink("up", "../../../../../../../..")
        .symlink("to-etc", "etc")
        .symlink("loop", "loop")
        .device("null", 1, 3, mode=0o666)
        .file("plain", b"lower")
    )


#: The names in the root of the layer below.
LOWER = ("deep", "etc", "loop", "null", "out", "plain", "to-etc", "up")

# An overlayfs' records of what it copied up itself.
_OF_NO_INTEREST = ("trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid")


def described(tree: str) -> Dict[str, str]:
    """What lies in a layer's own folder: each path with its type and what is special about it."""
    found: Dict[str, str] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for name in os.listdir(os.path.join(tree, folder)):
            path = os.path.join(folder, name)
            found[path] = _described(os.path.join(tree, path))
            if stat.S_ISDIR(os.lstat(os.path.join(tree, path)).st_mode):
                pending.append(path)
    return dict(sorted(found.items()))


def _described(path: str) -> str:
    status = os.lstat(path)
    mode = status.st_mode
    device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if stat.S_ISLNK(mode):
        words = [f"-> {os.readlink(path)}"]
    elif stat.S_ISDIR(mode):
        words = ["folder"]
    elif stat.S_ISCHR(mode):
        words = ["whiteout" if device == "0:0" else f"character device {device}"]
    elif stat.S_ISBLK(mode):
        words = [f"block device {device}"]
    elif stat.S_ISFIFO(mode):
        words = ["fifo"]
    elif status.st_size > 1 << 20:
        words = [f"file of {status.st_size}"]
    else:
        with open(path, "rb") as file:
            text = file.read(40)
        words = [f"file {text.decode()}".strip() if text.isascii() else "file of bytes"]
    for name in os.listxattr(path, follow_symlinks=False):
        if name not in _OF_NO_INTEREST:
            words.append(name.replace("trusted.overlay.", ""))
    if mode & 0o7000:
        words.append(oct(mode & 0o7777)[2:])
    return ", ".join(words)


def _tar(*parts: bytes) -> bytes:
    return b"".join(parts) + END


def _file(name: bytes, data: bytes = b"x", **fields: bytes) -> bytes:
    return block(name, b"0", len(data), **fields) + padded(data)


def _named(name: bytes) -> bytes:
    """A file whose header has a harmless name, and whose PAX record has another."""
    return _tar(pax(record(b"path", name)), _file(b"harmless"))


def _sparse(*records: bytes, data: bytes = b"", name: bytes = b"s") -> bytes:
    return _tar(pax(*records), _file(name, data))


_FILE = "file x"

NAMES = [
    Row("dots upwards", lambda out: LayerTar().file("../evil", b"x"), {"evil": _FILE}),
    Row(
        "dots upwards, far",
        lambda out: LayerTar().file("../" * 30 + "evil", b"x"),
        {"evil": _FILE},
    ),
    Row(
        "dots in the middle",
        lambda out: LayerTar().file("a/../../../b/evil", b"x"),
        {"b": "folder", "b/evil": _FILE},
    ),
    Row("dots at the end", lambda out: LayerTar().file("a/b/..", b"x"), {"a": _FILE}),
    Row("only dots", lambda out: LayerTar().file("..", b"x").folder("../..").symlink(".", "x"), {}),
    Row("no name at all", lambda out: LayerTar().file("", b"x").folder("/").file("./", b"x"), {}),
    Row("three dots are a name", lambda out: LayerTar().file("...", b"x"), {"...": _FILE}),
    Row("an absolute name", lambda out: LayerTar().file("/evil", b"x"), {"evil": _FILE}),
    Row(
        "many slashes",
        lambda out: LayerTar().file("//a///evil", b"x"),
        {"a": "folder", "a/evil": _FILE},
    ),
    Row("a backslash", lambda out: LayerTar().file("..\\evil", b"x"), {"..\\evil": _FILE}),
    Row(
        "the outside by its absolute name",
        lambda out: LayerTar().file(f"{out}/secret", b"x"),
        {"OUT": "folder", "OUT/secret": _FILE},
    ),
    Row(
        "the layer's neighbours",
        lambda out: LayerTar().file("../link", b"x").file("../lower", b"x").folder("../work", 0o7),
        {"link": _FILE, "lower": _FILE, "work": "folder"},
    ),
    Row(
        "a NUL in the header's name",
        lambda out: _tar(_file(b"evil\0/../../x")),
        {"evil": _FILE},
    ),
    Row(
        "a NUL in a PAX name",
        lambda out: _named(b"evil\0x"),
        Refused('tar entry "PaxHeaders" at byte 0: the PAX record "path" holds a NUL byte'),
    ),
    Row("dots upwards by PAX", lambda out: _named(b"../../evil"), {"evil": _FILE}),
    Row("an absolute PAX name", lambda out: _named(b"/evil"), {"evil": _FILE}),
    Row("an empty PAX name", lambda out: _named(b""), {"harmless": _FILE}),
    Row("a PAX name of dots", lambda out: _named(b"../.."), {}),
    Row(
        "dots upwards by GNU's long name",
        lambda out: _tar(long_name(b"../" * 60 + b"evil"), _file(b"harmless")),
        {"evil": _FILE},
    ),
    Row(
        "a long name and a PAX name",
        lambda out: _tar(long_name(b"by-gnu"), pax(record(b"path", b"by-pax")), _file(b"own")),
        {"by-gnu": _FILE},
    ),
    Row(
        "two long names",
        lambda out: _tar(long_name(b"one"), long_name(b"two"), _file(b"own")),
        {"two": _FILE},
    ),
    Row(
        "a long name of nothing",
        lambda out: _tar(block(b"L", b"L", 0, magic=GNU), _file(b"own")),
        {"own": _FILE},
    ),
    Row(
        "dots upwards in the prefix",
        lambda out: _tar(_file(b"evil", prefix=b"../../..")),
        {"evil": _FILE},
    ),
    Row(
        "a sparse file's own name",
        lambda out: _sparse(
            record(b"GNU.sparse.major", b"0"),
            record(b"GNU.sparse.minor", b"1"),
            record(b"GNU.sparse.name", b"../../evil"),
            record(b"GNU.sparse.size", b"1"),
            record(b"GNU.sparse.numblocks", b"1"),
            record(b"GNU.sparse.map", b"0,1"),
            data=b"x",
        ),
        {"evil": _FILE},
    ),
    Row(
        "a name that no disk can hold",
        lambda out: LayerTar().file("n" * 256, b"x"),
        Refused("'nnnnnnnn"),
    ),
    Row(
        "a path that no kernel takes",
        lambda out: LayerTar().file("d/" * 3000 + "f", b"x"),
        Refused("'d/d/d/d/"),
    ),
    Row(
        "a megabyte of a name",
        lambda out: _named(b"n" * 1_000_000),
        Refused("'nnnnnnnn"),
    ),
    Row(
        "a terminal's commands in a name that fails",
        lambda out: _tar(block(b"\x1b]0;evil\x07\nlayer applied", size=b"9" * 12)),
        Refused("tar entry"),
    ),
    Row(
        "names that are no UTF-8",
        lambda out: LayerTar().file(b"\xff\xfe", b"x").folder(b"\xc0\xaf").file(b"\xc0\xae/f"),
        {
            os.fsdecode(b"\xc0\xaf"): "folder",
            os.fsdecode(b"\xc0\xae"): "folder",
            os.fsdecode(b"\xc0\xae/f"): "file",
            os.fsdecode(b"\xff\xfe"): _FILE,
        },
    ),
]

LINKS = [
    Row(
        "through a link to the outside",
        lambda out: LayerTar().symlink("s", out).file("s/secret", b"x"),
        Refused("'s/secret': the link 's' on its path leads to 'OUT', which is not a directory"),
    ),
    Row(
        "through a link to the outside that has its like inside",
        lambda out: LayerTar().folder(out).symlink("s", out).file("s/secret", b"x"),
        {"OUT": "folder", "OUT/secret": _FILE, "s": "-> /OUT"},
    ),
    Row(
        "through a link upwards",
        lambda out: LayerTar().symlink("s", "..").file("s/evil", b"x"),
        {"evil": _FILE, "s": "-> .."},
    ),
    Row(
        "through a link far upwards",
        lambda out: LayerTar().folder("d").symlink("d/s", "../" * 20).file("d/s/evil", b"x"),
        {"d": "folder", "d/s": "-> " + "../" * 20, "evil": _FILE},
    ),
    Row(
        "through a link to the root",
        lambda out: LayerTar().symlink("s", "/").file("s/evil", b"x"),
        {"evil": _FILE, "s": "-> /"},
    ),
    Row(
        "through a chain of links",
        lambda out: (
            LayerTar()
            .folder("d")
            .symlink("a", "b")
            .symlink("b", "/c")
            .symlink("c", "../d")
            .file("a/evil", b"x")
        ),
        {"a": "-> b", "b": "-> /c", "c": "-> ../d", "d": "folder", "d/evil": _FILE},
    ),
    Row(
        "through a loop of links",
        lambda out: LayerTar().symlink("a", "b").symlink("b", "a").file("a/evil", b"x"),
        Refused("'a/evil': the link 'a' on its path leads through too many others"),
    ),
    Row(
        "through a link to itself, many times",
        lambda out: LayerTar().symlink("s", ".").file("s/" * 39 + "evil", b"x"),
        {"evil": _FILE, "s": "-> ."},
    ),
    Row(
        "through a link to itself, too many times",
        lambda out: LayerTar().symlink("s", ".").file("s/" * 41 + "evil", b"x"),
        Refused("'s/s/s/"),
    ),
    Row(
        "through a link to an open descriptor",
        lambda out: LayerTar().symlink("s", "/proc/self/fd/0").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads to 'proc/self/fd/0', which"),
    ),
    Row(
        "through a link to the machine's root",
        lambda out: LayerTar().symlink("s", "/proc/self/root").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads to 'proc/self/root', which"),
    ),
    Row(
        "through a link that leads nowhere",
        lambda out: LayerTar().symlink("s", "nowhere").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads to 'nowhere', which is not a directory"),
    ),
    Row(
        "through a link to a lower folder",
        lambda out: LayerTar().symlink("s", "/etc").file("s/evil", b"x"),
        {"etc": "folder", "etc/evil": _FILE, "s": "-> /etc"},
    ),
    Row(
        "through a link to a lower folder, into a new one",
        lambda out: LayerTar().symlink("s", "deep").file("s/er/new/evil", b"x"),
        {
            **dict.fromkeys(["deep", "deep/er", "deep/er/new"], "folder"),
            "deep/er/new/evil": _FILE,
            "s": "-> deep",
        },
    ),
    Row(
        "through a link to a lower link to a lower folder",
        lambda out: LayerTar().symlink("s", "to-etc/../to-etc").file("s/evil", b"x"),
        {"etc": "folder", "etc/evil": _FILE, "s": "-> to-etc/../to-etc"},
    ),
    Row(
        "through a link to a lower link to the outside",
        lambda out: LayerTar().symlink("s", "out").file("s/secret", b"x"),
        Refused("'s/secret': the link 's' on its path leads to 'OUT', which is not a directory"),
    ),
    Row(
        "through a link to a lower link upwards",
        lambda out: LayerTar().symlink("s", "up/etc").file("s/evil", b"x"),
        {"etc": "folder", "etc/evil": _FILE, "s": "-> up/etc"},
    ),
    Row(
        "through a link to a lower link to itself",
        lambda out: LayerTar().symlink("s", "loop").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads through too many others"),
    ),
    Row(
        "through a link to a lower file",
        lambda out: LayerTar().symlink("s", "plain").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads to 'plain', which is not a directory"),
    ),
    Row(
        "through a link to a lower folder that is gone",
        lambda out: LayerTar().whiteout("etc").symlink("s", "etc").file("s/evil", b"x"),
        Refused("'s/evil': the link 's' on its path leads to 'etc', which is not a directory"),
    ),
    Row(
        "through a link, deep below what is missing",
        lambda out: LayerTar().symlink("s", out).file("s/a/b/c/evil", b"x"),
        Refused("'s/a/b/c/evil': the link 's' on its path leads to 'OUT', which"),
    ),
    Row(
        "a file in place of a link to a file outside",
        lambda out: LayerTar().symlink("s", f"{out}/secret").file("s", b"x", mode=0o777, uid=9),
        {"s": _FILE},
    ),
    Row(
        "a folder in place of a link to the outside",
        lambda out: LayerTar().symlink("s", out).folder("s", mode=0o700).file("s/secret", b"x"),
        {"s": "folder", "s/secret": _FILE},
    ),
    Row(
        "a link in place of a folder in use",
        lambda out: LayerTar().file("d/a", b"x").symlink("d", out).file("d/secret", b"x"),
        Refused("'d/secret': the link 'd' on its path leads to 'OUT', which"),
    ),
    Row(
        "a link in place of the folder above the one in use",
        lambda out: LayerTar().file("d/e/a", b"x").symlink("d", out).file("d/e/secret", b"x"),
        Refused("'d/e/secret': the link 'd' on its path leads to 'OUT', which"),
    ),
    Row(
        "attributes and times for a link to the outside",
        lambda out: LayerTar().symlink(
            "s", out, uid=7, gid=8, mtime_ns=5, xattrs={"trusted.evil": b"x"}
        ),
        {"s": "-> /OUT, trusted.evil"},
    ),
    Row(
        "a link without a target", lambda out: LayerTar().symlink("s", ""), Refused("'s': No such")
    ),
    Row(
        "a NUL in a link's target",
        lambda out: _tar(pax(record(b"linkpath", b"a\0b")), block(b"s", b"2")),
        Refused('tar entry "PaxHeaders" at byte 0: the PAX record "linkpath" holds a NUL byte'),
    ),
    Row(
        "a link's target of many pages",
        lambda out: LayerTar().symlink("s", "t" * 100_000),
        Refused("'s': File name too long"),
    ),
    Row(
        "GNU's long target, and a PAX target",
        lambda out: _tar(
            long_name(b"by-gnu", b"K"), pax(record(b"linkpath", b"by-pax")), block(b"s", b"2")
        ),
        {"s": "-> by-gnu"},
    ),
    Row(
        "a link's target without an end",
        lambda out: _tar(block(b"s", b"2", linkname=b"t" * 100)),
        {"s": "-> " + "t" * 100},
    ),
]

LOWER_LINKS = [
    Row(
        "through a lower link to the outside",
        lambda out: LayerTar().file("out/secret", b"x"),
        {"out": "folder", "out/secret": _FILE},
        naive={"out": "folder, opaque", "out/secret": _FILE},
    ),
    Row(
        "through a lower link upwards",
        lambda out: LayerTar().file("up/evil", b"x"),
        {"up": "folder", "up/evil": _FILE},
        naive={"up": "folder, opaque", "up/evil": _FILE},
    ),
    Row(
        "through a lower link that leads to itself",
        lambda out: LayerTar().file("loop/loop/evil", b"x"),
        {"loop": "folder", "loop/loop": "folder", "loop/loop/evil": _FILE},
        naive={"loop": "folder, opaque", "loop/loop": "folder", "loop/loop/evil": _FILE},
    ),
    Row(
        "a whiteout behind a lower link to the outside",
        lambda out: LayerTar().whiteout("out/secret"),
        {},
    ),
    Row(
        "an opaque mark behind a lower link to the outside",
        lambda out: LayerTar().opaque("out"),
        {},
    ),
    Row(
        "a hard link through a lower link to the outside",
        lambda out: LayerTar().hardlink("h", "out/secret"),
        Refused("'h': it is a hard link to 'out/secret', which neither"),
    ),
    Row(
        "a hard link to a lower link to the outside",
        lambda out: LayerTar().hardlink("h", "out", mode=0o777, uid=9),
        {"h": "-> /OUT", "out": "-> /OUT"},
    ),
    Row(
        "a file in place of a lower link to the outside",
        lambda out: LayerTar().file("out", b"x"),
        {"out": _FILE},
    ),
]

HARD_LINKS = [
    Row(
        "a hard link to the outside",
        lambda out: LayerTar().hardlink("h", f"{out}/secret"),
        Refused("'h': it is a hard link to '/"),
    ),
    Row(
        "a hard link upwards",
        lambda out: LayerTar().hardlink("h", "../../outside/secret"),
        Refused("'h': it is a hard link to '../../outside/secret', which neither"),
    ),
    Row(
        "a hard link to the layer's own records",
        lambda out: LayerTar().hardlink("h", "../link"),
        Refused("'h': it is a hard link to '../link', which neither"),
    ),
    Row(
        "a hard link to the root",
        lambda out: LayerTar().hardlink("h", "/"),
        Refused("'h': it is a hard link to '/', which neither"),
    ),
    Row("a hard link to nothing", lambda out: LayerTar().hardlink("h", ""), Refused("'h': it is")),
    Row(
        "a hard link to a folder",
        lambda out: LayerTar().folder("d").hardlink("h", "d"),
        Refused("'h': "),
    ),
    Row(
        "a hard link to itself",
        lambda out: LayerTar().file("h", b"x").hardlink("./h", "/h"),
        Refused("'./h': a hard link to itself cannot be made"),
    ),
    Row(
        "a hard link to itself by way of a link",
        lambda out: LayerTar().file("d/h", b"x").symlink("s", "d").hardlink("s/h", "d/h"),
        Refused("'s/h': "),
    ),
    Row(
        "a hard link through a link to the outside",
        lambda out: LayerTar().symlink("s", out).hardlink("h", "s/secret"),
        Refused("'h': it is a hard link to 's/secret', which neither"),
    ),
    Row(
        "a hard link to a link to the outside, with a mode and an owner",
        lambda out: LayerTar().symlink("s", f"{out}/secret").hardlink("h", "s", mode=0o777, uid=9),
        {"h": "-> /OUT/secret", "s": "-> /OUT/secret"},
    ),
    Row(
        "a file over a hard link to a link to the outside",
        lambda out: LayerTar().symlink("s", f"{out}/secret").hardlink("h", "s").file("h", b"x"),
        {"h": _FILE, "s": "-> /OUT/secret"},
    ),
    Row(
        "a hard link to what comes later",
        lambda out: LayerTar().hardlink("h", "f").file("f", b"x"),
        Refused("'h': it is a hard link to 'f', which neither"),
    ),
    Row(
        "a hard link to what was deleted",
        lambda out: LayerTar().whiteout("plain").hardlink("h", "plain"),
        Refused("'h': it is a hard link to 'plain', which neither"),
    ),
    Row(
        "a hard link that would change a lower file",
        lambda out: LayerTar().hardlink("h", "etc/shadow", mode=0o777, uid=9, mtime_ns=1),
        {"etc": "folder", "etc/shadow": "file secret", "h": "file secret"},
    ),
    Row(
        "a hard link to a lower device",
        lambda out: LayerTar().hardlink("h", "null", mode=0o777),
        {"h": "character device 1:3", "null": "character device 1:3"},
    ),
    Row(
        "a hard link that says it has data",
        lambda out: _tar(_file(b"f"), block(b"h", b"1", 1 << 40, linkname=b"f"), _file(b"g")),
        {"f": _FILE, "g": _FILE, "h": _FILE},
    ),
    Row(
        "a NUL in a hard link's target",
        lambda out: _tar(_file(b"f"), pax(record(b"linkpath", b"f\0")), block(b"h", b"1")),
        Refused('tar entry "PaxHeaders" at byte 1024: the PAX record "linkpath" holds a NUL'),
    ),
]

WHITEOUTS = [
    Row(
        "a whiteout of the parent",
        lambda out: LayerTar().file("etc/.wh..", b""),
        Refused("'etc/.wh..': a whiteout has to name what it hides"),
    ),
    Row(
        "a whiteout of the parent's parent",
        lambda out: LayerTar().file("etc/.wh...", b""),
        Refused("'etc/.wh...': a whiteout has to name what it hides"),
    ),
    Row(
        "a whiteout of nothing",
        lambda out: LayerTar().file("etc/.wh.", b""),
        Refused("'etc/.wh.': a whiteout has to name what it hides"),
    ),
    Row(
        "a whiteout outside",
        lambda out: LayerTar().file("../.wh.link", b""),
        {"link": "whiteout"},
        naive={},
    ),
    Row(
        "a whiteout of the outside by its absolute name",
        lambda out: LayerTar().whiteout(f"{out}/secret"),
        {},
    ),
    Row(
        "a whiteout through a link to the outside",
        lambda out: LayerTar().symlink("s", out).whiteout("s/secret"),
        {"s": "-> /OUT"},
    ),
    Row(
        "an opaque mark through a link to the outside",
        lambda out: LayerTar().symlink("s", out).opaque("s"),
        {"s": "-> /OUT"},
    ),
    Row(
        "an opaque mark through a link inside",
        lambda out: LayerTar().folder("etc").symlink("s", "etc").opaque("s"),
        {"etc": "folder", "s": "-> etc"},
    ),
    Row(
        "an opaque mark above the root",
        lambda out: LayerTar().opaque("../.."),
        dict.fromkeys(LOWER, "whiteout"),
    ),
    Row(
        "a whiteout of a folder that this layer filled",
        lambda out: LayerTar().file("etc/a/b", b"x").whiteout("etc"),
        {"etc": "folder, opaque", "etc/a": "folder", "etc/a/b": _FILE},
        naive={
            **dict.fromkeys(["etc/passwd", "etc/shadow", "etc/shadow-"], "whiteout"),
            **{"etc": "folder", "etc/a": "folder", "etc/a/b": _FILE},
        },
    ),
    Row(
        "whiteouts below a whiteout, and above one",
        lambda out: (
            LayerTar()
            .whiteout("etc")
            .whiteout("etc/passwd")
            .whiteout("deep/er/file")
            .whiteout("deep")
        ),
        {"deep": "whiteout", "etc": "whiteout"},
    ),
    Row(
        "whiteouts below a file",
        lambda out: LayerTar().file("etc", b"x").whiteout("etc/passwd").opaque("etc"),
        {"etc": _FILE},
    ),
    Row(
        "whiteouts below what was never there",
        lambda out: LayerTar().whiteout("new/a").opaque("new/b").whiteout("plain/a/b"),
        {},
    ),
    Row(
        "a whiteout as a folder's name",
        lambda out: LayerTar().file(".wh.etc/passwd", b"x"),
        {".wh.etc": "folder", ".wh.etc/passwd": _FILE},
    ),
    Row(
        "whiteouts that are no files",
        lambda out: (
            LayerTar()
            .symlink(".wh.plain", out)
            .folder(".wh.null")
            .hardlink(".wh.up", out)
            .fifo("etc/.wh.passwd")
        ),
        {**dict.fromkeys(["etc/passwd", "null", "plain", "up"], "whiteout"), "etc": "folder"},
    ),
    Row(
        "a whiteout with contents",
        lambda out: LayerTar().file(".wh.plain", b"x" * 100_000).file("f", b"x"),
        {"f": _FILE, "plain": "whiteout"},
    ),
    Row(
        "a whiteout of a whiteout",
        lambda out: LayerTar().file(".wh..wh.plain", b"").file("etc/.wh..wh.passwd", b""),
        {"etc": "folder", "etc/.wh.passwd": "whiteout"},
        naive={"etc": "folder"},
    ),
    Row(
        "AUFS' folder of links as a link to the outside",
        lambda out: LayerTar().symlink(".wh..wh.plnk", out).file(".wh..wh.plnk/secret", b"x"),
        Refused("'.wh..wh.plnk/secret': the link '.wh..wh.plnk' on its path leads to 'OUT'"),
    ),
    Row(
        "AUFS' folder of links as a link to a folder inside",
        lambda out: (
            LayerTar()
            .folder("d")
            .symlink(".wh..wh.plnk", "d")
            .file(".wh..wh.plnk/1", b"x")
            .hardlink("h", ".wh..wh.plnk/1")
        ),
        {"d": "folder", "d/1": _FILE, "h": _FILE},
    ),
    Row(
        "a character device 0:0, which is a whiteout to the kernel",
        lambda out: LayerTar().device("plain", 0, 0).device("etc/new", 0, 0),
        {"etc": "folder", "etc/new": "whiteout", "plain": "whiteout"},
        naive={"etc": "folder", "plain": "whiteout"},
    ),
    Row(
        "a hard link to a whiteout",
        lambda out: LayerTar().device("plain", 0, 0).hardlink("h", "plain"),
        Refused("'h': it is a hard link to 'plain', which neither"),
    ),
    Row(
        "a block device 0:0, which is none",
        lambda out: LayerTar().device("plain", 0, 0, block=True),
        {"plain": "block device 0:0"},
    ),
]

NUMBERS = [
    Row(
        "the owner that means none",
        lambda out: _tar(_file(b"f", uid=base256(2**32 - 1, 8))),
        Refused('tar entry "f" at byte 0: the owner 4294967295 is out of range'),
    ),
    Row(
        "a negative owner",
        lambda out: _tar(_file(b"f", uid=base256(-1, 8))),
        Refused('tar entry "f" at byte 0: the owner -1 is out of range'),
    ),
    Row(
        "an owner in letters",
        lambda out: _tar(_file(b"f", uid=b"root\0")),
        Refused('tar entry "f" at byte 0: a number is not octal'),
    ),
    Row(
        "the largest owner", lambda out: _tar(_file(b"f", uid=base256(2**32 - 2, 8))), {"f": _FILE}
    ),
    Row(
        "a negative PAX owner",
        lambda out: _tar(pax(record(b"uid", b"-1")), _file(b"f")),
        Refused('tar entry "f" at byte 1024: the owner -1 is out of range'),
    ),
    Row(
        "an endless PAX owner",
        lambda out: _tar(pax(record(b"gid", b"9" * 5000)), _file(b"f")),
        Refused('tar entry "f" at byte 5632: a number needs more than 64 bits'),
    ),
    Row(
        "a negative size",
        lambda out: _tar(block(b"f", size=base256(-512)), _file(b"g")),
        Refused('tar entry "f" at byte 0: the number -512 is out of range'),
    ),
    Row(
        "an exabyte of size and no data",
        lambda out: _tar(block(b"f", size=base256(1 << 60))),
        Refused('unexpected end of the tar stream after 1536 bytes, in the data of "f"'),
    ),
    Row(
        "the largest size and no data",
        lambda out: _tar(block(b"f", size=base256(2**63 - 1))),
        Refused('unexpected end of the tar stream after 1536 bytes, in the data of "f"'),
    ),
    Row(
        "a size beyond 64 bits",
        lambda out: _tar(block(b"f", size=base256(1 << 70))),
        Refused('tar entry "f" at byte 0: a number needs more than 64 bits'),
    ),
    Row(
        "a negative PAX size",
        lambda out: _tar(pax(record(b"size", b"-1")), _file(b"f")),
        Refused('tar entry "f" at byte 1024: the number -1 is out of range'),
    ),
    Row(
        "a PAX size that is larger",
        lambda out: _tar(pax(record(b"size", b"600")), _file(b"f")),
        {"f": "file x" + "\0" * 39},
    ),
    Row(
        "a PAX size that is smaller",
        lambda out: _tar(pax(record(b"size", b"0")), _file(b"f")),
        Refused('tar entry "x" at byte 1536: the header\'s checksum is wrong'),
    ),
    Row(
        "a size for a folder",
        lambda out: _tar(block(b"d", b"5", 1 << 40), _file(b"f")),
        {"d": "folder", "f": _FILE},
    ),
    Row(
        "a size for a GNU label",
        lambda out: _tar(block(b"v", b"V", 1 << 40), _file(b"f")),
        Refused('tar entry "v" at byte 0: a volume label has no data'),
    ),
    Row(
        "a time long before 1970",
        lambda out: _tar(_file(b"f", mtime=base256(-(2**62)))),
        {"f": _FILE},
    ),
    Row(
        "a time in the far future",
        lambda out: _tar(_file(b"f", mtime=base256(2**62))),
        {"f": _FILE},
    ),
    Row(
        "times no clock can show, for a link",
        lambda out: _tar(
            block(b"a", b"2", linkname=b"x", mtime=base256(-(2**62))),
            block(b"b", b"2", linkname=b"x", mtime=base256(2**62)),
            pax(record(b"mtime", b"-9223372036854775807"), record(b"atime", b"-9" * 1)),
            block(b"c", b"2", linkname=b"x"),
        ),
        {"a": "-> x", "b": "-> x", "c": "-> x"},
    ),
    Row(
        "times no clock can show, for a folder and a node",
        lambda out: _tar(
            block(b"d", b"5", mtime=base256(-(2**62))),
            pax(
                record(b"mtime", b"9223372036854775807.9"), record(b"atime", b"9223372036854775807")
            ),
            block(b"p", b"6"),
        ),
        {"d": "folder", "p": "fifo"},
    ),
    Row(
        "a malformed PAX time",
        lambda out: _tar(pax(record(b"mtime", b"1e9")), _file(b"f")),
        Refused('tar entry "f" at byte 1024: a PAX number is malformed'),
    ),
    Row(
        "all bits of a mode",
        lambda out: _tar(_file(b"f", mode=b"7777777\0")),
        {"f": "file x, 7777"},
    ),
    Row(
        "a negative mode", lambda out: _tar(_file(b"f", mode=base256(-1, 8))), {"f": "file x, 7777"}
    ),
    Row(
        "a huge device number",
        lambda out: LayerTar().device("n", 1 << 20, 0),
        Refused('tar entry "n" at byte 0: the device number 1048576:0 is out of range'),
    ),
    Row(
        "a device number the kernel lacks",
        lambda out: LayerTar().device("n", 5000, 1),
        Refused('tar entry "n" at byte 0: the device number 5000:1 is out of range'),
    ),
    Row(
        "a negative device number",
        lambda out: _tar(block(b"n", b"3", devmajor=base256(-1, 8), devminor=b"1")),
        Refused('tar entry "n" at byte 0: the device number -1:1 is out of range'),
    ),
]

ATTRIBUTES = [
    Row(
        "an overlay's own records",
        lambda out: (
            LayerTar()
            .folder("etc", xattrs={"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y"})
            .folder("d", xattrs={"trusted.overlay.redirect": b"/etc"})
            .file(
                "f", b"x", xattrs={"trusted.overlay.metacopy": b"", "trusted.overlay.whiteout": b""}
            )
            .file(
                "g", b"x", xattrs={"trusted.overlay.overlay.opaque": b"y", "trusted.overlayed": b""}
            )
            .symlink("s", "f", xattrs={"trusted.overlay.origin": b"x"})
        ),
        {"d": "folder", "etc": "folder", "f": _FILE, "g": "file x, trusted.overlayed", "s": "-> f"},
    ),
    Row(
        "an attribute without a name",
        lambda out: LayerTar().file("f", xattrs={"": b"x"}),
        Refused("'f': attribute '' is not kept: Numerical result"),
    ),
    Row(
        "an attribute's name of 300",
        lambda out: LayerTar().file("f", xattrs={"user." + "n" * 300: b""}),
        Refused("'f': attribute 'user.nnnn"),
    ),
    Row(
        "an attribute of no family",
        lambda out: LayerTar().file("f", b"x", xattrs={"evil": b"x"}),
        {"f": _FILE},
    ),
    Row(
        "an attribute of 100,000 bytes",
        lambda out: LayerTar().file("f", xattrs={"user.n": b"x" * 100_000}),
        Refused("'f': "),
    ),
    Row(
        "a NUL in an attribute's name",
        lambda out: _tar(pax(record(b"SCHILY.xattr.user.a\0b", b"x")), _file(b"f")),
        Refused("tar entry"),
    ),
    Row(
        "a malformed access list",
        lambda out: LayerTar().file("f", xattrs={"system.posix_acl_access": b"\2\0\0\0evil"}),
        Refused("'f': "),
    ),
    Row(
        "a malformed capability",
        lambda out: LayerTar().file("f", xattrs={"security.capability": b"x" * 7}),
        Refused("'f': "),
    ),
    Row(
        "a capability for every user of the machine",
        lambda out: LayerTar().file(
            "f",
            b"x",
            xattrs={"security.capability": struct.pack("<5I", 0x02000001, 1 << 21, 0, 0, 0)},
        ),
        {"f": "file x, security.capability"},
    ),
    Row(
        "attributes for a link to the outside, and a hard link to it",
        lambda out: (
            LayerTar()
            .symlink("s", f"{out}/secret", xattrs={"trusted.a": b"x"})
            .hardlink("h", "s", xattrs={"trusted.b": b"x"})
        ),
        dict.fromkeys("hs", "-> /OUT/secret, trusted.a, trusted.b"),
    ),
]

TYPES = [
    Row(
        "one name with every type in turn",
        lambda out: (
            LayerTar()
            .file("x", b"1")
            .folder("x")
            .file("x/y", b"2")
            .symlink("x", out)
            .fifo("x")
            .device("x", 1, 3)
            .hardlink("x", "plain")
            .folder("x")
            .symlink("x", "nowhere")
            .file("x", b"x", mode=0o4755)
        ),
        {"plain": "file lower", "x": "file x, 4755"},
    ),
    Row(
        "one file ten times",
        lambda out: _tar(*[_file(b"f", b"%d" % n) for n in range(10)]),
        {"f": "file 9"},
    ),
    Row(
        "set-id bits",
        lambda out: LayerTar().file("f", b"x", mode=0o6755, uid=9).folder("d", 0o3777),
        {"d": "folder, 3777", "f": "file x, 6755"},
    ),
    Row(
        "devices of the machine",
        lambda out: LayerTar().device("mem", 1, 1).device("sda", 8, 0, block=True),
        {"mem": "character device 1:1", "sda": "block device 8:0"},
    ),
    Row(
        "a type nobody knows",
        lambda out: _tar(block(b"evil", b"Z")),
        Refused('tar entry "evil" at byte 0: unhandled'),
    ),
    Row(
        "a continued file of another volume",
        lambda out: _tar(block(b"evil", b"M")),
        Refused('tar entry "evil"'),
    ),
    Row(
        "a socket, as some archivers have it",
        lambda out: _tar(block(b"evil", b"s")),
        Refused('tar entry "evil"'),
    ),
    Row(
        "a file where a folder has to be",
        lambda out: LayerTar().file("f", b"x").file("f/evil", b"x"),
        Refused("'f/evil': 'f' is not a directory in this layer"),
    ),
    Row(
        "a fifo where a folder has to be",
        lambda out: LayerTar().fifo("f").file("f/evil", b"x"),
        Refused("'f/evil': 'f' is not a directory in this layer"),
    ),
    Row(
        "a folder over each lower thing",
        lambda out: LayerTar().folder("plain").folder("null").folder("out"),
        {"null": "folder", "out": "folder", "plain": "folder"},
        naive=dict.fromkeys(["null", "out", "plain"], "folder, opaque"),
    ),
]


def _cut(tar: bytes, length: int) -> bytes:
    return tar[:length]


def _harmless() -> bytes:
    return LayerTar().file("f", b"x" * 700).bytes()


def _broken_sum() -> bytes:
    return block(b"f", checksum=b"0000001\0") + END


STRUCTURE = [
    Row("nothing but zeros", lambda out: bytes(5120), {}),
    Row(
        "a name cut off",
        lambda out: _harmless()[:50],
        Refused("unexpected end of the tar stream after 50 bytes"),
    ),
    Row(
        "a header cut off",
        lambda out: _harmless()[:511],
        Refused("unexpected end of the tar stream"),
    ),
    Row(
        "data cut off",
        lambda out: _harmless()[:1000],
        Refused('unexpected end of the tar stream after 1000 bytes, in the data of "f"'),
    ),
    Row(
        "the padding cut off",
        lambda out: LayerTar().file("f", b"x").bytes()[:600],
        {"f": _FILE},
    ),
    Row("no end mark", lambda out: LayerTar().file("f", b"x").bytes()[:-1024], {"f": _FILE}),
    Row(
        "half an end mark, and more",
        lambda out: _harmless()[:-1024] + bytes(512) + _harmless(),
        Refused("tar entry"),
    ),
    Row(
        "a wrong checksum",
        lambda out: _broken_sum(),
        Refused('tar entry "f" at byte 0: the header\'s checksum is wrong'),
    ),
    Row(
        "a checksum in letters",
        lambda out: block(b"f", checksum=b"evil") + END,
        Refused('tar entry "f"'),
    ),
    Row(
        "garbage behind the end",
        lambda out: _harmless() + b"evil" * 5000,
        {"f": "file " + "x" * 40},
    ),
    Row(
        "a second archive behind the first",
        lambda out: LayerTar().file("f", b"x").bytes() + LayerTar().file("evil", b"x").bytes(),
        {"f": _FILE},
    ),
    Row(
        "a compressed archive",
        lambda out: gzip.compress(_harmless() * 20, mtime=0),
        Refused("unexpected end of the tar stream after"),
    ),
    Row(
        "a compressed archive inside",
        lambda out: LayerTar().file("layer.tar.gz", gzip.compress(_harmless(), mtime=0)),
        {"layer.tar.gz": "file of bytes"},
    ),
    Row(
        "text",
        lambda out: b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n" * 100,
        Refused('tar entry "GET / HTTP/1.1\\r\\nHost: evil\\r\\n\\r\\nGET /'),
    ),
    Row(
        "an extended header without an entry",
        lambda out: _tar(pax(record(b"path", b"evil"))),
        Refused('tar entry "" at byte 1024: an extended header has no entry'),
    ),
    Row(
        "an extended header at the very end",
        lambda out: pax(record(b"path", b"evil")),
        Refused("unexpected end of the tar stream after 1024 bytes, before its end mark"),
    ),
    Row(
        "an extended header of gigabytes",
        lambda out: _tar(block(b"x", b"x", 3 << 30)),
        Refused("tar entry"),
    ),
    Row(
        "a long name of gigabytes",
        lambda out: _tar(block(b"x", b"L", 3 << 30, magic=GNU)),
        Refused("tar entry"),
    ),
    Row(
        "a thousand extended headers in a row",
        lambda out: _tar(pax(record(b"path", b"evil")) * 1000, _file(b"own")),
        {"evil": _FILE},
    ),
    Row(
        "a global header that names all files",
        lambda out: _tar(block(b"g", b"g", 17) + padded(b"17 path=/../evil\n"), _file(b"f")),
        {"f": _FILE},
    ),
    Row(
        "a record without a length",
        lambda out: _tar(pax(b"path=evil\n"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a PAX record has no length'),
    ),
    Row(
        "a record that is longer than all",
        lambda out: _tar(pax(b"99 path=evil\n"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a PAX record has the wrong length'),
    ),
    Row(
        "a record of no length",
        lambda out: _tar(pax(b"0 path=evil\n"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a PAX record has the wrong length'),
    ),
    Row(
        "a record of a negative length",
        lambda out: _tar(pax(b"-13 path=evil\n"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: the number -13 is out of range'),
    ),
    Row(
        "a record of an endless length",
        lambda out: _tar(pax(b"9" * 19 + b" path=evil\n"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a number needs more than 64 bits'),
    ),
    Row(
        "a record without an end",
        lambda out: _tar(pax(b"12 path=evil"), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a PAX record has the wrong length'),
    ),
    Row(
        "a record without a keyword",
        lambda out: _tar(pax(record(b"", b"evil")), _file(b"f")),
        Refused('tar entry "PaxHeaders" at byte 0: a PAX record has no keyword'),
    ),
    Row(
        "a record that is written again",
        lambda out: _tar(pax(record(b"path", b"a"), record(b"path", b"b")), _file(b"f")),
        {"b": _FILE},
    ),
    Row(
        "an old header with a slash",
        lambda out: _tar(block(b"d/", b"\0", 100, magic=b""), _file(b"f")),
        {"d": "folder", "f": _FILE},
    ),
]

_MAP = [record(b"GNU.sparse.major", b"0"), record(b"GNU.sparse.minor", b"1")]


def _mapped(size: int, pairs: str, data: bytes = b"") -> bytes:
    numbers = record(b"GNU.sparse.numblocks", b"%d" % ((pairs.count(",") + 1) // 2))
    text = record(b"GNU.sparse.map", pairs.encode())
    return _sparse(*_MAP, record(b"GNU.sparse.size", b"%d" % size), numbers, text, data=data)


def _old_sparse(cells: bytes, size: bytes, data: bytes, extended: bytes = b"\0") -> bytes:
    header = bytearray(block(b"s", b"S", len(data), magic=GNU))
    header[386 : 386 + len(cells)] = cells
    header[482:483] = extended
    header[483 : 483 + len(size)] = size
    return header_with_sum(bytes(header)) + padded(data) + END


SPARSE = [
    Row(
        "a sparse file of an exabyte",
        lambda out: _mapped(1 << 60, "0,1", b"x"),
        Refused("'s': File too large"),
    ),
    Row(
        "a sparse file of the largest size",
        lambda out: _mapped(2**63 - 1, "9223372036854775806,1", b"x"),
        Refused("'s': File too large"),
    ),
    Row(
        "a sparse file beyond the largest size",
        lambda out: _mapped(2**63, "0,1", b"x"),
        Refused("tar entry"),
    ),
    Row(
        "a sparse map that overlaps",
        lambda out: _mapped(10, "0,2,1,2", b"xxxx"),
        Refused("tar entry"),
    ),
    Row("a sparse map backwards", lambda out: _mapped(10, "5,1,0,1", b"xx"), Refused("tar entry")),
    Row("a sparse map beyond the file", lambda out: _mapped(1, "0,2", b"xx"), Refused("tar entry")),
    Row(
        "a sparse map for more data than there is",
        lambda out: _mapped(1 << 40, f"0,{1 << 40}", b"x"),
        Refused("tar entry"),
    ),
    Row(
        "a sparse map with half a pair", lambda out: _mapped(9, "0,1,2", b"x"), Refused("tar entry")
    ),
    Row(
        "a sparse map of ten thousand empty pieces",
        lambda out: _mapped(5, ",".join(["5,0"] * 10_000)),
        {"s": "file" + " " + "\0" * 5},
    ),
    Row(
        "a sparse map that says it has 2**62 pieces",
        lambda out: _sparse(
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.realsize", b"5"),
            data=padded(b"%d\n0\n1\n" % (1 << 62)) + b"x",
        ),
        Refused("tar entry"),
    ),
    Row(
        "an old sparse map with negative numbers",
        lambda out: _old_sparse(base256(-5) + base256(1), b"11\0", b"x"),
        Refused("tar entry"),
    ),
    Row(
        "an old sparse map that never ends",
        lambda out: (
            _old_sparse(b"", b"11\0", b"", b"\1")[:-1024] + (bytes(504) + b"\1" + bytes(7)) * 3000
        ),
        Refused("tar entry"),
    ),
    Row(
        "an old sparse file of an exabyte",
        lambda out: _old_sparse(
            b"0\0".ljust(12, b"\0") + b"1\0".ljust(12, b"\0"), base256(1 << 60), b"x"
        ),
        Refused("'s': File too large"),
    ),
    Row(
        "a sparse link",
        lambda out: _tar(
            pax(
                *_MAP,
                record(b"GNU.sparse.numblocks", b"0"),
                record(b"GNU.sparse.size", b"5"),
                record(b"GNU.sparse.map", b""),
            ),
            block(b"s", b"2", linkname=b"x"),
        ),
        Refused('tar entry "s" at byte 1024: only a regular file can be sparse'),
    ),
]

ROWS: List[Row] = [
    *NAMES,
    *LINKS,
    *LOWER_LINKS,
    *HARD_LINKS,
    *WHITEOUTS,
    *NUMBERS,
    *ATTRIBUTES,
    *TYPES,
    *STRUCTURE,
    *SPARSE,
]
