"""Where a fault becomes a reply; nothing else in the package writes an ``Err``.

The engine reads the ``Err`` of any reply whose status is not exactly 200, puts the call's name in
front and shows it to the user, so the text has to make sense there.  Easy to get wrong: `Err`
must be a string, and a traceback must never be one.
"""

from __future__ import annotations

import json
import logging
from typing import Optional

from manuka.errors import ManukaError

log = logging.getLogger(__name__)

#: The Content-Type of every JSON reply; what the engine's Accept header asks for.
JSON_TYPE = "application/vnd.docker.plugins.v1.2+json"


def error_body(text: str) -> bytes:
    """The body of an error reply."""
    return json.dumps({"Err": text}).encode() + b"\n"


def short(layer_id: Optional[str]) -> str:
    """A layer's id as logs show it."""
    return "-" if layer_id is None else layer_id[:12]


def explain(error: BaseException, call: str, layer_id: Optional[str]) -> str:
    """What to tell the engine about `error`; also logs it, with a traceback if it is a surprise.

    `call` is its path, such as ``/GraphDriver.Get``; `layer_id` is None when it is about no layer
    or the fault came before the id was known.
    """
    name = call.lstrip("/")
    if isinstance(error, ManukaError):
        text = _naming(layer_id, str(error))
        log.warning("%s %s: %s", name, short(layer_id), text)
    elif isinstance(error, OSError) and error.strerror:
        text = _system_error(error, layer_id)
        log.error("%s %s: %s", name, short(layer_id), text)
    else:
        text = f"internal error in {name}: {type(error).__name__}: {error} (see the plugin's log)"
        log.error(
            "%s %s: internal error", name, short(layer_id),
            exc_info=(type(error), error, error.__traceback__),
        )  # fmt: skip
    return text


def _naming(layer_id: Optional[str], text: str) -> str:
    """The text, with the layer in front when it does not name it: a pull has many."""
    if layer_id is None or short(layer_id) in text:
        return text
    return f"layer {short(layer_id)}: {text}"


def _system_error(error: OSError, layer_id: Optional[str]) -> str:
    text = str(error.strerror)
    if error.filename is not None:
        text += f": {_path(error.filename)}"
    if error.filename2 is not None:
        text += f" -> {_path(error.filename2)}"
    return text if layer_id is None else f"layer {short(layer_id)}: {text}"


def _path(name: object) -> str:
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return repr(name)
