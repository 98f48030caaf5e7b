"""``manuka trace`` between a real engine and the real plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from manuka.toolkit.client import Client
from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.sandbox import Sandbox
from manuka.toolkit.trace.call import Call, read
from manuka.toolkit.trace.observer import Recorder
from manuka.toolkit.trace.proxy import Proxy
from manuka.toolkit.trace.replay import replay

from .conftest import DRIVER
from .images import Image, Layer
from .steps import box, load

pytestmark = pytest.mark.skipif(DRIVER != "manuka", reason="it traces the plugin")


def names(calls: List[Call]) -> List[str]:
    return [call.name.partition(".")[2] for call in sorted(calls, key=lambda call: call.number)]


def test_what_a_container_needs_is_shown_and_recorded(engine: str, tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "manuka", "trace", "--engine", engine, "--record", str(record)),
            *("--svg", str(tmp_path / "run.svg"), "--layers", str(tmp_path / "layers"), "--"),
            *("docker", "run", "--rm", "--network", "none", "busybox", "echo", "hello"),
        ],
        env=with_this_package(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
    )
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (0, b"hello\n"), said
    shown = [line.split()[1] for line in said.splitlines() if line.startswith("   +")]
    assert shown.count("CreateReadWrite") == 2
    assert shown.count("Get") == shown.count("Put") >= 2
    assert "Init" not in shown
    assert (tmp_path / "run.svg").read_text().count("<rect") == len(shown) + 1
    calls = list(read(str(record)))
    assert names(calls)[:3] == ["Activate", "Init", "Capabilities"]
    assert names(calls)[-1] == "Cleanup"
    assert [call for call in calls if call.error] == []
    (apply,) = (call for call in calls if call.name == "GraphDriver.ApplyDiff")
    assert os.path.getsize(tmp_path / "layers" / f"{apply.number}.tar") == apply.received


def test_all_that_an_engine_did_can_be_done_again(
    engine: str, workshop: str, tmp_path: Path
) -> None:
    """Layers, a commit, a diff and the image's removal, replayed on another plugin, are equal."""
    calls: List[Call] = []
    layers = tmp_path / "layers"
    layers.mkdir()

    def between(front: str, back: str) -> Proxy:
        return Proxy(front, back, Recorder(calls.append, str(layers)))

    image = Image("three:1", *(Layer().file(f"srv/{n}", os.urandom(90_000)) for n in range(3)))
    with Sandbox(engine, DRIVER, data_dir=workshop, between=between) as traced:
        load(traced, box())
        traced.docker("load", input=image.archive())
        traced.docker("run", "--name", "changed", "--network", "none", "box:1", "touch", "/new")
        assert b"A /new" in traced.docker("diff", "changed").stdout
        traced.docker("commit", "changed", "box:2")
        traced.docker("rm", "changed")
        traced.docker("rmi", "three:1")
    assert [call for call in calls if call.error] == []
    assert {"Changes", "Diff", "Remove"} <= set(names(calls))
    with Sandbox(engine, DRIVER, data_dir=workshop) as other:
        assert other.plugin is not None
        other.engine.kill()
        home = other.data + "/replayed"
        os.mkdir(other.inside(home))
        socket_path = other.inside(other.plugin.socket)
        done = list(replay(calls, socket_path, home, str(layers)))
        assert [one for one in done if one.difference is not None] == []
        assert len(done) == len(calls)
        assert Client(socket_path).activate() == ["GraphDriver"]


def test_a_driver_of_the_engine_itself_has_nothing_to_trace(engine: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "manuka",
            "trace",
            "--engine",
            engine,
            "--driver",
            "vfs",
            "--",
            "true",
        ],
        env=with_this_package(os.environ),
        capture_output=True,
        timeout=180,
    )
    assert done.returncode == 1
    assert b"there is nothing to trace" in done.stderr


def test_a_plugin_at_work_can_be_traced_without_a_restart(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its socket is taken aside; connections that the engine has open go on untraced."""
    front = sandbox.inside("/run/docker/plugins/manuka.sock")
    record = sandbox.data + "/calls.jsonl"
    child = sandbox.spawn(
        [
            *(sys.executable, "-m", "manuka", "trace", "--record", record),
            *("--socket", "/run/docker/plugins/manuka.sock"),
        ],
        env=with_this_package(sandbox.environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    assert b"Ctrl-C ends it" in child.stderr.readline()
    starts = [
        sandbox.spawn(
            ["docker", "run", "--rm", "--network", "none", "box:1", "true"],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(6)  # more at once than the engine has idle connections for
    ]
    assert [start.wait(120) for start in starts] == [0] * 6
    assert Client(front).activate() == ["GraphDriver"]
    child.terminate()
    child.communicate(timeout=60)
    with open(sandbox.inside(record)) as file:
        seen = [json.loads(line) for line in file]
    assert child.returncode == 0
    assert "Plugin.Activate" in [call["name"] for call in seen]
    assert [call for call in seen if call["error"]] == []
    sandbox.docker("run", "--rm", "--network", "none", "box:1", "true")
    assert os.listdir(sandbox.inside("/run/docker/plugins")) == ["manuka.sock"]
    os.unlink(sandbox.inside(record))
