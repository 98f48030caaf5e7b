"""Tar headers as no archiver would write them, field by field."""

from __future__ import annotations

from typing import Dict, Union

from tests.layertar import MTIME

END = bytes(1024)

#: Where each field of a header lies: its first byte and its width.
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
}

GNU = b"ustar  \0"


def block(name: bytes, kind: bytes = b"0", size: Union[int, bytes] = 0, **fields: bytes) -> bytes:
    """A header; each field may be given as the very bytes in it.  The checksum is right."""
    values: Dict[str, bytes] = {
        "name": name,
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": size if isinstance(size, bytes) else _number(size),
        "mtime": b"%011o\0" % (MTIME // 10**9),
        "type": kind,
        "magic": b"ustar\x0000",
        **fields,
    }
    header = bytearray(512)
    for field, value in values.items():
        start, width = FIELDS[field]
        assert len(value) <= width, field
        header[start : start + len(value)] = value
    return header_with_sum(bytes(header)) if "checksum" not in fields else bytes(header)


def header_with_sum(header: bytes) -> bytes:
    """The header with the checksum that fits it."""
    total = sum(header[:148]) + 8 * 0x20 + sum(header[156:512])
    return header[:148] + b"%06o\0 " % total + header[156:]


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def record(keyword: bytes, value: bytes) -> bytes:
    """A PAX record."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(*records: bytes, size: Union[int, bytes, None] = None) -> bytes:
    """An extended header of these records, whatever is in them."""
    data = b"".join(records)
    return block(b"PaxHeaders", b"x", len(data) if size is None else size) + padded(data)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name, or of kind ``K`` for a long link target."""
    return block(b"././@LongLink", kind, len(name) + 1, magic=GNU) + padded(name + b"\0")


def base256(value: int, width: int = 12) -> bytes:
    """GNU's notation for numbers that octal digits cannot hold."""
    raw = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def _number(value: int) -> bytes:
    return b"%011o\0" % value if value < 8**11 else base256(value)
