"""Applying a layer's tar: two ways to say that something of the layers below is gone.

`apply_layer` unpacks into a mounted tree and deletes; any driver can use it.  `apply_overlay`
unpacks into an overlayfs layer's own folder and leaves whiteouts (`manuka.layers.whiteouts`).
Everything but the whiteouts is the same for both and lies in `manuka.layers.unpack`.

Source: ``UnpackLayer`` and ``overlayWhiteoutConverter`` in the engine's ``pkg/archive``.
Easy to get wrong: whiteouts and opaque marks hide lower layers only, not what their own tar holds,
before them or behind them (OCI image specification, ``layer.md``).  So one that has nothing to hide
does nothing, in any order: below another, below what this tar has instead of a folder, through a
link, or where nothing ever was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, Callable, Dict, Sequence

from manuka.layers import stack
from manuka.layers.idmap import IDENTITY, IdMapError, IdMaps
from manuka.layers.tar import Entry, Stream
from manuka.layers.unpack import Applied, ApplyError, Unpacker, joined, path_of
from manuka.layers.whiteouts import TRUSTED, is_opaque, is_whiteout
from manuka.linux.xattr import at

_Names = Dict[bytes, Any]  # of _Names

__all__ = ["Applied", "ApplyError", "apply_layer", "apply_overlay"]


#: Folders that are remembered at once, so that memory does not grow with the layer.
_REMEMBERED = 4096

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


def apply_layer(stream: Stream, tree: str, id_maps: IdMaps = IDENTITY) -> Applied:
    """Unpack the tar `stream` into a mounted tree; whiteouts delete.

    Reads the stream to its end.  Raises TarError or ApplyError, naming the entry.
    """
    return _Merging(tree, id_maps).run(stream)


def apply_overlay(
    stream: Stream,
    folder: str,
    lowers: Callable[[], Sequence[str]],
    id_maps: IdMaps = IDENTITY,
    overlay_xattrs: str = TRUSTED,
) -> Applied:
    """Unpack the tar `stream` into the own folder of an overlayfs layer; whiteouts stay.

    `lowers` gives the own folders of the layers below, uppermost first.  It is called once, when
    what they hold matters: for most layers never, and a stack may be deep.  Raises as
    `apply_layer`, and what `lowers` raises.
    """
    return _Overlaying(folder, lowers, id_maps, overlay_xattrs).run(stream)


class _Merging(Unpacker):
    """Whiteouts delete from the tree that is being unpacked into."""

    def __init__(self, root: str, id_maps: IdMaps) -> None:
        super().__init__(root, id_maps)
        # What this tar has unpacked: the names in each folder, with what is in them. A set of
        # paths would need many times the tar's size for folders that are nested deeply.
        self._unpacked: _Names = {}
        self._hidden: set[tuple[int, int]] = set()
        self._with_entry: set[int] = set()  # inodes of directories that this tar has entries for

    def _note(self, path: bytes) -> None:
        names = self._unpacked
        for name in path.split(b"/"):
            below = names.get(name)
            if below is None:
                below = names[name] = {}
            names = below

    def _note_folder(self, name: bytes) -> None:
        self._with_entry.add(os.lstat(name, dir_fd=self._parent.fd).st_ino)

    def _names(self, path: bytes) -> _Names | None:
        """What this tar has unpacked in the folder `path`; None when not even that."""
        names: _Names | None = self._unpacked
        for name in path.split(b"/") if path else ():
            names = names.get(name) if names is not None else None
        return names

    def _is_own(self, path: bytes) -> bool:
        return self._names(path) is not None

    def _view(self) -> list[bytes]:
        return [path_of(self._root)]

    def _enter_lower(self, folder: bytes) -> bool:
        if not folder:
            self._enter(folder)
        elif folder != self._parent.real or folder != self._parent.path:
            fd = self._open_folder(folder)
            if fd is None:
                return False
            self._leave()
            self._arrive(folder, folder, fd)
        return True

    def _hide(self, entry: Entry, name: bytes) -> None:
        try:
            status = os.lstat(name, dir_fd=self._parent.fd)
        except FileNotFoundError:
            return
        path = joined(self._parent.real, name)
        if not self._is_own(path):
            self._clear(name)
        elif stat.S_ISDIR(status.st_mode):
            if status.st_ino not in self._with_entry:
                self._forget_lower(name)
            self._hide_below(path)

    def _hide_below(self, folder: bytes) -> None:
        pending = [(folder, self._names(folder) or {})]
        while pending:
            path, names = pending.pop()
            self._enter(path)
            if self._was_hidden():
                continue
            for text in os.listdir(self._parent.fd):
                name = os.fsencode(text)
                if name not in names:
                    self._clear(name)
                    continue
                status = os.lstat(name, dir_fd=self._parent.fd)
                if stat.S_ISDIR(status.st_mode):
                    if status.st_ino not in self._with_entry:
                        self._forget_lower(name)
                    pending.append((joined(path, name), names[name]))

    def _was_hidden(self) -> bool:
        """Whether all of lower layers is gone from the current parent already, and note it.

        Nothing of them comes back, so one look at each folder is enough: a tar may have as many
        opaque marks as files.
        """
        status = os.fstat(self._parent.fd)
        identity = (status.st_dev, status.st_ino)
        if identity in self._hidden:
            return True
        self._hidden.add(identity)
        return False


class _Overlaying(Unpacker):
    """Whiteouts are left in the layer's own folder, as an overlayfs wants them."""

    def __init__(
        self,
        root: str,
        lowers: Callable[[], Sequence[str]],
        id_maps: IdMaps,
        overlay_xattrs: str,
    ) -> None:
        super().__init__(root, id_maps)
        self._path = path_of(self._root)
        self._look_up_lowers = lowers
        self._known_lowers: list[bytes] | None = None
        self._xattrs = overlay_xattrs
        self._root_is_opaque = False
        # Folders of this layer by their paths: what of the lower layers merges with each.
        self._merging: dict[bytes, list[bytes]] = {}
        # Names of files that were brought up for a link to them, as hashes, with their folder's
        # inode: lower layers have these, and not this tar.
        self._copied: set[int] = set()
        self._filled = self._parent

    @property
    def _lowers(self) -> list[bytes]:
        if self._known_lowers is None:
            self._known_lowers = [os.fsencode(lower) for lower in self._look_up_lowers()]
        return self._known_lowers

    def _below(self, path: bytes) -> stack.Found | None:
        if self._root_is_opaque or not self._lowers:
            return None
        return stack.find([self._path, *self._lowers], path, self._xattrs)

    def _look_up(self, place: Sequence[bytes], name: bytes) -> stack.Found | None:
        return stack.look_up(place, name, self._xattrs)

    def _view(self) -> list[bytes]:
        return [self._path] if self._root_is_opaque else [self._path, *self._lowers]

    def _is_own(self, path: bytes) -> bool:
        return True  # Nothing of lower layers is in this layer's own folder.

    def _note(self, path: bytes) -> None:
        if self._copied:
            self._copied.discard(self._key(path.rpartition(b"/")[2]))
        if self._parent is not self._filled:
            self._fill()

    def _note_copy(self, name: bytes) -> None:
        self._copied.add(self._key(name))
        self._fill()

    def _key(self, name: bytes) -> int:
        return hash((os.fstat(self._parent.fd).st_ino, name))

    def _fill(self) -> None:
        """Note that the current parent, and what it is in, holds more than whiteouts."""
        self._filled = self._parent
        if not self._implied:
            return
        folder = os.dup(self._parent.fd)
        try:
            inode = os.fstat(folder).st_ino
            while self._implied.get(inode):
                self._implied[inode] = False
                above = os.open(b"..", os.O_PATH, dir_fd=folder)
                os.close(folder)
                folder = above
                inode = os.fstat(folder).st_ino
        finally:
            os.close(folder)

    def _enter_lower(self, folder: bytes) -> bool:
        if self._root_is_opaque:
            return False
        if not folder:
            self._enter(folder)
            return True
        if folder == self._parent.path == self._parent.real:
            return True
        known, missing = self._there(folder)
        if known is None:
            return False
        place = self._merging_with(known)
        for name in missing:
            below = self._look_up(place, name)
            if below is None or not below.folders:
                return False
            known = joined(known, name)
            place = self._make_implied(known, below, for_whiteouts=True)
        self._enter(folder)
        return True

    def _there(self, folder: bytes) -> tuple[bytes | None, list[bytes]]:
        """How far `folder` is there in this layer, and the names of what is missing then.

        None when something else than a folder is in the way.
        """
        names = folder.split(b"/")
        parent = os.dup(self._root)
        try:
            for count, name in enumerate(names):
                try:
                    child = os.open(name, _FOLDER, dir_fd=parent)
                except FileNotFoundError:
                    return b"/".join(names[:count]), names[count:]
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    return None, []
                os.close(parent)
                parent = child
        finally:
            os.close(parent)
        return folder, []

    def _hide(self, entry: Entry, name: bytes) -> None:
        if not self._merges():
            return  # Nothing is there, and the kernel would list such a whiteout as a file.
        try:
            self._make_whiteout(name)
        except FileExistsError:
            status = os.lstat(name, dir_fd=self._parent.fd)
            if not self._is_after_lower(name, status):
                if stat.S_ISDIR(status.st_mode):
                    if status.st_ino in self._implied:
                        self._forget_lower(name)
                    self._replaced_by_folder(joined(self._parent.real, name))
                return
            self._clear(name)
            self._make_whiteout(name)
        # Nobody sees this owner, and the kernel's own whiteouts have none that could be mapped.
        with contextlib.suppress(IdMapError):
            owner = self._id_maps.to_host(entry.uid, entry.gid)
            os.chown(name, *owner, dir_fd=self._parent.fd, follow_symlinks=False)

    def _is_after_lower(self, name: bytes, status: os.stat_result) -> bool:
        """Whether `name` in the current parent is there for a lower layer's sake alone."""
        if stat.S_ISDIR(status.st_mode):
            return self._implied.get(status.st_ino, False)
        return bool(self._copied) and self._key(name) in self._copied

    def _merges(self) -> bool:
        """Whether something of lower layers shows through the current parent folder."""
        return bool(self._merging_with(self._parent.real))

    def _merging_with(self, path: bytes) -> list[bytes]:
        """The lower layers' folders that merge with this layer's folder at `path`.

        Remembered, for many whiteouts may lie in one folder, and many folders below another.
        """
        if not self._merging or len(self._merging) > _REMEMBERED:
            self._merging = {b"": self._lowers}
        known, missing = path, []
        while known not in self._merging:
            known, _, name = known.rpartition(b"/")
            missing.append(name)
        folders = self._merging[known]
        for name in reversed(missing):
            known = joined(known, name)
            if folders and not is_opaque(self._path + b"/" + known, self._xattrs):
                found = stack.look_up(folders, name, self._xattrs)
                folders = found.folders if found else []
            else:
                folders = []
            self._merging[known] = folders
        return folders

    def _forget_merging(self) -> None:
        self._merging.clear()

    def _clear(self, name: bytes) -> None:
        self._forget_merging()  # It may have been a folder, and opaque.
        if self._copied:
            self._copied.discard(self._key(name))
        super()._clear(name)

    def _hide_below(self, folder: bytes) -> None:
        if not folder:
            self._root_is_opaque = True
            return
        self._enter(folder)
        if is_opaque(self._parent.fd, self._xattrs):
            return
        merges = self._merges()
        self._forget_merging()
        os.setxattr(self._parent.fd, self._xattrs + "opaque", b"y")
        # Whiteouts that are there already have nothing to hide any more, see `_hide`. Where
        # nothing merges there are none: a tar may have as many opaque marks as files, so no
        # folder is looked through twice.
        pending = [folder] if merges else []
        while pending:
            path = pending.pop()
            self._enter(path)
            for text in os.listdir(self._parent.fd):
                name = os.fsencode(text)
                status = os.lstat(name, dir_fd=self._parent.fd)
                if is_whiteout(status) or self._is_after_lower(name, status):
                    self._clear(name)
                elif stat.S_ISDIR(status.st_mode):
                    if status.st_ino in self._implied:
                        self._forget_lower(name)
                    if not is_opaque(at(self._parent.fd, name), self._xattrs):
                        pending.append(path + b"/" + name)

    def _replaced_by_folder(self, path: bytes) -> None:
        # What was there hid the lower layers' folder, and that must not come back.
        self._enter(path)
        if self._merges():
            self._hide_below(path)

    def _finish(self) -> None:
        super()._finish()
        if not self._root_is_opaque:
            return
        # The kernel has no opaque roots: hide each name instead.
        here = {os.fsencode(name) for name in os.listdir(self._root)}
        for name in stack.visible_names(self._lowers, self._xattrs):
            self._enter(b"")
            if name not in here:
                self._make_whiteout(name)
                continue
            status = os.lstat(name, dir_fd=self._root)
            if self._is_after_lower(name, status):
                self._clear(name)
                self._make_whiteout(name)
            elif stat.S_ISDIR(status.st_mode):
                if status.st_ino in self._implied:
                    self._forget_lower(name)
                self._hide_below(name)

    def _make_whiteout(self, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._parent.fd)
