"""What a driver gave back, as the fields of a reply.

The engine decodes replies into Go types, and what does not fit there fails with a text about Go,
or not at all: a path that is not absolute is joined to the engine's working folder.  So a
driver's author gets a sentence instead, with the method's name.

Easy to get wrong: this runs for every call, so it looks at types and asks the file system nothing.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Tuple

from manuka.driver import DriverError


def folder(value: Any) -> str:
    """What ``get`` returned: an absolute path, as text or as a path object."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path.startswith("/"):
        raise _wrong("get", "the absolute path of a folder", value)
    return path


def truth(value: Any) -> bool:
    """What ``exists`` returned."""
    if not isinstance(value, bool):
        raise _wrong("exists", "True or False", value)
    return value


def size(method: str, value: Any) -> int:
    """What ``apply_diff`` or ``diff_size`` returned: bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(method, "a number of bytes", value)
    return value


def rows(value: Any) -> List[List[str]]:
    """What ``status`` returned: pairs of texts."""
    found: List[Any] = list(value) if isinstance(value, (list, tuple)) else [None]
    for row in found:
        if not isinstance(row, (list, tuple)) or len(row) != 2 or not all(map(_is_text, row)):
            raise _wrong("status", "pairs of strings", value)
    return [list(row) for row in found]


def data(value: Any) -> Dict[str, str]:
    """What ``metadata`` returned: a dictionary of texts."""
    if not isinstance(value, dict) or not all(_is_text(x) for pair in value.items() for x in pair):
        raise _wrong("metadata", "a dictionary of strings", value)
    return value


def changes(value: Any) -> List[Dict[str, Any]]:
    """What ``changes`` returned: pairs of a path and its kind."""
    try:
        pairs: List[Tuple[str, int]] = [(path, int(kind)) for path, kind in value]
    except (TypeError, ValueError):
        raise _wrong("changes", "a list of Change", value) from None
    for path, kind in pairs:
        if not _is_text(path) or not path.startswith("/") or kind not in (0, 1, 2):
            raise _wrong("changes", "changes with an absolute path and a Kind", (path, kind))
    return [{"Path": path, "Kind": kind} for path, kind in pairs]


def pieces(value: Any) -> Iterator[bytes]:
    """What ``diff`` returned: the pieces of a tar."""
    if isinstance(value, (bytes, bytearray, str)) or not hasattr(value, "__iter__"):
        raise _wrong("diff", "an iterator of bytes", value)
    return iter(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _wrong(method: str, wanted: str, value: Any) -> DriverError:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    return DriverError(f"the driver's {method} gave {shown} instead of {wanted}")
