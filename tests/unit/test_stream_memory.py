"""What streams leave behind in the plugin's memory: nothing that waits for a garbage collection.

A layer's buffers have hundreds of kilobytes.  Were they part of a circle of references, the plugin
would grow with each layer until Python happened to look for circles.
"""

from __future__ import annotations

import gc
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Callable, Iterator

import pytest

from manuka.api import calls
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.overlay2.driver import Overlay2
from manuka.vfs.driver import Vfs
from tests.layertar import LayerTar
from tests.unit.wire import Running, Wire, chunk, running, stream_head

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers want root")

TAR = LayerTar().file("a", bytes(300_000)).file("b", b"small").bytes()


def whole(wire: Wire, target: str) -> None:
    assert wire.stream(target, TAR).status == 200
    assert wire.call(calls.DIFF, {"ID": target.partition("id=")[2].partition("&")[0]}).whole


def malformed(wire: Wire, target: str) -> None:
    assert wire.stream(target, TAR[:512] + b"x" * 200_000).status == 500


def impossible(wire: Wire, target: str) -> None:
    tar = LayerTar().file("x" * 300, bytes(300_000)).bytes()
    assert "File name too long" in wire.stream(target, tar).error


def cut_off(wire: Wire, target: str) -> None:
    wire.send(stream_head(target) + chunk(TAR[:200_000]))
    wire.sock.shutdown(socket.SHUT_WR)
    assert "broke the layer's stream off" in wire.reply().error


@pytest.fixture(params=[Overlay2, Vfs])
def plugin(request, tmp_path: Path) -> Iterator[Running]:
    with running(make_app(DriverInstance(request.param, str(tmp_path / "run")))) as server:
        with server.wire() as wire:
            message = {"Home": str(tmp_path / "home"), "Opts": [], "UIDMaps": None, "GIDMaps": None}
            assert wire.call(calls.INIT, message).status == 200
        yield server


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Tells how many bytes Python's objects take, without a collection of those in circles."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("stream", [whole, malformed, impossible, cut_off])
def test_a_stream_leaves_no_buffer_behind(plugin, memory, stream):
    def play(layer_id: str) -> None:
        with plugin.wire() as wire:
            assert wire.call(calls.CREATE, {"ID": layer_id, "Parent": ""}).status == 200
            stream(wire, f"{calls.APPLY_DIFF}?id={layer_id}&parent=")
        with plugin.wire() as wire:
            assert wire.call(calls.REMOVE, {"ID": layer_id}).status == 200

    for number in range(5):
        play(f"first{number}")
    before = memory()
    for number in range(20):
        play(f"then{number}")
    assert (memory() - before) / 20 < 60_000
