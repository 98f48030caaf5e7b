"""What the guide says that an engine's errors mean: each one is caused, and its text compared.

The table is that of ``docs/guide/5-debugging.md``; `misbehaving` has the plugins.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import Callable, Dict

import pytest

from manuka.toolkit.sandbox import Sandbox, SandboxError
from tests.guide.markdown import GUIDE

from .conftest import DRIVER, MakeSandbox
from .images import Image, Layer, busybox, digest

pytestmark = pytest.mark.skipif(DRIVER != "manuka", reason="it has drivers of its own")

PAGE = GUIDE / "5-debugging.md"

#: Rows that are not caused here, and why.
LEFT_OUT = {
    "prior storage driver NAME failed": "no driver may be named, which a sandbox does",
    "invalid diffID for layer": "a race in the engine, which it loses only now and then",
    "device or resource busy": "the kernel's own; unit/test_overlay2_mounts.py makes it",
}

Cause = Callable[[MakeSandbox], str]


class Written:
    """A layer whose tar was made elsewhere."""

    def __init__(self, tar: bytes) -> None:
        self.tar, self.diff_id = tar, digest(tar)


def malformed(size: int = 100) -> Written:
    """A layer with a time as writers in JavaScript have written those before 1970 (PeaNUT#431)."""
    tar = bytearray(Layer().file("srv/first", os.urandom(size)).file("srv/bad", b"x").tar)
    at = tar.index(b"srv/bad")
    tar[at + 136 : at + 148] = b"-0000000005\0"
    tar[at + 148 : at + 156] = b" " * 8
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
    return Written(bytes(tar))


def said_to_load(sandbox: Sandbox, *layers: object) -> str:
    image = Image("bad:1", busybox(), *layers)  # type: ignore[arg-type]
    result = sandbox.docker("load", input=image.archive(), check=False)
    assert result.returncode != 0
    return result.stderr.decode() + sandbox.engine.log_text()


def said_to_run(sandbox: Sandbox) -> str:
    command = ["run", "--rm", "--network", "none", "box:1", "sh", "-c", "true"]
    result = sandbox.docker(*command, check=False)
    assert result.returncode != 0
    return result.stderr.decode() + sandbox.engine.log_text()


def misbehaving(name: str, run: Callable[[Sandbox], str]) -> Cause:
    return lambda make: run(make(driver=f"tests.engine.misbehaving:{name}"))


def at_start(**arguments: object) -> Cause:
    def cause(make: MakeSandbox) -> str:
        with pytest.raises(SandboxError) as caught:
            make(**arguments)
        said = str(caught.value)
        assert "module=grpc" not in said, "lines of no interest may take the place of the reason"
        return said

    return cause


def two_paths(sandbox: Sandbox) -> str:
    command = ["run", "--network", "none", "--name", "one", "box:1", "true"]
    said = sandbox.docker(*command, check=False).stderr.decode()
    sandbox.docker("rm", "-f", "one", check=False)
    return said


def too_deep(make: MakeSandbox) -> str:
    return said_to_load(make(), *(Layer().file(f"srv/{number}") for number in range(125)))


#: The text in the table's first column, and how to get it.
CAUSED: Dict[str, Cause] = {
    "driver not supported": at_start(driver="tests.engine.misbehaving:RefusesToStart"),
    "graphdriver plugins are only supported with experimental mode": at_start(
        settings={"experimental": False}
    ),
    "Unable to connect to plugin: …, retrying in 1s": misbehaving("DiesInACall", said_to_run),
    "io: read/write on closed pipe": lambda make: said_to_load(make(), malformed()),
    "invalid character '<' looking for beginning of value": misbehaving(
        "AnswersInHtml", said_to_run
    ),
    "cannot unmarshal object into Go struct field …Err of type string": misbehaving(
        "AnswersWithAnObject", said_to_run
    ),
    "returning inconsistent paths": misbehaving("GivesTwoPaths", two_paths),
    'exec: "sh": executable file not found': misbehaving("MountsElsewhere", said_to_run),
    "max depth exceeded": too_deep,
    # The second table: why a layer broke off.
    "archive/tar: invalid tar header": lambda make: said_to_load(make(), malformed(3 << 20)),
    "unexpected EOF": lambda make: said_to_load(
        make(), Written(Layer().file("srv/cut", b"x" * 100_000).tar[:50_000])
    ),
}


def table() -> list[str]:
    """The texts of the guide's tables of errors."""
    page = PAGE.read_text(encoding="utf-8")
    part = page.partition("## What the engine says")[2].partition("## Pull works")[0]
    rows = re.findall(r"^\| (`.+?`.*?) \|", part, re.M)
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row)]


def test_each_text_of_the_guide_is_caused_here_or_left_out_for_a_reason() -> None:
    elsewhere = {"context canceled", "EOF", "connection reset by peer"}
    assert set(table()) == CAUSED.keys() | LEFT_OUT.keys() | elsewhere


@pytest.mark.parametrize("text", CAUSED)
def test_the_engine_says_what_the_guide_says(make_sandbox: MakeSandbox, text: str) -> None:
    said = CAUSED[text](make_sandbox)
    assert re.search(".*".join(map(re.escape, text.split("…"))), said), said[-2000:]


def test_a_cancelled_pull_is_told_as_such_in_the_log_and_the_next_one_works(
    make_sandbox: MakeSandbox, registry: str, name: str
) -> None:
    sandbox = make_sandbox()
    assert sandbox.plugin is not None
    image = Image(f"{registry}/{name}:1", busybox(), Layer().file("srv/big", os.urandom(30 << 20)))
    sandbox.docker("load", input=image.archive())
    sandbox.docker("push", image.tag)
    sandbox.docker("rmi", image.tag)
    before = set(os.listdir(sandbox.inside(sandbox.home)))
    pull = sandbox.spawn(["docker", "pull", "-q", image.tag], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    home = sandbox.inside(sandbox.home)
    while not any(
        os.path.exists(f"{home}/{layer}/unpacking") and os.path.exists(f"{home}/{layer}/diff/srv")
        for layer in set(os.listdir(home)) - before - {"l", ".incomplete"}
    ):
        assert time.monotonic() < deadline, "the layer has not come"
        assert pull.poll() is None, "it was too quick"
    process = sandbox.plugin.pid
    os.kill(process, signal.SIGSTOP)
    try:
        pull.send_signal(signal.SIGINT)
        assert pull.wait(60) != 0
    finally:
        os.kill(process, signal.SIGCONT)
    sandbox.docker("pull", "-q", image.tag)
    assert re.search("ApplyDiff.*context canceled.*, retrying in 1s", sandbox.engine.log_text())
