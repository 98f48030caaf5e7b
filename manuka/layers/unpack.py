"""The unpacker: entries of a tar become files below one folder, and nowhere else.

`manuka.layers.apply` says what a whiteout means; everything else is here.

A layer's tar is not to be trusted: its names, links and whiteouts come from whoever made the
image.  Every entry is therefore created relative to the descriptor of its parent folder, and
parents are opened by `manuka.linux.openat2`, for which the layer's folder is the root of the
file system: ``..`` stops there, and links lead to places inside.  The engine gets the same
meaning from a process of its own in a chroot (``pkg/archive/diff.go``, ``archive.go``).

Easy to get wrong: the order owner, attributes, permissions, times (a chown drops setuid bits and
capabilities); and a folder's time, which changes with everything created in it, so that it has
to be set again when the folder is left.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import logging
import os
import stat
from typing import Iterator, NamedTuple, Sequence, Union

from manuka.errors import ManukaError
from manuka.layers import stack
from manuka.layers.copy import copy_data
from manuka.layers.idmap import IdMapError, IdMaps
from manuka.layers.stack import Found
from manuka.layers.tar import (
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
    TarReader,
)
from manuka.layers.whiteouts import (
    AUFS_LINKS,
    AUFS_PREFIX,
    OPAQUE,
    PREFIX,
    TRUSTED,
    USER,
    is_whiteout,
)
from manuka.linux.kernel import in_user_namespace, umask
from manuka.linux.openat2 import open_in_root
from manuka.linux.tree import remove_tree
from manuka.linux.xattr import at, get_xattr

log = logging.getLogger(__name__)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_HANDLE = os.O_PATH | os.O_NOFOLLOW

#: Why there is no folder at a path, when links are not followed.
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

#: Symbolic links on one path, as in the kernel, and names that they may lead through.
_MOST_LINKS = 40
_MOST_STEPS = 4096

#: The latest time that the engine sets, in ns since 1970; what is later or earlier than 1970
#: becomes 1970 (``chtimes.go``).
_LATEST = 2**63 - 1

#: Lines that one tar may add to the log.
_MOST_WARNINGS = 20

#: Attributes that a file system refuses with these are left out, as in the engine up to 24.
_TOLERATED = (errno.ENOTSUP, errno.EPERM)

#: An open file, or a path that leads to the file itself.
_File = Union[int, bytes]


class ApplyError(ManukaError):
    """A layer's tar asks for what cannot be done; the text names the entry."""


class Applied(NamedTuple):
    """What came of unpacking.

    content_size: bytes of file contents and link targets that were written.
    exact: nothing that was written has been replaced again, so `content_size` is what is there.
    """

    content_size: int
    exact: bool


class _Parent(NamedTuple):
    """The folder in which entries are being created.

    path: as the tar names it.
    real: the same without symbolic links on the way.
    times: its access and modification time, to be set again when it is left; None: don't.
    plain: what is created in it gets exactly the permissions and the owner asked for.
    """

    path: bytes
    real: bytes
    fd: int
    times: tuple[int, int] | None
    plain: bool


class Unpacker(abc.ABC):
    """One run over one tar.  Subclasses say what a whiteout means."""

    def __init__(self, root: str, id_maps: IdMaps) -> None:
        self._id_maps = id_maps
        self._root = os.open(root, _FOLDER)
        self._top = self._parent = _Parent(
            b"", b"", self._root, None, _is_plain(self._root, os.fstat(self._root))
        )
        self._own = (os.geteuid(), os.getegid())
        self._umask = umask()
        self._devices = not in_user_namespace()
        self._content_size = 0
        self._exact = True
        self._warned: set[str] = set()
        # Folders made after lower ones, which this tar has no entry for, and whether they hold
        # whiteouts alone. Inodes: paths would take thousands of bytes each.
        self._implied: dict[int, bool] = {}
        # Folders, by inode as well, with the set-group-id bit by this tar.
        self._set_gid: set[int] = set()

    # --- the run ---------------------------------------------------------------------------------

    def run(self, stream: Stream) -> Applied:
        """Unpack everything."""
        self._reader = reader = TarReader(stream)
        try:
            for entry in reader:
                try:
                    self._unpack(entry)
                except (OSError, IdMapError, OverflowError) as error:
                    raise ApplyError(f"{shown(entry.name)}: {_reason(error)}") from error
            self._finish()
            self._leave()
        finally:
            if self._parent.fd != self._root:
                os.close(self._parent.fd)
            os.close(self._root)
        return Applied(self._content_size, self._exact)

    def _unpack(self, entry: Entry) -> None:
        path = _clean(entry.name)
        folder, _, name = path.rpartition(b"/")
        if not name:
            return  # The root: as in the engine, it stays as the driver made it.
        if path.startswith(AUFS_PREFIX) and path != OPAQUE:
            if path != AUFS_LINKS and folder != AUFS_LINKS:
                return
            self._exact = False
        elif name.startswith(PREFIX):
            self._unpack_whiteout(entry, folder, name)
            return
        if entry.type == CHARACTER_DEVICE and not (entry.devmajor or entry.devminor):
            self._unpack_whiteout(entry, folder, PREFIX + name)  # what an overlayfs takes it for
            return
        self._enter(folder)
        self._note(joined(self._parent.real, name))
        self._MAKERS[entry.type](self, entry, name, path)

    def _unpack_whiteout(self, entry: Entry, folder: bytes, name: bytes) -> None:
        if name == OPAQUE:
            if self._enter_lower(folder):
                self._hide_below(folder)
            return
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise ApplyError(f"{shown(entry.name)}: a whiteout has to name what it hides")
        if self._enter_lower(folder):
            self._hide(entry, hidden)

    def _finish(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(AUFS_LINKS, dir_fd=self._root)
            self._leave()
            self._clear(AUFS_LINKS)

    # --- what a subclass decides -----------------------------------------------------------------

    @abc.abstractmethod
    def _enter_lower(self, folder: bytes) -> bool:
        """Make `folder` the current parent if lower layers may have something there.

        False when they have no such folder, or none that shows: no link is followed, and what
        this tar has instead of a folder hides the lower one with all that is in it.
        """

    @abc.abstractmethod
    def _hide(self, entry: Entry, name: bytes) -> None:
        """Hide what lower layers have as `name` in the current parent, where they may have it."""

    @abc.abstractmethod
    def _hide_below(self, folder: bytes) -> None:
        """Hide what lower layers have in `folder`."""

    @abc.abstractmethod
    def _is_own(self, path: bytes) -> bool:
        """Whether what is at `path` in the tree, and is no whiteout, comes from this tar."""

    @abc.abstractmethod
    def _view(self) -> list[bytes]:
        """The folders whose merge is what this layer shows, uppermost first."""

    def _replaced_by_folder(self, path: bytes) -> None:
        """Hook: a folder took the place of something else, or of a whiteout, of this tar."""

    def _note(self, path: bytes) -> None:
        """Hook: called for each entry, when its folder is the current parent.

        path: without symbolic links on the way.
        """

    def _note_folder(self, name: bytes) -> None:
        """Hook: called for each directory's entry, which is `name` in the current parent now."""

    def _note_copy(self, name: bytes) -> None:
        """Hook: a file of a lower layer is copied to `name` in the current parent."""

    def _below(self, path: bytes) -> Found | None:
        """What shows through at `path` from lower layers, when these are not in the tree itself.

        Asked only while nothing is at `path` in the tree.
        """
        return None

    def _look_up(self, place: Sequence[bytes], name: bytes) -> Found | None:
        """What shows as `name` in the merged folders `place`."""
        return stack.look_up(place, name)

    # --- parent folders --------------------------------------------------------------------------

    def _enter(self, path: bytes) -> None:
        """Make the folder at `path` the current parent, creating it when it is not there."""
        if path == self._parent.path:
            return
        self._leave()
        if not path:
            return
        real = path
        try:
            fd = open_in_root(self._root, path, _FOLDER, follow=False)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            if error.errno == errno.ELOOP:
                real = self._without_links(path)
            fd = self._make_way(real)
        self._arrive(path, real, fd)

    def _arrive(self, path: bytes, real: bytes, fd: int) -> None:
        status = os.fstat(fd)
        times = (status.st_atime_ns, status.st_mtime_ns)
        self._parent = _Parent(path, real, fd, times, _is_plain(fd, status))

    def _leave(self) -> None:
        """Go back to the root; restore the times of the parent that is left."""
        parent = self._parent
        if parent.fd == self._root:
            return
        self._parent = self._top
        try:
            if parent.times:
                os.utime(parent.fd, ns=parent.times)
        finally:
            os.close(parent.fd)

    def _open_folder(self, path: bytes) -> int | None:
        """A descriptor of the folder at `path`; None if that, without links, leads to none."""
        try:
            return open_in_root(self._root, path or b".", _FOLDER, follow=False)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            return None

    def _make_way(self, path: bytes) -> int:
        """Open the folder at `path`, which leads through no link; what is missing is made."""
        fd = self._open_folder(path)
        if fd is None:
            place: list[bytes] | None = None
            for missing in self._missing_folders(path):
                # Looking up anew from the root, for each of thousands of folders in each other,
                # would take hours.
                name = missing.rpartition(b"/")[2]
                below = self._below(missing) if place is None else self._look_up(place, name)
                place = self._make_implied(missing, below)
            self._leave()
            fd = open_in_root(self._root, path, _FOLDER, follow=False)
        return fd

    def _missing_folders(self, path: bytes) -> list[bytes]:
        """`path` and those folders above it that are not there, the uppermost first."""
        missing = [path]
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            fd = self._open_folder(path)
            if fd is not None:
                os.close(fd)
                break
            missing.insert(0, path)
        return missing

    def _make_implied(
        self, path: bytes, below: Found | None, for_whiteouts: bool = False
    ) -> list[bytes]:
        """Make a folder that the tar has no entry for, like the one it stands for `below`.

        Returns the folders of lower layers that merge there.
        """
        folder, _, name = path.rpartition(b"/")
        self._enter(folder)
        replaces = False
        try:
            os.mkdir(name, 0o755, dir_fd=self._parent.fd)
        except FileExistsError:
            replaces = is_whiteout(os.lstat(name, dir_fd=self._parent.fd))
            if not replaces and self._is_own(path):
                text = f"{shown(path)} is not a directory in this layer"
                raise NotADirectoryError(errno.ENOTDIR, text) from None
            self._clear(name)
            os.mkdir(name, 0o755, dir_fd=self._parent.fd)
        if not for_whiteouts:
            self._note(path)
        with self._opened(name, _FOLDER | os.O_NOFOLLOW) as fd:
            self._drop_inherited(fd)
            status = os.fstat(fd)
            self._implied.pop(status.st_ino, None)  # of one that is gone
            self._set_gid.discard(status.st_ino)
            if below and below.folders:
                self._copy_attributes(below, fd)
                self._implied[status.st_ino] = for_whiteouts
            else:
                os.chown(fd, *self._id_maps.root)
                # As in the engine's overlay2, where no lower layer's folder is there to give it on.
                inherits = self._set_gid and os.fstat(self._parent.fd).st_ino in self._set_gid
                inherited = status.st_mode & stat.S_ISGID if inherits else 0
                if inherited:
                    self._set_gid.add(status.st_ino)
                os.chmod(fd, 0o755 | inherited)
        if replaces:
            self._replaced_by_folder(path)
            return []
        return below.folders if below else []

    # --- symbolic links on the way ---------------------------------------------------------------

    def _without_links(self, path: bytes) -> bytes:
        """Where `path` leads, which has a symbolic link on its way, as a path without any.

        A link of this tar leads on within what the layer shows, lower layers and all.  One of a
        lower layer stays in the path: as in the engine, a folder takes its place.
        """
        link = self._first_link(path)
        if not self._is_own(link):
            return path
        try:
            fd = open_in_root(self._root, path, _FOLDER)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            return self._follow(path, link)
        try:
            return path_of(fd)[len(path_of(self._root)) + 1 :]
        finally:
            os.close(fd)

    def _first_link(self, path: bytes) -> bytes:
        """The part of `path` up to and with the first symbolic link on it."""
        names = path.split(b"/")
        folder = os.open(b".", _HANDLE, dir_fd=self._root)
        try:
            for count, name in enumerate(names, 1):
                found = os.open(name, _HANDLE, dir_fd=folder)
                os.close(folder)
                folder = found
                if stat.S_ISLNK(os.fstat(folder).st_mode):
                    return b"/".join(names[:count])
        finally:
            os.close(folder)
        return path

    def _follow(self, path: bytes, link: bytes) -> bytes:
        """Follow the links on `path`, of which `link` is the first, through all layers.

        Raises OSError, naming the link, when it does not lead to a directory.
        """
        todo = [(name, False) for name in path.split(b"/")[::-1]]
        done: list[bytes] = []
        place = self._view()
        links, steps = 0, 0
        while todo:
            name, of_link = todo.pop()
            if name in (b"", b"."):
                continue
            steps += 1
            if name == b"..":
                todo.extend((above, True) for above in done[-2::-1])
                done, place = [], self._view()
                continue
            found = self._look_up(place, name)
            if found and stat.S_ISLNK(found.status.st_mode):
                links += 1
                if links > _MOST_LINKS or steps > _MOST_STEPS:
                    text = f"the link {shown(link)} on its path leads through too many others"
                    raise OSError(errno.ELOOP, text)
                target = os.readlink(found.path)
                if target.startswith(b"/"):
                    done, place = [], self._view()
                todo.extend((name, True) for name in target.split(b"/")[::-1])
                continue
            done.append(name)
            if (found or of_link) and not (found and found.folders):
                done.extend(rest for rest, of_link in reversed(todo) if of_link and rest)
                text = (
                    f"the link {shown(link)} on its path leads to {shown(b'/'.join(done))}, "
                    "which is not a directory of this layer or of one below it"
                )
                raise NotADirectoryError(errno.ENOTDIR, text)
            place = found.folders if found else []
        return b"/".join(done)

    # --- one maker for each type of entry --------------------------------------------------------

    def _make_file(self, entry: Entry, name: bytes, path: bytes) -> None:
        parent = self._parent.fd
        mode = entry.mode
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._clear(name)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            self._reader.copy_data(fd)
            self._content_size += entry.size
            if self._is_as_created(entry):
                if mode & self._umask:
                    os.chmod(fd, mode)
                os.utime(fd, ns=_times(entry))
            else:
                self._drop_inherited(fd)
                self._set_attributes(fd, entry)
        finally:
            os.close(fd)

    def _make_folder(self, entry: Entry, name: bytes, path: bytes) -> None:
        parent = self._parent.fd
        created, replaces = True, False
        try:
            os.mkdir(name, entry.mode, dir_fd=parent)
        except FileExistsError:
            created = replaces = not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)
            if replaces:
                self._clear(name)
                os.mkdir(name, entry.mode, dir_fd=parent)
        if created and self._implied:
            self._implied.pop(os.lstat(name, dir_fd=parent).st_ino, None)  # of one that is gone
        if created and self._is_as_created(entry) and not entry.mode & self._umask:
            os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)
        else:
            with self._opened(name, _FOLDER | os.O_NOFOLLOW) as fd:
                if created:
                    self._drop_inherited(fd)
                elif self._implied and os.fstat(fd).st_ino in self._implied:
                    del self._implied[os.fstat(fd).st_ino]
                    self._drop_copied(fd)
                self._set_attributes(fd, entry)
                if entry.mode & stat.S_ISGID:
                    self._set_gid.add(os.fstat(fd).st_ino)
        self._note_folder(name)
        if replaces:
            self._replaced_by_folder(path)

    def _make_symlink(self, entry: Entry, name: bytes, path: bytes) -> None:
        parent = self._parent.fd
        try:
            os.symlink(entry.linkname, name, dir_fd=parent)
        except FileExistsError:
            self._clear(name)
            os.symlink(entry.linkname, name, dir_fd=parent)
        self._content_size += len(entry.linkname)
        self._set_link_attributes(entry, name)

    def _make_hard_link(self, entry: Entry, name: bytes, path: bytes) -> None:
        target = _clean(entry.linkname)
        if target == path:
            raise ApplyError(f"{shown(entry.name)}: a hard link to itself cannot be made")
        try:
            self._link(target, name)
        except FileNotFoundError:
            below = self._below(target)
            if below is None or below.folders:
                raise _missing(entry) from None
            folder = self._parent.path
            self._copy_up(below, target)
            self._enter(folder)
            self._link(target, name)
        status = os.lstat(name, dir_fd=self._parent.fd)
        if is_whiteout(status):
            raise _missing(entry)
        if stat.S_ISLNK(status.st_mode):
            self._set_link_owner(entry, name)
        else:
            owner = (status.st_uid, status.st_gid)
            with self._handle(name) as handle:
                self._set_attributes(handle, entry, owner)

    def _make_node(self, entry: Entry, name: bytes, path: bytes) -> None:
        if entry.type == FIFO:
            kind, device = stat.S_IFIFO, 0
        else:
            kind = stat.S_IFCHR if entry.type == CHARACTER_DEVICE else stat.S_IFBLK
            device = os.makedev(entry.devmajor, entry.devminor)
            if not self._devices:
                return  # As in the engine: a user namespace may not make devices.
        try:
            os.mknod(name, kind | entry.mode, device, dir_fd=self._parent.fd)
        except FileExistsError:
            self._clear(name)
            os.mknod(name, kind | entry.mode, device, dir_fd=self._parent.fd)
        with self._handle(name) as handle:
            self._drop_inherited(handle)
            self._set_attributes(handle, entry)

    # Not bound methods in each object: such a circle would keep the reader's buffer for long.
    _MAKERS = {
        REGULAR: _make_file,
        HARD_LINK: _make_hard_link,
        SYMLINK: _make_symlink,
        CHARACTER_DEVICE: _make_node,
        BLOCK_DEVICE: _make_node,
        DIRECTORY: _make_folder,
        FIFO: _make_node,
    }

    # --- what makers share -----------------------------------------------------------------------

    def _clear(self, name: bytes) -> None:
        """Remove whatever has this name in the current parent: the later entry wins."""
        self._exact = False
        try:
            os.unlink(name, dir_fd=self._parent.fd)
        except IsADirectoryError:
            remove_tree(os.fsdecode(at(self._parent.fd, name)))

    def _link(self, target: bytes, name: bytes) -> None:
        folder, _, target_name = target.rpartition(b"/")
        parent = self._parent.fd
        source = (
            parent
            if folder == self._parent.path
            else open_in_root(self._root, folder or b".", _FOLDER)
        )
        folders = {"src_dir_fd": source, "dst_dir_fd": parent}
        try:
            os.link(target_name, name, **folders, follow_symlinks=False)
        except FileExistsError:
            self._clear(name)
            os.link(target_name, name, **folders, follow_symlinks=False)
        finally:
            if source != parent:
                os.close(source)

    def _copy_up(self, below: Found, path: bytes) -> None:
        """Bring a file of a lower layer into this one, so that it can be linked to."""
        folder, _, name = path.rpartition(b"/")
        self._enter(folder)
        self._note_copy(name)
        parent = self._parent.fd
        status = below.status
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(below.path), name, dir_fd=parent)
            owner, times = (status.st_uid, status.st_gid), (status.st_atime_ns, status.st_mtime_ns)
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            target = os.open(name, _CREATE, 0o600, dir_fd=parent)
            with open(target, "wb", buffering=0), open(below.path, "rb", 0) as source:
                copy_data(source.fileno(), target, status.st_size)
                self._drop_inherited(target)
                self._copy_attributes(below, target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=parent)
            with self._handle(name) as handle:
                self._drop_inherited(handle)
                self._copy_attributes(below, handle)
        self._content_size += status.st_size

    def _is_as_created(self, entry: Entry) -> bool:
        """Whether creating it gave this entry all it wants, but what the umask takes away."""
        return (
            not entry.xattrs
            and self._parent.plain
            and not entry.mode & 0o7000
            and self._id_maps.to_host(entry.uid, entry.gid) == self._own
        )

    def _drop_inherited(self, file: _File) -> None:
        """Take off a new file the access lists that its parent folder gave it."""
        if not self._parent.plain:
            for name in ("system.posix_acl_access", "system.posix_acl_default"):
                with contextlib.suppress(OSError):
                    os.removexattr(file, name)

    def _forget_lower(self, name: bytes) -> None:
        """Take from an implied folder what it has from a lower one that this layer hides."""
        parent = os.fstat(self._parent.fd).st_ino
        with self._opened(name, _FOLDER | os.O_NOFOLLOW) as fd:
            inode = os.fstat(fd).st_ino
            self._implied.pop(inode, None)
            self._drop_copied(fd)
            os.chown(fd, *self._id_maps.root)
            inherited = stat.S_ISGID if parent in self._set_gid else 0
            if inherited:
                self._set_gid.add(inode)
            os.chmod(fd, 0o755 | inherited)
            os.utime(fd)

    def _drop_copied(self, folder: int) -> None:
        """Take off an implied folder what it had from below: its own entry has come after all."""
        for name in os.listxattr(folder):
            if not name.startswith((TRUSTED, USER)):
                with contextlib.suppress(OSError):
                    os.removexattr(folder, name)

    def _set_attributes(
        self, file: _File, entry: Entry, owner: tuple[int, int] | None = None
    ) -> None:
        """Make `file`, which belongs to `owner` if that is known, what its entry says."""
        wanted = self._id_maps.to_host(entry.uid, entry.gid)
        if wanted != owner:
            os.chown(file, *wanted)
        for name, value in entry.xattrs.items():
            self._set_xattr(file, name, value)
        os.chmod(file, entry.mode)
        os.utime(file, ns=_times(entry))

    def _set_link_attributes(self, entry: Entry, name: bytes) -> None:
        """The same for a symbolic link, which has no permissions and cannot be opened."""
        plain = self._parent.plain and not entry.xattrs
        if not plain or self._id_maps.to_host(entry.uid, entry.gid) != self._own:
            self._set_link_owner(entry, name)
        times = _link_times(entry)
        os.utime(name, ns=times, dir_fd=self._parent.fd, follow_symlinks=False)

    def _set_link_owner(self, entry: Entry, name: bytes) -> None:
        """All but the times, which the engine leaves alone when a link gets a second name."""
        parent = self._parent.fd
        owner = self._id_maps.to_host(entry.uid, entry.gid)
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        for attribute, value in entry.xattrs.items():
            self._set_xattr(at(parent, name), attribute, value, follow_symlinks=False)

    def _copy_attributes(self, below: Found, file: _File) -> None:
        """Make `file` like one of a lower layer."""
        status = below.status
        os.chown(file, status.st_uid, status.st_gid)
        for name in os.listxattr(below.path, follow_symlinks=False):
            value = get_xattr(below.path, name)
            if value is not None:
                self._set_xattr(file, os.fsencode(name), value)
        os.chmod(file, stat.S_IMODE(status.st_mode))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _set_xattr(
        self, file: _File, name: bytes, value: bytes, follow_symlinks: bool = True
    ) -> None:
        if name.startswith((TRUSTED.encode(), USER.encode())):
            return  # An image must not plant an overlayfs' own records.
        try:
            os.setxattr(file, name, value, follow_symlinks=follow_symlinks)
        except OSError as error:
            text = f"attribute {shown(name)} is not kept: {error.strerror}"
            if error.errno not in _TOLERATED:
                raise OSError(error.errno, text) from None
            self._warn(text)

    def _warn(self, text: str) -> None:
        """Log something about this tar, but not once for each of its entries."""
        if text not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(text)
            log.warning("%s", text)
            if len(self._warned) == _MOST_WARNINGS:
                log.warning("what else this tar has that is not kept is not logged")

    @contextlib.contextmanager
    def _opened(self, name: bytes, flags: int) -> Iterator[int]:
        fd = os.open(name, flags, dir_fd=self._parent.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _handle(self, name: bytes) -> Iterator[bytes]:
        """A path to a file of any type, that no exchange of its name can lead elsewhere."""
        with self._opened(name, _HANDLE) as fd:
            yield b"/proc/self/fd/%d" % fd


def path_of(fd: int) -> bytes:
    """Where an open file is."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def joined(folder: bytes, name: bytes) -> bytes:
    """The path of `name` in `folder`; empty is the root."""
    return folder + b"/" + name if folder else name


def _is_plain(folder: int, status: os.stat_result) -> bool:
    inherits = status.st_mode & stat.S_ISGID or get_xattr(folder, "system.posix_acl_default")
    return not inherits


def shown(name: bytes) -> str:
    """A name from a tar in quotes, fit to be read in a message."""
    text = repr(name[:LONGEST_SHOWN].decode("utf-8", "backslashreplace"))
    return text if len(name) <= LONGEST_SHOWN else text + "..."


def _missing(entry: Entry) -> ApplyError:
    return ApplyError(
        f"{shown(entry.name)}: it is a hard link to {shown(entry.linkname)}, "
        "which neither this layer nor one below it has as a file before this entry"
    )


def _clean(name: bytes) -> bytes:
    """The path below the root that a name in a tar stands for; empty for the root itself."""
    if not (name.startswith((b".", b"/")) or b"/." in name or b"//" in name):
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _link_times(entry: Entry) -> tuple[int, int]:
    """The same as `_times` for a symbolic link, which the engine lets be older than 1970."""
    if entry.mtime_ns >= 0:
        return _times(entry)
    accessed = entry.mtime_ns if entry.atime_ns is None else entry.atime_ns
    return max(accessed, entry.mtime_ns), entry.mtime_ns


def _times(entry: Entry) -> tuple[int, int]:
    """Access and modification time; the engine never sets the former before the latter."""
    modified = entry.mtime_ns if 0 <= entry.mtime_ns <= _LATEST else 0
    accessed = entry.atime_ns
    if accessed is None or not modified < accessed <= _LATEST:
        return modified, modified
    return accessed, modified


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
