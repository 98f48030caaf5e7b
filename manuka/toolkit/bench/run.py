"""One run of the benchmark, from the disks to the figures.

`manuka.commands.bench` calls `run_bench`; everything else in this package is called from here.
Easy to get wrong: a part that fails must not take the figures of the others with it, and must not
go untold either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from manuka.errors import ManukaError
from manuka.toolkit import busybox
from manuka.toolkit import engine as engines
from manuka.toolkit.bench import (
    archives,
    costs,
    growth,
    machine,
    processes,
    registry,
    scenarios,
    wire,
)
from manuka.toolkit.bench.contender import Choice, Contender
from manuka.toolkit.bench.disk import MB, BenchError, Disk, Disks
from manuka.toolkit.bench.native import Unpacker
from manuka.toolkit.bench.results import Results
from manuka.toolkit.bench.rows import NATIVE, ROWS
from manuka.toolkit.bench.scenarios import Scenario
from manuka.toolkit.bench.turns import Stopwatch, take_turns
from manuka.toolkit.bench.wireplugin import WirePlugin
from manuka.toolkit.ending import interrupted_by_signals

_DISK_SIZE = 10_000 * MB
_WIRE_MEMORY = 1500 * MB
_BIG_MEMORY = 2000 * MB
_HUGE_MEMORY = 5500 * MB
_BUSY = 0.1  # of the CPUs' time, by others

Say = Callable[[str], None]


class Options(NamedTuple):
    """What to do.

    only: names of rows; none: all.
    rounds: how many rounds everything has; None: as many as each needs.
    """

    choice: Choice
    only: Tuple[str, ...] = ()
    rounds: Optional[int] = None
    quick: bool = False
    growth: bool = False

    def wants(self, *rows: str) -> bool:
        return not self.only or any(row in self.only for row in rows)


def run_bench(options: Options, say: Say) -> Results:
    """Measure, and give back what was found; a signal ends it early with what there is.

    say: told what is being done.  Raises BenchError and SandboxError when it cannot be done here.
    """
    for row in options.only:
        if row not in ROWS:
            raise BenchError(f"there is no figure {row!r}: --list names them")
    program = engines.find(options.choice.engine)
    for driver in ("overlay2", "manuka"):
        engines.check(program, driver)
    visible = [os.getcwd(), sys.executable, busybox.find(), program.path, os.path.dirname(__file__)]
    visible += [path for path in (options.choice.go, registry.find()) if path is not None]
    results = Results()
    results.facts = machine.facts(program.version_text)
    in_use = machine.share_in_use()
    results.facts["CPUs in use before"] = f"{in_use:.0%}"
    if options.quick:
        results.notes.append("This was a quick run: sizes are smaller than told, once each.")
    if in_use > _BUSY:
        results.notes.append(
            "The machine was busy with other things when this began: its figures are not to be "
            "relied on."
        )
    with interrupted_by_signals(), Disks(_memory(options), visible) as disks:
        try:
            _Run(options, say, results, disks, program).everything()
        except KeyboardInterrupt as error:
            results.interrupted = signal.Signals(error.args[0]).name
    return results


class _Run:
    """One run's state: what each part adds to and takes from."""

    def __init__(
        self, options: Options, say: Say, results: Results, disks: Disks, program: engines.Program
    ) -> None:
        self.options = options
        self.say = say
        self.results = results
        self._program = program
        names = options.choice.names
        self.disks: Dict[str, Disk] = {name: disks.make(name, _DISK_SIZE) for name in names}

    def everything(self) -> None:
        chosen = [
            scenario
            for scenario in _scenarios(self.options, self.disks[NATIVE])
            if self.options.wants(*scenario.rows)
        ]
        if chosen or self.options.wants("memory-engine", "cpu-engine"):
            with self._told("the engines"):
                self._on_engines(chosen)
        for disk in self.disks.values():
            disk.trim()
        with self._told("the wire"):
            self._on_the_wire()
        with self._told("the start"):
            self._starts()
        if self.options.growth:
            with self._told("growth on engines"), contextlib.ExitStack() as stack:
                growth.on_engines(self._contenders(stack), self.results, self._sizes, self.say)
            for disk in self.disks.values():
                disk.trim()
            with self._told("growth on the wire"), contextlib.ExitStack() as stack:
                growth.on_the_wire(self._plugins(stack), self.results, self._sizes, self.say)

    # --- on engines ------------------------------------------------------------------------------

    def _on_engines(self, chosen: Sequence[Scenario]) -> None:
        with contextlib.ExitStack() as stack:
            contenders = self._contenders(stack)
            watches = {
                contender.name: stack.enter_context(processes.Watch(contender.plugin_pid, 1.0))
                for contender in contenders
                if contender.plugin_pid is not None
            }
            for scenario in chosen:
                with self._told(scenario.name):
                    self._scenario(scenario, contenders)
            for name, watch in watches.items():
                watch.__exit__(None, None, None)
                self.results.add("memory-engine", name, 0, watch.peak / 1e6)
                self.results.add("cpu-engine", name, 0, watch.cpu)
            self.say("stopping the engines")

    def _contenders(self, stack: contextlib.ExitStack) -> List[Contender]:
        """An engine on each driver, with busybox; they end with `stack`."""
        contenders: List[Contender] = []
        box = archives.image(scenarios.BOX, [archives.box()])
        for name, disk in self.disks.items():
            self.say(f"starting the engine on {name}")
            contender = Contender(name, disk, self.options.choice)
            contenders.append(stack.enter_context(contender))
            contender.docker.load(box, box.size)
        return contenders

    def _plugins(self, stack: contextlib.ExitStack) -> List[WirePlugin]:
        """The plugins without engines, with a few layers; they end with `stack`."""
        plugins: List[WirePlugin] = []
        for name in self.options.choice.plugins:
            plugin = WirePlugin(name, self.disks[name], self.options.choice)
            plugins.append(stack.enter_context(plugin))
            wire.furnish(plugin)
        return plugins

    def _scenario(self, scenario: Scenario, contenders: Sequence[Contender]) -> None:
        rounds = self.options.rounds or scenario.rounds
        self.say(f"{scenario.name}: preparing")
        scenario.make()
        try:
            for contender in contenders:
                scenario.prepare(contender)

            def turn(contender: Contender, number: int) -> None:
                self.say(f"{scenario.name}: {_round(number, rounds)}, {contender.name}")
                watch = Stopwatch(self.results, contender.name, number, contender.disk)
                scenario.turn(contender, watch)

            take_turns(contenders, rounds, scenario.warm_up, turn)
            for contender in contenders:
                scenario.finish(contender)
                contender.disk.trim()
        finally:
            scenario.end()

    # --- on the wire -----------------------------------------------------------------------------

    def _on_the_wire(self) -> None:
        options, effort = self.options, wire.Effort(self.options.quick)
        wanted = [part for part in wire.PARTS if options.wants(*part.rows)]
        if not wanted and not options.wants("idle"):
            return
        unpacker = self._unpacker()
        with contextlib.ExitStack() as stack:
            plugins = self._plugins(stack)
            for part in wanted:
                with self._told(part.title):
                    self._wire_part(part, plugins, unpacker, effort)
            if options.wants("idle"):
                self._idle(plugins)

    def _wire_part(
        self,
        part: wire.Part,
        plugins: Sequence[WirePlugin],
        unpacker: Optional[Unpacker],
        effort: wire.Effort,
    ) -> None:
        rounds = 1 if self.options.quick else self.options.rounds or part.rounds
        takers: List[Optional[WirePlugin]] = [*plugins]
        if unpacker is not None and "apply-many" in part.rows:
            takers.insert(0, None)

        def turn(plugin: Optional[WirePlugin], number: int) -> None:
            name = NATIVE if plugin is None else plugin.name
            self.say(f"{part.title}: {_round(number, rounds)}, {name}")
            watch = Stopwatch(self.results, name, number, self.disks[name])
            if plugin is not None:
                part.turn(plugin, watch, effort)
            elif unpacker is not None:
                wire.native_turn(unpacker, self.disks[name], watch, effort)

        take_turns(takers, rounds, part.warm_up and not self.options.quick, turn)

    def _unpacker(self) -> Optional[Unpacker]:
        if not self.options.wants(*wire.MANY_ROWS):
            return None
        unpacker = Unpacker(self._program.path)
        if unpacker.works(self.disks[NATIVE].folder):
            return unpacker
        self.results.notes.append(
            f"Docker {self._program.version_text} has no unpacking that can be run by itself "
            "(up to 23 it has): there is no figure of native's for ApplyDiff"
        )
        return None

    def _idle(self, plugins: Sequence[WirePlugin]) -> None:
        seconds = 2.0 if self.options.quick else costs.IDLE_SECONDS
        self.say(f"idle for {seconds:.0f} s")
        for name, used in processes.idle_cpu(
            {plugin.name: plugin.pid for plugin in plugins}, seconds
        ).items():
            self.results.add("idle", name, 0, used * 1000)

    def _starts(self) -> None:
        if not self.options.wants("start", "start-python"):
            return
        self.say("starting the services")
        for number in range(2 if self.options.quick else self.options.rounds or 10):
            for name in self.options.choice.plugins:
                taken = costs.start_of_service(name, self.options.choice)
                self.results.add("start", name, number, taken)
            self.results.add("start-python", "manuka", number, costs.start_of_python())

    @property
    def _sizes(self) -> growth.Sizes:
        return growth.SMALL if self.options.quick else growth.FULL

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What fails in here is told with the results, and the next part goes on."""
        try:
            yield
        except ManukaError as error:
            self.results.failures.append(f"{what}: {error}")
            self.say(f"{what} failed: {error}")


def _scenarios(options: Options, disk: Disk) -> List[Scenario]:
    if options.quick:
        return scenarios.quick()
    program = registry.find()
    return scenarios.full(
        registry.Registry(program, os.path.dirname(disk.folder)) if program else None
    )


def _memory(options: Options) -> int:
    """What has to be free for what was chosen."""
    if options.quick:
        return 1500 * MB
    needs = [1000 * MB]
    needs += [scenario.memory for scenario in scenarios.full(None) if options.wants(*scenario.rows)]
    needs += [
        need
        for rows, need in (
            (wire.MANY_ROWS + wire.BUSY_ROWS, _WIRE_MEMORY),
            (wire.BIG_ROWS, _BIG_MEMORY),
            (wire.HUGE_ROWS, _HUGE_MEMORY),
        )
        if options.wants(*rows)
    ]
    return max(needs)


def _round(number: int, rounds: int) -> str:
    return "warm-up" if number < 0 else f"round {number + 1} of {rounds}"
