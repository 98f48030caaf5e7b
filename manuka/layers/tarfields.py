"""The parts of a tar header: numbers, checksums, PAX records and sparse maps, as bytes come in.

Pure functions and lookup tables for `tarread`, which adds the place to their errors: everything
here raises Malformed with a text that says what is wrong.  The rules are those of Go's
``archive/tar``, with which the engine reads the same stream, unless a comment says otherwise.

Easy to get wrong: Python's ``int`` reads more than a tar may hold (``1_0``, ``0o7``, blanks), so
digits are checked before it sees them.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from manuka.layers.tarentry import printable

#: Go's limit for extended headers and sparse maps, in bytes.
LONGEST_EXTENSION = 1 << 20

_LARGEST = (1 << 63) - 1
_LARGEST_ID = (1 << 32) - 2  # the next one means "leave the owner alone" to chown
_MAJORS, _MINORS = 1 << 12, 1 << 20  # of which mknod(2) takes no more
_SECOND = 1_000_000_000
_REMEMBERED = 8192


class Malformed(Exception):
    """What is wrong with a header, in words.  `tarread` turns it into a TarError."""


def octal(field: bytes) -> int:
    """A number in octal digits, with blanks and NULs around it; 0 when there are none."""
    digits = field.strip(b" \0")
    if not digits.isdigit():
        digits = digits.partition(b"\0")[0] or b"0"
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise Malformed("a number is not octal")


def number(field: bytes) -> int:
    """A number in a header: octal, or GNU's base-256."""
    if not field[0] & 0x80:
        return octal(field)
    value = int.from_bytes(field, "big")
    # The top bit marks the notation; with the next one set, the whole is a negative number.
    value -= 1 << (8 * len(field) - (0 if field[0] & 0x40 else 1))
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise Malformed("a number needs more than 64 bits")
    return value


def size(field: bytes) -> int:
    """A size in a header."""
    return _in_range(number(field))


def time_in_header(field: bytes) -> int:
    """A time in a header, in nanoseconds."""
    return number(field) * _SECOND


def device(major: int, minor: int) -> Tuple[int, int]:
    """Check a device's numbers.

    The engine cuts them to what the kernel takes: the node would be another device's.
    """
    if 0 <= major < _MAJORS and 0 <= minor < _MINORS:
        return major, minor
    raise Malformed(f"the device number {major}:{minor} is out of range")


def integer(text: bytes) -> int:
    """A number in a PAX record: decimal digits, perhaps with a sign, of 64 bits at most."""
    if text.isdigit() and len(text) < 19:
        return int(text)
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not digits.isdigit():
        raise Malformed("a PAX number is malformed")
    digits = digits.lstrip(b"0") or b"0"
    value = int(digits) if len(digits) < 20 else _LARGEST + 2
    if text[:1] == b"-":
        value = -value
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise Malformed("a number needs more than 64 bits")
    return value


def decimal(text: bytes) -> int:
    """The same, but not negative."""
    return _in_range(integer(text))


def identity(value: int) -> int:
    """Check a user or group id.

    The engine hands chown whatever the tar says, which cuts it to 32 bits and takes -1 for "as it
    is": the file would be another user's, or root's.
    """
    if 0 <= value <= _LARGEST_ID:
        return value
    raise Malformed(f"the owner {value} is out of range")


def time_ns(text: bytes) -> int:
    """A PAX time, ``[-]seconds[.fraction]``, in whole nanoseconds, rounded towards zero."""
    seconds, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise Malformed("a PAX time is malformed")
    whole = integer(seconds) * _SECOND
    part = int((fraction + b"0" * 9)[:9])
    return whole - part if text[:1] == b"-" else whole + part


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
        value = self[field] = time_in_header(field)
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
            value = octal(field) + sum(field) - 8 * 0x20
        except Malformed:
            value = -1
        self[field] = value
        return value


def sum_is_right(header: bytes) -> bool:
    """Whether a header's checksum fits, with bytes unsigned or, as old tars summed, signed."""
    blanked = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(blanked)
    try:
        checksum = octal(header[148:156])
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
                # Go takes what is stored for the file: without its holes it is another.
                raise Malformed(f"unknown version {printable(version)} of a sparse file")
            return version
        return b"0.x" if self.sparse or b"GNU.sparse.map" in values else None

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

    def sparse_name(self, name: bytes) -> bytes:
        """The name of a sparse file, whose header has `name`."""
        name = self.values.get(b"GNU.sparse.name", name)
        if b"\0" in name:
            raise Malformed("a name holds a NUL byte")
        return name

    def sparse_size(self, stored: int) -> int:
        """The size of a sparse file, holes counted."""
        for keyword in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
            if keyword in self.values:
                return decimal(self.values[keyword])
        return stored


_TEXTS = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_XATTR = b"SCHILY.xattr."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


def pax_records(data: bytes) -> Records:
    """Split an extended header into its records, each ``length keyword=value`` and a newline."""
    records = Records({}, {}, [])
    at = 0
    while at < len(data):
        space = data.find(b" ", at)
        if space < 0:
            raise Malformed("a PAX record has no length")
        length = data[at:space]
        stop = at + (int(length) if length.isdigit() and len(length) < 19 else decimal(length))
        equals = data.find(b"=", space, stop)
        if equals < 0 or data[stop - 1 : stop] != b"\n":
            raise Malformed("a PAX record has the wrong length")
        keyword, value = data[space + 1 : equals], data[equals + 1 : stop - 1]
        if not keyword:
            raise Malformed("a PAX record has no keyword")
        if b"\0" in (value if keyword in _TEXTS else keyword):
            raise Malformed(f'the PAX record "{printable(keyword)}" holds a NUL byte')
        if keyword.startswith(_XATTR):
            # Go takes an empty value for a deletion; for an attribute it is a lawful value.
            records.xattrs[keyword[len(_XATTR) :]] = value
        elif keyword in _SPARSE_PAIR:
            if keyword != _SPARSE_PAIR[len(records.sparse) % 2] or b"," in value:
                raise Malformed("a sparse map is out of order")
            records.sparse.append(value)
        elif value:
            records.values[keyword] = value
        else:
            records.values.pop(keyword, None)
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
