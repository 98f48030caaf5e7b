"""The plugin's units: no mount namespace of its own, order, readiness, restarts, journal."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest
from ansible.plugins.filter.core import comment

TEMPLATES = Path(__file__).resolve().parents[2] / "ansible/roles/manuka/templates"

#: systemd.exec(5): each gives a service a mount namespace of its own, if it is not switched off.
#: Some do so in some releases only.
NAMESPACES = {
    *("BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExecSearchPath"),
    *("ExtensionDirectories", "ExtensionImages", "InaccessiblePaths", "LoadCredential"),
    *("LoadCredentialEncrypted", "LogNamespace", "MountAPIVFS", "MountFlags", "MountImages"),
    *("NetworkNamespacePath", "NoExecPaths", "PrivateBPF", "PrivateDevices", "PrivateIPC"),
    *("PrivateMounts", "PrivateNetwork", "PrivateTmp", "PrivateUsers", "ProcSubset"),
    *("ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs"),
    *("ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem"),
    *("ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "SetCredential"),
    *("SetCredentialEncrypted", "TemporaryFileSystem", "ImportCredential"),
}
#: And these keep a storage driver from its work: see the unit.
HARM = {
    *("DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute", "ProtectClock", "RestrictSUIDSGID"),
    *("User", "RestrictFileSystems", "RootEphemeral"),
}


def render(name: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["comment"] = comment
    return environment.get_template(f"{name}.j2").render(
        ansible_managed="Ansible managed", manuka_release_folder="/opt/manuka/releases/1",
        manuka_log_level="info",
    )  # fmt: skip


def directives(unit: str) -> dict:
    """Name to values, without comments."""
    result: dict = {}
    for line in unit.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            result.setdefault(name, []).append(value)
    return result


def private(unit: str) -> set:
    return NAMESPACES & set(directives(unit))


def test_the_service_has_the_mount_namespace_of_the_engine() -> None:
    assert private(render("manuka.service")) == set()


@pytest.mark.parametrize("name", sorted(NAMESPACES))
def test_a_directive_that_would_give_it_one_of_its_own_is_seen(name: str) -> None:
    unit = render("manuka.service").replace("[Install]", f"{name}=yes\n[Install]")
    assert private(unit) == {name}


def test_no_directive_keeps_the_driver_from_its_work() -> None:
    unit = directives(render("manuka.service"))
    assert HARM & set(unit) == set()
    needed = "SYS_ADMIN CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID MKNOD SETFCAP SYS_RESOURCE"
    allowed = unit["CapabilityBoundingSet"][0].split()
    assert {f"CAP_{name}" for name in needed.split()} <= set(allowed)
    assert "@mount" not in unit["SystemCallFilter"][0]


def test_the_engine_starts_after_the_plugin_and_does_not_fall_with_it() -> None:
    service, addition = (
        directives(render(name)) for name in ("manuka.service", "docker.service.d/manuka.conf")
    )
    assert service["Before"] == ["docker.service"]
    for word in ("After", "Wants"):
        assert set(addition[word][0].split()) == {"manuka.socket", "manuka.service"}
    assert not {"Requires", "BindsTo", "PartOf"} & set(addition)
    assert "docker.service" not in " ".join(service["Requires"])
    assert addition["Environment"] == ["DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS=1"]


def test_the_plugin_says_when_it_is_ready_and_comes_again_when_it_dies() -> None:
    service = directives(render("manuka.service"))
    assert service["Type"] == ["notify"]
    assert service["Restart"] == ["always"]
    assert service["Requires"] == ["manuka.socket"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]
    assert not {"StandardOutput", "StandardError"} & set(service)  # so they go to the journal


def test_the_socket_is_where_the_engine_looks_and_for_root_alone() -> None:
    socket = directives(render("manuka.socket"))
    assert socket["ListenStream"] == ["/run/docker/plugins/manuka.sock"]
    assert socket["SocketMode"] == ["0600"]
    assert "RemoveOnStop" not in socket


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    for name in ("manuka.service", "manuka.socket"):
        text = render(name).replace("/opt/manuka/releases/1/venv/bin/manuka", "/bin/true")
        (tmp_path / name).write_text(text)
    for name in ("sysinit.target", "basic.target", "shutdown.target", "sockets.target"):
        (tmp_path / name).write_text("[Unit]\nDescription=for a test\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "manuka.service")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    about_us = [line for line in done.stderr.splitlines() if "manuka" in line]
    assert about_us == []
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=47",
         str(tmp_path / "manuka.service")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.strip().splitlines()[-1:] or done.stderr
