"""The tar reader, against archives of `tarfile`, GNU tar, bsdtar, and ones made by hand."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import pytest

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

USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
MIB = 1 << 20


def block(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: int = 0,
    magic: bytes = USTAR,
    fields: Dict[int, bytes] = {},  # noqa: B006 - never changed
) -> bytes:
    """A header as old tars make it; `fields` overrides bytes at the given positions."""
    raw = bytearray(512)
    raw[: len(name)] = name
    raw[100:148] = b"0000644\x000001750\x000000144\x00%011o\x00%011o\x00" % (size, 1600000000)
    raw[156:157] = kind
    raw[257:265] = magic
    for at, value in fields.items():
        raw[at : at + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def padded(data: bytes) -> bytes:
    return data + padding(len(data))


def pax(*records: Tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    data = b""
    for keyword, value in records:
        rest = b" %b=%b\n" % (keyword, value)
        length = next(n for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
        data += b"%d%b" % (length, rest)
    return block(b"PaxHeaders/f", kind, len(data)) + padded(data)


def read(stream: bytes) -> List[Entry]:
    return list(TarReader(io.BytesIO(stream)))


def one(stream: bytes) -> Entry:
    (entry,) = read(stream + END)
    return entry


def unpacked(stream: bytes, folder: Path) -> Dict[bytes, Path]:
    """Copy each file's data into a file of its own; return those by name."""
    found = {}
    reader = TarReader(io.BytesIO(stream))
    for number, entry in enumerate(reader):
        if entry.type == REGULAR:
            found[entry.name] = folder / str(number)
            with open(found[entry.name], "xb", buffering=0) as file:
                reader.copy_data(file.fileno())
    return found


class Endless(io.RawIOBase):
    """Some bytes, and then zeros or another byte without an end."""

    def __init__(self, start: bytes, filling: bytes) -> None:
        self.start = io.BytesIO(start)
        self.filling = filling

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self.start.readinto(buffer)
        if not count:
            count = len(buffer)
            buffer[:] = self.filling * count
        return count


# --- what other programs write --------------------------------------------------------------------

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
TYPES = [
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
]


def by_tarfile(format: int, *members: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_entry_is_read_from_every_format_of_tarfile(kind: bytes, format: int) -> None:
    member = tarfile.TarInfo("a/b")
    member.type = kind
    member.mode, member.uid, member.gid, member.mtime = 0o4751, 1000, 100, 1600000000
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        member.linkname = "to/there"
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = 8, 17
    if kind == tarfile.REGTYPE:
        member.size = 700
    (entry,) = read(by_tarfile(format, member))
    assert entry.name == b"a/b"
    assert entry.type == ord(kind)
    assert (entry.mode, entry.uid, entry.gid) == (0o4751, 1000, 100)
    assert entry.mtime_ns == 1600000000 * 10**9
    assert entry.size == member.size
    assert entry.linkname == member.linkname.encode()
    assert (entry.devmajor, entry.devminor) == (member.devmajor, member.devminor)
    assert (entry.xattrs, entry.sparse, entry.atime_ns) == ({}, None, None)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 255, 256, 5000])
def test_long_names_and_link_targets_are_whole(length: int, format: int) -> None:
    member = tarfile.TarInfo("n" * length)
    member.type, member.linkname = tarfile.SYMTYPE, "t" * (length + 1)
    (entry,) = read(by_tarfile(format, member))
    assert (entry.name, entry.linkname) == (b"n" * length, b"t" * (length + 1))


def test_a_ustar_prefix_goes_before_the_name() -> None:
    member = tarfile.TarInfo("d" * 150 + "/" + "f" * 90)
    (entry,) = read(by_tarfile(tarfile.USTAR_FORMAT, member))
    assert entry.name == b"d" * 150 + b"/" + b"f" * 90


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_owners_and_sizes_that_octal_cannot_hold_are_read(format: int) -> None:
    member = tarfile.TarInfo("big")
    member.uid, member.gid, member.size = 3000000000, 4294967294, 9 << 30
    stream = member.tobuf(format)
    entry = next(iter(TarReader(io.BytesIO(stream))))
    assert (entry.uid, entry.gid, entry.size) == (3000000000, 4294967294, 9 << 30)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_times_before_1970_are_read(format: int) -> None:
    member = tarfile.TarInfo("old")
    member.mtime = -86400
    (entry,) = read(by_tarfile(format, member))
    assert entry.mtime_ns == -86400 * 10**9


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    (root / "small").write_bytes(b"hello\n")
    (root / "empty").write_bytes(b"")
    (root / "folder" / "large").write_bytes(os.urandom(700_001))
    (root / "folder" / ("long" * 30)).write_bytes(b"long name")
    (root / "link").symlink_to("folder/large")
    os.link(root / "small", root / "twin")
    (root / "small").chmod(0o4755)
    os.mkfifo(root / "pipe")
    set_times(root)
    return root


def set_times(tree: Path) -> None:
    for path in tree.rglob("*"):
        os.utime(path, ns=(0, 1600000000_000000000), follow_symlinks=False)


def fit_to(format: str, tree: Path) -> None:
    """Take out of the tree what an old format cannot hold."""
    if format in ("v7", "ustar"):
        (tree / "folder" / ("long" * 30)).unlink()
        (tree / "pipe").unlink()
        set_times(tree)


def check_tree(stream: bytes, tree: Path, folder: Path) -> None:
    entries = {entry.name.decode(): entry for entry in read(stream)}
    entries.pop(".", None)
    entries = {os.path.normpath(name): entry for name, entry in entries.items()}
    expected = {str(path.relative_to(tree)): path for path in tree.rglob("*")}
    assert entries.keys() == expected.keys()
    for name, entry in entries.items():
        status = expected[name].lstat()
        assert entry.mtime_ns == status.st_mtime_ns
        if entry.type != SYMLINK:
            assert entry.mode == status.st_mode & 0o7777
    assert entries["link"].linkname == b"folder/large"
    assert entries["folder"].type == DIRECTORY
    links = [entries[name] for name in ("small", "twin")]
    assert sorted(entry.type for entry in links) == [REGULAR, HARD_LINK]
    for raw, path in unpacked(stream, folder).items():
        assert path.read_bytes() == (tree / raw.decode()).read_bytes()


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_a_tree_packed_by_gnu_tar_is_read(format: str, tree: Path, tmp_path: Path) -> None:
    fit_to(format, tree)
    command = ["tar", "-C", str(tree), f"--format={format}", "-c", "."]
    check_tree(subprocess.check_output(command), tree, tmp_path)


@pytest.mark.parametrize("format", ["gnutar", "pax", "ustar", "v7"])
def test_a_tree_packed_by_bsdtar_is_read(format: str, tree: Path, tmp_path: Path) -> None:
    fit_to(format, tree)
    command = ["bsdtar", "-C", str(tree), f"--format={format}", "-cf", "-", "."]
    check_tree(subprocess.check_output(command), tree, tmp_path)


def test_a_name_that_is_not_utf_8_keeps_its_bytes(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9"), "xb"):
        pass
    for format in ("gnu", "posix"):
        command = ["tar", "-C", str(tmp_path), f"--format={format}", "-c", "."]
        assert b"./caf\xe9" in [entry.name for entry in read(subprocess.check_output(command))]


def test_an_incremental_archive_of_gnu_tar_is_refused_with_what_to_do(
    tree: Path, tmp_path: Path
) -> None:
    """The engine notes each listing as a file's data, and `docker save` asks for the file."""
    command = ["tar", "-C", str(tree), "-g", str(tmp_path / "state"), "-c", "."]
    stream = subprocess.check_output(command, stderr=subprocess.DEVNULL)
    assert stream[156:157] == b"D"
    with pytest.raises(TarError, match=r"incremental archive, .* without tar's option -g"):
        read(stream)


def test_a_volume_label_is_passed_over(tree: Path, tmp_path: Path) -> None:
    command = ["tar", "-C", str(tree), "-V", "label", "-c", "."]
    check_tree(subprocess.check_output(command), tree, tmp_path)


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """60 pieces of data with holes between, and a hole at the end."""
    path = tmp_path / "sparse"
    with open(path, "xb") as file:
        for number in range(60):
            file.seek(number * 200_000)
            file.write(b"%04d" % number * 1024)
        file.truncate(20_000_000)
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["tar", "--format=oldgnu"],
        ["tar", "--format=gnu"],
        ["tar", "--format=posix", "--sparse-version=0.0"],
        ["tar", "--format=posix", "--sparse-version=0.1"],
        ["tar", "--format=posix", "--sparse-version=1.0"],
        ["bsdtar", "--format=pax"],
    ],
    ids=" ".join,
)
def test_a_sparse_file_is_read_and_keeps_its_holes(
    options: List[str], sparse_file: Path, tmp_path: Path
) -> None:
    if options[0] == "tar":
        options = [*options, "--sparse", "--hole-detection=raw"]
    command = [*options, "-C", str(tmp_path), "-cf", "-", "sparse"]
    stream = subprocess.check_output(command)
    (entry,) = read(stream)
    assert (entry.name, entry.type, entry.size) == (b"sparse", REGULAR, 20_000_000)
    assert entry.sparse is not None
    copy = unpacked(stream, tmp_path)[b"sparse"]
    assert copy.read_bytes() == sparse_file.read_bytes()
    assert copy.stat().st_blocks * 512 < 2_000_000
    reader = TarReader(io.BytesIO(stream))
    next(iter(reader))
    assert reader.read_data(20_000_000) == sparse_file.read_bytes()


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_a_file_that_is_one_hole_is_read(version: str, tmp_path: Path) -> None:
    with open(tmp_path / "hole", "xb") as file:
        file.truncate(1 << 32)
    command = ["tar", "-C", str(tmp_path), "-S", "--format=posix", f"--sparse-version={version}"]
    stream = subprocess.check_output([*command, "-c", "hole"])
    copy = unpacked(stream, tmp_path)[b"hole"]
    assert copy.stat().st_size == 1 << 32
    assert copy.stat().st_blocks == 0


# --- numbers and names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"0000644 ", 0o644),
        (b"00000644", 0o644),
        (b"   644 \0", 0o644),
        (b"644 \0\0\0\0", 0o644),
        (b"\0\0 644\0\0", 0o644),
        (b"644\0junk", 0o644),
        (b"0100644\0", 0o644),
        (b"        ", 0),
        (bytes(8), 0),
        (b"\x80\0\0\0\0\0\x01\xa4", 0o644),
    ],
)
def test_every_spelling_of_a_number_is_understood(field: bytes, value: int) -> None:
    assert one(block(fields={100: field})).mode == value


@pytest.mark.parametrize(
    "field",
    [b"0000648\0", b"0_00644\0", b"+000644\0", b"0o00644\0", b"12 34\0\0\0", b"\t644\0\0\0\0"],
)
def test_what_is_no_octal_number_is_refused(field: bytes) -> None:
    with pytest.raises(TarError, match='"f" at byte 0: a number is not octal'):
        one(block(fields={100: field}))


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (b"\xff" * 12, -1),
        (b"\xff" * 8 + b"\xfe\xae\x7f\x00", -22118656),
        (b"\x80" + bytes(6) + b"\x01\0\0\0\0", 1 << 32),
    ],
)
def test_binary_times_are_read(field: bytes, seconds: int) -> None:
    assert one(block(fields={136: field})).mtime_ns == seconds * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"5.", 5_000000000),
        (b"1.5", 1_500000000),
        (b"-1.5", -1_500000000),
        (b"-0.5", -500000000),
        (b"0.000000001", 1),
        (b"1600000000.123456789", 1600000000_123456789),
        (b"1600000000.1234567899", 1600000000_123456789),
        (b"-1600000000.1234567899", -1600000000_123456789),
        (b"9007199254740993.000000001", 9007199254740993_000000001),
    ],
)
def test_pax_times_are_exact_to_the_nanosecond(text: bytes, nanoseconds: int) -> None:
    entry = one(pax((b"mtime", text), (b"atime", text)) + block())
    assert (entry.mtime_ns, entry.atime_ns) == (nanoseconds, nanoseconds)


@pytest.mark.parametrize(
    "text", [b"x", b".5", b" 1", b"1_0", b"1e5", b"1.-5", b"99999999999999999999"]
)
def test_a_malformed_pax_time_is_refused(text: bytes) -> None:
    with pytest.raises(TarError):
        one(pax((b"mtime", text)) + block())


def test_pax_records_overrule_the_header() -> None:
    stream = pax(
        (b"path", b"caf\xc3\xa9/x"), (b"uid", b"3000000000"), (b"gid", b"70000"), (b"size", b"3")
    )
    entry = one(stream + block(size=0) + padded(b"abc"))
    assert (entry.name, entry.uid, entry.gid, entry.size) == (
        b"caf\xc3\xa9/x",
        3000000000,
        70000,
        3,
    )


def test_an_empty_pax_value_leaves_the_header_s_own() -> None:
    entry = one(pax((b"path", b"x"), (b"path", b""), (b"mtime", b"")) + block())
    assert (entry.name, entry.mtime_ns) == (b"f", 1600000000 * 10**9)


def test_extended_attributes_keep_every_byte() -> None:
    capability = b"\x01\0\0\x02\0\x20\n=\0\n" + bytes(10)
    entry = one(
        pax(
            (b"SCHILY.xattr.security.capability", capability),
            (b"SCHILY.xattr.user.\xff", b"12 x=y\n"),
            (b"SCHILY.xattr.user.empty", b""),
        )
        + block()
    )
    assert entry.xattrs == {
        b"security.capability": capability,
        b"user.\xff": b"12 x=y\n",
        b"user.empty": b"",
    }


def test_attributes_belong_to_one_entry_only() -> None:
    stream = pax((b"SCHILY.xattr.user.a", b"1"), (b"path", b"first")) + block() + block(b"second")
    first, second = read(stream + END)
    assert (first.name, first.xattrs) == (b"first", {b"user.a": b"1"})
    assert (second.name, second.xattrs) == (b"second", {})


def test_a_global_header_changes_nothing() -> None:
    stream = pax((b"path", b"comment"), (b"uid", b"7"), kind=b"g") + block()
    entry = one(stream)
    assert (entry.name, entry.uid) == (b"f", 1000)


def test_a_gnu_header_has_times_where_others_have_a_prefix() -> None:
    entry = one(block(magic=GNU, fields={345: b"13727410000\0"}))
    assert (entry.name, entry.atime_ns) == (b"f", 1600000000 * 10**9)


def test_a_prefix_in_a_gnu_header_of_old_go_is_read() -> None:
    assert one(block(magic=GNU, fields={345: b"some/folder"})).name == b"some/folder/f"


def test_what_is_neither_time_nor_text_in_a_gnu_header_is_ignored() -> None:
    entry = one(block(magic=GNU, fields={345: b"caf\xe9"}))
    assert (entry.name, entry.atime_ns) == (b"f", None)


def test_the_prefix_of_star_ends_before_its_times() -> None:
    fields = {345: b"p" * 131 + b"13727410000\0" * 2, 508: b"tar\0"}
    assert one(block(fields=fields)).name == b"p" * 131 + b"/f"


def test_bytes_behind_a_name_s_nul_do_not_count() -> None:
    assert one(block(b"name\0junk")).name == b"name"


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (block(b"d/", b"\0", magic=V7), DIRECTORY),
        (block(b"d/", b"0", magic=V7), REGULAR),
        (block(b"d/", b"\0"), DIRECTORY),
        (block(b"d/", b"5"), DIRECTORY),
        (block(b"d///", b"5"), DIRECTORY),
        (block(b"d", b"\0", magic=V7), REGULAR),
        (block(b"d/", b"0"), REGULAR),
        (block(b"d", b"7"), REGULAR),
        (block(b"d", b"D"), DIRECTORY),
    ],
)
def test_old_types_become_the_ones_of_today_and_names_lose_slashes(
    stream: bytes, kind: int
) -> None:
    entry = one(stream)
    assert (entry.name, entry.type, entry.size) == (b"d", kind, 0)


# What Go 1.19's archive/tar and tar-split 0.11.1 and 0.11.5 read: the name, the type, the size, the
# link's target and the access time. The engine's `docker save` looks for the files that they saw.
HELLO = padded(b"hello")
SPARSE = (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"4,5")
AS_GO = {
    "v7, a slash at the end": (block(b"d/", b"0", 5, V7) + HELLO, (b"d", "0", 5, b"", None)),
    "ustar, a slash at the end": (block(b"d/", b"0", 5) + HELLO, (b"d", "0", 5, b"", None)),
    "old type, a slash at the end": (block(b"d/", b"\0", 5, V7), (b"d", "5", 0, b"", None)),
    "v7 has no prefix": (block(magic=V7, fields={345: b"p"}), (b"f", "0", 0, b"", None)),
    "v7 has no devices": (block(magic=V7, fields={329: b"x"}), (b"f", "0", 0, b"", None)),
    "a prefix and no name": (block(b"", b"5", fields={345: b"p"}), (b"p", "5", 0, b"", None)),
    "gnu, a prefix and junk behind its end": (
        block(magic=GNU, fields={345: b"ab\0\xe9"}),
        (b"ab/f", "0", 0, b"", None),
    ),
    "gnu, a prefix that is not ASCII": (
        block(magic=GNU, fields={345: "caf\u00e9".encode()}),
        (b"f", "0", 0, b"", None),
    ),
    "gnu, a prefix as long as can be": (
        block(magic=GNU, fields={345: b"p" * 155, 508: b"tar\0"}),
        (b"p" * 155 + b"/f", "0", 0, b"", None),
    ),
    "gnu, an access time and junk for the other": (
        block(magic=GNU, fields={345: b"13727410000\0junk"}),
        (b"13727410000/f", "0", 0, b"", None),
    ),
    "gnu, an access time and nothing for the other": (
        block(magic=GNU, fields={345: b"13727410000\0\0junk"}),
        (b"f", "0", 0, b"", 1600000000),
    ),
    "gnu, junk for a time behind a NUL": (
        block(magic=GNU, fields={345: b"\0abc", 357: b"\0abc"}),
        (b"f", "0", 0, b"", None),
    ),
    "star's access time": (
        block(fields={476: b"13727410001\x0013727410002\0", 508: b"tar\0"}),
        (b"f", "0", 0, b"", 1600000001),
    ),
    "star's access time behind a prefix": (
        block(fields={345: b"p", 476: b"13727410001\x0013727410002\0", 508: b"tar\0"}),
        (b"p/f", "0", 0, b"", 1600000001),
    ),
    "a global header ends what was said before": (
        pax((b"path", b"x")) + pax((b"path", b"g"), kind=b"g") + block(b"f"),
        (b"f", "0", 0, b"", None),
    ),
    "a global header ends a long name": (
        block(b"L", b"L", 2) + padded(b"x\0") + pax(kind=b"g") + block(b"f"),
        (b"f", "0", 0, b"", None),
    ),
    "the last of two extended headers": (
        pax((b"path", b"x"), (b"linkpath", b"y")) + pax((b"path", b"z")) + block(b"f", b"2"),
        (b"z", "2", 0, b"", None),
    ),
    "a long name and a path": (
        pax((b"path", b"x")) + block(b"L", b"L", 2) + padded(b"l\0") + block(b"f"),
        (b"l", "0", 0, b"", None),
    ),
    "an empty long name": (
        pax((b"path", b"x")) + block(b"L", b"L", 1) + padded(b"\0") + block(b"f"),
        (b"x", "0", 0, b"", None),
    ),
    "a sparse file's name without a sparse file": (
        pax((b"GNU.sparse.name", b"x"), (b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"0"))
        + block(b"f", size=5)
        + HELLO,
        (b"f", "0", 5, b"", None),
    ),
    "a sparse file's name and a long name": (
        pax((b"GNU.sparse.name", b"x/"), (b"GNU.sparse.size", b"9"), *SPARSE)
        + block(b"L", b"L", 2)
        + padded(b"l\0")
        + block(b"f", size=5)
        + HELLO,
        (b"x", "0", 9, b"", None),
    ),
    "a size with a sign and zeros": (
        pax((b"size", b"+" + b"0" * 30 + b"5"), (b"uid", b"-0")) + block(b"f") + HELLO,
        (b"f", "0", 5, b"", None),
    ),
    "a record whose length has a sign and zeros": (
        block(b"x", b"x", 13) + padded(b"+0013 path=x\n") + block(b"f"),
        (b"x", "0", 0, b"", None),
    ),
}


@pytest.mark.parametrize(("stream", "expected"), AS_GO.values(), ids=AS_GO)
def test_a_header_is_read_as_go_reads_it(
    stream: bytes, expected: Tuple[bytes, str, int, bytes, Optional[int]]
) -> None:
    entry = one(stream)
    accessed = None if entry.atime_ns is None else entry.atime_ns // 10**9
    kind = chr(entry.type)
    assert (entry.name, kind, entry.size, entry.linkname, accessed) == expected


# What Go refuses too, but for the last five: those Go accepts, and the engine then makes something
# else of them, or cannot save the image.
REFUSED = {
    "no octal number in an extended header": block(kind=b"x", fields={108: b"junk"}),
    "no octal device of what is none": block(fields={329: b"junk"}),
    "no octal time of star's": block(fields={488: b"junk", 508: b"tar\0"}),
    "a checksum in base-256": block()[:148]
    + b"\x80\0\0\0\0\0"
    + (int(block()[148:154], 8)).to_bytes(2, "big")
    + block()[156:],
    "a sparse star header": block(kind=b"S", fields={508: b"tar\0"}),
    "a sparse file of type D": pax(*SPARSE) + block(kind=b"D"),
    "records of a global header": block(kind=b"g", size=3) + padded(b"5 a"),
    "a record without a keyword": pax((b"", b"a")) + block(),
    "a record of a length below zero": block(kind=b"x", size=7) + padded(b"-5 a=b\n") + block(),
    "a NUL in an owner's name": pax((b"uname", b"a\0b")) + block(),
    "a NUL in the target of no link": pax((b"linkpath", b"a\0b")) + block(),
    "a change time": pax((b"ctime", b"x")) + block(),
    "a size below zero of a directory": block(kind=b"5", fields={124: b"\xff" * 12}),
    "a sparse file's name with a NUL": pax(
        (b"GNU.sparse.name", b"a\0"), (b"GNU.sparse.size", b"9"), *SPARSE
    )
    + block(size=5)
    + HELLO,
    "a volume label with data": block(kind=b"V", size=5) + HELLO,
    "a volume label with a name of its own": pax((b"path", b"x")) + block(kind=b"V"),
    "a listing": block(kind=b"D", size=5) + HELLO,
}


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_saved_is_refused(stream: bytes) -> None:
    with pytest.raises(TarError, match=r'tar entry ".*" at byte'):
        read(stream + END)


NUMBERS = {
    "4294967294": (b"4294967294", b"\x80\0\0\0\xff\xff\xff\xfe"),
    "4294967295": (b"4294967295", b"\x80\0\0\0\xff\xff\xff\xff"),
    "4294967301": (b"4294967301", b"\x80\0\0\1\0\0\0\5"),
    "-1": (b"-1", b"\xff" * 8),
    "-2": (b"-2", b"\xff" * 7 + b"\xfe"),
}


@pytest.mark.parametrize("number", [*NUMBERS][1:])
@pytest.mark.parametrize(("keyword", "at"), [(b"uid", 108), (b"gid", 116)])
def test_an_owner_that_chown_would_take_for_another_is_refused(
    keyword: bytes, at: int, number: str
) -> None:
    text, field = NUMBERS[number]
    for stream in (pax((keyword, text)) + block(), block(fields={at: field})):
        with pytest.raises(TarError, match=f"the owner {number} is out of range"):
            one(stream)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [(b"uid", b"9223372036854775808"), (b"gid", b"-9223372036854775809"), (b"size", b"9" * 5000)],
)
def test_a_pax_number_of_more_than_64_bits_is_refused(keyword: bytes, text: bytes) -> None:
    with pytest.raises(TarError, match="more than 64 bits"):
        one(pax((keyword, text)) + block())


def test_the_largest_owner_and_the_largest_device_are_read() -> None:
    text, field = NUMBERS["4294967294"]
    assert one(pax((b"uid", text)) + block(fields={116: field})).gid == 2**32 - 2
    assert one(pax((b"uid", text)) + block(fields={116: field})).uid == 2**32 - 2
    device = one(block(kind=b"3", fields={329: b"0007777\0", 337: b"3777777\0"}))
    assert (device.devmajor, device.devminor) == (4095, 1048575)


@pytest.mark.parametrize("kind", [b"3", b"4"])
@pytest.mark.parametrize(
    ("at", "field", "shown"),
    [
        (329, b"0010000\0", "4096:1"),
        (337, b"4000000\0", "1:1048576"),
        (329, b"\xff" * 8, "-1:1"),
        (337, b"\x80\0\0\1\0\0\0\1", "1:4294967297"),
    ],
)
def test_a_device_that_mknod_would_take_for_another_is_refused(
    kind: bytes, at: int, field: bytes, shown: str
) -> None:
    fields = {329: b"0000001\0", 337: b"0000001\0"}
    with pytest.raises(TarError, match=f"the device number {shown} is out of range"):
        one(block(kind=kind, fields={**fields, at: field}))
    assert one(block(kind=b"6", fields={**fields, at: field})).devmajor == 0


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_no_data_follows_an_entry_that_has_none_whatever_its_size_says(kind: bytes) -> None:
    first, second = read(block(b"a", kind, 5000) + block(b"b") + END)
    assert (first.name, first.size, second.name) == (b"a", 0, b"b")


@pytest.mark.parametrize("kind", [b"Z", b"M", b"N", b"A", b"X", b"\xff"])
def test_an_unknown_type_is_refused_by_its_entry_s_name(kind: bytes) -> None:
    with pytest.raises(TarError, match=r'tar entry "etc/x" at byte 512: unhandled entry type "'):
        read(block(b"a") + block(b"etc/x", kind) + END)


@pytest.mark.parametrize(
    "stream",
    [
        pax((b"path", b"a\0b")) + block(),
        pax((b"linkpath", b"a\0b")) + block(kind=b"2"),
        pax((b"SCHILY.xattr.a\0b", b"")) + block(),
        pax((b"uid", b"-1")) + block(),
        pax((b"uid", b"4294967295")) + block(),
        pax((b"size", b"9223372036854775808")) + block(),
        pax((b"size", b"-1")) + block(),
        block(fields={108: b"\xff" * 8}),
        block(fields={124: b"\xff" * 12}),
        block(fields={124: b"\x80\0\0\0\x80" + bytes(7)}),
        block(fields={136: b"\x80\x01" + bytes(10)}),
        block(kind=b"3", fields={329: b"\xff" * 8}),
        block(kind=b"x", size=3) + padded(b"5 a"),
        block(kind=b"x", size=8) + padded(b"99 a=bc\n"),
        block(kind=b"x", size=8) + padded(b"08 a_bc\n") + block(),
        block(kind=b"x", size=8) + padded(b"x8 a=bc\n") + block(),
        block(kind=b"x", size=8) + padded(b"07 a=bc\n") + block(),
    ],
)
def test_malformed_headers_are_refused(stream: bytes) -> None:
    with pytest.raises(TarError, match=r'tar entry ".*" at byte'):
        read(stream + END)


def sparse(*records: Tuple[bytes, bytes], size: bytes = b"1000") -> bytes:
    return pax((b"GNU.sparse.size", size), *records)


@pytest.mark.parametrize(
    "records",
    [
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,4,500")],
        [(b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"0,5")],
        [(b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"10,2,0,3")],
        [(b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"0,3,2,2")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"996,5")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,4")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,6")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"-1,5")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.offset", b"0,5")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,9223372036854775807")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.numbytes", b"5")],
        [(b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.offset", b"5")],
        [(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")],
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
    ],
)
def test_a_sparse_map_that_does_not_fit_is_refused(records: List[Tuple[bytes, bytes]]) -> None:
    with pytest.raises(TarError, match=r"sparse|PAX number|out of range"):
        read(sparse(*records) + block(size=5) + padded(b"hello") + END)


def test_only_regular_files_can_be_sparse() -> None:
    with pytest.raises(TarError, match="only a regular file"):
        one(sparse((b"GNU.sparse.map", b"0,0")) + block(kind=b"5"))


def test_a_sparse_map_is_not_read_longer_than_one_mebibyte() -> None:
    major, minor = (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")
    stream = sparse(major, minor) + block(size=1 << 32)
    with pytest.raises(TarError, match="too long"):
        next(iter(TarReader(Endless(stream + b"99999999\n", b"0"))))
    fields = {386: b"00000000000\x00000000000000\0", 482: b"\1", 483: b"00000000000\0"}
    stream = block(kind=b"S", magic=GNU, fields=fields)
    with pytest.raises(TarError, match="too long"):
        next(iter(TarReader(Endless(stream, b"0"))))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_an_extended_header_of_more_than_one_mebibyte_is_refused_unread(kind: bytes) -> None:
    stream = Endless(block(kind=kind, size=MIB + 1), b"0")
    with pytest.raises(TarError, match="1048577 bytes"):
        next(iter(TarReader(stream)))


def test_an_extended_header_of_one_mebibyte_is_read() -> None:
    value = os.urandom(MIB - 50)
    assert one(pax((b"SCHILY.xattr.user.big", value)) + block()).xattrs == {b"user.big": value}


# --- the end, and checksums -----------------------------------------------------------------------


def test_two_blocks_of_zeros_are_an_empty_tar() -> None:
    assert read(END) == []


def test_a_stream_without_a_byte_is_an_empty_tar_as_for_go() -> None:
    assert read(b"") == []


@pytest.mark.parametrize("padding", [412, 411, 1, 0])
def test_a_stream_may_end_behind_an_entry_without_an_end_mark(padding: int) -> None:
    """Some builders write none, and some no padding; Go asks for neither."""
    assert len(read(block() + block(b"g"))) == 2
    assert len(read(block() + block(b"g", size=100) + bytes(100 + padding))) == 2


@pytest.mark.parametrize("cut", [11, 512, 1024])
def test_a_cut_in_what_is_skipped_is_noticed(cut: int) -> None:
    stream = pax((b"comment", b"x" * 1000), kind=b"g")
    assert read(stream) == []
    assert read(stream[:-10]) == []  # no more than padding
    with pytest.raises(TarError, match="before its end mark"):
        read(stream[:-cut])


@pytest.mark.parametrize("cut", [1, 511])
def test_half_a_header_is_no_end(cut: int) -> None:
    with pytest.raises(TarError, match="before its end mark"):
        read(block() + block(b"g")[:-cut])


def test_an_extended_header_that_is_the_last_thing_was_cut_off() -> None:
    with pytest.raises(TarError, match="before its end mark"):
        read(block() + pax((b"path", b"g")))


def test_a_cut_in_data_names_the_file() -> None:
    with pytest.raises(TarError, match='after 612 bytes, in the data of "f"'):
        read(block(size=3000) + bytes(100))


def test_one_block_of_zeros_is_enough_when_nothing_follows() -> None:
    assert len(read(block() + bytes(512))) == 1


@pytest.mark.parametrize("rest", [bytes(511), b"x", block()])
def test_one_block_of_zeros_before_anything_else_is_no_end_mark(rest: bytes) -> None:
    with pytest.raises(TarError):
        read(block() + bytes(512) + rest)


@pytest.mark.parametrize(
    "stream", [pax((b"path", b"x")), block(kind=b"L", size=2) + padded(b"x\0")]
)
def test_an_extended_header_needs_an_entry(stream: bytes) -> None:
    with pytest.raises(TarError, match="an extended header has no entry"):
        read(stream + END)


def test_what_follows_the_end_mark_is_read_and_ignored() -> None:
    stream = io.BytesIO(block() + END + b"junk" * MIB)
    assert len(list(TarReader(stream))) == 1
    assert stream.read() == b""


def test_a_reader_can_be_drained_early() -> None:
    stream = io.BytesIO(block(size=5) + padded(b"hello") + END + bytes(MIB))
    reader = TarReader(stream)
    next(iter(reader))
    reader.drain()
    assert stream.read() == b""
    assert list(reader) == []


@pytest.mark.parametrize("at", [0, 100, 148, 156, 300, 511])
def test_a_wrong_checksum_is_found_wherever_the_header_was_changed(at: int) -> None:
    raw = bytearray(block(b"name"))
    raw[at] ^= 1
    with pytest.raises(TarError, match="the header's checksum is wrong"):
        read(bytes(raw) + END)


def test_a_checksum_of_signed_bytes_is_accepted() -> None:
    raw = bytearray(block("caf\u00e9".encode()))
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in raw)
    assert one(bytes(raw)).name == "caf\u00e9".encode()


def test_a_header_of_high_bytes_is_summed_exactly() -> None:
    raw = bytearray(block(b"\xff" * 100, fields={157: b"\xff" * 100, 265: b"\xff" * 64}))
    assert one(bytes(raw)).name == b"\xff" * 100
    raw[148:156] = b"%06o\0 " % (int(raw[148:154], 8) - 65521)
    with pytest.raises(TarError, match="checksum"):
        read(bytes(raw) + END)


# --- data -----------------------------------------------------------------------------------------

SIZES = [0, 1, 511, 512, 513, 65535, 65536, 65537, 262143, 262144, 262145, 1_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_data_arrives_whole_whatever_its_size(size: int, tmp_path: Path) -> None:
    files = {b"before": os.urandom(1000), b"file": os.urandom(size), b"after": b"after"}
    stream = b"".join(
        header(Entry(name, size=len(data))) + padded(data) for name, data in files.items()
    )
    copies = unpacked(stream + END, tmp_path)
    assert {name: path.read_bytes() for name, path in copies.items()} == files
    reader = TarReader(io.BytesIO(stream + END))
    assert {entry.name: reader.read_data(MIB) for entry in reader} == files


@pytest.mark.parametrize("size", SIZES)
def test_data_that_nobody_takes_is_skipped(size: int) -> None:
    stream = header(Entry(b"a", size=size)) + padded(b"x" * size) + header(Entry(b"b")) + END
    assert [entry.name for entry in read(stream)] == [b"a", b"b"]


def test_small_data_is_refused_beyond_a_limit() -> None:
    reader = TarReader(io.BytesIO(block(size=5) + padded(b"hello") + END))
    next(iter(reader))
    with pytest.raises(TarError, match='"f" has 5 bytes'):
        reader.read_data(4)
    assert reader.read_data(5) == b"hello"


@pytest.mark.parametrize(
    "pieces",
    [
        [bytes(4 * MIB)],
        [b"x", bytes(4 * MIB)],
        [bytes(4 * MIB), b"x"],
        [b"x" * 65536, bytes(4 * MIB), b"x" * 65536],
        [bytes(4 * MIB), b"x" * 65536, bytes(4 * MIB)],
    ],
    ids=["zeros", "byte first", "byte last", "data around", "data between"],
)
def test_long_runs_of_zeros_become_holes(pieces: List[bytes], tmp_path: Path) -> None:
    data = b"".join(pieces)
    stream = header(Entry(b"f", size=len(data))) + padded(data) + END
    copy = unpacked(stream, tmp_path)[b"f"]
    assert copy.read_bytes() == data
    assert copy.stat().st_blocks * 512 <= 2 * 65536


@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_write_that_comes_short_is_continued_and_its_error_is_raised(
    size: int, tmp_path: Path
) -> None:
    """The kernel writes up to the limit first, and refuses the rest."""
    data = os.urandom(size)
    stream = header(Entry(b"f", size=size)) + padded(data) + END
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            unpacked(stream, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "0").read_bytes() == data[:700]


def test_an_error_of_the_stream_passes_through() -> None:
    class Broken(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            raise ConnectionResetError("the engine is gone")

    with pytest.raises(ConnectionResetError):
        list(TarReader(Broken()))


class Generated(io.RawIOBase):
    """A stream made of pieces when they are asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = next(self.pieces, b"")
        buffer[: len(piece)] = piece
        return len(piece)


def test_memory_does_not_grow_with_the_number_of_entries() -> None:
    def pieces(count: int) -> Iterator[bytes]:
        for number in range(count):
            records = pax((b"comment", b"%d" % number)) if number % 10 == 0 else b""
            yield (
                records
                + header(
                    Entry(b"n%d" % number, uid=number, size=number % 512, mtime_ns=number * 10**9)
                )
                + padded(bytes(number % 512))
            )
        yield END

    list(TarReader(Generated(pieces(10))))
    tracemalloc.start()
    try:
        count = sum(1 for _ in TarReader(Generated(pieces(20_000))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 8 * MIB


def test_a_large_file_needs_no_more_memory_than_the_buffer() -> None:
    def pieces() -> Iterator[bytes]:
        yield header(Entry(b"big", size=256 * MIB))
        for number in range(4096):
            yield b"%016d" % number * 4096
        yield END

    tracemalloc.start()
    try:
        reader = TarReader(Generated(pieces()))
        with open(os.devnull, "wb", buffering=0) as nowhere:
            for _ in reader:
                reader.copy_data(nowhere.fileno())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB


def test_an_error_is_one_line_whatever_bytes_a_name_has() -> None:
    name = b"\x1b]0;a\x07\nb\xff" + "\u202e".encode() + b"n" * 90
    with pytest.raises(TarError) as caught:
        list(TarReader(io.BytesIO(header(Entry(name, size=5)) + bytes(3))))
    assert str(caught.value).isprintable()
    assert r"\x1b]0;a\x07\nb\xff\u202e" in str(caught.value)
