"""`./lab up`, `shell` and `down` with a container for a machine, and what a machine goes through.

They run in a copy of this checkout, on the engine that `docker` reaches, in the order of the file.
`tests/vagrant` has the same for a virtual machine, `tests/unit/test_lab.py` what needs no machine.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest
from machines import ROOT

pytestmark = pytest.mark.machine

NAME = "manuka-lab"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300)
    return done.stdout.strip()


def state() -> str:
    return docker("container", "inspect", "--format", "{{.State.Status}}", NAME)


class Lab:
    """`./lab` in a copy of this checkout, which has the environment that these tests run in."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(".*"))
        shutil.copytree(ROOT / ".config", checkout / ".config")
        (checkout / ".venv-lab").symlink_to(sys.prefix)
        host = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        self._environment = {"DOCKER_HOST": host, **os.environ}

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["./lab", *words], cwd=self.checkout, env=self._environment, timeout=1800,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        print("$ ./lab", *words, "\n", done.stdout, done.stderr, flush=True)
        return done

    def expect_ok(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, done.stderr[-6000:]
        return done.stdout.strip()

    def on_manuka(self) -> bool:
        """Whether Docker on the machine is on manuka, once it has booted."""
        wait = "until docker info >/dev/null 2>&1; do sleep 1; done"
        self.call("shell", "timeout", "300", "sh", "-c", wait)
        return self.expect_ok("shell", "docker", "info", "--format", "{{.Driver}}") == "manuka"


@pytest.fixture(scope="module")
def lab(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if state():
        pytest.fail(f"There is a container {NAME}: ./lab down in the checkout that made it.")
    made = Lab(tmp_path_factory.mktemp("checkout") / "manuka")
    yield made
    made.call("down")


def test_without_a_machine_shell_says_how_to_make_one(lab) -> None:
    done = lab.call("shell", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("lab: There is no machine here")
    assert "./lab up makes one" in done.stderr


def test_up_makes_a_machine_and_shows_a_container_on_manuka(lab) -> None:
    said = lab.expect_ok("up")
    assert "storage driver manuka" in said
    assert "Hello from a container" in said


def test_a_machine_that_reboots_comes_back_by_itself(lab) -> None:
    since = str(time.time())
    lab.call("shell", "sh", "-c", "echo kept >/root/note; systemctl reboot")
    with subprocess.Popen(
        ["docker", "events", "--since", since, "--filter", f"container={NAME}",
         "--filter", "event=start", "--format", "{{.Action}}"],
        stdout=subprocess.PIPE, text=True,
    ) as events:  # fmt: skip
        assert events.stdout is not None
        assert select.select([events.stdout], [], [], 300)[0], "it does not come back"
        events.kill()
    assert lab.on_manuka()
    assert lab.expect_ok("shell", "cat", "/root/note") == "kept"


def test_shell_says_that_the_machine_is_off_and_how_to_start_it(lab) -> None:
    lab.call("shell", "systemctl", "poweroff")
    docker("container", "wait", NAME)
    for words in ([], ["true"], ["sh", "-c", "true"]):
        done = lab.call("shell", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "lab: The machine is off (exited): ./lab up starts it.\n"


def test_up_starts_the_machine_with_what_is_on_it(lab) -> None:
    lab.expect_ok("up")
    assert lab.on_manuka()
    assert lab.expect_ok("shell", "cat", "/root/note") == "kept"


def test_a_machine_that_is_paused_counts_as_off(lab) -> None:
    docker("container", "pause", NAME)
    done = lab.call("shell", "true")
    assert done.stderr == "lab: The machine is off (paused): ./lab up starts it.\n"


def test_clean_refuses_while_there_is_a_machine(lab) -> None:
    done = lab.call("clean")
    assert done.returncode == 1
    assert "./lab down removes it" in done.stderr
    assert (lab.checkout / ".venv-lab").is_symlink()
    assert state() == "paused"


def test_down_removes_the_machine_and_keeps_what_was_built(lab) -> None:
    lab.expect_ok("down")
    assert state() == ""
    assert (
        docker(
            "container", "ls", "--all", "--quiet", "--filter", f"label=manuka.lab={lab.checkout}"
        )
        == ""
    )
    assert (lab.checkout / ".venv-lab").is_symlink()
    assert docker("image", "ls", "--quiet", "manuka-machine:bookworm") != ""
