"""Images and containers go from the engine's own overlay2 to manuka and back, as the guide says.

The commands are those of ``docs/moving.md``, read from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from manuka.toolkit.sandbox import Sandbox

from .conftest import DRIVER
from .images import Image, Layer, SavedImage, busybox
from .steps import box, inspect, load, run, run_sleeping, shell

GUIDE = Path(__file__).parents[2] / "docs" / "moving.md"

pytestmark = pytest.mark.skipif(DRIVER != "manuka", reason="it is about manuka and overlay2 alone")


@pytest.fixture
def root(workshop: str) -> Iterator[str]:
    """A Docker root folder that several engines have in turn."""
    path = os.path.join(workshop, "moved")
    os.mkdir(path, 0o711)
    yield path
    shutil.rmtree(path)


def follow_the_guide(heading: str, root: str) -> None:
    """Run the commands of one of its chapters."""
    chapter = GUIDE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", chapter, re.DOTALL | re.MULTILINE)
    assert commands.startswith("root=/var/lib/docker\n")
    script = commands.replace("root=/var/lib/docker", f"root={root}", 1)
    subprocess.run(["sh", "-euc", script], check=True, timeout=120)


def state(sandbox: Sandbox) -> Dict[str, Any]:
    """All that a user has of images and containers."""
    images = sandbox.engine.request("GET", "/images/json")
    tags = sorted(tag for image in images for tag in image["RepoTags"])
    containers = sandbox.engine.request("GET", "/containers/json?all=1")
    names = sorted(container["Names"][0] for container in containers)
    return {
        "images": {tag: inspect(sandbox, tag)["Id"] for tag in tags},
        "layers": {tag: SavedImage(sandbox.docker("save", tag).stdout).diff_ids for tag in tags},
        "containers": names,
        "changes": {name: changes(sandbox, name[1:]) for name in names},
    }


def changes(sandbox: Sandbox, container: str) -> List[bytes]:
    """``docker diff``, of which each driver has an order of its own."""
    return sorted(sandbox.docker("diff", container).stdout.splitlines())


def many_layers() -> Image:
    """What an image can ask of a driver: deletions, folders made anew, links and capabilities."""
    below = Layer().folder("d").file("d/a", b"a").file("d/b", b"b").file("gone")
    above = Layer().folder("d", 0o750).opaque("d").file("d/c", b"c").whiteout("gone")
    return Image("many:1", busybox(), below, above.hard_link("c2", "d/c"))


def work(sandbox: Sandbox, name: str) -> None:
    """A container that has changed much, and an image made of it."""
    run_sleeping(sandbox, name, image="many:1")
    shell(sandbox, name, f"echo {name} > /new; rm /d/c; rm -r /srv; mkdir /srv; echo x > /srv/x")
    sandbox.docker("stop", "-t", "0", name)
    sandbox.docker("commit", name, f"{name}:1")


def test_images_and_containers_go_to_manuka_and_back(engine: str, workshop: str, root: str) -> None:
    settings = {"data-root": root}
    with Sandbox(engine, "overlay2", data_dir=workshop, settings=settings) as sandbox:
        load(sandbox, box())
        load(sandbox, many_layers())
        work(sandbox, "there")
        before = state(sandbox)
        sandbox.stop()
    follow_the_guide("To manuka", root)
    with Sandbox(engine, data_dir=workshop, settings=settings) as sandbox:
        assert state(sandbox) == before
        sandbox.docker("start", "there")
        assert shell(sandbox, "there", "cat /new /srv/x; ls /d") == "there\nx\n"
        sandbox.docker("stop", "-t", "0", "there")
        work(sandbox, "here")
        sandbox.docker("commit", "there", "again:1")
        sandbox.docker("rmi", "there:1")
        before = state(sandbox)
        sandbox.stop()
    follow_the_guide("Back to overlay2", root)
    with Sandbox(engine, "overlay2", data_dir=workshop, settings=settings) as sandbox:
        assert state(sandbox) == before
        for name in ("here", "there"):
            sandbox.docker("start", name)
            assert shell(sandbox, name, "cat /new /srv/x; ls /d") == f"{name}\nx\n"
            sandbox.docker("rm", "-f", name)
        for image in ("again:1", "here:1", "many:1", "box:1"):
            assert run(sandbox, image, "echo runs") == "runs\n"
            sandbox.docker("rmi", image)
        assert os.listdir(os.path.join(root, "overlay2")) in (["l"], ["l", "backingFsBlockDev"])


@pytest.mark.one_engine
def test_images_can_be_tried_on_manuka_with_everything_left_where_it_was(
    engine: str, workshop: str, root: str
) -> None:
    settings = {"data-root": root}
    with Sandbox(engine, "overlay2", data_dir=workshop, settings=settings) as sandbox:
        load(sandbox, many_layers())
        work(sandbox, "there")
        before = state(sandbox)
        sandbox.stop()
    follow_the_guide("To manuka, with a way out", root)
    with Sandbox(engine, data_dir=workshop, settings=settings) as sandbox:
        tried = state(sandbox)
        assert (tried["images"], tried["layers"]) == (before["images"], before["layers"])
        assert tried["containers"] == []
        assert run(sandbox, "there:1", "cat /new; rm -r /bin") == "there\n"
        sandbox.docker("rmi", "there:1")
        sandbox.stop()
    with Sandbox(engine, "overlay2", data_dir=workshop, settings=settings) as sandbox:
        assert state(sandbox) == before
        sandbox.docker("start", "there")
        assert shell(sandbox, "there", "cat /new") == "there\n"
        sandbox.docker("rm", "-f", "there")
