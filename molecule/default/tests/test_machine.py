"""A machine that site.yml has made and that has been restarted, looked at from outside."""

import json
import re

import pytest

SOCKET = "/run/docker/plugins/manuka.sock"
HOME = "/var/lib/docker/manuka"


@pytest.fixture
def run(host):
    """Runs a command that has to succeed, and returns what it prints."""

    def run_command(command, *arguments):
        return host.check_output(command, *arguments).strip()

    return run_command


@pytest.fixture
def container(run):
    """The name of a new container that keeps running; removed afterwards."""
    name = "looked-at"
    run("docker run --detach --name %s --network none busybox:local sleep 600", name)
    yield name
    run("docker rm --force --volumes %s", name)


def main_pid(run, unit):
    return run("systemctl show --property MainPID --value %s", unit)


def mounts(host):
    """Mount point to file system's type and options, as init sees them."""
    lines = host.check_output("cat /proc/1/mountinfo").splitlines()
    fields = [line.split(" - ") for line in lines]
    return {left.split()[4]: right.split(" ", 2)[::2] for left, right in fields}


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["manuka.socket", "manuka.service", "docker.service"])
def test_the_unit_runs_and_is_started_at_boot(host, unit):
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_plugin_has_the_mount_namespace_of_init(host, run):
    pid = main_pid(run, "manuka.service")
    assert pid != "0"
    assert run("readlink /proc/%s/ns/mnt", pid) == run("readlink /proc/1/ns/mnt")


def test_the_plugin_cannot_do_what_a_storage_driver_need_not(run):
    status = run("cat /proc/%s/status", main_pid(run, "manuka.service"))
    bounding = int(re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE).group(1), 16)
    net_admin, sys_module, sys_ptrace, sys_admin = 12, 16, 19, 21
    assert not bounding & (1 << net_admin | 1 << sys_module | 1 << sys_ptrace)
    assert bounding & 1 << sys_admin
    assert re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s*2", status, re.MULTILINE)


def test_the_engine_starts_after_the_plugin(run):
    assert "docker.service" in run("systemctl show --property Before --value manuka.service")
    wants = run("systemctl show --property Wants --value docker.service").split()
    assert {"manuka.socket", "manuka.service"} <= set(wants)


def test_the_socket_is_for_root_alone(host):
    socket = host.file(SOCKET)
    assert socket.is_socket
    assert (socket.user, socket.group, socket.mode) == ("root", "root", 0o600)
    assert not host.file("/run/docker/plugins").mode & 0o022


def test_the_plugin_has_logged_no_error_and_no_traceback(run):
    journal = run("journalctl --unit manuka.service --output cat --no-pager")
    assert "listening on" in journal
    assert not re.findall(r"^(ERROR.*|Traceback.*)", journal, re.MULTILINE)


# --- engine ---------------------------------------------------------------------------------------


def test_the_engine_is_on_manuka(run):
    info = json.loads(run("docker info --format '{{json .}}'"))
    assert info["Driver"] == "manuka"
    assert info["ExperimentalBuild"]
    assert int(info["ServerVersion"].split(".")[0]) < 28


def test_daemon_json_is_an_object_that_the_engine_reads(host):
    keys = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert keys["storage-driver"] == "manuka"
    assert keys["experimental"] is True


def test_the_image_made_before_the_restarts_is_there(host, run):
    kept = host.file("/root/kept-image").content_string.strip()
    assert run("docker image inspect --format '{{.Id}}' busybox:local") == kept


def test_the_container_made_before_the_restarts_has_what_was_written(run):
    run("docker start kept")
    assert run("docker exec kept cat /before /after").split() == ["before", "after"]


# --- containers -----------------------------------------------------------------------------------


def test_a_container_runs(run):
    output = run("docker run --rm --network none busybox:local cat /greeting")
    assert output == "old"


def test_what_a_container_changes_is_told_and_committed(run, container):
    run("docker exec %s sh -c 'echo new > /greeting; mkdir /made; rm /bin/ls'", container)
    changes = set(run("docker diff %s", container).splitlines())
    assert changes == {"A /made", "C /bin", "D /bin/ls", "C /greeting"}
    run("docker commit %s changed:local", container)
    try:
        command = "cat /greeting; [ -d /made ] && ! [ -e /bin/ls ] && echo as told"
        output = run("docker run --rm --network none changed:local sh -c %s", command)
        assert output.splitlines() == ["new", "as told"]
        assert run("docker run --rm --network none busybox:local cat /greeting") == "old"
    finally:
        run("docker rmi --force changed:local")


def test_a_running_container_is_an_overlay_below_the_plugins_home(host, run, container):
    data = json.loads(run("docker inspect --format '{{json .GraphDriver}}' %s", container))
    assert data["Name"] == "manuka"
    merged = data["Data"]["MergedDir"]
    assert merged.startswith(HOME + "/")
    fstype, options = mounts(host)[merged]
    assert fstype == "overlay"
    assert "lowerdir=" in options


def test_what_a_container_writes_is_a_file_in_its_layer(host, run, container):
    run("docker exec %s sh -c 'echo 42 > /answer'", container)
    upper = run("docker inspect --format '{{.GraphDriver.Data.UpperDir}}' %s", container)
    assert upper.startswith(HOME + "/")
    assert host.file(upper + "/answer").content_string == "42\n"


def test_a_removed_container_leaves_neither_mount_nor_layer(host, run):
    run("docker run --detach --name short --network none busybox:local sleep 600")
    merged = run("docker inspect --format '{{.GraphDriver.Data.MergedDir}}' short")
    assert merged in mounts(host)
    run("docker rm --force short")
    assert merged not in mounts(host)
    assert not host.file(merged[: -len("/merged")]).exists
