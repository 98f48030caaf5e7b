"""The plugin under check: found, initialised, restarted; its home, and the guard beside it.

One `Kit` lives as long as a run.  Neighbours: the fixtures in ``conftest.py`` ask it for a client;
`manuka.toolkit.conformance.plugin` tells it of each failure, so that a plugin that died or hangs
is noticed before the next check.

Easy to get wrong: a plugin that serves an engine (``--no-init``).  Init and Cleanup would take its
containers' mounts away, so they are never sent to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple

from _pytest.outcomes import Skipped

from manuka.errors import ManukaError
from manuka.linux.mount import unmount_below
from manuka.linux.tree import remove_tree
from manuka.toolkit.client import Client, ClientError
from manuka.toolkit.conformance.limits import TookTooLong, limit
from manuka.toolkit.snapshot import snapshot

_PREFIX = "manuka-conform-"
_SECRET = b"the machine's own secret\n"


class KitError(ManukaError):
    """The kit cannot do its own work."""


class NotRun(Skipped):
    """A check that could not be tried, for the plugin is not there any more."""


class KitSettings(NamedTuple):
    """What the command was told.

    socket: the plugin's.
    home: where to make the driver's folder; without `init`, the folder that the plugin has.
    options: for Init, each ``KEY=VALUE``.
    init: whether the kit starts the plugin's driver itself.
    restart, kill: shell commands that restart the plugin, and end it as a crash would.
    limit: seconds that a check may take.
    idle: seconds that connections are left idle.
    keep: leave the driver's folder afterwards.
    """

    socket: str
    home: Optional[str] = None
    options: Tuple[str, ...] = ()
    init: bool = True
    restart: Optional[str] = None
    kill: Optional[str] = None
    limit: float = 60
    idle: float = 3
    keep: bool = False


class Guard:
    """A folder that no layer may touch: its names stand in hostile tars.

    folder: the guard.  secret: a file in it.  place: name of the folder that it shares with the
    driver's home, which is nobody else's; nothing of this name, or that begins with it, may come to
    be in a folder further up.
    """

    def __init__(self, base: Path) -> None:
        self.folder = base / "guard"
        self.secret = self.folder / "secret"
        self.place = base.name
        self._base = base
        (self.folder / "folder").mkdir(parents=True)
        (self.folder / "folder" / "file").write_bytes(b"kept")
        self.secret.write_bytes(_SECRET)
        os.chmod(str(self.secret), 0o600)
        os.chmod(str(self.folder), 0o750)
        self._before = self._look()

    @property
    def name(self) -> str:
        """The folder's path without the leading slash, as tars have names."""
        return str(self.folder).lstrip("/")

    def is_secret(self, content: bytes) -> bool:
        """Whether this is what only the guard holds."""
        return _SECRET.strip() in content

    def assert_untouched(self) -> None:
        """Fail when the guard, or anything beside the driver's home, is not as it was."""
        after = self._look()
        if after == self._before:
            return
        differences = [
            f"{path}: was {self._before.get(path)}, is {after.get(path)}"
            for path in sorted(set(self._before) | set(after))
            if self._before.get(path) != after.get(path)
        ]
        self._restore()
        raise AssertionError("outside of the driver's home: " + "; ".join(differences))

    def _look(self) -> dict[str, object]:
        status = os.stat(str(self.folder))
        found: dict[str, object] = dict(snapshot(self.folder))
        found["guard"] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        found["beside it"] = sorted(set(os.listdir(str(self._base))) - {"home"})
        found["further up"] = sorted(map(str, self._further_up()))
        return found

    def _further_up(self) -> list[Path]:
        found = [path for above in self._base.parents for path in above.glob(self.place + "*")]
        return [path for path in found if path != self._base]

    def _restore(self) -> None:
        """So that the next check starts from the same."""
        for name in os.listdir(str(self._base)):
            if name not in ("home", "guard"):
                remove_tree(str(self._base / name))
        for path in self._further_up():
            remove_tree(str(path))
        remove_tree(str(self.folder))
        self.__init__(self._base)  # type: ignore[misc]


class Kit:
    """One run against one plugin.  Use it in a ``with`` block, which tidies up at its end.

    leftovers: layers that could not be removed after a check.
    """

    def __init__(self, settings: KitSettings) -> None:
        """Raises KitError when there is no place for a home."""
        self.settings = settings
        self.leftovers: list[str] = []
        where = settings.home if settings.init else None
        try:
            self._base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=where)).resolve()
        except OSError as error:
            raise KitError(f"--home: no folder can be made in {where}: {error.strerror}") from None
        self.home = str(self._base / "home") if settings.init else settings.home
        self.guard = Guard(self._base)
        self.capabilities: dict[str, object] = {}
        self._initialised = not settings.init
        self._init_fault: Optional[str] = None
        self._gone: Optional[str] = None
        self._doubtful = True

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount and remove the home, unless it is to be kept."""
        if self.settings.init and self._initialised and self._gone is None:
            with contextlib.suppress(ClientError):
                Client(self.settings.socket, 10).cleanup()
        if self.settings.init:
            with contextlib.suppress(OSError):
                unmount_below(str(self._base))
            if self.settings.keep:
                return
        try:
            remove_tree(str(self._base))
        except OSError:
            shutil.rmtree(str(self._base), ignore_errors=True)  # what can be: a disk, a subvolume

    # --- the plugin ------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        return Client(self.settings.socket, self.settings.limit)

    def listening(self) -> Client:
        """A client for a plugin that listens, and may do no more.  Raises NotRun."""
        if self._gone is not None:
            raise NotRun(f"not run: {self._gone}")
        return self.client if self._accepts() else self.reachable()

    def reachable(self) -> Client:
        """A client for a plugin that answers.  Raises NotRun, after a try to restart it."""
        if self._gone is not None:
            raise NotRun(f"not run: {self._gone}")
        if self._doubtful or not self._accepts():
            fault = self._why_silent()
            if fault is not None:
                self._revive(fault)
            self._doubtful = False
        return self.client

    def ready(self) -> Client:
        """The same with a driver that is initialised."""
        client = self.reachable()
        if self._init_fault is not None:
            raise NotRun(f"not run: {self._init_fault}")
        if not self._initialised:
            try:
                self.initialise()
            except ClientError as error:
                self._init_fault = f"the driver did not start: {error}"
                raise NotRun(f"not run: {self._init_fault}") from None
        return client

    def initialise(self) -> None:
        """Send Init, as an engine that starts.  Raises ClientError."""
        assert self.home is not None
        self.client.init(self.home, self.settings.options)
        self._initialised, self._init_fault = True, None

    def suspect(self) -> None:
        """A check failed: see whether the plugin still answers before the next one."""
        self._doubtful = True

    def restart(self) -> None:
        """Run the restart command and wait for the socket.  The driver is not initialised."""
        assert self.settings.restart is not None
        self._run(self.settings.restart, "--restart")
        self._wait()
        self._initialised = not self.settings.init

    def kill(self) -> None:
        """End the plugin as a crash would."""
        assert self.settings.kill is not None
        self._run(self.settings.kill, "--kill")

    @contextlib.contextmanager
    def watching_home(self) -> Iterator[None]:
        """Fail when the block leaves other names in the driver's home, where that is known."""
        before = self._names_in_home()
        yield
        after = self._names_in_home()
        assert before == after, f"in the driver's home: {sorted(before ^ after)}"

    def _names_in_home(self) -> frozenset[str]:
        if self.home is None or not os.path.isdir(self.home):
            return frozenset()
        return frozenset(os.listdir(self.home))

    # --- inner -----------------------------------------------------------------------------------

    def _accepts(self) -> bool:
        try:
            self.client.connect().close()
        except ClientError:
            return False
        return True

    def _why_silent(self) -> Optional[str]:
        """What is wrong with the plugin, from the outside; None: it answers."""
        patience = min(10, self.settings.limit / 2)
        try:
            with limit(patience):  # also for one that answers without an end
                Client(self.settings.socket, patience).activate()
        except (ClientError, TookTooLong) as error:
            return f"plugin gone: {error}"
        return None

    def _revive(self, fault: str) -> None:
        if self.settings.restart is not None:
            try:
                self.restart()
            except KitError as error:
                fault = f"{fault}; {error}"
            else:
                if self._why_silent() is None:
                    return
        self._gone = fault
        raise NotRun(f"not run: {fault}")

    def _run(self, command: str, option: str) -> None:
        with tempfile.TemporaryFile() as output:
            try:
                ended = subprocess.run(
                    command,
                    shell=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=self.settings.limit,
                )
            except subprocess.TimeoutExpired:
                raise KitError(f"{option}: the command does not end: {command}") from None
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip()
        if ended.returncode != 0:
            raise KitError(f"{option}: the command ended with {ended.returncode}: {said[-200:]}")

    def _wait(self) -> None:
        end = time.monotonic() + self.settings.limit
        while not self._accepts():
            if time.monotonic() > end:
                raise KitError("--restart: the plugin does not listen again")
            time.sleep(0.02)
