"""Headers that readers take differently: what loads on manuka can be saved as on overlay2.

The engine reads each layer's tar beside the driver, and ``docker save`` looks in the driver's tree
for the files that the engine has read.  So another name, type or size than Go's makes an image that
loads and cannot be saved.  ``unit/test_tar_reader.py`` has the whole table, with Go's own results.
"""

from __future__ import annotations

import hashlib
import re

import pytest

from tests.hostile.raw import END, GNU, block, padded, pax, record

from .comparison import Pair
from .sides import Refused
from .stacks import Stack, Written, archive

V7 = bytes(8)
DATA = padded(b"hello")
GLOBAL = block(b"PaxHeaders", b"g", 13) + padded(b"13 comment=x\n")

ALIKE = {
    "a file of v7 with a slash": block(b"d/", b"0", 5, magic=V7) + DATA,
    "a directory of v7": block(b"d/", b"\0", 0, magic=V7) + block(b"d/f", b"\0", 5) + DATA,
    "a prefix of old Go with junk behind": block(b"f", size=5, magic=GNU, prefix=b"ab\0\xe9")
    + DATA,
    "a prefix of GNU that is none": block(b"f", size=5, magic=GNU, prefix=b"\xc3\xa9") + DATA,
    "a name before a global header": pax(record(b"path", b"x"))
    + GLOBAL
    + block(b"f", size=5)
    + DATA,
    "a sparse file's name alone": pax(record(b"GNU.sparse.name", b"x"))
    + block(b"f", size=5)
    + DATA,
    "a PAX size with a sign": pax(record(b"size", b"+5")) + block(b"f") + DATA,
    "the largest owner and device": pax(record(b"uid", b"4294967294"))
    + block(b"c", b"3", devmajor=b"0007777\0", devminor=b"3777777\0"),
}

#: What native loads and cannot save, or makes something else of; what it refuses with other words.
REFUSED = {
    "a size below zero": (block(b"d", b"5", b"\xff" * 12), "the number -1 is out of range"),
    "an owner of -1": (block(b"f", uid=b"\xff" * 8), "the owner -1 is out of range"),
    "an owner of 33 bits": (
        pax(record(b"gid", b"4294967301")) + block(b"f"),
        "the owner 4294967301 is out of range",
    ),
    "a device of 13 bits": (
        block(b"c", b"3", devmajor=b"0010000\0"),
        "the device number 4096:0 is out of range",
    ),
    "Solaris' extended header": (block(b"x", b"X", 9) + padded(b"9 path=a\n"), "entry type"),
    "an incremental archive": (block(b"d", b"D", 5) + DATA, "without tar's option -g"),
    "a label with data": (block(b"label", b"V", 5) + DATA, "a volume label has no data"),
}


def test_what_is_read_as_go_reads_it_can_be_saved(pair: Pair) -> None:
    tars = [tar + END for tar in ALIKE.values()]
    cases = [(Stack((Written((), made=tar),)), ()) for tar in tars]
    for name, tar, (native, manuka) in zip(ALIKE, tars, pair.play(cases, cases)):
        saved = [hashlib.sha256(tar).hexdigest()]
        assert (native.error, native.layers) == ("", saved), name
        assert (manuka.error, manuka.layers) == ("", saved), name
        assert manuka.before == native.before, name


@pytest.mark.parametrize(("tar", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_saved_is_refused_by_its_entry(
    pair: Pair, tar: bytes, message: str
) -> None:
    with pytest.raises(Refused, match=re.escape(message)):
        pair.right.load(archive({"odd:1": Stack((Written((), made=tar + END),))}))
