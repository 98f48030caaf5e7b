"""A first image without a registry: one static busybox with links for its commands.

`manuka.toolkit.images`, `manuka.toolkit.demo` and the tests on an engine start from it.
"""

from __future__ import annotations

import io
import shutil
import struct
import tarfile

from manuka.toolkit.namespace import SandboxError

COMMANDS = (
    *("cat", "chmod", "chown", "cp", "date", "dd", "echo", "env", "false", "find", "grep", "head"),
    *(
        "httpd",
        "id",
        "kill",
        "ln",
        "ls",
        "md5sum",
        "mkdir",
        "mkfifo",
        "mknod",
        "mv",
        "ps",
        "pwd",
        "rm",
    ),
    *("rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar"),
    *("test", "touch", "tr", "true", "uname", "vi", "wc", "wget", "xargs"),
)
_PT_INTERP = 3


def find() -> str:
    """The path of a busybox that needs no library; SandboxError with a remedy if there is none."""
    path = shutil.which("busybox")
    if path is None or not is_static(path):
        raise SandboxError(
            "a container needs a program to run: install a static busybox "
            "(apt-get install busybox-static)"
        )
    return path


def is_static(path: str) -> bool:
    """Whether an ELF program asks for no dynamic linker (elf(5)); False for any other file."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return False
        order = "<" if header[5] == 1 else ">"
        (table,) = struct.unpack_from(order + "Q", header, 32)
        size, count = struct.unpack_from(order + "HH", header, 54)
        file.seek(table)
        entries = file.read(size * count)
    kinds = (struct.unpack_from(order + "I", entries, size * i)[0] for i in range(count))
    return _PT_INTERP not in kinds


def image(path: str) -> bytes:
    """A tar of a root file system with the busybox at `path`, for ``docker import``."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("srv", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        with open(path, "rb") as file:
            entry = tarfile.TarInfo("bin/busybox")
            entry.size, entry.mode = file.seek(0, 2), 0o755
            file.seek(0)
            tar.addfile(entry, file)
        for command in COMMANDS:
            entry = tarfile.TarInfo("bin/" + command)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return output.getvalue()
