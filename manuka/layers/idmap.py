"""User-namespace id maps: which owner on the host stands for which owner in a container.

Docker sends the maps with ``GraphDriver.Init`` when it runs with ``--userns-remap``.  A tar always
holds container ids; files on disk always have host ids.  Semantics: ``user_namespaces(7)``, and
``pkg/idtools`` in the engine.
"""

from __future__ import annotations

from typing import NamedTuple

from manuka.errors import ManukaError


class IdMapError(ManukaError):
    """An owner has no counterpart on the other side of the map."""


class IdRange(NamedTuple):
    """``size`` consecutive ids: ``container_id`` in a container is ``host_id`` on the host."""

    container_id: int
    host_id: int
    size: int


class IdMaps(NamedTuple):
    """The user and group maps of one driver.  Empty maps mean: no remapping."""

    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()

    @property
    def identity(self) -> bool:
        """Whether ids are the same on both sides."""
        return not self.uids and not self.gids

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's owner for a container's.  Raises IdMapError for one outside the map."""
        if not self.uids and not self.gids:
            return uid, gid
        return _to_host(uid, self.uids, "user"), _to_host(gid, self.gids, "group")

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """The container's owner for a host's.  Raises IdMapError for one outside the map."""
        if not self.uids and not self.gids:
            return uid, gid
        return _to_container(uid, self.uids, "user"), _to_container(gid, self.gids, "group")

    @property
    def root(self) -> tuple[int, int]:
        """The host's owner that is root in a container."""
        return self.to_host(0, 0)


IDENTITY = IdMaps()


def _to_host(wanted: int, ranges: tuple[IdRange, ...], kind: str) -> int:
    if not ranges:
        return wanted
    for first, host, size in ranges:
        if first <= wanted < first + size:
            return host + wanted - first
    raise IdMapError(
        f"container {kind} id {wanted} cannot be mapped to a host id; "
        f"give the remapped user a larger range in /etc/sub{kind[0]}id"
    )


def _to_container(wanted: int, ranges: tuple[IdRange, ...], kind: str) -> int:
    if not ranges:
        return wanted
    for first, host, size in ranges:
        if host <= wanted < host + size:
            return first + wanted - host
    raise IdMapError(f"host {kind} id {wanted} cannot be mapped to a container id")
