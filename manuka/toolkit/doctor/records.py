"""Checks of the engine's records against the driver's layers, both ways.

The engine keeps what it knows below ``image/NAME``: ``layerdb/sha256/CHAIN`` for each layer of an
image, with its id for the driver in ``cache-id``; ``layerdb/mounts/CONTAINER`` for each container;
``imagedb/content/sha256`` for the images.  An engine that is killed between its record and the
driver's call leaves one without the other.

Sources: ``layer/filestore.go``, ``image/fs.go`` and ``image/rootfs.go`` of the engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from typing import Any, Iterator

from manuka.toolkit.doctor.finding import NOTE, PROBLEM, Finding
from manuka.toolkit.doctor.patient import Patient

_ENGINES_ID = re.compile(r"[0-9a-f]{64}(-init)?")
_SHOWN = 5
_SETTLED = 3600  # seconds after which no pull or build is still at a layer


def forgotten_layers(patient: Patient) -> Iterator[Finding]:
    """Layers that no image and no container of the engine uses.

    BuildKit's own layers, with shorter ids, are in no such record.
    """
    if not os.path.isdir(patient.reach(_database(patient))):
        return
    used = {
        layer_id
        for kind in ("sha256", "mounts")
        for ids in _recorded(patient, kind).values()
        for layer_id in ids
    }
    found = [
        name
        for name in patient.entries(patient.home)
        if _ENGINES_ID.fullmatch(name)
        and name not in used
        and _age(patient.reach(os.path.join(patient.home, name))) > _SETTLED
    ]
    if found:
        yield Finding(
            "forgotten-layers",
            NOTE,
            f"{len(found)} layers in {patient.home} belong to no image and no container: an engine "
            "that was killed has forgotten them. They only take room.",
            f"With engine and plugin stopped, these directories can be deleted: {_some(found)}",
        )


def lost_layers(patient: Patient) -> Iterator[Finding]:
    """Records of layers that the driver does not have.

    18.09 and 19.03 remove a layer first and its record afterwards; killed in between, they keep
    the record, and take a later pull or load of that layer for done.
    """
    chains, containers = _recorded(patient, "sha256"), _recorded(patient, "mounts")
    gone = _gone(patient, {one for ids in [*chains.values(), *containers.values()] for one in ids})
    lost = {chain for chain, ids in chains.items() if gone & set(ids)}
    affected = _with_children(patient, lost, list(chains))
    images, used = _images(patient, affected)
    stopped = [
        container[:12]
        for container, ids in containers.items()
        if gone & set(ids) or _parent(patient, "mounts", container) in affected
    ]
    unused = [os.path.join(_database(patient), "sha256", one) for one in sorted(lost - used)]
    if not (images or stopped or unused):
        return
    where = f"are gone from {patient.home}, though the engine has them on record"
    if images or stopped:
        what = [
            *([f"the images {_some(images)}"] if images else []),
            *([f"the containers {_some(stopped)}"] if stopped else []),
        ]
        commands = [
            *([f"docker rm -f {' '.join(stopped)}"] if stopped else []),
            *([f"docker rmi -f {' '.join(images)}"] if images else []),
        ]
        yield Finding(
            "lost-layers",
            PROBLEM,
            f"{len(gone)} layers {where}: {' and '.join(what)} cannot run. To pull or load such an "
            "image again reports success and changes nothing.",
            f"{'; '.join(commands)}; then pull or load the images again.",
        )
    if unused:
        yield Finding(
            "lost-layers-unused",
            PROBLEM,
            f"{len(unused)} layers {where}. No image uses them now; one that is pulled or loaded "
            "and has such a layer will not run.",
            f"With the engine stopped, delete these directories: {_some(unused)}",
        )


def other_drivers(patient: Patient) -> Iterator[Finding]:
    """Images and containers that were made under other drivers, and are out of sight."""
    images = os.path.join(patient.data_root, "image")
    for name in patient.entries(images):
        layers = patient.entries(os.path.join(images, name, "layerdb", "sha256"))
        if name != patient.name and layers:
            yield Finding(
                "other-drivers",
                NOTE,
                f"The driver {name} has {len(layers)} image layers in {patient.data_root}; they "
                f"are out of sight under {patient.name}, and safe.",
                f'They come back with "storage-driver": "{name}"; docker save and docker load '
                "move them.",
            )


def _database(patient: Patient) -> str:
    return os.path.join(patient.data_root, "image", patient.name, "layerdb")


def _recorded(patient: Patient, kind: str) -> dict[str, list[str]]:
    """The driver's layers of each record, by the record's name."""
    files = {"sha256": ("cache-id",), "mounts": ("mount-id", "init-id")}[kind]
    folder = os.path.join(_database(patient), kind)
    return {
        name: [
            layer_id
            for file in files
            for layer_id in [patient.text(os.path.join(folder, name, file))]
            if layer_id
        ]
        for name in patient.entries(folder)
    }


def _gone(patient: Patient, recorded: set[str]) -> set[str]:
    """Those of the recorded layers that the driver does not have."""
    there = set(patient.entries(patient.home))
    # Another plugin may keep its layers in directories with other names.
    if not there & {"l", ".incomplete", *recorded}:
        return set()
    # The engine drops the record once the driver has removed the layer, which may take long.
    removing = patient.entries(os.path.join(patient.home, ".incomplete"))
    gone = recorded - there - {name.partition(".")[0] for name in removing}
    if not gone:
        return gone
    still = {
        one
        for kind in ("sha256", "mounts")
        for ids in _recorded(patient, kind).values()
        for one in ids
    }
    return gone & still


def _parent(patient: Patient, kind: str, name: str) -> str:
    """The chain that a layer or container stands upon; "" if there is none."""
    text = patient.text(os.path.join(_database(patient), kind, name, "parent"))
    return text.partition(":")[2]


def _with_children(patient: Patient, lost: set[str], chains: list[str]) -> set[str]:
    """Lost layers, and all that stand upon one."""
    parents = {chain: _parent(patient, "sha256", chain) for chain in chains}
    affected = set(lost)
    while True:
        more = {chain for chain, parent in parents.items() if parent in affected} - affected
        if not more:
            return affected
        affected |= more


def _images(patient: Patient, affected: set[str]) -> tuple[list[str], set[str]]:
    """The images that have an affected layer, by their names, and the layers of all images."""
    images = os.path.join(patient.data_root, "image", patient.name)
    content = os.path.join(images, "imagedb", "content", "sha256")
    tags = _tags(_json(patient.text(os.path.join(images, "repositories.json"))))
    found: list[str] = []
    used: set[str] = set()
    for name in patient.entries(content):
        chains = _chains(_json(patient.text(os.path.join(content, name))))
        used.update(chains)
        if affected & set(chains):
            found += tags.get(name) or [name[:12]]
    return found, used


def _tags(repositories: Any) -> dict[str, list[str]]:
    """The names of each image; one that was pulled has a name by its digest, too."""
    found: dict[str, list[str]] = {}
    by_repository = repositories.get("Repositories") if isinstance(repositories, dict) else None
    for names in (by_repository or {}).values() if isinstance(by_repository, dict) else ():
        for name, image in names.items() if isinstance(names, dict) else ():
            found.setdefault(str(image).partition(":")[2], []).append(name)
    return {image: sorted(names) for image, names in found.items()}


def _chains(image: Any) -> list[str]:
    """The chain of each layer of an image: a digest of what lies below, and the layer's own."""
    rootfs = image.get("rootfs") if isinstance(image, dict) else None
    digests = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    found: list[str] = []
    for digest in digests if isinstance(digests, list) else ():
        text = f"sha256:{found[-1]} {digest}" if found else ""
        found.append(
            hashlib.sha256(text.encode()).hexdigest() if text else str(digest).partition(":")[2]
        )
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _age(path: str) -> float:
    """Seconds since the file changed."""
    try:
        return time.time() - os.lstat(path).st_ctime
    except OSError:
        return 0.0


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
