"""One engine on one storage driver, put through everything that a comparison wants to know.

`Side` is a sandbox with the few calls of the engine's API that are needed, and `Side.play` takes
stacks from ``docker load`` to the mounted tree, the changes made in it, ``docker diff``,
``docker commit`` and ``docker save``.  `comparison` holds two of them against each other.

No container runs: a container's tree is mounted by the engine as long as an upload into it lasts
(``PUT /containers/ID/archive``), which is what ``docker cp`` is, and costs milliseconds where a
start costs a quarter of a second.  So the layers need no program in them, and the tree is read and
changed from outside, through the sandbox's mount namespace, exactly as the driver mounted it.
Easy to get wrong: a file left open in the tree outlasts the unmount.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import socket
import tarfile
import time
import urllib.parse
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from manuka.toolkit.sandbox import Sandbox

from .operations import Step, perform
from .stacks import Stack, archive
from .trees import Time, Tree, moment, read_tree

END_OF_TAR = bytes(1024)


class Refused(Exception):
    """The engine said no."""


@dataclasses.dataclass(frozen=True)
class Member:
    """An entry of a layer that the engine saved, as far as two engines have to agree on it.

    mode is without the file's type, which engines before 24 put there (`test_committed_headers`
    compares the headers byte by byte).  Names of owners are left
    out: engines before 23 look them up on the machine where they run.  So is the target of what is
    no link: the kernel makes all whiteouts one inode, and the engine notes the first as the others'
    target.
    """

    type: str
    mode: int
    uid: int
    gid: int
    mtime: Time
    size: int
    target: str
    device: Tuple[int, int]
    content: str
    xattrs: Tuple[Tuple[str, bytes], ...]


@dataclasses.dataclass
class Played:
    """All that was seen of one stack.

    error: what the engine said when it refused to load the image; everything else is empty then.
    before, after: the container's tree as it was mounted, and after the operations.
    results: what each operation came to.
    changes: ``docker diff``: paths by kind.
    committed: the layer of ``docker commit``, as saved; None: the engine failed at it.
    order: its names in the order of the tar.
    layers: sha256 of each layer of the loaded image, as saved.
    """

    error: str = ""
    image_id: str = ""
    image_size: int = 0
    before: Tree = dataclasses.field(default_factory=dict)
    after: Tree = dataclasses.field(default_factory=dict)
    results: List[str] = dataclasses.field(default_factory=list)
    changes: List[Tuple[str, int]] = dataclasses.field(default_factory=list)
    size_rw: int = 0
    size_root: int = 0
    order: List[bytes] = dataclasses.field(default_factory=list)
    committed: Dict[bytes, Member] = dataclasses.field(default_factory=dict)
    committed_size: int = 0
    layers: List[str] = dataclasses.field(default_factory=list)


Case = Tuple[Stack, Tuple[Step, ...]]


class Side:
    """An engine in a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._count = 0

    # --- a batch ---------------------------------------------------------------------------------

    def play(self, cases: Sequence[Case]) -> List[Played]:
        """Everything about each case."""
        tags = {f"parity:{self._number()}": case for case in cases}
        played = self._load_all({tag: stack for tag, (stack, _) in tags.items()})
        loaded = [tag for tag in tags if not played[tag].error]
        for tag in loaded:
            self._play_container(tag, tags[tag][1], played[tag])
        saved = self.save([*loaded, *(tag + "-committed" for tag in loaded)])
        for tag in loaded:
            played[tag].layers = [hashlib.sha256(tar).hexdigest() for tar in saved[tag]]
            members = read_members(saved[tag + "-committed"][len(saved[tag]) :])
            played[tag].order = [name for name, _ in members]
            played[tag].committed = dict(members)
        return list(played.values())

    def _load_all(self, images: Dict[str, Stack]) -> Dict[str, Played]:
        """Load all images at once; if the engine refuses that, one by one, to see which."""
        played = {tag: Played() for tag in images}
        try:
            self.load(archive(images))
        except Refused:
            for tag, stack in images.items():
                try:
                    self.load(archive({tag: stack}))
                except Refused as error:
                    played[tag].error = str(error)
        return played

    def _play_container(self, tag: str, todo: Tuple[Step, ...], played: Played) -> None:
        image = self.call("GET", f"/images/{tag}/json")
        played.image_id, played.image_size = image["Id"], image["Size"]
        container = self.create(tag)
        with self.mounted(container) as root:
            played.before = read_tree(root)
            played.results = perform(root, todo)
            played.after = read_tree(root)
        played.changes = self.changes(container)
        about = self.call("GET", f"/containers/{container}/json?size=1")
        played.size_rw, played.size_root = about.get("SizeRw", 0), about.get("SizeRootFs", 0)
        self.commit(container, tag + "-committed")
        played.committed_size = self.call("GET", f"/images/{tag}-committed/json")["Size"]

    def _number(self) -> int:
        self._count += 1
        return self._count

    # --- the engine's calls ----------------------------------------------------------------------

    def load(self, images: bytes) -> None:
        """``docker load``; Refused with what the engine says."""
        answer = self.call("POST", "/images/load?quiet=1", images, "application/x-tar")
        for line in _json_lines(answer):
            if "error" in line:
                raise Refused(line["error"])

    def create(self, tag: str) -> str:
        """``docker create``: the container's id."""
        body = json.dumps({"Image": tag, "Cmd": ["/none"]}).encode()
        return str(self.call("POST", "/containers/create", body)["Id"])

    def changes(self, container: str) -> List[Tuple[str, int]]:
        """``docker diff``: paths with 0 for modified, 1 for added, 2 for deleted; sorted."""
        found = self.call("GET", f"/containers/{container}/changes") or []
        return sorted((change["Path"], change["Kind"]) for change in found)

    def commit(self, container: str, tag: str) -> None:
        """``docker commit``."""
        repository, _, version = tag.partition(":")
        query = urllib.parse.urlencode({"container": container, "repo": repository, "tag": version})
        self.call("POST", "/commit?" + query, b"{}")

    def save(self, tags: Sequence[str]) -> Dict[str, List[bytes]]:
        """``docker save``: the layers' tars by tag."""
        if not tags:
            return {}
        query = urllib.parse.urlencode({"names": tags}, doseq=True)
        saved = self.call("GET", "/images/get?" + query)
        found = {}
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            for image in json.loads(_member(tar, "manifest.json")):
                for tag in image["RepoTags"]:
                    found[tag] = [_member(tar, name) for name in image["Layers"]]
        return found

    def export(self, container: str) -> bytes:
        """``docker export``: the merged tree as a tar."""
        return bytes(self.call("GET", f"/containers/{container}/export"))

    @contextlib.contextmanager
    def mounted(self, container: str) -> Iterator[str]:
        """The container's tree, as a path for this process, while the engine has it mounted."""
        about = self.call("GET", f"/containers/{container}/json")
        folders = about["GraphDriver"]["Data"]
        merged = self.sandbox.inside(folders["MergedDir"])
        untouched = os.stat(self.sandbox.inside(folders["UpperDir"])).st_mtime_ns
        connection = self._connect()
        try:
            connection.putrequest("PUT", f"/containers/{container}/archive?path=/")
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Content-Length", str(len(END_OF_TAR)))
            # Newer engines look at the first bytes before they mount; all wait for the last.
            connection.endheaders(END_OF_TAR[:512])
            _wait_until_mounted(merged)
            _wait_until_entered(merged, untouched)
            yield merged
        finally:
            with contextlib.suppress(OSError):
                connection.send(END_OF_TAR[512:])
                _checked(connection.getresponse())
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        content_type: str = "application/json",
    ) -> Any:
        """One call of the API: JSON as an object, other answers as bytes; Refused on an error."""
        connection = self._connect()
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            data = _checked(answer)
        finally:
            connection.close()
        if answer.getheader("Content-Type", "").startswith("application/json") and data:
            with contextlib.suppress(ValueError):  # several objects, one a line
                return json.loads(data)
        return data

    def _connect(self) -> http.client.HTTPConnection:
        return _Connection(self.sandbox.inside(self.sandbox.engine.socket))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def read_members(tars: Sequence[bytes]) -> List[Tuple[bytes, Member]]:
    """The entries of layers' tars, in their order."""
    found = []
    for data in tars:
        with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
            for info in tar:
                content = tar.extractfile(info).read() if info.isreg() else b""  # type: ignore
                name = info.name.encode("utf-8", "surrogateescape")
                found.append((name, _as_member(info, content)))
    return found


def _as_member(info: tarfile.TarInfo, content: bytes) -> Member:
    prefix = "SCHILY.xattr."
    return Member(
        type=info.type.decode(),
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime=moment(int(info.mtime) * 10**9),
        size=info.size,
        target=info.linkname if info.issym() or info.islnk() else "",
        device=(info.devmajor, info.devminor),
        content=hashlib.sha256(content).hexdigest(),
        xattrs=tuple(
            (key[len(prefix) :], value.encode("utf-8", "surrogateescape"))
            for key, value in sorted(info.pax_headers.items())
            if key.startswith(prefix)
        ),
    )


def _wait_until_mounted(path: str) -> None:
    parent = os.stat(os.path.dirname(path)).st_dev
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_dev != parent:
                return
        time.sleep(0.001)
    raise TimeoutError("the engine does not mount " + path)


def _wait_until_entered(path: str, untouched: int) -> None:
    """The engine makes the tree its root, and for that has a folder in it for a moment."""
    deadline = time.monotonic() + 1  # in case that its clock has not moved on
    while time.monotonic() < deadline:
        moved = os.stat(path).st_mtime_ns != untouched
        if moved and not any(name.startswith(".pivot_root") for name in os.listdir(path)):
            return
        time.sleep(0.001)


def _checked(answer: http.client.HTTPResponse) -> bytes:
    data = answer.read()
    if answer.status >= 400:
        raise Refused(data.decode(errors="replace").strip())
    return data


def _json_lines(answer: Any) -> List[Dict[str, Any]]:
    if isinstance(answer, dict):
        return [answer]
    return [json.loads(line) for line in (answer or b"").splitlines() if line.strip()]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
