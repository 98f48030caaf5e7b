"""Facts about the running kernel and this process that need no system call of their own.

Easy to get wrong: the umask can only be asked for by setting it, which would touch files that
other threads make meanwhile; /proc tells it without.
"""

from __future__ import annotations

import functools
import os
import re

_STATUS = "/proc/self/status"


def overlay_parameter(name: str) -> str | None:
    """The overlay module's parameter, for example "Y" or "N"; None when it has none such."""
    try:
        with open("/sys/module/overlay/parameters/" + name) as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


@functools.lru_cache(maxsize=1)
def in_user_namespace() -> bool:
    """Whether this process's user ids are not the machine's own; asked for once."""
    try:
        with open("/proc/self/uid_map") as file:
            return is_mapped(file.read())
    except FileNotFoundError:
        return False


def is_mapped(uid_map: str) -> bool:
    """Whether the text of a uid_map is other than the one of the first user namespace."""
    return uid_map.split() != ["0", "0", "4294967295"]


def page_size() -> int:
    """In bytes."""
    return os.sysconf("SC_PAGE_SIZE")


def release() -> tuple[int, int]:
    """The kernel's release, as (major, minor)."""
    return parse_release(os.uname().release)


def parse_release(text: str) -> tuple[int, int]:
    """The numbers of a release: (5, 10) for "5.10.0-28-amd64"; (0, 0) when it has none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def umask() -> int:
    """This process's umask, left as it is."""
    try:
        with open(_STATUS, "rb", buffering=0) as file:
            match = re.search(rb"^Umask:\s*([0-7]+)$", file.read(), re.MULTILINE)
    except FileNotFoundError:
        match = None
    if match:
        return int(match.group(1), 8)
    # Before Linux 4.7 there is only this way, with its moment of a stricter umask.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
