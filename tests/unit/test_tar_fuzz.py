"""The tar reader against random trees, with `tarfile` as the judge, and against broken streams.

Whatever comes in, the reader ends, and it raises nothing but TarError.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manuka.layers.tar import (
    DIRECTORY,
    END,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    TarError,
    TarReader,
    header,
    padding,
)


class Trickle(io.RawIOBase):
    """A stream that gives at most a number of bytes at a time, like a slow socket."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data = io.BytesIO(data)
        self.most = most

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self.data.readinto(buffer[: self.most])


class Read(NamedTuple):
    """What of an entry both readers have."""

    name: bytes
    type: int
    mode: int
    owner: Tuple[int, int]
    size: int
    mtime_ns: int
    linkname: bytes
    data: bytes


def by_manuka(stream: bytes, most: int = 1 << 20) -> List[Read]:
    reader = TarReader(Trickle(stream, most))
    return [
        Read(
            entry.name,
            entry.type,
            entry.mode,
            (entry.uid, entry.gid),
            entry.size,
            entry.mtime_ns,
            entry.linkname,
            copied(reader) if entry.type == REGULAR else b"",
        )
        for entry in reader
    ]


def copied(reader: TarReader) -> bytes:
    with tempfile.TemporaryFile(buffering=0) as file:
        reader.copy_data(file.fileno())
        return os.pread(file.fileno(), 1 << 24, 0)


def by_tarfile(stream: bytes) -> List[Read]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        return [
            Read(
                os.fsencode(member.name),
                ord(member.type),
                member.mode,
                (member.uid, member.gid),
                member.size,
                round(member.mtime * 2) * 500_000_000,
                os.fsencode(member.linkname),
                archive.extractfile(member).read() if member.isreg() else b"",  # type: ignore
            )
            for member in archive
        ]


# --- trees ----------------------------------------------------------------------------------------

parts = st.binary(min_size=1, max_size=120).filter(lambda part: not set(part) & {0, ord("/")})
ascii_parts = st.text("abc.- =", min_size=1, max_size=60).map(str.encode)
names = st.lists(ascii_parts | parts, min_size=1, max_size=3).map(b"/".join)
bodies = st.binary(max_size=2000) | st.builds(
    lambda front, zeros, back: front + bytes(zeros) + back,
    st.binary(max_size=100),
    st.integers(0, 300_000),
    st.binary(max_size=100),
)
members = st.tuples(
    names,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.integers(0, 0o7777),
    st.integers(0, 2**21 - 1) | st.integers(0, 2**32 - 2),
    st.integers(0, 2**33 - 1) | st.integers(-(2**33), 2**35),
    names,
    bodies,
)


def archived(format: int, files: List[Tuple[bytes, bytes, int, int, int, bytes, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for name, kind, mode, uid, halves, linkname, body in files:
            member = tarfile.TarInfo(os.fsdecode(name))
            member.type, member.mode, member.uid, member.gid = kind, mode, uid, uid // 2
            member.mtime = halves / 2 if format == tarfile.PAX_FORMAT else halves  # type: ignore
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = os.fsdecode(linkname)
            member.size = len(body) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(body))
    return stream.getvalue()


@given(
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(members, max_size=5),
    st.integers(1, 4).map(lambda exponent: 7**exponent) | st.just(1 << 20),
)
def test_a_random_tree_is_read_as_tarfile_reads_it(
    format: int, files: List[Tuple[bytes, bytes, int, int, int, bytes, bytes]], most: int
) -> None:
    stream = archived(format, files)
    assert by_manuka(stream, most) == by_tarfile(stream)


@given(
    st.lists(
        st.tuples(
            st.lists(ascii_parts, min_size=1, max_size=2)
            .map(b"/".join)
            .filter(lambda name: len(name) <= 100),
            st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]),
            st.integers(0, 0o7777),
            st.integers(0, 2**21 - 1),
            st.integers(0, 2**33 - 1),
            st.just(b""),
            bodies,
        ),
        max_size=5,
    )
)
def test_a_random_ustar_tree_is_read_as_tarfile_reads_it(
    files: List[Tuple[bytes, bytes, int, int, int, bytes, bytes]],
) -> None:
    stream = archived(tarfile.USTAR_FORMAT, files)
    expected = [
        entry if entry.type == DIRECTORY else entry._replace(type=REGULAR)
        for entry in by_tarfile(stream)
    ]
    assert by_manuka(stream) == expected


# --- broken streams -------------------------------------------------------------------------------


def small_archive() -> bytes:
    """An archive with every sort of header, and little data."""
    data = b"1\n5\n7\n".ljust(512, b"\0") + b"content"
    sparse = tarfile.TarInfo("GNUSparseFile.0/sparse")
    sparse.size = len(data)
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.realsize": "5000",
    }
    return b"".join(
        [
            header(Entry(b"folder", DIRECTORY, 0o755)),
            header(Entry(b"folder/file", REGULAR, 0o644, size=600)),
            b"content " * 75,
            padding(600),
            header(Entry(b"link", SYMLINK, 0o777, linkname=b"t" * 120)),
            header(Entry(b"twin", HARD_LINK, linkname=b"folder/file", xattrs={b"user.a": b"\0"})),
            sparse.tobuf(tarfile.PAX_FORMAT) + data + padding(len(data)),
            long_gnu_name(),
            old_sparse(),
        ]
    )


def long_gnu_name() -> bytes:
    member = tarfile.TarInfo("n" * 130)
    member.size = 3
    return member.tobuf(tarfile.GNU_FORMAT) + b"abc" + padding(3)


def old_sparse() -> bytes:
    raw = bytearray(tarfile.TarInfo("old sparse").tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"%011o\0" % 20
    raw[156:157] = b"S"
    raw[386:482] = b"".join(b"%011o\x00%011o\x00" % (at * 600, 4) for at in range(4))
    raw[482:495] = b"\1%011o\0" % 9000
    continued = (b"%011o\x00%011o\x00" % (8000, 4)).ljust(512, b"\0")
    return resummed(bytes(raw)) + continued + b"data" * 5 + padding(20)


def resummed(raw: bytes) -> bytes:
    return raw[:148] + b"%06o\0 " % (sum(raw[:148]) + 256 + sum(raw[156:512])) + raw[156:]


SMALL = small_archive()


@pytest.mark.parametrize("most", [1, 2, 7, 511, 512, 513, 1023, 4096, 65537])
def test_the_size_of_the_pieces_that_arrive_does_not_matter(most: int) -> None:
    entries = by_manuka(SMALL + END, most)
    found: Dict[bytes, bytes] = {entry.name: entry.data for entry in entries}
    assert list(found) == [
        b"folder",
        b"folder/file",
        b"link",
        b"twin",
        b"sparse",
        b"n" * 130,
        b"old sparse",
    ]
    assert found[b"folder/file"] == b"content " * 75
    assert found[b"sparse"] == (bytes(5) + b"content").ljust(5000, b"\0")
    old = bytearray(9000)
    for at in (0, 600, 1200, 1800, 8000):
        old[at : at + 4] = b"data"
    assert found[b"old sparse"] == old


def headers_of(stream: bytes) -> List[int]:
    return [at for at in range(0, len(stream), 512) if stream[at + 257 : at + 262] == b"ustar"]


def whole_lengths(stream: bytes) -> Set[int]:
    """Where a tar may end without an end mark: behind an entry's data, or in its padding."""
    found = set()
    for at in headers_of(stream):
        if stream[at + 156] in b"xL":
            continue
        begins, continues = at + 512, stream[at + 156] in b"S" and stream[at + 482]
        while continues:
            continues, begins = stream[begins + 504], begins + 512
        ends = begins + int(stream[at + 124 : at + 135], 8)
        found.update(range(ends, ends + -ends % 512 + 1))
    return found


def test_a_stream_cut_anywhere_but_behind_an_entry_is_an_error() -> None:
    """And in the end mark: one block of zeros ends a tar for Go too."""
    stream = SMALL + END
    whole = whole_lengths(SMALL) | {0, len(stream) - 512}
    assert len(SMALL) in whole
    assert len(whole) < len(stream) // 3
    for length in range(len(stream)):
        if length in whole:
            assert (by_nothing_but_names(stream[:length]) == []) == (length == 0)
        else:
            with pytest.raises(TarError, match="unexpected end"):
                by_nothing_but_names(stream[:length])


def by_nothing_but_names(stream: bytes) -> List[bytes]:
    return [entry.name for entry in TarReader(Trickle(stream, 1 << 20))]


@pytest.mark.parametrize("length", sorted({*range(97, len(SMALL), 97)} - whole_lengths(SMALL)))
def test_a_cut_is_also_noticed_while_data_is_copied(length: int) -> None:
    with pytest.raises(TarError, match="unexpected end"):
        by_manuka(SMALL[:length])


def consume(stream: bytes) -> Optional[str]:
    """Read a stream as far as it goes; return what is said of it."""
    reader = TarReader(Trickle(stream, 1 << 20))
    try:
        for entry in reader:
            if entry.size < 1 << 20:
                reader.read_data(1 << 20)
    except TarError as error:
        return str(error)
    return None


@given(st.lists(st.tuples(st.integers(0, len(SMALL + END) - 1), st.integers(0, 7)), min_size=1))
def test_flipped_bits_never_crash_the_reader(flips: List[Tuple[int, int]]) -> None:
    stream = bytearray(SMALL + END)
    for at, bit in flips:
        stream[at] ^= 1 << bit
    consume(bytes(stream))


@given(
    st.sampled_from(headers_of(SMALL)),
    st.sampled_from([(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1)])
    | st.sampled_from([(157, 100), (257, 8), (329, 8), (337, 8), (345, 155), (386, 96), (482, 13)]),
    st.binary(max_size=155) | st.text("01234567 \0\x80\xff9-", max_size=12).map(os.fsencode),
)
def test_a_header_field_with_anything_in_it_never_crashes_the_reader(
    at: int, field: Tuple[int, int], value: bytes
) -> None:
    """The checksum is right, so that the field is looked at."""
    start, width = field
    stream = bytearray(SMALL + END)
    stream[at + start : at + start + width] = value[:width].ljust(width, b"\0")
    stream[at : at + 512] = resummed(bytes(stream[at : at + 512]))
    consume(bytes(stream))


keywords = st.sampled_from(
    [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"SCHILY.xattr.user.a"]
    + [b"GNU.sparse." + key for key in (b"map", b"size", b"realsize", b"name", b"numblocks")]
    + [b"GNU.sparse." + key for key in (b"major", b"minor", b"offset", b"numbytes")]
)
values = st.binary(max_size=30) | st.text("0123456789.,-", max_size=20).map(str.encode)


@given(st.lists(st.tuples(keywords, values), max_size=8), st.binary(max_size=5))
def test_pax_records_with_anything_in_them_never_crash_the_reader(
    records: List[Tuple[bytes, bytes]], tail: bytes
) -> None:
    data = tail
    for keyword, value in records:
        rest = b" %b=%b\n" % (keyword, value)
        length = len(rest) + 2 if len(rest) + 2 < 100 else len(rest) + 3
        data = b"%d%b%b" % (length, rest, data)
    raw = bytearray(header(Entry(b"PaxHeaders", size=len(data))))
    raw[156:157] = b"x"
    stream = resummed(bytes(raw)) + data + padding(len(data)) + SMALL + END
    consume(stream)


@given(st.binary(max_size=3000))
def test_noise_is_refused(noise: bytes) -> None:
    said = consume(noise)
    assert said is not None or not any(noise[:512])
