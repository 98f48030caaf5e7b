"""TarReader: the entries of a tar stream, and their data straight into files.

This is the hottest code in Manuka: pulling an image is mostly this loop and the system calls of
`apply`.  So headers and data share one buffer, data is written from where it was received, and a
plain entry costs one unpacking of its header and a few table lookups.  `tarfields` knows what the
fields mean.

Reads what Go's ``archive/tar`` reads, and as it does: the engine reads the same stream with a copy
of it (``vbatts/tar-split``), and ``docker save`` looks later for the files that the copy has seen.
Like Go it takes a stream that ends behind an entry's data for whole, without an end mark, since
some builders write none, and one without a byte for an empty tar.  Whether the stream itself was
cut off, only the stream can tell, and it has to raise.

Where it differs on purpose:

- accepted, though the engine's own driver stops at the type: files of type ``7``, GNU's old sparse
  files (``S``), volume labels (``V``), directories of incremental archives (``D``) without listing;
- refused, though Go accepts it: an extended header without its entry, for the stream was cut off;
  owners and devices that the system cannot hold; a negative size of what has no data, which could
  not be saved; a sparse file of an unknown version.

An image with a sparse file, of whatever form, runs but cannot be saved, on overlay2 neither:
tar-split fills the holes.

Easy to get wrong: `_fill` moves what the buffer holds.  A position taken before it is worthless
after it.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Iterator, List, Optional, Tuple

from manuka.layers import tarfields
from manuka.layers.tarentry import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    Stream,
    TarError,
    printable,
)
from manuka.layers.tarfields import Malformed, Records

# 256 KiB stays in the processor's cache between the receiving and the writing.
_CAPACITY = 256 << 10
_HOLE = 64 << 10
_ZEROS = bytes(_HOLE)

# name, mode + uid + gid, size, mtime, checksum, type flag, device numbers, first byte of the
# prefix, star's trailer
_HEADER = struct.Struct("=100s 24s 12s 12s 8s B 172x 16s B 162x I")
# What writers put there for a file that is no device: nothing, Go and tarfile, and bsdtar.
_NO_DEVICE = frozenset((bytes(16), 2 * b"0000000\0", 2 * b"000000 \0"))
_GNU = b"ustar  \0"
_USTAR = b"ustar\0"
_STAR_TRAILER = b"tar\0"

# Type flags that an Entry cannot have, by what is done with them.
_OLD_REGULAR, _CONTIGUOUS, _GNU_SPARSE, _FOLDER_WITH_LISTING = b"\x007SD"
_PAX, _LONG_NAME, _LONG_LINK = b"xLK"
_GLOBAL, _LABEL = b"gV"  # records for all later files, which Go does not apply; a tape's label
_NOT_ENTRIES = b"xLKgV"
_WITHOUT_DATA = b"123456"
_REGULAR_FLAGS = bytes((REGULAR, _OLD_REGULAR, _CONTIGUOUS))


class TarReader:
    """Iterate over this to get each `Entry`; take an entry's data before asking for the next one.

    Data that is not taken is skipped.  At the end mark the stream is read to its end.  Memory use
    does not depend on the stream.  All methods raise TarError, with the place, when the stream is
    malformed or ends early, and let the stream's own errors through.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray(_CAPACITY)
        self._view = memoryview(self._buffer)
        self._base = 0  # the position in the stream of the buffer's first byte
        self._at = 0  # the first byte in the buffer that nobody took
        self._end = 0
        self._left = 0  # bytes of the entry's data that nobody took, in the buffer or to come
        self._padding = 0  # bytes between those and the next header
        self._entry = Entry(b"")  # whose data it is
        self._finished = False

    def __iter__(self) -> Iterator[Entry]:
        unpack, adler, view = _HEADER.unpack_from, zlib.adler32, self._view
        sums, sizes = tarfields.Sums(), tarfields.Sizes()
        owners, times, no_device = tarfields.Owners(), tarfields.Times(), _NO_DEVICE
        extension: Optional[_Extension] = None
        while not self._finished:
            at = self._at + self._left + self._padding
            if at + BLOCK > self._end:
                at = self._skip_to_header()
                if at < 0:
                    if extension is not None:
                        raise self._cut_off()
                    self._finished = True
                    return
            name, owner, size, mtime, check, kind, device, prefix, trailer = unpack(view, at)
            start = self._base + at
            self._at = at + BLOCK
            self._left = self._padding = 0
            try:
                # The low half of Adler's sum is 1 + the sum of the bytes, as 256 bytes are too
                # few for its modulus.
                low, high = adler(view[at : at + 256]), adler(view[at + 256 : at + BLOCK])
                if (low & 0xFFFF) + (high & 0xFFFF) - 2 != sums[check]:
                    header = bytes(view[at : at + BLOCK])
                    if not any(header):
                        self._finish(extension)
                        return
                    if not tarfields.sum_is_right(header):
                        raise Malformed("the header's checksum is wrong")
                stored = sizes[size]
                stop = name.find(0)
                if stop >= 0:
                    name = name[:stop]
                mode, uid, gid = owners[owner]
                modified = times[mtime]
                plain = device in no_device and not prefix and not trailer
                if kind in _NOT_ENTRIES:
                    if not plain:
                        _read_later_fields(Entry(b""), bytes(view[at : at + BLOCK]))
                    extension = self._extended(kind, stored, extension)
                    continue
                entry = self._entry = Entry(name, kind, mode, uid, gid, stored, modified)
                if plain and kind == REGULAR and extension is None and name[-1:] != b"/":
                    self._left, self._padding = stored, -stored % BLOCK
                else:
                    self._complete(bytes(view[at : at + BLOCK]), extension)
                    extension = None
            except Malformed as error:
                title = printable(_until_nul(name))
                raise TarError(f'tar entry "{title}" at byte {start}: {error}') from None
            yield entry

    def copy_data(self, fd: int) -> None:
        """Write the current entry's data to `fd`, an empty file open for writing.

        The gaps of a sparse file and long runs of zeros become holes.  Raises OSError when the
        file system refuses.
        """
        left = self._left
        sparse = self._entry.sparse
        if left < _HOLE and sparse is None:
            if left:
                if self._at + left > self._end:
                    self._fill(left)
                at = self._at
                self._at, self._left = at + left, 0
                written = os.write(fd, self._view[at : at + left])
                if written < left:
                    _write(fd, self._view[at + written : at + left], written)
            return
        ends_in_hole = sparse is not None
        for offset, length in [(0, left)] if sparse is None else sparse:
            ends_in_hole |= self._copy_piece(fd, offset, length)
        if ends_in_hole:
            os.ftruncate(fd, self._entry.size)

    def read_data(self, limit: int) -> bytes:
        """The current entry's data, holes filled.  Raises TarError when it has more bytes than
        `limit`."""
        entry = self._entry
        if entry.size > limit:
            raise TarError(
                f'tar entry "{printable(entry.name)}" has {entry.size} bytes, not {limit} at most'
            )
        if entry.sparse is None:
            data, self._left = self._read(self._left), 0
            return data
        filled = bytearray(entry.size)
        for offset, length in entry.sparse:
            filled[offset : offset + length] = self._read(length)
            self._left -= length
        return bytes(filled)

    def drain(self) -> None:
        """Read the stream to its end and forget what comes."""
        while self._stream.readinto(self._view):
            pass
        self._at = self._end = 0
        self._finished = True

    # --- entries ------------------------------------------------------------------------------

    def _extended(
        self, kind: int, length: int, extension: Optional[_Extension]
    ) -> Optional[_Extension]:
        """What is known of the next entry behind one more header that is none."""
        if kind == _LABEL:
            if length or extension is not None:
                raise Malformed("a volume label has no data and no extended header")
            return None
        payload = self._payload(length)
        if kind == _GLOBAL:
            tarfields.pax_records(payload)
            return None  # For Go it is an entry, to which the headers before it belong.
        extension = extension or _Extension()
        extension.add(kind, payload)
        return extension

    def _complete(self, header: bytes, extension: Optional[_Extension]) -> None:
        """Fill in what a plain file does not need, and find out where the data is."""
        entry = self._entry
        _read_later_fields(entry, header)
        if entry.type in (HARD_LINK, SYMLINK):
            entry.linkname = _until_nul(header[157:257])
        if extension is not None:
            extension.apply(entry)

        kind, stored = entry.type, entry.size
        is_gnu_sparse = kind == _GNU_SPARSE and header[257:265] == _GNU
        if kind in _WITHOUT_DATA:
            stored = 0
        elif kind == _OLD_REGULAR and entry.name.endswith(b"/"):
            entry.type, stored = DIRECTORY, 0
        elif kind in _REGULAR_FLAGS or is_gnu_sparse:
            entry.type = REGULAR
        elif kind != _FOLDER_WITH_LISTING:
            raise Malformed(f'unhandled entry type "{printable(bytes((kind,)))}"')
        elif stored:
            raise Malformed(
                "this is an incremental archive, which docker could not save again; "
                "pack it without tar's option -g"
            )
        else:
            entry.type = DIRECTORY

        numbers: Optional[List[int]] = None
        if is_gnu_sparse:
            entry.size = tarfields.size(header[483:495])
            numbers = self._gnu_sparse_map(header)
        elif extension is not None and extension.records.sparse_version is not None:
            if entry.type != REGULAR:
                raise Malformed("only a regular file can be sparse")
            entry.name = extension.records.sparse_name(entry.name)
            entry.size = extension.records.sparse_size(stored)
            numbers, used = self._pax_sparse_map(extension.records, stored)
            stored -= used
        entry.name = entry.name.rstrip(b"/")
        if entry.type != REGULAR:
            entry.size = 0
            return
        self._left, self._padding = stored, -stored % BLOCK
        if numbers is not None:
            entry.sparse = tarfields.sparse_pairs(numbers, entry.size, stored)

    def _payload(self, length: int) -> bytes:
        """The data of an extension header."""
        if length > tarfields.LONGEST_EXTENSION:
            raise Malformed(f"an extended header has {length} bytes")
        data = self._read(length)
        self._padding = -length % BLOCK
        return data

    def _gnu_sparse_map(self, header: bytes) -> List[int]:
        """The map in a header of type ``S`` and in the blocks that continue it."""
        numbers = tarfields.sparse_cells(header[386:482])
        continues = header[482]
        room = tarfields.LONGEST_EXTENSION
        while continues:
            if room <= 0:
                raise Malformed("a sparse map is too long")
            room -= BLOCK
            block = self._read(BLOCK)
            numbers += tarfields.sparse_cells(block[:504])
            continues = block[504]
        return numbers

    def _pax_sparse_map(self, records: Records, stored: int) -> Tuple[List[int], int]:
        """The map of a PAX archive, and how many of the `stored` bytes it took.

        Versions 0.0 and 0.1 keep it in the records.  1.0 puts it before the data: a count, then
        offsets and lengths, a number in each line, filled up to a whole block.
        """
        if records.sparse_version != b"1.0":
            return records.sparse_numbers, 0
        text = bytearray()
        lines, wanted = 0, 1
        while lines < wanted:
            if len(text) + BLOCK > min(stored, tarfields.LONGEST_EXTENSION):
                raise Malformed("a sparse map is incomplete or too long")
            block = self._read(BLOCK)
            text += block
            lines += block.count(b"\n")
            if wanted == 1 and lines:
                wanted += 2 * tarfields.decimal(bytes(text.partition(b"\n")[0]))
        numbers = bytes(text).split(b"\n")[1:wanted]
        return [tarfields.decimal(number) for number in numbers], len(text)

    def _finish(self, extension: Optional[_Extension]) -> None:
        """Check the end mark behind its first block, and drain the stream."""
        if extension is not None:
            raise Malformed("an extended header has no entry")
        # Go takes one block for the end mark when nothing at all follows.
        if self._receive(BLOCK):
            if any(self._read(BLOCK)):
                raise Malformed("one block of zeros is no end mark")
        elif self._at < self._end:
            raise self._cut_off()
        self.drain()

    # --- data ---------------------------------------------------------------------------------

    def _copy_piece(self, fd: int, offset: int, length: int) -> bool:
        """Copy `length` bytes to `offset` in a file; tell whether a hole was left at their end."""
        buffer, view = self._buffer, self._view
        in_hole = False
        while length:
            size = min(length, _CAPACITY)
            if self._at + size > self._end:
                self._fill(size)
            start = at = self._at
            stop = at + size
            self._at = stop
            self._left -= size
            length -= size
            while at < stop:
                in_hole = buffer.startswith(_ZEROS, at, stop)
                if in_hole:
                    _write(fd, view[start:at], offset)
                    offset += at + _HOLE - start
                    start = at + _HOLE
                at += _HOLE
            _write(fd, view[start:stop], offset)
            offset += stop - start
        return in_hole

    def _read(self, count: int) -> bytes:
        if count > _CAPACITY:
            half = count // 2
            return self._read(half) + self._read(count - half)
        if self._at + count > self._end:
            self._fill(count)
        at = self._at
        self._at = at + count
        return bytes(self._view[at : at + count])

    def _skip_to_header(self) -> int:
        """Skip what is left of an entry; return where in the buffer the next header is, -1 where
        the stream ends instead."""
        ahead = self._left + self._padding
        while ahead > self._end - self._at:
            ahead -= self._end - self._at
            self._at = self._end
            if not self._receive(1):
                # Go asks only for the data, not for the padding.
                if ahead > self._padding:
                    raise self._cut_off()
                return -1
        self._at += ahead
        self._left = self._padding = 0
        if not self._receive(BLOCK):
            if self._at < self._end:
                raise self._cut_off()
            return -1
        return self._at

    def _fill(self, count: int) -> None:
        """Have `count` bytes ready in the buffer, no more than its capacity."""
        if not self._receive(count):
            raise self._cut_off()

    def _receive(self, count: int) -> bool:
        """The same, but return False when the stream ends before."""
        view = self._view
        ready = self._end - self._at
        if ready >= count:
            return True
        view[:ready] = view[self._at : self._end]
        self._base += self._at
        self._at, self._end = 0, ready
        while self._end < count:
            received = self._stream.readinto(view[self._end :])
            if not received:
                return False
            self._end += received
        return True

    def _cut_off(self) -> TarError:
        received = self._base + self._end
        place = "before its end mark"
        if self._left:
            place = f'in the data of "{printable(self._entry.name)}"'
        return TarError(f"unexpected end of the tar stream after {received} bytes, {place}")


class _Extension:
    """What extension headers say about the entry that they precede."""

    def __init__(self) -> None:
        self.records = Records({}, {}, [])
        self.name = b""
        self.linkname = b""

    def add(self, kind: int, payload: bytes) -> None:
        """Take the data of one extension header.  A second one of a kind replaces the first."""
        if kind == _PAX:
            self.records = tarfields.pax_records(payload)
        elif kind == _LONG_NAME:
            self.name = _until_nul(payload)
        else:
            self.linkname = _until_nul(payload)

    def apply(self, entry: Entry) -> None:
        """Overrule the header; its size becomes the number of bytes in the stream."""
        values = self.records.values
        entry.name = self.name or values.get(b"path", entry.name)
        if entry.type in (HARD_LINK, SYMLINK):
            entry.linkname = self.linkname or values.get(b"linkpath", entry.linkname)
        for keyword, value in values.items():
            if keyword == b"mtime":
                entry.mtime_ns = tarfields.time_ns(value)
            elif keyword == b"atime":
                entry.atime_ns = tarfields.time_ns(value)
            elif keyword == b"ctime":
                tarfields.time_ns(value)
            elif keyword == b"uid":
                entry.uid = tarfields.identity(tarfields.integer(value))
            elif keyword == b"gid":
                entry.gid = tarfields.identity(tarfields.integer(value))
            elif keyword == b"size":
                entry.size = tarfields.decimal(value)
        entry.xattrs = self.records.xattrs


def _read_later_fields(entry: Entry, header: bytes) -> None:
    """Read what Unix v7's headers did not have: device numbers, and more of the name, or times."""
    is_gnu = header[257:265] == _GNU
    if not is_gnu and header[257:263] != _USTAR:
        return
    major, minor = tarfields.number(header[329:337]), tarfields.number(header[337:345])
    if entry.type in (CHARACTER_DEVICE, BLOCK_DEVICE):
        entry.devmajor, entry.devminor = tarfields.device(major, minor)
    if is_gnu:
        prefix = _read_gnu_times(entry, header)
    elif header[508:512] == _STAR_TRAILER:
        prefix = _until_nul(header[345:476])
        entry.atime_ns = tarfields.time_in_header(header[476:488])
        tarfields.time_in_header(header[488:500])
    else:
        prefix = _until_nul(header[345:500])
    if prefix:
        entry.name = prefix + b"/" + entry.name


def _read_gnu_times(entry: Entry, header: bytes) -> bytes:
    """Read the times of a GNU header, or return what is a prefix instead.

    Go before 1.8 wrote such into some headers of this form, and still reads it.
    """
    try:
        if header[345]:
            entry.atime_ns = tarfields.time_in_header(header[345:357])
        if header[357]:
            tarfields.time_in_header(header[357:369])
        return b""
    except Malformed:
        entry.atime_ns = None
        prefix = _until_nul(header[345:500])
        return prefix if prefix.isascii() else b""


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _write(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written
