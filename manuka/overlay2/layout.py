"""How layers lie on the disk.  The layout is Moby's, so either driver can read the other's.

::

    HOME/                    0710
    HOME/l/SHORT             a symbolic link to ../ID/diff; short, since mount(2) takes one page
    HOME/ID/diff/            what the layer holds
    HOME/ID/link             SHORT
    HOME/ID/lower            l/SHORT:l/SHORT:…, nearest parent first       }
    HOME/ID/work/            overlayfs' own                                } only with a parent
    HOME/ID/merged/          where it is mounted, only while it is         }
    HOME/ID/committed        empty: a child was made of it, it changes no more
    HOME/ID/unpacking        empty: a tar is being unpacked, or was when the plugin died
    HOME/ID/redirected       empty: it leaves to the layers below what it should hold itself
    HOME/.incomplete/        layers being made or removed; what is here at start is rubbish

The last three are not Moby's, which does not mind them.  The first and the last are what makes a
crash harmless: a layer appears under its id, and vanishes, by one rename; and one whose unpacking
did not reach its end can never be taken for whole.  The other is about layers that Moby's driver
made on a machine with ``redirect_dir`` or ``metacopy``: these need the same to be mounted.

Source: the package comment of the engine's ``daemon/graphdriver/overlay2/overlay.go``.
Easy to get wrong: an empty ``link`` or ``lower`` is what a power failure leaves of one, and must
not be believed.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import logging
import os
import re
import secrets
import threading
from typing import Iterator

from manuka.driver import PARENT_CURE, DriverError
from manuka.layers.idmap import IdMaps
from manuka.layers.walk import walk
from manuka.layers.whiteouts import TRUSTED
from manuka.linux.presence import is_folder, is_there, link_target
from manuka.linux.private import make_directories, set_mode
from manuka.linux.tree import remove_tree
from manuka.linux.xattr import at, get_xattr

log = logging.getLogger(__name__)

#: Lower layers of one mount: what fits into a page of mount data, and the engine's own limit.
MAX_DEPTH = 128

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_SHORT = re.compile(r"[A-Z2-7]{26}")
_INCOMPLETE = ".incomplete"

#: The names in a home, beside layers' ids, and those in a layer.
HOMES_OWN = ("l", _INCOMPLETE)
LAYERS_OWN = (
    *("diff", "link", "lower", "work", "merged"),
    *("committed", "unpacking", "redirected"),
)

#: More bytes than `MAX_DEPTH` short links take.
_LONGEST = 1 << 14

#: Errors in reading a small file that say nothing about what is in it.
_UNTOLD = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Layer:
    """The paths of one layer, and the small files in it."""

    def __init__(self, home: str, layer_id: str) -> None:
        self.id = layer_id
        self.home = home
        self.path = f"{home}/{layer_id}"
        self.diff = f"{self.path}/diff"
        self.work = f"{self.path}/work"
        self.merged = f"{self.path}/merged"
        self.committed = f"{self.path}/committed"
        self.unpacking = f"{self.path}/unpacking"
        self.redirected = f"{self.path}/redirected"

    def exists(self) -> bool:
        """Whether the layer is there, whole or not."""
        return is_there(self.path)

    def is_unpacking(self) -> bool:
        """Whether a tar is being unpacked into it, or was when a plugin died."""
        return is_there(self.unpacking)

    def is_committed(self) -> bool:
        """Whether a child was ever made of it."""
        return is_there(self.committed)

    def is_redirected(self) -> bool:
        """Whether what it should hold lies in the layers below: a folder, or a file's contents."""
        return is_there(self.redirected)

    def commit(self) -> None:
        """Note that a child is made of it.  Children may be made on several threads at once."""
        if not self.is_committed():
            _touch(self.committed)

    def lowers(self) -> list[str] | None:
        """The short links below it (``l/SHORT``), nearest first; None for a base layer.

        Raises DriverError when the file was damaged.
        """
        text = _read(f"{self.path}/lower")
        if text is None:
            return None
        lowers = text.split(":")
        if not all(_SHORT.fullmatch(lower[2:]) and lower.startswith("l/") for lower in lowers):
            raise DriverError(
                f"layer {self.id} is damaged: {self.path}/lower does not list its lower layers; "
                "remove what uses it (docker rm, docker rmi) and pull or build it again"
            )
        return lowers

    def short_link(self) -> str | None:
        """The name of its short link; None when the file that tells it was lost or damaged.

        Raises OSError when the disk, or this process, is in no state to tell.
        """
        try:
            text = _read(f"{self.path}/link")
        except OSError as error:
            if error.errno in _UNTOLD:
                raise
            log.warning("layer %s is damaged: %s", self.id, error)
            return None
        return text if text is not None and _SHORT.fullmatch(text) else None


class Home:
    """All layers of one driver.  Callers hold the lock of the ids they change."""

    def __init__(self, path: str, id_maps: IdMaps) -> None:
        """Make the folder what it has to be, and tidy up after a crash."""
        self.path = path
        self._id_maps = id_maps
        self._incomplete = f"{path}/{_INCOMPLETE}"
        self._repairing = threading.Lock()
        own, (_, root_gid) = (os.geteuid(), os.getegid()), id_maps.root
        make_directories(os.path.dirname(path), 0o711)
        _make_home(os.path.realpath(path), 0o710, (own[0], root_gid))
        _make_home(f"{path}/l", 0o700, own)
        if not is_folder(self._incomplete):
            self._note_redirections()
        _make_home(self._incomplete, 0o700, own)
        self._tidy()

    def layer(self, layer_id: str) -> Layer:
        """A layer's paths, whether it exists or not.  Raises DriverError for no plain name."""
        if not _ID.fullmatch(layer_id) or layer_id == "l":
            raise DriverError(f"{layer_id!r} cannot be a layer's id: it is no plain name")
        return Layer(self.path, layer_id)

    def existing(self, layer_id: str) -> Layer:
        """The same; raises DriverError when there is no such layer."""
        layer = self.layer(layer_id)
        if not layer.exists():
            raise DriverError(f"there is no layer {layer_id}")
        return layer

    def layers(self) -> list[Layer]:
        """Every layer, in no order."""
        with os.scandir(self.path) as entries:
            return [
                Layer(self.path, entry.name)
                for entry in entries
                if entry.name != "l" and _ID.fullmatch(entry.name) and entry.is_dir()
            ]

    # --- life and death --------------------------------------------------------------------------

    @contextlib.contextmanager
    def new_layer(self, layer: Layer, parent: Layer | None) -> Iterator[str]:
        """Make a layer: the block may add to the folder it is given, then it appears.

        Raises DriverError when the layer exists, or when `parent` cannot carry one.  After an
        error nothing is left.
        """
        self._replace_half_made(layer)
        lowers = [] if parent is None else self._lowers_for_child(parent)
        short = _new_short_link()
        staged = f"{self._incomplete}/{layer.id}.{short}"
        link = f"{self.path}/l/{short}"
        own, root = (os.geteuid(), os.getegid()), self._id_maps.root
        try:
            _make_folder(staged, 0o710, (own[0], root[1]))
            _make_folder(f"{staged}/diff", 0o755, root)
            if lowers:
                _make_folder(f"{staged}/work", 0o700, root)
            yield staged
            _write(f"{staged}/link", short)
            if lowers:
                _write(f"{staged}/lower", ":".join(lowers))
            os.symlink(f"../{layer.id}/diff", link)
            if parent is not None:
                parent.commit()
            os.rename(staged, layer.path)
        except BaseException:
            # What cannot be removed now goes with the next start; the first error tells more.
            with contextlib.suppress(OSError):
                os.unlink(link)
            with contextlib.suppress(OSError):
                remove_tree(staged)
            raise

    def remove_unfinished(self) -> None:
        """Remove layers whose unpacking was broken off, when no engine can come back to them."""
        for layer in self.layers():
            try:
                if layer.is_unpacking():
                    log.warning("removing layer %s: a crash left it unfinished", layer.id)
                    self.remove(layer)
            except OSError as error:
                log.warning("layer %s stays as it is: %s", layer.id, error)

    def remove(self, layer: Layer) -> None:
        """Remove a layer, which is not mounted.  One that does not exist is no error."""
        links = self._links_to(layer)
        removed = f"{self._incomplete}/{layer.id}.{secrets.token_hex(4)}"
        try:
            os.rename(layer.path, removed)
        except FileNotFoundError:
            return
        for short in links:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}/l/{short}")
        remove_tree(removed)

    def _replace_half_made(self, layer: Layer) -> None:
        """An id is taken, unless by what a crash left: then that makes way."""
        if not layer.exists():
            return
        if is_there(layer.diff) and layer.short_link() and not layer.is_unpacking():
            raise DriverError(f"layer {layer.id} exists already")
        log.warning("layer %s was left unfinished by a crash; it is made anew", layer.id)
        self.remove(layer)

    def _note_redirections(self) -> None:
        """Look through layers that another driver made, once, for what they leave to those below.

        Only containers' layers can: an image's are unpacked, or packed whole, and have children.
        """
        for layer in self.layers():
            try:
                if layer.is_committed() or not is_folder(layer.work):
                    continue
                path = redirection(layer.diff)
            except OSError as error:
                # It is looked for only once, and a redirection that is missed loses files.
                path = f"unknown: {error}"
            if path is not None:
                log.warning(
                    "layer %s was made with redirect_dir or metacopy (%s): it is mounted so, and "
                    "compared as a whole",
                    *(layer.id, path),
                )
                _touch(layer.redirected)

    # --- short links -----------------------------------------------------------------------------

    def diff_folders(self, layer: Layer) -> list[str]:
        """The ``diff`` folders below a layer, nearest first.

        Raises DriverError when a lower layer is gone.
        """
        return [self._follow(layer, lower) for lower in layer.lowers() or ()]

    def _follow(self, layer: Layer, lower: str) -> str:
        for _ in range(2):
            target = link_target(f"{self.path}/{lower}")
            if target is not None:
                folder = os.path.normpath(f"{self.path}/l/{target}")
                if is_folder(folder):
                    return folder
            with self._repairing:
                self._repair_links()
        raise DriverError(
            f"layer {layer.id} needs a layer that is gone: nothing in {self.path} has the short "
            f"link {lower}; remove the images and containers that use it, and pull or build anew"
        )

    def _repair_links(self) -> None:
        """Make short links again that a crash or a power failure lost.  Wants `_repairing`."""
        for layer in self.layers():
            target = f"../{layer.id}/diff"
            try:
                short = layer.short_link()
                link = f"{self.path}/l/{short}"
                if short is None or self._leads_to(short, layer):
                    continue
                if is_folder(link):
                    log.warning("layer %s is damaged: its file 'link' is another's", layer.id)
                    continue
            except OSError as error:
                log.warning("layer %s is damaged: %s", layer.id, error)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
            os.symlink(target, link)
            log.warning("layer %s: its short link %s was lost; made again", layer.id, short)

    def _lowers_for_child(self, parent: Layer) -> list[str]:
        """What a child's ``lower`` lists."""
        if not parent.exists():
            raise DriverError(f"the parent layer {parent.id} does not exist: {PARENT_CURE}")
        if parent.is_unpacking() or not is_there(parent.diff):
            raise DriverError(
                f"the parent layer {parent.id} is not whole: making it did not reach the end"
            )
        lowers = [f"l/{self._link_of(parent)}", *(parent.lowers() or ())]
        if len(lowers) > MAX_DEPTH:
            raise DriverError(f"max depth exceeded: a layer has at most {MAX_DEPTH} below it")
        return lowers

    def _link_of(self, layer: Layer) -> str:
        """A layer's short link, found or made again when its file was lost."""
        with self._repairing:
            short = layer.short_link()
            if short is not None and (
                self._leads_to(short, layer) or not is_folder(f"{self.path}/l/{short}")
            ):
                return short
            links = self._links_to(layer)
            if links:
                short = links[0]
            else:
                short = _new_short_link()
                os.symlink(f"../{layer.id}/diff", f"{self.path}/l/{short}")
            log.warning("layer %s: its file 'link' was damaged; written again", layer.id)
            written = f"{self._incomplete}/link.{layer.id}"
            _write(written, short)
            os.rename(written, f"{layer.path}/link")
            return short

    def _links_to(self, layer: Layer) -> list[str]:
        """The names in ``l/`` that lead to a layer, whatever its file ``link`` says.

        A link that cannot be read now is left out; it goes at the next start.
        """
        with contextlib.suppress(OSError):
            short = layer.short_link()
            if short is not None and self._leads_to(short, layer):
                return [short]
        links = []
        for name in os.listdir(f"{self.path}/l"):
            with contextlib.suppress(OSError):
                if self._leads_to(name, layer):
                    links.append(name)
        return links

    def _leads_to(self, short: str, layer: Layer) -> bool:
        return link_target(f"{self.path}/l/{short}") == f"../{layer.id}/diff"

    def _tidy(self) -> None:
        """Remove what a crash left, and restore what it lost."""
        for name in os.listdir(self._incomplete):
            log.warning("removing %s, left by a crash", f"{self._incomplete}/{name}")
            try:
                remove_tree(f"{self._incomplete}/{name}")
            except OSError as error:
                log.warning("it stays there: %s", error)
        for name in os.listdir(f"{self.path}/l"):
            link = f"{self.path}/l/{name}"
            try:
                target = link_target(link)
                lost = target is not None and not is_there(f"{self.path}/l/{target}")
            except OSError as error:
                log.warning("the short link %s stays as it is: %s", link, error)
                continue
            if lost:
                log.warning("removing the short link %s, which leads nowhere", link)
                os.unlink(link)
        for layer in self.layers():
            # Most have no mount point, and one that is in use is busy.
            with contextlib.suppress(OSError):
                os.rmdir(layer.merged)
                log.warning("removing the mount point %s, left by a crash", layer.merged)
        self._repair_links()


def redirection(folder: str) -> str | None:
    """The first path in a layer's own folder that leaves its contents to the layers below."""
    for fd, path, entries in walk(folder):
        for entry in entries:
            if entry.is_symlink():
                continue
            for record in ("redirect", "metacopy"):
                if get_xattr(at(fd, os.fsencode(entry.name)), TRUSTED + record) is not None:
                    return f"{path}/{entry.name}"
    return None


def _new_short_link() -> str:
    return base64.b32encode(secrets.token_bytes(17)).decode("ascii")[:26]


def _read(path: str) -> str | None:
    """A small file's text; None when it is not there.

    Nothing else than a file is followed or waited for: a symbolic link is an OSError, a pipe empty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, _LONGEST).decode("ascii", "replace")
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    """Write a small file, where nothing sees it before it is whole."""
    data = text.encode("ascii")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        os.fchmod(fd, 0o644)
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _make_home(path: str, mode: int, owner: tuple[int, int]) -> None:
    """Make a folder; one that exists gets the mode and the owner.  A link is not followed."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    set_mode(path, mode, owner)


def _make_folder(path: str, mode: int, owner: tuple[int, int]) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)
    os.chown(path, *owner)
