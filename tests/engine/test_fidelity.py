"""A file in a container is the file in the image, on Manuka as on the engine's own overlay2.

The trees are compared from outside, through the mounts of running containers, with everything
that the file system says of a file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Iterator, NamedTuple

import pytest

from manuka.toolkit.sandbox import Sandbox

from .images import NOON, Image, Layer, busybox, capability, gnu_sparse_entry
from .steps import load, merged, run_sleeping

NET_RAW = 13
LONG = "n" * 255
DEEP = "/".join(["deep"] + [f"folder-number-{number:03}" for number in range(150)])
LATIN = "caf\xe9-\xff".encode("latin-1")


class File(NamedTuple):
    """What lstat, the extended attributes and the content say of a file."""

    mode: str
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    links: int
    same_as: bytes
    device: int
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    content: str


def tree(root: str) -> dict[bytes, File]:
    """Every file below `root`, by its path.  same_as: the first path with the same inode."""
    top = os.fsencode(root)
    found: dict[bytes, File] = {}
    first: dict[int, bytes] = {}
    for path in _walk(top):
        status = os.lstat(path)
        name = os.path.relpath(path, top)
        kind = stat.S_IFMT(status.st_mode)
        is_folder = kind == stat.S_IFDIR
        found[name] = File(
            mode=stat.filemode(status.st_mode),
            owner=(status.st_uid, status.st_gid),
            size=0 if is_folder else status.st_size,
            mtime_ns=status.st_mtime_ns,
            links=0 if is_folder else status.st_nlink,
            same_as=name if is_folder else first.setdefault(status.st_ino, name),
            device=status.st_rdev,
            target=os.readlink(path) if kind == stat.S_IFLNK else b"",
            xattrs=_xattrs(path),
            content=_content(path) if kind == stat.S_IFREG else "",
        )
    return found


def _walk(top: bytes) -> Iterator[bytes]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                yield entry.path


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    own = [name for name in names if not name.startswith("trusted.overlay.")]
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in own)


def _content(path: bytes) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            sha.update(piece)
    return sha.hexdigest()


def everything(tag: str) -> Image:
    """Every type of file, and what layers do to each other."""
    folders = DEEP.split("/")
    deep = Layer()
    for depth in range(1, len(folders) + 1):
        deep.folder("/".join(folders[:depth]), 0o700 + depth % 8, mtime_ns=NOON + depth)
    deep.file(DEEP + "/bottom", b"down here\n")
    types = (
        Layer()
        .folder("all", 0o755, owner=(11, 12), mtime_ns=NOON + 5)
        .file("all/empty", b"", 0o000)
        .file("all/text", b"text\n", 0o644, owner=(1, 2), mtime_ns=NOON + 1)
        .file("all/large", bytes(range(256)) * 20_000, 0o600)
        .file("all/setuid", b"#!\n", 0o4755, owner=(1000, 1000))
        .file("all/setgid", b"#!\n", 0o2755, owner=(1000, 1001))
        .folder("all/sticky", 0o1777)
        .folder("all/group", 0o2770, owner=(0, 50))
        .file("all/capable", b"#!\n", 0o755, xattrs={"security.capability": capability(NET_RAW)})
        .file("all/described", b"", xattrs={"user.comment": b"with \x00 and \xff"})
        .folder("all/described-folder", xattrs={"user.a": b"1", "trusted.b": b"2"})
        .symlink("all/link", "text", owner=(3, 4), mtime_ns=NOON + 2)
        .symlink("all/dangling", "/nowhere/at/all")
        .symlink("all/upwards", "../../../etc/passwd")
        .hard_link("all/hard", "all/text", mtime_ns=NOON + 1, owner=(1, 2))
        .hard_link("all/hard-link-to-link", "all/link", owner=(3, 4), mtime_ns=NOON + 2)
        .fifo("all/fifo", 0o640, owner=(5, 6))
        .device("all/null", "c", 1, 3, 0o666)
        .device("all/disk", "b", 7, 200, 0o660)
        .file("all/big-owner", b"", owner=(3_000_000_000, 4_000_000_000))
        .file("all/before-1970", b"", mtime_ns=-5_000_000_000)
        .file("all/far-future", b"", mtime_ns=4_500_000_000 * 10**9)
        .file("all/blank  and\nline end", b"")
        .file("all/-rf", b"")
        .file("all/\\back\\slash:colon,comma", b"")
        .file("all/\u00fcml\u00e4ut \u2603", b"snow\n")
        .file(b"all/" + LATIN, b"not UTF-8\n")
        .file("all/" + LONG, b"long\n")
        .symlink("all/long-target", "/".join([LONG] * 15))
    )
    below = (
        Layer()
        .folder("low", mtime_ns=NOON + 7)
        .file("low/kept", b"kept\n")
        .file("low/deleted", b"deleted\n")
        .file("low/replaced", b"old\n", 0o600)
        .folder("low/becomes-file")
        .file("low/becomes-file/x")
        .file("low/becomes-folder")
        .symlink("low/becomes-real", "kept")
        .folder("low/opaque", 0o711)
        .file("low/opaque/hidden")
        .folder("low/opaque/hidden-folder")
        .folder("low/removed-folder")
        .file("low/removed-folder/x")
        .file("low/pair", b"pair\n")
        .hard_link("low/pair2", "low/pair")
    )
    above = (
        Layer()
        .folder("low", 0o750, owner=(8, 9), mtime_ns=NOON + 8)
        .whiteout("low/deleted")
        .file("low/replaced", b"new\n", 0o644, mtime_ns=NOON + 9)
        .file("low/becomes-file", b"a file now\n")
        .folder("low/becomes-folder", 0o700)
        .file("low/becomes-folder/y", b"y\n")
        .file("low/becomes-real", b"no link any more\n")
        .folder("low/opaque", 0o755)
        .opaque("low/opaque")
        .file("low/opaque/shown", b"shown\n")
        .whiteout("low/removed-folder")
        .file("low/pair", b"single\n")
    )
    again = Layer().folder("low", 0o755).file("low/deleted", b"back again\n")
    return Image(tag, busybox(), types, deep, below, above, again)


@pytest.fixture(scope="module")
def trees(sandbox: Sandbox, native: Sandbox) -> tuple[dict[bytes, File], ...]:
    image = everything("everything:1")
    found = []
    for engine in (sandbox, native):
        load(engine, image)
        run_sleeping(engine, "everything", image=image.tag)
        found.append(tree(merged(engine, "everything")))
        engine.docker("rm", "-f", "everything")
        engine.docker("rmi", image.tag)
    return tuple(found)


# The engine makes these itself, at the moment of the start.
OF_THE_ENGINE = {
    *(b".", b".dockerenv", b"dev", b"proc", b"sys", b"etc", b"etc/hosts", b"etc/hostname"),
    *(b"etc/resolv.conf", b"etc/mtab", b"dev/console", b"dev/pts", b"dev/shm"),
}


def test_every_file_is_as_on_the_engines_own_driver(trees: tuple[dict[bytes, File], ...]) -> None:
    ours, natives = trees
    assert set(ours) == set(natives)
    differing = {
        path: (ours[path], natives[path])
        for path in set(ours) - OF_THE_ENGINE
        if ours[path] != natives[path]
    }
    assert differing == {}


def test_every_file_is_as_the_image_says(trees: tuple[dict[bytes, File], ...]) -> None:
    ours = trees[0]
    assert ours[b"all/text"][:5] == ("-rw-r--r--", (1, 2), 5, NOON + 1, 2)
    assert ours[b"all/hard"].same_as == ours[b"all/text"].same_as
    assert ours[b"all/hard-link-to-link"].mode == "lrwxrwxrwx"
    assert ours[b"all/setuid"].mode == "-rwsr-xr-x"
    assert ours[b"all/setgid"].mode == "-rwxr-sr-x"
    assert ours[b"all/sticky"].mode == "drwxrwxrwt"
    assert ours[b"all/empty"].mode == "----------"
    assert ours[b"all/capable"].xattrs == (("security.capability", capability(NET_RAW)),)
    assert ours[b"all/described"].xattrs == (("user.comment", b"with \x00 and \xff"),)
    assert ours[b"all/described-folder"].xattrs == (("trusted.b", b"2"), ("user.a", b"1"))
    assert (ours[b"all/link"].target, ours[b"all/link"].mtime_ns) == (b"text", NOON + 2)
    assert ours[b"all/upwards"].target == b"../../../etc/passwd"
    assert ours[b"all/fifo"].mode == "prw-r-----"
    assert (ours[b"all/null"].mode, ours[b"all/null"].device) == ("crw-rw-rw-", os.makedev(1, 3))
    assert ours[b"all/disk"].device == os.makedev(7, 200)
    assert ours[b"all/big-owner"].owner == (3_000_000_000, 4_000_000_000)
    assert ours[b"all/before-1970"].mtime_ns == 0, "engines know no earlier time"
    assert ours[b"all/far-future"].mtime_ns == 4_500_000_000 * 10**9
    assert b"all/" + LATIN in ours
    assert b"all/" + LONG.encode() in ours
    assert ours[DEEP.encode() + b"/bottom"].size == len("down here\n")
    assert ours[b"deep/folder-number-000"].mtime_ns == NOON + 2
    assert ours[b"all"].mtime_ns == NOON + 5


def test_layers_cover_each_other_as_they_should(trees: tuple[dict[bytes, File], ...]) -> None:
    ours = trees[0]
    below_low = {path[4:] for path in ours if path.startswith(b"low/")}
    assert below_low == {
        *(b"kept", b"deleted", b"replaced", b"becomes-file", b"becomes-folder"),
        *(b"becomes-folder/y", b"becomes-real", b"opaque", b"opaque/shown", b"pair", b"pair2"),
    }
    assert ours[b"low/deleted"].size == len("back again\n")
    assert ours[b"low/becomes-real"].mode == "-rw-r--r--"
    assert ours[b"low/replaced"].mtime_ns == NOON + 9
    assert ours[b"low"].owner == (0, 0)
    assert ours[b"low/opaque"].mode == "drwxr-xr-x"


def test_a_sparse_file_has_its_content_and_its_holes(sandbox: Sandbox, name: str) -> None:
    if sandbox.plugin is None:
        pytest.skip("the engine's own drivers refuse sparse entries")
    size, island, at = 40_000_000, b"island" * 100, 20_000_000
    layer = Layer().raw(gnu_sparse_entry("sparse", size, island, at))
    load(sandbox, Image(f"{name}:1", busybox(), layer))
    run_sleeping(sandbox, name, image=f"{name}:1")
    path = os.path.join(merged(sandbox, name), "sparse")
    status = os.lstat(path)
    expected = bytes(at) + island + bytes(size - at - len(island))
    with open(path, "rb") as file:
        assert file.read() == expected
    assert status.st_blocks * 512 < 1_000_000
    sandbox.docker("rm", "-f", name)
    sandbox.docker("rmi", f"{name}:1")
