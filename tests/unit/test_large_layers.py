"""Layers larger than 4 GiB, through a plugin's real process: whole, and in bounded memory.

They are mostly zeros, so that they take no room on the disk: holes are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from tests.unit.mounts import unmounted_after
from tests.unit.wire import Wire, accepts, chunk, stream_head

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="serve wants root")

SIZE = (4 << 30) + (1 << 20) + 5
MARK = b"the last bytes"
PIECE = 1 << 20
MOST_MEMORY = 64 << 20


class Plugin(NamedTuple):
    process: subprocess.Popen
    socket: str
    home: Path

    @property
    def peak_memory(self) -> int:
        """Bytes of the process' memory that were resident at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    socket, home = str(tmp_path / "plugin.sock"), tmp_path / "home"
    command = ["serve", "--socket", socket, "--run-dir", str(tmp_path / "run"), "--home", str(home)]
    with unmounted_after(tmp_path):
        process = subprocess.Popen([sys.executable, "-m", "manuka", *command])
        try:
            wait_for(socket, process)
            yield Plugin(process, socket, home)
        finally:
            process.terminate()
            process.wait(30)


def wait_for(socket: str, process: subprocess.Popen) -> None:
    for _ in range(200):
        assert process.poll() is None, "the plugin ended"
        if accepts(socket):
            return
        time.sleep(0.05)
    raise AssertionError("the plugin does not listen")


def large_tar() -> Iterator[bytes]:
    """A layer's tar with one file of `SIZE` bytes, in pieces."""
    entry = tarfile.TarInfo("large")
    entry.size = SIZE
    yield entry.tobuf(tarfile.PAX_FORMAT)
    zeros, left = bytes(PIECE), SIZE - len(MARK)
    while left:
        yield zeros[:left]
        left -= min(left, PIECE)
    yield MARK + bytes(-SIZE % 512) + bytes(1024)


def received(wire: Wire) -> Iterator[bytes]:
    """The body of a chunked reply, in pieces; it has to end as it should."""
    head, _, rest = wire.sock.recv(1 << 16).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    with wire.sock.makefile("rb", buffering=PIECE) as file:
        buffered = rest
        while True:
            while b"\r\n" not in buffered:
                buffered += file.read1(PIECE)
            line, _, buffered = buffered.partition(b"\r\n")
            left = int(line, 16)
            if left == 0:
                return
            left += 2
            data = buffered[:left]
            buffered = buffered[left:]
            data += file.read(left - len(data))
            yield data[:-2]


def test_a_layer_of_more_than_4_gib_goes_in_and_out_whole_in_64_mib_of_memory(plugin):
    with Wire(plugin.socket) as wire:
        assert wire.call("/GraphDriver.Create", {"ID": "large"}).status == 200
        wire.sock.settimeout(120)
        wire.send(stream_head("/GraphDriver.ApplyDiff?id=large&parent="))
        for piece in large_tar():
            wire.send(chunk(piece))
        wire.send(b"0\r\n\r\n")
        assert wire.reply().json == {"Size": SIZE}
        assert wire.call("/GraphDriver.DiffSize", {"ID": "large"}).json == {"Size": SIZE}

    file = plugin.home / "large" / "diff" / "large"
    assert file.stat().st_size == SIZE
    assert file.stat().st_blocks * 512 <= 1 << 20, "the zeros are written, not left out"
    with open(file, "rb") as opened:
        opened.seek(-len(MARK), os.SEEK_END)
        assert opened.read() == MARK

    with Wire(plugin.socket) as wire:
        wire.sock.settimeout(120)
        body = json.dumps({"ID": "large"}).encode()
        wire.send(
            b"POST /GraphDriver.Diff HTTP/1.1\r\nHost: \r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        total, tail = 0, b""
        for piece in received(wire):
            total += len(piece)
            tail = (tail + piece)[-4096:]
    padded = SIZE + -SIZE % 512
    assert total >= padded + 512 + 1024
    assert tail.rstrip(b"\0").endswith(MARK)

    assert plugin.peak_memory < MOST_MEMORY
