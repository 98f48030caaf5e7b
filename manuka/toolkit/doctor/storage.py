"""Checks of the kernel, of the disk below the layers, and of the layers by themselves.

Sources: ``check.go`` in the engine's ``daemon/graphdriver/overlay2``; statfs(2); the kernel's
``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

import os
from typing import Iterator

from manuka.linux import kernel
from manuka.linux.dirents import has_d_type
from manuka.linux.statfs import existing_folder, filesystem_name
from manuka.overlay2.layout import Layer, redirection
from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import Patient

_GOOD = ("extfs", "xfs", "btrfs", "tmpfs")
_OLDEST_KERNEL = (4, 0)


def overlayfs(patient: Patient) -> Iterator[Finding]:
    """Whether the kernel has overlayfs."""
    if kernel.release() < _OLDEST_KERNEL:
        yield Finding(
            "kernel",
            PROBLEM,
            f"Linux {os.uname().release} is older than 4.0: no overlay with several lower layers.",
            "Use a newer kernel.",
        )
        return
    with open("/proc/filesystems", encoding="ascii") as file:
        known = "\toverlay\n" in file.read()
    if known:
        yield Finding("kernel", OK, f"Linux {os.uname().release} has overlayfs.")
    else:
        yield Finding(
            "kernel",
            WARNING,
            f"Linux {os.uname().release} has overlayfs not loaded.",
            "modprobe overlay; if that fails, install the kernel's extra modules.",
        )


def defaults(patient: Patient) -> Iterator[Finding]:
    """Defaults of overlayfs under which a layer's folder does not tell all that it adds."""
    on = [
        name
        for name in ("redirect_dir", "metacopy")
        if kernel.overlay_parameter(name) in ("Y", "1", "on")
    ]
    if on:
        yield Finding(
            "overlay-defaults",
            NOTE,
            f"This kernel switches {' and '.join(on)} on by default. manuka mounts without; other "
            "drivers, and layers that they have made, may not.",
        )


def disk(patient: Patient) -> Iterator[Finding]:
    """Whether the disk can carry overlays, and has room."""
    folder = existing_folder(patient.reach(patient.home))
    name = filesystem_name(folder)
    if name == "overlayfs":
        yield Finding(
            "backing-filesystem",
            PROBLEM,
            f"{patient.home} lies on an overlayfs, which cannot carry another.",
            "Give the engine a data-root on a disk or a volume.",
        )
    elif name in _GOOD:
        yield Finding("backing-filesystem", OK, f"{patient.home} lies on {name}.")
    else:
        yield Finding(
            "backing-filesystem",
            WARNING,
            f"{patient.home} lies on {name}, which may not carry overlays.",
            "ext4, xfs (ftype=1) and btrfs do; the plugin tries it when the engine starts.",
        )
    if os.listdir(folder) and not has_d_type(folder):
        yield Finding(
            "d-type",
            PROBLEM,
            f"The disk of {patient.home} ({name}) does not tell file types in directories.",
            "Make it anew, xfs with: mkfs.xfs -n ftype=1",
        )
    found = os.statvfs(folder)
    for what, free, total in (
        ("blocks", found.f_bavail, found.f_blocks),
        ("inodes", found.f_favail, found.f_files),
    ):
        if total and free * 20 < total:
            yield Finding(
                "disk-space",
                WARNING,
                f"The disk of {patient.home} has {100 * free // total} % of its {what} left.",
                "docker system prune, or a larger disk.",
            )


def unfinished(patient: Patient) -> Iterator[Finding]:
    """Layers whose unpacking was broken off."""
    home = patient.reach(patient.home)
    found = [
        name for name in patient.entries(patient.home) if os.path.exists(f"{home}/{name}/unpacking")
    ]
    if found and patient.engine is None:
        yield Finding(
            "unfinished-layers",
            NOTE,
            f"{len(found)} layers in {patient.home} were never unpacked to their end, as "
            f"{found[0][:12]}.",
            "Pull their image again; no image of the engine uses them.",
        )


def foreign_records(patient: Patient) -> Iterator[Finding]:
    """Files of layers whose contents lie elsewhere, by records that manuka's mounts ignore."""
    if not patient.deep:
        return
    home = patient.reach(patient.home)
    layers = [Layer(home, name) for name in patient.entries(patient.home)]
    # Those that the driver has noted itself, it mounts with what they need.
    found = [
        layer.id[:12]
        for layer in layers
        if os.path.isdir(layer.diff) and not layer.is_redirected() and redirection(layer.diff)
    ]
    if found:
        yield Finding(
            "foreign-records",
            PROBLEM,
            f"{len(found)} layers in {patient.home} hold files without their contents, made by "
            f"a driver that mounts with redirect_dir or metacopy: {', '.join(found[:5])}.",
            "Move their images by docker save and docker load, from the driver that made them.",
        )
    else:
        yield Finding("foreign-records", OK, f"The layers in {patient.home} hold all their files.")
