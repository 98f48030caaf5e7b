"""A run that a signal ends: it says what it has not tried, tidies up, and is no success."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import threading
import xml.etree.ElementTree
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from manuka.api import calls
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.overlay2 import Overlay2
from tests.conformance.runs import command, environment, needs_root
from tests.unit.wire import running

pytestmark = needs_root

_LIMIT = 120


class Stuck:
    """An application whose calls of one kind wait: `asked` is set when one has come."""

    def __init__(self, call: str, armed: bool = True) -> None:
        self.asked, self.armed, self._released = threading.Event(), armed, threading.Event()
        self._app = make_app(DriverInstance(Overlay2, None))
        self._call = call

    def __call__(self, environ: Dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == self._call and self.armed:
            self.asked.set()
            self._released.wait(_LIMIT)
        return self._app(environ, start_response)

    def release(self) -> None:
        self._released.set()


@contextlib.contextmanager
def run(app: Any, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the kit on a plugin with this application, under way."""
    with running(app) as plugin:
        process = subprocess.Popen(
            command(plugin.path, *arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            app.release()
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_many_checks_it_did_not_try(
    tmp_path: Path, number: signal.Signals
) -> None:
    home, report, junit = tmp_path / "home", tmp_path / "r.json", tmp_path / "r.xml"
    home.mkdir()
    stuck = Stuck(calls.GET_METADATA)
    reports = ("--json", report, "--junit-xml", junit)
    with run(stuck, "--home", home, "--group", "life", "--group", "ids", *reports) as process:
        assert stuck.asked.wait(_LIMIT)
        process.send_signal(number)
        said = process.communicate(timeout=_LIMIT)[0].decode()
    assert process.returncode == 128 + number, said
    verdict = said.splitlines()[-1]
    found = re.fullmatch(
        rf"interrupted by {number.name}: (\d+) of (\d+) checks were run, (\d+) were not, "
        "so there is no verdict",
        verdict,
    )
    assert found, said
    done, chosen, left = map(int, found.groups())
    assert done > 30
    assert left > 30
    assert done + left == chosen
    assert "all that an engine needs is there" not in said
    assert "Traceback" not in said
    assert "full-trace" not in said
    told = json.loads(report.read_text())
    assert told["interrupted"] == number.name
    assert told["verdict"] == verdict
    assert told["totals"]["not run"] == left
    assert len(told["checks"]) == chosen
    suite = xml.etree.ElementTree.parse(str(junit)).getroot().find("testsuite")
    assert suite is not None
    assert (suite.attrib["tests"], suite.attrib["errors"]) == (str(chosen), str(left))
    properties = {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")}
    assert properties["interrupted"] == number.name
    assert properties["verdict"] == verdict
    assert list(home.iterdir()) == [], "the driver's home is left behind"


def test_a_failure_before_the_interruption_is_told_too(tmp_path: Path) -> None:
    class Forgetful(Stuck):
        def __call__(self, environ: Dict[str, Any], start_response: Any) -> Any:
            if environ["PATH_INFO"] == calls.EXISTS:
                body = b'{"Exists": true}'
                start_response("200 OK", [("Content-Length", str(len(body)))])
                return [body]
            return super().__call__(environ, start_response)

    stuck = Forgetful(calls.GET_METADATA)
    with run(stuck, "--home", tmp_path, "--group", "life") as process:
        assert stuck.asked.wait(_LIMIT)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=_LIMIT)[0].decode()
    assert process.returncode == 130
    assert "FAILED life: exists tells what there is" in said
    assert re.search(r"no verdict; \d+ checks of what an engine needs failed\n$", said)


def test_a_second_signal_ends_tidying_up_as_well(tmp_path: Path) -> None:
    stuck = Stuck(calls.REMOVE)
    with run(stuck, "--home", tmp_path, "--group", "life") as process:
        assert stuck.asked.wait(_LIMIT)  # by the first check, which tidies up behind itself
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=_LIMIT)[0].decode()
    assert process.returncode in (130, 143), said
    assert "so there is no verdict" in said
