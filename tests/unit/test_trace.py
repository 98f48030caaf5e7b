"""``manuka trace`` without an engine: what passes, and what is recorded and made of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import Iterator, List

import pytest

from manuka.api import calls as names
from manuka.api.instance import DriverInstance
from manuka.api.routes import make_app
from manuka.errors import ManukaError
from manuka.overlay2 import Overlay2
from manuka.toolkit.client import Client
from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.trace import show, timeline
from manuka.toolkit.trace.call import Call, RecordingError, read
from manuka.toolkit.trace.observer import Recorder
from manuka.toolkit.trace.proxy import Interposed, Proxy
from manuka.toolkit.trace.replay import replay
from tests.unit.wire import Wire, chunk, chunked, running, stream_head

APPLY = names.APPLY_DIFF + "?id=a&parent="
EMPTY_TAR = bytes(1024)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Tracing:
    """A proxy before a server, and the calls that it has seen."""

    def __init__(self, folder: Path, back: str) -> None:
        self.calls: List[Call] = []
        self.front = str(folder / "front.sock")
        self.layers = folder / "layers"
        self.layers.mkdir()
        self.proxy = Proxy(self.front, back, Recorder(self.calls.append, str(self.layers)))

    def wait(self, count: int) -> List[Call]:
        """The calls, once there are so many; the last bytes may be seen after they arrived."""
        deadline = time.monotonic() + 60
        while len(self.calls) < count:
            assert time.monotonic() < deadline, self.calls
            time.sleep(0.01)
        return self.calls


@contextlib.contextmanager
def tracing(folder: Path, back: str) -> Iterator[Tracing]:
    traced = Tracing(folder, back)
    try:
        yield traced
    finally:
        traced.proxy.close()
    assert not os.path.exists(traced.front)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Tracing]:
    """Overlay2 behind a proxy."""
    instance = DriverInstance(Overlay2, str(tmp_path / "run"))
    with running(make_app(instance)) as server, tracing(tmp_path, server.path) as traced:
        yield traced


@contextlib.contextmanager
def saying(path: str, answer: bytes) -> Iterator[None]:
    """A server that says `answer` to whoever has sent something, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@needs_root
def test_each_call_is_recorded_with_what_was_asked_and_answered(
    plugin: Tracing, tmp_path: Path
) -> None:
    client = Client(plugin.front)
    client.init(str(tmp_path / "home"))
    client.create("a")
    size = client.apply_diff("a", None, [EMPTY_TAR])
    assert client.exists("a")
    client.diff("a")
    seen = plugin.wait(5)
    assert [call.name for call in seen] == [
        *("GraphDriver.Init", "GraphDriver.Create", "GraphDriver.ApplyDiff"),
        *("GraphDriver.Exists", "GraphDriver.Diff"),
    ]
    assert [call.number for call in seen] == [1, 2, 3, 4, 5]
    assert all(call.error is None and call.status == 200 for call in seen)
    apply, exists, diff = seen[2:]
    assert (apply.layer_id, apply.parent, apply.received) == ("a", None, 1024)
    assert apply.reply == {"Size": size}
    assert (plugin.layers / "3.tar").read_bytes() == EMPTY_TAR
    assert (exists.request, exists.reply) == ({"ID": "a"}, {"Exists": True})
    assert (diff.reply, diff.sent) == (None, len(client.diff("a")))
    assert 0 < diff.took < 20


def test_one_connection_carries_many_calls(plugin: Tracing) -> None:
    with Wire(plugin.front) as wire:
        for _ in range(3):
            assert wire.call(names.ACTIVATE).json == {"Implements": ["GraphDriver"]}
    seen = plugin.wait(3)
    assert [call.connection for call in seen] == [1, 1, 1]


def test_an_error_is_recorded_as_the_engine_shows_it(plugin: Tracing) -> None:
    with Wire(plugin.front) as wire:
        told = wire.call(names.GET, {"ID": "none"}).error
    (call,) = plugin.wait(1)
    assert (call.status, call.error) == (500, told)
    assert "ERROR " + told in show.line(call, call.began)


def test_a_layer_that_is_cut_off_reaches_the_plugin_cut_off(plugin: Tracing) -> None:
    with Wire(plugin.front) as wire:
        wire.send(stream_head(APPLY) + chunk(b"half"))
        wire.sock.shutdown(socket.SHUT_WR)
        reply = wire.reply()
        assert (reply.status, wire.at_end()) == (500, True)
    (call,) = plugin.wait(1)
    assert (call.received, call.error) == (4, reply.error)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "the reply breaks off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "the reply breaks off"),
        (b"<html>Welcome</html>\r\n\r\n", "the reply is no HTTP"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nnope!", "nope!"),
    ],
)
def test_a_reply_that_is_none_passes_as_it_is_and_is_told(
    tmp_path: Path, answer: bytes, error: str
) -> None:
    back = str(tmp_path / "back.sock")
    with saying(back, answer), tracing(tmp_path, back) as traced:
        with Wire(traced.front) as wire:
            wire.send(b"POST /GraphDriver.Get HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}")
            received = b""
            while True:
                data = wire.sock.recv(100)
                if not data:
                    break
                received += data
        assert received == answer
        (call,) = traced.wait(1)
        assert call.error is not None
        assert call.error.startswith(error)


def test_what_is_no_http_passes_too(tmp_path: Path) -> None:
    back = str(tmp_path / "back.sock")
    with saying(back, b"pong"), tracing(tmp_path, back) as traced:
        with Wire(traced.front) as wire:
            wire.send(b"\x00ping")
            assert wire.sock.recv(100) == b"pong"
        assert traced.calls == []


def test_a_plugin_that_is_not_there_is_not_there_for_the_engine_either(tmp_path: Path) -> None:
    with tracing(tmp_path, str(tmp_path / "none.sock")) as traced, Wire(traced.front) as wire:
        with contextlib.suppress(BrokenPipeError):
            wire.send(chunked(b"x"))
        assert wire.at_end()


def test_a_socket_is_taken_aside_and_put_back(tmp_path: Path) -> None:
    seen: List[Call] = []
    with running(make_app(DriverInstance(Overlay2, str(tmp_path)))) as server:
        with Interposed(server.path, Recorder(seen.append)):
            assert Client(server.path).activate() == ["GraphDriver"]
            assert os.stat(server.path).st_mode & 0o777 == 0o600
            with pytest.raises(ManukaError, match="is being traced already"):
                Interposed(server.path, Recorder(seen.append)).__enter__()
        assert Client(server.path).activate() == ["GraphDriver"]
    assert [call.name for call in seen] == ["Plugin.Activate"]
    with pytest.raises(ManukaError, match="no plugin's socket"):
        Interposed(str(tmp_path / "none"), Recorder(seen.append)).__enter__()


def test_the_command_ends_at_ctrl_c_with_a_table_and_the_socket_in_its_place(
    tmp_path: Path,
) -> None:
    record = tmp_path / "calls.jsonl"
    with running(make_app(DriverInstance(Overlay2, str(tmp_path)))) as server:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "manuka", "trace", "--socket", server.path),
                *("--record", str(record), "--timeline"),
            ],
            env=with_this_package(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stderr is not None
        assert b"Ctrl-C ends it" in child.stderr.readline()
        Client(server.path).activate()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (0, b"")
        assert Client(server.path).activate() == ["GraphDriver"]
    assert out.count(b"Plugin.Activate") == 3
    assert b"longest" in out
    (call,) = read(str(record))
    assert call.reply == {"Implements": ["GraphDriver"]}
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "manuka", "trace", "--read", str(record)),
            *("--svg", str(tmp_path / "calls.svg")),
        ],
        env=with_this_package(os.environ),
        stdout=subprocess.PIPE,
    )
    assert (shown.returncode, shown.stdout.count(b"Plugin.Activate")) == (0, 2)
    assert b"Plugin.Activate" in (tmp_path / "calls.svg").read_bytes()


# --- what comes of calls --------------------------------------------------------------------------


def made(number: int, name: str, began: float, took: float, **fields: object) -> Call:
    template = Call(number, 1, name, "", began, took, None, 0, 200, {}, 3, None)
    return template._replace(**fields)  # type: ignore[arg-type]


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    calls = [made(1, "GraphDriver.Get", 5.0, 0.25, request={"ID": "é"}, error="no")]
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(call.to_json() + "\n" for call in calls))
    assert list(read(str(path))) == calls
    path.write_text(calls[0].to_json() + '\n{"number": 2}\n')
    with pytest.raises(RecordingError, match="line 2: no call"):
        list(read(str(path)))


def test_the_table_has_a_row_for_each_kind_of_call() -> None:
    calls = [made(n, "GraphDriver.Get", 0, n / 1000) for n in range(1, 101)]
    calls.append(made(101, "GraphDriver.ApplyDiff", 0, 30, received=2_500_000, error="no room"))
    head, apply, get = (row.split() for row in show.table(calls))
    assert head == ["call", "count", "p50", "p99", "longest", "all", "bytes", "errors"]
    assert apply[:2] + apply[-3:] == ["ApplyDiff", "1", "2.5", "MB", "1"]
    assert get[:8] == ["Get", "100", "50.0", "ms", "99.0", "ms", "100.0", "ms"]


@pytest.mark.parametrize(
    ("layer_id", "text"),
    [
        (None, "-"),
        ("f" * 64, "f" * 12),
        ("f" * 64 + "-init", "f" * 12 + "-init"),
        ("wiw3dbolsgxbbqk8ktdl3a5xk", "wiw3dbolsgxbbqk8kt"),
    ],
)
def test_ids_are_cut_to_what_people_can_tell(layer_id: str, text: str) -> None:
    assert show.short(layer_id) == text


def test_a_timeline_has_a_bar_for_each_call_in_its_place() -> None:
    calls = [
        made(2, "GraphDriver.Put", 10.5, 0.5, request={"ID": "b" * 64}),
        made(1, "GraphDriver.Get", 10.0, 0.0001, error="<gone>"),
    ]
    get, put, _ = timeline.text(calls, width=10)
    assert "█" + " " * 9 + " !0.1 ms" in get
    assert " " * 5 + "█" * 5 + "  500.0 ms" in put
    drawing = xml.etree.ElementTree.fromstring(timeline.svg(calls, "a & b"))
    bars = [one for one in drawing.iter() if one.tag.endswith("rect")][1:]
    assert float(bars[0].get("width", 0)) == 1.5
    assert float(bars[1].get("x", 0)) == pytest.approx(330 + 240)
    assert bars[0][0].text == "<gone>"


# --- replay ---------------------------------------------------------------------------------------


@needs_root
def test_a_replay_makes_the_same_calls_and_leaves_nothing(plugin: Tracing, tmp_path: Path) -> None:
    client = Client(plugin.front)
    client.init(str(tmp_path / "home"))
    client.create("a")
    client.apply_diff("a", None, [EMPTY_TAR])
    client.create_read_write("b", "a")
    client.get("b")
    recording = list(plugin.wait(5))
    client.put("b")
    home = tmp_path / "other"
    home.mkdir()
    again = DriverInstance(Overlay2, str(tmp_path / "run2"))
    with running(make_app(again)) as server:
        done = list(replay(recording, server.path, str(home), str(plugin.layers)))
    assert [(one.call.number, one.difference) for one in done] == [(n, None) for n in range(1, 6)]
    assert [name for name in os.listdir(home) if len(name) == 1] == ["l"]
    assert os.listdir(home / "l") == []


@needs_root
def test_a_replay_tells_each_answer_that_differs(plugin: Tracing, tmp_path: Path) -> None:
    client = Client(plugin.front)
    client.init(str(tmp_path / "home"))
    client.create("a")
    client.exists("a")
    recording = list(plugin.wait(3))
    exists = recording[2]
    recording[2] = exists._replace(reply={"Exists": False})
    recording.append(exists._replace(number=4, began=exists.began + 1, status=500, error="gone"))
    home = tmp_path / "other"
    home.mkdir()
    with running(make_app(DriverInstance(Overlay2, str(tmp_path / "run2")))) as server:
        done = list(replay(recording, server.path, str(home)))
    assert [one.difference for one in done] == [
        *(None, None),
        'recorded: {}; now: {"Exists": true}',
        "recorded: gone; now: success",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name what to trace"),
        (["--read", "a", "--replay", "b"], "name what to trace"),
        (["--replay", "a"], "--replay needs the --socket"),
        (["--read", "a", "--listen", "b"], "--listen goes with --socket alone"),
        (["--read", "none.jsonl"], "No such file or directory: none.jsonl"),
        (["--socket", "none.sock"], "no plugin's socket at none.sock"),
    ],
)
def test_arguments_that_cannot_be_meant_get_one_line(
    tmp_path: Path, arguments: List[str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manuka", "trace", *arguments],
        env=with_this_package(os.environ),
        cwd=str(tmp_path),
        capture_output=True,
    )
    assert done.returncode in (1, 2)
    assert done.stderr.count(b"\n") == 1
    assert words in done.stderr.decode()


def test_a_recording_is_plain_json_for_other_programs(tmp_path: Path) -> None:
    line = json.loads(made(1, "GraphDriver.Get", 1.5, 0.25).to_json())
    assert (line["name"], line["began"], line["took"]) == ("GraphDriver.Get", 1.5, 0.25)
