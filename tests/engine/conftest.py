"""Engines, sandboxes and images for the tests on a real Docker engine with the real plugin.

Every test runs once for each engine in ``MANUKA_ENGINES`` (paths of dockerd, separated by blanks
or colons; by default the one on the PATH).  ``MANUKA_ENGINE_DRIVER`` is the driver under test,
``manuka`` by default: with ``overlay2`` the same tests say what the engine's own driver does.

`sandbox` and `native` are started once for an engine, for tests that leave them as they were;
a test that stops or kills something makes its own by `make_sandbox`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import time
import uuid
from typing import Any, Callable, Iterator

import pytest

from manuka.linux.mountinfo import mounts
from manuka.toolkit import engine as engines
from manuka.toolkit.sandbox import Sandbox, SandboxError
from tests.processes import commands_with

from . import registry as registries
from .steps import box, load, run_sleeping

DRIVER = os.environ.get("MANUKA_ENGINE_DRIVER", "manuka")

MakeSandbox = Callable[..., Sandbox]


def _engines() -> list[str]:
    named = re.split(r"[\s:]+", os.environ.get("MANUKA_ENGINES", "").strip())
    return [path for path in named if path] or [shutil.which("dockerd") or "dockerd"]


@pytest.fixture(scope="session", params=_engines())
def engine(request: pytest.FixtureRequest) -> str:
    """The path of the dockerd to test on."""
    return _checked(request.param)


@pytest.fixture(scope="session")
def first_engine() -> str:
    """The same for a test that one engine is enough for."""
    return _checked(_engines()[0])


def _checked(path: str) -> str:
    try:
        if os.geteuid() != 0:
            raise SandboxError("tests on an engine need root")
        engines.check(engines.find(path), DRIVER)
    except SandboxError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="session")
def workshop() -> Iterator[str]:
    """The folder of all sandboxes; nothing of any may be left at the end."""
    before = traces()
    folder = tempfile.mkdtemp(prefix="me-", dir=os.environ.get("MANUKA_ENGINE_DATA", "/var/tmp"))
    os.chmod(folder, 0o711)
    yield folder
    assert os.listdir(folder) == [], "sandboxes have left data"
    os.rmdir(folder)
    assert commands_with(folder) == [], "sandboxes have left processes"
    assert [m.mount_point for m in mounts() if folder in m.mount_point] == []
    assert_no_trace_stays(before)


def assert_no_trace_stays(before: set[str]) -> None:
    """What sandboxes have left stays; what another's leaves for a moment, at its end, does not."""
    left = traces() - before
    deadline = time.monotonic() + 60
    while left:
        assert time.monotonic() < deadline, f"sandboxes have left {left}"
        time.sleep(0.1)
        left &= traces()


def traces() -> set[str]:
    """What is on the host that a sandbox could have left, without those that run right now."""
    found = {path for path in ("/run/docker/plugins/manuka.sock",) if os.path.exists(path)}
    for folder in glob.glob("/sys/fs/cgroup/*/manuka-sandbox-*"):
        if not commands_with(os.path.basename(folder)):
            found.add(folder)
    return found


@pytest.fixture(scope="session")
def sandbox(engine: str, workshop: str) -> Iterator[Sandbox]:
    """The driver under test, with the image ``box``; a test removes what it makes there."""
    with Sandbox(engine, DRIVER, data_dir=workshop) as made:
        load(made, box())
        yield made


@pytest.fixture(scope="session")
def native(engine: str, workshop: str) -> Iterator[Sandbox]:
    """The engine's own overlay2, to compare with."""
    with Sandbox(engine, "overlay2", data_dir=workshop) as made:
        load(made, box())
        yield made


@pytest.fixture(scope="session")
def registry(workshop: str) -> Iterator[str]:
    """The address of a registry."""
    program = registries.find()
    if program is None:
        pytest.skip("no registry: apt-get install docker-registry")
    with registries.registry(program, os.path.join(workshop, "registry")) as address:
        yield address


@pytest.fixture
def make_sandbox(engine: str, workshop: str) -> Iterator[MakeSandbox]:
    """Make a sandbox of one's own, with the image ``box``; arguments as for `Sandbox`."""
    with contextlib.ExitStack() as stack:

        def make(**arguments: Any) -> Sandbox:
            arguments.setdefault("driver", DRIVER)
            made = stack.enter_context(Sandbox(engine, data_dir=workshop, **arguments))
            load(made, box())
            return made

        yield make


@pytest.fixture
def name() -> str:
    """A name that no container, image or volume has."""
    return "t" + uuid.uuid4().hex[:8]


@pytest.fixture
def container(sandbox: Sandbox, name: str) -> Iterator[str]:
    """A container of ``box`` that sleeps, by its name."""
    run_sleeping(sandbox, name)
    yield name
    sandbox.docker("rm", "-f", name)
