"""What ``manuka sandbox`` shows when it is given no command: a container, and its layers on disk.

It makes an image of three layers, changes it in a container, and prints what the engine says of
the changes, which folder holds which layer, and the mount that joins them.  Everything is read
from the running engine and from the kernel's list of mounts, for any driver that tells its
folders.  `manuka.toolkit.command` calls it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Iterator

from manuka.toolkit import busybox
from manuka.toolkit.sandbox import Sandbox

# Each image adds a layer to the one before.
STEPS = (
    ("demo:2", "echo Hello > /etc/greeting"),
    ("demo:3", "echo 'Buy milk' > /srv/notes"),
)
CHANGES = "echo Goodbye >> /etc/greeting; rm /srv/notes; echo 42 > /answer"


def demonstrate(sandbox: Sandbox) -> None:
    """Run the demonstration and print it to stdout."""
    _print_engine(sandbox)
    _make_image(sandbox)
    _heading("A container changes three files")
    _shown(sandbox, CHANGES)
    sandbox.docker(
        *("run", "-d", "--network", "none", "--name", "demo", "demo:3"),
        *("sh", "-c", CHANGES + "; touch /tmp/done; exec sleep 1000000"),
    )
    sandbox.docker("exec", "demo", "sh", "-c", "until [ -e /tmp/done ]; do sleep 0.1; done")
    sandbox.docker("exec", "demo", "rm", "/tmp/done")

    _heading("What the engine calls a change    (docker diff)")
    for line in sandbox.docker("diff", "demo").stdout.decode().splitlines():
        print("  " + line)

    (container,) = json.loads(sandbox.docker("inspect", "demo").stdout)
    folders = container["GraphDriver"]["Data"] or {}
    if "UpperDir" not in folders:
        print(f"\n  The driver {sandbox.driver} does not tell where its layers lie.")
        return
    _print_stack(sandbox, folders)
    _print_mount(sandbox, folders["MergedDir"])
    print()


def _print_engine(sandbox: Sandbox) -> None:
    info = sandbox.engine.request("GET", "/info")
    status = dict(info["DriverStatus"] or [])
    kind = "one of its own" if sandbox.plugin is None else "a plugin, " + sandbox.plugin.socket
    _heading("An engine of your own    (docker info)")
    print("  Engine          Docker {}".format(info["ServerVersion"]))
    print("  Storage driver  {}: {}".format(info["Driver"], kind))
    print(f"  Its folder      {sandbox.home}")
    print("  On              {}".format(status.get("Backing Filesystem", "unknown")))


def _make_image(sandbox: Sandbox) -> None:
    _heading("An image of three layers    (docker import, docker commit)")
    sandbox.docker("import", "-", "demo:1", input=busybox.image(busybox.find()))
    print("  demo:1  busybox and nothing else")
    base = "demo:1"
    for image, command in STEPS:
        name = image.replace(":", "-")
        sandbox.docker("run", "--network", "none", "--name", name, base, "sh", "-c", command)
        sandbox.docker("commit", name, image)
        sandbox.docker("rm", name)
        print(f"  {image}  {command}")
        base = image


def _print_stack(sandbox: Sandbox, folders: dict[str, str]) -> None:
    _heading("Where its layers lie, the uppermost first    (docker inspect)")
    titles = ("the container", "the engine's own", "demo:3", "demo:2", "demo:1")
    for title, folder in zip(titles, [folders["UpperDir"], *folders["LowerDir"].split(":")]):
        where = _short(sandbox, folder).ljust(22)
        print(f"  {title.ljust(16)}  {where}  {_content(sandbox.inside(folder))}")


def _content(folder: str, most: int = 3) -> str:
    """The files in a layer; overlayfs marks a deleted one by a character device 0:0."""
    files = sorted(_files(folder))
    names = []
    for path in files[:most]:
        found = os.lstat(os.path.join(folder, path))
        whiteout = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
        names.append(path + " (deleted)" if whiteout else path)
    rest = f" and {len(files) - most} more" if len(files) > most else ""
    return ", ".join(names) + rest


def _files(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in files + links:
            yield os.path.relpath(os.path.join(where, name), folder)


def _print_mount(sandbox: Sandbox, merged: str) -> None:
    _heading("The mount that makes them one tree    (/proc/self/mountinfo)")
    mount = next((mount for mount in sandbox.mounts() if mount.mount_point == merged), None)
    if mount is None:
        print(f"  nothing is mounted on {merged}")
        return
    print(f"  {mount.fstype:<8}  {_short(sandbox, merged)}")
    for option in mount.super_options.split(","):
        name, _, paths = option.partition("=")
        if name not in ("lowerdir", "upperdir"):
            continue
        for path in paths.split(":"):
            # Drivers mount by short links, so that many layers fit into one page of options.
            link = os.path.join(sandbox.home, path)
            real = os.path.realpath(sandbox.inside(link))
            real = real[real.index(sandbox.home) :] if sandbox.home in real else link
            short = _short(sandbox, link)
            target = _short(sandbox, real)
            print(f"  {name:<8}  {short}" + _dim(f" -> {target}" if target != short else ""))
            name = ""


def _short(sandbox: Sandbox, path: str, digits: int = 12) -> str:
    """A path below the driver's folder, with the layer's id cut short."""
    inside = os.path.relpath(path, sandbox.home)
    if inside.startswith(".."):
        return path
    parts = []
    for part in inside.split("/"):
        name, dash, suffix = part.partition("-")
        parts.append(name[:digits] + dash + suffix if len(name) == 64 else part)
    return "/".join(parts)


def _shown(sandbox: Sandbox, script: str) -> None:
    for line in script.split("; "):
        print("  $ " + line)


def _heading(text: str) -> None:
    title, gap, source = text.partition("    ")
    print("\n" + _styled(title, "1") + gap + _dim(source), flush=True)


def _dim(text: str) -> str:
    return _styled(text, "2")


def _styled(text: str, code: str) -> str:
    if not text or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
