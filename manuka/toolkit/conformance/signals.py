"""Ctrl-C and other requests to end a run: the check under way is left, and what it made removed.

pytest takes an exception at a wrong moment for a fault of its own.  So one is raised only where
`Ending.leaving` allows it; at any other time the request is noted, and is seen before the next
check.
"""

from __future__ import annotations

import contextlib
import signal
from typing import Any, Dict, Iterator, Optional

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NEVER = 1 << 30


class Ended(BaseException):
    """The check under way is left.  No ``except Exception`` of a check takes it for a fault."""


class Ending:
    """Notes requests to end for the length of a ``with`` block.

    number: of the first signal that came; None: there was none.
    """

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self._came = 0
        self._enough = _NEVER
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> Ending:
        for number in _NUMBERS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> Optional[str]:
        """The name of that signal, such as SIGINT."""
        return None if self.number is None else signal.Signals(self.number).name

    @contextlib.contextmanager
    def leaving(self, times: int = 1) -> Iterator[None]:
        """Raise Ended in the block when this many requests have come, counted over the whole run.

        Tidying up takes 2: the first one is what makes it begin.
        """
        before, self._enough = self._enough, times
        try:
            if self._came >= times:
                raise Ended()
            yield
        finally:
            self._enough = before

    def _note(self, number: int, frame: object) -> None:
        self._came += 1
        if self.number is None:
            self.number = number
        if self._came >= self._enough:
            raise Ended()
