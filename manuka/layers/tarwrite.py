"""Header blocks of a tar, byte for byte as the engine writes them.

The engine's own driver writes with Go's ``archive/tar`` and ``Format: FormatPAX``: a ustar header
when everything fits into one, and else an extended header of type ``x`` before it.  An image keeps
its digest when it is exported through a plugin only if every byte is the same, the names of
extended headers and the notation of numbers included.

Easy to get wrong: a name longer than 100 bytes is split at a slash when the rest fits a ustar
header, and is cut off when an extended header is needed for something else.
"""

from __future__ import annotations

import functools
import posixpath
import zlib
from typing import Dict

from manuka.layers.tarentry import BLOCK, DIRECTORY, REGULAR, Entry, TarError, printable
from manuka.layers.tarfields import LONGEST_EXTENSION

#: What follows the last entry.
END = bytes(2 * BLOCK)

_NAME, _PREFIX = 100, 155  # widths of the fields, in bytes
_SMALL, _LARGE = 1 << 21, 1 << 33  # what seven and eleven octal digits cannot hold
_SECOND = 1_000_000_000
_EXTENDED = ord("x")
_MAGIC = b"ustar\x0000" + bytes(64)
_NON_ASCII = bytes(range(0x80, 0x100))
_NO_LINK = bytes(_NAME)
_NO_PREFIX = bytes(_PREFIX + 12)


def padding(size: int) -> bytes:
    """The zeros that follow `size` bytes of data, up to the next header."""
    return END[: -size % BLOCK]


def header(entry: Entry) -> bytes:
    """The blocks that go before an entry's data.

    A folder's name gets a slash at its end.  A sparse entry is written as a plain one: its data
    must come with the holes filled.  Raises TarError for what the format cannot hold, such as a
    name with a NUL byte or a device number of more than 21 bits.
    """
    kind, name, linkname = entry.type, entry.name, entry.linkname
    if kind == DIRECTORY and name[-1:] != b"/":
        name += b"/"
    size = entry.size if kind == REGULAR else 0
    uid, gid = entry.uid, entry.gid
    seconds, fraction = divmod(entry.mtime_ns, _SECOND)

    records: Dict[bytes, bytes] = {}
    if len(name) > _NAME or not name.isascii():
        records[b"path"] = name
    if linkname and (len(linkname) > _NAME or not linkname.isascii()):
        records[b"linkpath"] = linkname
    if not 0 <= uid < _SMALL:
        records[b"uid"] = b"%d" % uid
        uid = 0
    if not 0 <= gid < _SMALL:
        records[b"gid"] = b"%d" % gid
        gid = 0
    if size >= _LARGE:
        records[b"size"] = b"%d" % size
        size = 0
    if fraction or not 0 <= seconds < _LARGE:
        records[b"mtime"] = _time(entry.mtime_ns)
        seconds = seconds if 0 <= seconds < _LARGE else 0
    if entry.atime_ns is not None:
        records[b"atime"] = _time(entry.atime_ns)
    for attribute, value in entry.xattrs.items():
        records[b"SCHILY.xattr." + attribute] = value

    before, prefix = b"", _NO_PREFIX
    if records:
        slash = _splitting_slash(name)
        if slash and len(records) == 1:
            prefix = name[:slash].ljust(_PREFIX + 12, b"\0")
            name = name[slash + 1 :]
        else:
            before = _extended_header(name, records)
    if b"\0" in name or b"\0" in linkname:
        raise TarError(f'the name "{printable(name)}" or its link target holds a NUL byte')
    return before + _block(
        _text(name) if records else name.ljust(_NAME, b"\0"),
        _octal(entry.mode, uid, gid),
        size,
        seconds,
        kind,
        _text(linkname) if linkname else _NO_LINK,
        _octal(entry.devmajor, entry.devminor),
        prefix,
    )


def _block(
    name: bytes,
    owner: bytes,
    size: int,
    seconds: int,
    kind: int,
    linkname: bytes,
    device: bytes,
    prefix: bytes,
) -> bytes:
    front = b"%b%b%011o\0%011o\0" % (name, owner, size, seconds)
    back = b"%c%b%b%b%b" % (kind, linkname, _MAGIC, device, prefix)
    # Adler's low half is 1 + the sum of the bytes: everything is ASCII, too little for its modulus.
    checksum = (zlib.adler32(back, zlib.adler32(front)) & 0xFFFF) - 1 + 8 * 0x20
    return b"%b%06o\0 %b" % (front, checksum, back)


def _extended_header(name: bytes, records: Dict[bytes, bytes]) -> bytes:
    data = b"".join(_record(keyword, records[keyword]) for keyword in sorted(records))
    if len(data) > LONGEST_EXTENSION:
        raise TarError(f'the extended header of "{printable(name)}" is too long')
    folder, base = posixpath.split(name)
    title = posixpath.normpath(posixpath.join(folder, b"PaxHeaders.0", base))
    title = title.translate(None, _NON_ASCII)[:_NAME].rstrip(b"/")
    block = _block(
        title.ljust(_NAME, b"\0"),
        _octal(0, 0, 0),
        len(data),
        0,
        _EXTENDED,
        _NO_LINK,
        bytes(16),
        _NO_PREFIX,
    )
    return block + data + padding(len(data))


def _record(keyword: bytes, value: bytes) -> bytes:
    """``length keyword=value`` and a newline; the length counts its own digits too."""
    if b"\0" in keyword or b"=" in keyword:
        raise TarError(f'"{printable(keyword)}" cannot be the keyword of a PAX record')
    rest = b" %b=%b\n" % (keyword, value)
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


@functools.lru_cache(maxsize=4096)
def _octal(*numbers: int) -> bytes:
    """Fields of seven octal digits."""
    for number in numbers:
        if not 0 <= number < _SMALL:
            raise TarError(f"the mode or device number {number} does not fit a tar header")
    return b"".join(b"%07o\0" % number for number in numbers)


def _text(text: bytes) -> bytes:
    """A name in its field.  When it does not fit, an extended header has the whole."""
    text = text.translate(None, _NON_ASCII)
    if len(text) > _NAME:
        text = text[:_NAME]
        bare = text.rstrip(b"/")
        if bare != text:
            # No slash at the end, which would say folder; Go replaces the first of several.
            text = bare + b"\0" + text[len(bare) + 1 :]
    return text.ljust(_NAME, b"\0")


def _splitting_slash(name: bytes) -> int:
    """Where a ustar header can split a long name into prefix and name; 0: nowhere."""
    if len(name) <= _NAME or not name.isascii():
        return 0
    searched = min(len(name) - name.endswith(b"/"), _PREFIX + 1)
    slash = name.rfind(b"/", 0, searched)
    return slash if slash > 0 and 0 < len(name) - slash - 1 <= _NAME else 0


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    sign = b"-" if nanoseconds < 0 else b""
    if not fraction:
        return b"%b%d" % (sign, seconds)
    return (b"%b%d.%09d" % (sign, seconds, fraction)).rstrip(b"0")
