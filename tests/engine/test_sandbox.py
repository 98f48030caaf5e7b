"""``manuka sandbox``: the command runs, its status comes back, and nothing is left, ever."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from manuka.linux.mountinfo import mounts
from manuka.toolkit import busybox, cgroups, images
from manuka.toolkit import engine as engines
from manuka.toolkit.host import COVERED, DATA_PREFIX
from manuka.toolkit.namespace import with_this_package
from manuka.toolkit.sandbox import Sandbox, SandboxError
from tests.processes import commands_with
from tests.unit.others import open_to_others, paths_below

from .conftest import DRIVER

pytestmark = pytest.mark.engines_in_turn

Command = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def command(engine: str, workshop: str) -> Iterator[Command]:
    """Start ``manuka sandbox`` with arguments of one's own."""
    started = []

    def start(*arguments: str, driver: str = DRIVER, **more: object) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "manuka", "sandbox", "--engine", engine),
                *("--driver", driver, "--data-dir", workshop, *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=with_this_package(os.environ),
            **more,  # type: ignore[call-overload]
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture(autouse=True)
def _nothing_is_left(workshop: str) -> Iterator[None]:
    """Also after the end that no process can see coming: a keeper then tidies up."""
    folders = set(os.listdir(workshop))
    covered = [os.path.exists(path) for path in COVERED]
    alone = not commands_with(DATA_PREFIX)
    yield
    deadline = time.monotonic() + 60
    while _left(workshop, folders):
        assert time.monotonic() < deadline, _left(workshop, folders)
        time.sleep(0.05)
    # They are every sandbox's, also of those that others run at this moment.
    if alone and not commands_with(DATA_PREFIX):
        assert [os.path.exists(path) for path in COVERED] == covered


def _left(workshop: str, folders: set[str]) -> list[str]:
    new = set(os.listdir(workshop)) - folders
    found = [os.path.join(workshop, name) for name in new]
    for name in new:
        found += glob.glob(f"/sys/fs/cgroup/*/{name}") + glob.glob(f"/sys/fs/cgroup/{name}")
        found += [mount.mount_point for mount in mounts() if name in mount.mount_point]
    return found


def ready(child: subprocess.Popen[bytes]) -> str:
    """Wait until the sandbox is ready; its folder."""
    assert child.stderr is not None
    for line in child.stderr:
        match = re.search(rb"its data is (?:in memory, at|in) (\S+)", line)
        if match:
            return match.group(1).decode()
    raise AssertionError("the sandbox never became ready")


def processes_in(folder: str) -> list[int]:
    """Processes of the sandbox with this folder, by their command lines."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if folder.encode() in file.read():
                    found.append(int(path.split("/")[2]))
        except OSError:
            continue
    return found


def test_a_command_talks_to_the_private_engine(command: Command) -> None:
    out, err = command("--", "docker", "info", "--format", "{{.Driver}}").communicate(timeout=60)
    assert out.decode() == f"{DRIVER}\n", "nothing else is on stdout"
    assert b"nothing" not in out
    assert b"ready" in err


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143), ("true", 0)]
)
def test_the_commands_status_is_the_sandboxs(command: Command, script: str, status: int) -> None:
    child = command("--", "sh", "-c", script)
    child.communicate(timeout=60)
    assert child.returncode == status


def test_a_command_that_is_not_there_is_status_127(command: Command) -> None:
    child = command("--", "no-such-command")
    assert b"no-such-command" in child.communicate(timeout=60)[1]
    assert child.returncode == 127


def test_a_command_keeps_the_folder_and_the_environment(command: Command, workshop: str) -> None:
    script = 'pwd; echo "$DOCKER_HOST $MARK"'
    child = command("--", "sh", "-c", script, cwd="/usr/lib")
    out = child.communicate(timeout=60)[0].decode().splitlines()
    assert out[0] == "/usr/lib"
    assert out[1].startswith(f"unix://{workshop}/manuka-sandbox-")


def test_without_a_command_a_container_is_shown_with_its_layers(command: Command) -> None:
    child = command()
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err.decode()
    text = out.decode()
    for said in ("A /answer", "D /srv/notes", "srv/notes (deleted)", "demo:1", "upperdir"):
        assert said in text
    assert b"gone" in err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2])
def test_a_signal_during_the_start_takes_everything_back(
    command: Command, number: signal.Signals, status: int, delay: float
) -> None:
    child = command("--", "sleep", "100")
    assert child.stderr is not None
    child.stderr.readline()
    time.sleep(delay)
    child.send_signal(number)
    if number == signal.SIGINT:  # which the terminal sends to the command as well
        time.sleep(1)
        child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode in (status, 143)


def test_a_signal_for_the_sandbox_reaches_the_command(command: Command) -> None:
    child = command(
        "--", "sh", "-c", "trap 'echo caught; exit 5' TERM; while :; do sleep 0.1; done"
    )
    ready(child)
    time.sleep(0.5)
    child.terminate()
    assert child.communicate(timeout=60)[0] == b"caught\n"
    assert child.returncode == 5


def test_control_c_reaches_the_command_once_and_the_sandbox_waits_for_it(command: Command) -> None:
    script = "trap 'echo interrupted' INT; for i in $(seq 20); do sleep 0.1; done; exit 3"
    child = command("--", "sh", "-c", script, start_new_session=True)
    ready(child)
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)
    assert child.communicate(timeout=60)[0] == b"interrupted\n"
    assert child.returncode == 3


CONTAINER = (
    "tar -C /bin -c busybox | docker import - b:1 >/dev/null && "
    "docker run -d --network none b:1 /busybox sleep 1000 && exec sleep 1000"
)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_a_killed_sandbox_takes_its_engine_with_it(command: Command, delay: float) -> None:
    child = command("--", "sleep", "1000")
    assert child.stderr is not None
    child.stderr.readline()
    time.sleep(delay)
    child.kill()
    child.wait()


def test_a_killed_sandbox_takes_its_containers_with_it(command: Command) -> None:
    child = command("--", "sh", "-c", CONTAINER)
    folder = ready(child)
    assert child.stdout is not None
    child.stdout.readline()
    assert processes_in(folder) != []
    child.kill()
    child.wait()
    deadline = time.monotonic() + 60
    while processes_in(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_killed_keeper_leaves_is_swept_up_by_the_next_sandbox(command: Command) -> None:
    child = command("--", "sh", "-c", CONTAINER)
    folder = ready(child)
    assert child.stdout is not None
    child.stdout.readline()
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    keepers = [pid for pid in children if b"keeper" in _command_line(pid)]
    os.kill(keepers[0], signal.SIGKILL)
    child.communicate(timeout=60)
    assert child.returncode != 0
    assert processes_in(folder) == []
    assert os.path.isdir(folder)
    command("--", "true").communicate(timeout=60)
    assert not os.path.exists(folder)


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def test_an_engine_that_does_not_start_says_why(command: Command) -> None:
    child = command("--storage-opt", "nonsense.key=1", "--", "true")
    said = child.communicate(timeout=60)[1].decode()
    assert child.returncode == 1
    assert "the engine ended at once" in said
    assert "nonsense.key" in said, "the reason, from the log"


def test_the_start_says_what_containers_have(command: Command) -> None:
    _, err = command("--", "true").communicate(timeout=60)
    assert b"ready; no network, image busybox; its data is in" in err
    _, err = command("--network", "--", "true").communicate(timeout=60)
    assert b"ready; a bridge without a way out, ports published at 127.0.0.1, image busybox;" in err


def test_the_example_of_the_help_runs_offline(command: Command) -> None:
    run = ("docker", "run", "--rm", "busybox", "echo", "hello")
    for arguments in ((), ("--network",)):
        child = command(*arguments, "--", *run)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, b"hello\n"), err.decode()


SERVED = """
set -e
ip link | grep -c eth0 || :
docker run -d --name web -p 8080:80 busybox \\
    sh -c 'echo served >/srv/page; exec httpd -f -p 80 -h /srv' >/dev/null
address=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' web)
for host in 127.0.0.1:8080 $address:80; do
    tries=600
    until busybox wget -qO- http://$host/page 2>/dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ]
        sleep 0.1
    done
done
docker run --rm busybox wget -qO- http://$address/page
docker run --rm --network container:web busybox wget -qO- http://127.0.0.1/page
"""


def test_a_published_port_is_reached_from_the_commands_side_and_only_there(
    command: Command,
) -> None:
    child = command("--network", "--", "sh", "-c", SERVED)
    out, err = child.communicate(timeout=120)
    assert out.decode().split() == ["0", *4 * ["served"]], err.decode()
    assert child.returncode == 0


def test_a_sandbox_with_a_network_leaves_the_hosts_as_it_was(command: Command) -> None:
    before = _network()
    child = command("--network", "--", "sh", "-c", "docker run -d -p 8080:80 busybox sleep 1000")
    ready(child)
    assert _network() == before
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert _network() == before


def _network() -> list[object]:
    """Devices, forwarding and firewall of the host."""
    devices = sorted(name for name in os.listdir("/sys/class/net") if name.startswith("docker"))
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        forwarding = file.read()
    rules = subprocess.run(["iptables-save"], stdout=subprocess.PIPE, check=False).stdout
    lines = [line for line in rules.splitlines() if not line.startswith((b"#", b":"))]
    return [devices, forwarding, lines, os.path.exists("/run/xtables.lock")]


def test_images_come_from_files_and_from_another_engine(
    command: Command, engine: str, workshop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own engine is another sandbox's."""
    with Sandbox(engine, "overlay2", data_dir=workshop) as machine:
        program = busybox.image(busybox.find())
        machine.docker("import", "-", "made:1", input=program)
        machine.docker("tag", "made:1", "saved:1")
        (tmp_path / "saved.tar").write_bytes(machine.docker("save", "saved:1").stdout)
        with gzip.open(tmp_path / "My root.tar.gz", "wb") as file:
            file.write(program)
        (tmp_path / "link.tar").symlink_to("saved.tar")
        monkeypatch.setenv("DOCKER_HOST", machine.environment()["DOCKER_HOST"])
        child = command(
            *("--image", "made:1", "--load", str(tmp_path / "link.tar")),
            *("--load", str(tmp_path / "My root.tar.gz"), "--"),
            *("sh", "-c", "for one in made:1 saved:1 my-root; do docker run --rm $one id -u; done"),
        )
        out, err = child.communicate(timeout=120)
        assert (child.returncode, out.split()) == (0, 3 * [b"0"]), err.decode()
        assert b"images made:1, saved:1, my-root;" in err
        child = command("--image", "busybox", "--", "docker", "run", "--rm", "busybox", "true")
        assert b"image busybox;" in child.communicate(timeout=60)[1]
        assert child.returncode == 0
        child = command("--image", "none:1", "--", "true")
        said = child.communicate(timeout=60)[1].decode()
        assert child.returncode == 1
        assert said == (
            "sandbox: --image none:1: this machine's engine has no such image; docker pull none:1 "
            "first; or name a file: --load FILE\n"
        )


def test_a_saved_image_that_is_damaged_ends_the_sandbox_with_the_reason(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"{]}"))
    child = command("--load", str(path), "--", "true")
    said = child.communicate(timeout=60)[1].decode()
    assert child.returncode == 1
    assert f"sandbox: {path} cannot be loaded: " in said
    assert "Traceback" not in said


def test_an_engine_that_wants_every_hierarchy_has_them_and_runs_containers(
    engine: str, workshop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines before 20.10 do; the one at hand is taken for such."""
    monkeypatch.setattr(engines, "sees_every_hierarchy", lambda program: True)
    monkeypatch.setattr(cgroups, "unmounted", lambda: ["hugetlb"])
    with Sandbox(engine, DRIVER, data_dir=workshop) as sandbox:
        seen = [one.mount_point for one in sandbox.mounts() if one.fstype.startswith("cgroup")]
        assert len([one for one in seen if one == f"{cgroups.FOLDER}/unified"]) >= 1
        images.built_in()(sandbox)
        said = sandbox.docker(
            "run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/cgroup"
        )
        assert sandbox.namespace.name in said.stdout.decode() or b"0::/\n" in said.stdout


def test_two_sandboxes_run_at_once_and_see_each_other_not(command: Command) -> None:
    first = command("--", "sh", "-c", CONTAINER)
    ready(first)
    assert first.stdout is not None
    first.stdout.readline()
    out, err = command(
        "--", "sh", "-c", "docker ps -aq; docker images --format '{{.Repository}}'"
    ).communicate(timeout=60)
    assert out == b"busybox\n", err.decode()
    # The first still has its own: the folders that both cover went with neither.
    os.kill(first.pid, signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 143


def test_the_hosts_sockets_are_out_of_reach(command: Command) -> None:
    script = "ls /run/docker/plugins; find /run/containerd -type s"
    out, _ = command("--", "sh", "-c", script).communicate(timeout=60)
    assert out.decode().split() in (["manuka.sock"], [])


def test_keep_leaves_data_and_logs(command: Command) -> None:
    child = command("--keep", "--", "docker", "info")
    folder = ready(child)
    said = child.communicate(timeout=60)[1].decode()
    assert f"kept in {folder}" in said
    try:
        assert os.path.getsize(os.path.join(folder, "logs/engine.log")) > 0
        assert DRIVER in os.listdir(os.path.join(folder, "docker"))
        command("--", "true").communicate(timeout=60)
        assert os.path.isdir(folder), "another sandbox leaves it alone"
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)


def test_a_data_folder_that_carries_no_overlays_is_replaced_by_memory(
    command: Command, workshop: str
) -> None:
    """A sandbox within a container: its disk is an overlay itself."""
    script = """
        mkdir l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m &&
        exec "$@"
    """
    bottom = os.path.join(workshop, "stacked")
    os.mkdir(bottom)
    try:
        inner = [sys.executable, "-m", "manuka", "sandbox", "--driver", DRIVER, "--data-dir"]
        inner += [
            os.path.join(bottom, "m"),
            "--",
            "docker",
            "info",
            "--format",
            "{{.DriverStatus}}",
        ]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *inner],
            cwd=bottom,
            env=with_this_package(os.environ),
            capture_output=True,
            timeout=60,
        )
        assert b"in memory" in done.stderr
        assert b"Backing Filesystem tmpfs" in done.stdout
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", bottom], check=True)


@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_the_engines_own_drivers_run_without_a_plugin(
    engine: str, workshop: str, driver: str
) -> None:
    with Sandbox(engine, driver, data_dir=workshop) as sandbox:
        assert sandbox.plugin is None
        assert sandbox.engine.request("GET", "/info")["Driver"] == driver


def test_an_engine_without_plugins_is_refused_with_the_reason(workshop: str) -> None:
    program = os.path.join(workshop, "dockerd")
    with open(program, "w") as file:
        file.write("#!/bin/sh\necho Docker version 28.5.2, build ecc6942\n")
    os.chmod(program, 0o755)
    try:
        with pytest.raises(SandboxError, match=r"removed in 28\.0"):
            Sandbox(program)
    finally:
        os.unlink(program)


def test_what_is_written_to_the_host_goes_even_when_it_resists(command: Command) -> None:
    script = (
        'd=${DOCKER_HOST#unix://}; d=${d%/*}; cd "$d"; touch fixed; chattr +i fixed; mkdir -m 0 x'
    )
    child = command("--", "sh", "-c", script)
    child.communicate(timeout=60)
    assert child.returncode == 0


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_others_can_neither_write_nor_read_what_a_sandbox_made(
    engine: str, workshop: str, umask: int
) -> None:
    before = os.umask(umask)
    try:
        files = {"/etc/subuid": "root:100000:65536\n"}
        with Sandbox(engine, DRIVER, data_dir=workshop, files=files) as sandbox:
            sandbox.docker("import", "-", "empty", input=bytes(1024))
            sandbox.docker("create", "empty", "true")
            top = sandbox.inside(sandbox.data)
            paths = [
                sandbox.data + path[len(top) :]
                for path in paths_below(Path(top), lambda path: path.endswith(("/diff", "/merged")))
            ]
            found = open_to_others(
                [*paths, "/run/docker", "/run/docker/plugins"], sandbox.namespace.spawn
            )
    finally:
        os.umask(before)
    # The engine's own file, what every user may read of /etc, and a folder of names.
    expected = {
        f"r- {sandbox.data}/docker.pid",
        f"r- {sandbox.data}/file0",
        "r- /run/docker",
    }
    assert set(found) <= expected
    assert f"r- {sandbox.data}/file0" in found
