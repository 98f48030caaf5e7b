"""Whether a file system tells a file's type when it lists a folder; overlay needs that.

Easy to get wrong: os.scandir hides it by asking again for each file whose type is missing, so
this reads the C library's own entries.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from typing import Iterator

from manuka.linux.libc import c_string, failure, function, has_function

_DT_UNKNOWN = 0


class _Dirent(ctypes.Structure):
    _fields_ = [
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


_opendir = function("opendir", [ctypes.c_char_p], ctypes.c_void_p)
_closedir = function("closedir", [ctypes.c_void_p])
_readdir = function(
    "readdir64" if has_function("readdir64") else "readdir",  # musl's only one has 64 bits
    [ctypes.c_void_p],
    ctypes.POINTER(_Dirent),
)


def has_d_type(folder: str) -> bool:
    """Whether every entry of `folder` is listed with its type.

    An empty folder gets a file for the time of the question.  xfs made with ``ftype=0`` is the
    common file system that answers no.
    """
    types = [kind for _, kind in _entries(folder)]
    if not types:
        with tempfile.NamedTemporaryFile(dir=folder):
            types = [kind for _, kind in _entries(folder)]
    return _DT_UNKNOWN not in types


def _entries(folder: str) -> Iterator[tuple[str, int]]:
    stream = _opendir(c_string(folder))
    if not stream:
        raise failure(folder)
    try:
        while True:
            ctypes.set_errno(0)
            entry = _readdir(stream)
            if not entry:
                if ctypes.get_errno():
                    raise failure(folder)
                return
            name = os.fsdecode(entry.contents.name)
            if name not in (".", ".."):
                yield name, entry.contents.type
    finally:
        _closedir(stream)
