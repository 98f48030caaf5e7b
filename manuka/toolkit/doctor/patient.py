"""What the doctor looks at: one engine, one plugin, and where they are.

Neighbours: the checks read it.  Easy to get wrong: an engine that runs is the better witness of its
settings than the files on the machine, and one that doesn't run leaves only the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from typing import Any, NamedTuple

from manuka.toolkit.doctor.processes import Process, process, processes

CONFIG = "/etc/docker/daemon.json"
PLUGIN_SOCKETS = "/run/docker/plugins"
PLUGIN_SPECS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_DATA_ROOT = "/var/lib/docker"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Version(NamedTuple):
    """Of an engine, with the text that it gives."""

    major: int
    minor: int
    text: str


class Patient:
    """The engine and the plugin in question.

    name: what the engine knows the plugin by.
    config_path: the engine's daemon.json; None: where the running engine has it, or the usual.
    program: the dockerd to ask for its version; None: the running one's, or the first on PATH.
    socket: the plugin's socket; None: where an engine looks for it.
    deep: look at every file of every layer, too.
    """

    def __init__(
        self,
        name: str = "manuka",
        config_path: str | None = None,
        program: str | None = None,
        socket: str | None = None,
        deep: bool = False,
    ) -> None:
        self.name = name
        self.deep = deep
        self.engine = _running_engine(config_path)
        option = self.engine.option if self.engine else (lambda *names: None)
        self.config_path = config_path or option("--config-file") or CONFIG
        self.config, self.config_error = _read_config(self.config_path)
        self.program = program or _program(self.engine)
        self.version = _version(self.program)
        self.socket = socket or _socket(name)
        self.data_root = str(
            option("--data-root", "-g", "--graph") or self.config.get("data-root") or _DATA_ROOT
        )

    @property
    def home(self) -> str:
        """The folder that the engine gives the driver."""
        return os.path.join(self.data_root, self.name)

    def setting(self, key: str, *flags: str) -> Any:
        """A setting of the engine: its command line's, or daemon.json's; None: neither has it."""
        if self.engine is not None:
            given = self.engine.option(*flags)
            if given is not None:
                return given != "false" if given in ("", "true", "false") else given
        return self.config.get(key)


def _running_engine(config_path: str | None) -> Process | None:
    """The dockerd that runs; the one with that configuration file if there are several."""
    pid_files = ["/var/run/docker.pid"]
    with contextlib.suppress(Exception):
        pid_files.insert(0, _read_config(config_path or CONFIG)[0]["pidfile"])
    for pid_file in pid_files:
        with contextlib.suppress(OSError, ValueError):
            with open(pid_file) as file:
                found = process(int(file.read()))
            if found.name == "dockerd":
                return found
    engines = [one for one in processes() if one.name == "dockerd"]
    if config_path is not None:
        engines = [one for one in engines if one.option("--config-file") == config_path]
    return engines[0] if engines else None


def _read_config(path: str) -> tuple[dict[str, Any], str | None]:
    """daemon.json's content, and what is wrong with it; one that is not there is empty."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}, None
    except (OSError, UnicodeDecodeError) as error:
        return {}, str(error)
    if not text.strip():
        return {}, None
    try:
        config = json.loads(text)
    except ValueError as error:
        return {}, str(error)
    if not isinstance(config, dict):
        return {}, "it holds no JSON object"
    return config, None


def _program(engine: Process | None) -> str | None:
    if engine is not None:
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/{engine.pid}/exe")
            if os.path.basename(path) == "dockerd":
                return path
    return shutil.which("dockerd", path=os.pathsep.join([os.environ.get("PATH", ""), _PATH]))


def _version(program: str | None) -> Version | None:
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"version (v?(\d+)\.(\d+)[^\s,]*)", done.stdout.decode(errors="replace"))
    return Version(int(match.group(2)), int(match.group(3)), match.group(1)) if match else None


def _socket(name: str) -> str:
    """Where an engine would find the plugin's socket (``pkg/plugins/discovery.go``)."""
    below = f"{PLUGIN_SOCKETS}/{name}/{name}.sock"
    return below if os.path.exists(below) else f"{PLUGIN_SOCKETS}/{name}.sock"
