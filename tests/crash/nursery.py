"""The process that starts plugins, traces them and sees them die.

Run as a program by `plugins.Nursery`, which sends it one JSON list a line and gets one JSON value
back for each.  It has loaded all that ``manuka serve`` imports, and a plugin is a fork of it that
runs the command line: the real process, without the quarter of a second that Python takes to
start.  Whatever happens, its plugins end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from typing import Any, List, Optional

import manuka.api.instance
import manuka.api.routes
import manuka.overlay2
import manuka.server.run  # noqa: F401 # all that is served is loaded before a fork
from manuka import cli
from tests.crash.tracer import Plan, Tracer


class _Nursery:
    def __init__(self) -> None:
        self.child = 0
        self.tracer: Optional[Tracer] = None
        self.folder = ""
        self.wakeup, write = os.pipe()
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def import_from(self, folder: str) -> bool:
        """From now on, plugins find modules in `folder`, too."""
        self.folder = folder
        return True

    def start(self, arguments: List[str], log: str) -> int:
        self.child = os.fork()
        if not self.child:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The end of the parent is the end of the child.
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for fd in (1, 2):
                os.dup2(output, fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.closerange(3, 64)
            if self.folder:
                sys.path.insert(0, self.folder)
            try:
                status = cli.main(arguments)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                status = 99
            sys.stderr.flush()
            os._exit(status)
        return self.child

    def arm(self, *plan: Any) -> bool:
        at, error, names, *folders = plan
        self.tracer = Tracer(self.child, Plan(at, error, tuple(names), *folders))
        self.tracer.attach()
        return True

    def disarm(self) -> Any:
        """What was counted, whether the plan's step came, and whether the plugin lives."""
        tracer = self.tracer
        assert tracer is not None
        tracer.detach()
        self.tracer = None
        alive = tracer.alive and not (tracer.done and tracer.plan.error is None)
        if not alive:
            self._reap()
        return [tracer.steps, tracer.done, alive]

    def kill(self) -> bool:
        if self.child:
            os.kill(self.child, signal.SIGKILL)
            self._reap()
        return True

    def limit(self, files: int) -> int:
        """Let the plugin open no more files than `files`; the limit that it had."""
        before, hard = resource.prlimit(self.child, resource.RLIMIT_NOFILE)
        resource.prlimit(self.child, resource.RLIMIT_NOFILE, (files, hard))
        return before

    def alive(self) -> bool:
        if self.child and os.waitpid(self.child, os.WNOHANG)[0]:
            self.child = 0
        return bool(self.child)

    def _reap(self) -> None:
        """Wait for the plugin's end: traced threads one by one, the first of them last."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0x40000000)[0]:
                pass
        self.child = 0


def main() -> None:
    nursery = _Nursery()
    os.set_inheritable(0, False)
    buffered = b""
    while True:
        while b"\n" not in buffered:
            if nursery.tracer is not None:
                nursery.tracer.run(0, nursery.wakeup)
            data = os.read(0, 65536)
            if not data:
                nursery.kill()
                return
            buffered += data
        line, _, buffered = buffered.partition(b"\n")
        name, *arguments = json.loads(line)
        answer = getattr(nursery, name)(*arguments)
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
