"""What the workers do on the engine: each piece of work checks what comes out, and tidies up.

A piece is a method of `Work` that makes things with names of its worker's own, so that workers
meet in the engine and in the layers that their images share, and never in a name.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import tarfile
import threading
from collections import Counter
from typing import Any, Callable, List

from manuka.toolkit.sandbox import Sandbox, SandboxError
from tests.engine.images import Image, Layer, SavedImage, busybox

# What all images of the registry have in common, beside busybox.
_SHARED = 200
_TIMEOUT = 900.0


class Wrong(Exception):
    """Something came out of the engine that did not go in."""


class Record:
    """What was done, and what went wrong, by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: List[str] = []

    def count(self, what: str) -> None:
        with self._lock:
            self.done[what] += 1

    def error(self, text: str) -> None:
        with self._lock:
            self.errors.append(text)
            print(text, file=sys.stderr, flush=True)


def pullable(registry: str, number: int) -> Image:
    """The image that worker `number` pulls again and again."""
    shared = Layer().folder("srv/shared")
    for name in range(_SHARED):
        shared.file(f"srv/shared/{name}", b"%d" % name * 500)
    own = random.Random(number)
    layers = []
    for depth in range(3):
        layer = Layer().file("srv/depth", b"%d" % depth).whiteout(f"srv/shared/{depth}")
        for name in range(50):
            layer.file(f"srv/own/{depth}/{name}", own.randbytes(own.randrange(20_000)))
        layers.append(layer)
    return Image(f"{registry}/soak:{number}", busybox(), shared, *layers)


class Work:
    """One worker."""

    def __init__(self, sandbox: Sandbox, number: int, pulled: Image, record: Record) -> None:
        self._sandbox = sandbox
        self._random = random.Random(number)
        self._number = number
        self._round = 0
        self._pulled = pulled
        self._record = record
        self.pieces: List[Callable[[], None]] = [
            *(self.load_and_save, self.pull, self.change_and_commit, self.build),
            self.run_several,
        ]

    def until(self, over: threading.Event) -> None:
        """Piece after piece, each as often as the others; errors are written down."""
        while not over.is_set():
            self._random.shuffle(self.pieces)
            for piece in self.pieces:
                self._round += 1
                try:
                    piece()
                except (SandboxError, Wrong, OSError) as error:
                    self._record.error(f"{piece.__name__} of worker {self._number}: {error}")
                if over.is_set():
                    return

    # --- pieces -----------------------------------------------------------------------------------

    def load_and_save(self) -> None:
        """An image of two layers of its own comes in, runs, and goes out as it came."""
        tag = self._tag("loaded")
        first, second = Layer().folder("data"), Layer().whiteout("data/3").opaque("srv")
        for number in range(60):
            first.file(f"data/{number}", os.urandom(self._random.randrange(30_000)))
        second.file("data/4", tag.encode()).file("srv/new", bytes(1 << 20))
        image = Image(tag, busybox(), first, second)
        self._docker("load", "-q", input=image.archive())
        with self._removed(tag):
            self._says(tag, "cat /data/4; ls /data | wc -l; ls /srv", f"{tag}59\nnew\n")
            saved = SavedImage(self._docker("save", tag))
            if saved.diff_ids != image.diff_ids:
                raise Wrong(f"{tag} was saved as another image")

    def pull(self) -> None:
        """An image comes from the registry, in layers some of which are there already."""
        self._docker("pull", "-q", self._pulled.tag)
        with self._removed(self._pulled.tag):
            script = "cat /srv/depth; ls /srv/shared | wc -l; ls /srv/own/0 | wc -l"
            self._says(self._pulled.tag, script, f"2{_SHARED - 3}\n50\n")

    def change_and_commit(self) -> None:
        """A container is changed in each way, looked at from outside, and committed."""
        name, tag = self._tag("box").partition(":")[0], self._tag("committed")
        forever = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
        self._docker("run", "-d", "--network", "none", "--name", name, "box:1", *forever)
        try:
            script = f"echo {name} > /srv/token; rm /srv/tree/a; chmod 700 /srv/tree/b"
            self._docker("exec", name, "sh", "-ec", script + "; mv /etc/motd /etc/moved")
            listed = set(self._docker("diff", name).decode().split("\n"))
            wanted = {"A /srv/token", "D /srv/tree/a", "C /srv/tree/b", "A /etc/moved"}
            if not wanted <= listed:
                raise Wrong(f"the diff of {name} is {sorted(listed)}")
            self._docker("cp", "-", f"{name}:/srv", input=_tar("copied", name.encode()))
            copied = _only_file(self._docker("cp", f"{name}:/srv/copied", "-"))
            if copied != name.encode():
                raise Wrong(f"a copy of {name} came out as {copied!r}")
            self._docker("commit", name, tag)
        finally:
            self._docker("rm", "-f", name)
        with self._removed(tag):
            script = "cat /srv/token /srv/copied /etc/moved; ls /srv/tree"
            self._says(tag, script, f"{name}\n{name}welcome\nb\nb2\nlink\n")

    def build(self) -> None:
        """An image is built, of steps that nobody else has."""
        tag = self._tag("built")
        steps = (
            f"FROM box:1\nRUN echo {tag} > /srv/made && rm -r /srv/tree\n"
            "COPY given /srv/given\nRUN mkdir /srv/tree && cat /srv/made > /srv/tree/fresh\n"
        )
        context = _tar("given", os.urandom(100_000), Dockerfile=steps.encode())
        # Looking for cached steps, the engine fails when another worker removes an image just then.
        options = ("-q", "--no-cache", "--network", "none", "--force-rm", "-t", tag, "-")
        self._docker("build", *options, input=context)
        with self._removed(tag):
            self._says(tag, "cat /srv/tree/fresh; wc -c < /srv/given", f"{tag}\n100000\n")

    def run_several(self) -> None:
        """Containers come and go."""
        for number in range(3):
            self._says("box:1", f"echo {number} > /srv/x; cat /srv/x", f"{number}\n")

    # --- their parts ------------------------------------------------------------------------------

    def _says(self, image: str, script: str, wanted: str) -> None:
        """Check in the container what `script` says there.

        An engine under such a load now and then loses what a short container writes to its output
        ("reading from a closed fifo" in its log), and still tells its exit status.
        """
        check = f'said=$({script}); [ "$said" = "$0" ] || {{ echo "$said" >&2; exit 3; }}'
        command = ("run", "--rm", "--network", "none", image, "sh", "-ec", check)
        try:
            self._docker(*command, wanted.rstrip("\n"))
        except SandboxError as error:
            raise Wrong(f"a container of {image} should have said {wanted!r}: {error}") from error

    @contextlib.contextmanager
    def _removed(self, tag: str) -> Any:
        """Remove the image at the end of the block."""
        try:
            yield
        finally:
            self._docker("rmi", tag)

    def _docker(self, *command: str, input: bytes | None = None) -> bytes:
        old_builder = {"DOCKER_BUILDKIT": "0"}
        result = self._sandbox.docker(*command, input=input, timeout=_TIMEOUT, env=old_builder)
        self._record.count(command[0])
        return result.stdout

    def _tag(self, kind: str) -> str:
        return f"{kind}-{self._number}-{self._round}:1"


def spawn_one_at_a_time(sandbox: Sandbox) -> None:
    """Make `sandbox` fit for threads: a new child has its thread's namespaces for a moment."""
    lock, spawn = threading.Lock(), sandbox.spawn

    def alone(*arguments: Any, **more: Any) -> Any:
        with lock:
            return spawn(*arguments, **more)

    sandbox.spawn = alone  # type: ignore[method-assign]


def _tar(name: str, content: bytes, **more: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, data in {name: content, **more}.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _only_file(packed: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        (entry,) = tar.getmembers()
        file = tar.extractfile(entry)
        return file.read() if file else b""
