"""Whether something is there, where a disk that fails is an error and not a "no".

`os.path.exists` and its like answer False for every error.  Whoever decides by that answer whether
a layer exists, or is whole, takes a read error for a layer that is gone or finished.  So the
functions here answer False only when the kernel says that there is no such path, and raise OSError
for EIO, ENOMEM, EACCES and all else.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Union

Path = Union[str, bytes]


def is_there(path: Path) -> bool:
    """Whether there is anything at `path`, which is not followed when it is a symlink."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether `path` leads to a directory, through symlinks if need be."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def link_target(path: str) -> str | None:
    """What the symlink at `path` says; None when there is none: nothing, or another file."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
