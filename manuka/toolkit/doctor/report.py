"""Runs the checks, and words what they found for people or for programs."""

from __future__ import annotations

import json
from typing import Callable, Iterator, Sequence

from manuka.toolkit.doctor import engine, mounts, plugin, records, storage
from manuka.toolkit.doctor.finding import NOTE, OK, PROBLEM, WARNING, Finding
from manuka.toolkit.doctor.patient import Patient

Check = Callable[[Patient], Iterator[Finding]]

#: All checks, by the part of the machine that they are about.
PARTS: dict[str, tuple[Check, ...]] = {
    "engine": (
        engine.version,
        engine.running,
        engine.config,
        engine.experimental,
        engine.storage_driver,
        engine.driver_name,
        engine.snapshotter,
    ),
    "plugin": (plugin.discovery, plugin.address, plugin.listener, plugin.handshake),
    "mounts": (mounts.namespaces, mounts.leftovers, mounts.crowd),
    "storage": (
        storage.overlayfs,
        storage.defaults,
        storage.disk,
        storage.unfinished,
        storage.foreign_records,
        records.forgotten_layers,
        records.lost_layers,
        records.other_drivers,
    ),
}

_COLOURS = {OK: "32", NOTE: "36", WARNING: "33", PROBLEM: "31"}


def examine(patient: Patient) -> list[tuple[str, Finding]]:
    """All findings, each with the name of its part."""
    return [
        (part, finding)
        for part, checks in PARTS.items()
        for check in checks
        for finding in _run(check, patient)
    ]


def _run(check: Check, patient: Patient) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except OSError as error:
        name = check.__name__.replace("_", "-")
        yield Finding(
            name, WARNING, f"This could not be looked at ({name}): {error}.", "Run it as root."
        )


def as_text(findings: Sequence[tuple[str, Finding]], colour: bool) -> str:
    """For people: a line for each finding, and below it what to do."""
    lines = []
    part = ""
    for part_of_it, finding in findings:
        if part_of_it != part:
            part = part_of_it
            lines.append(part)
        level = finding.level.ljust(8)
        if colour:
            level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
        lines.append(f"  {level} {finding.text}")
        if finding.remedy:
            lines.append(f"           {finding.remedy}")
    lines.append(_sum(findings))
    return "\n".join(lines)


def as_json(findings: Sequence[tuple[str, Finding]]) -> str:
    """For programs: an object with ``healthy`` and ``findings``."""
    return json.dumps(
        {
            "healthy": is_healthy(findings),
            "findings": [dict(finding._asdict(), part=part) for part, finding in findings],
        },
        indent=2,
    )


def is_healthy(findings: Sequence[tuple[str, Finding]]) -> bool:
    """Whether nothing was found for which an engine would not come up."""
    return all(finding.level != PROBLEM for _, finding in findings)


def _sum(findings: Sequence[tuple[str, Finding]]) -> str:
    counts = []
    for level in (PROBLEM, WARNING):
        count = sum(finding.level == level for _, finding in findings)
        counts.append(f"{count or 'no'} {level}{'' if count == 1 else 's'}")
    return ", ".join(counts)
