"""Finding an engine, refusing an unfit one, and what its configuration says."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Tuple

import pytest

from manuka.toolkit import engine
from manuka.toolkit.engine import Engine, Program
from manuka.toolkit.namespace import SandboxError


def program(folder: Path, says: str, name: str = "dockerd") -> str:
    """A program that prints one line."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


@pytest.mark.parametrize(
    ("says", "version", "text"),
    [
        ("Docker version 18.09.9, build 039a7df9ba", (18, 9), "18.09.9"),
        ("Docker version 20.10.24+dfsg1, build 5d6db84", (20, 10), "20.10.24+dfsg1"),
        ("Docker version 26.1.5+dfsg1, build 411e817", (26, 1), "26.1.5+dfsg1"),
        ("Docker version v27.5.1, build abc", (27, 5), "v27.5.1"),
        ("Docker version 24.0.7-0ubuntu4, build 24.0.7-0ubuntu4", (24, 0), "24.0.7-0ubuntu4"),
    ],
)
def test_the_version_is_read_from_what_the_engine_says(
    tmp_path: Path, says: str, version: Tuple[int, int], text: str
) -> None:
    found = engine.find(program(tmp_path, says))
    assert (found.version, found.version_text) == (version, text)


def test_a_missing_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no engine at /no/such/dockerd"):
        engine.find("/no/such/dockerd")


def test_without_any_engine_the_package_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "_SYSTEM_PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"apt-get install .*docker\.io"):
        engine.find()


def test_another_program_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no Docker engine"):
        engine.find(program(tmp_path, "podman 5"))


@pytest.mark.parametrize("version", [(28, 0), (28, 5), (29, 1)])
def test_engines_from_28_run_their_own_drivers_only(version: Tuple[int, int]) -> None:
    fit = Program("/usr/sbin/dockerd", version, "{}.{}.0".format(*version))
    with pytest.raises(SandboxError, match=r"removed in 28\.0"):
        engine.check(fit, "manuka")


def test_an_engine_without_its_helpers_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "_SYSTEM_PATH", str(tmp_path))
    found = Program(program(tmp_path, "-"), (20, 10), "20.10.24")
    with pytest.raises(SandboxError, match="apt-get install containerd"):
        engine.check(found, "manuka")
    program(tmp_path, "-", "containerd")
    with pytest.raises(SandboxError, match="apt-get install runc"):
        engine.check(found, "manuka")
    program(tmp_path, "-", "runc")
    engine.check(found, "manuka")
    with pytest.raises(SandboxError, match="apt-get install iptables"):
        engine.check(found, "manuka", network=True)
    program(tmp_path, "-", "iptables")
    engine.check(found, "manuka", network=True)


def test_helpers_beside_the_engine_come_first() -> None:
    found = Program("/opt/docker-26/dockerd", (26, 1), "26.1.5")
    assert found.search_path.split(os.pathsep)[0] == "/opt/docker-26"


def configured(version: Tuple[int, int], **more: Any) -> Engine:
    namespace: Any = SimpleNamespace(data="/data/box", name="box")
    fit = Program("/usr/sbin/dockerd", version, "-")
    return Engine(namespace, "/data/box/log", fit, "manuka", **more)


def test_everything_that_the_engine_writes_lies_in_the_sandbox() -> None:
    config = configured((20, 10), storage_opts=["manuka.sync=none"]).config()
    assert config["data-root"] == "/data/box/docker"
    assert config["hosts"] == ["unix:///data/box/docker.sock"]
    assert config["pidfile"] == "/data/box/docker.pid"
    assert config["cgroup-parent"] == "/box"
    assert (config["storage-driver"], config["storage-opts"]) == ("manuka", ["manuka.sync=none"])
    assert config["experimental"] is True
    assert config["bridge"] == "none"
    assert not any(config[key] for key in ("iptables", "ip6tables", "ip-forward", "ip-masq"))


def test_with_a_network_it_has_a_bridge_and_lets_the_hosts_firewall_alone() -> None:
    made = configured((20, 10), network=True)
    config = made.config()
    assert "bridge" not in config
    assert all(config[key] for key in ("iptables", "ip-forward", "ip-masq"))
    assert config["userland-proxy"] is False
    assert made.environment()["XTABLES_LOCKFILE"].startswith("/data/box/")
    assert made.environment()["DBUS_SYSTEM_BUS_ADDRESS"].startswith("unix:path=/data/box/")
    assert "XTABLES_LOCKFILE" not in configured((20, 10)).environment()


def test_only_engines_before_20_10_need_every_hierarchy() -> None:
    for version, needs in (((18, 9), True), ((19, 3), True), ((20, 10), False), ((26, 1), False)):
        assert engine.sees_every_hierarchy(Program("-", version, "-")) == needs


@pytest.mark.parametrize(
    ("version", "has_ip6tables", "has_key"),
    [((18, 9), False, True), ((20, 10), True, True), ((23, 0), True, False)],
)
def test_engines_get_only_the_settings_that_they_know(
    version: Tuple[int, int], has_ip6tables: bool, has_key: bool
) -> None:
    config = configured(version).config()
    assert ("ip6tables" in config, "deprecated-key-path" in config) == (has_ip6tables, has_key)


def test_settings_of_ones_own_win() -> None:
    config = configured((20, 10), settings={"live-restore": True, "group": "docker"}).config()
    assert (config["live-restore"], config["group"]) == (True, "docker")


def test_the_environment_cannot_override_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("DOCKER_HOST", "DOCKER_DRIVER", "NOTIFY_SOCKET", "LISTEN_FDS"):
        monkeypatch.setenv(key, "elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    env = configured((20, 10)).environment()
    assert env["HTTPS_PROXY"] == "http://proxy"
    assert "elsewhere" not in env.values()


def test_only_27_has_to_be_told_that_plugins_are_wanted() -> None:
    key = "DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS"
    assert configured((27, 5)).environment()[key] == "1"
    assert key not in configured((26, 1)).environment()
