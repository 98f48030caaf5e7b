"""Containers: run, write, diff, cp, inspect, size, rm, volumes, many at once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from typing import Iterator

import pytest

from manuka.toolkit.sandbox import Sandbox

from .images import Image, Layer, entries
from .steps import (
    assert_soon,
    inspect,
    layer_folders,
    layer_mounts,
    merged,
    run,
    run_sleeping,
    shell,
)


@pytest.fixture(autouse=True)
def _nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    folders, mounts = layer_folders(sandbox), layer_mounts(sandbox)
    yield
    sandbox.docker("container", "prune", "-f")
    assert_soon(sandbox, folders, mounts)


def diff(sandbox: Sandbox, container: str) -> list[str]:
    """What ``docker diff`` says, sorted by path."""
    lines = sandbox.docker("diff", container).stdout.decode().splitlines()
    return sorted(lines, key=lambda line: line[2:])


def test_a_container_prints_and_its_status_comes_back(sandbox: Sandbox) -> None:
    assert run(sandbox, "box:1", "cat /etc/motd") == "welcome\n"
    done = sandbox.docker(
        "run", "--rm", "--network", "none", "box:1", "sh", "-c", "exit 9", check=False
    )
    assert done.returncode == 9


def test_what_is_written_stays_over_stop_and_start(sandbox: Sandbox, container: str) -> None:
    shell(sandbox, container, "echo kept > /srv/kept; rm /etc/motd; mkdir -m 0700 /srv/private")
    sandbox.docker("stop", "-t", "0", container)
    assert not os.path.exists(merged(sandbox, container))
    sandbox.docker("start", container)
    output = shell(sandbox, container, "cat /srv/kept; stat -c %a /srv/private; ls /etc/motd || :")
    assert output == "kept\n700\n"


def test_containers_of_one_image_do_not_see_each_other(
    sandbox: Sandbox, container: str, name: str
) -> None:
    shell(sandbox, container, "echo mine > /etc/motd")
    assert run(sandbox, "box:1", "cat /etc/motd") == "welcome\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", []),
        ("echo x > /srv/x", ["C /srv", "A /srv/x"]),
        ("mkdir -p /n/o; echo x > /n/o/p", ["A /n", "A /n/o", "A /n/o/p"]),
        ("echo more >> /etc/motd", ["C /etc", "C /etc/motd"]),
        ("chmod 600 /etc/motd", ["C /etc", "C /etc/motd"]),
        ("chown 9:9 /srv/tree/b", ["C /srv", "C /srv/tree", "C /srv/tree/b"]),
        ("rm /etc/motd", ["C /etc", "D /etc/motd"]),
        ("rm -r /srv/tree", ["C /srv", "D /srv/tree"]),
        ("rm -r /srv/tree; mkdir /srv/tree; echo > /srv/tree/new", None),
        ("mv /etc/motd /etc/moved", ["C /etc", "D /etc/motd", "A /etc/moved"]),
        ("echo x > /srv/x; rm /srv/x", []),
        ("mkfifo /srv/f; ln -s a /srv/l", ["C /srv", "A /srv/f", "A /srv/l"]),
    ],
)
def test_diff_lists_exactly_what_changed(
    sandbox: Sandbox, native: Sandbox, name: str, script: str, expected: list[str] | None
) -> None:
    """Without an expected list, the one of the engine's own overlay2 counts."""
    listings = []
    for engine in (sandbox, native):
        engine.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", script)
        listings.append(diff(engine, name))
        engine.docker("rm", name)
    assert listings[0] == listings[1]
    if expected is not None:
        assert listings[0] == expected


def test_diff_of_a_running_container_is_of_this_moment(sandbox: Sandbox, container: str) -> None:
    assert diff(sandbox, container) == []
    shell(sandbox, container, "echo > /srv/x")
    assert diff(sandbox, container) == ["C /srv", "A /srv/x"]
    shell(sandbox, container, "mv /srv/x /srv/y")
    assert diff(sandbox, container) == ["C /srv", "A /srv/y"]


@pytest.mark.parametrize("running", [True, False])
def test_cp_takes_files_in_and_out(
    sandbox: Sandbox, container: str, workshop: str, running: bool
) -> None:
    if not running:
        sandbox.docker("stop", "-t", "0", container)
    incoming = Layer().folder("in", 0o750, owner=(3, 4)).file("in/f", b"data\n", 0o604).tar
    sandbox.docker("cp", "-a", "-", f"{container}:/srv", input=incoming)
    outgoing = sandbox.docker("cp", f"{container}:/srv/in", "-").stdout
    found = {entry.name.rstrip("/"): entry for entry in entries(outgoing)}
    assert set(found) == {"in", "in/f"}
    assert (found["in"].mode & 0o7777, found["in"].uid, found["in"].gid) == (0o750, 3, 4)
    assert (found["in/f"].mode & 0o7777, found["in/f"].size) == (0o604, 5)
    tree = list(entries(sandbox.docker("cp", f"{container}:/srv/tree", "-").stdout))
    assert {entry.name.rstrip("/") for entry in tree} == {
        *("tree", "tree/a", "tree/b", "tree/b2", "tree/link")
    }
    if running:
        assert shell(sandbox, container, "cat /srv/in/f") == "data\n"


def test_cp_out_of_a_container_that_never_started(sandbox: Sandbox, name: str) -> None:
    sandbox.docker("create", "--name", name, "box:1", "true")
    out = sandbox.docker("cp", f"{name}:/etc/motd", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        file = tar.extractfile("motd")
        assert file is not None
        assert file.read() == b"welcome\n"
    sandbox.docker("rm", name)


def test_inspect_shows_the_folders_of_the_layers(sandbox: Sandbox, container: str) -> None:
    shell(sandbox, container, "echo x > /srv/x")
    driver = inspect(sandbox, container)["GraphDriver"]
    assert driver["Name"] == sandbox.driver
    data = driver["Data"]
    assert set(data) >= {"LowerDir", "UpperDir", "MergedDir", "WorkDir"}
    with open(sandbox.inside(os.path.join(data["UpperDir"], "srv/x"))) as file:
        assert file.read() == "x\n"
    lower = data["LowerDir"].split(":")
    assert len(lower) == 3, "the engine's own layer, and the two of the image"
    assert all(os.path.isdir(sandbox.inside(path)) for path in lower)
    with open(sandbox.inside(os.path.join(lower[1], "etc/motd"))) as file:
        assert file.read() == "welcome\n"
    assert data["MergedDir"] in layer_mounts(sandbox)
    image = inspect(sandbox, "box:1")["GraphDriver"]
    assert image["Name"] == sandbox.driver
    assert image["Data"]["UpperDir"] == lower[1]


def test_info_names_the_driver_and_what_lies_below(sandbox: Sandbox) -> None:
    info = sandbox.engine.request("GET", "/info")
    assert info["Driver"] == sandbox.driver
    status = dict(info["DriverStatus"])
    assert status["Supports d_type"] == "true"
    assert status["Native Overlay Diff"] == "true"
    assert status["Backing Filesystem"] in ("extfs", "xfs", "btrfs", "tmpfs")


def test_a_mounted_layer_is_a_real_overlay_below_the_drivers_folder(
    sandbox: Sandbox, container: str
) -> None:
    root = merged(sandbox, container)
    mounts = [m for m in sandbox.mounts() if sandbox.inside(m.mount_point) == root]
    assert [mount.fstype for mount in mounts] == ["overlay"]
    assert mounts[0].mount_point.startswith(sandbox.home + "/")
    assert os.path.isfile(os.path.join(root, "bin/busybox"))


def test_the_size_of_a_container_is_that_of_what_it_wrote(sandbox: Sandbox, name: str) -> None:
    script = "head -c 5000 /dev/zero > /srv/z; ln /srv/z /srv/hard; echo more >> /etc/motd"
    sandbox.docker("run", "--network", "none", "--name", name, "box:1", "sh", "-ec", script)
    filters = json.dumps({"name": [name]})
    (listed,) = sandbox.engine.request(
        "GET", f"/containers/json?all=1&size=1&filters={filters}".replace(" ", "")
    )
    assert listed["SizeRw"] == 5000 + len("welcome\nmore\n")
    assert listed["SizeRootFs"] == inspect(sandbox, "box:1")["Size"] + listed["SizeRw"]
    assert name in sandbox.docker("ps", "-a", "-s").stdout.decode()
    sandbox.docker("rm", name)


def test_system_df_knows_every_container_and_image(sandbox: Sandbox, container: str) -> None:
    shell(sandbox, container, "head -c 777 /dev/zero > /srv/z")
    found = sandbox.engine.request("GET", "/system/df")
    (listed,) = (c for c in found["Containers"] if c["Names"] == ["/" + container])
    assert listed["SizeRw"] == 777
    assert found["LayersSize"] == inspect(sandbox, "box:1")["Size"]


def test_rm_takes_the_containers_layers_away(sandbox: Sandbox, name: str) -> None:
    before = layer_folders(sandbox)
    run_sleeping(sandbox, name)
    added = layer_folders(sandbox) - before
    assert len(added) == 2
    assert {folder.endswith("-init") for folder in added} == {True, False}
    sandbox.docker("rm", "-f", name)
    assert layer_folders(sandbox) == before


def test_rm_copes_with_files_that_resist(sandbox: Sandbox, name: str) -> None:
    deep = "d=/srv; for i in $(seq 60); do d=$d/0123456789; mkdir $d; done; touch $d/f"
    odd = "mkdir -m 0 /srv/locked; touch /srv/locked/f /srv/-rf '/srv/a\nb'; chmod 0 /srv"
    run_sleeping(sandbox, name)
    shell(sandbox, name, f"{deep}; {odd}")
    sandbox.docker("rm", "-f", name)


def test_a_new_volume_takes_over_the_images_content(sandbox: Sandbox, name: str) -> None:
    script = "cd /srv/tree; ls; stat -c '%n %a %u %g' . a; echo x > added"
    first = run(sandbox, "box:1", script, "-v", f"{name}:/srv/tree")
    assert first == "a\nb\nb2\nlink\n. 750 1000 1000\na 640 1000 1000\n"
    assert "added" in run(sandbox, "box:1", "ls /srv/tree", "-v", f"{name}:/srv/tree")
    assert "added" not in run(sandbox, "box:1", "ls /srv/tree")
    sandbox.docker("volume", "rm", name)


def test_a_user_of_the_image_is_looked_up_in_its_passwd(sandbox: Sandbox) -> None:
    output = run(sandbox, "box:1", "id -u; id -g; cat /srv/tree/a | wc -c", "--user", "ann")
    assert output == "1000\n1000\n1000\n"


def test_a_read_only_container_writes_only_into_its_tmpfs(sandbox: Sandbox) -> None:
    script = "echo x > /tmp/x; cat /tmp/x; if echo > /srv/x; then echo written; fi 2>/dev/null"
    assert run(sandbox, "box:1", script, "--read-only", "--tmpfs", "/tmp") == "x\n"


def test_a_working_folder_is_made_in_the_layer(sandbox: Sandbox, name: str) -> None:
    sandbox.docker("create", "--name", name, "-w", "/work/here", "box:1", "true")
    assert "A /work/here" in diff(sandbox, name)
    sandbox.docker("rm", name)


def test_sixteen_containers_at_once(sandbox: Sandbox, name: str) -> None:
    names = [f"{name}x{number}" for number in range(16)]
    script = "echo $0 > /srv/me; cat /srv/me; sleep 1; exec sleep 1000000"
    starts = [
        sandbox.spawn(
            [
                *("docker", "run", "-d", "--network", "none", "--name", one),
                *("box:1", "sh", "-ec", script, one),
            ],
            stdout=subprocess.DEVNULL,
        )
        for one in names
    ]
    assert [start.wait(120) for start in starts] == [0] * 16
    assert len(layer_mounts(sandbox)) == 16
    for one in names:
        assert shell(sandbox, one, "cat /srv/me") == one + "\n"
    ends = [sandbox.spawn(["docker", "rm", "-f", one], stdout=subprocess.DEVNULL) for one in names]
    assert [end.wait(120) for end in ends] == [0] * 16


def test_many_readers_of_one_container_leave_one_mount(sandbox: Sandbox, container: str) -> None:
    copies = [
        sandbox.spawn(["docker", "cp", f"{container}:/bin", "-"], stdout=subprocess.DEVNULL)
        for _ in range(12)
    ]
    assert [copy.wait(60) for copy in copies] == [0] * 12
    assert len(layer_mounts(sandbox)) == 1
    assert shell(sandbox, container, "cat /etc/motd") == "welcome\n"


def test_a_commit_beside_a_long_load_is_not_held_up(
    sandbox: Sandbox, container: str, name: str
) -> None:
    big = Image(f"{name}:big", Layer().file("big", os.urandom(1 << 20) * 200))
    archive = big.archive()
    loading = sandbox.spawn(
        ["docker", "load", "-q"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert loading.stdin is not None
    with loading.stdin:
        loading.stdin.write(archive[: len(archive) // 2])
        sandbox.docker("commit", container, f"{name}:1", timeout=30)
        assert run(sandbox, f"{name}:1", "cat /etc/motd") == "welcome\n"
        loading.stdin.write(archive[len(archive) // 2 :])
    assert loading.wait(60) == 0
    sandbox.docker("rmi", f"{name}:1", big.tag)


def test_files_that_a_container_holds_open_survive_their_deletion(
    sandbox: Sandbox, container: str
) -> None:
    output = shell(sandbox, container, "exec 3< /etc/motd; rm /etc/motd; cat <&3")
    assert output == "welcome\n"


@pytest.mark.one_engine
def test_a_size_is_refused_where_the_disk_has_no_quotas(sandbox: Sandbox, name: str) -> None:
    command = ("create", "--name", name, "--storage-opt", "size=1g", "box:1", "true")
    done = sandbox.docker(*command, check=False)
    assert done.returncode != 0
    said = done.stderr.decode()
    assert "is supported only for overlay over xfs with 'pquota' mount option" in said
    assert sandbox.docker("ps", "-aq", "--filter", f"name={name}").stdout == b""
