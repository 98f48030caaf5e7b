"""`manuka serve` as a process: signals, socket activation, readiness, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from manuka.api import calls
from tests.unit.wire import Wire, accepts, chunk, stream_head

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="serve wants root")


class Process:
    """``manuka serve`` with a driver of folders."""

    def __init__(
        self, folder: Path, arguments: List[str], stdin: Any = None, environ: Any = None
    ) -> None:
        self.path = str(folder / "p" / "m.sock")
        command = [
            sys.executable,
            "-m",
            "manuka",
            "serve",
            "--driver",
            "tests.unit.folder_driver:FolderDriver",
        ]
        command += ["--socket", self.path, "--run-dir", str(folder / "run"), *arguments]
        if stdin is not None:
            # As systemd does it: the socket is descriptor 3, and LISTEN_PID the process itself.
            command = ["/bin/sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0', "-", *command]
        python_path = str(ROOT)
        self.process = subprocess.Popen(
            command,
            env=dict(os.environ, PYTHONPATH=python_path, **(environ or {})),
            stdin=stdin,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def wait_for_socket(self) -> None:
        deadline = time.monotonic() + 20
        while not accepts(self.path):
            assert self.process.poll() is None, self.process.stderr
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, signum: int = signal.SIGTERM) -> str:
        """Stop it, and return what it logged."""
        self.process.send_signal(signum)
        _, log = self.process.communicate(timeout=120)
        return log


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: List[Process] = []

    def starter(*arguments: str, **settings: Any) -> Process:
        process = Process(tmp_path, list(arguments), **settings)
        started.append(process)
        return process

    yield starter
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        process.process.communicate()


def _call(path: str, call: str, message: Optional[Dict[str, Any]] = None) -> Any:
    with Wire(path) as wire:
        reply = wire.call(call, message)
        assert reply.status == 200, reply.body
        return reply.json


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_cleanly_and_removes_its_socket(start: Any, signum: int) -> None:
    process = start()
    process.wait_for_socket()
    assert _call(process.path, calls.ACTIVATE) == {"Implements": ["GraphDriver"]}
    log = process.end(signum)
    assert process.process.returncode == 0
    assert not os.path.exists(process.path)
    assert "Traceback" not in log
    assert f"stopping: {signal.Signals(signum).name}" in log


def test_a_signal_while_the_service_starts_leaves_no_socket_behind(start: Any) -> None:
    process = start()
    process.wait_for_socket()
    log = process.end()  # at once
    assert not os.path.exists(process.path)
    assert "Traceback" not in log


def test_a_stuck_layer_does_not_keep_the_service_from_stopping(start: Any, tmp_path: Path) -> None:
    process = start("--home", str(tmp_path / "home"))
    process.wait_for_socket()
    _call(process.path, calls.CREATE, {"ID": "a"})
    with Wire(process.path) as wire:
        wire.send(stream_head(calls.APPLY_DIFF + "?id=a&parent=") + chunk(b"x"))
        time.sleep(0.3)
        began = time.monotonic()
        process.end()
        assert time.monotonic() - began < 3
    assert process.process.returncode == 0


def test_a_killed_service_can_be_started_again_and_knows_its_home(
    start: Any, tmp_path: Path
) -> None:
    first = start()
    first.wait_for_socket()
    _call(first.path, calls.INIT, {"Home": str(tmp_path / "home")})
    _call(first.path, calls.CREATE, {"ID": "a"})
    first.end(signal.SIGKILL)
    assert os.path.exists(first.path), "a stale socket"
    second = start()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert _call(second.path, calls.EXISTS, {"ID": "a"}) == {"Exists": True}
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert "removing the stale socket" in second.end()


def test_a_second_service_on_the_same_socket_gives_up(start: Any) -> None:
    first = start()
    first.wait_for_socket()
    second = start()
    _, log = second.process.communicate(timeout=120)
    assert second.process.returncode == 1
    assert log.splitlines()[-1] == (
        f"manuka: another process is listening on {first.path}: pid {first.process.pid}"
    )
    _call(first.path, calls.ACTIVATE)


def test_a_service_with_a_home_serves_without_an_engine(start: Any, tmp_path: Path) -> None:
    process = start("--home", str(tmp_path / "home"), "--storage-opt", "a=b")
    process.wait_for_socket()
    status = _call(process.path, calls.STATUS, {})
    assert status == {"Status": [["Kept in", str(tmp_path / "home")]]}
    record = json.loads((tmp_path / "run" / "init.json").read_text())
    assert record["Opts"] == ["a=b"]


def test_a_home_that_the_driver_refuses_ends_the_service_with_its_words(
    start: Any, tmp_path: Path
) -> None:
    process = start("--home", str(tmp_path / "home"), "--storage-opt", "folder.broken=yes")
    _, log = process.process.communicate(timeout=120)
    assert process.process.returncode == 1
    assert log == "manuka: folder.broken is set, so there is no driver\n"
    assert not os.path.exists(process.path)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_what_a_driver_makes_without_a_thought_is_open_to_readers_alone(
    start: Any, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        process = start("--home", str(tmp_path / "home"))
    finally:
        os.umask(before)
    process.wait_for_socket()
    _call(process.path, calls.EXISTS, {"ID": "a"})
    with open(f"/proc/{process.process.pid}/status") as file:
        (umask,) = [line for line in file if line.startswith("Umask")]
    assert umask.split()[1] == "0022"


def test_a_socket_of_systemd_is_served_and_outlives_the_service(start: Any, tmp_path: Path) -> None:
    path = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(10)
        with Wire(str(path)) as early:  # before the service runs
            early.send(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")
            process = start(stdin=listening.fileno())
            assert early.reply().json == {"Implements": ["GraphDriver"]}
        process.end()
        assert process.process.returncode == 0
        assert path.exists()
        assert not os.path.exists(process.path)
        with Wire(str(path)) as between:  # the service is down; systemd's socket takes the call
            between.send(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")
            start(stdin=listening.fileno())
            assert between.reply().json == {"Implements": ["GraphDriver"]}


def test_systemd_is_told_of_the_start_of_life_and_of_the_end(start: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(120)
        process = start(
            environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        )
        assert manager.recv(100) == b"READY=1"
        _call(process.path, calls.ACTIVATE)  # it listens
        began = time.monotonic()
        assert [manager.recv(100) for _ in range(6)] == [b"WATCHDOG=1"] * 6
        assert time.monotonic() - began < 1.2, "six signs of life within six limits"
        process.process.send_signal(signal.SIGTERM)
        message = manager.recv(100)
        while message == b"WATCHDOG=1":
            message = manager.recv(100)
        assert message == b"STOPPING=1"
        process.end()
