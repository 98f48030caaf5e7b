"""What is measured on the engines: each scenario is prepared once and then done in turns.

A turn leaves the engine as it found it.  Rows that need the same image share a scenario, so that
it is loaded once for all of them.  Neighbours: `docker` does the work, `archives` makes the
images, `turns` says who is next.  Easy to get wrong: measuring something by the way that another
contender has not done at that moment.
"""

from __future__ import annotations

import abc
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from manuka.toolkit.bench import archives
from manuka.toolkit.bench.archives import Stream
from manuka.toolkit.bench.contender import Contender
from manuka.toolkit.bench.disk import MB
from manuka.toolkit.bench.registry import Registry
from manuka.toolkit.bench.turns import Stopwatch

BOX = "box:1"


class Scenario(abc.ABC):
    """rows: what it measures; rounds: how many turns each has; memory: bytes it needs at most.

    warm_up: whether there is a turn before them that does not count.
    """

    name: str
    rows: Tuple[str, ...]
    rounds: int
    memory = 700 * MB
    warm_up = True

    def make(self) -> None:
        """Make what all contenders are given."""

    def prepare(self, contender: Contender) -> None:
        """What has to be there before the first turn."""

    @abc.abstractmethod
    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        """Measure each row once or more."""

    def finish(self, contender: Contender) -> None:
        """Take back what `prepare` did."""

    def end(self) -> None:
        """Take back what `make` did."""


class Runs(Scenario):
    """Containers of busybox, one after another; and what is done with one that has ended."""

    name = "runs"
    rows = ("run", "rm", "cp-in", "cp-out")
    rounds = 8
    each = 4

    def make(self) -> None:
        self._tar = archives.single("copied", 100_000)

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        docker = contender.docker
        for _ in range(self.each):
            with watch.measure("run"):
                docker.run(BOX, "true")
        for _ in range(self.each):
            container = docker.run_to_its_end(BOX, "sh", "-c", "echo 1 > /new")
            with watch.measure("cp-in"):
                docker.cp_in(container, "/srv", self._tar)
            with watch.measure("cp-out"):
                docker.cp_out(container, "/srv/copied")
            with watch.measure("rm"):
                docker.rm(container)


class Together(Scenario):
    """Containers at the same time."""

    def __init__(self, count: int, rounds: int) -> None:
        self.name = f"{count} at once"
        self.rows = (f"run-{count}",)
        self.rounds = rounds
        self._count = count

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        with watch.measure(self.rows[0]):
            contender.docker.run_at_once(self._count, BOX, "true")


class ManyFiles(Scenario):
    """An image with a layer of many small files."""

    name = "many files"
    rows = ("load-many", "diff", "save-many", "rmi-many")
    rounds = 5
    memory = 2500 * MB
    warm_up = False

    def __init__(self, folders: int = archives.MANY_FOLDERS) -> None:
        self._folders = folders

    def make(self) -> None:
        layers = [archives.marked_box(11), archives.many_files(self._folders, seed=11)]
        self._archive = archives.image("many:1", layers)

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        docker = contender.docker
        with watch.measure("load-many"):
            docker.load(self._archive, self._archive.size)
        container = docker.run_to_its_end(
            "many:1", "sh", "-c", "cd /usr/share/s11/d0003; echo 1 > new; rm file02.txt; mkdir d"
        )
        for _ in range(2):
            with watch.measure("diff"):
                docker.diff(container)
        docker.rm(container)
        with watch.measure("save-many"):
            docker.save("many:1")
        with watch.measure("rmi-many"):
            docker.rmi("many:1")
        contender.disk.trim()

    def end(self) -> None:
        del self._archive


class DeepImage(Scenario):
    """An image of many layers, each of which is small."""

    rounds = 6
    warm_up = False

    def __init__(self, layers: int, rows: Dict[str, str], rounds: int) -> None:
        """rows: what is measured of load, save, run and rmi, by the row's name."""
        self.name = f"{layers} layers"
        self.rows = tuple(rows.values())
        self.rounds = rounds
        self._layers = layers
        self._named = rows

    def make(self) -> None:
        layers = archives.deep(self._layers, seed=self._layers)
        self._archive = archives.image("deep:1", layers)

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        docker = contender.docker
        steps: List[Tuple[str, int, Callable[[], object]]] = [
            ("load", 1, lambda: docker.load(self._archive, self._archive.size)),
            ("save", 2, lambda: docker.save("deep:1")),
            ("run", 5, lambda: docker.run("deep:1", "true")),
            ("rmi", 1, lambda: docker.rmi("deep:1")),
        ]
        for step, times, do in steps:
            row = self._named.get(step)
            if row is not None:
                for _ in range(times):
                    with watch.measure(row):
                        do()
            elif step in ("load", "rmi"):
                do()


class BigFile(Scenario):
    """An image with one file of 1 GB."""

    name = "big file"
    rows = ("load-big",)
    rounds = 3
    memory = 4500 * MB
    warm_up = False

    def make(self) -> None:
        self._archive = archives.image("big:1", [archives.one_file(seed=12)])

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        with watch.measure("load-big"):
            contender.docker.load(self._archive, self._archive.size)
        contender.docker.rmi("big:1")
        contender.disk.trim()


class Commit(Scenario):
    """A container with new files becomes an image.

    Each turn has files of its own, and what it makes stays to the end: the engine would throw a
    layer that it has already away, and ext4 looks for a free inode among all that were freed within
    the last minute, one by one, which takes longer than all else.
    """

    name = "commit"
    rows = ("commit",)
    rounds = 8

    def __init__(self, files: int = 5000) -> None:
        self._files = files
        self._made: Dict[str, List[str]] = {}

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        docker = contender.docker
        made = self._made.setdefault(contender.name, [])
        script = (
            f"mkdir /new; cd /new; for i in $(seq {self._files});"
            f" do echo $i some text that is new in {len(made)} > $i; done"
        )
        made.append(docker.run_to_its_end(BOX, "sh", "-ec", script))
        with watch.measure("commit"):
            docker.commit(made[-1], f"committed{len(made)}")

    def finish(self, contender: Contender) -> None:
        for number, container in enumerate(self._made.pop(contender.name, ())):
            contender.docker.rm(container)
            contender.docker.rmi(f"committed{number + 1}:1")


class Build(Scenario):
    """A Dockerfile, by the classic builder."""

    name = "build"
    rows = ("build",)
    rounds = 5

    _DOCKERFILE = """\
FROM box:1
RUN mkdir /made && seq 1000 > /made/list
COPY files /srv/first
RUN cd /srv/first && for f in 1 2 3 4 5; do sed -i s/a/b/ $f; done
COPY files /srv/second
RUN rm -r /srv/first
COPY files/7 /etc/seven
RUN cat /etc/seven > /etc/eight
"""

    def make(self) -> None:
        self._context = archives.context(self._DOCKERFILE)

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        with watch.measure("build"):
            contender.docker.build("built:1", self._context)
        contender.docker.rmi("built:1")


class Pull(Scenario):
    """The image of many files from a registry on this machine."""

    name = "pull"
    rows = ("pull-many",)
    rounds = 3
    memory = 2500 * MB
    warm_up = False

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._pushed = False

    def make(self) -> None:
        self._registry.start()
        layers = [archives.marked_box(13), archives.many_files(seed=13)]
        self._archive: Optional[Stream] = archives.image(self._image + ":1", layers)

    @property
    def _image(self) -> str:
        return f"{self._registry.address}/many"

    def prepare(self, contender: Contender) -> None:
        """The first contender fills the registry."""
        if self._archive is not None:
            contender.docker.load(self._archive, self._archive.size)
            contender.docker.push(self._image)
            contender.docker.rmi(self._image + ":1")
            contender.disk.trim()
            self._archive = None

    def turn(self, contender: Contender, watch: Stopwatch) -> None:
        with watch.measure("pull-many"):
            contender.docker.pull(self._image)
        contender.docker.rmi(self._image + ":1")
        contender.disk.trim()

    def end(self) -> None:
        self._registry.stop()


def full(registry: Optional[Registry]) -> List[Scenario]:
    """All of them; that with a registry only when there is one."""
    found: List[Scenario] = [
        Runs(),
        Together(8, 10),
        Together(32, 4),
        ManyFiles(),
        DeepImage(
            60,
            {
                "load": "load-60-layers",
                "save": "save-60-layers",
                "run": "run-60-layers",
                "rmi": "rmi-60-layers",
            },
            6,
        ),
        DeepImage(125, {"load": "load-125-layers"}, 3),
        BigFile(),
        Commit(),
        Build(),
    ]
    if registry is not None:
        found.append(Pull(registry))
    return found


def quick() -> List[Scenario]:
    """What shows within seconds that everything works; its figures mean little."""
    runs = Runs()
    runs.each = 1
    small: Sequence[Scenario] = (
        runs,
        Together(8, 1),
        ManyFiles(folders=20),
        DeepImage(60, {"load": "load-60-layers", "rmi": "rmi-60-layers"}, 1),
        Commit(files=200),
    )
    for scenario in small:
        scenario.rounds = 1
        scenario.warm_up = False
        scenario.memory = 500 * MB
    return list(small)
