"""A request to end, treated as Ctrl-C: work that tidies up behind itself is not cut off."""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt, with the signal's number, in the block; only for the first signal.

    Those that follow meet a block that is tidying up, and are ignored.  `manuka.cli` makes the
    exit status of the number.
    """
    came = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal came
        if not came:
            came = True
            raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
