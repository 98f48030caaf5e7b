"""What the plugin holds at a moment, and whether that grows.

`QUANTITIES` says what is measured; a sample is a number for each.  What the work of the moment
needs comes and goes (descriptors, threads, mounts), so growth is told from the medians of the
first and the last part of the time, and from what is left when all work has ended.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from typing import Dict, Iterator, List, NamedTuple, Set

from manuka.toolkit.sandbox import Sandbox
from tests.engine.steps import layer_folders, layer_mounts


class Quantity(NamedTuple):
    """unit: how it is shown.  room: by how much the later median may exceed the earlier one."""

    title: str
    unit: str
    room: float


QUANTITIES = {
    "memory": Quantity("plugin: resident memory", "MiB", 2.0),
    "descriptors": Quantity("plugin: open descriptors", "", 8),
    "threads": Quantity("plugin: threads", "", 4),
    "mounts": Quantity("mounts of layers", "", 8),
    "layers": Quantity("layers on the disk", "", 20),
    "unknown": Quantity("layers of no engine for a minute", "", 0),
    "missing": Quantity("layers missing on the disk", "", 0),
    "rubbish": Quantity("the driver's other files", "", 8),
    "records": Quantity("files in the run folder", "", 8),
    "engine": Quantity("engine: resident memory", "MiB", 1e9),
}


class Sampler:
    """Takes samples of one sandbox, and remembers which layers no engine has known, since when."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._home = sandbox.inside(sandbox.home)
        self._unknown: Dict[str, float] = {}
        self._missing: Set[str] = set()

    def take(self) -> Dict[str, float]:
        """One sample: a number for each of `QUANTITIES`."""
        plugin = self._sandbox.plugin
        assert plugin is not None
        status = _status(plugin.pid)
        known = self._known()
        on_disk = layer_folders(self._sandbox) - {".incomplete"}
        still_known = self._known()
        missing = (known & still_known) - on_disk
        gone_twice, self._missing = missing & self._missing, missing
        now = time.monotonic()
        unknown = on_disk - known - still_known
        self._unknown = {layer: self._unknown.get(layer, now) for layer in unknown}
        return {
            "memory": status["VmRSS"] / 1024,
            "descriptors": len(os.listdir(f"/proc/{plugin.pid}/fd")),
            "threads": status["Threads"],
            "mounts": len(layer_mounts(self._sandbox)),
            "layers": len(on_disk),
            "unknown": sum(now - since > 60 for since in self._unknown.values()),
            "missing": len(gone_twice),
            "rubbish": self._rubbish(on_disk),
            "records": _files(self._sandbox.inside(os.path.join(self._sandbox.data, "run"))),
            "engine": _status(self._sandbox.engine.pid)["VmRSS"] / 1024,
        }

    def _known(self) -> Set[str]:
        """The ids of all layers that the engine has records of."""
        root = os.path.dirname(self._home)
        records = f"{root}/image/{self._sandbox.driver}/layerdb"
        found = set()
        for kind, names in (("sha256", ["cache-id"]), ("mounts", ["mount-id", "init-id"])):
            for folder in _listed(f"{records}/{kind}"):
                for name in names:
                    with contextlib.suppress(OSError), open(
                        f"{records}/{kind}/{folder}/{name}"
                    ) as f:
                        found.add(f.read().strip())
        return found

    def _rubbish(self, layers: Set[str]) -> int:
        """Unfinished folders, and short links beyond one for each layer."""
        return len(_listed(f"{self._home}/.incomplete")) + max(
            0, len(_listed(f"{self._home}/l")) - len(layers)
        )


class Row(NamedTuple):
    """One quantity over the time."""

    start: float
    first: float
    last: float
    most: float
    slope: float  # per hour, by least squares over what follows the first part
    end: float  # when all work had ended and been removed


def rows(samples: List[Dict[str, float]], end: Dict[str, float], part: float) -> Dict[str, Row]:
    """A row for each quantity; `part`, in seconds, is how long the first and last part are."""
    began, ended = samples[0]["at"], samples[-1]["at"]
    early = [sample for sample in samples if sample["at"] <= began + part]
    late = [sample for sample in samples if sample["at"] >= ended - part]
    settled = [sample for sample in samples if sample["at"] >= began + part]
    found = {}
    for name in QUANTITIES:
        found[name] = Row(
            samples[0][name],
            statistics.median(sample[name] for sample in early),
            statistics.median(sample[name] for sample in late),
            max(sample[name] for sample in samples),
            _slope([(sample["at"] / 3600, sample[name]) for sample in settled]),
            end[name],
        )
    return found


def growing(found: Dict[str, Row]) -> Iterator[str]:
    """What is more than it was, in words."""
    for name, row in found.items():
        title, unit, room = QUANTITIES[name]
        if row.last > row.first + room:
            yield f"{title} grew from {row.first:.4g} to {row.last:.4g} {unit}".rstrip()
        rests = name not in ("memory", "engine") and row.end > row.start
        if rests:
            yield f"{title}: {row.end:.4g} are left at the end, of {row.start:.4g} at the start"


def _slope(points: List[tuple[float, float]]) -> float:
    if len(points) < 3:
        return 0.0
    middle = statistics.mean(x for x, _ in points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * y for x, y in points) / spread if spread else 0.0


def _status(pid: int) -> Dict[str, int]:
    with open(f"/proc/{pid}/status") as file:
        fields = (line.split() for line in file)
        return {f[0].rstrip(":"): int(f[1]) for f in fields if len(f) > 1 and f[1].isdigit()}


def _listed(folder: str) -> List[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(folder)
    return []


def _files(folder: str) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))
