"""The engine's JSON messages as typed records.

Keys are matched as Go's ``encoding/json`` matches them: in any case, the last of several wins,
unknown ones are ignored, and ``null`` is the same as a key that is missing.  Values are checked,
for a driver makes paths from them: what comes out of here is safe to join to a folder's name.

Easy to get wrong: an *empty* body.  It is no message with every field left out.  When the
engine's connection breaks, its client repeats the request without the body that it has already
sent (``pkg/plugins/client.go``), so nobody knows any more what was asked for.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from manuka.errors import ManukaError
from manuka.layers.idmap import IDENTITY, IdMaps, IdRange

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ID_LIMIT = 255  # bytes that a file's name may have
_SHORT_LINKS = "l"  # overlay2's folder of short links lies among the layers
_LAST_ID = 2**32 - 2  # the kernel keeps 2**32 - 1 for "no owner"

EMPTY_BODY = (
    "the request has no body, so what it asks for is unknown: the engine lost the connection and "
    "its retry came without the body; repeat the docker command"
)


class MessageError(ManukaError):
    """A request that does not say what its call needs."""


class InitRequest(NamedTuple):
    """``GraphDriver.Init``: where the driver lives and how.

    home: an absolute path, normalised.
    options: ``--storage-opt`` values, as the engine was given them.
    id_maps: for ``--userns-remap``; identity without it.
    """

    home: str
    options: Tuple[str, ...] = ()
    id_maps: IdMaps = IDENTITY


class LayerRequest(NamedTuple):
    """Every call about one layer.

    parent: None for a layer on top of nothing.
    mount_label: an SELinux label, or empty.
    storage_opt: the container's ``--storage-opt`` values.
    """

    layer_id: str
    parent: Optional[str] = None
    mount_label: str = ""
    storage_opt: Dict[str, str] = {}


def parse_init(body: bytes) -> InitRequest:
    """Read the body of ``GraphDriver.Init``.  Raises MessageError."""
    fields = _fields(_decode(body), ("Home", "Opts", "UIDMaps", "GIDMaps"))
    return InitRequest(
        _home(fields.get("Home")),
        tuple(
            _text(option, f"Opts[{index}]")
            for index, option in enumerate(_list(fields.get("Opts"), "Opts"))
        ),
        IdMaps(
            _id_ranges(fields.get("UIDMaps"), "UIDMaps"),
            _id_ranges(fields.get("GIDMaps"), "GIDMaps"),
        ),
    )


def init_to_json(request: InitRequest) -> bytes:
    """The message that `parse_init` reads as `request`."""
    return json.dumps(
        {
            "Home": request.home,
            "Opts": request.options,
            "UIDMaps": [owners._asdict() for owners in request.id_maps.uids],
            "GIDMaps": [owners._asdict() for owners in request.id_maps.gids],
        }
    ).encode()


def parse_layer(body: bytes) -> LayerRequest:
    """Read the body of a call about one layer.  Raises MessageError."""
    fields = _fields(_decode(body), ("ID", "Parent", "MountLabel", "StorageOpt"))
    layer_id, parent = layer_and_parent(fields.get("ID"), fields.get("Parent"), ("ID", "Parent"))
    return LayerRequest(
        layer_id,
        parent,
        _text(fields.get("MountLabel", ""), "MountLabel"),
        _options(fields.get("StorageOpt"), "StorageOpt"),
    )


def layer_and_parent(
    layer_id: object, parent: object, names: Tuple[str, str]
) -> Tuple[str, Optional[str]]:
    """Check a layer's id and its parent's, where an empty or missing parent means none.

    `names` is what the two are called in the message.  Raises MessageError.
    """
    checked = _plain_id(layer_id, names[0])
    if parent is None or parent == "":
        return checked, None
    if parent == checked:
        raise MessageError(f"{names[1]}: layer {checked!r} cannot be its own parent")
    return checked, _plain_id(parent, names[1])


# --- JSON -----------------------------------------------------------------------------------------


class _Object(List[Tuple[str, Any]]):
    """A JSON object as its pairs, in order."""


def _decode(body: bytes) -> _Object:
    if not body.strip():
        raise MessageError(EMPTY_BODY)
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise MessageError(
            f"malformed JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except UnicodeDecodeError as error:
        raise MessageError(f"malformed JSON: byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MessageError(f"malformed JSON: {error}") from None
    if not isinstance(value, _Object):
        raise _wrong("the message", "an object", value)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _whole_number(digits: str) -> int:
    # Before 3.11 Python reads a million digits, for some seconds in which nothing else runs.
    if len(digits) > 40:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_decoder = json.JSONDecoder(
    object_pairs_hook=_Object, parse_constant=_refuse_constant, parse_int=_whole_number
)


def _fields(value: _Object, names: Sequence[str]) -> Dict[str, Any]:
    """The known fields that are set, by their proper names."""
    by_folded_name = {name.casefold(): name for name in names}
    found = {}
    for key, item in value:
        name = by_folded_name.get(key.casefold())
        if name is not None and item is not None:
            found[name] = item
    return found


def _wrong(field: str, expected: str, value: object) -> MessageError:
    return MessageError(f"{field}: expected {expected}, got {_describe(value)}")


def _describe(value: object) -> str:
    if isinstance(value, _Object):
        return "an object"
    if isinstance(value, list):
        return "a list"
    shown = json.dumps(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


# --- fields ---------------------------------------------------------------------------------------


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(field, "a string", value)
    if "\0" in value:
        raise _wrong(field, "a string without NUL characters", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(field, "whole Unicode characters", value) from None
    return value


def _plain_id(value: object, field: str) -> str:
    if value is None or value == "":
        raise MessageError(f"{field}: missing; expected the id of a layer")
    if not isinstance(value, str):
        raise _wrong(field, "a string", value)
    if value == _SHORT_LINKS or len(value) > _ID_LIMIT or not _PLAIN_ID.fullmatch(value):
        raise _wrong(
            field,
            f"an id of letters, digits, '_', '.' and '-' that begins with a letter or digit, "
            f"is at most {_ID_LIMIT} long and is not {_SHORT_LINKS!r}",
            value,
        )
    return value


def _home(value: object) -> str:
    if value is None or value == "":
        raise MessageError("Home: missing; expected the driver's folder")
    home = _text(value, "Home")
    if home in ("/", "//") or not home.startswith("/"):
        raise _wrong("Home", "an absolute path other than /", home)
    normal = "/" + os.path.normpath(home).lstrip("/")
    if normal != home:
        raise MessageError(
            f"Home: expected a path without '.', '..' and surplus slashes, got {home!r}; "
            f"it could be {normal!r}"
        )
    return home


def _list(value: object, field: str) -> List[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or isinstance(value, _Object):
        raise _wrong(field, "a list", value)
    return value


def _options(value: object, field: str) -> Dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, _Object):
        raise _wrong(field, "an object of strings", value)
    return {_text(key, field): _text(item, f"{field}[{key!r}]") for key, item in value}


def _id_ranges(value: object, field: str) -> Tuple[IdRange, ...]:
    ranges = tuple(
        _id_range(item, f"{field}[{index}]") for index, item in enumerate(_list(value, field))
    )
    _refuse_overlap([(owners.container_id, owners.size) for owners in ranges], field, "container")
    _refuse_overlap([(owners.host_id, owners.size) for owners in ranges], field, "host")
    return ranges


def _id_range(value: object, field: str) -> IdRange:
    if not isinstance(value, _Object):
        raise _wrong(field, "an object", value)
    fields = _fields(value, IdRange._fields)
    owners = IdRange(*(_whole(fields.get(name, 0), f"{field}.{name}") for name in IdRange._fields))
    if owners.size == 0:
        raise MessageError(f"{field}.size: expected at least 1, got 0")
    if max(owners.container_id, owners.host_id) + owners.size - 1 > _LAST_ID:
        raise MessageError(f"{field}: the range ends behind the last id, {_LAST_ID}")
    return owners


def _whole(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(field, "a whole number that is not negative", value)
    return value


def _refuse_overlap(ranges: List[Tuple[int, int]], field: str, side: str) -> None:
    end = 0
    for first, size in sorted(ranges):
        if first < end:
            raise MessageError(f"{field}: two ranges both have {side} id {first}")
        end = first + size
