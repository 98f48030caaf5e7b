"""Get and Put while 32 peers are stuck and 3 layers are being applied: as root,
``python benchmarks/stuck_peers.py [CALLS]``.  Prints the middle and the 99th percentile in ms."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hostile.plugin import Plugin, served
from tests.hostile.test_peers import APPLY, Sending, large, layer, stuck_requests
from tests.unit.mounts import mounted


def calls(plugin: Plugin, count: int) -> List[float]:
    """Milliseconds of each Get and each Put of a layer upon another."""
    took = []
    with plugin.wire() as wire:
        for _ in range(count):
            for method in ("Get", "Put"):
                began = time.perf_counter()
                assert wire.call(f"/GraphDriver.{method}", {"ID": "container"}).status == 200
                took.append((time.perf_counter() - began) * 1000)
    return sorted(took)


def show(what: str, took: List[float]) -> None:
    middle, late = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{what:42} p50 {middle:6.2f} ms   p99 {late:6.2f} ms", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder, mounted(Path(folder) / "disk") as disk:
        with served(disk) as plugin, contextlib.ExitStack() as peers:
            layer(plugin, "below")
            layer(plugin, "container", "below")
            layer(plugin, "large")
            with plugin.wire() as wire:
                wire.stream(APPLY.format("large"), large())
            show("nothing else", calls(plugin, count))
            for number in range(32):
                stuck = stuck_requests(layer(plugin, f"stuck-{number}"))
                peers.enter_context(plugin.wire()).send(stuck[number % len(stuck)])
            show("32 stuck peers", calls(plugin, count))
            sending = Sending(plugin, 3)
            show("32 stuck peers, 3 layers on their way", calls(plugin, count))
            sending.end()


if __name__ == "__main__":
    main()
