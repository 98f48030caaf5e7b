"""One entry of a tar stream, as the reader yields it and the writer takes it.

`tarread` makes entries, `tarwrite` turns them into header blocks; everyone else imports both, and
what is here, from `tar`.

Easy to get wrong: names, link targets and extended attributes are bytes.  They come from another
machine, need not be UTF-8, and have to reach the disk unchanged.
"""

from __future__ import annotations

import io
from typing import Dict, List, Optional, Tuple, Union

from manuka.errors import ManukaError

#: Where a tar comes from.  Only ``readinto`` is called, with a memoryview; 0 means the end.
Stream = Union[io.RawIOBase, io.BufferedIOBase]

#: The values of `Entry.type`.  Every other type flag is normalised to one of these, or refused.
REGULAR, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"

BLOCK = 512

#: Bytes of a name that a message shows.
LONGEST_SHOWN = 300


class TarError(ManukaError):
    """A tar stream is malformed, cut off, or holds something that cannot be unpacked."""


class Entry:
    """A file, folder, link or device in a tar.

    name: the path as the tar has it, but without trailing slashes.  A leading ``/`` or ``./`` and
        ``..`` are still in it; an empty name is possible.
    type: one of `REGULAR` to `FIFO`.
    mode: permissions with set-id and sticky bits.
    uid, gid: the owner, as numbers; names in the tar are ignored, as the engine does.
    size: bytes in the file, its holes counted; 0 for all but regular files.
    mtime_ns, atime_ns: nanoseconds since 1970; atime is None when the tar has none.
    linkname: what a hard or symbolic link points to; empty for other types.
    devmajor, devminor: the device's numbers; 0 for other types.
    xattrs: values of extended attributes by full name (``security.capability``).
    sparse: the (offset, length) of each piece of data in a sparse file, in order; else None.
    """

    __slots__ = (
        "name",
        "type",
        "mode",
        "uid",
        "gid",
        "size",
        "mtime_ns",
        "atime_ns",
        "linkname",
        "devmajor",
        "devminor",
        "xattrs",
        "sparse",
    )

    def __init__(
        self,
        name: bytes,
        type: int = REGULAR,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        atime_ns: Optional[int] = None,
        linkname: bytes = b"",
        devmajor: int = 0,
        devminor: int = 0,
        xattrs: Optional[Dict[bytes, bytes]] = None,
        sparse: Optional[List[Tuple[int, int]]] = None,
    ) -> None:
        self.name = name
        self.type = type
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.atime_ns = atime_ns
        self.linkname = linkname
        self.devmajor = devmajor
        self.devminor = devminor
        self.xattrs: Dict[bytes, bytes] = {} if xattrs is None else xattrs
        self.sparse = sparse

    def __repr__(self) -> str:
        return f"<Entry {chr(self.type)} {printable(self.name)}>"


def printable(name: bytes) -> str:
    """A name for a message: one line of text, cut when it is absurdly long.

    What is no UTF-8, or would move a terminal's cursor, is escaped.
    """
    text = name[:LONGEST_SHOWN].decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(name) <= LONGEST_SHOWN else text + "..."
