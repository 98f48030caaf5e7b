"""The plugin and the engine as systemd's units on a machine that site.yml has made."""

import json
import re

import pytest

SOCKET = "/run/docker/plugins/manuka.sock"


@pytest.mark.parametrize("unit", ["manuka.socket", "manuka.service", "docker.service"])
def test_the_unit_runs_and_is_started_at_boot(host, unit):
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_plugin_has_the_mount_namespace_of_init(run, main_pid):
    pid = main_pid("manuka.service")
    assert pid != "0"
    assert run("readlink /proc/%s/ns/mnt", pid) == run("readlink /proc/1/ns/mnt")


def test_the_plugin_cannot_do_what_a_storage_driver_need_not(run, main_pid):
    status = run("cat /proc/%s/status", main_pid("manuka.service"))
    bounding = int(re.search(r"^CapBnd:\s*(\w+)", status, re.MULTILINE).group(1), 16)
    net_admin, sys_module, sys_ptrace, sys_admin = 12, 16, 19, 21
    assert not bounding & (1 << net_admin | 1 << sys_module | 1 << sys_ptrace)
    assert bounding & 1 << sys_admin
    assert re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s*2", status, re.MULTILINE)


def test_the_engine_came_up_after_the_plugin(run, main_pid):
    def started(unit):
        # The 22nd field, behind a name in brackets: in clock ticks since boot.
        stat = run("cat /proc/%s/stat", main_pid(unit))
        return int(stat.rpartition(")")[2].split()[19])

    assert started("manuka.service") <= started("docker.service")


def test_the_socket_is_for_root_alone(host):
    socket = host.file(SOCKET)
    assert socket.is_socket
    assert (socket.user, socket.group, socket.mode) == ("root", "root", 0o600)
    assert not host.file("/run/docker/plugins").mode & 0o022


def test_the_plugin_has_logged_no_error_and_no_traceback(run):
    journal = run("journalctl --unit manuka.service --output cat --no-pager")
    assert "listening on" in journal
    assert not re.findall(r"^(ERROR.*|Traceback.*)", journal, re.MULTILINE)


def test_the_engine_is_on_manuka(run):
    info = json.loads(run("docker info --format '{{json .}}'"))
    assert info["Driver"] == "manuka"
    assert info["ExperimentalBuild"]
    assert int(info["ServerVersion"].split(".")[0]) < 28


def test_the_engine_is_the_releases_own(host, run):
    expected = {"11": "20.10.5", "12": "20.10.24", "13": "26.1.5"}[host.system_info.release[:2]]
    version = run("docker version --format '{{.Server.Version}}'")
    assert version.partition("+")[0] == expected
