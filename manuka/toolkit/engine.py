"""A Docker engine in a sandbox: found, configured, started, and talked to.

The engine is a dockerd of any version with a configuration file of its own; containerd and runc
are started by it.  Neighbours: `manuka.toolkit.daemon` starts and stops it,
`manuka.toolkit.sandbox` puts plugin and engine together.  Easy to get wrong: what an engine does
to the host whatever its data folder is (networks, forwarding, key files, control groups) has to
be switched off one by one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
from typing import Any, Mapping, NamedTuple, Sequence

from manuka.linux import private
from manuka.toolkit.daemon import Daemon
from manuka.toolkit.namespace import Namespace, SandboxError

# Drivers that are compiled into engines: the engine never asks a plugin of such a name.
BUILT_IN = (
    "aufs",
    "btrfs",
    "devicemapper",
    "fuse-overlayfs",
    "overlay",
    "overlay2",
    "vfs",
    "zfs",
)

INSTALL = "apt-get install --no-install-recommends docker.io"

# An engine's own settings in the environment would override its configuration file.
_FOREIGN = re.compile("DOCKER|MOBY|NOTIFY_SOCKET|LISTEN_(FDS|PID)|CONTAINERD")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program(NamedTuple):
    """An engine that is installed: its dockerd, and the version that it says it has."""

    path: str
    version: tuple[int, int]
    version_text: str

    @property
    def search_path(self) -> str:
        """Where it finds containerd and runc: beside itself first."""
        return os.pathsep.join([os.path.dirname(self.path), _search_path()])


def find(path: str | None = None) -> Program:
    """The engine at `path`, or the first dockerd on the PATH; SandboxError if there is none."""
    found = shutil.which(path or "dockerd", path=_search_path())
    if found is None:
        if path is not None:
            raise SandboxError(f"there is no engine at {path}")
        raise SandboxError(f"no dockerd on this machine; install one: {INSTALL}")
    found = os.path.abspath(found)
    said = subprocess.run([found, "--version"], stdout=subprocess.PIPE, timeout=60).stdout.decode()
    match = re.search(r"version (v?(\d+)\.(\d+)[^\s,]*)", said)
    if match is None:
        raise SandboxError(f"{found} is no Docker engine: it says {said.strip()!r}")
    return Program(found, (int(match.group(2)), int(match.group(3))), match.group(1))


def check(program: Program, driver: str, network: bool = False) -> None:
    """SandboxError, with the reason and a remedy, if `program` cannot run `driver` here."""
    if driver not in BUILT_IN and program.version >= (28, 0):
        raise SandboxError(
            f"Docker {program.version_text} has no graphdriver plugins any more: "
            "they were removed in 28.0.\n"
            "Use an engine from 18.09 to 27 (--engine PATH), or compare with the engine's own "
            "driver: --driver overlay2"
        )
    helpers = ["containerd", "runc"] + (["iptables"] if network else [])
    for helper in helpers:
        if shutil.which(helper, path=program.search_path) is None:
            raise SandboxError(
                f"the engine needs {helper}, which is not on this machine; install it: "
                f"apt-get install {helper}"
            )


def sees_every_hierarchy(program: Program) -> bool:
    """Whether `program` runs containers only where every listed cgroup hierarchy is mounted.

    Engines before 20.10 start them through containerd's first runtime.
    """
    return program.version < (20, 10)


class Engine(Daemon):
    """A dockerd with its data, its socket and its settings below the sandbox's folder.

    settings: further keys for its daemon.json, which win over those made here.
    network: have a bridge, which needs a network namespace.
    """

    name = "the engine"

    def __init__(
        self,
        namespace: Namespace,
        log: str,
        program: Program,
        driver: str,
        storage_opts: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        network: bool = False,
    ) -> None:
        super().__init__(namespace)
        self.log = log
        self.program = program
        self.driver = driver
        self.storage_opts = list(storage_opts)
        self.network = network
        self.settings: dict[str, Any] = dict(settings or {})
        self.socket = self._below("docker.sock")
        self.data_root = self._below("docker")

    def command(self) -> list[str]:
        config = self._below("daemon.json")
        private.write(self._namespace.inside(config), json.dumps(self.config(), indent=2).encode())
        return [self.program.path, "--config-file", config]

    def environment(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not _FOREIGN.match(key)}
        env["PATH"] = self.program.search_path
        if self.network:
            # A firewalld of the host would take the bridge for one of the host's.
            env["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=" + self._below("no-bus")
            env["XTABLES_LOCKFILE"] = self._below("xtables.lock")
        if self.program.version >= (27, 0):
            env["DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS"] = "1"
        return env

    def config(self) -> dict[str, Any]:
        """What its daemon.json says."""
        config: dict[str, Any] = {
            "experimental": True,
            "storage-driver": self.driver,
            "storage-opts": self.storage_opts,
            "data-root": self.data_root,
            "exec-root": "/run/docker",
            "pidfile": self._below("docker.pid"),
            "hosts": ["unix://" + self.socket],
            "group": "root",
            "cgroup-parent": "/" + self._namespace.name,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "iptables": self.network,
            "ip-forward": self.network,
            "ip-masq": self.network,
            # Its program may be missing; the kernel alone serves published ports as well.
            "userland-proxy": False,
        }
        if not self.network:
            config["bridge"] = "none"
        if self.program.version >= (20, 10):
            config["ip6tables"] = False
        if self.program.version < (23, 0):
            config["deprecated-key-path"] = self._below("key.json")
        config.update(self.settings)
        return config

    def is_ready(self) -> bool:
        try:
            return bool(self.request("GET", "/_ping", timeout=5) == "OK")
        except (OSError, http.client.HTTPException):
            return False

    def request(self, method: str, path: str, timeout: float = 60) -> Any:
        """One call of the engine's API: the JSON of the answer, or its text.

        Raises OSError when it does not answer, SandboxError with its message on a refusal.
        """
        connection = UnixConnection(self._namespace.inside(self.socket), timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SandboxError(f"{method} {path}: {body.strip()}")
        if answer.getheader("Content-Type", "").startswith("application/json") and body:
            return json.loads(body)
        return body

    def kill_containers(self) -> None:
        """End every container, so that a stop need not wait for them."""
        for container in self.request("GET", "/containers/json"):
            with contextlib.suppress(SandboxError):  # it ended by itself
                self.request("POST", "/containers/{Id}/kill".format(**container))

    def _below(self, name: str) -> str:
        return os.path.join(self._namespace.data, name)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), _SYSTEM_PATH])
