"""Smaller parts of the sandbox: names of drivers, the busybox image, namespaces."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from manuka.toolkit import busybox, images
from manuka.toolkit.namespace import Namespace, SandboxError, with_this_package
from manuka.toolkit.plugin import name_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("manuka", "manuka"),
        ("manuka.overlay2:Overlay2", "manuka"),
        ("mine:Driver", "manuka"),
        ("installed", "installed"),
    ],
)
def test_a_driver_has_a_name_that_no_engine_takes_for_its_own(driver: str, name: str) -> None:
    assert name_of(driver) == name


def test_a_script_and_a_short_file_are_no_static_programs(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"#!/bin/sh\n" + b"#" * 100, b"\x7fELF\x02\x01")):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert not busybox.is_static(str(path))


def test_a_dynamically_linked_program_is_not_taken() -> None:
    shell = os.path.realpath("/bin/sh")
    if subprocess.run(["ldd", shell], stdout=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no dynamically linked shell here")
    assert not busybox.is_static(shell)


def test_the_image_is_a_busybox_with_links(tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    program.write_bytes(b"program")
    with tarfile.open(fileobj=io.BytesIO(busybox.image(str(program)))) as tar:
        found = {entry.name: entry for entry in tar}
        file = tar.extractfile("bin/busybox")
        assert file is not None
        assert file.read() == b"program"
    assert found["bin/busybox"].mode == 0o755
    assert found["bin/sh"].linkname == "busybox"
    assert found["tmp"].mode == 0o1777


def test_without_a_static_busybox_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="apt-get install busybox-static"):
        busybox.find()


def test_another_python_finds_this_package_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import manuka.toolkit"],
        cwd=str(tmp_path),
        env=with_this_package({"PYTHONPATH": "/elsewhere"}),
    )
    assert done.returncode == 0


@needs_root
def test_a_process_in_the_namespace_sees_only_what_is_in_it(tmp_path: Path) -> None:
    namespace = Namespace(str(tmp_path))
    try:
        child = namespace.spawn(["sh", "-c", "echo $$; ls /proc"], stdout=subprocess.PIPE)
        out = child.communicate(timeout=120)[0].decode().split()
        pids = [int(name) for name in out[1:] if name.isdigit()]
        assert 1 in pids
        assert len(pids) <= 4, "its process 1, the shell, and ls"
        assert os.getpid() not in pids
        assert child.returncode == 0
    finally:
        namespace.close()
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_mount_in_the_namespace_is_seen_by_all_in_it_and_by_nobody_else(tmp_path: Path) -> None:
    namespace = Namespace(str(tmp_path))
    try:
        folder = os.path.join(namespace.data, "mounted")
        os.mkdir(folder)
        mount = shutil.which("mount") or pytest.skip("no mount program")
        assert namespace.spawn([mount, "-n", "-t", "tmpfs", "none", folder]).wait(20) == 0
        assert namespace.spawn(["sh", "-c", f"echo x > {folder}/x"]).wait(20) == 0
        assert os.listdir(folder) == []
        assert os.listdir(namespace.inside(folder)) == ["x"]
        assert folder in [mount.mount_point for mount in namespace.mounts()]
    finally:
        namespace.close()
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_the_end_of_the_namespace_ends_its_processes(tmp_path: Path) -> None:
    namespace = Namespace(str(tmp_path))
    child = namespace.spawn(["sleep", "1000"])
    namespace.close()
    assert child.wait(60) == -9
    with pytest.raises(SandboxError, match="has ended"):
        namespace.spawn(["true"])


@needs_root
def test_a_file_of_the_host_can_be_another_one_inside(tmp_path: Path) -> None:
    substitute = tmp_path / "substitute"
    substitute.write_text("another\n")
    data = tmp_path / "data"
    data.mkdir()
    before = Path("/etc/passwd").read_text()
    namespace = Namespace(str(data))
    try:
        namespace.bind(str(substitute), "/etc/passwd")
        child = namespace.spawn(["cat", "/etc/passwd"], stdout=subprocess.PIPE)
        assert child.communicate(timeout=120)[0] == b"another\n"
        assert Path("/etc/passwd").read_text() == before
    finally:
        namespace.close()


def test_a_folder_that_is_missing_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="missing"):
        Namespace(str(tmp_path / "missing"))


_LOSES_ITS_FIRST_SIGNAL = """
import os, signal, time
from manuka.toolkit import command

class Loses:
    def __del__(self):  # whose errors Python ignores
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

try:
    with command._signals_as_exceptions():
        Loses()
        time.sleep(30)
except command._Ended as ended:
    print(ended.number)
time.sleep(2 * command._AGAIN)  # in which nothing comes any more
"""


def test_a_signal_that_comes_where_exceptions_are_lost_ends_the_sandbox_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOSES_ITS_FIRST_SIGNAL],
        env=with_this_package(os.environ),
        capture_output=True,
        timeout=60,
    )
    assert b"Exception ignored" in done.stderr
    assert (done.returncode, done.stdout) == (0, b"%d\n" % signal.SIGTERM)


@needs_root
def test_a_network_namespace_has_a_loopback_device_that_nobody_outside_sees(tmp_path: Path) -> None:
    namespace = Namespace(str(tmp_path), network=True)
    script = (
        "import os, socket, sys\n"
        "server = socket.socket()\n"
        "server.bind(('127.0.0.1', 0))\n"
        "server.listen()\n"
        "socket.create_connection(server.getsockname())\n"
        "print([name for _, name in socket.if_nameindex()], os.readlink('/proc/self/ns/net'))\n"
    )
    try:
        child = namespace.spawn([sys.executable, "-c", script], stdout=subprocess.PIPE)
        said = child.communicate(timeout=60)[0].decode()
        # An older kernel puts its tunnels' templates into every namespace.
        assert "'lo'" in said
        assert "eth0" not in said
        assert os.readlink("/proc/self/ns/net") not in said
    finally:
        namespace.close()


# --- images -------------------------------------------------------------------------------------


def _tar(path: Path, mode: str, *names: str) -> str:
    with tarfile.open(path, mode) as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return str(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_saved_image_is_told_from_a_root_file_system(tmp_path: Path, mode: str) -> None:
    for number, mark in enumerate(("manifest.json", "./oci-layout", "repositories")):
        assert images._is_saved(_tar(tmp_path / str(number), mode, "etc", mark))
    for number, names in enumerate(([], ["bin/sh", "etc/manifest.json"])):
        assert not images._is_saved(_tar(tmp_path / f"r{number}", mode, *names))


def test_a_file_that_is_no_tar_is_refused_with_its_name(tmp_path: Path) -> None:
    cut = Path(_tar(tmp_path / "cut.tar.gz", "w:gz", *map(str, range(2000))))
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "text").write_text("text" * 1000)
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (
        ("cut.tar.gz", "is no tar, or a damaged one"),
        ("text", "is no tar, or a damaged one"),
        ("empty", "is no tar, or a damaged one"),
        ("loop", "Too many levels of symbolic links"),
        ("fifo", "is no regular file"),
        (".", "is no regular file"),
        ("missing", "No such file or directory"),
    ):
        with pytest.raises(SandboxError) as raised:
            images.from_file(str(tmp_path / name))
        assert reason in str(raised.value)
        assert "\n" not in str(raised.value)


def _client(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)


def test_why_the_machines_engine_gives_no_image_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client is a script with the answers of a real one: an engine is not to be had here."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SandboxError, match="no docker client"):
        images.from_engine("debian:12")
    with pytest.raises(SandboxError, match="no docker client"):
        images.from_engine("debian:12")
    _client(tmp_path / "bin", "echo 'Error: No such image: debian:12' >&2; exit 1")
    with pytest.raises(SandboxError, match="docker pull debian:12 first; or name a file: --load"):
        images.from_engine("debian:12")
    with pytest.raises(SandboxError, match="no name of an image"):
        images.from_engine("--help")
    _client(tmp_path / "bin", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(SandboxError, match=r"does not give it \(Cannot connect"):
        images.from_engine("debian:12")
