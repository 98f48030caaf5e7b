"""Parts of ``manuka doctor`` that need no engine."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Callable, Iterator

import pytest

from manuka.errors import ManukaError
from manuka.toolkit.doctor import discovery, engine, mounts, plugin, processes, records, report
from manuka.toolkit.doctor.discovery import discover
from manuka.toolkit.doctor.finding import Finding
from manuka.toolkit.doctor.patient import Patient
from manuka.toolkit.doctor.processes import Process, listeners, process

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_LISTEN = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
sys.stdin.read()
"""

_AS_AN_ENGINE = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"dockerd")
print("running", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _running(*command: str) -> Iterator[int]:
    """A process that has said one line, and ends with the block; its id."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() != b""
        yield child.pid
    finally:
        child.stdin.close()
        child.wait(60)
        child.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["--storage-driver", "manuka"], "manuka"),
        (["--storage-driver=manuka", "-D"], "manuka"),
        (["-s", "vfs", "--storage-driver=manuka"], "manuka"),
        (["-s", "--debug"], ""),
        (["--storage-driver-x", "vfs"], None),
    ],
)
def test_an_option_is_read_from_a_command_line(arguments: list[str], value: str | None) -> None:
    dockerd = Process(1, "dockerd", ["dockerd", *arguments])
    assert dockerd.option("--storage-driver", "-s") == value


def test_the_process_that_listens_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert listeners(path) == []
        server.listen()
        assert [one.pid for one in listeners(path)] == [os.getpid()]
    assert listeners(path) == []


@needs_root
def test_a_process_with_another_file_at_the_same_path_is_not_blamed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    apart = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with _running(*apart, str(tmp_path), sys.executable, "-c", _LISTEN, path) as other:
            assert [one.pid for one in listeners(path)] == [os.getpid()]
            assert [one.pid for one in listeners(f"/proc/{other}/root{path}")] == [other]


def test_a_socket_that_was_renamed_is_told_from_the_one_in_its_place(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        os.rename(path, path + ".aside")
        with _running(sys.executable, "-c", _LISTEN, path) as other:
            assert [one.pid for one in listeners(path)] == [other]
            assert [one.pid for one in listeners(path + ".aside")] == [os.getpid()]


@needs_root
def test_a_process_in_another_network_namespace_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with _running("unshare", "--net", sys.executable, "-c", _LISTEN, path) as other:
        assert [one.pid for one in listeners(path)] == [other]


def test_without_the_kernels_diagnosis_the_caller_of_listen_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel here has it: its absence is made."""

    def absent(path: str) -> set[int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(processes, "listening_at", absent)
    path = str(tmp_path / "a.sock")
    with pytest.raises(FileNotFoundError):
        listeners(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert listeners(path) == []
        server.listen()
        assert [one.pid for one in listeners(path)] == [os.getpid()]


def test_this_process_is_described() -> None:
    found = process(os.getpid())
    assert found.mount_namespace == os.readlink("/proc/self/ns/mnt")
    assert (found.environment() or {}).keys() >= {"PATH"}
    with pytest.raises(FileNotFoundError):
        process(2**22 + 1)


def test_an_empty_configuration_file_is_as_none(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    assert Patient(config_path=str(config)).config_error is None
    config.write_text("\n")
    assert Patient(config_path=str(config)).config_error is None
    config.write_bytes(b"\xff")
    assert "utf-8" in str(Patient(config_path=str(config)).config_error)


def test_a_check_that_cannot_look_is_a_finding_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cannot_look(patient: Patient) -> Iterator[Finding]:
        yield Finding("first", "ok", "One.")
        os.listdir(tmp_path / "none")

    def looks(patient: Patient) -> Iterator[Finding]:
        yield Finding("second", "problem", "Two.", "Do.")

    monkeypatch.setattr(report, "PARTS", {"part": (cannot_look, looks)})
    found = report.examine(Patient(config_path=str(tmp_path / "none.json")))
    assert [(one.check, one.level) for _, one in found] == [
        ("first", "ok"),
        ("cannot-look", "warning"),
        ("second", "problem"),
    ]
    text = report.as_text(found, colour=False)
    assert text.splitlines()[-3:] == ["  problem  Two.", "           Do.", "1 problem, 1 warning"]
    assert json.loads(report.as_json(found))["healthy"] is False
    assert "\x1b[31mproblem \x1b[0m Two." in report.as_text(found, colour=True)


def patient_at(tmp_path: Path) -> Patient:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"data-root": str(tmp_path)}))
    return Patient(config_path=str(config))


def test_layers_that_an_engine_has_forgotten_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, container, forgotten = ("1" * 64, "2" * 64, "3" * 64)
    for name in (image, container, f"{container}-init", forgotten, "a" * 25, "l"):
        (tmp_path / "manuka" / name).mkdir(parents=True)
    database = tmp_path / "image" / "manuka" / "layerdb"
    for file, text in (
        ("sha256/x/cache-id", image),
        ("mounts/y/mount-id", container),
        ("mounts/y/init-id", f"{container}-init"),
    ):
        (database / file).parent.mkdir(parents=True, exist_ok=True)
        (database / file).write_text(text)
    assert list(records.forgotten_layers(patient_at(tmp_path))) == []  # a pull may be at it
    monkeypatch.setattr(records, "_SETTLED", -1)
    (found,) = records.forgotten_layers(patient_at(tmp_path))
    assert (found.check, found.level) == ("forgotten-layers", "note")
    assert forgotten in found.remedy
    assert image not in found.remedy
    assert container not in found.remedy


class _Records:
    """An engine's records below a data root, and the driver's layers."""

    def __init__(self, data_root: Path) -> None:
        self.home = data_root / "manuka"
        self.images = data_root / "image" / "manuka"
        for folder in (self.home / "l", self.home / ".incomplete"):
            folder.mkdir(parents=True)

    def _write(self, path: str, text: str) -> None:
        (self.images / path).parent.mkdir(parents=True, exist_ok=True)
        (self.images / path).write_text(text)

    def image(self, tag: str, *layers: str, recorded: bool = True) -> list[str]:
        """Its layers' chains; `layers` are letters, of which a layer's id and digest are made."""
        digests = [f"sha256:{letter * 64}" for letter in layers]
        chains: list[str] = []
        for letter, digest in zip(layers, digests):
            below = f"sha256:{chains[-1]}" if chains else ""
            whole = hashlib.sha256(f"{below} {digest}".encode()).hexdigest()
            chains.append(whole if below else letter * 64)
            self._write(f"layerdb/sha256/{chains[-1]}/cache-id", letter * 64)
            if below:
                self._write(f"layerdb/sha256/{chains[-1]}/parent", below)
            (self.home / (letter * 64)).mkdir(exist_ok=True)
        if recorded:
            name = hashlib.sha256(tag.encode()).hexdigest()
            text = json.dumps({"rootfs": {"type": "layers", "diff_ids": digests}})
            self._write(f"imagedb/content/sha256/{name}", text)
            self._tag(tag, name)
        return chains

    def _tag(self, tag: str, image: str) -> None:
        path = self.images / "repositories.json"
        known = json.loads(path.read_text()) if path.exists() else {"Repositories": {}}
        known["Repositories"].setdefault(tag.partition(":")[0], {})[tag] = f"sha256:{image}"
        self._write("repositories.json", json.dumps(known))

    def container(self, letter: str, chain: str) -> None:
        self._write(f"layerdb/mounts/{letter * 64}/mount-id", letter * 64)
        self._write(f"layerdb/mounts/{letter * 64}/init-id", f"{letter * 64}-init")
        self._write(f"layerdb/mounts/{letter * 64}/parent", f"sha256:{chain}")
        for name in (letter * 64, f"{letter * 64}-init"):
            (self.home / name).mkdir()


def _lost(tmp_path: Path) -> list[Finding]:
    return list(records.lost_layers(patient_at(tmp_path)))


def test_layers_that_are_gone_name_the_images_and_containers_on_them(tmp_path: Path) -> None:
    machine = _Records(tmp_path)
    first = machine.image("first:1", "a", "b", "c")
    second = machine.image("second:1", "a", "d")
    machine.container("e", first[2])
    machine.container("f", second[1])
    assert _lost(tmp_path) == []
    (machine.home / ("b" * 64)).rmdir()
    (found,) = _lost(tmp_path)
    assert (found.check, found.level) == ("lost-layers", "problem")
    assert "1 layers are gone" in found.text
    assert f"the images first:1 and the containers {'e' * 12} cannot run" in found.text
    commands = f"docker rm -f {'e' * 12}; docker rmi -f first:1; then pull or load"
    assert found.remedy.startswith(commands)
    (machine.home / ("f" * 64 + "-init")).rmdir()
    (found,) = _lost(tmp_path)
    assert f"docker rm -f {'e' * 12} {'f' * 12}; docker rmi -f first:1;" in found.remedy
    (machine.home / ("a" * 64)).rmdir()
    (found,) = _lost(tmp_path)
    assert "docker rmi -f first:1 second:1;" in found.remedy


def test_records_of_gone_layers_that_no_image_uses_are_told_apart(tmp_path: Path) -> None:
    machine = _Records(tmp_path)
    machine.image("kept:1", "a")
    chains = machine.image("gone:1", "a", "b", recorded=False)
    (machine.home / ("b" * 64)).rmdir()
    (found,) = _lost(tmp_path)
    assert (found.check, found.level) == ("lost-layers-unused", "problem")
    assert f"{machine.images}/layerdb/sha256/{chains[1]}" in found.remedy


def test_a_layer_that_is_being_removed_is_not_lost(tmp_path: Path) -> None:
    machine = _Records(tmp_path)
    machine.image("first:1", "a")
    layer = machine.home / ("a" * 64)
    layer.rename(machine.home / ".incomplete" / f"{layer.name}.1234abcd")
    assert _lost(tmp_path) == []
    (machine.home / ".incomplete" / f"{layer.name}.1234abcd").rmdir()
    assert [one.check for one in _lost(tmp_path)] == ["lost-layers"]


def test_layers_of_a_plugin_with_another_layout_are_not_called_lost(tmp_path: Path) -> None:
    machine = _Records(tmp_path)
    machine.image("first:1", "a")
    for name in ("l", ".incomplete", "a" * 64):
        (machine.home / name).rmdir()
    (machine.home / "layers" / ("a" * 64)).mkdir(parents=True)
    assert _lost(tmp_path) == []


@pytest.mark.parametrize("damage", ["", "[", "[]", '{"rootfs": 1}', '{"Repositories": {"a": 1}}'])
def test_damaged_records_of_images_hide_no_lost_layer(tmp_path: Path, damage: str) -> None:
    machine = _Records(tmp_path)
    machine.image("first:1", "a")
    (machine.home / ("a" * 64)).rmdir()
    (machine.images / "repositories.json").write_text(damage)
    (found,) = _lost(tmp_path)
    assert re.search(r"docker rmi -f [0-9a-f]{12};", found.remedy)
    for image in (machine.images / "imagedb" / "content" / "sha256").iterdir():
        image.write_text(damage)
    assert [one.check for one in _lost(tmp_path)] == ["lost-layers-unused"]


def test_mounts_near_the_kernels_limit_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert list(mounts.crowd(patient_at(tmp_path))) == []
    limit = tmp_path / "mount-max"
    limit.write_text("3\n")
    monkeypatch.setattr(mounts, "_MOUNT_MAX", str(limit))
    (found,) = mounts.crowd(patient_at(tmp_path))
    assert found.level == "warning"
    assert found.remedy == "sysctl fs.mount-max=6"


# --- which engine -----------------------------------------------------------------------------


def _engine_findings(**arguments: object) -> dict[str, Finding]:
    return {one.check: one for one in engine.running(Patient(**arguments))}  # type: ignore[arg-type]


def test_of_several_engines_the_examined_one_and_the_others_are_named(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for config in (one, two):
        config.write_text("{}")
    command = (sys.executable, "-c", _AS_AN_ENGINE, "--config-file")
    with _running(*command, str(one)) as first, _running(*command, str(two)) as second:
        for examined, other, other_config in ((first, second, two), (second, first, one)):
            found = _engine_findings(pid=examined)
            assert f"runs as dockerd (process {examined})" in found["engine-running"].text
            assert f"dockerd (process {other}) with {other_config}" in found["other-engines"].text
            assert f"only dockerd (process {examined}) is examined" in found["other-engines"].text
            assert re.fullmatch(r"manuka doctor --pid \d+", found["other-engines"].remedy)
        found = _engine_findings(config_path=str(two))
        assert f"process {second})" in found["engine-running"].text
        found = _engine_findings(config_path=str(tmp_path / "three.json"))
        assert f"No engine runs with {tmp_path}/three.json" in found["engine-running"].text
        assert "none of them is examined" in found["other-engines"].text


def test_a_pid_file_decides_only_among_engines_with_that_configuration(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    command = (sys.executable, "-c", _AS_AN_ENGINE, "--config-file")
    with _running(*command, str(one)) as first, _running(*command, str(two)) as second:
        (tmp_path / "pid").write_text(str(first))
        for config in (one, two):
            config.write_text(json.dumps({"pidfile": str(tmp_path / "pid")}))
        for config, pid in ((one, first), (two, second)):
            examined = Patient(config_path=str(config)).engine
            assert examined is not None
            assert examined.pid == pid


def test_a_process_that_is_no_engine_is_refused() -> None:
    with pytest.raises(ManukaError, match=f"the process {os.getpid()} is no dockerd"):
        Patient(pid=os.getpid())


@needs_root
def test_an_engine_in_another_mount_namespace_is_the_second_choice_and_seen_with_its_files(
    tmp_path: Path,
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    config = inner / "daemon.json"
    script = (
        'mount -t tmpfs none "$0" && printf \'{"data-root": "%s/x"}\' "$0" >"$0/daemon.json" &&'
        ' exec "$@"'
    )
    apart = ("unshare", "--mount", "sh", "-c", script, str(inner))
    here = (sys.executable, "-c", _AS_AN_ENGINE, "--config-file", str(config))
    with _running(*apart, *here) as other:
        patient = Patient(pid=other)
        assert patient.is_apart
        assert patient.home == f"{inner}/x/manuka"
        assert "in another mount namespace" in _engine_findings(pid=other)["engine-running"].text
        with _running(*here) as near:
            assert near > other, "the order of their ids is not the reason"
            examined = Patient(config_path=str(config)).engine
            assert examined is not None
            assert examined.pid == near


# --- where engines find a plugin ----------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the directories that engines search."""
    for folder in (discovery.SOCKETS, "/etc/docker/plugins", "/usr/lib/docker/plugins"):
        (tmp_path / folder[1:]).mkdir(parents=True)
    return tmp_path


def _discovered(root: Path) -> discovery.Discovery:
    return discover("mine", lambda path: f"{root}{path}")


def _put(root: Path, path: str, content: str) -> None:
    (root / path[1:]).parent.mkdir(exist_ok=True)
    (root / path[1:]).write_text(content)


SPEC = "/etc/docker/plugins/mine.spec"
JSON = "/etc/docker/plugins/mine.json"


@pytest.mark.parametrize(
    ("content", "address"),
    [
        ("unix:///run/x.sock", ("/run/x.sock", "", False)),
        (" unix:///run/x.sock\n", ("/run/x.sock", "", False)),
        ("unix:/run/x.sock", ("/run/x.sock", "", False)),
        ("tcp://127.0.0.1:8080", (None, "127.0.0.1:8080", False)),
        ("http://localhost/ignored", (None, "localhost:80", False)),
        ("https://[::1]:1", (None, "[::1]:1", True)),
    ],
)
def test_a_spec_file_names_an_address(
    root: Path, content: str, address: tuple[str | None, str, bool]
) -> None:
    _put(root, SPEC, content)
    found = _discovered(root)
    assert found.source == SPEC
    assert found.address is not None
    assert found.address[1:] == address


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "names no URL"),
        ("\n\n", "names no URL"),
        ("/run/x.sock", "is no URL with a scheme"),
        ("127.0.0.1:8080", "is no URL with a scheme"),
        ("unix://run/x.sock", "no absolute path; write unix:///PATH"),
        ("unix:", "no absolute path"),
        ("tcp://", "names no host"),
        ("tcp://a:port", "is no URL"),
        ("tcp://[::1", "is no URL"),
        ("unix:///run/x.sock\nunix:///run/y.sock", "more than one line"),
        ("x" * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_a_malformed_spec_file_ends_the_search(root: Path, content: str, error: str) -> None:
    _put(root, SPEC, content)
    _put(root, JSON, '{"Addr": "unix:///run/x.sock"}')
    found = _discovered(root)
    assert (found.source, found.address, found.shadowed) == (SPEC, None, [JSON])
    assert error in str(found.error)


@pytest.mark.parametrize(
    ("content", "url"),
    [
        ('{"Name": "other", "Addr": "unix:///run/x.sock"}', "unix:///run/x.sock"),
        ('{"ADDR": "tcp://h:1", "TLSConfig": null} trailing', "tcp://h:1"),
        ('{"Addr": "https://h:1", "TLSConfig": {"InsecureSkipVerify": true}}', "https://h:1"),
    ],
)
def test_a_json_file_names_an_address(root: Path, content: str, url: str) -> None:
    _put(root, JSON, content)
    found = _discovered(root)
    assert found.address is not None
    assert (found.source, found.address.url) == (JSON, url)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "no JSON"),
        ('{"Addr": ', "no JSON"),
        ("[" * 100000, "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no Addr"),
        ('{"Addr": 1}', "Addr has to be a string"),
        ('{"Addr": "tcp://h:1", "TLSConfig": []}', "TLSConfig an object"),
        ('{"Addr": "https://h:1", "TLSConfig": {"CAFile": "/no/ca.pem"}}', "no file /no/ca.pem"),
        ('{"Addr": "https://h:1", "TLSConfig": {"KeyFile": 1}}', "KeyFile has to be a string"),
    ],
)
def test_a_malformed_json_file_ends_the_search(root: Path, content: str, error: str) -> None:
    _put(root, JSON, content)
    found = _discovered(root)
    assert (found.source, found.address) == (JSON, None)
    assert error in str(found.error)


def test_the_first_in_the_engines_order_wins(root: Path) -> None:
    paths = [
        *("/etc/docker/plugins/mine.spec", "/etc/docker/plugins/mine/mine.spec"),
        *("/etc/docker/plugins/mine.json", "/etc/docker/plugins/mine/mine.json"),
        *("/usr/lib/docker/plugins/mine.spec", "/usr/lib/docker/plugins/mine/mine.spec"),
        *("/usr/lib/docker/plugins/mine.json", "/usr/lib/docker/plugins/mine/mine.json"),
    ]
    for path in paths:
        _put(root, path, '{"Addr": "unix:///x"}' if path.endswith("json") else "unix:///x")
    for at, path in enumerate(paths):
        found = _discovered(root)
        assert (found.source, found.shadowed) == (path, paths[at + 1 :])
        (root / path[1:]).unlink()
    assert _discovered(root) == (None, None, None, [], [])


@pytest.mark.parametrize(("place", "after"), [("mine.sock", 1), ("mine/mine.sock", 0)])
def test_a_socket_wins_over_files(root: Path, place: str, after: int) -> None:
    _put(root, SPEC, "unix:///x")
    path = root / discovery.SOCKETS[1:] / place
    path.parent.mkdir(exist_ok=True)
    (root / discovery.SOCKETS[1:] / "mine").mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        with _short(path.parent) as short:
            server.bind(f"{short}/{path.name}")
        found = _discovered(root)
    assert (found.source, found.shadowed) == (f"{discovery.SOCKETS}/{place}", [SPEC])


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A short path, for a socket below a deep directory."""
    fd = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "a directory, no socket"),
        (Path.touch, "a regular file, no socket"),
        (_a_loop, "a link that leads nowhere (Too many levels of symbolic links)"),
        (
            lambda path: path.symlink_to("/none"),
            "a link that leads nowhere (No such file or directory)",
        ),
    ],
)
def test_what_is_no_socket_is_passed_over(
    root: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = f"{discovery.SOCKETS}/mine.sock"
    make(root / path[1:])
    _put(root, SPEC, "unix:///x")
    found = _discovered(root)
    assert (found.source, found.passed_over) == (SPEC, [(path, reason)])


@pytest.mark.parametrize(
    ("make", "error"),
    [(Path.mkdir, "it is a directory"), (lambda path: os.mkfifo(path), "it is a fifo")],
)
def test_a_directory_or_a_fifo_in_a_spec_files_place_ends_the_search(
    root: Path, make: Callable[[Path], None], error: str
) -> None:
    """The engine reads it and fails; at a fifo it would hang."""
    make(root / SPEC[1:])
    found = _discovered(root)
    assert (found.source, found.address, found.error) == (SPEC, None, error)


def test_links_that_lead_nowhere_are_passed_over_in_a_spec_files_place(root: Path) -> None:
    _a_loop(root / SPEC[1:])
    _put(root, JSON, '{"Addr": "unix:///x"}')
    found = _discovered(root)
    assert found.source == JSON
    assert [path for path, _ in found.passed_over] == [SPEC]


class _Plugin(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = b'{"Implements": ["GraphDriver"]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def _plugin_findings(patient: Patient) -> dict[str, Finding]:
    checks = (plugin.discovery, plugin.address, plugin.listener, plugin.handshake)
    return {one.check: one for check in checks for one in check(patient)}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[[str], dict[str, Finding]]:
    """What the doctor says of a plugin that a .spec file with this content names."""
    monkeypatch.setattr(discovery, "SOCKETS", f"{root}{discovery.SOCKETS}")
    monkeypatch.setattr(discovery, "_SPECS", (f"{root}/etc/docker/plugins",))

    def findings(content: str) -> dict[str, Finding]:
        _put(root, SPEC, content)
        return _plugin_findings(Patient("mine", config_path=str(root / "none.json")))

    return findings


def test_a_plugin_at_a_tcp_address_is_asked_and_warned_of(
    named: Callable[[str], dict[str, Finding]], root: Path
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Plugin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"tcp://127.0.0.1:{server.server_port}"
        found = named(url)
        server.shutdown()
    assert found["handshake"].level == "ok"
    assert found["plugin-address"].level == "warning"
    assert f"{url} (which {root}{SPEC} names)" in found["plugin-address"].text
    found = named(url)
    assert found["listener"].level == "problem"
    assert f"Nobody listens on {url} (which {root}{SPEC} names)" in found["listener"].text
    assert "Connection refused" in found["listener"].text
    assert "handshake" not in found


def test_a_dead_or_wrong_path_in_a_spec_file_is_a_problem_that_names_both(
    named: Callable[[str], dict[str, Finding]], root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.sock"
    which = f"{path} (which {root}{SPEC} names)"
    assert f"There is no socket at {which}" in named(f"unix://{path}")["socket"].text
    path.mkdir()
    assert f"{which} is no socket" in named(f"unix://{path}")["socket"].text
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    path.chmod(0o600)
    if os.geteuid() == 0:
        assert f"Nobody listens on {which}" in named(f"unix://{path}")["listener"].text


def test_a_malformed_spec_file_is_a_problem_that_says_what_to_do(
    named: Callable[[str], dict[str, Finding]], root: Path
) -> None:
    found = named("/run/x.sock")
    assert list(found) == ["plugin-spec"]
    assert found["plugin-spec"].level == "problem"
    assert f"{root}{SPEC} names no address" in found["plugin-spec"].text
    assert found["plugin-spec"].remedy.startswith("Mend it or remove it")
