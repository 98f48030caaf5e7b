"""The engine's side of the plugin interface: calls over a UNIX socket, and replies read as it does.

`Client` makes one call at a time and is what most of `manuka.toolkit.conformance` uses;
`Connection` is a single connection, on which one can also send what an engine never would.

Source: ``pkg/plugins/client.go`` and ``daemon/graphdriver/proxy.go`` in the engine.  Easy to get
wrong: when a plugin answers in the middle of a body, sending fails first, and the reply that says
why is still there to be read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Type
from urllib.parse import quote

from manuka.api import calls
from manuka.errors import ManukaError

#: How the engine sends a body whose length it does not know: io.Copy's buffer.
CHUNK = 32768

_ACCEPT = "application/vnd.docker.plugins.v1.2+json"
_KINDS = {0: "modified", 1: "added", 2: "deleted"}


class ClientError(ManukaError):
    """A call that got no reply an engine could use."""


class Unreachable(ClientError):
    """Nobody listens on the socket."""


class NoAnswer(ClientError):
    """The plugin takes longer than the client waits."""


class BrokenReply(ClientError):
    """What came back is no HTTP, breaks off, or is not the JSON that the call answers with."""


class Refused(ClientError):
    """The plugin says no.

    call: what was asked, such as ``GraphDriver.Get``.
    status: of the HTTP reply; anything but 200 is an error for the engine.
    text: what the engine would show.
    """

    def __init__(self, call: str, status: int, text: str) -> None:
        super().__init__(f"{call} was refused (status {status}): {text}")
        self.call, self.status, self.text = call, status, text


class Reply(NamedTuple):
    """A whole HTTP reply.  Header names are in small letters."""

    call: str
    status: int
    headers: Dict[str, str]
    body: bytes

    def message(self) -> Dict[str, Any]:
        """The reply's fields as an engine reads them; raises Refused and BrokenReply.

        Only the first JSON value counts, ``null`` is an empty one, and an ``Err`` is an error
        whatever the status.
        """
        if self.status != 200:
            raise Refused(self.call, self.status, self.error_text())
        value = self._json()
        error = value.get("Err")
        if error is not None and not isinstance(error, str):
            raise BrokenReply(f"{self.call}: Err has to be a string, got {_shown(error)}")
        if error:
            raise Refused(self.call, self.status, error)
        return value

    def error_text(self) -> str:
        """The text of a reply that is an error: its ``Err``, or else the body as it is."""
        with contextlib.suppress(BrokenReply):
            error = self._json().get("Err")
            if isinstance(error, str) and error:
                return error
        return _shown_bytes(self.body)

    def _json(self) -> Dict[str, Any]:
        try:
            text = self.body.decode("utf-8").lstrip()
            value, _ = json.JSONDecoder().raw_decode(text)
        except ValueError:
            raise BrokenReply(
                f"{self.call}: expected JSON, got {_shown_bytes(self.body)}"
            ) from None
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise BrokenReply(f"{self.call}: expected a JSON object, got {_shown(value)}")
        by_folded_name = {name.casefold(): name for name in _FIELDS}
        return {by_folded_name.get(key.casefold()) or key: item for key, item in value.items()}


_FIELDS = (
    "Err", "Dir", "Exists", "Status", "Changes", "Size", "Metadata", "Capabilities", "Implements",
)  # fmt: skip


class Connection:
    """One connection to a plugin, for one call after another.  Closes with its ``with`` block."""

    def __init__(self, path: str, timeout: float) -> None:
        """Raises Unreachable."""
        self._http = _UnixHTTP(path, timeout)
        self._call = ""
        self._raw = False
        try:
            self._http.connect()
        except socket.timeout:
            raise NoAnswer(f"{path}: the plugin accepts no connection") from None
        except OSError as error:
            raise Unreachable(f"{path}: nobody listens there ({error.strerror})") from None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, whatever is under way."""
        self._http.close()

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""
        sock: socket.socket = self._http.sock
        return sock

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are; then the connection is good for one reply."""
        self._raw = True
        with self._send_faults():
            self.sock.sendall(data)

    def call(self, call: str, body: bytes, headers: Optional[Dict[str, str]] = None) -> Reply:
        """Send a message whole, and wait for the reply."""
        self.begin_call(call, body, headers)
        return self.reply()

    def begin_call(self, call: str, body: bytes, headers: Optional[Dict[str, str]] = None) -> None:
        """Send a message whole."""
        self._begin(call, dict(headers or {}, **{"Content-Length": str(len(body))}))
        self._send(body)

    # --- a body in pieces ------------------------------------------------------------------------

    def begin_stream(self, target: str) -> None:
        """Send the head of a call whose body comes in chunks."""
        self._begin(target, {"Transfer-Encoding": "chunked"})

    def send_chunk(self, data: bytes) -> None:
        """Send a piece of the body.  That the plugin has hung up shows with the reply."""
        if data:
            self._send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> Reply:
        """Send the last, empty chunk, and wait for the reply."""
        self._send(b"0\r\n\r\n")
        return self.reply()

    def is_answered(self, patience: float) -> bool:
        """Whether a reply, or the end of the connection, comes within `patience` seconds."""
        return bool(select.select([self.sock], [], [], patience)[0])

    # --- replies ---------------------------------------------------------------------------------

    def reply(self) -> Reply:
        """The whole reply.  Raises NoAnswer and BrokenReply."""
        with self.open_reply() as response, self._faults():
            return Reply(self._name, response.status, _headers(response), response.read())

    @contextlib.contextmanager
    def open_reply(self) -> Iterator[http.client.HTTPResponse]:
        """The reply's head; its body is read by the caller, in pieces."""
        with self._faults():
            if self._raw:
                response = http.client.HTTPResponse(self.sock, method="POST")
                response.begin()
            else:
                response = self._http.getresponse()
        try:
            yield response
        finally:
            response.close()

    def pieces(self, response: http.client.HTTPResponse, size: int = 1 << 18) -> Iterator[bytes]:
        """The body of a reply that is being read.  Raises NoAnswer and BrokenReply."""
        while True:
            with self._faults():
                piece = response.read(size)
            if not piece:
                return
            yield piece

    # --- inner -----------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self._call.partition("?")[0].lstrip("/")

    def _begin(self, target: str, headers: Dict[str, str]) -> None:
        self._call = target
        sent = {"Host": "", "User-Agent": "Go-http-client/1.1", "Accept": _ACCEPT}
        sent.update(headers)
        self._http.putrequest("POST", target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            self._http.putheader(name, value)
        with self._send_faults():
            self._http.endheaders()

    def _send(self, data: bytes) -> None:
        if data:
            with self._send_faults():
                self._http.send(data)

    @contextlib.contextmanager
    def _send_faults(self) -> Iterator[None]:
        try:
            yield
        except socket.timeout:
            raise NoAnswer(f"{self._name}: the plugin does not read what it is sent") from None
        except (BrokenPipeError, ConnectionResetError):
            pass  # The reply, if there is one, says why.

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except socket.timeout:
            raise NoAnswer(f"{self._name}: no reply") from None
        except http.client.IncompleteRead:
            raise BrokenReply(f"{self._name}: the reply breaks off") from None
        except (http.client.RemoteDisconnected, ConnectionError):
            raise BrokenReply(f"{self._name}: the plugin hung up without a reply") from None
        except (http.client.HTTPException, ValueError) as error:
            raise BrokenReply(f"{self._name}: no HTTP reply ({error!r:.80})") from None


class Client:
    """Calls to one plugin, each on a connection of its own.

    path: of its socket, or ``tcp://HOST:PORT``.
    timeout: seconds to wait for the plugin, in one call, before NoAnswer is raised.
    """

    def __init__(self, path: str, timeout: float = 60) -> None:
        self.path = path
        self.timeout = timeout

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.path, self.timeout)

    def call(self, call: str, body: bytes) -> Reply:
        """Send a message, and give back whatever the reply is."""
        with self.connect() as connection:
            return connection.call(call, body)

    def ask(self, call: str, **fields: object) -> Dict[str, Any]:
        """Send a message's fields, and read the reply as an engine does.  Raises ClientError."""
        return self.call(call, encode(fields)).message()

    # --- the calls -------------------------------------------------------------------------------

    def activate(self) -> List[str]:
        """What the plugin says that it implements."""
        implements = self.call(calls.ACTIVATE, b"").message().get("Implements")
        if not isinstance(implements, list):
            raise BrokenReply(f"Plugin.Activate: Implements is no list: {_shown(implements)}")
        return implements

    def init(self, home: str, options: Sequence[str] = ()) -> None:
        """What an engine says when it starts."""
        self.ask(calls.INIT, Home=home, Opts=list(options) or None, UIDMaps=None, GIDMaps=None)

    def create(self, layer_id: str, parent: Optional[str] = None) -> None:
        """A layer of an image."""
        self.ask(calls.CREATE, **_layer(layer_id, parent))

    def create_read_write(self, layer_id: str, parent: Optional[str] = None) -> None:
        """A layer of a container."""
        self.ask(calls.CREATE_READ_WRITE, **_layer(layer_id, parent))

    def remove(self, layer_id: str) -> None:
        self.ask(calls.REMOVE, ID=layer_id)

    def get(self, layer_id: str) -> str:
        """The folder of a layer's tree."""
        folder: str = self._field(calls.GET, "Dir", str, ID=layer_id)
        return folder

    def put(self, layer_id: str) -> None:
        self.ask(calls.PUT, ID=layer_id)

    def exists(self, layer_id: str) -> bool:
        return bool(self.ask(calls.EXISTS, ID=layer_id).get("Exists", False))

    def status(self) -> List[List[str]]:
        return self._list(calls.STATUS, "Status")

    def metadata(self, layer_id: str) -> Dict[str, str]:
        value = self.ask(calls.GET_METADATA, ID=layer_id).get("Metadata")
        if value is not None and not isinstance(value, dict):
            raise BrokenReply(f"GraphDriver.GetMetadata: expected an object, got {_shown(value)}")
        return value or {}

    def cleanup(self) -> None:
        self.ask(calls.CLEANUP)

    def changes(self, layer_id: str, parent: Optional[str] = None) -> Dict[str, str]:
        """Paths, and each ``modified``, ``added`` or ``deleted``."""
        found: Dict[str, str] = {}
        for change in self._list(calls.CHANGES, "Changes", **_layer(layer_id, parent)):
            if not isinstance(change, dict) or not isinstance(change.get("Path"), str):
                raise BrokenReply(f"GraphDriver.Changes: {_shown(change)} is no change")
            path = change["Path"]
            if path in found:
                raise BrokenReply(f"GraphDriver.Changes: {path!r} is listed twice")
            kind = change.get("Kind", 0)
            found[path] = _KINDS.get(kind, f"kind {_shown(kind)}")
        return found

    def diff_size(self, layer_id: str, parent: Optional[str] = None) -> int:
        size: int = self._field(calls.DIFF_SIZE, "Size", int, **_layer(layer_id, parent))
        return size

    def diff(self, layer_id: str, parent: Optional[str] = None) -> bytes:
        """A layer's difference as a tar.  Raises Refused when the status is not 200."""
        reply = self.call(calls.DIFF, encode(_layer(layer_id, parent)))
        if reply.status != 200:
            raise Refused(reply.call, reply.status, reply.error_text())
        return reply.body

    def apply_diff(
        self, layer_id: str, parent: Optional[str], body: Iterable[bytes], chunk: int = CHUNK
    ) -> int:
        """Send a tar, in pieces of at most `chunk` bytes; the size that the plugin tells."""
        with self.connect() as connection:
            connection.begin_stream(apply_target(layer_id, parent))
            for piece in body:
                for at in range(0, len(piece), chunk):
                    connection.send_chunk(piece[at : at + chunk])
            return size_of(connection.end_stream())

    def _field(self, call: str, name: str, kind: Type[Any], **fields: object) -> Any:
        value = self.ask(call, **fields).get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BrokenReply(f"{call[1:]}: {name} is {_shown(value)}, not a {kind.__name__}")
        return value

    def _list(self, call: str, name: str, **fields: object) -> List[Any]:
        value = self.ask(call, **fields).get(name)
        if value is not None and not isinstance(value, list):
            raise BrokenReply(f"{call[1:]}: {name} is {_shown(value)}, not a list")
        return value or []


def encode(fields: Dict[str, Any]) -> bytes:
    """A message as the engine writes it."""
    return json.dumps(fields).encode() + b"\n"


def apply_target(layer_id: str, parent: Optional[str]) -> str:
    """Where ApplyDiff's body goes.  A plain id stands in it as it is."""
    return f"{calls.APPLY_DIFF}?id={quote(layer_id)}&parent={quote(parent or '')}"


def size_of(reply: Reply) -> int:
    """The size that an ApplyDiff replies with."""
    size = reply.message().get("Size", 0)
    if not isinstance(size, int) or isinstance(size, bool):
        raise BrokenReply(f"{reply.call}: Size is {_shown(size)}, not a whole number")
    return size


def _layer(layer_id: str, parent: Optional[str]) -> Dict[str, str]:
    """As the engine does, without a parent if there is none."""
    return {"ID": layer_id} if parent is None else {"ID": layer_id, "Parent": parent}


class _UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin.moby.localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        if self._path.startswith("tcp://"):
            host, _, port = self._path[len("tcp://") :].rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)), self.timeout)
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _headers(response: http.client.HTTPResponse) -> Dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _shown_bytes(data: bytes) -> str:
    return repr(data[:80].decode("utf-8", "replace")) + ("..." if len(data) > 80 else "")
