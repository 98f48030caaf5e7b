"""The command ``manuka sandbox``: a sandbox around a command, or around the demonstration.

`manuka.toolkit.sandbox` makes and takes down; this is about people and terminals.  Easy to get
wrong: a Ctrl-C is meant for the command, and reaches it by itself; nothing of the sandbox may end
before the command has.  And an exception that a signal raises can be lost, when it comes while
Python runs a callback whose errors it ignores (at a fork, in a finaliser).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any, Callable, Iterator, Sequence

from manuka.errors import ManukaError
from manuka.toolkit import images
from manuka.toolkit.demo import demonstrate
from manuka.toolkit.namespace import SandboxError
from manuka.toolkit.sandbox import Sandbox

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.25  # seconds


def run_sandbox(
    engine: str | None,
    driver: str,
    storage_opts: list[str],
    data_dir: str | None,
    keep: bool,
    command: list[str],
    network: bool = False,
    references: Sequence[str] = (),
    files: Sequence[str] = (),
) -> int:
    """Run `command`, or the demonstration, in a sandbox; the exit status as for `in_sandbox`.

    references, files: the images that it has, of this machine's engine and in tars; without any, a
        command has the built-in one, if there is a busybox.
    """

    def make() -> Sandbox:
        sources.extend(images.from_engine(one) for one in references)
        sources.extend(images.from_file(one) for one in files)
        if command and not sources:
            with contextlib.suppress(SandboxError):
                sources.append(images.built_in())
        return Sandbox(engine, driver, storage_opts, data_dir, keep, network=network)

    def furnish(sandbox: Sandbox) -> list[str]:
        return [name for add in sources for name in add(sandbox)]

    def work(sandbox: Sandbox) -> int:
        if command:
            return run_command(sandbox, command)
        demonstrate(sandbox)
        return 0

    sources: list[images.Source] = []
    return in_sandbox(make, work, furnish)


def in_sandbox(
    make: Callable[[], Sandbox],
    work: Callable[[Sandbox], int],
    furnish: Callable[[Sandbox], list[str]],
) -> int:
    """Start the sandbox that `make` makes, do `work` in it, and take it down; the exit status.

    furnish: puts images into it first, and gives their names.
    It is what `work` returns, 128 + N if signal N ended this, and 1 if there is no sandbox.
    Messages go to stderr, for stdout is the work's own.
    """
    try:
        with _signals_as_exceptions():
            sandbox = make()
            _say(f"starting Docker {sandbox.program.version_text} on {sandbox.driver}")
            with sandbox:
                names = furnish(sandbox)
                where = "in memory, at" if sandbox.namespace.in_memory else "in"
                _say(f"ready; {_equipment(sandbox, names)}; its data is {where} {sandbox.data}")
                status = work(sandbox)
                _report_losses(sandbox)
                _say("stopping")
                with _uninterrupted():
                    sandbox.close()
            if sandbox.keep and not sandbox.namespace.in_memory:
                _say(f"data and logs are kept in {sandbox.data}")
            else:
                _say("gone: no process, mount or folder is left")
            return status
    except ManukaError as error:
        _say(str(error))
        return 1
    except _Ended as ended:
        return 128 + ended.number


class _Ended(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_command(sandbox: Sandbox, command: list[str]) -> int:
    """Run a command against the sandbox's engine; its exit status, as a shell gives it.

    That is its own, 128 + N if signal N ended it, 126 or 127 if it cannot be run.
    """
    with contextlib.ExitStack() as stack:
        child: list[subprocess.Popen[bytes]] = []

        def pass_on(number: int, frame: object) -> None:
            if child:
                child[0].send_signal(number)

        # The terminal sends Ctrl-C and Ctrl-\ to the command itself; other signals come here only.
        for number in (signal.SIGINT, signal.SIGQUIT):
            stack.enter_context(_handler(number, lambda number, frame: None))
        for number in (signal.SIGTERM, signal.SIGHUP):
            stack.enter_context(_handler(number, pass_on))
        try:
            child.append(sandbox.spawn(command))
        except FileNotFoundError:
            _say(f"command not found: {command[0]}")
            return 127
        except PermissionError as error:
            _say(f"cannot run {command[0]}: {error.strerror}")
            return 126
        status = child[0].wait()
    _take_terminal_back()
    return status if status >= 0 else 128 - status


def _equipment(sandbox: Sandbox, names: list[str]) -> str:
    """What containers have to do with."""
    network = (
        "a bridge without a way out, ports published at 127.0.0.1"
        if sandbox.network
        else "no network"
    )
    if not names:
        return f"{network}, no images"
    return f"{network}, image{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _report_losses(sandbox: Sandbox) -> None:
    for daemon in sandbox.daemons:
        if not daemon.running:
            _say(f"{daemon.name} did not last:\n{sandbox.last_words()}")
            return


def _say(text: str) -> None:
    print("sandbox: " + text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _handler(number: int, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Raise _Ended in the main thread for a signal, again and again until it is being handled."""
    asked: list[int] = []

    def end(number: int, frame: object) -> None:
        if number != signal.SIGALRM:
            asked.append(number)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, _Ended):
            error = error.__context__
        if error is None:
            raise _Ended(asked[0])

    with contextlib.ExitStack() as stack:
        stack.enter_context(_handler(signal.SIGALRM, end))
        # Without that handler, one more alarm would end this process.
        stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        for number in _ENDING:
            stack.enter_context(_handler(number, end))
        yield


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in _ENDING:
            stack.enter_context(_handler(number, signal.SIG_IGN))
        yield


def _take_terminal_back() -> None:
    """Be in the terminal's foreground again after an interactive shell, for a Ctrl-C to come."""
    with contextlib.suppress(OSError), _handler(signal.SIGTTOU, signal.SIG_IGN):
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            os.tcsetpgrp(0, os.getpgrp())
