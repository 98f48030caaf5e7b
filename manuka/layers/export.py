"""Packing a layer, or a difference between trees, into a tar.

`export_tree` packs an overlayfs layer's own folder: the engine's native diff.  `export_changes`
packs what a comparison found, from a mounted tree: the naive diff.  Both yield an uncompressed
tar in pieces of some ten or hundred kilobytes; `manuka.layers.tar` makes the headers.

Form, as the engine's (``pkg/archive``): names without a leading slash, folders with one at the
end and before what they hold, whole seconds, ids as a container sees them, of the extended
attributes ``security.capability`` alone; the second and further names of a file are hard links;
sockets are left out; the root has no entry.

The form is that of engines from 24 on.  Older ones add the file's type to the mode, and those
before 23 the names that owners have on the machine.  A plugin is not told which engine it serves,
and nothing depends on it: the engine hashes the tar that it gets, and saves that tar again.

Easy to get wrong: a file that shrinks while it is read must still fill what its header promised.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from typing import Generator, Iterable, Iterator, Sequence

from manuka.errors import ManukaError
from manuka.layers.changes import Change, Kind
from manuka.layers.idmap import IDENTITY, IdMapError, IdMaps
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
    header,
    padding,
    printable,
)
from manuka.layers.walk import opened_folder, opened_root, walk
from manuka.layers.whiteouts import OPAQUE, PREFIX, TRUSTED, is_opaque, is_whiteout
from manuka.linux.xattr import at, get_xattr, may_have_xattrs

log = logging.getLogger(__name__)

#: Bytes of a file that are read at once, and that headers and small files are gathered up to.
_PIECE = 1 << 18

_CAPABILITY = "security.capability"
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_WHITEOUT_MODE = 0o600

_NONE: Iterable[bytes] = ()

_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}


class ExportError(ManukaError):
    """A tree holds what a layer's tar cannot express."""


def export_tree(
    root: str, id_maps: IdMaps = IDENTITY, overlay_xattrs: str = TRUSTED
) -> Iterator[bytes]:
    """Pack an overlayfs layer's own folder.  Whiteouts and opaque folders become entries.

    Raises ExportError at once when a file in it bears a whiteout's name.
    """
    for _, path, entries in walk(root):
        for entry in entries:
            _check_name(path, entry.name)
    return _TreeExport(id_maps, overlay_xattrs).run(root)


def export_changes(
    tree: str, changes: Sequence[Change], id_maps: IdMaps = IDENTITY
) -> Iterator[bytes]:
    """Pack those files of a mounted tree that `changes` lists, sorted; deletions are whiteouts.

    Raises ExportError at once when a file among them bears a whiteout's name.
    """
    for change in changes:
        folder, _, name = change.path.rpartition("/")
        _check_name(folder, name)
    return _ChangesExport(id_maps).run(tree, changes)


def _check_name(folder: str, name: str) -> None:
    if name.startswith(".wh."):
        path = printable(os.fsencode(f"{folder}/{name}"))
        raise ExportError(
            f"{path}: a layer's tar cannot hold a file of this name, for it would stand "
            "for the deletion of another; rename it in the container"
        )


class _Export:
    """One tar in the making.  Pieces go out when `_PIECE` bytes have gathered."""

    def __init__(self, id_maps: IdMaps) -> None:
        self._id_maps = id_maps
        self._gathered: list[bytes] = []
        self._size = 0  # bytes that have gathered
        self._names: dict[tuple[int, int], bytes] = {}

    def _add(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result
    ) -> Iterable[bytes]:
        """Gather the entry for one file, which is called `name` in `folder` and `path` in the tar.

        Returns the pieces of a file larger than one.
        """
        mode = status.st_mode
        kind = _TYPES.get(stat.S_IFMT(mode))
        if kind is None:
            log.warning("%s is left out: a tar cannot hold a socket", os.fsdecode(path))
            return _NONE
        entry = self._entry(path, kind, status)
        linked = status.st_nlink > 1 and kind != DIRECTORY
        first = self._names.get((status.st_dev, status.st_ino)) if linked else None
        pieces = _NONE
        if first is None and kind == REGULAR:
            pieces = self._add_file(folder, name, entry)
        else:
            if kind in (CHARACTER_DEVICE, BLOCK_DEVICE):  # further names have the numbers as well
                entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            if first is not None:
                entry.type, entry.linkname = HARD_LINK, first
            elif kind == SYMLINK:
                entry.linkname = os.readlink(name, dir_fd=folder)
            self._add_capability(entry, at(folder, name))
            self._gather(header(entry))
        if linked:
            self._names.setdefault((status.st_dev, status.st_ino), path)
        return pieces

    def _add_file(self, folder: int, name: bytes, entry: Entry) -> Iterable[bytes]:
        try:
            descriptor = os.open(name, _OPEN_FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket now
                raise FileNotFoundError(f"{name!r} was replaced meanwhile") from error
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(f"{name!r} was replaced meanwhile")
            entry.size = status.st_size
            self._add_capability(entry, descriptor)
            self._gather(header(entry))
            if entry.size > _PIECE:
                return self._pieces(os.dup(descriptor), entry)
            self._gather_data(descriptor, entry.size, entry)
            self._gather(padding(entry.size))
            return _NONE
        finally:
            os.close(descriptor)

    def _pieces(self, descriptor: int, entry: Entry) -> Iterator[bytes]:
        """The same for all that follows the header of a large file.  Closes `descriptor`."""
        try:
            left = entry.size
            while left:
                count = min(left, _PIECE)
                self._gather_data(descriptor, count, entry)
                left -= count
                if self._size >= _PIECE:
                    yield self._take()
            self._gather(padding(entry.size))
        finally:
            os.close(descriptor)

    def _gather_data(self, descriptor: int, count: int, entry: Entry) -> None:
        while count:
            data = os.read(descriptor, count)
            if not data:
                log.warning("%r shrank while it was packed; filled with zeros", entry.name)
                data = bytes(count)
            self._gather(data)
            count -= len(data)

    def _entry(self, path: bytes, kind: int, status: os.stat_result) -> Entry:
        try:
            uid, gid = self._id_maps.to_container(status.st_uid, status.st_gid)
        except IdMapError as error:
            raise ExportError(f"/{printable(path)}: {error}") from error
        return Entry(
            path,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns // 10**9 * 10**9,
        )

    def _add_capability(self, entry: Entry, file: bytes | int) -> None:
        value = get_xattr(file, _CAPABILITY) if may_have_xattrs(file) else None
        if value is not None:
            entry.xattrs = {_CAPABILITY.encode(): _without_root_id(value)}

    def _gather(self, data: bytes) -> None:
        self._gathered.append(data)
        self._size += len(data)

    def _take(self) -> bytes:
        piece = b"".join(self._gathered)
        self._gathered.clear()
        self._size = 0
        return piece

    def _end(self) -> bytes:
        self._gather(END)
        return self._take()


class _TreeExport(_Export):
    def __init__(self, id_maps: IdMaps, overlay_xattrs: str) -> None:
        super().__init__(id_maps)
        self._xattrs = overlay_xattrs

    def run(self, root: str) -> Iterator[bytes]:
        """All pieces."""
        with opened_root(root) as root_fd:
            # Of the folders on the way down only the last is open: there may be thousands.
            way: list[tuple[bytes, Iterator[bytes] | None]] = [(b"", None)]
            while way:
                path, names = way.pop()
                try:
                    with opened_folder(root_fd, os.fsdecode(path)) as folder:
                        if names is None:
                            names = iter(sorted(map(os.fsencode, os.listdir(folder))))
                        below = yield from self._add_to_next_folder(folder, path, names)
                except (FileNotFoundError, NotADirectoryError):
                    log.warning("%s vanished while it was packed", os.fsdecode(path))
                    continue
                if below is not None:
                    way += [(path, names), (below, None)]
            yield self._end()

    def _add_to_next_folder(
        self, folder: int, folder_path: bytes, names: Iterator[bytes]
    ) -> Generator[bytes, None, bytes | None]:
        """Add entries up to that of a folder; return its path, or None at the end of `names`."""
        above = folder_path + b"/" if folder_path else b""
        for name in names:
            path = above + name
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if is_whiteout(status):
                    self._add_whiteout(above + PREFIX + name, status)
                else:
                    yield from self._add(folder, name, path, status)
                is_folder = stat.S_ISDIR(status.st_mode)
                if is_folder and is_opaque(at(folder, name), self._xattrs):
                    self._add_opaque_mark(path, status)
            except (FileNotFoundError, NotADirectoryError):
                log.warning("%s vanished while it was packed", os.fsdecode(path))
                continue
            if self._size >= _PIECE:
                yield self._take()
            if is_folder:
                return path
        return None

    def _add_whiteout(self, path: bytes, status: os.stat_result) -> None:
        entry = Entry(
            name=path,
            mode=_WHITEOUT_MODE,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns // 10**9 * 10**9,
        )
        self._gather(header(entry))

    def _add_opaque_mark(self, path: bytes, status: os.stat_result) -> None:
        uid, gid = self._id_maps.to_container(status.st_uid, status.st_gid)
        mode = status.st_mode & 0o777
        self._gather(header(Entry(name=path + b"/" + OPAQUE, mode=mode, uid=uid, gid=gid)))


class _ChangesExport(_Export):
    def run(self, tree: str, changes: Sequence[Change]) -> Iterator[bytes]:
        """All pieces."""
        with opened_root(tree) as root:
            for change in changes:
                parent, _, name = change.path.rpartition("/")
                path = os.fsencode(change.path[1:])
                if change.kind is Kind.DELETE:
                    folder, slash, base = path.rpartition(b"/")
                    whiteout = Entry(name=folder + slash + PREFIX + base, mode=_WHITEOUT_MODE)
                    self._gather(header(whiteout))
                    continue
                try:
                    with opened_folder(root, parent) as folder_fd:
                        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                        yield from self._add(folder_fd, os.fsencode(name), path, status)
                except (FileNotFoundError, NotADirectoryError):
                    log.warning("%s vanished while it was packed", change.path)
                if self._size >= _PIECE:
                    yield self._take()
            yield self._end()


def _without_root_id(capability: bytes) -> bytes:
    """A file capability as a layer stores it: revision 2, without the namespace's root id."""
    (magic,) = struct.unpack_from("<I", capability)
    if magic >> 24 != 3:
        return capability
    return struct.pack("<I", 2 << 24 | magic & 0xFFFFFF) + capability[4:20]
