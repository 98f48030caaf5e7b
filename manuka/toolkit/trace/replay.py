"""Makes the calls of a recording again, on another plugin or another build of it.

The calls are made one after another in the order in which they began, with a home folder of the
replay's own in the place of the recorded one, and each reply is compared with the recorded one.

Easy to get wrong: what cannot be equal.  Paths differ by the home folder; sizes depend on layers
that may not have been kept; changes are those that a container wrote, which no call tells; and
Status is about the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from manuka.api import calls as names
from manuka.toolkit.client import Client, ClientError, Reply, apply_target
from manuka.toolkit.trace.call import Call

_EMPTY_LAYER = bytes(1024)  # two zero blocks, as engines write a layer without files
_PIECE = 1 << 18
_INCOMPARABLE = {names.STATUS, names.CAPABILITIES, names.CHANGES, names.DIFF_SIZE}


class Replayed(NamedTuple):
    """A recorded call, how long it took now, and how its outcome differs; None: it does not."""

    call: Call
    took: float
    difference: Optional[str]


def replay(
    recording: Sequence[Call], socket_path: str, home: str, layers: Optional[str] = None
) -> Iterator[Replayed]:
    """Make the calls again, and undo at the end what they left: mounts and layers.

    home: an empty folder for the driver.
    layers: the folder with the bodies of ApplyDiff; None: each gets an empty layer.
    Raises ClientError when the plugin is gone.
    """
    client = Client(socket_path)
    recorded_home = _recorded_home(recording)
    mounted: List[str] = []
    made: List[str] = []
    try:
        if recorded_home is None:
            client.activate()
            client.init(home)
        for call in sorted(recording, key=lambda call: call.began):
            began = time.perf_counter()
            reply = _again(client, call, home, recorded_home, layers)
            took = time.perf_counter() - began
            error = None if reply.status == 200 else reply.error_text()
            if error is None:
                _remember(call, mounted, made)
            yield Replayed(call, took, _difference(call, reply, home, recorded_home, layers))
    finally:
        for layer_id in reversed(mounted):
            with contextlib.suppress(ClientError):
                client.put(layer_id)
        for layer_id in reversed(made):
            with contextlib.suppress(ClientError):
                client.remove(layer_id)
        with contextlib.suppress(ClientError):
            client.cleanup()


def _again(
    client: Client, call: Call, home: str, recorded_home: Optional[str], layers: Optional[str]
) -> Reply:
    path = "/" + call.name
    if path == names.APPLY_DIFF:
        with client.connect() as connection:
            connection.begin_stream(apply_target(call.layer_id or "", call.parent))
            for piece in _layer(call, layers):
                connection.send_chunk(piece)
            return connection.end_stream()
    if call.request is None:
        return client.call(path, b"")
    message = call.request
    if path == names.INIT:
        message = dict(message, Home=home)
    return client.call(path, json.dumps(message).encode() + b"\n")


def _layer(call: Call, layers: Optional[str]) -> Iterator[bytes]:
    path = os.path.join(layers, f"{call.number}.tar") if layers is not None else None
    if path is None or not os.path.exists(path):
        yield _EMPTY_LAYER
        return
    with open(path, "rb") as file:
        piece = file.read(_PIECE)
        while piece:
            yield piece
            piece = file.read(_PIECE)


def _remember(call: Call, mounted: List[str], made: List[str]) -> None:
    """What has to be undone at the end."""
    layer_id = call.layer_id
    path = "/" + call.name
    if layer_id is None:
        return
    if path == names.GET:
        mounted.append(layer_id)
    elif path == names.PUT and layer_id in mounted:
        mounted.remove(layer_id)
    elif path in (names.CREATE, names.CREATE_READ_WRITE):
        made.append(layer_id)
    elif path == names.REMOVE and layer_id in made:
        made.remove(layer_id)


def _difference(
    call: Call, reply: Reply, home: str, recorded_home: Optional[str], layers: Optional[str]
) -> Optional[str]:
    error = None if reply.status == 200 else reply.error_text()
    recorded = call.error if call.status != 200 or call.error else None
    if (error is None) != (recorded is None):
        return f"recorded: {recorded or 'success'}; now: {error or 'success'}"
    if error is not None or "/" + call.name in _INCOMPARABLE or call.reply is None:
        return None
    try:
        now: Dict[str, Any] = reply.message()
    except ClientError as broken:
        return str(broken)
    before = _comparable(call.reply, recorded_home, layers is not None)
    after = _comparable(now, home, layers is not None)
    return None if before == after else f"recorded: {_short(before)}; now: {_short(after)}"


def _comparable(reply: Dict[str, Any], home: Optional[str], sizes: bool) -> Dict[str, Any]:
    """A reply without what every run has its own of."""
    kept = {name: value for name, value in reply.items() if value and (sizes or name != "Size")}
    text = json.dumps(kept, sort_keys=True)
    if home is not None:
        text = text.replace(json.dumps(home)[1:-1], "HOME")
    comparable: Dict[str, Any] = json.loads(text)
    # Short links are made at random.
    comparable.pop("Metadata", None)
    return comparable


def _recorded_home(recording: Sequence[Call]) -> Optional[str]:
    for call in recording:
        if "/" + call.name == names.INIT and call.request is not None:
            return str(call.request.get("Home", "")).rstrip("/") or None
    # Recorded after the engine had started; the folder shows in what Get answered.
    for call in recording:
        folder = (call.reply or {}).get("Dir")
        if folder and call.layer_id and f"/{call.layer_id}" in folder:
            return str(folder.partition(f"/{call.layer_id}")[0])
    return None


def _short(value: Dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 100 else text[:97] + "..."
