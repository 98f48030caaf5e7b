"""The headers that ``docker commit`` writes: byte by byte as overlay2's, for files of every type.

Engines from 24 on write the very bytes that manuka writes.  Older ones add the file's type to the
mode (``fillGo18FileTypeBits`` in their ``pkg/archive``: measured on 20.10.5 and 20.10.24, and not
on 26.1.5), and engines before 23 the owners' names.  A plugin is not told which engine it serves,
so manuka writes the newer form for all.  That does no harm, as `committed` shows: the engine takes
the digest from the tar that it gets, and gives that tar back.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Dict, List

from .comparison import Pair
from .sides import Side
from .stacks import CAPABILITY, Content, Entry, Stack, archive, layer

TIME = 1600000000 * 10**9
MAKERS = {
    "file": lambda path: os.mknod(path, 0o640),
    "fifo": lambda path: os.mknod(path, 0o640 | stat.S_IFIFO),
    "character device": lambda path: os.mknod(path, 0o660 | stat.S_IFCHR, os.makedev(4, 300)),
    "block device": lambda path: os.mknod(path, 0o660 | stat.S_IFBLK, os.makedev(259, 65537)),
    "symlink": lambda path: os.symlink("to/there", path),
}
TYPES = {
    b"0": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}


def test_each_name_of_each_file_has_the_header_that_overlay2_writes(pair: Pair) -> None:
    native, manuka = committed(pair.left), committed(pair.right)
    version = int(pair.left.call("GET", "/version")["Version"].split(".")[0])
    old, new = headers(native), headers(manuka)
    assert list(old) == list(new)
    first_types = {}
    for name in new:
        assert without_what_is_old(old[name]) == without_what_is_old(new[name]), name
        kind = old[name][156:157]
        if kind in TYPES:
            first_types[name] = TYPES[kind]
        expected = first_types.get(name) or first_types[old[name][157:257].rstrip(b"\0")]
        mode = int(old[name][100:107], 8)
        assert mode & ~0o7777 == (expected if version < 24 else 0), name
    if version >= 24:
        assert native == manuka


def committed(side: Side) -> bytes:
    """The layer of a container in which each kind of file got three names."""
    tag = f"headers:{side._number()}"
    below = layer(Entry("F", b"below", content=Content(20)))
    side.load(archive({tag: Stack((below,))}))
    container = side.create(tag)
    with side.mounted(container) as root:
        for kind, make in MAKERS.items():
            path = os.path.join(root, kind)
            make(path)
            os.chown(path, 12, 3000000, follow_symlinks=False)
            if kind == "file":
                with open(path, "wb") as file:
                    file.write(b"hello")
                os.setxattr(path, "security.capability", CAPABILITY)
            for number in (2, 3):
                os.link(path, f"{path} {number}", follow_symlinks=False)
            os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
        os.mkdir(f"{root}/directory")
        os.chmod(f"{root}/directory", 0o1755)
        os.chown(f"{root}/directory", 12, 34)
        os.utime(f"{root}/directory", ns=(TIME, TIME))
    side.commit(container, tag + "-committed")
    digest = side.call("GET", f"/images/{tag}-committed/json")["RootFS"]["Layers"][-1]
    (saved,) = side.save([tag + "-committed"]).values()
    assert "sha256:" + hashlib.sha256(saved[-1]).hexdigest() == digest
    return saved[-1]


def headers(tar: bytes) -> Dict[bytes, bytes]:
    """The header blocks by name, with the extended header before each."""
    found: Dict[bytes, bytes] = {}
    at, before = 0, b""
    while any(tar[at : at + 512]):
        block = tar[at : at + 512]
        size = int(block[124:135], 8)
        after = at + 512 + (size + 511) // 512 * 512
        name = block[:100].rstrip(b"\0")
        if block[156:157] == b"x":
            before = tar[at:after]
        else:
            found[name] = block + before
            before = b""
        at = after
    return found


def without_what_is_old(header: bytes) -> bytes:
    """A header without the type in its mode, the owner's names, and the checksum over them."""
    pieces: List[bytes] = [header[:100], b"%07o" % (int(header[100:107], 8) & 0o7777)]
    return b"".join([*pieces, header[107:148], header[156:265], header[329:]])
