"""Extended attributes, as an answer instead of an error when there is none.

Easy to get wrong: os.getxattr follows symlinks unless told, and there is no form with a folder's
descriptor; `at` makes the path that stands for one.
"""

from __future__ import annotations

import errno
import os
from typing import Union

PathOrFd = Union[str, bytes, int]

_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP)


def get_xattr(path_or_fd: PathOrFd, name: str) -> bytes | None:
    """The attribute's value; None when the file or its file system has none such.

    A symlink is asked itself.  A descriptor opened with O_PATH is no good (EBADF).
    """
    try:
        if isinstance(path_or_fd, int):
            return os.getxattr(path_or_fd, name)
        return os.getxattr(path_or_fd, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


def may_have_xattrs(path_or_fd: PathOrFd) -> bool:
    """False when the file surely has none at all.  Takes what `get_xattr` takes, and never raises.

    For one file after the other this is the quicker question: an error takes Python longer than a
    system call takes the kernel.
    """
    try:
        if isinstance(path_or_fd, int):
            return bool(os.listxattr(path_or_fd))
        return bool(os.listxattr(path_or_fd, follow_symlinks=False))
    except OSError:
        return True


def at(dir_fd: int, name: bytes) -> bytes:
    """A path to `name` in an open folder, for calls that know no descriptors.

    `name` must be a single name: in a longer path the kernel would follow symlinks.
    """
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)
