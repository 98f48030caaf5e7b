"""Get and Put while 32 peers are stuck and 3 layers are being applied.

    sudo .venv/bin/python benchmarks/stuck_peers.py [--plugin PROGRAM] [--calls N]

Prints the middle, the 99th percentile and the greatest of N calls each, in ms.  PROGRAM is another
plugin to compare with, such as that of ``benchmarks/goplugin``: it is given its socket's path.
The layers are sent as fast as the plugin takes them, by a process each.

How to read it: ``Exists`` mounts nothing, so it is the plugin's own share. What ``Get`` and
``Put`` need beyond it is the kernel's: every unmount waits twice for all processors to have passed
through the scheduler (``synchronize_rcu_expedited``), which takes long where few processors are
busy all the time, whoever asks. Four processes want them here, so compare with another plugin in
the same minute.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hostile.plugin import Plugin, served
from tests.hostile.test_peers import APPLY, large, stuck_requests
from tests.layertar import LayerTar
from tests.unit.mounts import mounted, unmounted_after
from tests.unit.wire import Wire, accepts, chunk, stream_head

FILES, PIECE = 5000, 50


@contextlib.contextmanager
def other(program: str, folder: Path) -> Iterator[Plugin]:
    """Another plugin, initialised as an engine would."""
    socket, home = str(folder / "plugin.sock"), folder / "home"
    with unmounted_after(folder), open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, socket], stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not accepts(socket):
                assert process.poll() is None, "the plugin ended"
                assert time.monotonic() < deadline, "the plugin does not listen"
                time.sleep(0.05)
            plugin = Plugin(process, socket, home)
            init = {"Home": str(home), "Opts": [], "UIDMaps": None, "GIDMaps": None}
            reply = plugin.call("Init", init)
            assert reply.status == 200, reply.error
            yield plugin
        finally:
            process.terminate()
            process.wait(60)


def layer(plugin: Plugin, name: str, parent: str = "") -> str:
    message = {"ID": name, "Parent": parent}
    assert plugin.call("Create", message).status == 200
    return name


def send(socket: str, name: str, started: Any, over: Any) -> None:
    """Send the layer `name`, whose files come again and again, until it is over."""
    tars = []
    for first in range(0, FILES, PIECE):
        tar = LayerTar()
        for number in range(first, first + PIECE):
            tar.file(f"d/{number}", bytes(100))
        tars.append(chunk(tar.bytes()[:-1024]))
    with Wire(socket) as wire:
        wire.sock.settimeout(120)
        wire.send(stream_head(APPLY.format(name)))
        for tar in itertools.cycle(tars):
            wire.send(tar)
            started.release()
            if over.is_set():
                break
        wire.send(chunk(bytes(1024)) + b"0\r\n\r\n")
        reply = wire.reply()
        assert reply.status == 200, reply.error


@contextlib.contextmanager
def senders(plugin: Plugin, count: int) -> Iterator[None]:
    """So many layers on their way, for the length of a ``with`` block."""
    clean = multiprocessing.get_context("spawn")
    over = clean.Event()
    processes, sent = [], []
    for number in range(count):
        started = clean.Semaphore(0)
        name = layer(plugin, f"sent-{number}")
        process = clean.Process(target=send, args=(plugin.socket, name, started, over))
        process.start()
        processes.append(process)
        sent.append(started)
    for started in sent:
        assert started.acquire(timeout=60), "a layer is not taken"
    before = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - before
        over.set()
        for process in processes:
            process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    pieces = sum(_drained(started) for started in sent)
    print(f"  {pieces * PIECE / took:,.0f} files a second were unpacked meanwhile")


def _drained(semaphore: Any) -> int:
    count = 0
    while semaphore.acquire(block=False):
        count += 1
    return count


def show(what: str, plugin: Plugin, count: int) -> None:
    """Make so many calls, and print how long they took: those that mount, and one that does not."""
    took: Dict[str, List[float]] = {"Get": [], "Put": [], "Exists": []}
    with plugin.wire() as wire:
        wire.sock.settimeout(120)
        for _ in range(count):
            for method in took:
                began = time.perf_counter()
                assert wire.call(f"/GraphDriver.{method}", {"ID": "container"}).status == 200
                took[method].append((time.perf_counter() - began) * 1000)
    print(what, flush=True)
    for title, times in (("Get and Put", took["Get"] + took["Put"]), ("Exists", took["Exists"])):
        times.sort()
        middle, late, last = times[len(times) // 2], times[len(times) * 99 // 100], times[-1]
        print(f"  {title:12} p50 {middle:7.2f}   p99 {late:7.2f}   max {last:7.2f} ms", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--calls", type=int, default=500, metavar="N")
    asked.add_argument("--plugin", metavar="PROGRAM", help="another plugin, given its socket")
    asked.add_argument("--peers", type=int, default=32)
    asked.add_argument("--layers", type=int, default=3)
    wanted = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder, mounted(Path(folder) / "disk") as disk:
        start = other(wanted.plugin, disk) if wanted.plugin else served(disk)
        with start as plugin, contextlib.ExitStack() as peers:
            layer(plugin, "below")
            layer(plugin, "container", "below")
            layer(plugin, "large")
            with plugin.wire() as wire:
                assert wire.stream(APPLY.format("large"), large()).status == 200
            show("nothing else", plugin, wanted.calls)
            with senders(plugin, wanted.layers):
                show(f"{wanted.layers} layers on their way", plugin, wanted.calls)
            for number in range(wanted.layers):
                assert plugin.call("Remove", {"ID": f"sent-{number}"}).status == 200
            for number in range(wanted.peers):
                stuck = stuck_requests(layer(plugin, f"stuck-{number}"))
                peers.enter_context(plugin.wire()).send(stuck[number % len(stuck)])
            show(f"{wanted.peers} stuck peers", plugin, wanted.calls)
            with senders(plugin, wanted.layers):
                title = f"{wanted.peers} stuck peers, {wanted.layers} layers on their way"
                show(title, plugin, wanted.calls)


if __name__ == "__main__":
    main()
