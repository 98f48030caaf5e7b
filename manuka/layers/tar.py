"""The tar format: everything that other modules use of it.

`TarReader` takes a stream apart, `header`, `padding` and `END` make one.  Both sides agree byte for
byte with what the engine itself reads and writes, since layers are known by their digests.
"""

from __future__ import annotations

from manuka.layers.tarentry import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    LONGEST_SHOWN,
    REGULAR,
    SYMLINK,
    Entry,
    Stream,
    TarError,
    printable,
)
from manuka.layers.tarread import TarReader
from manuka.layers.tarwrite import END, header, padding

__all__ = [
    "BLOCK_DEVICE",
    "CHARACTER_DEVICE",
    "DIRECTORY",
    "END",
    "FIFO",
    "HARD_LINK",
    "LONGEST_SHOWN",
    "REGULAR",
    "SYMLINK",
    "Entry",
    "Stream",
    "TarError",
    "TarReader",
    "header",
    "padding",
    "printable",
]
