"""File systems for tests: mounted for one test, and unmounted however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from manuka.linux.mount import mount, unmount, unmount_below

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@contextlib.contextmanager
def unmounted_after(folder: Path) -> Iterator[Path]:
    """Unmount what the body mounted below `folder`."""
    try:
        yield folder
    finally:
        unmount_below(str(folder))


@contextlib.contextmanager
def mounted(
    folder: Path, fstype: str = "tmpfs", source: str = "none", flags: int = 0, data: str = ""
) -> Iterator[Path]:
    """A new folder with a file system mounted at it."""
    folder.mkdir(exist_ok=True)
    mount(source, str(folder), fstype, flags, data)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # the test may have unmounted it itself
            unmount(str(folder), detach=True)


@contextlib.contextmanager
def loop_device(folder: Path, *mkfs: str, size: str = "320M") -> Iterator[str]:
    """A block device with the file system that the command `mkfs` makes; its path.

    The test is skipped when there is no such command, or loop devices cannot be had.
    """
    if not shutil.which(mkfs[0]):
        pytest.skip(f"there is no {mkfs[0]}")
    image = folder / "image"
    _run("truncate", "-s", size, str(image))
    _run(*mkfs, str(image))
    try:
        device = _run("losetup", "--find", "--show", str(image)).strip()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device: {error.stderr}")
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


@contextlib.contextmanager
def file_system(folder: Path, *mkfs: str, data: str = "") -> Iterator[Path]:
    """A new file system of the command `mkfs`, mounted at a folder in `folder`.

    The test is skipped when the kernel does not know it, or these options of it.
    """
    fstype = mkfs[0].rpartition(".")[2]
    with loop_device(folder, *mkfs) as device:
        target = folder / "mnt"
        target.mkdir()
        try:
            mount(device, str(target), fstype, data=data)
        except OSError as error:
            pytest.skip(f"the kernel does not mount {' '.join(mkfs)} {data}: {error}")
        try:
            yield target
        finally:
            unmount(str(target), detach=True)


@contextlib.contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """An overlay with the folders lower, upper and work in `folder`, mounted at merged.

    It lies on a tmpfs, for an overlay does not stack on the one that a container has.
    """
    with mounted(folder) as base:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir(exist_ok=True)
        data = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        with mounted(base / "merged", "overlay", "overlay", data=data) as merged:
            yield merged


def make_deep_folder(folder: Path, depth: int, name: str = "d") -> None:
    """Folders in folders, deeper than a path may be long."""
    fd = os.open(folder, os.O_PATH)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
