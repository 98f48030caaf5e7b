"""Remapped owners: root in a container is somebody else on the host."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER
from .images import SavedImage
from .steps import box, inspect, layer_mounts, load, merged, run, run_sleeping, shell

FIRST = 300_000


@pytest.fixture(scope="module")
def remapped(engine: str, workshop: str) -> Iterator[Sandbox]:
    ranges = f"nobody:{FIRST}:65536\n"
    with Sandbox(
        engine,
        DRIVER,
        data_dir=workshop,
        settings={"userns-remap": "nobody:nogroup"},
        files={"/etc/subuid": ranges, "/etc/subgid": ranges},
    ) as sandbox:
        load(sandbox, box())
        yield sandbox


def test_owners_are_the_images_inside_and_shifted_outside(remapped: Sandbox, name: str) -> None:
    run_sleeping(remapped, name)
    script = "stat -c '%u %g' /bin/busybox /srv/tree/a /srv; echo x > /srv/new; chown 5:6 /srv/new"
    assert shell(remapped, name, script) == "0 0\n1000 1000\n0 0\n"
    root = merged(remapped, name)
    owners = {
        path: (os.lstat(os.path.join(root, path)).st_uid, os.lstat(os.path.join(root, path)).st_gid)
        for path in ("", "bin/busybox", "srv/tree/a", "srv/new")
    }
    assert owners == {
        "": (FIRST, FIRST),
        "bin/busybox": (FIRST, FIRST),
        "srv/tree/a": (FIRST + 1000, FIRST + 1000),
        "srv/new": (FIRST + 5, FIRST + 6),
    }
    remapped.docker("rm", "-f", name)
    assert layer_mounts(remapped) == []


def test_the_drivers_folder_belongs_to_the_remapped_roots_group(remapped: Sandbox) -> None:
    status = os.stat(remapped.inside(remapped.home))
    assert status.st_mode & 0o7777 == 0o710
    assert status.st_gid == FIRST
    assert os.path.basename(os.path.dirname(remapped.home)) == f"{FIRST}.{FIRST}"


def test_a_commit_carries_the_owners_of_inside(remapped: Sandbox, name: str) -> None:
    script = "echo x > /srv/x; chown 77:88 /srv/x; rm /etc/motd"
    remapped.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", script)
    remapped.docker("commit", name, f"{name}:1")
    remapped.docker("rm", name)
    saved = SavedImage(remapped.docker("save", f"{name}:1").stdout)
    assert saved.diff_ids == inspect(remapped, f"{name}:1")["RootFS"]["Layers"]
    script = "stat -c '%u %g' /srv/x /srv; ls /etc/motd || :"
    assert run(remapped, f"{name}:1", script) == "77 88\n0 0\n"
    remapped.docker("rmi", f"{name}:1")


def test_a_saved_image_is_the_loaded_one_with_remapped_owners_too(remapped: Sandbox) -> None:
    saved = SavedImage(remapped.docker("save", "box:1").stdout)
    assert saved.id == box().id
    assert saved.layers == [layer.tar for layer in box().layers]


def test_copies_have_the_owners_of_inside(remapped: Sandbox, name: str) -> None:
    run_sleeping(remapped, name)
    remapped.docker("cp", f"{remapped.data}/daemon.json", f"{name}:/srv/copied")
    assert shell(remapped, name, "stat -c %u /srv/copied") == "0\n"
    assert remapped.docker("diff", name).stdout == b"C /srv\nA /srv/copied\n"
    remapped.docker("rm", "-f", name)
