"""How the work grows with files, bytes, layers, mounts, and layers in store.

Each series is a few sizes, at each of which everybody is measured in turn, some times; a point is
the median.  Neighbours: `run` calls it with ``--growth``, `archives` makes what grows.  Easy to get
wrong: a series on one home, where what an earlier size has left makes the later one slower.
"""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from manuka.api import calls
from manuka.toolkit.bench import archives
from manuka.toolkit.bench.contender import Contender
from manuka.toolkit.bench.disk import Disk
from manuka.toolkit.bench.processes import peak_bytes
from manuka.toolkit.bench.results import Point, Results
from manuka.toolkit.bench.stats import median
from manuka.toolkit.bench.turns import order
from manuka.toolkit.bench.wire import BASE, UPPER
from manuka.toolkit.bench.wireclient import Wire
from manuka.toolkit.bench.wireplugin import WirePlugin

Say = Callable[[str], None]


class Sizes(NamedTuple):
    """What each series goes through, and how often each point is measured."""

    files: Tuple[int, ...]
    megabytes: Tuple[int, ...]
    layers: Tuple[int, ...]
    mounted: Tuple[int, ...]
    stored: Tuple[int, ...]
    times: int


FULL = Sizes(
    files=(100, 1000, 5000, 20_000, 50_000),
    megabytes=(1, 10, 100, 1000),
    layers=(1, 10, 30, 60, 124),
    mounted=(0, 10, 100, 500),
    stored=(10, 100, 1000, 10_000),
    times=3,
)
SMALL = Sizes((10, 100), (1, 2), (1, 5), (0, 2), (5, 10), 1)


class _Samples:
    """The samples of one size, until they become points."""

    def __init__(self) -> None:
        self._found: Dict[Tuple[str, str, str], List[float]] = {}

    def add(self, title: str, unit: str, who: str, value: float) -> None:
        self._found.setdefault((title, unit, who), []).append(value)

    @contextlib.contextmanager
    def measure(self, title: str, unit: str, who: str) -> Iterator[None]:
        """Of the block's time, in ``s`` or ``ms``."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.add(title, unit, who, took * 1000 if unit == "ms" else took)

    def into(self, results: Results, axis: str, size: int) -> None:
        for (title, unit, who), values in self._found.items():
            results.grew(title, axis, unit, who, Point(size, median(values)))


def on_engines(contenders: Sequence[Contender], results: Results, sizes: Sizes, say: Say) -> None:
    """Load, diff, save, commit and rmi by files; load, run and rmi by layers."""
    for count in sizes.files:
        say(f"growth: {count} files")
        layers = [archives.marked_box(41), archives.tiny_files(count, 41)]
        archive = archives.image("grown:1", layers)
        samples = _Samples()
        for number in range(sizes.times):
            for contender in order(contenders, number):
                _files_on_engine(contender, archive, samples)
        samples.into(results, "files", count)
    for count in sizes.layers:
        say(f"growth: {count} layers")
        archive = archives.image("deep:1", archives.deep(count, seed=42))
        samples = _Samples()
        for number in range(sizes.times):
            for contender in order(contenders, number):
                _layers_on_engine(contender, archive, samples)
        samples.into(results, "layers", count)


def _files_on_engine(contender: Contender, archive: archives.Stream, samples: _Samples) -> None:
    docker, name = contender.docker, contender.name
    with _settled(contender.disk), samples.measure("docker load", "ms", name):
        docker.load(archive, archive.size)
    script = "cp -r /srv/t41 /srv/copy; echo 1 > /srv/t41/0000/new"
    container = docker.run_to_its_end("grown:1", "sh", "-ec", script)
    with _settled(contender.disk), samples.measure("docker diff, all files new", "ms", name):
        docker.diff(container)
    with _settled(contender.disk), samples.measure("docker commit, all files new", "ms", name):
        docker.commit(container, "committed")
    docker.rmi("committed:1")
    docker.rm(container)
    with _settled(contender.disk), samples.measure("docker save", "ms", name):
        docker.save("grown:1")
    with _settled(contender.disk), samples.measure("docker rmi", "ms", name):
        docker.rmi("grown:1")
    contender.disk.trim()


def _layers_on_engine(contender: Contender, archive: archives.Stream, samples: _Samples) -> None:
    docker, name = contender.docker, contender.name
    with _settled(contender.disk), samples.measure("docker load, by layers", "ms", name):
        docker.load(archive, archive.size)
    for _ in range(3):
        with _settled(contender.disk), samples.measure("docker run --rm, by layers", "ms", name):
            docker.run("deep:1", "true")
    with _settled(contender.disk), samples.measure("docker rmi, by layers", "ms", name):
        docker.rmi("deep:1")


def on_the_wire(plugins: Sequence[WirePlugin], results: Results, sizes: Sizes, say: Say) -> None:
    """ApplyDiff, Diff and Remove by files and bytes; short calls by layers, mounts and store."""
    for count in sizes.files:
        say(f"growth: {count} files on the wire")
        _streams(plugins, archives.tiny_files(count, 43), "files", count, results, sizes)
    for size in sizes.megabytes:
        say(f"growth: {size} MB on the wire")
        layer = archives.one_file(size * 1_000_000, seed=44)
        _streams(plugins, layer, "MB", size, results, sizes)
    for axis, counts, grow in (
        ("layers below", sizes.layers, _layers),
        ("mounted", sizes.mounted, _mounted),
        ("in store", sizes.stored, _stored),
    ):
        for count in counts:
            say(f"growth: {count} {axis}")
            samples = _Samples()
            for plugin in plugins:
                grow(plugin, count, samples)
            samples.into(results, axis, count)


def _streams(
    plugins: Sequence[WirePlugin],
    layer: archives.Stream,
    axis: str,
    size: int,
    results: Results,
    sizes: Sizes,
) -> None:
    samples = _Samples()
    for number in range(sizes.times):
        for plugin in order(plugins, number):
            with plugin.connect() as wire:
                wire.create("grown", UPPER)
                name = plugin.name
                with _settled(plugin.disk), samples.measure(f"ApplyDiff, by {axis}", "ms", name):
                    wire.apply("grown", UPPER, layer)
                with _settled(plugin.disk), samples.measure(f"Diff, by {axis}", "ms", name):
                    plugin.connect().diff("grown", UPPER)
                with _settled(plugin.disk), samples.measure(f"Remove, by {axis}", "ms", name):
                    wire.remove("grown")
            plugin.disk.trim()
    samples.into(results, axis, size)


def _layers(plugin: WirePlugin, count: int, samples: _Samples) -> None:
    """Short calls on a container above so many layers."""
    with plugin.connect() as wire, _chain(wire, count) as layers:
        with _container(wire, layers[-1]) as container:
            _short_calls(wire, container, plugin.name, "layers below", samples)


def _mounted(plugin: WirePlugin, count: int, samples: _Samples) -> None:
    """Short calls on one container while so many others are mounted."""
    with plugin.connect() as wire, contextlib.ExitStack() as stack:
        for number in range(count):
            other = stack.enter_context(_container(wire, UPPER, f"other{number}"))
            wire.call(calls.GET, ID=other, MountLabel="")
            stack.callback(wire.call, calls.PUT, ID=other)
        container = stack.enter_context(_container(wire, UPPER))
        _short_calls(wire, container, plugin.name, "mounted containers", samples)


def _stored(plugin: WirePlugin, count: int, samples: _Samples) -> None:
    """Short calls and a restart of the plugin with so many layers in its home."""
    with plugin.connect() as wire:
        for number in range(count):
            wire.create(f"kept{number}", UPPER)
        with _container(wire, UPPER) as container:
            _short_calls(wire, container, plugin.name, "layers in store", samples)
    plugin.stop()
    with samples.measure("start with Init, by layers in store", "ms", plugin.name):
        plugin.start()
    memory = peak_bytes(plugin.pid) / 1e6
    samples.add("memory after a start, by layers in store", "MB", plugin.name, memory)
    with plugin.connect() as wire:
        for number in range(count):
            wire.remove(f"kept{number}")


def _short_calls(wire: Wire, container: str, name: str, by: str, samples: _Samples) -> None:
    for _ in range(10):
        wire.get_and_put(container)
    for _ in range(50):
        with samples.measure("Get + Put, by " + by, "ms", name):
            wire.get_and_put(container)
    for _ in range(50):
        with samples.measure("Exists, by " + by, "ms", name):
            wire.call(calls.EXISTS, ID=container)
    for _ in range(20):
        with samples.measure("Create + Remove, by " + by, "ms", name):
            wire.create("short", container)
            wire.remove("short")


@contextlib.contextmanager
def _container(wire: Wire, parent: str, name: str = "grown-container") -> Iterator[str]:
    wire.create_read_write(name, parent)
    yield name
    wire.remove(name)


@contextlib.contextmanager
def _chain(wire: Wire, count: int) -> Iterator[List[str]]:
    """So many layers, each upon the one before."""
    made: List[str] = []
    parent = BASE
    for number in range(count):
        made.append(f"chain{number}")
        wire.create(made[-1], parent if number else "")
        wire.apply(made[-1], parent if number else "", archives.few_files(number))
        parent = made[-1]
    yield made
    for layer in reversed(made):
        wire.remove(layer)


@contextlib.contextmanager
def _settled(disk: Disk) -> Iterator[None]:
    """Write out first what is waiting."""
    disk.settle()
    yield
