"""Tars of layers in the words of the domain: what checks and tests are made of.

    LayerTar().folder("etc").file("etc/passwd", b"root:…").whiteout("tmp/x").bytes()

Made by Python's `tarfile` and not by Manuka's own writer, so that both cannot share an error.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from typing import Any, Dict, Optional, Tuple, Union

#: The time of entries that are not given one: in July 2017.
MTIME = 1_500_000_000 * 10**9

Name = Union[str, bytes]
Bytes = bytes  # `bytes` is a method below


class LayerTar:
    """A tar in the making.  Each method adds an entry and returns the tar itself.

    All take the same keywords: ``mode``, ``uid``, ``gid``, ``mtime_ns``, ``xattrs``.
    """

    def __init__(self) -> None:
        self._blocks = bytearray()

    def folder(self, name: Name, mode: int = 0o755, **more: Any) -> LayerTar:
        return self._add(name, tarfile.DIRTYPE, mode, **more)

    def file(self, name: Name, content: bytes = b"", mode: int = 0o644, **more: Any) -> LayerTar:
        return self._add(name, tarfile.REGTYPE, mode, content=content, **more)

    def symlink(self, name: Name, target: Name, **more: Any) -> LayerTar:
        return self._add(name, tarfile.SYMTYPE, 0o777, target=target, **more)

    def hardlink(self, name: Name, target: Name, mode: int = 0o644, **more: Any) -> LayerTar:
        return self._add(name, tarfile.LNKTYPE, mode, target=target, **more)

    def device(
        self,
        name: Name,
        major: int,
        minor: int,
        mode: int = 0o600,
        block: bool = False,
        **more: Any,
    ) -> LayerTar:
        kind = tarfile.BLKTYPE if block else tarfile.CHRTYPE
        return self._add(name, kind, mode, device=(major, minor), **more)

    def fifo(self, name: Name, mode: int = 0o644, **more: Any) -> LayerTar:
        return self._add(name, tarfile.FIFOTYPE, mode, **more)

    def whiteout(self, path: Name, **more: Any) -> LayerTar:
        """Say that `path` is gone."""
        folder, name = posixpath.split(os.fsdecode(path))
        return self.file(posixpath.join(folder, f".wh.{name}"), mode=0o600, **more)

    def opaque(self, folder: Name = "", **more: Any) -> LayerTar:
        """Say that all which lower layers have in `folder` is gone."""
        return self.file(posixpath.join(os.fsdecode(folder), ".wh..wh..opq"), **more)

    def raw(self, info: tarfile.TarInfo, data: Bytes = b"") -> LayerTar:
        """Add an entry as it is; `data` is filled up to whole blocks."""
        self._blocks += info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        self._blocks += data + bytes(-len(data) % 512)
        return self

    def bytes(self) -> bytes:
        """The whole tar with its end mark."""
        return bytes(self._blocks) + bytes(1024)

    def stream(self) -> io.BytesIO:
        """The same, to be read."""
        return io.BytesIO(self.bytes())

    def _add(
        self,
        name: Name,
        kind: Bytes,
        mode: int,
        *,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = MTIME,
        xattrs: Optional[Dict[str, Bytes]] = None,
        content: Bytes = b"",
        target: Name = "",
        device: Tuple[int, int] = (0, 0),
    ) -> LayerTar:
        info = tarfile.TarInfo(os.fsdecode(name))
        info.type, info.mode, info.uid, info.gid = kind, mode, uid, gid
        info.linkname = os.fsdecode(target)
        info.size = len(content)
        info.devmajor, info.devminor = device
        records: Dict[str, str] = {}
        info.pax_headers = records
        seconds, fraction = divmod(abs(mtime_ns), 10**9)
        info.mtime = seconds if mtime_ns >= 0 else 0
        if fraction or mtime_ns < 0:
            sign = "-" if mtime_ns < 0 else ""
            records["mtime"] = f"{sign}{seconds}.{fraction:09}"
        for attribute, value in (xattrs or {}).items():
            records[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
        return self.raw(info, content)


def entries(tar: bytes) -> Dict[str, tarfile.TarInfo]:
    """The entries of a tar by name, in order; folders have a slash behind it.

    Fails when a name is there twice, or the tar is not whole.
    """
    assert tar[-1024:] == bytes(1024), "the tar has no end mark"
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", errors="surrogateescape") as file:
        members = file.getmembers()
    found = {info.name + "/" * info.isdir(): info for info in members}
    assert len(found) == len(members), "a name is there twice"
    return found


def content(tar: bytes, name: str) -> bytes:
    """What a tar holds of the file `name`."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", errors="surrogateescape") as file:
        data = file.extractfile(name)
        assert data is not None, f"{name} is no file"
        return data.read()
