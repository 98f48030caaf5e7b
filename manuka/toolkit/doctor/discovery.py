"""Where an engine looks for a plugin of a given name, and what it finds there.

The first hit wins: a socket below ``/run/docker/plugins``; a ``.spec`` file, which holds one URL;
a ``.json`` file, whose ``Addr`` is one.  A path that is missing, a link that leads nowhere, and
something else in a socket's place are passed over.  A ``.spec`` or ``.json`` that cannot be read
ends the search: the engine looks at no later path.

Sources: ``pkg/plugins/discovery.go``, ``pkg/plugins/client.go`` of the engine.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, Callable, NamedTuple
from urllib.parse import unquote, urlsplit

SOCKETS = "/run/docker/plugins"
_SPECS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MOST = 1 << 20  # bytes of a file that can be meant for one URL


class Address(NamedTuple):
    """Where the engine calls the plugin.

    url: as the file has it.
    socket: the path of a UNIX socket; None: the plugin is called over TCP at `host`.
    host: ``HOST:PORT``.
    encrypted: by TLS.
    """

    url: str
    socket: str | None
    host: str = ""
    encrypted: bool = False


class Discovery(NamedTuple):
    """What an engine finds.

    source: the file that decides; None: there is none.
    address: the one that it names; None: `error` says why it names none.
    passed_over: files before it that the engine ignores, each with the reason.
    shadowed: files after it that name the plugin too, without effect.
    """

    source: str | None
    address: Address | None
    error: str | None
    passed_over: list[tuple[str, str]]
    shadowed: list[str]


Reach = Callable[[str], str]
Reader = Callable[[str, Reach], Address]


class _Malformed(Exception):
    pass


def discover(name: str, reach: Reach) -> Discovery:
    """Search as an engine does; `reach` gives the path by which this process reaches a file."""
    passed_over: list[tuple[str, str]] = []
    source: str | None = None
    address: Address | None = None
    error: str | None = None
    shadowed = []
    for path, read in _candidates(name):
        try:
            status = os.stat(reach(path))
        except OSError as failure:
            if source is None and os.path.lexists(reach(path)):
                what = "a link that leads nowhere" if os.path.islink(reach(path)) else "no file"
                passed_over.append((path, f"{what} ({failure.strerror})"))
            elif source is None and isinstance(failure, PermissionError):
                passed_over.append((path, f"out of sight ({failure.strerror})"))
            continue
        if source is not None:
            shadowed.append(path)
            continue
        if read is None and not stat.S_ISSOCK(status.st_mode):
            passed_over.append((path, f"{_kind(status.st_mode)}, no socket"))
            continue
        source = path
        try:
            address = Address(f"unix://{path}", path) if read is None else read(path, reach)
        except (OSError, _Malformed) as failure:
            error = getattr(failure, "strerror", None) or str(failure)
    return Discovery(source, address, error, passed_over, shadowed)


def _candidates(name: str) -> list[tuple[str, Reader | None]]:
    """All paths in the engine's order, and how each is read; a socket is not."""
    places: list[tuple[str, str, Reader | None]] = [(SOCKETS, ".sock", None)]
    for folder in _SPECS:
        places += [(folder, ".spec", _read_spec), (folder, ".json", _read_json)]
    return [
        (f"{folder}/{below}{name}{extension}", read)
        for folder, extension, read in places
        for below in ("", f"{name}/")
    ]


def _read_spec(path: str, reach: Reach) -> Address:
    return _address(_content(reach(path)).strip())


def _read_json(path: str, reach: Reach) -> Address:
    try:
        # The engine reads the first value only.
        value, _ = json.JSONDecoder().raw_decode(_content(reach(path)).lstrip())
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Malformed("it holds no JSON object")
    fields = {key.casefold(): item for key, item in value.items()}
    url, tls = fields.get("addr"), fields.get("tlsconfig")
    tls = {} if tls is None else tls
    if url is None:
        raise _Malformed("it has no Addr")
    if not isinstance(url, str) or not isinstance(tls, dict):
        raise _Malformed("Addr has to be a string and TLSConfig an object")
    _check_files({key.casefold(): item for key, item in tls.items()}, reach)
    return _address(url)


def _content(path: str) -> str:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise _Malformed(f"it is {_kind(mode)}")
    with open(path, "rb") as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise _Malformed("it is larger than 1 MiB")
    return data.decode("utf-8", "replace")


def _check_files(tls: dict[str, Any], reach: Reach) -> None:
    for key in ("CAFile", "CertFile", "KeyFile"):
        path = tls.get(key.casefold()) or ""
        if not isinstance(path, str):
            raise _Malformed(f"{key} has to be a string")
        if path and not os.path.isfile(reach(path)):
            raise _Malformed(f"there is no file {path}, which {key} names")


def _address(url: str) -> Address:
    if not url:
        raise _Malformed("it names no URL")
    if _CONTROL.search(url):
        raise _Malformed("it holds more than one line, or a control character")
    if not _SCHEME.match(url):
        raise _Malformed(f"{url[:80]!r} is no URL with a scheme, such as unix:///run/NAME.sock")
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        port = parts.port
    except ValueError as error:
        raise _Malformed(f"{url[:80]!r} is no URL: {error}") from None
    if parts.scheme == "unix":
        if host or not parts.path.startswith("/"):
            raise _Malformed(f"{url[:80]!r} has no absolute path; write unix:///PATH")
        return Address(url, unquote(parts.path))
    if not host:
        raise _Malformed(f"{url[:80]!r} names no host")
    encrypted = parts.scheme == "https"
    if port is None:
        host = f"{host.rstrip(':')}:{443 if encrypted else 80}"
    return Address(url, None, host, encrypted)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFREG: "a regular file", stat.S_IFIFO: "a fifo"}
    return kinds.get(stat.S_IFMT(mode), "a socket" if stat.S_ISSOCK(mode) else "a device")
