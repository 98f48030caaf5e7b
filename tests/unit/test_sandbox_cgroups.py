"""Hierarchies of control groups that are listed and not mounted, made for real.

A hierarchy of v1 lives on without a mount while a control group is in it; each test has its own,
with a name and no controller, so that nothing else on the machine is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Iterator

import pytest

from manuka.toolkit import cgroups
from manuka.toolkit.namespace import Namespace, with_this_package

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_WITH_ALL_MOUNTED = """
import os, sys
from manuka.linux.mount import MS_PRIVATE, MS_REC, mount
from manuka.toolkit import cgroups
from manuka.toolkit.unshare import CLONE_NEWNS, unshare
unshare(CLONE_NEWNS)
mount("none", "/", "", MS_REC | MS_PRIVATE)
cgroups.mount_all()
"""


def _run(script: str, *arguments: str) -> str:
    """What a Python script prints that has every hierarchy mounted, in a mount namespace."""
    done = subprocess.run(
        [sys.executable, "-c", _WITH_ALL_MOUNTED + script, *arguments],
        env=with_this_package(os.environ),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return done.stdout.decode()


def _in_hierarchy(name: str, folder: Path, script: str) -> None:
    """Run a shell script in the top of a hierarchy that is mounted for it alone."""
    words = 'mount -t cgroup -o "none,name=$1" none "$0" && cd "$0" && eval "$2"'
    subprocess.run(
        ["unshare", "--mount", "sh", "-ec", words, str(folder), name, script],
        check=True,
        timeout=60,
    )


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[str]:
    """The name of a hierarchy that is listed and mounted nowhere."""
    name = "manuka" + uuid.uuid4().hex[:8]
    folder = tmp_path / "hierarchy"
    folder.mkdir()
    try:
        _in_hierarchy(name, folder, "mkdir hold")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no control groups of v1")
    yield name
    deadline = time.monotonic() + 60
    while f"name={name}" in cgroups.listed():  # the kernel lets go of it a moment after its end
        assert time.monotonic() < deadline
        _in_hierarchy(name, folder, "find . -mindepth 1 -depth -type d -exec rmdir {} +")
        time.sleep(0.2)


def test_a_hierarchy_without_a_mount_is_told_from_those_with_one(hierarchy: str) -> None:
    assert f"name={hierarchy}" in cgroups.unmounted()
    seen = _run(f"print(cgroups.unmounted(), 'name={hierarchy}' in cgroups.listed())")
    assert seen == "[] True\n"


def test_every_listed_hierarchy_is_mounted_by_the_name_that_engines_look_for(
    hierarchy: str,
) -> None:
    found = _run("print(*os.listdir(cgroups.FOLDER))").split()
    for one in cgroups.listed():
        names = [
            one.partition("=")[2] or one or "unified",
            *one.partition("=")[2 if "=" in one else 0].split(","),
        ]
        assert set(filter(None, names)) <= set(found)
    assert "hold" in _run(f"print(*os.listdir(cgroups.FOLDER + '/{hierarchy}'))").split()
    assert f"name={hierarchy}" in cgroups.unmounted(), "only that namespace has seen it"


def test_control_groups_are_removed_where_nothing_is_mounted(hierarchy: str) -> None:
    name = "manuka-sandbox-" + hierarchy
    _run(f"os.makedirs(cgroups.FOLDER + '/{hierarchy}/{name}/inner')")
    cgroups.remove(name)
    found = _run(f"print(*os.listdir(cgroups.FOLDER + '/{hierarchy}'))").split()
    assert "hold" in found
    assert name not in found


def test_a_namespace_has_them_mounted_when_asked(hierarchy: str, tmp_path: Path) -> None:
    for wished in (False, True):
        namespace = Namespace(str(tmp_path), cgroups=wished)
        try:
            point = f"{cgroups.FOLDER}/{hierarchy}"
            assert (point in [one.mount_point for one in namespace.mounts()]) == wished
            if wished:
                made = f"{point}/{namespace.name}"
                child = namespace.spawn(["mkdir", "-p", f"{made}/inner"])
                assert child.wait(60) == 0
        finally:
            namespace.close()
    found = _run(f"print(*os.listdir(cgroups.FOLDER + '/{hierarchy}'))")
    assert "manuka-sandbox-" not in found
