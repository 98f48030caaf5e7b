"""The project that ``manuka new`` makes: its driver runs containers, and passes the kit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.new.project import make_project
from tests.processes import Marked

from .conftest import DRIVER
from .images import busybox

pytestmark = pytest.mark.skipif(
    DRIVER != "manuka", reason="this is a driver of its own, whichever is under test"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(make_project("blue-store", str(tmp_path)))


def test_a_new_driver_runs_containers(project: Path, engine: str, workshop: str) -> None:
    (project / "box.tar").write_bytes(busybox().tar)
    script = """
        docker import box.tar box >&2
        docker run --network none --name one box sh -c 'echo hello > /srv/file; rm /bin/vi'
        docker diff one
        docker commit one box:2 >&2
        docker run --rm --network none box:2 cat /srv/file
        docker info --format '{{range .DriverStatus}}{{index . 0}}{{end}}'
    """
    command = [sys.executable, "-m", "manuka", "sandbox", "--engine", engine]
    command += ["--data-dir", workshop, "--driver", "blue_store:BlueStore", "--", "sh", "-ec"]
    done = subprocess.run(
        [*command, script],
        cwd=str(project),
        env=with_this_package(os.environ),
        stdout=subprocess.PIPE,
        timeout=240,
    )
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        *("C /bin", "D /bin/vi", "C /srv", "A /srv/file", "hello"),
        "Backing Filesystem",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="the kit needs root")
@pytest.mark.timeout(900)
def test_a_new_drivers_own_tests_pass(project: Path) -> None:
    all_of_it = Marked()  # its tests start a plugin, which must not outlive a timeout
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=str(project),
            env=all_of_it.environment(with_this_package(os.environ)),
            stdout=subprocess.PIPE,
            timeout=840,
        )
    finally:
        all_of_it.end()
    assert done.returncode == 0, done.stdout.decode()[-5000:]
    assert b"7 passed" in done.stdout
