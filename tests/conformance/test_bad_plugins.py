"""Whatever is at the other end of the socket: the kit says so, goes on, and ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest

from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.overlay2 import Overlay2
from tests.conformance import fakes
from tests.conformance.runs import ROOT, Run, conform, needs_root, roomy_folder
from tests.unit.wire import accepts, running

pytestmark = needs_root

QUICK = ("--timeout", "2", "--group", "handshake")


def assert_is_told_in_words(run: Run) -> None:
    assert run.code == 1, run.said
    for word in ("Traceback", "INTERNALERROR", "internal error"):
        assert word not in run.said
    assert run.of("failed") or run.of("not run")


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (fakes.hangs, "plugin gone: "),
        (fakes.answers_html, "expected JSON, got '<html>"),
        (fakes.answers_half, "the reply breaks off"),
        (fakes.answers_endlessly, "no HTTP reply"),
        (fakes.is_no_http, "no HTTP reply"),
        (fakes.hangs_up, "hung up without a reply"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_socket_without_a_plugin_behind_it_is_told(talk: fakes.Talk, said: str) -> None:
    with fakes.fake(talk) as path:
        run = conform(path, *QUICK)
    assert_is_told_in_words(run)
    assert "plugin gone: " in run.said
    assert said in run.said


def test_a_plugin_that_drips_is_left_at_the_limit() -> None:
    with fakes.fake(fakes.drips) as path:
        run = conform(path, "--timeout", "2")
    assert_is_told_in_words(run)
    assert "plugin gone: it was not done after 1 s" in run.said


@pytest.mark.parametrize("talk", [fakes.answers_nonsense, fakes.agrees_to_everything],
                         ids=lambda talk: talk.__name__)  # fmt: skip
def test_a_plugin_of_nonsense_fails_check_by_check(talk: fakes.Talk) -> None:
    with fakes.fake(talk) as path:
        run = conform(path, "--timeout", "2", "--group", "handshake", "--group", "life")
    assert_is_told_in_words(run)
    assert "AttributeError" not in run.said
    assert "TypeError" not in run.said


def test_where_nobody_listens_the_kit_does_not_begin(tmp_path: Path) -> None:
    run = conform(tmp_path / "no.sock")
    assert (run.code, run.checks) == (1, [])
    assert run.said.endswith("start the plugin first\n")
    assert run.said.count("\n") == 1
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "stale.sock"))
    assert "nobody listens there" in conform(tmp_path / "stale.sock").said
    assert "nobody listens there" in conform(tmp_path).said


def test_connections_that_break_at_random_fail_some_checks_and_end_none() -> None:
    chance = random.Random(7)
    app = make_app(DriverInstance(Overlay2, None))

    def unreliable(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/Plugin.Activate" and chance.random() < 0.2:
            raise OSError("the connection breaks here")
        return app(environ, start_response)

    with running(unreliable) as plugin:
        run = conform(plugin.path, "--home", roomy_folder(), "--group", "life")
    assert "Traceback" not in run.said
    assert len(run.checks) > 30
    assert run.of("failed")
    assert run.of("passed")


def test_a_call_that_hangs_fails_its_check_and_the_kit_goes_on() -> None:
    app = make_app(DriverInstance(Overlay2, None))
    released = threading.Event()

    def hanging(environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/GraphDriver.GetMetadata":
            released.wait(60)
        return app(environ, start_response)

    with running(hanging) as plugin:
        run = conform(plugin.path, "--home", roomy_folder(), "--group", "handshake",
                      "--timeout", "3")  # fmt: skip
        released.set()
    assert run.of("failed") == ["a_request_needs_no_content_type", "unknown_fields_are_ignored"]
    assert "not done after 3 s" in run.said or "no reply" in run.said
    assert len(run.of("passed")) > 10


# --- plugins that die -----------------------------------------------------------------------------

DIES = """
import os, sys
sys.path[:0] = [{root!r}]
from manuka.overlay2 import Overlay2
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.server.run import serve
from manuka.server.sockets import listen

class Dies(Overlay2):
    def metadata(self, layer_id):
        os._exit(7)

serve(make_app(DriverInstance(Dies, None)), listen({socket!r}))
"""


def _start_plugin_that_dies(path: Path) -> subprocess.Popen[bytes]:
    code = DIES.format(root=str(ROOT), socket=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not accepts(str(path)):
        assert process.poll() is None
    return process


def test_after_a_plugin_died_the_rest_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "plugin.sock"
    process = _start_plugin_that_dies(path)
    try:
        run = conform(path, "--home", roomy_folder(), "--group", "handshake")
    finally:
        process.kill()
        process.wait()
    assert_is_told_in_words(run)
    assert run.of("failed") == ["a_request_needs_no_content_type"]
    assert "status_is_rows_of_strings" in run.of("not run")
    assert "plugin gone" in run.said


def test_a_plugin_that_died_is_started_again_if_the_kit_knows_how(tmp_path: Path) -> None:
    path, pids = tmp_path / "plugin.sock", tmp_path / "pids"
    process = _start_plugin_that_dies(path)
    code = tmp_path / "plugin.py"
    code.write_text(DIES.format(root=str(ROOT), socket=str(path)))
    restart = f"{sys.executable} {code} >/dev/null 2>&1 & echo $! >>{pids}"
    try:
        run = conform(path, "--home", roomy_folder(), "--group", "handshake", "--restart", restart)
    finally:
        process.kill()
        process.wait()
        _kill_all(pids)
    assert run.of("failed") == ["a_request_needs_no_content_type", "unknown_fields_are_ignored"]
    assert "status_is_rows_of_strings" in run.of("passed")
    assert not run.of("not run")


def test_a_restart_command_that_fails_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "plugin.sock"
    process = _start_plugin_that_dies(path)
    try:
        run = conform(path, "--home", roomy_folder(), "--group", "handshake",
                      "--restart", "echo no such unit; exit 5")  # fmt: skip
    finally:
        process.kill()
        process.wait()
    assert_is_told_in_words(run)
    assert "--restart: the command ended with 5: no such unit" in run.said


def _kill_all(pids: Path) -> None:
    for pid in pids.read_text().split() if pids.exists() else ():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_a_home_that_cannot_be_is_named(tmp_path: Path) -> None:
    said: List[str] = []
    with running(make_app(DriverInstance(Overlay2, None))) as plugin:
        run = conform(plugin.path, "--home", tmp_path / "none")
        said.append(run.said)
        assert run.code == 1
    assert said[0].startswith("manuka: --home: no folder can be made in")
