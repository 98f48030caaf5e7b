"""Limits for what a container writes, on xfs with project quotas, as on the engine's own overlay2.

Only kernels with quotas for xfs can run this; ``tests/guest/run`` brings one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from manuka.linux.quota import get_project_id
from manuka.toolkit.sandbox import Sandbox
from tests.unit.mounts import file_system

from .steps import box, inspect, load, run, run_sleeping, shell

MIB = 1 << 20

on_both = pytest.mark.parametrize("driver", ["overlay2", "manuka"])
pytestmark = pytest.mark.one_engine


@pytest.fixture
def disk(workshop: str) -> Iterator[str]:
    """An xfs that counts what each project holds."""
    folder = Path(tempfile.mkdtemp(dir=workshop))
    try:
        with file_system(folder, "mkfs.xfs", "-q", data="pquota") as mounted:
            os.chmod(folder, 0o711)
            yield str(mounted)
            assert os.listdir(mounted) == []
    finally:
        (folder / "mnt").rmdir()
        folder.rmdir()


def write(sandbox: Sandbox, container: str, name: str, mebibytes: int) -> bool:
    """Whether a container could write a file of this size."""
    script = f"dd if=/dev/zero of=/{name} bs=1M count={mebibytes} conv=fsync"
    done = sandbox.docker("exec", container, "sh", "-c", script, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or b"No space left" in said or b"quota exceeded" in said, said
    return done.returncode == 0


@on_both
def test_a_container_with_a_size_takes_no_more_and_others_do(
    engine: str, disk: str, driver: str
) -> None:
    with Sandbox(engine, driver, data_dir=disk) as sandbox:
        load(sandbox, box())
        run_sleeping(sandbox, "small", "--storage-opt", "size=40m")
        run_sleeping(sandbox, "free")
        assert write(sandbox, "small", "fits", 25)
        assert not write(sandbox, "small", "more", 25)
        assert write(sandbox, "free", "fits", 60)
        sandbox.docker("exec", "small", "sh", "-c", "rm /fits /more")
        assert write(sandbox, "small", "again", 25)
        free = "df -m / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
        assert sandbox.docker("exec", "small", "sh", "-c", free).stdout == b"40\n"
        sandbox.docker("rm", "-f", "small", "free")


@on_both
def test_a_size_for_all_containers_outlives_restarts_and_each_has_its_own(
    engine: str, disk: str, driver: str
) -> None:
    options = ["overlay2.size=40m"]
    with Sandbox(engine, driver, data_dir=disk, storage_opts=options) as sandbox:
        load(sandbox, box())
        run_sleeping(sandbox, "before")
        assert write(sandbox, "before", "fits", 25)
        sandbox.engine.kill_containers()
        sandbox.stop()
        sandbox.start()
        sandbox.docker("start", "before")
        run_sleeping(sandbox, "after")
        assert not write(sandbox, "before", "more", 25)
        assert write(sandbox, "after", "fits", 25)
        assert not write(sandbox, "after", "more", 25)
        if sandbox.plugin is not None:
            sandbox.plugin.restart()
        run_sleeping(sandbox, "later", "--storage-opt", "size=60m")
        assert write(sandbox, "later", "fits", 45)
        assert not write(sandbox, "after", "yet-more", 25)
        assert run(sandbox, "box:1", "echo runs") == "runs\n"
        sandbox.docker("rm", "-f", "before", "after", "later")


@on_both
def test_a_size_for_images_layers_is_no_matter(engine: str, disk: str, driver: str) -> None:
    """They are as large as they are: the limit is for containers alone."""
    with Sandbox(engine, driver, data_dir=disk, storage_opts=["overlay2.size=40m"]) as sandbox:
        load(sandbox, box())
        run_sleeping(sandbox, "one")
        assert write(sandbox, "one", "a", 25)
        sandbox.docker("commit", "one", "big:1")
        run_sleeping(sandbox, "two", image="big:1")
        assert write(sandbox, "two", "b", 25)
        sandbox.docker("commit", "two", "big:2")
        assert run(sandbox, "big:2", "ls /a /b") == "/a\n/b\n"
        sandbox.docker("rm", "-f", "one", "two")


def make_volume(sandbox: Sandbox, name: str) -> None:
    """A volume, used once: only then does the engine limit it."""
    sandbox.docker("volume", "create", "-o", "size=20m", name)
    run(sandbox, "box:1", "true", "-v", f"{name}:/volume")


def make_container(sandbox: Sandbox, name: str) -> None:
    run_sleeping(sandbox, name, "--storage-opt", "size=60m")


def projects(sandbox: Sandbox, containers: list[str], volumes: list[str]) -> list[int]:
    """The project of each container's layer and of each volume."""
    layers = [inspect(sandbox, name)["GraphDriver"]["Data"]["UpperDir"] for name in containers]
    folders = [sandbox.engine.request("GET", f"/volumes/{name}")["Mountpoint"] for name in volumes]
    return [get_project_id(sandbox.inside(path)) for path in layers + folders]


@on_both
@pytest.mark.parametrize("order", ["volumes first", "containers first"])
def test_volumes_and_containers_with_sizes_leave_each_other_alone(
    engine: str, disk: str, driver: str, order: str
) -> None:
    """The engine's volume driver limits volumes on the same disk, by projects that it counts."""
    makers = [(make_volume, "volume"), (make_container, "container")]
    if order == "containers first":
        makers.reverse()
    with Sandbox(engine, driver, data_dir=disk) as sandbox:
        load(sandbox, box())
        for number in range(2):
            for make, name in makers:
                make(sandbox, f"{name}{number}")
        sandbox.engine.kill_containers()
        sandbox.stop()
        sandbox.start()
        for make, name in makers:
            make(sandbox, f"{name}2")
        containers = [f"container{number}" for number in range(3)]
        volumes = [f"volume{number}" for number in range(3)]
        in_use = projects(sandbox, containers, volumes)
        assert 0 not in in_use
        assert len(set(in_use)) == 6, f"they share projects: {in_use}"
        options = [option for name in volumes for option in ("-v", f"{name}:/{name}")]
        run_sleeping(sandbox, "user", *options)
        for name in volumes:
            size = f"df -m /{name} | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
            assert shell(sandbox, "user", size) == "20\n"
            assert write(sandbox, "user", f"{name}/fits", 12)
            assert not write(sandbox, "user", f"{name}/more", 12)
        for name in ("container1", "container2"):
            sandbox.docker("start", name)
            assert write(sandbox, name, "fits", 45)
            assert not write(sandbox, name, "more", 45)
            sandbox.docker("exec", name, "rm", "/fits", "/more")
        sandbox.docker("rm", "-f", "user", *containers)
        sandbox.docker("volume", "rm", *volumes)
