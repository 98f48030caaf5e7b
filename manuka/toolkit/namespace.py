"""The sandbox's side of its private world: enter it, look into it, close it.

`manuka.toolkit.keeper` makes the world and takes it down.  Processes started by `Namespace.spawn`
are born in its PID namespace and see its mounts, yet are plain children of this process: they can
be waited for and signalled by their ordinary pid.  Easy to get wrong: an end of the world waits
for each of those children to be reaped, and an open descriptor of the mount namespace keeps every
mount in it, so neither is held.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import IO, Any, Mapping, Sequence, Union

from manuka.errors import ManukaError
from manuka.linux.mountinfo import Mount
from manuka.linux.mountinfo import parse as parse_mount
from manuka.toolkit.unshare import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, children_born_in, setns

Redirection = Union[None, int, IO[Any]]


class SandboxError(ManukaError):
    """A sandbox cannot be made or used, with what to do about it."""


class Namespace:
    """A mount and PID namespace that lives until `close`, or until this process ends.

    parent: the folder in which its data folder is made.
    keep: leave the data folder at the end.
    network: have a network namespace, too, in which nothing but the loopback device is there.
    cgroups: mount every hierarchy of control groups that /proc/self/cgroup lists.
    Raises SandboxError when the kernel refuses.
    """

    def __init__(
        self,
        parent: str = "/var/tmp",
        keep: bool = False,
        network: bool = False,
        cgroups: bool = False,
    ) -> None:
        self._kinds = {"pid": CLONE_NEWPID, "mnt": CLONE_NEWNS}
        if network:
            self._kinds["net"] = CLONE_NEWNET
        wishes = {"keep": keep, "network": network, "cgroups": cgroups}
        self._children: list[subprocess.Popen[Any]] = []
        self._keeper = subprocess.Popen(
            [
                *(sys.executable, "-m", "manuka.toolkit.keeper", parent),
                *(name for name, wished in wishes.items() if wished),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=with_this_package(os.environ),
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline()
        report: dict[str, Any] = (
            json.loads(answer) if answer else {"error": "its keeper did not start"}
        )
        if "error" in report:
            with contextlib.suppress(SandboxError):
                self.close()
            raise SandboxError("no namespaces for a sandbox: {error}".format(**report))
        self.pid: int = report["pid"]
        self.data: str = report["data"]
        self.in_memory: bool = report["in_memory"]
        self._identity = self._namespace_files_identity()

    @property
    def name(self) -> str:
        """The name of the data folder, which is unique: the control group is called the same."""
        return os.path.basename(self.data)

    def inside(self, path: str) -> str:
        """A path by which this process, outside, reaches `path` as it is in the namespace."""
        return f"/proc/{self.pid}/root{path}"

    def mounts(self) -> list[Mount]:
        """What is mounted in the namespace."""
        with open(f"/proc/{self.pid}/mountinfo", "rb") as file:
            return [parse_mount(line) for line in file.read().split(b"\n") if line]

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: Redirection = None,
        stdout: Redirection = None,
        stderr: Redirection = None,
        own_session: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the namespace, in the present working folder.

        own_session: keep Ctrl-C on this terminal from it.
        """
        folder = os.getcwd()
        with contextlib.ExitStack() as stack:
            files = {}
            for kind in self._kinds:
                files[kind] = self._open_namespace(kind)
                stack.callback(os.close, files[kind])

            def enter() -> None:
                for kind, flag in self._kinds.items():
                    if kind != "pid":
                        setns(files[kind], flag)
                os.chdir(folder)

            with children_born_in(files["pid"]):
                child = subprocess.Popen(
                    command,
                    env=env,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=own_session,
                    preexec_fn=enter,
                )
        self._children = [other for other in self._children if other.poll() is None] + [child]
        return child

    def bind(self, source: str, target: str) -> None:
        """Show `source` in the place of the host's `target`, in the namespace only."""
        work = "import sys; from manuka.linux.mount import *; mount(*sys.argv[1:], '', MS_BIND)"
        child = self.spawn(
            [sys.executable, "-c", work, source, target],
            env=with_this_package(os.environ),
            stderr=subprocess.PIPE,
        )
        said = child.communicate()[1].decode(errors="replace")
        if child.returncode != 0:
            raise SandboxError(f"cannot put {source} over {target}: {said.strip()}")

    def close(self) -> None:
        """End every process in the namespace, and remove all that was made for it.

        Raises SandboxError if something could not be removed; the keeper has said what.
        """
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        while self._keeper.poll() is None:
            for child in self._children:
                child.poll()
            time.sleep(0.01)
        for child in self._children:
            child.poll()
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()
        if self._keeper.returncode != 0:
            raise SandboxError("the sandbox could not be removed altogether")

    def _open_namespace(self, kind: str) -> int:
        try:
            fd = os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SandboxError(f"the sandbox has ended: its process {self.pid} is gone") from None
        if os.fstat(fd).st_ino not in self._identity:
            os.close(fd)
            raise SandboxError(f"the sandbox has ended: its process {self.pid} is gone")
        return fd

    def _namespace_files_identity(self) -> list[int]:
        links = (f"/proc/{self.pid}/ns/{kind}" for kind in self._kinds)
        return [os.stat(link).st_ino for link in links]


def with_this_package(env: Mapping[str, str]) -> dict[str, str]:
    """`env` for a Python that finds the same package `manuka` as this one."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [here] + [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
    return dict(env, PYTHONPATH=os.pathsep.join(path))
