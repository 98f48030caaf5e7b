"""The plugin's WSGI application: one endpoint is one method of the driver.

A route decodes the message, calls, and encodes what came back, once `manuka.api.replies` has
looked at it; `manuka.api.errors` words the faults.  It runs under `manuka.server`, which hands
``ApplyDiff`` its body while it still arrives.

Easy to get wrong: the engine hashes a layer while it sends it, and stops hashing when the reply
arrives.  So ``ApplyDiff`` reads the body to its very end before it answers, be it with an error;
and ``Diff`` that fails half-way must not end as if it were whole.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, cast
from urllib.parse import parse_qs

import bottle  # type: ignore[import-untyped]

from manuka.api import calls, replies
from manuka.api.errors import JSON_TYPE, error_body, explain, short
from manuka.api.instance import DriverInstance
from manuka.api.messages import (
    LayerRequest,
    MessageError,
    layer_and_parent,
    parse_init,
    parse_layer,
)
from manuka.driver import CreateOptions, DriverError, GraphDriver

log = logging.getLogger(__name__)

TAR_TYPE = "application/x-tar"
_DRAIN_SIZE = 1 << 16

Reply = Dict[str, Any]


# --- calls about one layer ------------------------------------------------------------------------


def _create(driver: GraphDriver, layer: LayerRequest) -> Reply:
    driver.create(layer.layer_id, layer.parent, _create_options(layer))
    return {}


def _create_read_write(driver: GraphDriver, layer: LayerRequest) -> Reply:
    driver.create_read_write(layer.layer_id, layer.parent, _create_options(layer))
    return {}


def _create_options(layer: LayerRequest) -> CreateOptions:
    return CreateOptions(layer.mount_label, layer.storage_opt)


def _remove(driver: GraphDriver, layer: LayerRequest) -> Reply:
    driver.remove(layer.layer_id)
    return {}


def _get(driver: GraphDriver, layer: LayerRequest) -> Reply:
    return {"Dir": replies.folder(driver.get(layer.layer_id, layer.mount_label))}


def _put(driver: GraphDriver, layer: LayerRequest) -> Reply:
    driver.put(layer.layer_id)
    return {}


def _exists(driver: GraphDriver, layer: LayerRequest) -> Reply:
    return {"Exists": replies.truth(driver.exists(layer.layer_id))}


def _get_metadata(driver: GraphDriver, layer: LayerRequest) -> Reply:
    return {"Metadata": replies.data(driver.metadata(layer.layer_id))}


def _changes(driver: GraphDriver, layer: LayerRequest) -> Reply:
    return {"Changes": replies.changes(driver.changes(layer.layer_id, layer.parent))}


def _diff_size(driver: GraphDriver, layer: LayerRequest) -> Reply:
    size = driver.diff_size(layer.layer_id, layer.parent)
    return {"Size": replies.size("diff_size", size)}


_LAYER_CALLS: Dict[str, Callable[[GraphDriver, LayerRequest], Reply]] = {
    calls.CREATE: _create,
    calls.CREATE_READ_WRITE: _create_read_write,
    calls.REMOVE: _remove,
    calls.GET: _get,
    calls.PUT: _put,
    calls.EXISTS: _exists,
    calls.GET_METADATA: _get_metadata,
    calls.CHANGES: _changes,
    calls.DIFF_SIZE: _diff_size,
}


# --- calls about the whole driver, whose body says nothing ----------------------------------------


def _capabilities(driver: GraphDriver) -> Reply:
    return {"Capabilities": {"ReproducesExactDiffs": bool(driver.reproduces_exact_diffs)}}


def _status(driver: GraphDriver) -> Reply:
    return {"Status": replies.rows(driver.status())}


def _cleanup(driver: GraphDriver) -> Reply:
    driver.cleanup()
    return {}


_DRIVER_CALLS: Dict[str, Callable[[GraphDriver], Reply]] = {
    calls.CAPABILITIES: _capabilities,
    calls.STATUS: _status,
    calls.CLEANUP: _cleanup,
}


# --- the application ------------------------------------------------------------------------------


class _Call:
    """One request on its way: whose it is, for logs, and when it came."""

    __slots__ = ("path", "layer_id", "began")

    def __init__(self, path: str) -> None:
        self.path = path
        self.layer_id: Optional[str] = None
        self.began = time.monotonic()

    def log_end(self, how: str) -> None:
        if log.isEnabledFor(logging.DEBUG):
            took = (time.monotonic() - self.began) * 1000
            log.debug("%s %s: %s in %.2f ms", self.path[1:], short(self.layer_id), how, took)

    def fail(self, error: BaseException) -> bytes:
        text = explain(error, self.path, self.layer_id)
        bottle.response.status = 500
        self.log_end("failed")
        return _json_reply(error_body(text))

    def succeed(self, reply: Reply) -> bytes:
        self.log_end("done")
        return _json_reply(json.dumps(reply).encode() + b"\n")


def make_app(instance: DriverInstance) -> bottle.Bottle:
    """The WSGI application that serves `instance`'s driver by Docker's plugin protocol."""

    def activate(call: _Call, environ: Dict[str, Any]) -> Reply:
        return {"Implements": ["GraphDriver"]}

    def init(call: _Call, environ: Dict[str, Any]) -> Reply:
        request = parse_init(_body(environ))
        log.info("Init: home %s, options %s", request.home, list(request.options))
        instance.initialise(request)
        return {}

    def about_driver(
        function: Callable[[GraphDriver], Reply], call: _Call, environ: Dict[str, Any]
    ) -> Reply:
        return function(instance.driver())

    def about_layer(
        function: Callable[[GraphDriver, LayerRequest], Reply],
        call: _Call,
        environ: Dict[str, Any],
    ) -> Reply:
        request = parse_layer(_body(environ))
        call.layer_id = request.layer_id
        return function(instance.driver(), request)

    def apply_diff(call: _Call, environ: Dict[str, Any]) -> Reply:
        stream: io.BufferedIOBase = environ["wsgi.input"]
        try:
            layer_id, parent = _layer_of_query(environ["QUERY_STRING"])
            call.layer_id = layer_id
            driver = instance.driver()
            size = driver.apply_diff(layer_id, parent, stream)
            reply = {"Size": replies.size("apply_diff", size)}
        except BaseException:
            # An engine that is answered while it still sends repeats the call for 15 seconds, or
            # falls: what writes the layer's description runs on when its reader has gone.
            with contextlib.suppress(Exception):
                _drain(stream)
            raise
        _drain(stream)
        if driver.reproduces_exact_diffs:
            _refuse_empty(stream)
        return reply

    def diff(call: _Call, environ: Dict[str, Any]) -> TarReply:
        request = parse_layer(_body(environ))
        call.layer_id = request.layer_id
        diff = instance.driver().diff(request.layer_id, request.parent)
        return TarReply(call, replies.pieces(diff))

    handlers: Dict[str, Callable[[_Call, Dict[str, Any]], Any]] = {
        calls.ACTIVATE: activate,
        calls.INIT: init,
        calls.APPLY_DIFF: apply_diff,
        calls.DIFF: diff,
    }
    for path, of_driver in _DRIVER_CALLS.items():
        handlers[path] = functools.partial(about_driver, of_driver)
    for path, of_layer in _LAYER_CALLS.items():
        handlers[path] = functools.partial(about_layer, of_layer)

    app = bottle.Bottle()
    app.default_error_handler = _unanswerable
    for path, handler in handlers.items():
        app.route(path, "POST", functools.partial(_answer, path, handler), skip=True)
    return app


def _answer(path: str, handler: Callable[[_Call, Dict[str, Any]], Any]) -> Any:
    call = _Call(path)
    try:
        reply = handler(call, bottle.request.environ)
    except BaseException as error:
        # SystemExit too: a driver that gives up must not leave the engine without an answer.
        return call.fail(error)
    if isinstance(reply, TarReply):
        bottle.response.content_type = TAR_TYPE
        return reply
    return call.succeed(reply)


def _unanswerable(error: bottle.HTTPError) -> bytes:
    """What Bottle itself refuses: no such path, or another method than POST."""
    method, path = bottle.request.method, bottle.request.path
    if error.status_code == 404:
        known = ", ".join(call[1:] for call in calls.ALL)
        text = f"no such call: {path}; this plugin answers {known}"
    elif error.status_code == 405:
        text = f"{method} {path}: every call is a POST"
    else:
        text = f"internal error in {path[1:]}: {error.exception!r} (see the plugin's log)"
    log.warning("%s", text)
    return _json_reply(error_body(text))


def _json_reply(body: bytes) -> bytes:
    bottle.response.content_type = JSON_TYPE
    return body


def _body(environ: Dict[str, Any]) -> bytes:
    body = cast(bytes, environ["wsgi.input"].read(calls.MESSAGE_LIMIT + 1))
    if len(body) > calls.MESSAGE_LIMIT:
        raise MessageError(f"the message is longer than {calls.MESSAGE_LIMIT} bytes")
    return body


def _layer_of_query(query: str) -> Any:
    fields = parse_qs(query, keep_blank_values=True)
    return layer_and_parent(
        _single(fields.get("id"), "id"), _single(fields.get("parent"), "parent"), ("id", "parent")
    )


def _single(values: Optional[List[str]], name: str) -> Optional[str]:
    if values is None:
        return None
    if len(values) > 1:
        raise MessageError(f"{name}: given {len(values)} times in the query")
    return values[0]


def _drain(stream: io.BufferedIOBase) -> None:
    scratch = bytearray(1)
    while stream.readinto(scratch):
        if len(scratch) == 1:
            scratch = bytearray(_DRAIN_SIZE)


def _refuse_empty(stream: io.BufferedIOBase) -> None:
    """Raise DriverError if the body was empty: it may be that of a repeated call.

    Where diffs are exact, an engine keeps no record of the layer, and ends the body of a call that
    it repeats; where it keeps one, it breaks that off (``layer/layer_store.go``, applyTar).
    """
    if getattr(stream, "received", None) == 0:
        raise DriverError(
            "the layer's stream is empty, which a driver that reproduces exact diffs cannot tell "
            "from a repeated call whose layer was sent before: pull or load it again"
        )


class TarReply:
    """The pieces of a Diff; made with the first one in hand, when an error can still be told."""

    def __init__(self, call: _Call, pieces: Iterator[bytes]) -> None:
        self._call = call
        self._pieces = iter(pieces)
        self._first = self._pull()
        self._sent = 0
        if self._first is None:
            self.close()
            raise DriverError("the driver's diff gave no bytes; an empty tar is two zero blocks")

    def _pull(self) -> Optional[bytes]:
        for piece in self._pieces:
            if piece:
                return piece
        return None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            try:
                piece = self._pull()
            except BaseException as error:
                explain(error, self._call.path, self._call.layer_id)
                self._call.log_end(f"broken off after {self._sent} bytes")
                raise DriverError("the diff ended in an error") from error
        if piece is None:
            self._call.log_end(f"sent {self._sent} bytes")
            raise StopIteration
        self._sent += len(piece)
        return piece

    def close(self) -> None:
        """End the driver's work on the diff, also when the engine hung up."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
