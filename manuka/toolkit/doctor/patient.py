"""What the doctor looks at: one engine, one plugin, and where they are.

The checks read it.  An engine that runs is the better witness of its settings than the files on the
machine; one that does not run leaves only the files.  An engine in another mount namespace has
other files at the same paths, so every path is one of the engine's, and is opened through `reach`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from typing import Any, NamedTuple

from manuka.errors import ManukaError
from manuka.toolkit.doctor.discovery import Address, discover
from manuka.toolkit.doctor.processes import Process, processes

CONFIG = "/etc/docker/daemon.json"
_DATA_ROOT = "/var/lib/docker"
_PID_FILE = "/var/run/docker.pid"
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
    pid: the engine's process; None: the one with `config_path`, or the one whose pid file is the
        usual, or the first that sees the same mounts as the doctor, or else the first.
    Raises ManukaError when the process `pid` is no engine.
    """

    def __init__(
        self,
        name: str = "manuka",
        config_path: str | None = None,
        program: str | None = None,
        socket: str | None = None,
        deep: bool = False,
        pid: int | None = None,
    ) -> None:
        self.name = name
        self.deep = deep
        #: All engines that run, the examined one among them.
        self.engines = [one for one in processes() if one.name == "dockerd"]
        self.engine = _chosen(self.engines, config_path, pid)
        self._root = _root_of(self.engine)
        option = self.engine.option if self.engine else (lambda *names: None)
        self.config_path = config_path or option("--config-file") or CONFIG
        self.config, self.config_error = _read_config(self.reach(self.config_path))
        self.program = program or _program(self.engine)
        self.version = _version(self.program)
        if socket is not None:
            #: What the engine finds; None: the plugin's socket was named.
            self.discovery = None
            self.address: Address | None = Address(f"unix://{socket}", socket)
        else:
            self.discovery = discover(name, self.reach)
            self.address = self.discovery.address
        self.data_root = str(
            option("--data-root", "-g", "--graph") or self.config.get("data-root") or _DATA_ROOT
        )

    @property
    def home(self) -> str:
        """The directory that the engine gives the driver."""
        return os.path.join(self.data_root, self.name)

    @property
    def is_apart(self) -> bool:
        """Whether the engine sees other mounts than the doctor."""
        return bool(self._root)

    def reach(self, path: str) -> str:
        """The path by which this process reaches what the engine has at `path`."""
        return self._root + os.path.abspath(path) if self._root else path

    def entries(self, path: str) -> list[str]:
        """The names in a directory of the engine's; none if it cannot be read."""
        try:
            return sorted(os.listdir(self.reach(path)))
        except OSError:
            return []

    def text(self, path: str) -> str:
        """What a small file of the engine's says; nothing if it cannot be read."""
        try:
            with open(self.reach(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    def setting(self, key: str, *flags: str) -> Any:
        """A setting of the engine: its command line's, or daemon.json's; None: neither has it."""
        if self.engine is not None:
            given = self.engine.option(*flags)
            if given is not None:
                return given != "false" if given in ("", "true", "false") else given
        return self.config.get(key)


def _chosen(engines: list[Process], config_path: str | None, pid: int | None) -> Process | None:
    """The engine to examine."""
    if pid is not None:
        for one in engines:
            if one.pid == pid:
                return one
        running = ", ".join(str(one.pid) for one in engines) or "none"
        raise ManukaError(f"--pid: the process {pid} is no dockerd; those that run: {running}")
    if config_path is not None:
        wanted = os.path.abspath(config_path)
        engines = [one for one in engines if config_of(one) == wanted]
    pid_file = _read_config(config_path or CONFIG)[0].get("pidfile") or _PID_FILE
    with contextlib.suppress(OSError, ValueError, TypeError):
        with open(pid_file) as file:
            usual = int(file.read())
        for one in engines:
            if one.pid == usual:
                return one
    near = [one for one in engines if not _root_of(one)]
    return next(iter([*near, *engines]), None)


def config_of(engine: Process) -> str:
    """The daemon.json of an engine that runs, as it sees it."""
    return os.path.join(engine.folder or "/", engine.option("--config-file") or CONFIG)


def _root_of(engine: Process | None) -> str:
    """What to put before a path of the engine's to reach it from here."""
    if engine is None or engine.mount_namespace is None:
        return ""
    if engine.mount_namespace == os.readlink("/proc/self/ns/mnt"):
        return ""
    return f"/proc/{engine.pid}/root"


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
            link = f"/proc/{engine.pid}/exe"
            path = os.readlink(link)
            # Started through a wrapper, it may be a linker; and an upgrade may have replaced it.
            if os.path.basename(path).startswith("dockerd"):
                return path if os.path.isfile(path) and not _root_of(engine) else link
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
