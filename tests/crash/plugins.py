"""A plugin process that a test may kill at any system call, and a client that survives it.

Neighbours: `nursery` is the process that starts plugins, `worlds` the layers that they serve.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from tests.crash.tracer import Plan, Step
from tests.layertar import LayerTar
from tests.unit.wire import Reply, Wire, accepts

CALL = "/GraphDriver."


class Traced(NamedTuple):
    """What a tracer saw: the steps, whether the planned one came, whether the plugin lives."""

    steps: List[Step]
    done: bool
    alive: bool


class Nursery:
    """The parent process of plugins; at most one of them lives at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the nursery ended at {name}"
        return json.loads(answer)


class Plugin:
    """``manuka serve`` with its socket, run folder and log in `folder`."""

    def __init__(self, nursery: Nursery, folder: Path, *arguments: str) -> None:
        self._nursery = nursery
        self._arguments = arguments
        self.socket = str(folder / "plugin.sock")
        self.run_dir = folder / "run"
        self.log = folder / "plugin.log"
        self.pid = 0
        #: Refusals heard so far: the layer, and the text.
        self.refusals: List[Tuple[str, str]] = []
        #: How long a reply may take, in seconds.
        self.patience = 60.0
        self._wire: Optional[Wire] = None

    def start(self) -> None:
        self.hang_up()
        arguments = ["serve", "--socket", self.socket, "--run-dir", str(self.run_dir)]
        self.pid = self._nursery.ask("start", [*arguments, *self._arguments], str(self.log))
        deadline = time.monotonic() + 60
        while not accepts(self.socket):
            assert self._nursery.ask("alive"), f"the plugin ended: {self.log_text()}"
            assert time.monotonic() < deadline, "the plugin does not listen"
            time.sleep(0.002)

    def kill(self) -> None:
        self._nursery.ask("kill")
        self.hang_up()

    def restart(self) -> None:
        self.kill()
        self.start()

    def arm(self, plan: Plan) -> None:
        self._nursery.ask("arm", *plan)

    def disarm(self) -> Traced:
        steps, done, alive = self._nursery.ask("disarm")
        if not alive:
            self.hang_up()
        return Traced([Step(*step) for step in steps], done, alive)

    def limit(self, files: int) -> int:
        return int(self._nursery.ask("limit", files))

    def alive(self) -> bool:
        return bool(self._nursery.ask("alive"))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # --- calls ------------------------------------------------------------------------------------

    def try_call(self, name: str, message: Dict[str, Any]) -> Optional[Reply]:
        """The reply; None when the plugin was gone before it came, whole."""
        return self._try(message.get("ID", ""), lambda wire: wire.call(CALL + name, message))

    def try_apply(self, layer_id: str, parent: str, tar: bytes) -> Optional[Reply]:
        target = f"{CALL}ApplyDiff?id={layer_id}&parent={parent}"
        return self._try(layer_id, lambda wire: wire.stream(target, tar))

    def call(self, name: str, **message: Any) -> Any:
        """The JSON of the reply, which has to be a success."""
        return _json(name, self.try_call(name, message))

    def apply(self, layer_id: str, parent: str, tar: bytes) -> int:
        return int(_json("ApplyDiff", self.try_apply(layer_id, parent, tar))["Size"])

    def diff(self, layer_id: str, parent: str) -> bytes:
        reply = self.try_call("Diff", message(layer_id, parent))
        assert reply is not None, "Diff: the plugin is gone"
        assert reply.status == 200, reply
        return reply.body

    def hang_up(self) -> None:
        if self._wire is not None:
            self._wire.sock.close()
            self._wire = None

    def _try(self, layer_id: str, call: Any) -> Optional[Reply]:
        try:
            if self._wire is None:
                self._wire = Wire(self.socket)
            self._wire.sock.settimeout(self.patience)
            reply: Reply = call(self._wire)
        except (ConnectionError, FileNotFoundError):  # refused, or gone in the middle
            reply = None  # type: ignore[assignment]
        except AssertionError as error:
            if "no reply" not in str(error):
                raise
            reply = None  # type: ignore[assignment]
        if reply is None or not reply.whole or reply.headers.get("connection") == "close":
            self.hang_up()
        if reply is None or not reply.whole:
            return None
        if reply.status != 200:
            self.refusals.append((layer_id, reply.error))
        return reply


def message(layer_id: str, parent: str = "") -> Dict[str, Any]:
    return {"ID": layer_id, "Parent": parent} if parent else {"ID": layer_id}


def _json(name: str, reply: Optional[Reply]) -> Any:
    assert reply is not None, f"{name}: the plugin is gone"
    assert reply.status == 200, f"{name}: {reply.body!r}"
    return reply.json


def base_tar() -> bytes:
    """A layer with something of each kind, to be changed by layers above it."""
    tar = (
        LayerTar().folder("etc").file("etc/passwd", b"root:x:0:0\n").file("etc/shadow", b"x", 0o600)
    )
    tar.folder("srv", 0o750, uid=1000, gid=1000).file("srv/a", b"a" * 5000, uid=1000)
    tar.folder("srv/deep").file("srv/deep/b", b"b").file("srv/deep/c", b"c")
    tar.symlink("srv/link", "a").hardlink("srv/a2", "srv/a").folder("opt").file("opt/tool", b"1")
    return tar.bytes()


def every_kind_tar() -> bytes:
    """A layer with an entry of every kind that a layer can have, on `base_tar`."""
    tar = (
        LayerTar().folder("new", 0o1777, uid=5, gid=6).file("new/empty").file("new/x", b"x" * 9000)
    )
    tar.file("new/setuid", b"s", 0o4755).symlink("new/link", "../etc/passwd", uid=7)
    tar.hardlink("new/x2", "new/x").hardlink("srv/below", "srv/deep/b")
    tar.device("new/null", 1, 3).device("new/disk", 8, 0, block=True).fifo("new/pipe", 0o620)
    tar.file("new/capable", b"c", 0o755, xattrs={"user.note": b"n", "security.capability": _CAP})
    tar.whiteout("etc/shadow").opaque("srv/deep").file("srv/deep/d", b"d")
    tar.whiteout("opt").file("implied/by/name", b"i").file("new/x", b"again").folder("opt/back")
    tar.file("new/late", os.urandom(1) * 150_000)
    return tar.bytes()


_CAP = bytes.fromhex("0100000200200000000000000000000000000000")
