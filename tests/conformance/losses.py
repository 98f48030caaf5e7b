"""Drivers that lose data as copying, cloning, deduplicating and network-backed drivers really do.

Each is `Copies`, which is right about its layers, with one thing done as an author might do it.
`LOSSES` has them all, each with the check that has to catch it; those of `RESTARTED` show only when
the plugin's process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import tarfile
import unicodedata
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple, Type

from manuka.driver import CreateOptions, DriverError, GraphDriver, Settings
from manuka.layers.changes import Change, Kind
from manuka.layers.copy import copy_tree
from manuka.linux.tree import remove_tree
from tests.conformance.faulty import Fault

_BLOCK = 4096


def below(folder: str) -> Iterator[Tuple[bytes, os.stat_result]]:
    """Every path below a directory, the deepest first."""
    for top, folders, files in os.walk(os.fsencode(folder), topdown=False):
        for name in (*files, *folders):
            path = os.path.join(top, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, os.lstat(path)


class Copies(GraphDriver):
    """A layer is a directory, and begins as a copy of its parent."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        os.makedirs(settings.home, exist_ok=True)

    def path(self, layer_id: str) -> str:
        return os.path.join(self.settings.home, layer_id)

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if self.exists(layer_id):
            raise DriverError(f"layer {layer_id} exists already")
        source = None if parent is None else self.get(parent)
        os.mkdir(self.path(layer_id), 0o755)
        if source is not None:
            self.copy(source, self.path(layer_id))

    def copy(self, source: str, path: str) -> None:
        copy_tree(source, path)
        before = {found: status.st_mtime_ns for found, status in below(path)}
        for found, status in below(path):
            if self.spoil(found, status) and os.path.lexists(found):
                os.utime(found, ns=(before[found],) * 2, follow_symlinks=False)

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        """Lose something of one file in a copy; whether its time has to be set again."""
        return False

    def remove(self, layer_id: str) -> None:
        remove_tree(self.path(layer_id))

    def get(self, layer_id: str, mount_label: str = "") -> str:
        if not self.exists(layer_id):
            raise DriverError(f"there is no layer {layer_id}")
        return self.path(layer_id)

    def put(self, layer_id: str) -> None:
        pass

    def exists(self, layer_id: str) -> bool:
        return os.path.isdir(self.path(layer_id))


# --- copies ---------------------------------------------------------------------------------------


class HardLinksCopiedAsFiles(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            shutil.copy2(path, path + b".split")
            os.replace(path + b".split", path)
        return False


class SymbolicLinksFollowed(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISLNK(status.st_mode) and os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
            os.unlink(path)
            with open(path, "wb") as copy:
                copy.write(content)
        return True


class TimesOfTheCopy(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        os.utime(path, follow_symlinks=False)
        return False


class TimesInSeconds(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        os.utime(path, (int(status.st_mtime),) * 2, follow_symlinks=False)
        return False


class OwnersSetAfterPermissions(Copies):
    """The kernel takes the set-id bits away when a file changes hands."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode):
            os.chmod(path, status.st_mode & 0o1777)
        return True


class PermissionsOfDirectoriesLost(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISDIR(status.st_mode):
            os.chmod(path, 0o755)
        return True


class OwnersSquashed(Copies):
    """A server that has `root_squash`."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if status.st_uid == 0:
            os.chown(path, 65534, 65534, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(path, status.st_mode & 0o7777)
        return True


class AttributesLost(Copies):
    prefixes: Tuple[str, ...] = ("user.",)

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(self.prefixes):
                os.removexattr(path, name, follow_symlinks=False)
        return True


class CapabilitiesLost(AttributesLost):
    prefixes = ("security.",)


class AccessControlListsLost(AttributesLost):
    prefixes = ("system.posix_acl_",)


class DeviceNumbersCut(Copies):
    """Eight bits each, as 30 years ago."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if max(major, minor) > 255:
            os.unlink(path)
            os.mknod(path, status.st_mode, os.makedev(major & 255, minor & 255))
        return True


class EmptyDirectoriesLost(Copies):
    """A store of objects has none."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISDIR(status.st_mode):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        return True


class NamesLost(Copies):
    """Renames each file to `kept`, or leaves it out."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        folder, name = os.path.split(path)
        kept = self.kept(name)
        if kept is None:
            remove_tree(os.fsdecode(path))
        elif kept != name and stat.S_ISREG(status.st_mode):
            os.replace(path, os.path.join(folder, kept))
        return False

    def kept(self, name: bytes) -> Optional[bytes]:
        raise NotImplementedError


class DotFilesLeftOut(NamesLost):
    """``cp -a parent/* child/``"""

    def kept(self, name: bytes) -> Optional[bytes]:
        return None if name.startswith(b".") else name


class BackupsLeftOut(NamesLost):
    """``rsync --cvs-exclude``"""

    def kept(self, name: bytes) -> Optional[bytes]:
        return None if name.endswith(b"~") or name.startswith(b"#") else name


class CasesFolded(NamesLost):
    def kept(self, name: bytes) -> Optional[bytes]:
        return name.lower()


class NamesCut(NamesLost):
    """An encrypting file system has room for 143 bytes."""

    def kept(self, name: bytes) -> Optional[bytes]:
        return name[:143]


class NamesNormalised(NamesLost):
    """As HFS+ does."""

    def kept(self, name: bytes) -> Optional[bytes]:
        return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )


class DotsAtTheEndCut(NamesLost):
    """As Windows shares do."""

    def kept(self, name: bytes) -> Optional[bytes]:
        return name.rstrip(b".") or name


class NamesByLine(NamesLost):
    """``find | while read NAME``"""

    def kept(self, name: bytes) -> Optional[bytes]:
        return None if b"\n" in name else name


class SocketsLeftOut(Copies):
    """``tar -c | tar -x``"""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISSOCK(status.st_mode):
            os.unlink(path)
        return False


class HolesFilled(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode) and status.st_size < 100 << 20:
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, status.st_size))
        return True


class OffsetsHave32Bits(Copies):
    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode) and status.st_size > 1 << 32:
            os.truncate(path, status.st_size & 0xFFFFFFFF)
        return True


class WholeBlocksCopied(Copies):
    """What does not fill a block stays behind."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode) and status.st_size > _BLOCK:
            os.truncate(path, status.st_size // _BLOCK * _BLOCK)
        return True


class FirstAncestorCopied(Copies):
    """A snapshot of the volume, whatever was made of that since."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lowest: Dict[str, str] = {}

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        lowest = None if parent is None else self._lowest.get(parent, parent)
        super().create(layer_id, lowest, options)
        if lowest is not None:
            self._lowest[layer_id] = lowest


class SnapshotTakenEarly(Copies):
    """Of a layer's content as ApplyDiff left it."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        size = super().apply_diff(layer_id, parent, stream)
        copy_tree(self.path(layer_id), self._snapshot(layer_id))
        return size

    def copy(self, source: str, path: str) -> None:
        early = self._snapshot(os.path.basename(source), make=False)
        copy_tree(early if os.path.isdir(early) else source, path)

    def _snapshot(self, layer_id: str, make: bool = True) -> str:
        path = os.path.join(self.settings.home, ".early-" + layer_id)
        if make:
            os.mkdir(path)
        return path


class CopyUpLosesAttributes(Copies):
    """A file that a child changes is copied with its content alone."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._parents: Dict[str, str] = {}

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        if parent is not None:
            self._parents[layer_id] = parent

    def put(self, layer_id: str) -> None:
        if layer_id not in self._parents:
            return
        top, parent = (os.fsencode(self.path(one)) for one in (layer_id, self._parents[layer_id]))
        for path, status in below(self.path(layer_id)):
            lower = os.path.join(parent, os.path.relpath(path, top))
            if os.path.lexists(lower) and os.lstat(lower).st_mode != status.st_mode:
                for name in os.listxattr(path, follow_symlinks=False):
                    os.removexattr(path, name, follow_symlinks=False)


# --- clones, stores, snapshots --------------------------------------------------------------------


class ClonesFallBackToLinks(Copies):
    """Where the file system cannot share blocks, the whole file is shared."""

    def spoil(self, path: bytes, status: os.stat_result) -> bool:
        return False

    def copy(self, source: str, path: str) -> None:
        copy_tree(source, path)
        for found, status in below(path):
            if stat.S_ISREG(status.st_mode):
                os.unlink(found)
                relative = os.path.relpath(found, os.fsencode(path))
                os.link(os.path.join(os.fsencode(source), relative), found)


class Stores(Copies):
    """Keeps each file once for all layers that have it, as hard links that all can write to."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._store = os.path.join(settings.home, ".store")
        os.makedirs(self._store, exist_ok=True)

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        size = super().apply_diff(layer_id, parent, stream)
        self._share(layer_id)
        return size

    def _share(self, layer_id: str) -> None:
        for path, status in below(self.path(layer_id)):
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size:
                stored = os.path.join(os.fsencode(self._store), self.key(path, status))
                if not os.path.exists(stored):
                    os.link(path, stored)
                else:
                    os.unlink(path)
                    os.link(stored, path)

    def key(self, path: bytes, status: os.stat_result) -> bytes:
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
        known = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
        attributes = [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
        return hashlib.sha256(repr((content, known, attributes)).encode()).hexdigest().encode()


class StoreSharesWrittenFiles(Stores):
    """The same at the end of each use, whatever the times."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        return Copies.apply_diff(self, layer_id, parent, stream)

    def put(self, layer_id: str) -> None:
        self._share(layer_id)

    def key(self, path: bytes, status: os.stat_result) -> bytes:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest().encode()


class StoreIgnoresProperties(Stores):
    def key(self, path: bytes, status: os.stat_result) -> bytes:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest().encode()


class StoreTrustsSizeAndTime(Stores):
    def key(self, path: bytes, status: os.stat_result) -> bytes:
        return b"%d-%d" % (status.st_size, status.st_mtime_ns)


class StoreDoesNotCount(Stores):
    """Remove takes what the layer had out of the store, and so from all others."""

    def remove(self, layer_id: str) -> None:
        inodes: Set[int] = set()
        for _, status in below(self.path(layer_id)):
            if stat.S_ISREG(status.st_mode) and status.st_size:
                inodes.add(status.st_ino)
        super().remove(layer_id)
        for path, status in below(self.settings.home):
            if status.st_ino in inodes:
                os.unlink(path)


class StoreRemembersDeletions(Stores):
    """What was deleted once is taken for garbage whenever it comes again."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._deleted: Set[bytes] = set()

    def remove(self, layer_id: str) -> None:
        for path, status in below(self.path(layer_id)):
            if stat.S_ISREG(status.st_mode) and status.st_size:
                self._deleted.add(self.key(path, status))
        super().remove(layer_id)

    def _share(self, layer_id: str) -> None:
        for path, status in below(self.path(layer_id)):
            if stat.S_ISREG(status.st_mode) and self.key(path, status) in self._deleted:
                os.unlink(path)


class SiblingsShareASnapshot(Copies):
    """A parent has one snapshot that can be written to, for all of its children."""

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if parent is None:
            return super().create(layer_id, parent, options)
        shared = os.path.join(self.settings.home, ".of-" + parent)
        if not os.path.isdir(shared):
            os.mkdir(shared)
            self.copy(self.get(parent), shared)
        os.symlink(shared, self.path(layer_id))
        return None

    def get(self, layer_id: str, mount_label: str = "") -> str:
        return os.path.realpath(super().get(layer_id))


class UnpacksInPlace(ClonesFallBackToLinks):
    """Linked to the parent's files, copied by ApplyDiff when it is done: too late."""

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        data = stream.read()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                path = os.path.join(self.path(layer_id), entry.name)
                if entry.isreg() and os.path.isfile(path):
                    content = tar.extractfile(entry)
                    assert content is not None
                    with open(path, "r+b") as file:
                        file.write(content.read())
                    os.chmod(path, entry.mode)
        return super().apply_diff(layer_id, parent, io.BytesIO(data))


class OneStagingForAParent(Copies):
    """What a container wrote is carried out of a directory that its siblings use as well."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._parents: Dict[str, str] = {}

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        if parent is not None:
            self._parents[layer_id] = parent

    def get(self, layer_id: str, mount_label: str = "") -> str:
        path = super().get(layer_id)
        if layer_id not in self._parents:
            return path
        staging = self._staging(layer_id)
        if not os.path.isdir(staging):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                shutil.copytree(path, staging, symlinks=True)
        return staging

    def put(self, layer_id: str) -> None:
        if layer_id in self._parents and os.path.isdir(self._staging(layer_id)):
            with contextlib.suppress(OSError, shutil.Error):
                shutil.rmtree(self.path(layer_id))
                shutil.copytree(self._staging(layer_id), self.path(layer_id), symlinks=True)
                shutil.rmtree(self._staging(layer_id), ignore_errors=True)

    def _staging(self, layer_id: str) -> str:
        return os.path.join(self.settings.home, ".staging-" + self._parents[layer_id])


class PutRollsBack(Copies):
    """The snapshot was never made one that can be written to."""

    def get(self, layer_id: str, mount_label: str = "") -> str:
        path, kept = super().get(layer_id), self.path(".kept-" + layer_id)
        if not os.path.isdir(kept):
            os.mkdir(kept)
            copy_tree(path, kept)
        return path

    def put(self, layer_id: str) -> None:
        kept = self.path(".kept-" + layer_id)
        if os.path.isdir(kept):
            remove_tree(self.path(layer_id))
            os.rename(kept, self.path(layer_id))


class CacheIsStale(Copies):
    """Where Get once found a layer, it looks for ever; what was removed there is deleted later."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._numbers: Dict[str, int] = {}
        self._removed: Set[str] = set()
        self._cache: Dict[str, str] = {}

    def path(self, layer_id: str) -> str:
        return super().path(f"{layer_id}.{self._numbers.get(layer_id, 0)}")

    def remove(self, layer_id: str) -> None:
        self._numbers[layer_id] = self._numbers.get(layer_id, 0) + 1

    def get(self, layer_id: str, mount_label: str = "") -> str:
        return self._cache.setdefault(layer_id, super().get(layer_id))


class RemoveComesLater(Copies):
    """A queue takes the work, and the answer is given."""

    def remove(self, layer_id: str) -> None:
        pass


class RemoveComesLaterByName(Copies):
    """The same, and the id is free at once: the work then meets the new layer.

    It does so when that has just become whole.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._removed: Set[str] = set()
        self._queue: Dict[str, List[bytes]] = {}

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        if layer_id not in self._removed:
            super().create(layer_id, parent, options)
        self._removed.discard(layer_id)

    def exists(self, layer_id: str) -> bool:
        return layer_id not in self._removed and super().exists(layer_id)

    def remove(self, layer_id: str) -> None:
        self._removed.add(layer_id)
        self._queue[layer_id] = [path for path, _ in below(self.path(layer_id))]

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        size = super().apply_diff(layer_id, parent, stream)
        for path in self._queue.pop(layer_id, ()):
            remove_tree(os.fsdecode(path))
        return size


# --- paths and ids --------------------------------------------------------------------------------


class PathEndsInADot(Copies):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        return super().get(layer_id) + "/."


class PathEndsInASlash(Copies):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        return super().get(layer_id) + "/"


class PathGoesUp(Copies):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        return os.path.join(super().get(layer_id), "..", layer_id)


class PathIsRelative(Copies):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        return os.path.relpath(super().get(layer_id))


class PathIsALink(Copies):
    def get(self, layer_id: str, mount_label: str = "") -> str:
        path, link = super().get(layer_id), self.path(".link-" + layer_id)
        if not os.path.lexists(link):
            os.symlink(path, link)
        return link


class IdsCut(Copies):
    length = 12

    def path(self, layer_id: str) -> str:
        return os.path.join(self.settings.home, layer_id[: self.length])

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        os.makedirs(self.path(layer_id), 0o755, exist_ok=True)


class IdsCutTo32(IdsCut):
    length = 32


# --- Diff, Changes, sizes -------------------------------------------------------------------------


class ChangesWithinASecondMissed(Copies):
    def changes(self, layer_id: str, parent: Optional[str]) -> List[Change]:
        return [change for change in super().changes(layer_id, parent)
                if not self._looks_the_same(change, layer_id, parent)]  # fmt: skip

    def _looks_the_same(self, change: Change, layer_id: str, parent: Optional[str]) -> bool:
        if change.kind != Kind.MODIFY or parent is None:
            return False
        now, was = (os.lstat(self.path(one) + change.path) for one in (layer_id, parent))
        return (now.st_size, int(now.st_mtime)) == (was.st_size, int(was.st_mtime))


class DeletedFilesRenamed(Copies):
    """NFS keeps a file that is open under another name."""

    def changes(self, layer_id: str, parent: Optional[str]) -> List[Change]:
        changes = super().changes(layer_id, parent)
        gone = [change for change in changes if change.kind == Kind.DELETE]
        left = [f"{os.path.dirname(change.path)}/.nfs{7:024x}" for change in gone]
        return sorted([*changes, *(Change(path, Kind.ADD) for path in left)])


class LastFileOfADiffCut(Copies):
    """The length is right, and the end zeros."""

    def diff(self, layer_id: str, parent: Optional[str]) -> Iterator[bytes]:
        data = bytearray(b"".join(super().diff(layer_id, parent)))
        with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
            files = [entry for entry in tar if entry.isreg() and entry.size]
        if files:
            begin = files[-1].offset_data + files[-1].size // 2
            end = files[-1].offset_data + files[-1].size
            data[begin:end] = bytes(end - begin)
        return iter([bytes(data)])


class SizeInKibibytes(Copies):
    def diff_size(self, layer_id: str, parent: Optional[str]) -> int:
        return super().diff_size(layer_id, parent) // 1024


class AppliedLater(Copies):
    """The tar is kept, the answer given, and the work done when the next one comes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue: List[Tuple[str, bytes]] = []

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        waiting, self._queue = self._queue, [(layer_id, stream.read())]
        for earlier, data in waiting:
            with contextlib.suppress(DriverError):
                super().apply_diff(earlier, None, io.BytesIO(data))
        return 0


# --- what shows only when the process ends --------------------------------------------------------


class AppliedAtFirstUse(Copies):
    """ApplyDiff keeps the tar in memory; the first Get unpacks it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tars: Dict[str, bytes] = {}

    def apply_diff(self, layer_id: str, parent: Optional[str], stream: Any) -> int:
        self._tars[layer_id] = stream.read()
        return 0

    def get(self, layer_id: str, mount_label: str = "") -> str:
        data = self._tars.pop(layer_id, None)
        if data is not None:
            super().apply_diff(layer_id, None, io.BytesIO(data))
        return super().get(layer_id)


class WritesBuffered(Copies):
    """What is written goes to a buffer, which is written out when the engine stops."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        for name in os.listdir(settings.home):
            if name.startswith(".buffer-"):
                remove_tree(self.path(name))

    def get(self, layer_id: str, mount_label: str = "") -> str:
        path, buffer = super().get(layer_id), self.path(".buffer-" + layer_id)
        if not os.path.isdir(buffer):
            os.mkdir(buffer, 0o755)
            copy_tree(path, buffer)
        return buffer

    def cleanup(self) -> None:
        for name in os.listdir(self.settings.home):
            if name.startswith(".buffer-"):
                remove_tree(self.path(name[len(".buffer-") :]))
                os.rename(self.path(name), self.path(name[len(".buffer-") :]))


class LayersInMemory(Copies):
    """Which layers there are is known to this process only."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._known: Set[str] = set()

    def create(self, layer_id: str, parent: Optional[str], options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        self._known.add(layer_id)

    def get(self, layer_id: str, mount_label: str = "") -> str:
        if layer_id not in self._known:
            raise DriverError(f"there is no layer {layer_id}")
        return self.path(layer_id)


# --- all of them ----------------------------------------------------------------------------------


def _loss(name: str, group: str, check: str, driver: Type[GraphDriver], **more: Any) -> Fault:
    return Fault(name, group, (check,), driver, **more)


LOSSES = [
    _loss("copies without hard links", "inheritance", "a_child_keeps_hard_links",
          HardLinksCopiedAsFiles),
    _loss("copies follow symbolic links", "inheritance", "a_child_keeps_symbolic_links",
          SymbolicLinksFollowed),
    _loss("copies have the time of copying", "inheritance", "a_child_keeps_times", TimesOfTheCopy),
    _loss("copies have times in seconds", "inheritance",
          "a_child_keeps_times_to_the_nanosecond", TimesInSeconds, outcome="differs"),
    _loss("chown behind chmod takes set-id bits", "inheritance", "a_child_keeps_permissions",
          OwnersSetAfterPermissions),
    _loss("copied directories have mode 0755", "inheritance", "a_child_keeps_permissions",
          PermissionsOfDirectoriesLost),
    _loss("root is squashed to nobody", "inheritance", "a_child_keeps_owners", OwnersSquashed),
    _loss("copies without user attributes", "inheritance", "a_child_keeps_user_attributes",
          AttributesLost),
    _loss("copies without capabilities", "inheritance", "a_child_keeps_capabilities",
          CapabilitiesLost),
    _loss("copies without ACLs", "inheritance", "a_child_keeps_access_control_lists",
          AccessControlListsLost),
    _loss("device numbers have 8 bits", "inheritance", "a_child_keeps_device_numbers",
          DeviceNumbersCut),
    _loss("empty directories are lost", "inheritance", "a_child_has_every_name",
          EmptyDirectoriesLost),
    _loss("files that begin with a dot are left out", "inheritance", "a_child_has_every_name",
          DotFilesLeftOut),
    _loss("backups are left out", "inheritance", "a_child_has_every_name", BackupsLeftOut),
    _loss("case is ignored", "inheritance", "a_child_has_every_name", CasesFolded),
    _loss("names are cut to 143 bytes", "inheritance", "a_child_has_every_name", NamesCut),
    _loss("names are normalised", "inheritance", "a_child_has_every_name", NamesNormalised),
    _loss("dots at the end are cut", "inheritance", "a_child_has_every_name", DotsAtTheEndCut),
    _loss("names with a newline are lost", "inheritance", "a_child_has_every_name", NamesByLine),
    _loss("sockets are left out", "inheritance", "a_child_has_every_name", SocketsLeftOut),
    _loss("holes are filled", "inheritance", "a_child_keeps_holes", HolesFilled,
          outcome="differs"),
    _loss("offsets have 32 bits", "inheritance", "a_child_has_huge_files", OffsetsHave32Bits),
    _loss("only whole blocks are copied", "inheritance", "a_child_has_the_content",
          WholeBlocksCopied),
    _loss("a child is a copy of its first ancestor", "inheritance",
          "a_child_has_all_generations", FirstAncestorCopied),
    _loss("the snapshot is taken too early", "inheritance", "a_child_has_the_last_writes",
          SnapshotTakenEarly),
    _loss("copy-up loses attributes", "inheritance", "a_change_of_permissions_keeps_the_rest",
          CopyUpLosesAttributes),
    _loss("clones fall back to hard links", "independence", "relatives_are_independent",
          ClonesFallBackToLinks),
    _loss("siblings share one snapshot", "independence", "relatives_are_independent",
          SiblingsShareASnapshot),
    _loss("children in use share inodes", "independence", "layers_in_use_share_no_file",
          ClonesFallBackToLinks),
    _loss("a store of files can be written to", "independence", "twins_are_independent",
          Stores),
    _loss("written files go to a store", "independence", "twins_are_independent",
          StoreSharesWrittenFiles),
    _loss("a store ignores mode and owner", "independence", "same_content_keeps_its_properties",
          StoreIgnoresProperties),
    _loss("a store trusts size and time", "independence", "same_size_and_time_keep_their_content",
          StoreTrustsSizeAndTime),
    _loss("a store does not count users", "independence", "removing_spares_the_others",
          StoreDoesNotCount),
    _loss("a store remembers deletions", "independence", "content_can_come_again",
          StoreRemembersDeletions),
    _loss("a tar is unpacked into the parent's files", "independence",
          "a_tar_changes_no_other_layer", UnpacksInPlace),
    _loss("siblings share their staging", "independence", "siblings_are_written_at_once",
          OneStagingForAParent),
    _loss("Put rolls back", "life", "what_was_written_stays", PutRollsBack),
    _loss("Get has a stale cache", "life", "an_id_made_again_is_another_layer", CacheIsStale),
    _loss("Remove comes later", "life", "a_removed_layer_is_gone", RemoveComesLater),
    _loss("Remove comes later and meets the new layer", "life",
          "a_removal_is_done_when_it_is_answered", RemoveComesLaterByName),
    _loss("the path ends in /.", "life", "get_names_a_plain_path", PathEndsInADot),
    _loss("the path ends in a slash", "life", "get_names_a_plain_path", PathEndsInASlash),
    _loss("the path has .. in it", "life", "get_names_a_plain_path", PathGoesUp),
    _loss("the path is relative", "life", "get_names_a_plain_path", PathIsRelative),
    _loss("the path is a symbolic link", "life", "get_names_a_plain_path", PathIsALink),
    _loss("ids are cut to 12 characters", "ids", "ids_are_compared_whole", IdsCut),
    _loss("ids are cut to 32 characters", "ids", "ids_are_compared_whole", IdsCutTo32),
    _loss("changes within a second are missed", "changes", "a_change_within_a_second_is_told",
          ChangesWithinASecondMissed),
    _loss("deleted files are renamed", "changes", "an_open_file_can_be_deleted",
          DeletedFilesRenamed),
    _loss("the last file of a Diff is cut", "content", "a_containers_changes_are_in_its_diff",
          LastFileOfADiffCut),
    _loss("sizes are in KiB", "changes", "the_size_grows_with_the_layer", SizeInKibibytes),
    _loss("ApplyDiff is done later", "content", "files_have_their_content", AppliedLater),
]  # fmt: skip

RESTARTED = [
    _loss("ApplyDiff is done at first use", "restart",
          "a_crash_right_after_the_answer_loses_nothing", AppliedAtFirstUse),
    _loss("writes are buffered", "restart", "a_containers_writes_outlive_a_crash",
          WritesBuffered),
    _loss("layers are known in memory only", "restart", "layers_outlive_a_restart",
          LayersInMemory),
]  # fmt: skip
