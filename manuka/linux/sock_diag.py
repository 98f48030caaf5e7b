"""Which UNIX sockets listen at a file, asked from the kernel (sock_diag(7)).

/proc/net/unix has the path that a socket was bound by: another mount namespace has other files at
the same path, and a file that was renamed or bind-mounted has another path.  The kernel keeps the
file itself, by device and inode, which `listening_at` compares.  Its answer covers the network
namespace of the caller's thread.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x001 | 0x100 | 0x200  # NLM_F_REQUEST, NLM_F_ROOT, NLM_F_MATCH
_ERROR, _DONE = 2, 3
_LISTEN = 10  # TCP_LISTEN, which UNIX sockets use as well
_SHOW_VFS, _VFS = 2, 1
_HEADER = struct.Struct("=LHHLL")
_REQUEST = struct.Struct("=BBHLLLLL")
_MESSAGE = struct.Struct("=BBBBLLL")


def listening_at(path: str) -> set[int]:
    """The inodes of the sockets that listen at the file `path`, as ``socket:[INODE]`` has them.

    Raises OSError when there is no such file, or the kernel has no such diagnosis (unix_diag).
    """
    wanted = _identity(path)
    return {inode for inode, file in _dump() if file == wanted}


def _identity(path: str) -> tuple[int, int]:
    """Inode and device of a file as the kernel counts them, which stat(2) may show otherwise."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file.read().splitlines())
        inode = int(fields.get("ino", os.fstat(fd).st_ino))  # since Linux 5.14
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                mount_id, _, device = line.split(None, 3)[:3]
                if int(mount_id) == int(fields["mnt_id"]):
                    major, minor = map(int, device.split(b":"))
                    return inode & 0xFFFFFFFF, major << 20 | minor
        status = os.fstat(fd)  # the mount is another namespace's
        return inode & 0xFFFFFFFF, os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    finally:
        os.close(fd)


def _dump() -> Iterator[tuple[int, tuple[int, int]]]:
    """Each listening socket that has a file: its inode, and the file's inode and device."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << _LISTEN, 0, _SHOW_VFS, 0, 0)
    head = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(10)
        netlink.sendto(head + request, (0, 0))
        while True:
            answer = netlink.recv(1 << 16)
            while answer:
                length, kind = _HEADER.unpack_from(answer)[:2]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (error,) = struct.unpack_from("=i", answer, _HEADER.size)
                    raise OSError(-error, os.strerror(-error))
                inode = _MESSAGE.unpack_from(answer, _HEADER.size)[4]
                file = _attributes(answer[_HEADER.size + _MESSAGE.size : length]).get(_VFS)
                if file is not None:
                    yield inode, struct.unpack("=LL", file)
                answer = answer[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[_aligned(length) :]
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3
