"""A tree with one of everything that a file system can hold, made in place or sent as a tar.

What the driver's file system has no room for (attributes, ACLs) is left out, so compare trees with
each other and not with this list.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import tempfile
from typing import Callable, Dict, Iterator

from manuka.toolkit.layertar import MTIME, LayerTar

#: A version 2 capability set: cap_net_bind_service=ep, little-endian as everywhere.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)

_NAMES = [
    b".hidden",
    b"...",
    b"ends in a dot.",
    b" blank ",
    b"new\nline",
    b"latin-\xe9",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"case",
    b"Case",
    b"n" * 255,
    b"-rf",
    b"a:b,c=d\\e",
    b".nfs-is-no-prefix",
    b"copy~",
    b"#backup#",
]
_DEEP = b"/".join([b"deep" * 20] * 15)
_HOLE = 1 << 20

#: The entries of an ACL: tag, permissions, id; as ``system.posix_acl_access`` has them.
_ANY = 0xFFFFFFFF
_ACL = [(1, 6, _ANY), (2, 4, 1234), (4, 4, _ANY), (16, 4, _ANY), (32, 0, _ANY)]
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ACL)

#: What is set as an extended attribute: path, attribute, value.
_ATTRIBUTES = [
    (b"attributes/file", "user.note", b"\0binary\xff="),
    (b"attributes/file", "user.long", b"v" * 1000),
    (b"attributes/directory", "user.note", b"of a directory"),
    (b"attributes/capable", "security.capability", CAPABILITY),
    (b"attributes/acl", "system.posix_acl_access", ACL),
    (b"attributes/directory", "system.posix_acl_default", ACL),
]

_MODES = [0o000, 0o600, 0o1777, 0o2755, 0o4755, 0o6711]
_OWNERS = [(1, 2), (1000, 1001), (65534, 65534), (4_000_000_000, 3_999_999_999)]
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOSPC)


def write(tree: object) -> None:
    """Make one of everything in a directory.  Raises OSError where names or links are refused."""
    root = os.fsencode(str(tree))
    for step in (_names, _contents, _links, _special, _modes, _owners, _attributes):
        step(root)
    _times(root)


def tar() -> LayerTar:
    """Much the same, as a layer."""
    tar = LayerTar().folder("names").folder("empty", mtime_ns=MTIME + 1)
    for name in _NAMES:
        tar.file(b"names/" + name, name)
    tar.file(_DEEP + b"/file", b"deep")
    tar.file("content", b"x" * 70_000).file("nothing", b"")
    tar.folder("links").file("links/first", b"shared", 0o640, uid=7, gid=8)
    tar.hardlink("links/second", "links/first", 0o640, uid=7, gid=8)
    tar.hardlink("third", "links/first", 0o640, uid=7, gid=8)
    tar.symlink("links/relative", "first", uid=5, gid=6).symlink("links/dangling", "/no/such")
    tar.symlink("links/directory", "../names").fifo("fifo", 0o622)
    if _can_make_devices():
        tar.device("console", 5, 1, 0o620, gid=5).device("disk", 8, 17, 0o660, block=True)
    for mode in _MODES:
        tar.file(f"mode-{mode:o}", b"m", mode).folder(f"mode-d-{mode:o}", mode)
    for uid, gid in _OWNERS:
        tar.file(f"owner-{uid}", b"o", uid=uid, gid=gid).folder(f"owner-d-{uid}", uid=uid, gid=gid)
    for second in (1, 86_400, 2**31 + 7):
        tar.file(f"time-{second}", b"t", mtime_ns=second * 10**9 + 123_456_789)
    return tar.file("capable", b"#!", 0o755, xattrs={"security.capability": CAPABILITY})


def _names(root: bytes) -> None:
    os.makedirs(root + b"/names")
    for name in _NAMES:
        _file(root + b"/names/" + name, name)
        os.mkdir(root + b"/names/" + name[:200] + b".d")
    os.makedirs(root + b"/" + _DEEP)
    _file(root + b"/" + _DEEP + b"/file", b"deep")
    os.makedirs(root + b"/empty/within/empty")


def _contents(root: bytes) -> None:
    for size in (0, 1, 4095, 4096, 4097, 70_000):
        _file(root + b"/size-%d" % size, bytes((at * 7 + size) % 256 for at in range(size)))
    with open(root + b"/sparse", "wb") as file:
        file.write(b"begin")
        file.seek(_HOLE)
        file.write(b"middle")
        file.truncate(2 * _HOLE)


def _links(root: bytes) -> None:
    os.makedirs(root + b"/links/elsewhere")
    _file(root + b"/links/first", b"shared")
    os.link(root + b"/links/first", root + b"/links/second")
    os.link(root + b"/links/first", root + b"/links/elsewhere/third")
    targets = {b"relative": b"first", b"absolute": b"/etc/passwd", b"dangling": b"no/such"}
    targets.update({b"directory": b"elsewhere", b"long": b"/".join([b"long"] * 200)})
    for name, target in targets.items():
        os.symlink(target, root + b"/links/" + name)
        os.chown(root + b"/links/" + name, 5, 6, follow_symlinks=False)


def _special(root: bytes) -> None:
    os.mkdir(root + b"/special")
    os.mkfifo(root + b"/special/fifo", 0o622)
    os.mknod(root + b"/special/socket", stat.S_IFSOCK | 0o600)
    with _where_supported():
        os.mknod(root + b"/special/character", stat.S_IFCHR | 0o620, os.makedev(5, 1))
        os.mknod(root + b"/special/block", stat.S_IFBLK | 0o660, os.makedev(8, 17))
        os.mknod(root + b"/special/large-numbers", stat.S_IFCHR | 0o600, os.makedev(240, 300))


def _modes(root: bytes) -> None:
    os.mkdir(root + b"/modes")
    for mode in _MODES:
        for make, name in ((_file, b"f"), (os.mkdir, b"d")):
            path = root + b"/modes/%s-%o" % (name, mode)
            make(path)
            os.chown(path, 7, 8)
            os.chmod(path, mode)


def _owners(root: bytes) -> None:
    os.mkdir(root + b"/owners")
    kinds: Dict[bytes, Callable[[bytes], object]] = {
        b"f": _file,
        b"d": os.mkdir,
        b"l": lambda path: os.symlink(b"target", path),
    }
    for uid, gid in _OWNERS:
        for name, make in kinds.items():
            path = root + b"/owners/%s-%d" % (name, uid)
            make(path)
            os.chown(path, uid, gid, follow_symlinks=False)


def _attributes(root: bytes) -> None:
    os.makedirs(root + b"/attributes/directory")
    for name in (b"file", b"capable", b"acl"):
        _file(root + b"/attributes/" + name, name)
    for path, attribute, value in _ATTRIBUTES:
        with _where_supported():
            os.setxattr(root + b"/" + path, attribute, value)


def _times(root: bytes) -> None:
    """A time for each, with fractions of a second, so that none is that of a copy."""
    when = MTIME
    for top, folders, files in os.walk(root, topdown=False):
        for entry in sorted(files) + sorted(folders):
            when += 10**12 + 123_456_789
            os.utime(os.path.join(top, entry), ns=(when, when), follow_symlinks=False)


def _file(path: bytes, content: bytes = b"content") -> None:
    with open(path, "wb") as file:
        file.write(content)


def _can_make_devices() -> bool:
    with tempfile.TemporaryDirectory() as folder, _where_supported():
        os.mknod(folder + "/device", stat.S_IFCHR | 0o600, os.makedev(5, 1))
        return True
    return False


@contextlib.contextmanager
def _where_supported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
