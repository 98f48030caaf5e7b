"""Copies of files that share their blocks until one of them is written to (ioctl_ficlone(2)).

btrfs has them, and xfs if it was made with ``reflink=1``.  Easy to get wrong: EINVAL may be about
one file (on btrfs, one that is not copied on write), the other refusals are about the whole file
system.
"""

from __future__ import annotations

import errno
import fcntl
import tempfile

_FICLONE = 0x40049409

#: What a file system answers that has no such copies.
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS)


def clone_file(source: int, target: int) -> None:
    """Make the open file `target` share all that `source` holds, holes too.  Raises OSError."""
    fcntl.ioctl(target, _FICLONE, source)


def can_clone(folder: str) -> bool:
    """Whether files in `folder` can be cloned."""
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as copy:
        source.write(b"x")
        source.flush()
        try:
            clone_file(source.fileno(), copy.fileno())
        except OSError as error:
            if error.errno in (*UNSUPPORTED, errno.EINVAL):
                return False
            raise
    return True
