"""A process of the sandbox that stays: started, stopped, killed and started again by itself.

`manuka.toolkit.engine` and `manuka.toolkit.plugin` are the two kinds.
"""

from __future__ import annotations

import abc
import os
import signal
import subprocess
import time

from manuka.toolkit.namespace import Namespace, SandboxError


class Daemon(abc.ABC):
    """A long-running process in a sandbox's namespace.

    name: what it is called in messages.
    log: the file of its output, as seen inside the namespace; it is appended to.
    """

    name: str
    log: str

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> list[str]:
        """The program with its arguments."""

    @abc.abstractmethod
    def environment(self) -> dict[str, str]:
        """Its environment."""

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, as seen from outside the namespace."""
        assert self._process is not None, self.name + " was never started"
        return self._process.pid

    def start(self, timeout: float = 60) -> None:
        """Start it and wait until it answers; SandboxError with the end of its log if not."""
        self.launch()
        self.wait_until_ready(timeout)

    def launch(self) -> None:
        """Start it without waiting."""
        assert not self.running, self.name + " is running already"
        with open(self._namespace.inside(self.log), "ab") as log:
            self._process = self._namespace.spawn(
                self.command(),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                own_session=True,
            )

    def wait_until_ready(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if not self.running:
                assert self._process is not None
                raise SandboxError(
                    f"{self.name} ended at once, with status {self._process.returncode}"
                )
            if time.monotonic() > deadline:
                raise SandboxError(f"{self.name} does not answer after {timeout} s")
            time.sleep(0.02)

    def stop(self, timeout: float = 30) -> None:
        """Ask it to end (SIGTERM), and kill it if it has not after `timeout` seconds."""
        if not self.running:
            return
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it from answering, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, timeout: float = 60) -> None:
        self.stop()
        self.start(timeout)

    def log_text(self) -> str:
        """All that it has written so far."""
        try:
            with open(self._namespace.inside(self.log), errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""
