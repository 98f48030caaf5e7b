"""What went wrong, in words for authors in any language: no Python, no advice of pytest's."""

from __future__ import annotations

import contextlib
import re
import tarfile
from typing import Any, Dict, Iterator, List, Type

import pytest

from manuka.errors import ManukaError
from manuka.toolkit.client import ClientError

_LINES = 7  # pytest cuts what is longer, and says so in words of its own
_WIDTH = 85
_ASSERT = "assert "
_EXPECTED = "expected "
_UNTOLD = "it does not hold"


@contextlib.contextmanager
def refused(what: str, kind: Type[ClientError] = ClientError) -> Iterator[List[ClientError]]:
    """Fail when the block gets no error of this kind from the plugin.

    what: what the block asks for, in words.  The list holds the error afterwards.
    """
    errors: List[ClientError] = []
    try:
        yield errors
    except kind as error:
        errors.append(error)
        return
    raise AssertionError(f"{what} was accepted; it has to be answered with an error")


def reason(error: BaseException) -> str:
    """Why a check did not pass."""
    if isinstance(error, pytest.fail.Exception):  # of pytest.raises
        return "a call was accepted that has to be answered with an error"
    if isinstance(error, AssertionError):
        return _of_assertion(str(error))
    if isinstance(error, ManukaError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {_shown(error.filename)}" if error.filename else error.strerror
    if isinstance(error, KeyError):
        return f"{_shown(error.args[0])} is not there"
    if isinstance(error, tarfile.TarError):
        return f"the plugin's tar cannot be read: {error}"
    if isinstance(error, ValueError):
        return f"the plugin's reply cannot be read: {error}"
    return f"{type(error).__name__}: {error}"


def compared(operator: str, left: Any, right: Any) -> List[str]:
    """What to say of a comparison in a check that does not hold; at most 7 short lines."""
    if operator != "==":
        return [f"{_EXPECTED}{_cut(left)} {operator} {_cut(right)}"]
    if isinstance(left, dict) and isinstance(right, dict):
        lines = list(_differences(left, right))
    elif isinstance(left, list) and isinstance(right, list) and len(left) + len(right) > 8:
        lines = [f"{_shown(one)} is missing" for one in right if one not in left]
        lines += [f"{_shown(one)} is there, and should not be" for one in left if one not in right]
    else:
        lines = []
    if not lines:
        return [f"{_EXPECTED}{_cut(right)}, got {_cut(left)}"]
    if len(lines) >= _LINES:
        lines[_LINES - 2 :] = [f"and {len(lines) - _LINES + 2} more"]
    return [f"{_EXPECTED}otherwise:", *(_cut_text(line) for line in lines)]


def _differences(found: Any, expected: Any) -> Iterator[str]:
    """What two dictionaries differ in; in records of files, by their fields."""
    for key in sorted(set(found) | set(expected), key=str):
        if key not in found:
            yield f"{_shown(key)} is missing"
        elif key not in expected:
            yield f"{_shown(key)} is there, and should not be"
        elif isinstance(found[key], dict) and isinstance(expected[key], dict):
            was, now = _flat(expected[key]), _flat(found[key])
            for field in sorted(set(was) | set(now)):
                if was.get(field) != now.get(field):
                    told, wanted = _shown(now.get(field)), _shown(was.get(field))
                    yield f"{_shown(key)}: {field} is {told}, expected {wanted}"
        elif found[key] != expected[key]:
            yield f"{_shown(key)}: {_shown(found[key])}, expected {_shown(expected[key])}"


def _flat(record: Dict[str, Any]) -> Dict[str, Any]:
    """A file's properties, each extended attribute as one of them."""
    flat = {name: value for name, value in record.items() if not isinstance(value, dict)}
    for inner in record.values():
        flat.update(inner if isinstance(inner, dict) else {})
    return flat


def _of_assertion(text: str) -> str:
    """An assertion's own words, or those of `compared`; pytest joins both into one text."""
    own, mark, _ = text.partition("\n" + _ASSERT)
    if mark or not text.startswith(_ASSERT):
        return own or _UNTOLD
    text = text[len(_ASSERT) :]
    if not text.startswith(_EXPECTED):
        return _UNTOLD
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line).replace(f"{_EXPECTED}otherwise:\n", "")


def _shown(value: object) -> str:
    """A value as text, as JSON has it, but plain names without quotes."""
    if value is None:
        return "none"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./:+-]+", value) else repr(value)
    if isinstance(value, dict):
        pairs = [f"{_shown(key)}: {_shown(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cut(value: object) -> str:
    return _cut_text(_shown(value))


def _cut_text(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
