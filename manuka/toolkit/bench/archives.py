"""What the contenders are given: layers and images, made from nothing and always the same.

A `Stream` is a tar, or an archive for ``docker load``, without being one long string of bytes: one
file of 1 GB is a block that repeats.  Content is text-like, so that it compresses as files do.
Neighbours: `scenarios` loads images, `wire` sends layers.  Easy to get wrong: two images that share
a layer, of which the second is then loaded in no time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import tarfile
from typing import Iterator, List, Sequence, Tuple

from manuka.toolkit import busybox

#: Of the layer of many small files.
MANY_FOLDERS, MANY_IN_EACH = 500, 70
MANY_ENTRIES = MANY_FOLDERS * (MANY_IN_EACH + 1)
GB = 1_000_000_000

_TIME = 1_600_000_000
_BLOCK = 1 << 20


class Stream:
    """Bytes: each of the `pieces` so many times."""

    def __init__(self, pieces: Tuple[Tuple[bytes, int], ...]) -> None:
        self.pieces = pieces

    @property
    def size(self) -> int:
        return sum(len(piece) * count for piece, count in self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece, count in self.pieces:
            for _ in range(count):
                yield piece

    def digest(self) -> str:
        state = hashlib.sha256()
        for piece in self:
            state.update(piece)
        return "sha256:" + state.hexdigest()


class _Text:
    """Pseudo-random text: the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        noise = self.random.getrandbits(8 * _BLOCK * 3 // 4).to_bytes(_BLOCK * 3 // 4, "little")
        self._text = base64.b64encode(noise)

    def of(self, size: int) -> bytes:
        start = self.random.randrange(_BLOCK // 2)
        piece = self._text[start : start + size]
        return piece if len(piece) == size else (self._text * (size // _BLOCK + 2))[:size]

    @property
    def block(self) -> bytes:
        return self._text


def many_files(folders: int = MANY_FOLDERS, seed: int = 1) -> Stream:
    """Small files in `folders` folders, as packages have them; 226 MB by default."""
    text = _Text(seed)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in range(folders):
            where = f"usr/share/s{seed}/d{folder:04}"
            tar.addfile(_entry(where, tarfile.DIRTYPE, 0o755))
            for number in range(MANY_IN_EACH):
                path = f"{where}/file{number:02}.txt"
                if number % 20 == 7:
                    link = _entry(path, tarfile.SYMTYPE, 0o777)
                    link.linkname = "file01.txt"
                    tar.addfile(link)
                    continue
                content = text.of(int(text.random.expovariate(1 / 6050)))
                tar.addfile(_entry(path, size=len(content)), io.BytesIO(content))
    return Stream(((output.getvalue(), 1),))


def one_file(size: int = GB, seed: int = 2) -> Stream:
    """A layer of one file, of about `size` bytes."""
    count = -(-size // _BLOCK)
    header = _entry("big", size=count * _BLOCK)
    header.size = count * _BLOCK
    head = header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return Stream(((head, 1), (_Text(seed).block, count), (bytes(1024), 1)))


def tiny_files(count: int, seed: int) -> Stream:
    """So many files of next to nothing, 100 in a folder."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(count):
            if number % 100 == 0:
                folder = f"srv/t{seed}/{number // 100:04}"
                tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
            content = b"%09d\n" % number
            tar.addfile(_entry(f"{folder}/{number % 100:02}", size=10), io.BytesIO(content))
    return Stream(((output.getvalue(), 1),))


def few_files(seed: int) -> Stream:
    """A small layer: what one line of a Dockerfile may add."""
    text = _Text(seed)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_entry(f"srv/{seed}", tarfile.DIRTYPE, 0o755))
        for number in range(5):
            content = text.of(2000 + 500 * number)
            entry = _entry(f"srv/{seed}/{number}", size=len(content))
            tar.addfile(entry, io.BytesIO(content))
    return Stream(((output.getvalue(), 1),))


def box() -> Stream:
    """A root file system in which commands run."""
    return Stream(((busybox.image(busybox.find()), 1),))


def marked_box(seed: int) -> Stream:
    """The same, but another layer for the engine."""
    output = io.BytesIO(busybox.image(busybox.find()))
    with tarfile.open(fileobj=output, mode="a") as tar:
        tar.addfile(_entry(f"etc/mark-{seed}"))
    return Stream(((output.getvalue(), 1),))


def deep(layers: int, seed: int) -> List[Stream]:
    """Layers of an image of so many, in which commands run."""
    return [marked_box(seed), *(few_files(seed * 1000 + number) for number in range(1, layers))]


def image(tag: str, layers: Sequence[Stream]) -> Stream:
    """What ``docker load`` reads, for an image of these layers, the lowest first."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest() for layer in layers]},
        }
    ).encode()
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]).encode()
    pieces: List[Tuple[bytes, int]] = []
    parts = list(zip(names, layers))
    parts += [
        (name, Stream(((content, 1),)))
        for name, content in (("config.json", config), ("manifest.json", manifest))
    ]
    for name, content in parts:
        entry = _entry(name, size=content.size)
        pieces.append((entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"), 1))
        pieces += content.pieces
        pieces.append((bytes(-content.size % 512), 1))
    pieces.append((bytes(1024), 1))
    return Stream(tuple(pieces))


def context(dockerfile: str, files: int = 200) -> bytes:
    """What ``docker build`` sends: a Dockerfile, and the folder ``files``."""
    text = _Text(3)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        content = dockerfile.encode()
        tar.addfile(_entry("Dockerfile", size=len(content)), io.BytesIO(content))
        tar.addfile(_entry("files", tarfile.DIRTYPE, 0o755))
        for number in range(files):
            data = text.of(3000)
            tar.addfile(_entry(f"files/{number}", size=len(data)), io.BytesIO(data))
    return output.getvalue()


def single(name: str, size: int) -> bytes:
    """A tar of one file, as ``docker cp`` sends it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.addfile(_entry(name, size=size), io.BytesIO(_Text(4).of(size)))
    return output.getvalue()


def _entry(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, _TIME
    return entry
