"""What this kernel's overlayfs does on the disk that holds the layers, found out by trying.

Asking for versions is not enough: distributions patch, modules have parameters, and file systems
differ.  So overlays are mounted in a temporary folder next to the layers, with the very options
that layers will be mounted with, and looked at.

Source: ``check.go`` and ``Init`` in the engine's ``daemon/graphdriver/overlay2``.  Better than
there: where the kernel lets us, ``redirect_dir`` and ``metacopy`` are switched off for our mounts,
whatever the machine's default; with either, a layer's own folder does not hold all that it adds.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import tempfile
from typing import Iterator, NamedTuple

from manuka.driver import DriverError
from manuka.layers.whiteouts import TRUSTED, USER, is_opaque
from manuka.linux.dirents import has_d_type
from manuka.linux.kernel import in_user_namespace, overlay_parameter
from manuka.linux.mount import mount_from, unmount
from manuka.linux.statfs import filesystem_name
from manuka.linux.tree import remove_tree
from manuka.linux.xattr import get_xattr

log = logging.getLogger(__name__)

_PREFIX = ".overlay-check-"

#: How the names of directories begin that a check leaves when it is killed: ours, or the engine's
#: (``overlayutils`` and ``overlay2/check.go``).
LEFT_BY_CHECKS = (
    _PREFIX,
    "check-overlayfs-support",
    "metacopy-check",
    "opaque-bug-check",
    "userxattr-check",
)

#: Errors of a disk, or a process, in a bad state, which say nothing about overlays on it.
_PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


class Overlayfs(NamedTuple):
    """How to mount layers here, and what that gives.

    filesystem: the backing file system's name, as ``docker info`` shows it.
    options: mount options, each with a comma behind it.
    xattrs: prefix of the attributes in which overlayfs keeps its records.
    metacopy: a chmod copies an inode up without its contents.
    """

    filesystem: str
    options: str
    xattrs: str
    metacopy: bool

    @property
    def following(self) -> str:
        """Options for a layer that another driver made with ``redirect_dir`` or ``metacopy``."""
        options = self.options
        for name in ("redirect_dir", "metacopy"):
            options = options.replace(f"{name}=off", f"{name}=on")
        return options

    @property
    def userxattr(self) -> bool:
        """Whether records are kept in ``user.`` attributes, as in a user namespace."""
        return self.xattrs == USER


def examine(folder: str) -> Overlayfs:
    """Find out how overlays work in `folder`, an existing one.

    Raises DriverError, with what to do, when they don't.
    """
    filesystem = filesystem_name(folder)
    if filesystem == "overlayfs":
        raise DriverError(
            f"{folder} lies on an overlayfs, which cannot carry another; "
            "give the engine a data-root on a disk or a volume"
        )
    _load_module()
    _sweep(folder)
    options, xattrs = _mount_options()
    metacopy = _metacopy(folder, filesystem, options, xattrs)
    if not has_d_type(folder):
        raise DriverError(
            f"the file system {filesystem} of {folder} does not tell file types in directories "
            "(d_type), so deleted files would reappear; make it anew, xfs with: mkfs.xfs -n ftype=1"
        )
    return Overlayfs(filesystem, options, xattrs, metacopy)


def why_not_native(folder: str, overlayfs: Overlayfs) -> str | None:
    """Why a layer's own folder does not tell its difference from its parent; None when it does.

    Raises OSError when that cannot be found out now: the disk is full, say.
    """
    if overlayfs.userxattr:
        return "running in a user namespace"
    if overlayfs.metacopy:
        return "the kernel copies files up without their contents (metacopy)"
    try:
        with _overlay(folder, overlayfs.options, "l2/d", "l1/d", "l1/d1", "l2/d1") as test:
            _touch(test.lower(2, "d/f"))
            os.setxattr(test.lower(2, "d"), overlayfs.xattrs + "opaque", b"y")
            test.mount(2, 1)
            _touch(test.merged("d/f"))
            if is_opaque(test.upper("d"), overlayfs.xattrs):
                return "the kernel marks folders as opaque that it copies up"
            try:
                os.rename(test.merged("d1"), test.merged("d2"))
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                if get_xattr(test.upper("d2"), overlayfs.xattrs + "redirect") is not None:
                    return "the kernel renames folders by redirection (redirect_dir)"
    except OSError as error:
        if error.errno in _PASSING:
            raise
        return f"trying it failed: {error}"
    return None


def _sweep(folder: str) -> None:
    """Remove what a check left that was killed in the middle."""
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            log.warning("removing %s/%s, left by a crash", folder, name)
            remove_tree(f"{folder}/{name}")


def _load_module() -> None:
    with open("/proc/filesystems", encoding="ascii") as file:
        if "\toverlay\n" in file.read():
            return
    with contextlib.suppress(OSError):
        subprocess.run(["modprobe", "overlay"], check=False, stderr=subprocess.DEVNULL)


def _mount_options() -> tuple[str, str]:
    if in_user_namespace():
        return "userxattr,", USER
    options = [f"{name}=off," for name in ("index", "redirect_dir", "metacopy") if _known(name)]
    return "".join(options), TRUSTED


def _known(parameter: str) -> bool:
    return overlay_parameter(parameter) is not None


def _metacopy(folder: str, filesystem: str, options: str, xattrs: str) -> bool:
    """Mount an overlay with two lower layers; whether a chmod copies up no contents."""
    try:
        with _overlay(folder, options, "l2", "l1") as test:
            _touch(test.lower(1, "f"))
            test.mount(2, 1)
            os.chmod(test.merged("f"), 0o600)
            return get_xattr(test.upper("f"), xattrs + "metacopy") is not None
    except OSError as error:
        raise DriverError(
            f"overlays with several lower layers do not work in {folder} on {filesystem}: "
            f"{error.strerror or error}; the driver needs root with CAP_SYS_ADMIN, the kernel's "
            "module overlay, and a disk with ext4 (without casefold), xfs (ftype=1) or btrfs"
        ) from error


class _TestOverlay:
    def __init__(self, root: str, options: str) -> None:
        self._root = root
        self._options = options

    def lower(self, number: int, path: str) -> str:
        return f"{self._root}/l{number}/{path}"

    def upper(self, path: str) -> str:
        return f"{self._root}/upper/{path}"

    def merged(self, path: str) -> str:
        return f"{self._root}/merged/{path}"

    def mount(self, *lowers: int) -> None:
        folders = ":".join(f"l{number}" for number in lowers)
        data = f"{self._options}lowerdir={folders},upperdir=upper,workdir=work"
        mount_from(self._root, "overlay", "merged", "overlay", 0, data)


@contextlib.contextmanager
def _overlay(folder: str, options: str, *folders: str) -> Iterator[_TestOverlay]:
    """A folder to mount an overlay in, gone after the ``with`` block."""
    root = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
    try:
        for path in (*folders, "upper", "work", "merged"):
            os.makedirs(f"{root}/{path}")
        yield _TestOverlay(root, options)
    finally:
        with contextlib.suppress(OSError):
            unmount(f"{root}/merged", detach=True)
        remove_tree(root)


def _touch(path: str) -> None:
    with open(path, "a", encoding="ascii") as file:
        file.write(".")
