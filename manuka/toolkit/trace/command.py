"""The command ``manuka trace``: around a command, on a plugin's socket, or from a recording.

Easy to get wrong: stdout is the traced command's own, so calls go to stderr there; and a Ctrl-C has
to end with the summary, and with the plugin's socket back in its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from typing import IO, Iterator, List, NamedTuple, Optional, Sequence

from manuka.errors import ManukaError
from manuka.linux.private import make_directories
from manuka.linux.tree import remove_tree
from manuka.toolkit import images
from manuka.toolkit.command import in_sandbox, run_command
from manuka.toolkit.ending import interrupted_by_signals
from manuka.toolkit.namespace import SandboxError
from manuka.toolkit.sandbox import Sandbox
from manuka.toolkit.trace import show, timeline
from manuka.toolkit.trace.call import Call, read
from manuka.toolkit.trace.observer import Recorder
from manuka.toolkit.trace.proxy import Interposed, Proxy
from manuka.toolkit.trace.replay import Replayed, replay


class Output(NamedTuple):
    """Where calls go besides the screen: a recording, a folder for layers, drawings."""

    record: Optional[str]
    layers: Optional[str]
    timeline: bool
    svg: Optional[str]


class _Session:
    """One tracing: gets every call, prints and keeps those that are asked for."""

    def __init__(self, output: Output, screen: IO[str], watching: bool) -> None:
        self.watching = watching
        self._output = output
        self._screen = screen
        self._calls: List[Call] = []
        self._origin = 0.0
        self._record: Optional[IO[str]] = None
        if output.layers is not None:
            make_directories(os.path.abspath(output.layers), 0o700)  # an image may hold secrets
        if output.record is not None:
            self._record = open(output.record, "w", encoding="utf-8")  # noqa: SIM115
        self.recorder = Recorder(self._on_call, output.layers)

    def _on_call(self, call: Call) -> None:
        if self._record is not None:
            self._record.write(call.to_json() + "\n")
            self._record.flush()
        if self.watching:
            self._calls.append(call)
            self._origin = self._origin or call.began
            print(show.line(call, self._origin), file=self._screen, flush=True)

    def close(self) -> None:
        """Print the sum, and draw."""
        if self._record is not None:
            self._record.close()
        _report(self._calls, self._output.timeline, self._output.svg, self._screen)


def trace_command(
    output: Output,
    command: List[str],
    driver: str,
    engine: Optional[str],
    storage_opts: Sequence[str],
    everything: bool,
) -> int:
    """Run `command` against a private engine, and show the calls that it causes.

    The engine has an image ``busybox``.  everything: show the engine's start and end as well; a
    recording has them always.  Returns the command's status.
    """
    session = _Session(output, sys.stderr, watching=everything)

    def make() -> Sandbox:
        return Sandbox(
            engine,
            driver,
            storage_opts,
            between=lambda front, back: Proxy(front, back, session.recorder),
        )

    def furnish(sandbox: Sandbox) -> List[str]:
        if sandbox.plugin is None:
            raise SandboxError(
                f"{driver} is a driver of the engine itself, which it asks without a plugin; "
                "there is nothing to trace"
            )
        return images.built_in()(sandbox)

    def work(sandbox: Sandbox) -> int:
        session.watching = True
        try:
            return run_command(sandbox, command)
        finally:
            session.watching = everything

    status = in_sandbox(make, work, furnish)
    session.close()
    return status


def trace_socket(output: Output, socket_path: str, listen: Optional[str]) -> int:
    """Show the calls on a plugin's socket until SIGINT or SIGTERM."""
    session = _Session(output, sys.stdout, watching=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: stop.set())
    with contextlib.ExitStack() as stack:
        if listen is not None:
            if not os.path.exists(socket_path):
                raise ManukaError(f"no plugin's socket at {socket_path}")
            stack.callback(Proxy(listen, socket_path, session.recorder).close)
        else:
            stack.enter_context(Interposed(socket_path, session.recorder))
        where = listen or socket_path
        print(f"tracing calls on {where}; Ctrl-C ends it", file=sys.stderr, flush=True)
        stop.wait()
    session.close()
    return 0


def show_recording(path: str, as_text: bool, svg: Optional[str]) -> int:
    """Show the calls of a recording as they were shown when they were made."""
    calls = list(read(path))
    for call in calls:
        print(show.line(call, min(call.began for call in calls)))
    _report(calls, as_text, svg, sys.stdout)
    return 0


def replay_recording(
    path: str, socket_path: str, home: Optional[str], layers: Optional[str]
) -> int:
    """Make a recording's calls on another plugin, and tell where it answers otherwise."""
    recording = list(read(path))
    if not recording:
        raise ManukaError(f"{path} has no calls")
    if layers is None and any(call.name == "GraphDriver.ApplyDiff" for call in recording):
        print("without --layers, every layer is an empty one", file=sys.stderr)
    if layers is not None and not os.path.isdir(layers):
        raise ManukaError(f"no folder of layers at {layers}")
    with interrupted_by_signals(), _home(home) as folder:
        done = list(replay(recording, socket_path, folder, layers))
    for one in done:
        if one.difference is not None:
            call = one.call
            print(f"call {call.number}, {call.name} {show.short(call.layer_id)}: {one.difference}")
    print("\n".join(_compared(done)))
    return 1 if any(one.difference is not None for one in done) else 0


def _compared(done: Sequence[Replayed]) -> List[str]:
    """For each kind of call, how long it took then and now."""
    lines = [f"{'call':<20} {'count':>6} {'p50 recorded':>13} {'p50 now':>11} {'differ':>7}"]
    for name in dict.fromkeys(one.call.name for one in done):
        group = [one for one in done if one.call.name == name]
        then = sorted(one.call.took for one in group)
        now = sorted(one.took for one in group)
        differ = sum(one.difference is not None for one in group)
        lines.append(
            f"{name.replace('GraphDriver.', ''):<20} {len(group):>6} "
            f"{show.milliseconds(show.percentile(then, 50)):>13} "
            f"{show.milliseconds(show.percentile(now, 50)):>11} {differ or '':>7}".rstrip()
        )
    return lines


@contextlib.contextmanager
def _home(folder: Optional[str]) -> Iterator[str]:
    if folder is not None:
        make_directories(os.path.abspath(folder), 0o711)
        if os.listdir(folder):
            raise ManukaError(f"{folder} is not empty; a replay needs an empty folder")
        yield os.path.abspath(folder)
        return
    made = tempfile.mkdtemp(prefix="manuka-replay-", dir="/var/tmp")
    try:
        yield made
    finally:
        remove_tree(made)


def _report(calls: Sequence[Call], as_text: bool, svg: Optional[str], screen: IO[str]) -> None:
    if not calls:
        print("no calls", file=screen)
        return
    if as_text:
        print("\n" + "\n".join(timeline.text(calls)), file=screen)
    print("\n" + "\n".join(show.table(calls)), file=screen)
    if svg is not None:
        with open(svg, "w", encoding="utf-8") as file:
            file.write(timeline.svg(calls, f"{len(calls)} calls"))
        print(f"\ndrawn in {svg}", file=screen)
