"""What is measured on the plugins without an engine: the calls themselves.

The engine's own driver has no wire; only for ApplyDiff is there something to compare with, which
`native` explains.  Neighbours: `wireplugin` is what is measured, `wireclient` measures.  Easy to
get wrong: the interpreter that sends a layer must not be the one that takes the time of other
calls meanwhile, hence `sender`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from typing import Callable, Iterator, NamedTuple, Sequence, Tuple

from manuka.api import calls
from manuka.toolkit.bench import archives
from manuka.toolkit.bench.archives import Stream
from manuka.toolkit.bench.disk import BenchError, Disk
from manuka.toolkit.bench.native import Unpacker
from manuka.toolkit.bench.processes import Watch
from manuka.toolkit.bench.turns import Stopwatch
from manuka.toolkit.bench.wireclient import Wire
from manuka.toolkit.bench.wireplugin import WirePlugin
from manuka.toolkit.namespace import with_this_package

#: The layers that `furnish` makes: an image of two, and a container.
BASE, UPPER, CONTAINER = "base", "upper", "container"

CALL_ROWS = ("get-put", "get-put-p99", "exists", "create-remove")
MANY_ROWS = ("apply-many", "apply-many-rate", "diff-many", "diff-many-rate")
BUSY_ROWS = ("get-put-busy", "get-put-busy-p99")
BIG_ROWS = (
    "apply-big-rate", "diff-big-rate", "memory-1", "memory-diff-1", "cpu-1", "cpu-diff-1",
)  # fmt: skip
HUGE_ROWS = ("memory-4", "memory-diff-4")


class Effort:
    """How much is done: `full`, or just enough to see that it works."""

    def __init__(self, quick: bool) -> None:
        self.calls = 20 if quick else 300
        self.busy_seconds = 0.5 if quick else 3.0
        self.many = archives.many_files(20 if quick else archives.MANY_FOLDERS, seed=22)
        self.entries = (20 if quick else archives.MANY_FOLDERS) * (archives.MANY_IN_EACH + 1)
        self.big = 20_000_000 if quick else archives.GB
        self.huge = 40_000_000 if quick else 4 * archives.GB


def furnish(plugin: WirePlugin) -> None:
    """Make the layers that every measurement starts from."""
    with plugin.connect() as wire:
        wire.create(BASE)
        wire.apply(BASE, "", archives.box())
        wire.create(UPPER, BASE)
        wire.apply(UPPER, BASE, archives.few_files(1))
        wire.create_read_write(CONTAINER, UPPER)


def call_turn(plugin: WirePlugin, watch: Stopwatch, effort: Effort) -> None:
    """The short calls."""
    plugin.disk.settle()
    with plugin.connect() as wire:
        for _ in range(20):
            wire.get_and_put(CONTAINER)
        for _ in range(effort.calls):
            _note_get_put(wire, watch, "get-put")
        for _ in range(effort.calls * 2):
            with watch.measure("exists", settle=False):
                wire.call(calls.EXISTS, ID=CONTAINER)
        for _ in range(effort.calls // 3):
            with watch.measure("create-remove", settle=False):
                wire.create("short", UPPER)
                wire.remove("short")


def many_turn(plugin: WirePlugin, watch: Stopwatch, effort: Effort) -> None:
    """A layer of many files, there and back."""
    with plugin.connect() as wire:
        wire.create("many", UPPER)
        with _rate(watch, "apply-many", "apply-many-rate", effort.entries, plugin.disk):
            wire.apply("many", UPPER, effort.many)
        with _rate(watch, "diff-many", "diff-many-rate", effort.entries, plugin.disk):
            plugin.connect().diff("many", UPPER)
        wire.remove("many")


def native_turn(unpacker: Unpacker, disk: Disk, watch: Stopwatch, effort: Effort) -> None:
    """The same layer, unpacked by the engine's own program."""
    folder = os.path.join(disk.folder, "unpacked")
    os.mkdir(folder, 0o755)
    disk.settle()
    took = unpacker.apply(folder, effort.many)
    watch.note("apply-many", took)
    watch.note("apply-many-rate", effort.entries / took)
    shutil.rmtree(folder)


def busy_turn(plugin: WirePlugin, watch: Stopwatch, effort: Effort) -> None:
    """Get and Put while a layer of many files is being unpacked."""
    with _sending(plugin, effort.many), plugin.connect() as wire:
        end = time.monotonic() + effort.busy_seconds
        while time.monotonic() < end:
            _note_get_put(wire, watch, "get-put-busy")
            time.sleep(0.003)


def big_turn(plugin: WirePlugin, watch: Stopwatch, effort: Effort) -> None:
    """A layer of one large file, there and back: speed, memory and CPU."""
    layer = archives.one_file(effort.big, seed=23)
    with plugin.connect() as wire:
        wire.create("big", UPPER)
        plugin.disk.settle()
        with Watch(plugin.pid) as cost:
            took = _seconds(wire, "big", layer)
        watch.note("apply-big-rate", layer.size / 1e6 / took)
        watch.note("memory-1", cost.peak / 1e6)
        watch.note("cpu-1", cost.cpu)
        plugin.disk.settle()
        with Watch(plugin.pid) as cost:
            began = time.perf_counter()
            plugin.connect().diff("big", UPPER)
            took = time.perf_counter() - began
        watch.note("diff-big-rate", layer.size / 1e6 / took)
        watch.note("memory-diff-1", cost.peak / 1e6)
        watch.note("cpu-diff-1", cost.cpu)
        wire.remove("big")
    plugin.disk.trim()


def huge_turn(plugin: WirePlugin, watch: Stopwatch, effort: Effort) -> None:
    """The memory in a layer four times as large."""
    layer = archives.one_file(effort.huge, seed=24)
    with plugin.connect() as wire:
        wire.create("huge", UPPER)
        with Watch(plugin.pid) as cost:
            wire.apply("huge", UPPER, layer)
        watch.note("memory-4", cost.peak / 1e6)
        plugin.disk.settle()
        with Watch(plugin.pid) as cost:
            plugin.connect().diff("huge", UPPER)
        watch.note("memory-diff-4", cost.peak / 1e6)
        wire.remove("huge")
    plugin.disk.trim()


class Part(NamedTuple):
    """What is done in turns: see `turns.take_turns`."""

    title: str
    rows: Tuple[str, ...]
    rounds: int
    warm_up: bool
    turn: Callable[[WirePlugin, Stopwatch, Effort], None]


PARTS = (
    Part("calls", CALL_ROWS, 6, True, call_turn),
    Part("many files on the wire", MANY_ROWS, 6, True, many_turn),
    Part("calls while a layer is applied", BUSY_ROWS, 4, False, busy_turn),
    Part("a layer of 1 GB", BIG_ROWS, 3, True, big_turn),
    Part("a layer of 4 GB", HUGE_ROWS, 1, False, huge_turn),
)


def _seconds(wire: Wire, layer: str, tar: Stream) -> float:
    began = time.perf_counter()
    wire.apply(layer, UPPER, tar)
    return time.perf_counter() - began


def _note_get_put(wire: Wire, watch: Stopwatch, row: str) -> None:
    began = time.perf_counter()
    wire.get_and_put(CONTAINER)
    took = (time.perf_counter() - began) * 1000
    watch.note(row, took)
    watch.note(row + "-p99", took)


@contextlib.contextmanager
def _rate(
    watch: Stopwatch, seconds_row: str, rate_row: str, amount: float, disk: Disk
) -> Iterator[None]:
    disk.settle()
    began = time.perf_counter()
    yield
    took = time.perf_counter() - began
    watch.note(seconds_row, took)
    watch.note(rate_row, amount / took)


@contextlib.contextmanager
def _sending(plugin: WirePlugin, layer: Stream) -> Iterator[None]:
    """Another process sends layers to the plugin."""
    command: Sequence[str] = (
        *(sys.executable, "-m", "manuka.toolkit.bench.sender", plugin.socket),
        *(UPPER, str(layer.size)),
    )
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=with_this_package(os.environ),
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for piece in layer:
            child.stdin.write(piece)
        child.stdin.flush()
        if not child.stdout.readline():
            raise BenchError("the layers to keep the plugin busy could not be sent")
        time.sleep(0.1)
        yield
    finally:
        child.stdin.close()
        try:
            child.wait(120)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
