"""Images for the tests, made from nothing: layers as tars, and archives for ``docker load``.

``Image("demo:1").add(busybox()).add(Layer().file("etc/passwd", b"...").whiteout("tmp/x"))`` reads
like what it makes.  Everything is exact, so that a test can say beforehand what must come out:
`Layer.tar` is the stream whose sha256 is the layer's id for the engine, and `Image.id` is the id
that the engine has to give the image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
import tempfile
from typing import Iterator

from manuka.toolkit import busybox as tiny

# Long ago, with a fraction that only nanoseconds can hold.
NOON = 1_000_000_000_123_456_789


class Layer:
    """One layer: entries in the order in which they were added."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self._ends: int | None = None

    def folder(self, path: str | bytes, mode: int = 0o755, **more: object) -> Layer:
        return self._add(path, tarfile.DIRTYPE, mode, **more)

    def file(
        self, path: str | bytes, content: bytes = b"", mode: int = 0o644, **more: object
    ) -> Layer:
        return self._add(path, tarfile.REGTYPE, mode, content=content, **more)

    def symlink(self, path: str | bytes, target: str | bytes, **more: object) -> Layer:
        return self._add(path, tarfile.SYMTYPE, 0o777, target=target, **more)

    def hard_link(self, path: str | bytes, target: str | bytes, **more: object) -> Layer:
        return self._add(path, tarfile.LNKTYPE, 0o644, target=target, **more)

    def fifo(self, path: str | bytes, mode: int = 0o644, **more: object) -> Layer:
        return self._add(path, tarfile.FIFOTYPE, mode, **more)

    def device(
        self, path: str | bytes, kind: str, major: int, minor: int, mode: int = 0o600
    ) -> Layer:
        """kind: ``c`` or ``b``."""
        of_type = tarfile.CHRTYPE if kind == "c" else tarfile.BLKTYPE
        return self._add(path, of_type, mode, device=(major, minor))

    def whiteout(self, path: str) -> Layer:
        """The file or folder `path` of a lower layer is deleted."""
        folder, name = os.path.split(path)
        return self.file(os.path.join(folder, ".wh." + name), mode=0)

    def opaque(self, path: str) -> Layer:
        """Nothing in the folder `path` of lower layers shows."""
        return self.file(os.path.join(path, ".wh..wh..opq"), mode=0)

    def raw(self, entries: bytes) -> Layer:
        """Entries that were made elsewhere: a tar without its end."""
        self._buffer.write(entries)
        self._tar.offset += len(entries)
        return self

    def without_end(self, left_out: int = 0) -> Layer:
        """The stream ends here, without an end mark, and without its last `left_out` bytes."""
        self._ends = self._tar.offset - left_out
        return self

    def _add(
        self,
        path: str | bytes,
        kind: bytes,
        mode: int,
        *,
        content: bytes = b"",
        target: str | bytes = "",
        owner: tuple[int, int] = (0, 0),
        mtime_ns: int = NOON,
        xattrs: dict[str, bytes] | None = None,
        device: tuple[int, int] = (0, 0),
    ) -> Layer:
        entry = tarfile.TarInfo(os.fsdecode(path))
        entry.type, entry.mode, entry.linkname = kind, mode, os.fsdecode(target)
        entry.uid, entry.gid = owner
        entry.devmajor, entry.devminor = device
        entry.size = len(content)
        entry.mtime = mtime_ns // 10**9
        if mtime_ns % 10**9:
            entry.pax_headers["mtime"] = "{}.{:09d}".format(*divmod(mtime_ns, 10**9))
        for name, value in (xattrs or {}).items():
            text = value.decode("utf-8", "surrogateescape")
            entry.pax_headers["SCHILY.xattr." + name] = text
        self._tar.addfile(entry, io.BytesIO(content))
        return self

    @property
    def tar(self) -> bytes:
        """The layer's stream; nothing can be added any more."""
        if not self._tar.closed:
            self._tar.close()
        return self._buffer.getvalue()[: self._ends]

    @property
    def diff_id(self) -> str:
        return digest(self.tar)


class Image:
    """An image with a tag, of layers from the lowest up."""

    def __init__(self, tag: str, *layers: Layer) -> None:
        self.tag = tag
        self.layers = list(layers)

    def add(self, layer: Layer) -> Image:
        self.layers.append(layer)
        return self

    @property
    def diff_ids(self) -> list[str]:
        return [layer.diff_id for layer in self.layers]

    @property
    def config(self) -> bytes:
        return json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2001-09-09T01:46:40Z",
                "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
                "history": [{"created_by": f"layer {i}"} for i in range(len(self.layers))],
            }
        ).encode()

    @property
    def id(self) -> str:
        return digest(self.config)

    def archive(self) -> bytes:
        """What ``docker load`` reads."""
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w") as tar:
            names = [f"{number}.tar" for number in range(len(self.layers))]
            parts = {name: layer.tar for name, layer in zip(names, self.layers)}
            parts["config.json"] = self.config
            parts["manifest.json"] = json.dumps(
                [{"Config": "config.json", "RepoTags": [self.tag], "Layers": names}]
            ).encode()
            for name, content in parts.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return output.getvalue()


class SavedImage:
    """What is in the archive that ``docker save`` wrote, for one image."""

    def __init__(self, archive: bytes) -> None:
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(archive))
        (manifest,) = json.loads(self._member("manifest.json"))
        self.config = self._member(manifest["Config"])
        self.layers = [self._member(name) for name in manifest["Layers"]]

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.layers]

    def _member(self, name: str) -> bytes:
        file = self._tar.extractfile(name)
        assert file is not None
        return file.read()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def busybox() -> Layer:
    """A root file system in which commands run."""
    layer = Layer()
    with open(tiny.find(), "rb") as file:
        program = file.read()
    for folder in ("bin", "etc", "srv"):
        layer.folder(folder)
    layer.folder("tmp", 0o1777).file("bin/busybox", program, 0o755)
    for command in tiny.COMMANDS:
        layer.symlink("bin/" + command, "busybox")
    return layer


def entries(tar: bytes) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
        yield from reader


def as_listed(tar: bytes) -> list[tuple[object, ...]]:
    """What a layer's stream says, but for the times of whiteouts, which are those of now.

    Left out is what engines themselves write in different ways: the type of a file beside its
    mode, and the names of owners as the host knows them; and the name of another deleted file
    that the engine puts into a whiteout when the kernel shares one inode for several.
    """
    listed: list[tuple[object, ...]] = []
    for entry in entries(tar):
        whiteout = ".wh." in entry.name
        listed.append(
            (
                *(entry.name, entry.type, entry.mode & 0o7777, entry.uid, entry.gid),
                *(entry.size, entry.devmajor, entry.devminor),
                "" if whiteout else entry.linkname,
                *(sorted(entry.pax_headers), 0 if whiteout else entry.mtime),
            )
        )
    return listed


def capability(bit: int) -> bytes:
    """``security.capability`` with one effective and permitted capability (capability(7))."""
    return struct.pack("<IIIII", 0x02000001, 1 << bit, 0, 0, 0)


def gnu_sparse_entry(name: str, size: int, island: bytes, at: int) -> bytes:
    """An entry as GNU tar writes it for a file that is a hole but for `island`."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, name), "wb") as file:
            file.truncate(size)
            file.seek(at)
            file.write(island)
        os.utime(file.name, ns=(NOON, NOON))
        made = subprocess.run(
            ["tar", "-C", folder, "--format=gnu", "-S", "--owner=0", "--group=0", "-cf-", name],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    header = made[:512]
    assert header[156:157] == b"S", "this tar wrote no sparse entry"
    stored = int(header[124:135], 8)
    return made[: 512 + (stored + 511) // 512 * 512]
