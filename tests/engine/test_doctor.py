"""``manuka doctor`` on a machine that is well, and on broken ones: each fault is told by name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, Iterator

import pytest

from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER, MakeSandbox
from .steps import box, load, run, run_sleeping

pytestmark = [
    pytest.mark.engines_in_turn,
    pytest.mark.skipif(DRIVER != "manuka", reason="it looks at the plugin"),
]

SOCKET = "/run/docker/plugins/manuka.sock"


def doctor(sandbox: Sandbox, *arguments: str, status: int) -> Dict[str, Dict[str, Any]]:
    """The findings by the name of their check."""
    child = sandbox.spawn(
        [sys.executable, "-m", "manuka", "doctor", "--json", *arguments],
        env=with_this_package(sandbox.environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (status, b""), out
    report = json.loads(out)
    assert report["healthy"] == (status == 0)
    return {finding["check"]: finding for finding in report["findings"]}


def problems(findings: Dict[str, Dict[str, Any]]) -> Dict[str, str]:
    for finding in findings.values():
        assert finding["remedy"] or finding["level"] in ("ok", "note"), finding
    return {name: one["text"] for name, one in findings.items() if one["level"] == "problem"}


def write(sandbox: Sandbox, name: str, text: str, mode: int = 0o644) -> str:
    path = f"{sandbox.data}/{name}"
    with open(sandbox.inside(path), "w") as file:
        file.write(text)
    os.chmod(sandbox.inside(path), mode)
    return path


def test_a_machine_that_is_well_has_no_problem(sandbox: Sandbox) -> None:
    findings = doctor(sandbox, status=0)
    assert problems(findings) == {}
    for check in ("engine-version", "experimental", "storage-driver", "socket", "listener"):
        assert findings[check]["level"] == "ok", findings[check]
    assert findings["handshake"]["level"] == findings["mount-namespace"]["level"] == "ok"
    assert "dockerd" in findings["mount-namespace"]["text"]
    assert findings["backing-filesystem"]["level"] == "ok"


def test_people_get_sentences(sandbox: Sandbox) -> None:
    child = sandbox.spawn(
        [sys.executable, "-m", "manuka", "doctor"],
        env=with_this_package(sandbox.environment()),
        stdout=subprocess.PIPE,
    )
    text = child.communicate(timeout=120)[0].decode()
    assert text.startswith("engine\n  ok       Docker ")
    assert text.endswith("no problems, no warnings\n")


@pytest.mark.parametrize(
    ("config", "check", "words"),
    [
        ('{"experimental": true,\n "storage-driver": }', "daemon-json", "line 2 column 20"),
        ("[]", "daemon-json", "no JSON object"),
        ('{"storage-driver": "manuka"}', "experimental", "are off"),
        ('{"experimental": true}', "storage-driver", "not told to use the plugin"),
        (
            '{"experimental": true, "storage-driver": "overlay2"}',
            "storage-driver",
            "use the driver overlay2, not manuka",
        ),
        (
            '{"experimental": true, "storage-driver": "manuka",'
            ' "features": {"containerd-snapshotter": true}}',
            "containerd-snapshotter",
            "keeps images in containerd",
        ),
    ],
)
def test_settings_that_leave_the_plugin_out_are_told(
    sandbox: Sandbox, config: str, check: str, words: str
) -> None:
    path = write(sandbox, "bad.json", config)
    found = problems(doctor(sandbox, "--config", path, status=1))
    assert words in found[check]


@pytest.mark.parametrize(
    ("version", "check", "words"),
    [
        ("28.0.4", "engine-version", "has no graphdriver plugins any more"),
        ("29.1.0", "engine-version", "removed in 28.0"),
    ],
)
def test_engines_that_refuse_plugins_are_told(
    sandbox: Sandbox, version: str, check: str, words: str
) -> None:
    path = engine_of(sandbox, version)
    assert words in problems(doctor(sandbox, "--engine", path, status=1))[check]


def test_an_engine_of_27_is_told_whether_it_was_allowed_to_have_plugins(sandbox: Sandbox) -> None:
    path = engine_of(sandbox, "27.5.1")
    # The engine that runs is the one under test, whose environment is looked at.
    allowed = sandbox.engine.program.version >= (27, 0)
    found = doctor(sandbox, "--engine", path, status=0 if allowed else 1)["engine-27"]
    assert found["level"] == ("ok" if allowed else "problem")
    said = "is in the engine's" if allowed else "is not in the"
    assert f"DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS {said} environment" in found["text"]


def engine_of(sandbox: Sandbox, version: str) -> str:
    """A script that says its version, for releases that are not at hand; its path."""
    script = f"#!/bin/sh\necho 'Docker version {version}, build 0'\n"
    return write(sandbox, "dockerd-" + version, script, 0o755)


def test_a_plugin_that_has_been_killed_is_told_from_its_socket(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    assert sandbox.plugin is not None
    sandbox.plugin.kill()
    found = problems(doctor(sandbox, status=1))
    assert "Nobody listens on " + SOCKET in found["listener"]
    os.unlink(sandbox.inside(SOCKET))
    found = problems(doctor(sandbox, status=1))
    assert "There is no socket at " + SOCKET in found["socket"]
    with open(sandbox.inside(SOCKET), "w"):
        pass
    assert "is no socket" in problems(doctor(sandbox, status=1))["socket"]
    os.unlink(sandbox.inside(SOCKET))
    sandbox.plugin.start()
    assert problems(doctor(sandbox, status=0)) == {}


def test_a_plugin_that_hangs_is_told_within_seconds(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    assert sandbox.plugin is not None
    sandbox.plugin.freeze()
    try:
        found = problems(doctor(sandbox, status=1))
    finally:
        sandbox.plugin.thaw()
    assert "within 5 seconds: Plugin.Activate: no reply" in found["handshake"]


def test_a_socket_that_others_may_write_to_is_told(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    os.chmod(sandbox.inside(SOCKET), 0o666)
    found = problems(doctor(sandbox, status=1))
    assert "belongs to root with mode 0666" in found["socket-owner"]


def outside(sandbox: Sandbox, *arguments: str) -> Dict[str, Dict[str, Any]]:
    """What the doctor finds from outside the sandbox, of the engine in it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "manuka", "doctor", "--json"),
            *("--pid", str(sandbox.engine.pid), *arguments),
        ],
        env=with_this_package(os.environ),
        stdout=subprocess.PIPE,
        timeout=120,
    )
    return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_of_two_engines_with_a_plugin_at_the_same_path_each_gets_its_own(
    make_sandbox: MakeSandbox,
) -> None:
    """Both sockets have the same path, in two mount namespaces."""
    one, other = make_sandbox(), make_sandbox()
    for sandbox, second in ((one, other), (other, one)):
        assert sandbox.plugin is not None
        found = outside(sandbox)
        assert problems(found) == {}
        assert f"(process {sandbox.engine.pid}), in another" in found["engine-running"]["text"]
        assert f"(process {second.engine.pid})" in found["other-engines"]["text"]
        listener = found["listener"]["text"]
        assert listener == f"On the socket listens {_name(sandbox.plugin.pid)}."
        assert f"(process {sandbox.plugin.pid}) mounts" in found["mount-namespace"]["text"]
        assert f"dockerd (process {sandbox.engine.pid})" in found["mount-namespace"]["text"]
        assert "containerd" in found["mount-namespace"]["text"]
    assert other.plugin is not None
    other.plugin.kill()
    assert f"Nobody listens on {SOCKET}" in problems(outside(other))["listener"]
    assert problems(outside(one)) == {}


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return f"{file.read().strip()} (process {pid})"


class _SpecFile:
    """In the place of a socket: a file in /etc/docker/plugins, seen in the sandbox alone."""

    def __init__(self, kind: str, content: str) -> None:
        self._kind, self._content = kind, content

    def __call__(self, front: str, back: str) -> _SpecFile:
        pid = front.split("/")[2]
        script = (
            "mkdir -p $1/up/docker/plugins $1/work &&"
            ' printf %s "$3" >$1/up/docker/plugins/manuka.$2 &&'
            " mount -t overlay -o lowerdir=/etc,upperdir=$1/up,workdir=$1/work none /etc"
        )
        socket = back.partition("/root")[2]
        enter = ["nsenter", "--mount", "--target", pid, "sh", "-ec", script, "sh"]
        content = self._content.replace("SOCKET", socket)
        subprocess.run([*enter, os.path.dirname(socket), self._kind, content], check=True)
        return self

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "content"),
    [("spec", "unix://SOCKET\n"), ("json", '{"Name": "manuka", "Addr": "unix://SOCKET"}')],
)
def test_a_plugin_that_a_file_names_is_found_as_the_engine_finds_it(
    make_sandbox: MakeSandbox, kind: str, content: str
) -> None:
    sandbox = make_sandbox(between=_SpecFile(kind, content))
    assert sandbox.plugin is not None
    spec = f"/etc/docker/plugins/manuka.{kind}"
    for found in (doctor(sandbox, status=0), outside(sandbox)):
        assert problems(found) == {}
        named = f"{sandbox.plugin.socket} is there (which {spec} names)"
        assert named in found["socket"]["text"]
        assert found["handshake"]["level"] == found["mount-namespace"]["level"] == "ok"


ANSWERS = {
    "web": ("<html>Welcome</html>", "expected JSON, got '<html>"),
    "other": ('{"Implements": ["VolumeDriver"]}', "it implements ['VolumeDriver']"),
    "list": ("[1]", "expected a JSON object, got [1]"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_another_server_on_the_socket_is_told(sandbox: Sandbox, kind: str) -> None:
    answer, words = ANSWERS[kind]
    script = f"""
import http.server, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write({answer!r}.encode())
    def log_message(self, *arguments):
        pass
    def address_string(self):
        return ""
socketserver.UnixStreamServer({sandbox.data + "/other.sock"!r}, Handler).serve_forever()
"""
    path = sandbox.data + "/other.sock"
    with _running(sandbox, [sys.executable, "-c", script], path):
        os.chmod(sandbox.inside(path), 0o600)
        found = problems(doctor(sandbox, "--socket", path, status=1))
    os.unlink(sandbox.inside(path))
    assert words in found["handshake"]


@pytest.mark.parametrize(("propagation", "seen"), [("private", 1), ("slave", 1), ("shared", 0)])
def test_a_plugin_whose_mounts_nobody_sees_is_told(
    sandbox: Sandbox, propagation: str, seen: int
) -> None:
    path = sandbox.data + "/apart.sock"
    plugin = [
        *("unshare", "--mount", "--propagation", propagation),
        *(sys.executable, "-m", "manuka", "serve", "--socket", path),
        *("--run-dir", sandbox.data + "/apart"),
    ]
    with _running(sandbox, plugin, path):
        findings = doctor(sandbox, "--socket", path, status=seen)
    told = "mount-namespace" in problems(findings)
    assert told == bool(seen)
    if told:
        assert "is not seen by dockerd" in findings["mount-namespace"]["text"]


@contextlib.contextmanager
def _running(sandbox: Sandbox, command: Any, path: str) -> Iterator[None]:
    """A process that listens at `path` meanwhile."""
    child = sandbox.spawn(
        command,
        env=with_this_package(sandbox.environment()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not os.path.exists(sandbox.inside(path)):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        yield
    finally:
        child.terminate()
        child.wait()


@pytest.mark.parametrize(
    ("name", "check", "level"),
    [("overlay2", "driver-name", "problem"), ("my-overlay2", "driver-name", "warning")],
)
def test_names_that_engines_treat_as_their_own_are_told(
    sandbox: Sandbox, name: str, check: str, level: str
) -> None:
    assert doctor(sandbox, "--name", name, status=1)[check]["level"] == level


def test_a_driver_that_is_named_twice_is_told(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    sandbox.engine.kill()
    config = write(sandbox, "twice.json", '{"experimental": true, "storage-driver": "manuka"}')
    # An engine refuses this and ends; the name stands for one that is about to.
    fake = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'dockerd'); time.sleep(100)"
    command = [sys.executable, "-c", fake, "--config-file", config, "--storage-driver", "manuka"]
    child = sandbox.spawn(command)
    try:
        time.sleep(0.5)
        found = problems(doctor(sandbox, "--config", config, status=1))
    finally:
        child.kill()
        child.wait()
    assert "on the command line and in " + config in found["storage-driver"]


def test_a_data_root_on_an_overlay_is_told(sandbox: Sandbox, name: str) -> None:
    run_sleeping(sandbox, name)
    try:
        merged = json.loads(sandbox.docker("inspect", name).stdout)[0]["GraphDriver"]["Data"]
        settings = {"experimental": True, "storage-driver": "manuka"}
        settings["data-root"] = merged["MergedDir"]
        config = write(sandbox, "inner.json", json.dumps(settings))
        found = problems(doctor(sandbox, "--config", config, status=1))
    finally:
        sandbox.docker("rm", "-f", name)
    assert "lies on an overlayfs" in found["backing-filesystem"]


def test_an_engine_that_is_down_leaves_its_files_to_look_at(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    sandbox.engine.stop()
    config = sandbox.data + "/daemon.json"
    findings = doctor(sandbox, "--config", config, status=0)
    assert findings["engine-running"]["text"].startswith("No engine runs")
    assert findings["experimental"]["level"] == findings["storage-driver"]["level"] == "ok"


def test_images_of_other_drivers_are_told(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox(driver="overlay2")
    config = write(
        sandbox,
        "switch.json",
        json.dumps(
            {
                "experimental": True,
                "storage-driver": "manuka",
                "data-root": sandbox.data + "/docker",
            }
        ),
    )
    findings = doctor(sandbox, "--config", config, status=1)  # no plugin is there either
    assert "The driver overlay2 has 2 image layers" in findings["other-drivers"]["text"]


def test_layers_that_only_point_to_their_contents_are_found_when_asked(
    make_sandbox: MakeSandbox,
) -> None:
    sandbox = make_sandbox()
    assert doctor(sandbox, "--deep", status=0)["foreign-records"]["level"] == "ok"
    home = sandbox.inside(sandbox.home)
    layer = next(entry for entry in sorted(os.listdir(home)) if len(entry) == 64)
    with open(f"{home}/{layer}/diff/planted", "w"):
        pass
    os.setxattr(f"{home}/{layer}/diff/planted", "trusted.overlay.metacopy", b"")
    found = problems(doctor(sandbox, "--deep", status=1))
    assert "1 layers" in found["foreign-records"]
    assert "foreign-records" not in doctor(sandbox, status=0)


def test_a_record_whose_layer_is_gone_is_told_with_the_cure_that_helps(
    make_sandbox: MakeSandbox, name: str
) -> None:
    """As 18.09 and 19.03 leave it when they are killed during docker rmi."""
    sandbox = make_sandbox()
    sandbox.engine.stop()
    database = f"{sandbox.inside(sandbox.data)}/docker/image/manuka/layerdb/sha256"
    (top,) = [one for one in os.listdir(database) if os.path.exists(f"{database}/{one}/parent")]
    with open(f"{database}/{top}/cache-id") as file:
        layer = file.read()
    shutil.rmtree(f"{sandbox.inside(sandbox.data)}/docker/manuka/{layer}")
    sandbox.engine.start()

    load(sandbox, box())  # reports success
    failed = sandbox.docker(
        "run", "--network", "none", "--name", name, "box:1", "true", check=False
    )
    assert failed.returncode == 125
    said = failed.stderr.decode()
    assert (
        f"the parent layer {layer} does not exist: remove the image that has it (docker rmi)"
        in said
    )
    found = doctor(sandbox, status=1)["lost-layers"]
    assert "1 layers are gone" in found["text"]
    assert "the images box:1 cannot run" in found["text"]

    command = found["remedy"].partition(";")[0].split()
    assert command == ["docker", "rmi", "-f", "box:1"]
    sandbox.docker(*command[1:])
    load(sandbox, box())
    assert run(sandbox, "box:1", "cat /etc/motd") == "welcome\n"
    assert problems(doctor(sandbox, status=0)) == {}
