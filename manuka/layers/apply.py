"""Applying a layer's tar: two ways to say that something of the layers below is gone.

`apply_layer` unpacks into a mounted tree and deletes; any driver can use it.  `apply_overlay`
unpacks into an overlayfs layer's own folder and leaves whiteouts (`manuka.layers.whiteouts`).
Everything but the whiteouts is the same for both and lies in `manuka.layers.unpack`.

Source: ``UnpackLayer`` and ``overlayWhiteoutConverter`` in the engine's ``pkg/archive``.
Easy to get wrong: an opaque mark hides lower layers only, never what its own tar holds, before it
or behind it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, Callable, Dict, Sequence

from manuka.layers import stack
from manuka.layers.idmap import IDENTITY, IdMapError, IdMaps
from manuka.layers.tar import Entry, Stream
from manuka.layers.unpack import Applied, ApplyError, Unpacker
from manuka.layers.whiteouts import TRUSTED, is_opaque, is_whiteout
from manuka.linux.xattr import at

_Names = Dict[bytes, Any]  # of _Names

__all__ = ["Applied", "ApplyError", "apply_layer", "apply_overlay"]


#: Folders that are remembered at once, so that memory does not grow with the layer.
_REMEMBERED = 4096


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

    def _note(self, path: bytes) -> None:
        names = self._unpacked
        for name in path.split(b"/") if path else ():
            below = names.get(name)
            if below is None:
                below = names[name] = {}
            names = below

    def _hide(self, entry: Entry, name: bytes) -> None:
        if os.path.lexists(at(self._parent.fd, name)):
            self._clear(name)

    def _hide_below(self, folder: bytes) -> None:
        names = self._unpacked
        for name in folder.split(b"/") if folder else ():
            names = names.get(name, {})
        pending = [(folder, names)]
        while pending:
            path, names = pending.pop()
            self._enter(path)
            if self._was_hidden():
                continue
            for text in os.listdir(self._parent.fd):
                name = os.fsencode(text)
                if name not in names:
                    self._clear(name)
                elif stat.S_ISDIR(os.lstat(name, dir_fd=self._parent.fd).st_mode):
                    pending.append((path + b"/" + name if path else name, names[name]))

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
        self._path = _path_of(self._root)
        self._look_up_lowers = lowers
        self._known_lowers: list[bytes] | None = None
        self._xattrs = overlay_xattrs
        self._root_is_opaque = False
        # Folders of this layer by their paths: what of the lower layers merges with each.
        self._merging: dict[bytes, list[bytes]] = {}

    @property
    def _lowers(self) -> list[bytes]:
        if self._known_lowers is None:
            self._known_lowers = [os.fsencode(lower) for lower in self._look_up_lowers()]
        return self._known_lowers

    def _below(self, path: bytes) -> stack.Found | None:
        if self._root_is_opaque or not self._lowers:
            return None
        return stack.find([self._path, *self._lowers], path, self._xattrs)

    def _below_new(self, place: Sequence[bytes], name: bytes) -> stack.Found | None:
        return stack.look_up(place, name, self._xattrs)

    def _hide(self, entry: Entry, name: bytes) -> None:
        if not self._merges():
            # Nothing is there to hide, and the kernel would list such a whiteout as a file.
            if os.path.lexists(at(self._parent.fd, name)):
                self._clear(name)
            return
        try:
            self._make_whiteout(name)
        except FileExistsError:
            self._clear(name)
            self._make_whiteout(name)
        # Nobody sees this owner, and the kernel's own whiteouts have none that could be mapped.
        with contextlib.suppress(IdMapError):
            owner = self._id_maps.to_host(entry.uid, entry.gid)
            os.chown(name, *owner, dir_fd=self._parent.fd, follow_symlinks=False)

    def _merges(self) -> bool:
        """Whether something of lower layers shows through the current parent folder."""
        if not self._parent.path:
            return bool(self._lowers)
        # The folder's own path: that in the tar may lead through symbolic links.
        path = _path_of(self._parent.fd)[len(self._path) + 1 :]
        return bool(self._merging_with(path))

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
            known = known + b"/" + name if known else name
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
                if is_whiteout(status):
                    os.unlink(name, dir_fd=self._parent.fd)
                elif stat.S_ISDIR(status.st_mode) and not is_opaque(
                    at(self._parent.fd, name), self._xattrs
                ):
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
            elif stat.S_ISDIR(os.lstat(name, dir_fd=self._root).st_mode):
                self._hide_below(name)

    def _make_whiteout(self, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._parent.fd)


def _path_of(fd: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % fd)
