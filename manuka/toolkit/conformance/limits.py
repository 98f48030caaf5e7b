"""The time that a check has.

Easy to get wrong: only the main thread can be interrupted, and only while it waits in Python.
Checks that use threads therefore make daemons of them (`together`) and wait in the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any, Callable, Iterator, List, Sequence

from manuka.errors import ManukaError


class TookTooLong(ManukaError):
    """A check was interrupted at its limit."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block when it lasts longer; only in the main thread.

    Nests: a limit around this one goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise TookTooLong(f"it was not done after {seconds:g} s")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, interrupt)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            left = outer - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))


def together(functions: Sequence[Callable[[], Any]]) -> List[Any]:
    """Call all functions at once, each in a thread; their results, in order.

    Raises the first error, when all have ended.
    """
    results: List[Any] = [None] * len(functions)
    errors: List[BaseException] = []
    start = threading.Barrier(len(functions))

    def work(index: int) -> None:
        try:
            start.wait()
            results[index] = functions[index]()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
