"""Work on a real engine while something is killed again and again, and a count of what is whole.

Workers load and pull images, run containers, commit and remove, all at once, and take a refusal as
it comes.  What the engine acknowledged is written down, and has to be whole whenever it is asked
for.
"""

from __future__ import annotations

import functools
import os
import random
import re
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Set

from manuka.toolkit.daemon import Daemon
from manuka.toolkit.sandbox import Sandbox, SandboxError
from tests.engine.images import Image, Layer, SavedImage, busybox
from tests.engine.steps import inspect, layer_folders, layer_mounts

PULLERS = 2
JOBS = 4 + PULLERS
FILES = 30  # in the largest layer that is made meanwhile, which has a whiteout besides


class Storm:
    """One sandbox under load.  `calm` is the state in which it has to be whole."""

    def __init__(self, sandbox: Sandbox, registry: str, seed: int) -> None:
        self.sandbox = sandbox
        self.random = random.Random(seed)
        self.pullable = [self._push(f"{registry}/storm:{seed}-{n}") for n in range(PULLERS * 2)]
        self.loaded: Dict[str, Image] = {}
        self.pulled: Dict[str, Image] = {}
        self.committed: Dict[str, str] = {}
        self.wrong: List[str] = []
        self.done: Dict[str, int] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._spawn = sandbox.spawn
        sandbox.spawn = self._spawn_alone  # type: ignore[method-assign]

    def rage(self, daemon: Daemon, kills: int) -> None:
        """Kill `daemon` so often under load, then let the load end."""
        over = threading.Event()
        jobs: List[Callable[[], None]] = [self._load, self._load, self._commit, self._run]
        jobs += [functools.partial(self._pull, self.pullable[n::PULLERS]) for n in range(PULLERS)]
        assert len(jobs) == JOBS
        workers = [threading.Thread(target=self._work, args=(job, over)) for job in jobs]
        for worker in workers:
            worker.start()
        try:
            for _ in range(kills):
                time.sleep(self.random.uniform(0.05, 1.2))
                daemon.kill()
                time.sleep(self.random.choice((0, 0, 0.3)))
                self._start(daemon)
        finally:
            over.set()
            for worker in workers:
                worker.join(300)
        assert not any(worker.is_alive() for worker in workers), "a docker command hangs"

    def _start(self, daemon: Daemon) -> None:
        """Start it, as systemd would: once more if it does not come up for reasons of its own."""
        before = len(daemon.log_text())
        try:
            daemon.start(timeout=120)
        except SandboxError as error:
            log = daemon.log_text()[before:]
            if daemon is not self.sandbox.engine or re.search("graphdriver|storage", log, re.I):
                raise SandboxError(f"{error}\n{log[-3000:]}") from None
            self._count("second start")
            daemon.start(timeout=120)

    def _push(self, tag: str) -> Image:
        """An image that the registry has, and the engine not any more."""
        layers = [Layer().folder("srv/common").file("srv/common/file", bytes(100_000))]
        for depth in range(3):
            layer = Layer().whiteout("srv/common/file") if depth == 2 else Layer()
            for number in range(20):
                layer.file(f"srv/pulled/{depth}/{number}", os.urandom(3000))
            layers.append(layer)
        image = Image(tag, busybox(), *layers)
        self.sandbox.docker("load", input=image.archive())
        self.sandbox.docker("push", tag)
        self.sandbox.docker("rmi", tag)
        return image

    # --- work -------------------------------------------------------------------------------------

    def _work(self, job: Callable[[], None], over: threading.Event) -> None:
        while not over.is_set():
            try:
                job()
            except SandboxError as error:
                if "no end after" in str(error):
                    self.wrong.append(str(error))

    def _load(self) -> None:
        name = self._name("loaded")
        layer = Layer().folder("data").whiteout("etc/motd")
        for number in range(FILES):
            layer.file(f"data/{number}", os.urandom(3000))
        image = Image(name, busybox(), Layer().file("etc/motd", b"x"), layer)
        image.add(Layer().whiteout("data/3").file("data/4", name.encode()))
        if self._docker("load", input=image.archive()):
            self.loaded[name] = image
        if len(self.loaded) > 6:
            self._forget(self.loaded, self.random.choice(list(self.loaded)))

    def _pull(self, images: List[Image]) -> None:
        """Nobody else pulls these `images`, but all have layers in common."""
        image = self.random.choice(images)
        if image.tag in self.pulled:
            self._forget(self.pulled, image.tag)
        elif self._docker("pull", "-q", image.tag):
            self.pulled[image.tag] = image

    def _run(self) -> None:
        command = ("run", "--rm", "--network", "none", "box:1", "cat", "/etc/motd")
        result = self.sandbox.docker(*command, check=False)
        if result.returncode == 0:
            self._count("run")
            if result.stdout != b"welcome\n":
                self.wrong.append(f"a container saw {result.stdout!r}")

    def _commit(self) -> None:
        tag = self._name("committed")
        container = tag.partition(":")[0]
        script = f"echo {container} > /srv/token; rm /srv/tree/a"
        run = ("run", "--network", "none", "--name", container, "box:1", "sh", "-ec", script)
        if self._docker(*run) and self._docker("commit", container, tag):
            self.committed[tag] = container
        self._docker("rm", "-f", container)
        if len(self.committed) > 4:
            self._forget(self.committed, self.random.choice(list(self.committed)))

    def _forget(self, known: Dict[str, Any], tag: str) -> None:
        if known.pop(tag, None) is not None:
            self._docker("rmi", tag)

    def _docker(self, *command: str, input: bytes | None = None) -> bool:
        done = self.sandbox.docker(*command, input=input, check=False).returncode == 0
        if done:
            self._count(command[0])
        return done

    def _count(self, what: str) -> None:
        with self._lock:
            self.done[what] = self.done.get(what, 0) + 1

    def _name(self, kind: str) -> str:
        with self._lock:
            self._number += 1
            return f"{kind}{self._number}:1"

    def _spawn_alone(self, *arguments: object, **more: object) -> object:
        with self._lock:
            return self._spawn(*arguments, **more)  # type: ignore[arg-type]

    # --- what has to hold -------------------------------------------------------------------------

    def assert_whole(self) -> None:
        """Every image that was acknowledged, and every other that the engine lists, is whole."""
        assert self.wrong == []
        for tag, image in (*self.loaded.items(), *self.pulled.items()):
            assert self._saved(tag) == image.diff_ids, tag
        for tag, token in self.committed.items():
            command = "cat /srv/token; test ! -e /srv/tree/a; cat /etc/motd"
            said = self.sandbox.docker(
                *("run", "--rm", "--network", "none", tag, "sh", "-ec", command)
            ).stdout.decode()
            assert said == f"{token}\nwelcome\n", tag
        for tag in self._tags():
            assert self._saved(tag) == inspect(self.sandbox, tag)["RootFS"]["Layers"], tag

    def remove_everything(self) -> None:
        """All containers and all images but ``box:1``; a second try is the engine's own due."""
        for _ in range(3):
            for line in self._lines("ps", "-aq"):
                self.sandbox.docker("rm", "-f", line, check=False)
            for tag in self._tags():
                if tag != "box:1":
                    self.sandbox.docker("rmi", "-f", tag, check=False)
            for line in self._lines("images", "-q", "-f", "dangling=true"):
                self.sandbox.docker("rmi", "-f", line, check=False)
        self.loaded.clear()
        self.pulled.clear()
        self.committed.clear()

    def left(self, folders: Set[str]) -> Dict[str, int]:
        """Layers that nobody asks for any more, with the number of files in each."""
        home = self.sandbox.inside(self.sandbox.home)
        return {
            layer_id: sum(len(names) for _, _, names in os.walk(f"{home}/{layer_id}/diff"))
            for layer_id in layer_folders(self.sandbox) - folders
        }

    def rubbish(self) -> List[str]:
        """What of the driver's own is left that no layer explains."""
        home = self.sandbox.inside(self.sandbox.home)
        layers = layer_folders(self.sandbox) - {".incomplete"}
        found = [f".incomplete/{name}" for name in os.listdir(f"{home}/.incomplete")]
        targets = {name: os.readlink(f"{home}/l/{name}") for name in os.listdir(f"{home}/l")}
        found += [f"l/{n}" for n, to in targets.items() if to.split("/")[1] not in layers]
        if len(targets) != len(layers):
            found.append(f"{len(targets)} short links of {len(layers)} layers")
        return found

    def mounts(self) -> List[str]:
        return layer_mounts(self.sandbox)

    def _saved(self, tag: str) -> List[str]:
        return SavedImage(self.sandbox.docker("save", tag).stdout).diff_ids

    def _tags(self) -> List[str]:
        tags = self._lines("images", "--format", "{{.Repository}}:{{.Tag}}")
        return [tag for tag in tags if "<none>" not in tag]

    def _lines(self, *command: str) -> Iterator[str] | List[str]:
        return self.sandbox.docker(*command).stdout.decode().split()
