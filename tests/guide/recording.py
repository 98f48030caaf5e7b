"""What an engine asks of manuka, recorded, and put into the guide's marked blocks.

    python -m tests.guide.recording [--engine PATH] [--all]

starts an engine in a sandbox with a tracer in between, gives it the commands of `STEPS`, and
rewrites the blocks of ``docs/guide/*.md`` that say something else now (``--all``: every one), and
the drawing.  It needs root, a static busybox and Debian's docker-registry.

Easy to get wrong: what differs with every run.  Layers get names for their ids and the engine's
folder its usual place; of times, the disk's name and sizes of tars
`stable` keeps nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from typing import Any, Iterator, NamedTuple

from manuka.toolkit.client import Client
from manuka.toolkit.sandbox import Sandbox
from manuka.toolkit.trace import timeline
from manuka.toolkit.trace.call import Call
from manuka.toolkit.trace.observer import Observer, Recorder
from manuka.toolkit.trace.proxy import Proxy
from tests.engine import registry as registries
from tests.engine.images import Image, Layer, busybox
from tests.guide.markdown import GUIDE, blocks, chapters, replace_recorded

SCRIPT = "echo hello >/greeting; rm /etc/motd; touch /srv/empty"
RUN = f"docker run --name one --network none box:1 sh -c '{SCRIPT}'"

#: What is done, in order; the arguments of docker behind the text that the guide shows.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("docker pull box:1", ("pull", "--quiet", "IMAGE")),
    (RUN, ("run", "--name", "one", "--network", "none", "IMAGE", "sh", "-c", SCRIPT)),
    ("docker diff one", ("diff", "one")),
    ("docker ps --all --size", ("ps", "--all", "--size")),
    ("docker inspect one", ("inspect", "--type", "container", "one")),
    ("docker cp one:/greeting -", ("cp", "one:/greeting", "-")),
    ("docker commit one box:2", ("commit", "one", "box:2")),
    ("docker save box:2", ("save", "box:2")),
    ("docker info", ("info",)),
    ("docker rm one", ("rm", "one")),
    ("docker rmi box:2", ("rmi", "box:2")),
)
START, STOP = "dockerd starts", "dockerd stops"

#: The layers in the order in which an engine names them.
LAYERS = ("BASE", "SECOND", "CONTAINER", "COMMITTED")
DRAWING = GUIDE / "run.svg"

#: Where a call is sent by several steps: the one that the guide shows it from.
_EXAMPLES = {"Create": "docker pull", "Get": "docker run", "Put": "docker run", "Status": START}


class Recording(NamedTuple):
    """The calls of each step, with readable ids; the first messages of each kind, as bytes."""

    steps: dict[str, list[Call]]
    wire: dict[str, tuple[bytes, bytes]]
    version: str


class _Tapped(Recorder):
    """Keeps the bytes of the first request and reply of each kind as well."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__(calls.append)
        self.wire: dict[str, tuple[bytes, bytes]] = {}

    def connection(self) -> Observer:
        return _Tap(self, super().connection())  # type: ignore[return-value]


class _Tap:
    def __init__(self, tapped: _Tapped, observer: Observer) -> None:
        self._tapped = tapped
        self._observer = observer
        self._name = ""

    def sent_by_engine(self, data: bytes) -> None:
        if data.startswith(b"POST /"):
            self._name = re.split(r"[/? ]", data.decode("latin-1"), maxsplit=3)[2]
            self._tapped.wire.setdefault(self._name, (data, b""))
        self._observer.sent_by_engine(data)

    def sent_by_plugin(self, data: bytes) -> None:
        wire = self._tapped.wire
        request, reply = wire.get(self._name, (b"", b"-"))
        if data.startswith(b"HTTP/1.1 ") and not reply:
            wire[self._name] = (request, data)
        self._observer.sent_by_plugin(data)

    def over(self) -> None:
        self._observer.over()


def record(engine: str | None, data_dir: str | None = None) -> Recording:
    """Do all `STEPS` on an engine.  Raises SandboxError when one of them fails."""
    calls: list[Call] = []
    tapped = _Tapped(calls)
    layer = Layer().folder("etc").file("etc/motd", b"welcome\n").folder("srv")
    sequence: dict[str, list[Call]] = {}

    def settle() -> list[Call]:
        """The calls since the last time, when no more come."""
        count = -1
        while count != len(calls):
            count = len(calls)
            time.sleep(0.4)
        new, calls[:] = sorted(calls, key=lambda call: call.number), []
        return new

    with _registry() as address:
        image = Image(f"{address}/box:1", busybox(), layer)
        sandbox = Sandbox(engine, data_dir=data_dir, between=lambda a, b: Proxy(a, b, tapped))
        with sandbox:
            sequence[START] = settle()
            sandbox.docker("load", input=image.archive())
            sandbox.docker("push", "--quiet", image.tag)
            sandbox.docker("rmi", image.tag)
            settle()
            tapped.wire = {key: tapped.wire[key] for key in ("Plugin.Activate",)}
            for text, arguments in STEPS:
                sandbox.docker(*(image.tag if word == "IMAGE" else word for word in arguments))
                sequence[text] = settle()
            assert sandbox.plugin is not None
            layer_id = next(call.layer_id for call in sequence["docker pull box:1"])
            Client(sandbox.inside(sandbox.plugin.engines_socket)).exists(layer_id or "")
            root = os.path.dirname(sandbox.home)
            sequence["by hand"] = settle()
            sandbox.engine.stop()
            sequence[STOP] = settle()
            version = sandbox.program.version_text
    return _readable(Recording(sequence, tapped.wire, version), root)


def _readable(recording: Recording, root: str) -> Recording:
    text = json.dumps([call for step in recording.steps.values() for call in step])
    found = dict.fromkeys(re.findall(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", text))
    names = dict(zip(found, LAYERS))

    def clear(value: str) -> str:
        for layer_id, name in names.items():
            value = value.replace(layer_id, name)
        return value.replace(root, "/var/lib/docker")

    steps = {
        step: [Call(*json.loads(clear(json.dumps(call)))) for call in calls]
        for step, calls in recording.steps.items()
    }
    wire = {
        name: tuple(clear(half.decode("latin-1")).encode("latin-1") for half in both)
        for name, both in recording.wire.items()
    }
    return Recording(steps, wire, recording.version)  # type: ignore[arg-type]


@contextlib.contextmanager
def _registry() -> Iterator[str]:
    """The address of a registry of our own on this machine."""
    with tempfile.TemporaryDirectory(prefix="guide-registry-") as folder:
        with registries.registry(registries.find() or "registry", f"{folder}/data") as address:
            yield address


# --- as text --------------------------------------------------------------------------------------


def render(recording: Recording) -> dict[str, str]:
    """The text of each block, by its name."""
    found = {"sequence": sequence(recording), "timeline": _timeline(recording)}
    for name, (request, reply) in recording.wire.items():
        if name in ("Plugin.Activate", "GraphDriver.ApplyDiff", "GraphDriver.Diff"):
            found[f"wire {name.split('.')[1]}"] = _wire(request, reply)
    for step, calls in recording.steps.items():
        for call in calls:
            # A step's last says most: its layer has a parent.
            name = call.name.split(".")[1]
            if name not in _EXAMPLES or step.startswith(_EXAMPLES[name]):
                found[name] = _exchange(step, call)
    return found


def sequence(recording: Recording) -> str:
    """Each step's calls, a line each, with the fields that they have."""
    lines = []
    for step, calls in recording.steps.items():
        if step != "by hand":
            lines.append(step)
            lines += [f"    {_one_line(call)}".rstrip() for call in calls]
    return "\n".join(lines) + "\n"


def _one_line(call: Call) -> str:
    name = call.name.split(".")[1]
    about = call.layer_id or ""
    if call.parent:
        about += f" on {call.parent}"
    return f"{name:<16} {about}"


def _timeline(recording: Recording) -> str:
    return "\n".join(line.rstrip() for line in timeline.text(recording.steps[RUN], 30)) + "\n"


def _exchange(step: str, call: Call) -> str:
    target = f"/{call.name}" + (f"?{call.query}" if call.query else "")
    lines = [f"# {step}", f"> POST {target}"]
    if call.name == "GraphDriver.ApplyDiff":
        lines.append(f"> a tar of {call.received} bytes, in chunks")
    elif call.request is not None:
        lines.append("> " + json.dumps(call.request))
    lines.append(f"< {call.status}")
    if call.reply is not None:
        lines.append("< " + json.dumps(call.reply))
    else:
        lines.append(f"< a tar of {call.sent} bytes, in chunks")
    return "\n".join(_folded(line) for line in lines) + "\n"


def _folded(line: str, width: int = 96) -> str:
    """A long message on several lines, broken between its fields."""
    rows = [""]
    for part in re.split(r"(?<=[,:]) ", line):
        if rows[-1] and len(rows[-1]) + len(part) + 1 > width:
            rows.append(line[:2] + " " + part)
        else:
            rows[-1] = f"{rows[-1]} {part}".strip()
    return "\n".join(rows)


def _wire(request: bytes, reply: bytes) -> str:
    lines = []
    for mark, message in ((">", request), ("<", reply)):
        head, _, body = message.partition(b"\r\n\r\n")
        lines += [f"{mark} {line}".rstrip() for line in head.decode("latin-1").split("\r\n")]
        if body[:1] == b"{":
            lines += [mark, f"{mark} {body.decode().strip()}"]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def stable(text: str) -> str:
    """`text` without what differs from run to run, and from machine to machine."""
    text = re.sub(r" *█+ *", " # ", text)
    text = re.sub(r"\d+\.\d ms", "T ms", text)
    text = re.sub(r"0 +T ms$", "0 T ms", text, flags=re.MULTILINE)
    text = re.sub(r"(Date|Content-Length|Host):.*", r"\1: -", text)
    text = re.sub(r"a tar of \d+ bytes", "a tar", re.sub(r'"Size": \d{5,}', '"Size": -', text))
    text = re.sub(r'("Backing Filesystem",) "\w+"', r"\1 -", text)
    return re.sub(r' (width|x|x1|x2|height)="[\d.]+"', "", text)


def drawing(recording: Recording) -> str:
    return timeline.svg(recording.steps[RUN], "docker run, as manuka sees it")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the guide's calls anew.")
    parser.add_argument("--engine", metavar="PATH", help="the dockerd (default: on PATH)")
    parser.add_argument("--all", action="store_true", help="rewrite what says the same, too")
    parser.add_argument("--print", action="store_true", help="print it, and write nothing")
    arguments: Any = parser.parse_args()
    recording = record(arguments.engine)
    made = render(recording)
    if arguments.print:
        print(f"Docker {recording.version}")
        print("\n".join(f"--- {name}\n{text}" for name, text in made.items()))
        return
    for chapter in chapters():
        for block in blocks(chapter):
            if block.kind == "recorded":
                text = made[block.name]
                if arguments.all or stable(text) != stable(block.text):
                    replace_recorded(chapter, block.name, text)
                    print(f"{chapter.name}: {block.name}")
    svg = drawing(recording)
    old = DRAWING.read_text(encoding="utf-8") if DRAWING.exists() else ""
    if arguments.all or stable(svg) != stable(old):
        DRAWING.write_text(svg, encoding="utf-8")
        print(DRAWING.name)


if __name__ == "__main__":
    sys.exit(main())
