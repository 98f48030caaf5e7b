"""How a layer says "this is gone": in a tar, and on an overlayfs.

========================  =============================  =======================================
what                      in a tar (AUFS style, OCI)     in an overlayfs layer
========================  =============================  =======================================
``dir/name`` is gone      empty file ``dir/.wh.name``    character device 0:0 ``dir/name``
all of ``dir`` is hidden  empty file                     extended attribute ``trusted.overlay.
                          ``dir/.wh..wh..opq``           opaque`` = ``y`` on ``dir`` (*opaque*)
========================  =============================  =======================================

Sources: the OCI image specification, "Representing Changes"; the kernel's
``Documentation/filesystems/overlayfs.rst``; ``pkg/archive/archive_linux.go`` in the engine.
Easy to get wrong: the prefix stands before the last component of a path, not before the path.
"""

from __future__ import annotations

import os
import stat

from manuka.linux.xattr import PathOrFd, get_xattr

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"

#: What AUFS kept for itself in a layer's root, e.g. ``.wh..wh.aufs``; never part of an image.
AUFS_PREFIX = b".wh..wh."
#: Where AUFS kept files with several hard links; entries of a tar may link to them.
AUFS_LINKS = b".wh..wh.plnk"

#: Prefixes of the attributes in which an overlayfs keeps its own records.
TRUSTED = "trusted.overlay."
USER = "user.overlay."


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this file of an overlayfs layer says that its name is gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(folder: PathOrFd, overlay_xattrs: str = TRUSTED) -> bool:
    """Whether this folder of an overlayfs layer hides what lower layers have at its place."""
    return get_xattr(folder, overlay_xattrs + "opaque") == b"y"
