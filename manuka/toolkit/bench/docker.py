"""What the benchmark asks of an engine, over its socket, as the docker client would.

Every call here is over when the command of the same name would have come back.  The client's own
start (some 30 ms) is left out: it is the same for all, would blur ratios, and differs between
clients.  Neighbours: `scenarios` calls, `contender` makes one for each engine.  Easy to get wrong:
the engine answers load, build, pull and push with status 200 and tells of a failure in the stream.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, Iterator, Optional
from urllib.parse import urlencode

from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.engine import UnixConnection

_TIMEOUT = 600  # seconds
_BUFFER = 1 << 20


class Docker:
    """An engine by the path of its socket.  Everything raises BenchError with what it says."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path

    # --- containers ------------------------------------------------------------------------------

    def run(self, image: str, *command: str) -> None:
        """``docker run --rm``: it returns when the container has ended and is removed."""
        container = self.create(image, *command, auto_remove=True)
        with self._open("POST", f"/containers/{container}/wait?condition=removed") as waiting:
            self._ask("POST", f"/containers/{container}/start")
            status = json.loads(waiting.read())["StatusCode"]
        if status != 0:
            raise BenchError(f"a container of {image} ended with status {status}")

    def run_at_once(self, count: int, image: str, *command: str) -> None:
        """So many containers at the same time; it returns when the last is removed."""
        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(self.run, image, *command) for _ in range(count)]:
                done.result()

    def create(self, image: str, *command: str, auto_remove: bool = False) -> str:
        """``docker create``; the container's id."""
        config = {
            "Image": image,
            "Cmd": list(command),
            "HostConfig": {"NetworkMode": "none", "AutoRemove": auto_remove},
        }
        answer = self._ask("POST", "/containers/create", config)
        container: str = answer["Id"]
        return container

    def run_to_its_end(self, image: str, *command: str) -> str:
        """A container that has ended and is still there; its id."""
        container = self.create(image, *command)
        with self._open("POST", f"/containers/{container}/wait?condition=next-exit") as waiting:
            self._ask("POST", f"/containers/{container}/start")
            status = json.loads(waiting.read())["StatusCode"]
        if status != 0:
            raise BenchError(f"a container of {image} ended with status {status}")
        return container

    def rm(self, container: str) -> None:
        self._ask("DELETE", f"/containers/{container}")

    def diff(self, container: str) -> int:
        """``docker diff``; the number of changes."""
        return len(self._ask("GET", f"/containers/{container}/changes") or ())

    def commit(self, container: str, tag: str) -> None:
        query = urlencode({"container": container, "repo": tag, "tag": "1"})
        self._ask("POST", "/commit?" + query, {})

    def cp_in(self, container: str, folder: str, tar: bytes) -> None:
        query = urlencode({"path": folder})
        headers = {"Content-Type": "application/x-tar"}
        path = f"/containers/{container}/archive?{query}"
        with self._open("PUT", path, (tar,), len(tar), headers) as answer:
            answer.read()

    def cp_out(self, container: str, path: str) -> int:
        """``docker cp`` to the client; the bytes that came."""
        query = urlencode({"path": path})
        return self._drain("GET", f"/containers/{container}/archive?{query}")

    # --- images ----------------------------------------------------------------------------------

    def load(self, archive: Iterable[bytes], size: int) -> None:
        headers = {"Content-Type": "application/x-tar"}
        self._progress("/images/load?quiet=1", archive, size, headers)

    def save(self, image: str) -> int:
        """``docker save`` to nowhere; the bytes that came."""
        return self._drain("GET", f"/images/{image}/get")

    def rmi(self, image: str) -> None:
        self._ask("DELETE", f"/images/{image}")

    def build(self, tag: str, context: bytes) -> None:
        """``docker build --no-cache`` by the classic builder."""
        query = {"t": tag, "version": "1", "nocache": "1", "rm": "1", "networkmode": "none"}
        headers = {"Content-Type": "application/x-tar"}
        self._progress("/build?" + urlencode(query), (context,), len(context), headers)

    def pull(self, image: str, tag: str = "1") -> None:
        self._progress("/images/create?" + urlencode({"fromImage": image, "tag": tag}))

    def push(self, image: str, tag: str = "1") -> None:
        query = urlencode({"tag": tag})
        self._progress(f"/images/{image}/push?{query}", headers={"X-Registry-Auth": "e30="})

    def tag(self, image: str, name: str, tag: str = "1") -> None:
        self._ask("POST", f"/images/{image}/tag?" + urlencode({"repo": name, "tag": tag}))

    def info(self) -> Dict[str, Any]:
        found: Dict[str, Any] = self._ask("GET", "/info")
        return found

    # --- inner -----------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, message: Optional[Dict[str, Any]] = None) -> Any:
        body = b"" if message is None else json.dumps(message).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        with self._open(method, path, (body,) if body else (), len(body), headers) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _progress(
        self,
        path: str,
        body: Iterable[bytes] = (),
        size: int = 0,
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        """A call that answers with lines of JSON, one of which may be an error."""
        with self._open("POST", path, body, size, headers) as answer:
            lines = answer.read().splitlines()
        for line in lines:
            if b'"error"' in line:
                raise BenchError("{}: {}".format(path.partition("?")[0], json.loads(line)["error"]))

    def _drain(self, method: str, path: str) -> int:
        buffer = bytearray(_BUFFER)
        total = 0
        with self._open(method, path) as answer:
            while True:
                got = answer.readinto(buffer)
                if not got:
                    return total
                total += got

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        path: str,
        body: Iterable[bytes] = (),
        size: int = 0,
        headers: Optional[Dict[str, str]] = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer's head; its body is the caller's to read."""
        connection = UnixConnection(self._path, _TIMEOUT)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError):  # the answer says why
                for piece in body:
                    connection.send(piece)
            answer = connection.getresponse()
            if answer.status >= 400:
                said = answer.read().decode(errors="replace").strip()
                raise BenchError(f"{method} {path}: {said}")
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{method} {path}: the engine does not answer: {error!r}") from None
        finally:
            connection.close()
