"""An hour of mixed work on an engine on manuka: does the plugin keep anything that it should not?

    sudo .venv/bin/python -m benchmarks.soak [--minutes N] [--workers N] [--json FILE]

Workers load, pull, run, change, commit, diff, copy, save, build and remove at once, on an engine of
their own in a sandbox, with its data on an ext4 in memory; images are pulled from a registry on
this machine (docker-registry).  Each checks what comes out.  Every ten seconds a sample is taken of
what the plugin holds; at the end all is removed and the last sample taken.  `work` has the work,
`samples` what is measured.  Status 0: nothing grew and nothing went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

from manuka.linux.mount import mount, unmount
from manuka.toolkit.sandbox import Sandbox
from tests.engine.registry import find, registry
from tests.engine.steps import box, layer_folders, load
from tests.unit.mounts import loop_device

from .samples import QUANTITIES, Row, Sampler, growing, rows
from .work import Record, Work, pullable, spawn_one_at_a_time

INTERVAL = 10.0


@contextlib.contextmanager
def disk(size: str) -> Iterator[str]:
    """An ext4 in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="soak-") as folder:
        with loop_device(Path(folder), "mkfs.ext4", "-q", size=size) as device:
            target = os.path.join(folder, "d")
            os.mkdir(target)
            mount(device, target, "ext4")
            try:
                yield target
            finally:
                unmount(target, detach=True)


def prepared(sandbox: Sandbox, address: str, workers: int) -> List[Any]:
    """The images that will be pulled, pushed to the registry and gone from the engine."""
    images = [pullable(address, number) for number in range(workers)]
    for image in images:
        load(sandbox, image)
        sandbox.docker("push", "-q", image.tag, timeout=600)
    sandbox.docker("rmi", *(image.tag for image in images))
    return images


def tidy(sandbox: Sandbox, folders: set[str]) -> None:
    """Remove what the engine still has, and wait until the layers are gone."""
    for kind in ("container", "image", "builder"):
        sandbox.docker(kind, "prune", "-f", timeout=600)
    deadline = time.monotonic() + 60
    while layer_folders(sandbox) != folders and time.monotonic() < deadline:
        time.sleep(0.5)


def table(found: Dict[str, Row]) -> str:
    lines = [
        f"{'':34}{'start':>9}{'first':>9}{'last':>9}{'most':>9}{'per hour':>10}{'at the end':>12}"
    ]
    for name, row in found.items():
        title = " ".join(filter(None, (QUANTITIES[name].title, QUANTITIES[name].unit)))
        numbers = [f"{value:9.1f}" for value in row[:4]]
        lines.append(f"{title:34}{''.join(numbers)}{row.slope:+10.1f}{row.end:12.1f}")
    return "\n".join(lines)


def soak(wanted: argparse.Namespace, sandbox: Sandbox, address: str) -> Dict[str, Any]:
    """The work, and the report on it."""
    spawn_one_at_a_time(sandbox)
    load(sandbox, box())
    record = Record()
    images = prepared(sandbox, address, wanted.workers)
    folders = layer_folders(sandbox)
    sampler = Sampler(sandbox)
    over = threading.Event()
    threads = [
        threading.Thread(target=Work(sandbox, number, image, record).until, args=(over,))
        for number, image in enumerate(images)
    ]
    began = time.monotonic()
    samples = [dict(sampler.take(), at=0.0)]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() - began < wanted.minutes * 60:
            time.sleep(INTERVAL - (time.monotonic() - began) % INTERVAL)
            samples.append(dict(sampler.take(), at=time.monotonic() - began))
            if len(samples) % 6 == 1:
                print(_line(samples[-1], record), flush=True)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    hours = (time.monotonic() - began) / 3600
    tidy(sandbox, folders)
    time.sleep(2 * INTERVAL)  # threads that wait for another call end
    sampler.take()
    found = rows(samples, sampler.take(), wanted.minutes * 60 / 6)
    assert sandbox.plugin is not None
    complaints = [*growing(found), *(f"failed: {error}" for error in record.errors)]
    if "Traceback" in sandbox.plugin.log_text():
        complaints.append("the plugin's log has a traceback")
    return {
        "hours": hours,
        "workers": wanted.workers,
        "engine": sandbox.program.version_text,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "operations": dict(sorted(record.done.items())),
        "errors": record.errors,
        "rows": {name: row._asdict() for name, row in found.items()},
        "verdict": "flat" if not complaints else "not flat",
        "complaints": complaints,
        "samples": samples,
        "table": table(found),
    }


def _line(sample: Dict[str, float], record: Record) -> str:
    numbers = ", ".join(f"{name} {sample[name]:.4g}" for name in QUANTITIES)
    done = sum(record.done.values())
    return f"{sample['at'] / 60:4.0f} min: {done} done, {len(record.errors)} failed; {numbers}"


def _end(number: int, frame: object) -> None:
    """Leave the ``with`` blocks, so that nothing stays behind."""
    sys.exit(128 + number)


def main() -> int:
    asked = argparse.ArgumentParser(prog="benchmarks.soak")
    asked.add_argument("--minutes", type=float, default=60)
    asked.add_argument("--workers", type=int, default=16)
    asked.add_argument("--engine", metavar="DOCKERD")
    asked.add_argument("--json", default="soak.json", metavar="FILE")
    asked.add_argument("--disk", default="4G", metavar="SIZE", help="the ext4's; in memory")
    wanted = asked.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    program = find()
    if program is None:
        print("soak: no registry: apt-get install docker-registry", file=sys.stderr)
        return 2
    with disk(wanted.disk) as folder:
        with registry(program, os.path.join(folder, "registry")) as address:
            with Sandbox(wanted.engine, data_dir=folder) as sandbox:
                report = soak(wanted, sandbox, address)
    with open(wanted.json, "w") as file:
        json.dump(report, file, indent=1)
    print(report["table"])
    for what, count in report["operations"].items():
        print(f"  {count:7} docker {what}")
    print(f"  {sum(report['operations'].values()):7} in all, {len(report['errors'])} failed")
    for complaint in report["complaints"][:20]:
        print(complaint)
    print(f"{report['hours']:.2f} hours, {report['workers']} workers: {report['verdict']}")
    return 0 if report["verdict"] == "flat" else 1


if __name__ == "__main__":
    sys.exit(main())
