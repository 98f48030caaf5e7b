"""A Docker engine of one's own, on a storage driver of one's own, thrown away at the end.

`Sandbox` puts a plugin and an engine into a private namespace and offers what tests need: start,
stop and kill of each by itself, the docker client, a look at the mounts.  Neighbours:
`manuka.toolkit.namespace`, `manuka.toolkit.plugin` and `manuka.toolkit.engine` are the parts;
`manuka.toolkit.command` makes the command ``manuka sandbox`` of it.

Nothing of another engine on the machine is touched, and nothing stays: all processes live in the
namespace, and a keeper outside takes it down even if this process is killed.  Easy to get wrong:
the order of the end.  Containers first, then the engine, which calls the plugin until its last
moment, then the plugin.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import types
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from manuka.errors import ManukaError
from manuka.linux.mountinfo import Mount
from manuka.linux.private import make_directories
from manuka.toolkit import cgroups
from manuka.toolkit import engine as engines
from manuka.toolkit.daemon import Daemon
from manuka.toolkit.engine import BUILT_IN, Engine
from manuka.toolkit.namespace import Namespace, SandboxError
from manuka.toolkit.plugin import Plugin

if TYPE_CHECKING:  # which Python 3.7 lacks
    from typing import Protocol
else:
    Protocol = object

DATA_PARENT = "/var/tmp"
_CLIENT_SETTINGS = ("DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None: ...


class Sandbox:
    """An engine on a driver, within a ``with`` block; everything in it ends with the block.

    engine: the path of a dockerd; None: the first on the PATH.
    driver: ``manuka``, another driver as for ``manuka serve --driver``, which becomes a plugin
        too, or the name of one that the engine has built in.
    storage_opts: the engine's ``storage-opts``, each ``KEY=VALUE``.
    data_dir: the folder in which the sandbox makes its own, for another disk; its path should be
        short, as a socket lies in it.
    keep: leave the sandbox's folder, with data and logs, at the end.
    settings: further keys of the engine's daemon.json.
    plugin_args: further arguments of ``manuka serve``.
    plugin_program: another plugin instead of ``manuka serve``: the words that start it, to which
        its socket's path is added.  `driver` is then any name.
    files: the host's files that the sandbox sees with another content: ``{path: content}``.
    between: makes something that stands between engine and plugin, such as a
        `manuka.toolkit.trace.proxy.Proxy`: called with the path where it has to listen, and that
        of the plugin's own socket.
    network: give the engine a bridge, in a network namespace that all of the sandbox is in. Nothing
        outside is reached from it; published ports are at 127.0.0.1 for what runs in the sandbox.
    """

    def __init__(
        self,
        engine: str | None = None,
        driver: str = "manuka",
        storage_opts: Sequence[str] = (),
        data_dir: str | None = None,
        keep: bool = False,
        settings: Mapping[str, Any] | None = None,
        plugin_args: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        between: Callable[[str, str], Closable] | None = None,
        plugin_program: Sequence[str] | None = None,
        network: bool = False,
    ) -> None:
        if os.geteuid() != 0:
            raise SandboxError("a sandbox mounts file systems: run it as root (sudo)")
        self.program = engines.find(engine)
        engines.check(self.program, driver, network)
        self.network = network
        self.driver = driver
        self.keep = keep
        self._parent = os.path.abspath(data_dir or DATA_PARENT)
        self._storage_opts = storage_opts
        self._settings = settings
        self._plugin_args = plugin_args
        self._files = dict(files or {})
        self._plugin_program = plugin_program
        self._make_between = between
        self._between: Closable | None = None

    def __enter__(self) -> Sandbox:
        needs_cgroups = engines.sees_every_hierarchy(self.program) and bool(cgroups.unmounted())
        self.namespace = Namespace(self._parent, self.keep, self.network, needs_cgroups)
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    @property
    def data(self) -> str:
        """The sandbox's folder."""
        return self.namespace.data

    @property
    def logs(self) -> str:
        """The folder of ``engine.log`` and ``plugin.log``."""
        return os.path.join(self.data, "logs")

    @property
    def home(self) -> str:
        """The folder where the driver keeps its layers, as the engine tells it."""
        root: str = self.engine.request("GET", "/info")["DockerRootDir"]
        return os.path.join(root, self.driver)

    @property
    def daemons(self) -> list[Daemon]:
        """What runs, in the order of starting."""
        return [self.engine] if self.plugin is None else [self.plugin, self.engine]

    def start(self) -> None:
        """Start the plugin, if there is one, and the engine; SandboxError with logs if not."""
        try:
            for daemon in self.daemons:
                if daemon is self.engine:
                    self._put_between()
                daemon.start()
        except SandboxError as error:
            raise SandboxError(f"{error}\n{self.last_words()}") from None

    def stop(self) -> None:
        """Stop engine and plugin; the sandbox and its data stay, for another `start`."""
        for daemon in reversed(self.daemons):
            daemon.stop()

    def close(self) -> None:
        """End everything: politely, or if something has crashed already, at once."""
        try:
            if all(daemon.running for daemon in self.daemons):
                with contextlib.suppress(OSError, ManukaError):
                    self.engine.kill_containers()
                for daemon in reversed(self.daemons):
                    daemon.stop(timeout=10)
            for daemon in reversed(self.daemons):
                daemon.kill()
        finally:
            if self._between is not None:
                self._between.close()
            self.namespace.close()

    def inside(self, path: str) -> str:
        """A path by which this process reaches `path` as it is in the sandbox, mounts and all."""
        return self.namespace.inside(path)

    def mounts(self) -> list[Mount]:
        """What is mounted in the sandbox."""
        return self.namespace.mounts()

    def environment(self) -> dict[str, str]:
        """The environment of a docker client of this engine."""
        env = {key: value for key, value in os.environ.items() if key not in _CLIENT_SETTINGS}
        env["DOCKER_HOST"] = "unix://" + self.engine.socket
        return env

    def spawn(self, command: Sequence[str], **redirections: Any) -> subprocess.Popen[bytes]:
        """Start a program inside, as a child of this process; arguments as `Namespace.spawn`."""
        redirections.setdefault("env", self.environment())
        return self.namespace.spawn(command, **redirections)

    def docker(
        self,
        *arguments: str,
        check: bool = True,
        input: bytes | None = None,
        timeout: float = 120,
        client: str = "docker",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the docker client and give its result, with output as bytes.

        The client has an empty configuration of its own.
        check: raise SandboxError, with what it said, when it fails.
        env: variables to add.
        """
        command = [client, *arguments]
        settings = dict(self.environment(), DOCKER_CONFIG=os.path.join(self.data, "client"))
        settings.update(env or {})
        child = self.spawn(
            command,
            env=settings,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = child.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise SandboxError(
                "no end after {:g} s: {}\n{}".format(timeout, " ".join(command), self.last_words())
            ) from None
        if check and child.returncode != 0:
            said = err.decode(errors="replace").strip()
            raise SandboxError(
                "{}: status {}: {}".format(" ".join(command), child.returncode, said)
            )
        return subprocess.CompletedProcess(command, child.returncode, out, err)

    def _prepare(self) -> None:
        """Make the parts, and what they need on disk."""
        log = os.path.join(self.logs, "{}.log").format
        self.plugin: Plugin | None = None
        if self.driver not in BUILT_IN:
            run_dir = os.path.join(self.data, "run")
            aside = os.path.join(self.data, "plugin.sock") if self._make_between else None
            self.plugin = Plugin(
                self.namespace,
                log("plugin"),
                self.driver,
                run_dir,
                self._plugin_args,
                aside,
                self._plugin_program,
            )
            self.driver = self.plugin.driver_name
        self.engine = Engine(
            self.namespace,
            log("engine"),
            self.program,
            self.driver,
            self._storage_opts,
            self._settings,
            self.network,
        )
        make_directories(self.inside(self.logs), 0o700)
        for number, (path, content) in enumerate(self._files.items()):
            substitute = os.path.join(self.data, f"file{number}")
            with open(self.inside(substitute), "w") as file:
                os.fchmod(file.fileno(), 0o644)  # as /etc has it, which all may read
                file.write(content)
            self.namespace.bind(substitute, path)

    def _put_between(self) -> None:
        if self.plugin is None or self._make_between is None or self._between is not None:
            return
        front = self.inside(self.plugin.engines_socket)
        make_directories(os.path.dirname(front), 0o700)
        self._between = self._make_between(front, self.inside(self.plugin.socket))

    def last_words(self, lines: int = 12) -> str:
        """The end of every log, and where the whole of it is.

        Left out are an engine's lines about its connection to containerd: it writes ten of them
        while it ends, behind the line that says why.
        """
        parts = []
        for daemon in self.daemons:
            lines_said = daemon.log_text().strip().splitlines()
            said = [line for line in lines_said if "module=grpc" not in line]
            if said:
                end = "\n".join("  " + line for line in said[-lines:])
                parts.append(f"the end of {daemon.name}'s log ({daemon.log}):\n{end}")
        if not self.keep:
            parts.append("the logs go with the sandbox; --keep leaves them in its folder")
        return "\n".join(parts)
