"""The parts of a tar header: numbers, checksums, PAX records and sparse maps, as bytes come in.

Pure functions and lookup tables for `tarread`, which adds the place to their errors: everything
here raises Malformed with a text that says what is wrong.  The rules are those of Go's
``archive/tar``, with which the engine reads the same stream, unless a comment says otherwise.

Easy to get wrong: Python's ``int`` reads more than a tar may hold (``1_0``, ``0o7``, blanks), so
digits are checked before it sees them.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from manuka.layers.tarentry import printable

#: Go's limit for extended headers and sparse maps, in bytes.
LONGEST_EXTENSION = 1 << 20

_LARGEST = (1 << 63) - 1
_LARGEST_ID = (1 << 32) - 2  # the next one means "leave the owner alone" to chown
_SECOND = 1_000_000_000
_TIME = re.compile(rb"([+-]?)([0-9]{1,19})(?:\.([0-9]*))?")
_REMEMBERED = 8192


class Malformed(Exception):
    """What is wrong with a header, in words.  `tarread` turns it into a TarError."""


def number(field: bytes) -> int:
    """A number in a header: octal with blanks and NULs around it, or GNU's base-256."""
    digits = field.strip(b" \0")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            raise Malformed("a number is not octal") from None
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        # The top bit marks the notation; with the next one set, the whole is a negative number.
        value -= 1 << (8 * len(field) - (0 if field[0] & 0x40 else 1))
        if not -_LARGEST - 1 <= value <= _LARGEST:
            raise Malformed("a number needs more than 64 bits")
        return value
    digits = digits.partition(b"\0")[0]
    if digits and not digits.isdigit():
        raise Malformed("a number is not octal")
    return number(digits) if digits else 0


def size(field: bytes) -> int:
    """A size in a header."""
    return _in_range(number(field))


def device(field: bytes) -> int:
    """A major or minor device number."""
    value = number(field)
    if 0 <= value < 1 << 20:
        return value
    raise Malformed(f"the device number {value} is out of range")


def decimal(text: bytes) -> int:
    """A number in a PAX record that may not be negative."""
    if not text.isdigit() or len(text) > 19:
        raise Malformed("a PAX number is malformed")
    return _in_range(int(text))


def identity(value: int) -> int:
    """Check a user or group id."""
    if 0 <= value <= _LARGEST_ID:
        return value
    raise Malformed(f"the owner {value} is out of range")


def time_ns(text: bytes) -> int:
    """A PAX time, ``[-]seconds[.fraction]``, in whole nanoseconds, rounded towards zero."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise Malformed("a PAX time is malformed")
    sign, seconds, fraction = match.groups()
    nanoseconds = _in_range(int(seconds)) * _SECOND + int(((fraction or b"") + b"0" * 9)[:9])
    return -nanoseconds if sign == b"-" else nanoseconds


def _in_range(value: int) -> int:
    if not 0 <= value <= _LARGEST:
        raise Malformed(f"the number {value} is out of range")
    return value


# --- lookup tables ----------------------------------------------------------------------------
# Headers repeat themselves: the same owners, times and sizes.  A lookup costs a tenth of parsing.
# The tables forget everything when full, so that no stream can make them grow.


class Sizes(Dict[bytes, int]):
    """Sizes by header field."""

    def __missing__(self, field: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self[field] = size(field)
        return value


class Times(Dict[bytes, int]):
    """Nanoseconds since 1970 by header field."""

    def __missing__(self, field: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self[field] = number(field) * _SECOND
        return value


class Owners(Dict[bytes, Tuple[int, int, int]]):
    """(mode, uid, gid) by the three header fields in one."""

    def __missing__(self, fields: bytes) -> Tuple[int, int, int]:
        if len(self) >= _REMEMBERED:
            self.clear()
        mode = number(fields[:8]) & 0o7777
        value = self[fields] = mode, identity(number(fields[8:16])), identity(number(fields[16:]))
        return value


class Sums(Dict[bytes, int]):
    """By checksum field: the sum of all bytes of a right header, the field's own included.

    The checksum in the field is of a header that has eight blanks in its place.
    """

    def __missing__(self, field: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        try:
            value = number(field) + sum(field) - 8 * 0x20
        except Malformed:
            value = -1
        self[field] = value
        return value


def sum_is_right(header: bytes) -> bool:
    """Whether a header's checksum fits, with bytes unsigned or, as old tars summed, signed."""
    blanked = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(blanked)
    try:
        checksum = number(header[148:156])
    except Malformed:
        return False
    return checksum in (unsigned, unsigned - 256 * sum(byte >> 7 for byte in blanked))


# --- PAX --------------------------------------------------------------------------------------


class Records(NamedTuple):
    """What an extended header says.

    values: by keyword; of a repeated one the last counts.
    xattrs: by attribute name.
    sparse: offsets and lengths of a sparse map of version 0.0, in turn.
    """

    values: Dict[bytes, bytes]
    xattrs: Dict[bytes, bytes]
    sparse: List[bytes]

    @property
    def sparse_version(self) -> Optional[bytes]:
        """The form of the sparse map, ``1.0`` or ``0.x``; None: the file is not sparse."""
        values = self.values
        major, minor = values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor")
        if major or minor:
            version = b"%b.%b" % (major or b"", minor or b"")
            if version not in (b"0.0", b"0.1", b"1.0"):
                raise Malformed(f"unknown version {printable(version)} of a sparse file")
            return version
        if self.sparse or b"GNU.sparse.map" in values or b"GNU.sparse.numblocks" in values:
            return b"0.x"
        return None

    @property
    def sparse_numbers(self) -> List[int]:
        """Offsets and lengths in turn, of a sparse map of version 0.0 or 0.1."""
        values = self.values
        texts = self.sparse
        if not texts and b"GNU.sparse.map" in values:
            texts = values[b"GNU.sparse.map"].split(b",")
        if 2 * decimal(values.get(b"GNU.sparse.numblocks", b"")) != len(texts):
            raise Malformed("a sparse map is incomplete")
        return [decimal(text) for text in texts]

    def sparse_size(self, stored: int) -> int:
        """The size of a sparse file, holes counted."""
        for keyword in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
            if keyword in self.values:
                return decimal(self.values[keyword])
        return stored


_XATTR = b"SCHILY.xattr."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


def pax_records(data: bytes) -> Records:
    """Split an extended header into its records, each ``length keyword=value`` and a newline."""
    records = Records({}, {}, [])
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            raise Malformed("a PAX record has no length")
        stop = at + int(length)
        equals = data.find(b"=", space, stop)
        if equals < 0 or data[stop - 1 : stop] != b"\n":
            raise Malformed("a PAX record has the wrong length")
        keyword, value = data[space + 1 : equals], data[equals + 1 : stop - 1]
        if keyword.startswith(_XATTR):
            # Go takes an empty value for a deletion; for an attribute it is a lawful value.
            records.xattrs[keyword[len(_XATTR) :]] = value
        elif keyword in _SPARSE_PAIR:
            if keyword != _SPARSE_PAIR[len(records.sparse) % 2]:
                raise Malformed("a sparse map is out of order")
            records.sparse.append(value)
        elif value:
            records.values[keyword] = value
        else:
            records.values.pop(keyword, None)
        if b"\0" in keyword:
            raise Malformed("a PAX keyword holds a NUL byte")
        at = stop
    return records


# --- sparse files -------------------------------------------------------------------------------


def sparse_pairs(numbers: Iterable[int], size: int, stored: int) -> List[Tuple[int, int]]:
    """Make a sparse map of offsets and lengths in turn.

    size: of the file, with holes; stored: bytes of data in the tar.  Both must fit the map.
    """
    turns = iter(numbers)
    pairs = list(zip(turns, turns))
    end = total = 0
    for offset, length in pairs:
        if length < 0 or offset < end or offset + length > size:
            raise Malformed("a sparse map overlaps, is out of order, or leaves the file")
        end = offset + length
        total += length
    if total != stored:
        raise Malformed(f"a sparse map describes {total} bytes of data, the tar holds {stored}")
    return pairs


def sparse_cells(area: bytes) -> List[int]:
    """Offsets and lengths in a row of 24-byte cells (GNU's old form); an empty cell ends it."""
    numbers: List[int] = []
    for at in range(0, len(area) - 23, 24):
        if not area[at]:
            break
        numbers += number(area[at : at + 12]), number(area[at + 12 : at + 24])
    return numbers
