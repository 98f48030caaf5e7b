"""The headers that Manuka writes, against those of Go's archive/tar.

The digests are of what Go 1.19 writes for the same header with ``Format: tar.FormatPAX``.
"""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manuka.layers.tar import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    END,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    TarError,
    TarReader,
    header,
    padding,
)

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)

GO = [
    (
        "an empty file",
        Entry(name=b"empty", mode=0o644),
        "d6d405eb1453f27b576ae3d4c66e3a66e18d10dcd64e278ccfd393ac6b1baa87",
    ),
    (
        "a file with an owner and a time",
        Entry(
            name=b"usr/bin/tool",
            mode=0o4755,
            uid=1000,
            gid=50,
            size=1234567,
            mtime_ns=1600000000 * 10**9,
        ),
        "b0fcd2da8498294fa039bc904a883f3e068c09729d97798cd9b20ee8317551de",
    ),
    (
        "a folder",
        Entry(name=b"usr/bin", type=DIRECTORY, mode=0o1777),
        "9be24de3fc7906835b558f873de9c0b14815966864d7b030883639fa3397fad1",
    ),
    (
        "a symbolic link",
        Entry(name=b"bin", type=SYMLINK, mode=0o777, linkname=b"usr/bin"),
        "987529868bdd7b697184b4bfb44a3164e5a46c80b01dd6f056973ad7c34adf72",
    ),
    (
        "a hard link",
        Entry(name=b"b", type=HARD_LINK, mode=0o644, linkname=b"a"),
        "e28dca54db9ab509e54ef764e48cf7904d8ac73f8076c910faa70675762de282",
    ),
    (
        "a character device",
        Entry(name=b"dev/null", type=CHARACTER_DEVICE, mode=0o666, devmajor=1, devminor=3),
        "cf3350ba8c2fff669dd6f0a48adbfd0f3011c9a7ea4dff6901decadfc67cfe5c",
    ),
    (
        "a block device",
        Entry(name=b"dev/sda", type=BLOCK_DEVICE, mode=0o660, gid=6, devmajor=8, devminor=1048575),
        "93fe9ae55231930aef63a2329f8cb1256896efd42588e09107506fad08e35f69",
    ),
    (
        "a fifo",
        Entry(name=b"run/pipe", type=FIFO, mode=0o600),
        "a8df0a9a8ab780b4092d649c14500dbb4b9be701d6d0151b6f28900879d094b2",
    ),
    (
        "a mode with its file type",
        Entry(name=b"f", mode=0o100644),
        "244a4c488c24f477cebd2f137f4e94288bcafe9a5c3d2b28bb3087a1d0996a83",
    ),
    (
        "a name of 100 bytes",
        Entry(name=b"n" * 100),
        "067cf1298ad8f4619134795cd8b022bd34e44e47d56ef4cbffbc110153611604",
    ),
    (
        "a name that is split",
        Entry(name=b"d" * 90 + b"/" + b"f" * 60),
        "1ed827d1b2054bc421f77c70d7d0e87de1e0c4f96140980fc96529838dd2284d",
    ),
    (
        "a folder's name that is split",
        Entry(name=b"d" * 90 + b"/" + b"f" * 60, type=DIRECTORY),
        "022b24dc8b1c7f38f749158ff8fc188595307daa7a04ab5c133d744106c4b3d6",
    ),
    (
        "a name split at the longest prefix",
        Entry(name=b"d" * 155 + b"/" + b"f" * 100),
        "a6f4651b241178791b2e7ac4aacc511b072484b647682853fdb5f10c5dd1d8a4",
    ),
    (
        "a prefix one byte too long",
        Entry(name=b"d" * 156 + b"/f"),
        "38e42e821b529323c14d3d177445f0ac243b94539fb346e816dcb1c5b8fb966c",
    ),
    (
        "a name of 101 bytes without a slash",
        Entry(name=b"n" * 101),
        "cd5f0ff52012b7ad1cc612bae9270efb34b44cbacd97f7bd25f6a935fb1493ce",
    ),
    (
        "a folder of 100 bytes before its slash",
        Entry(name=b"n" * 100, type=DIRECTORY),
        "4159bb8f0b1879620e2a48770652bbcc47f78165164390258f7536f9fbb4fa20",
    ),
    (
        "a name that would be split, but has a capability",
        Entry(name=b"d" * 90 + b"/" + b"f" * 60, xattrs={b"security.capability": CAPABILITY}),
        "2739892d0d8e90044a651dc88d835272b9db8cd46ec865aa263403df1660641d",
    ),
    (
        "a name cut at a slash",
        Entry(name=b"d" * 99 + b"/" + b"f" * 120),
        "2621604fac51c22bc9daceedf22bc01705a13a0dcee55c5417cd65367a58ebad",
    ),
    (
        "a name that is not ASCII",
        Entry(name="caf\u00e9/men\u00fc".encode(), mode=0o644),
        "47e72605d8867dd0fcda51233932c6c4e9f86f2b4a83712631fb9996b0644af7",
    ),
    (
        "a name that is not UTF-8",
        Entry(name=b"caf\xe9/x"),
        "9b144bbf0a32d0b069d22b5f69bafe6777342f1a0d6e2289c4a41c8e999b75b4",
    ),
    (
        "a folder's name of which only slashes are ASCII",
        Entry(name="/".join(["\u00e9"] * 110).encode(), type=DIRECTORY),
        "f178e8173e50efb2f395c310a72c283eea98753d8e4b931de30372872e6e3256",
    ),
    (
        "a long link target",
        Entry(name=b"l", type=SYMLINK, linkname=b"t" * 101),
        "8d2dc47c0cca94221880811e35d13baad640d5f9f01ae2229546b66959d97291",
    ),
    (
        "a link target that is not ASCII",
        Entry(name=b"l", type=SYMLINK, linkname="\u00fc".encode()),
        "6ceca9c477a07e96fec692806f4e48d7d425a6526454a6ba16492102b010bdb0",
    ),
    (
        "the largest ids in octal",
        Entry(name=b"f", uid=2097151, gid=2097151),
        "cf8a9de85c73470167d992b16418b2fe5fcfef9eb68fabb611c116cacf59ea52",
    ),
    (
        "ids that need a record",
        Entry(name=b"f", uid=2097152, gid=4294967294),
        "6eee8610b44d74d21268fb26d4bded1da65acad144e34121717d786ef5fe1c43",
    ),
    (
        "the largest size in octal",
        Entry(name=b"f", size=2**33 - 1),
        "24e7dfabfdeef4bfe2c4c4732dfd68dde73b69f8716f34f0b0d5727c1042e6e0",
    ),
    (
        "a size that needs a record",
        Entry(name=b"f", size=2**33),
        "1bf975651f5cdf103e8b318c653386bcf4c1253eef290b7b8318141c41d8c579",
    ),
    (
        "a time before 1970",
        Entry(name=b"f", mtime_ns=-(10**9)),
        "ecf0bab2bbf6844af30e28f68db1080b5d118e55d7465d70e4802b800f844f1d",
    ),
    (
        "a time after 2242",
        Entry(name=b"f", mtime_ns=2**33 * 10**9),
        "e570fb9d5b076e11f6e2dd52728c4c41bad400e47d00ff61a2806668fa50efec",
    ),
    (
        "a time with a fraction",
        Entry(name=b"f", mtime_ns=1600000000500000000),
        "d33fca9452b9c68a5cee714ea2d8e92fb7cb33e5e58d94a7bcb8aef95daabdd0",
    ),
    (
        "a fraction before 1970",
        Entry(name=b"f", mtime_ns=-1500000001),
        "cee698466b86b5edb9ef580acce952944a7d341eba9e1cfaa2c5187ae2000699",
    ),
    (
        "a capability",
        Entry(
            name=b"usr/bin/ping", mode=0o755, size=5, xattrs={b"security.capability": CAPABILITY}
        ),
        "b60d69764a2f83e5eb636cc5211fc4f79bc5459824e4321a4d4822bcc2048d14",
    ),
    (
        "attributes, sorted by name",
        Entry(
            name=b"f",
            xattrs={b"user.b": b"=\n\0", b"user.a": b"", b"security.capability": CAPABILITY},
        ),
        "10a5f0f96e38dfc31ccc5de61efd3c233f945a5c475dff44cfcf43c9e7e25dce",
    ),
    (
        "a record whose length grows by its own digits",
        Entry(name=b"f", xattrs={b"user.a": b"v" * 78}),
        "02a55aa3f961aa5195b7a96a9654891f05e8921758cc88641e1ab9512242be6e",
    ),
    (
        "everything at once",
        Entry(
            name=("\u00e9" * 60 + "/" + "x" * 120).encode(),
            type=HARD_LINK,
            mode=0o7777,
            uid=3000000000,
            gid=3000000001,
            mtime_ns=-1,
            linkname=b"a/" * 80,
            xattrs={b"security.capability": CAPABILITY},
        ),
        "d314f45d4888b47a366828774e71d54f856de3f7979d03af87cebc703affdaa1",
    ),
]


@pytest.mark.parametrize(("entry", "digest"), [row[1:] for row in GO], ids=[row[0] for row in GO])
def test_a_header_has_the_bytes_that_go_writes(entry: Entry, digest: str) -> None:
    assert hashlib.sha256(header(entry)).hexdigest() == digest


def test_a_plain_header_is_spelled_out_byte_by_byte() -> None:
    expected = (
        b"etc/motd".ljust(100, b"\0")
        + b"0000644\0"
        + b"0001750\0"
        + b"0000144\0"
        + b"00000000005\0"
        + b"13727410000\0"
        + b"010720\0 "
        + b"0"
        + bytes(100)
        + b"ustar\x0000"
        + bytes(64)
        + b"0000000\x000000000\0"
        + bytes(167)
    )
    entry = Entry(b"etc/motd", REGULAR, 0o644, 1000, 100, 5, 1600000000 * 10**9)
    assert header(entry) == expected


def test_a_file_with_its_padding_and_the_end_mark_is_a_tar_that_others_read() -> None:
    stream = header(Entry(b"a", mode=0o640, size=5)) + b"hello" + padding(5) + END
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.size) == ("a", 0o640, 5)
        data = archive.extractfile(member)
        assert data is not None
        assert data.read() == b"hello"


@pytest.mark.parametrize(
    ("size", "zeros"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (2**40 + 1, 511)]
)
def test_padding_fills_the_last_block(size: int, zeros: int) -> None:
    assert padding(size) == bytes(zeros)


def test_the_end_mark_is_two_blocks_of_zeros() -> None:
    assert bytes(1024) == END


@pytest.mark.parametrize("kind", [DIRECTORY, SYMLINK, HARD_LINK, FIFO])
def test_only_regular_files_have_a_size(kind: int) -> None:
    assert header(Entry(b"x", kind, size=4096))[124:136] == b"00000000000\0"


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a\0b"),
        Entry(b"l", SYMLINK, linkname=b"a\0b"),
        Entry(b"f", xattrs={b"user.a\0": b""}),
        Entry(b"f", xattrs={b"user.a=b": b""}),
        Entry(b"f", mode=1 << 21),
        Entry(b"null", CHARACTER_DEVICE, devmajor=1 << 21),
        Entry(b"null", CHARACTER_DEVICE, devminor=-1),
        Entry(b"f", xattrs={b"user.a": bytes(1 << 20)}),
    ],
)
def test_what_the_format_cannot_hold_is_refused(entry: Entry) -> None:
    with pytest.raises(TarError):
        header(entry)


names = st.lists(
    st.binary(min_size=1, max_size=130).filter(lambda part: not set(part) & {0, ord("/")}),
    min_size=1,
    max_size=4,
).map(b"/".join)
times = st.integers(-(2**40), 2**40) | st.integers(-(2**33) * 10**9, 2**34 * 10**9)


@given(
    st.builds(
        Entry,
        name=names,
        type=st.sampled_from(b"0123456"),
        mode=st.integers(0, 0o7777),
        uid=st.integers(0, 2**32 - 2),
        gid=st.integers(0, 2**32 - 2),
        mtime_ns=times,
        atime_ns=st.none() | times,
        linkname=names,
        devmajor=st.integers(0, 4095),
        devminor=st.integers(0, 2**20 - 1),
        xattrs=st.dictionaries(
            st.binary(min_size=1, max_size=20).filter(lambda key: not set(key) & {0, ord("=")}),
            st.binary(max_size=100),
            max_size=3,
        ),
    )
)
def test_what_is_written_is_read_back(entry: Entry) -> None:
    (again,) = TarReader(io.BytesIO(header(entry) + END))
    different = []
    if entry.type not in (HARD_LINK, SYMLINK):
        different.append("linkname")
    if entry.type not in (CHARACTER_DEVICE, BLOCK_DEVICE):
        different += ["devmajor", "devminor"]
    for field in Entry.__slots__:
        if field not in different:
            assert getattr(again, field) == getattr(entry, field), field
