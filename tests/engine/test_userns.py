"""Remapped owners: root in a container is somebody else on the host."""

from __future__ import annotations

import os
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER
from .images import Image, Layer, SavedImage, capability, entries
from .steps import box, inspect, layer_mounts, load, merged, run, run_sleeping, shell

FIRST = 300_000


@pytest.fixture(scope="module")
def remapped(engine: str, workshop: str) -> Iterator[Sandbox]:
    ranges = f"nobody:{FIRST}:65536\n"
    # Engines of 18.09 look up the group's name in /etc/subgid, later ones the user's.
    group_ranges = f"{ranges}nogroup:{FIRST}:65536\n"
    with Sandbox(
        engine,
        DRIVER,
        data_dir=workshop,
        settings={"userns-remap": "nobody:nogroup"},
        files={"/etc/subuid": ranges, "/etc/subgid": group_ranges},
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


@pytest.mark.parametrize("owner", [65_673, 718_322_462, 3_000_000_000])
def test_an_owner_that_no_range_holds_is_an_error_with_path_owner_and_cure(
    remapped: Sandbox, owner: int
) -> None:
    image = Image("foreign:1", Layer().file("srv/theirs", b"x", owner=(owner, 0)))
    done = remapped.docker("load", input=image.archive(), check=False)
    said = (done.stdout + done.stderr).decode()
    assert "srv/theirs" in said
    assert f"id {owner} cannot be mapped to a host id" in said
    assert "/etc/subuid" in said


def test_deletions_and_folders_made_anew_are_as_without_a_range(
    remapped: Sandbox, name: str
) -> None:
    below = Layer().folder("d", owner=(9, 9)).file("d/a", owner=(9, 9)).file("gone").file("k")
    above = Layer().folder("d", 0o750, owner=(9, 9)).opaque("d").file("d/n").whiteout("gone")
    image = Image(f"{name}:1", *box().layers).add(below).add(above)
    load(remapped, image)
    script = "ls -a d; ls gone 2>&- || echo gone; stat -c '%a %u:%g' d"
    assert run(remapped, image.tag, script) == ".\n..\nn\ngone\n750 9:9\n"
    run_sleeping(remapped, name, image=image.tag)
    shell(remapped, name, "rm -r /d; mkdir /d; chown 7:8 /d; rm /k; ln /srv/tree/a /link")
    listed = remapped.docker("diff", name).stdout.decode().splitlines()
    assert sorted(listed) == ["A /link", "C /d", "D /d/n", "D /k"]
    remapped.docker("commit", name, f"{name}:2")
    script = "ls d; stat -c '%a %u:%g' d; ls k 2>&- || echo gone; stat -c %h /link"
    assert run(remapped, f"{name}:2", script) == "755 7:8\ngone\n2\n"
    remapped.docker("rm", "-f", name)
    remapped.docker("rmi", f"{name}:1", f"{name}:2")


def test_a_capability_set_in_a_container_is_an_images_and_not_the_ranges(
    remapped: Sandbox, name: str
) -> None:
    """The kernel notes which root set it; a layer must not, or it would hold for that one alone."""
    run_sleeping(remapped, name)
    program = os.path.join(merged(remapped, name), "bin/busybox")
    value = capability(13)
    noted = bytes([1, 0, 0, 3]) + value[4:] + FIRST.to_bytes(4, "little")
    os.setxattr(program, "security.capability", noted)
    remapped.docker("commit", name, f"{name}:1")
    (layer,) = SavedImage(remapped.docker("save", f"{name}:1").stdout).layers[-1:]
    (entry,) = [entry for entry in entries(layer) if entry.name == "bin/busybox"]
    found = entry.pax_headers["SCHILY.xattr.security.capability"]
    assert found.encode("utf-8", "surrogateescape") == value
    remapped.docker("rm", "-f", name)
    remapped.docker("rmi", f"{name}:1")
