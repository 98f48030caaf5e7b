"""What tests do with an engine: load an image, run a script, look at mounts and layers.

Neighbours: `images` makes the images, `conftest` the engines.
"""

from __future__ import annotations

import os
import time
from typing import Any

from manuka.toolkit.sandbox import Sandbox

from .images import Image, Layer, busybox

_box: list[Image] = []


def box() -> Image:
    """Busybox, and a layer with files to change."""
    if not _box:
        content = (
            Layer()
            .folder("etc")
            .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n")
            .file("etc/group", b"root:x:0:\nann:x:1000:\n")
            .file("etc/motd", b"welcome\n")
            .folder("srv/tree", 0o750, owner=(1000, 1000))
            .file("srv/tree/a", b"a" * 1000, 0o640, owner=(1000, 1000))
            .file("srv/tree/b", b"b" * 2000)
            .symlink("srv/tree/link", "a")
            .hard_link("srv/tree/b2", "srv/tree/b")
        )
        _box.append(Image("box:1", busybox(), content))
    return _box[0]


def load(sandbox: Sandbox, image: Image) -> None:
    sandbox.docker("load", input=image.archive())


def run(sandbox: Sandbox, image: str, script: str, *options: str, check: bool = True) -> str:
    """What a shell script prints in a container that is gone afterwards."""
    command = ["run", "--rm", "--network", "none", *options, image, "sh", "-ec", script]
    return sandbox.docker(*command, check=check).stdout.decode()


def run_sleeping(sandbox: Sandbox, name: str, *options: str, image: str = "box:1") -> None:
    """Start a container that does nothing until it is asked to end."""
    sandbox.docker(
        *("run", "-d", "--network", "none", "--name", name, *options, image),
        *("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"),
    )


def shell(sandbox: Sandbox, container: str, script: str) -> str:
    """What a script prints in a running container."""
    return sandbox.docker("exec", container, "sh", "-ec", script).stdout.decode()


def inspect(sandbox: Sandbox, name: str) -> Any:
    kind = "images" if ":" in name else "containers"
    return sandbox.engine.request("GET", f"/{kind}/{name}/json")


def merged(sandbox: Sandbox, container: str) -> str:
    """The root of a running container, as a path for this process."""
    folders = inspect(sandbox, container)["GraphDriver"]["Data"]
    return sandbox.inside(folders["MergedDir"])


def layer_mounts(sandbox: Sandbox) -> list[str]:
    """Where the driver has mounted layers: one mount for each that is in use."""
    return [
        mount.mount_point
        for mount in sandbox.mounts()
        if mount.fstype == "overlay" and mount.mount_point.startswith(sandbox.data)
    ]


def layer_folders(sandbox: Sandbox) -> set[str]:
    """The driver's folders of layers, by their ids."""
    return set(os.listdir(sandbox.inside(sandbox.home))) - {"l"}


def assert_soon(sandbox: Sandbox, folders: set[str], mounts: list[str]) -> None:
    """Layers and mounts are these; engines let go of a layer a moment after their answer."""
    deadline = time.monotonic() + 60
    while (layer_folders(sandbox), layer_mounts(sandbox)) != (folders, mounts):
        if time.monotonic() > deadline:
            assert layer_folders(sandbox) == folders, "layers were left, or lost"
            assert layer_mounts(sandbox) == mounts, "mounts were left, or lost"
        time.sleep(0.05)
