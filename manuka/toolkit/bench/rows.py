"""Every figure of the benchmark: its name, what it is, and the bar that it has to reach.

Neighbours: `scenarios`, `wire` and `costs` fill the rows in by name, `table` and its like show
them in this order.  Easy to get wrong: a bar against native is for the ratio of two figures, an
absolute one for the figure as it is shown, in the row's unit.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional

NATIVE = "native"
MANUKA = "manuka"
GO = "go"

ENGINE, WIRE, COSTS = "on an engine", "on the wire", "what a plugin costs"


class Row(NamedTuple):
    """One figure.

    unit: of the samples and of an absolute bar.
    ratio_bar: what manuka's figure, divided by native's, may be at the most.
    bar: what it may be itself at the most.
    fraction: which quantile of the samples the figure is.
    more_is_better: for throughput, which has no bar of its own.
    """

    name: str
    part: str
    title: str
    unit: str = "s"
    ratio_bar: Optional[float] = None
    bar: Optional[float] = None
    fraction: float = 0.5
    more_is_better: bool = False


_ROWS = (
    Row("run", ENGINE, "docker run --rm, busybox", ratio_bar=1.02),
    Row("run-8", ENGINE, "the same, 8 at once", ratio_bar=1.02),
    Row("run-32", ENGINE, "the same, 32 at once", ratio_bar=1.02),
    Row("run-60-layers", ENGINE, "docker run --rm on 60 layers", ratio_bar=1.00),
    Row("rm", ENGINE, "docker rm of a container"),
    Row("cp-in", ENGINE, "docker cp of a file into a container"),
    Row("cp-out", ENGINE, "docker cp of a file out of it"),
    Row("load-many", ENGINE, "docker load, many small files", ratio_bar=0.75),
    Row("load-60-layers", ENGINE, "docker load, 60 layers", ratio_bar=0.15),
    Row("load-125-layers", ENGINE, "docker load, 125 layers"),
    Row("load-big", ENGINE, "docker load, one file of 1 GB", ratio_bar=0.95),
    Row("pull-many", ENGINE, "docker pull, many small files, local registry"),
    Row("commit", ENGINE, "docker commit, 5,000 new files", ratio_bar=0.80),
    Row("diff", ENGINE, "docker diff, small change over many files", ratio_bar=0.02),
    Row("save-many", ENGINE, "docker save, many files", ratio_bar=1.00),
    Row("save-60-layers", ENGINE, "docker save, 60 layers", ratio_bar=1.15),
    Row("build", ENGINE, "docker build, 4 RUN and 3 COPY"),
    Row("rmi-many", ENGINE, "docker rmi, many files", ratio_bar=1.00),
    Row("rmi-60-layers", ENGINE, "docker rmi, 60 layers", ratio_bar=1.15),
    Row("apply-many", WIRE, "ApplyDiff, 35,500 entries, 226 MB", ratio_bar=0.65),
    Row("apply-many-rate", WIRE, "… in entries a second", "1/s", more_is_better=True),
    Row("apply-big-rate", WIRE, "ApplyDiff, one file of 1 GB", "MB/s", more_is_better=True),
    Row("diff-many", WIRE, "Diff of the 35,500 entries"),
    Row("diff-many-rate", WIRE, "… in entries a second", "1/s", more_is_better=True),
    Row("diff-big-rate", WIRE, "Diff of the file of 1 GB", "MB/s", more_is_better=True),
    Row("get-put", WIRE, "Get + Put with mount and unmount, p50", "ms", bar=0.8),
    Row("get-put-p99", WIRE, "… p99", "ms", bar=1.3, fraction=0.99),
    Row("get-put-busy", WIRE, "the same while a layer is being applied, p50", "ms"),
    Row("get-put-busy-p99", WIRE, "… p99", "ms", bar=8, fraction=0.99),
    Row("exists", WIRE, "Exists, p50", "ms", bar=0.15),
    Row("create-remove", WIRE, "Create + Remove, p50", "ms"),
    Row("memory-1", COSTS, "peak memory in a layer of 1 GB", "MB", bar=64),
    Row("memory-4", COSTS, "peak memory in a layer of 4 GB", "MB", bar=64),
    Row("memory-diff-1", COSTS, "peak memory in a Diff of 1 GB", "MB", bar=64),
    Row("memory-diff-4", COSTS, "peak memory in a Diff of 4 GB", "MB", bar=64),
    Row("memory-engine", COSTS, "peak memory over all that was done on the engine", "MB"),
    Row("cpu-1", COSTS, "CPU for a layer of 1 GB"),
    Row("cpu-diff-1", COSTS, "CPU for a Diff of 1 GB"),
    Row("cpu-engine", COSTS, "CPU over all that was done on the engine"),
    Row("idle", COSTS, "CPU in an idle minute", "ms"),
    Row("start", COSTS, "start of the service, to its first reply", "ms"),
    Row("start-python", COSTS, "… and what a bare Python takes (python -c pass)", "ms"),
)

ROWS: Dict[str, Row] = {row.name: row for row in _ROWS}
PARTS = (ENGINE, WIRE, COSTS)
