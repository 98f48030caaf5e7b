"""Random changes to a container's files, made from outside and the same in any two equal trees.

The unit tests use them too, for what must hold whatever a container does.

An `Operation` names no path: it picks the nth of what is there when its turn comes, so that it
always meets something, whatever the layers hold.  `perform` does a list of them and returns what
each came to, success or error, for that has to be equal, too.

Easy to get wrong: the trees hold absolute links, and this process is not in the container.  So
everything goes through the open folder that holds the file, and no link is ever followed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
import subprocess
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Union

from hypothesis import strategies as st

from .stacks import CAPABILITY, MODES, NOON, ODD_NAMES, OWNERS, PLAIN_NAMES, Content
from .trees import ENGINES_OWN, walk

# The first is that of most entries: within its second a rewritten file is hard to notice.
TIMES = (NOON, NOON + 5, NOON + 999_999_999, NOON + 10**9, 0, 1_600_000_000_500_000_000)
NAMES = (*PLAIN_NAMES, b"new", b"other", *ODD_NAMES[:4])


@dataclasses.dataclass(frozen=True)
class Operation:
    """What to do, with the numbers that its choices come from.

    pick, place: which of the suitable paths, modulo their count.
    """

    kind: str
    pick: int
    place: int
    name: bytes
    mode: int
    uid: int
    gid: int
    time: int
    content: Content


class Act(NamedTuple):
    """A change to a tree that is told word for word: what a test is about, not drawn at random."""

    text: str
    do: Callable[[str], None]

    def __str__(self) -> str:
        return self.text


Step = Union[Operation, Act]


def shell(script: str) -> Act:
    """What a script does whose working folder is the root."""

    def run(root: str) -> None:
        # Not /bin/sh of the tree, which may hold none, nor what a user's umask adds.
        script_with_umask = f"umask 022; {script}"
        subprocess.run(["sh", "-euc", script_with_umask], cwd=root, check=True, timeout=60)

    return Act(script, run)


def operations(most: int = 8) -> st.SearchStrategy:
    """A list of changes."""
    operation = st.builds(
        Operation,
        kind=st.sampled_from(tuple(_DOERS)),
        pick=st.integers(0, 999),
        place=st.integers(0, 999),
        name=st.sampled_from(NAMES),
        mode=st.sampled_from(MODES),
        uid=st.sampled_from(OWNERS),
        gid=st.sampled_from(OWNERS),
        time=st.sampled_from(TIMES),
        content=st.builds(Content, st.sampled_from((0, 10, 10, 512, 70_000)), st.integers(0, 2)),
    )
    return st.lists(operation, max_size=most)


def perform(root: str, todo: Sequence[Step]) -> List[str]:
    """Do everything below the mounted tree `root`; what each came to."""
    results = []
    for operation in todo:
        if isinstance(operation, Act):
            operation.do(root)
            continue
        paths = _Paths(root)
        try:
            touched = _DOERS[operation.kind](paths, operation)
        except OSError as error:
            results.append(f"{operation.kind}: {errno.errorcode[error.errno or 0]}")
            continue
        for path in touched:
            with contextlib.suppress(FileNotFoundError), paths.parent(path) as (folder, name):
                times = (operation.time, operation.time)
                os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
        results.append(f"{operation.kind}: {touched!r}")
    return results


class _Paths:
    """What is there, and ways to reach it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: Dict[bytes, int] = {
            path: status.st_mode
            for path, status in sorted(walk(root), key=lambda found: found[0])
            if status is not None and path.partition(b"/")[0] not in ENGINES_OWN
        }

    def nth(self, number: int, fits: Callable[[int], bool] = lambda mode: True) -> bytes:
        suitable = [path for path, mode in self.files.items() if fits(mode)]
        if not suitable:
            raise FileNotFoundError(errno.ENOENT, "nothing of this kind")
        return suitable[number % len(suitable)]

    def folder(self, number: int) -> bytes:
        folders = [b""] + [path for path, mode in self.files.items() if stat.S_ISDIR(mode)]
        return folders[number % len(folders)]

    def new(self, operation: Operation) -> bytes:
        """A path for something new, where nothing may be but what the caller allows."""
        folder = self.folder(operation.place)
        return folder + b"/" + operation.name if folder else operation.name

    @contextlib.contextmanager
    def parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The open folder that holds `path`, and its name there."""
        *above, name = path.split(b"/")
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in above:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd, name
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def handle(self, path: bytes) -> Iterator[bytes]:
        """A path to the file itself, of whatever type."""
        with self.parent(path) as (folder, name):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
        try:
            yield b"/proc/self/fd/%d" % fd
        finally:
            os.close(fd)

    def remove(self, path: bytes) -> None:
        with self.parent(path) as (folder, name):
            if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                os.unlink(name, dir_fd=folder)
                return
        for below in sorted(self.files, reverse=True):
            if below.startswith(path + b"/"):
                with self.parent(below) as (folder, name):
                    remove = os.rmdir if stat.S_ISDIR(self.files[below]) else os.unlink
                    remove(name, dir_fd=folder)
        with self.parent(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def write(self, path: bytes, flags: int, data: bytes) -> None:
        with self.parent(path) as (folder, name):
            fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o640, dir_fd=folder)
            with open(fd, "wb") as file:
                file.write(data)


def _not_link(mode: int) -> bool:
    return not stat.S_ISLNK(mode)


def _create(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.new(operation)
    paths.write(path, os.O_CREAT | os.O_EXCL, operation.content.data)
    return [path]


def _rewrite(paths: _Paths, operation: Operation) -> List[bytes]:
    """Write other bytes of the same length: only its time can tell."""
    path = paths.nth(operation.pick, stat.S_ISREG)
    with paths.handle(path) as handle:
        size = min(os.stat(handle).st_size, 70_000)
    paths.write(path, 0, Content(size, 7).data)
    return [path]


def _replace(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick, stat.S_ISREG)
    paths.write(path, os.O_TRUNC, operation.content.data)
    return [path]


def _append(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick, stat.S_ISREG)
    paths.write(path, os.O_APPEND, b"more")
    return [path]


def _open_for_writing(paths: _Paths, operation: Operation) -> List[bytes]:
    """Copied up by the kernel, yet nothing changes."""
    path = paths.nth(operation.pick, stat.S_ISREG)
    paths.write(path, 0, b"")
    return []


def _chmod(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick, _not_link)
    with paths.handle(path) as handle:
        os.chmod(handle, operation.mode)
    return []


def _chown(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick)
    with paths.parent(path) as (folder, name):
        os.chown(name, operation.uid, operation.gid, dir_fd=folder, follow_symlinks=False)
    return []


def _touch(paths: _Paths, operation: Operation) -> List[bytes]:
    return [paths.nth(operation.pick)]


def _set_xattr(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick, lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    with paths.handle(path) as handle:
        os.setxattr(handle, "user.demo", b"changed")
    return []


def _set_capability(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.nth(operation.pick, stat.S_ISREG)
    with paths.handle(path) as handle:
        os.setxattr(handle, "security.capability", CAPABILITY)
    return []


def _remove(paths: _Paths, operation: Operation) -> List[bytes]:
    paths.remove(paths.nth(operation.pick))
    return []


def _rename(paths: _Paths, operation: Operation) -> List[bytes]:
    old, new = paths.nth(operation.pick), paths.new(operation)
    with paths.parent(old) as (old_folder, old_name), paths.parent(new) as (new_folder, new_name):
        os.rename(old_name, new_name, src_dir_fd=old_folder, dst_dir_fd=new_folder)
    return [new]


def _link(paths: _Paths, operation: Operation) -> List[bytes]:
    old = paths.nth(operation.pick, lambda mode: not stat.S_ISDIR(mode))
    new = paths.new(operation)
    with paths.parent(old) as (old_folder, old_name), paths.parent(new) as (new_folder, new_name):
        os.link(
            old_name,
            new_name,
            src_dir_fd=old_folder,
            dst_dir_fd=new_folder,
            follow_symlinks=False,
        )
    return [new]


def _symlink(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.new(operation)
    with paths.parent(path) as (folder, name):
        os.symlink(b"/a/%d" % operation.pick, name, dir_fd=folder)
    return [path]


def _retarget(paths: _Paths, operation: Operation) -> List[bytes]:
    """Another target of the same length, at a time that may well be the old one's."""
    path = paths.nth(operation.pick, stat.S_ISLNK)
    with paths.parent(path) as (folder, name):
        status = os.lstat(name, dir_fd=folder)
        target = os.readlink(name, dir_fd=folder)
        os.unlink(name, dir_fd=folder)
        os.symlink(b"z" * len(target), name, dir_fd=folder)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
    return [path]


def _mkdir(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.new(operation)
    with paths.parent(path) as (folder, name):
        os.mkdir(name, 0o750, dir_fd=folder)
    return [path]


def _mkfifo(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.new(operation)
    with paths.parent(path) as (folder, name):
        os.mkfifo(name, 0o640, dir_fd=folder)
    return [path]


def _mknod(paths: _Paths, operation: Operation) -> List[bytes]:
    path = paths.new(operation)
    with paths.parent(path) as (folder, name):
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(240, 7), dir_fd=folder)
    return [path]


def _recreate(paths: _Paths, operation: Operation) -> List[bytes]:
    """A new folder in place of one that was there: opaque."""
    path = paths.nth(operation.pick, stat.S_ISDIR)
    paths.remove(path)
    with paths.parent(path) as (folder, name):
        os.mkdir(name, 0o700, dir_fd=folder)
    paths.write(path + b"/" + operation.name, os.O_CREAT, operation.content.data)
    return [path + b"/" + operation.name, path]


def _renew(paths: _Paths, operation: Operation) -> List[bytes]:
    """The same with the folders in it, and nothing else: the kernel marks the uppermost alone."""
    path = paths.nth(operation.pick, stat.S_ISDIR)
    folders = [
        below
        for below, mode in sorted(paths.files.items())
        if stat.S_ISDIR(mode) and (below == path or below.startswith(path + b"/"))
    ]
    paths.remove(path)
    for below in folders:
        with paths.parent(below) as (folder, name):
            os.mkdir(name, 0o755, dir_fd=folder)
    return folders[::-1]


def _exchange(paths: _Paths, operation: Operation) -> List[bytes]:
    """Something of another type in the same place."""
    path = paths.nth(operation.pick)
    mode = paths.files[path]
    paths.remove(path)
    with paths.parent(path) as (folder, name):
        if stat.S_ISDIR(mode):
            os.symlink(b"/elsewhere", name, dir_fd=folder)
        elif stat.S_ISLNK(mode):
            os.mkfifo(name, 0o600, dir_fd=folder)
        else:
            os.mkdir(name, 0o711, dir_fd=folder)
    return [path]


_DOERS: Dict[str, Callable[[_Paths, Operation], List[bytes]]] = {
    "create": _create,
    "rewrite": _rewrite,
    "replace": _replace,
    "append": _append,
    "open for writing": _open_for_writing,
    "chmod": _chmod,
    "chown": _chown,
    "touch": _touch,
    "set xattr": _set_xattr,
    "set capability": _set_capability,
    "remove": _remove,
    "rename": _rename,
    "link": _link,
    "symlink": _symlink,
    "retarget": _retarget,
    "mkdir": _mkdir,
    "mkfifo": _mkfifo,
    "mknod": _mknod,
    "recreate": _recreate,
    "renew": _renew,
    "exchange": _exchange,
}
