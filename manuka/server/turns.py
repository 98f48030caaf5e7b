"""Streams take turns: while layers are on their way over several connections, one is worked on.

Python runs one thread at a time, and a thread that unpacks or packs small files makes a system call
every few microseconds.  At each it lets go of the interpreter, wakes another thread that wants it,
and wants it back before that one has come: two such threads need almost twice as long as one after
the other, and three keep a container's Get waiting.  So a stream works for a few milliseconds, and
then lets the next one.  While it waits for its connection, it has no turn.

Easy to get wrong: a disk that hangs.  A turn is good manners and no lock: who has waited for long
enough takes it, and the former owner goes on without.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Deque, Iterator, Optional

# In seconds: how long one may work while others wait, and how long others wait at most.
SLICE = 0.003
PATIENCE = 0.02


class Turns:
    """Whose turn it is, of the streams of one server."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: Optional[Turn] = None
        self._waiting: Deque[Turn] = collections.deque()

    def take(self, turn: Turn) -> None:
        """Wait until it is this one's turn, or until the owner's time is long over."""
        with self._guard:
            if self._owner is None:
                self._owner = turn
                return
            self._waiting.append(turn)
        if turn.called.acquire(timeout=PATIENCE):
            return
        with self._guard:
            if self._owner is turn:
                turn.called.acquire()  # it was called just now
            else:
                self._waiting.remove(turn)
                self._owner = turn

    def give(self, turn: Turn) -> None:
        """Let the next one work, if this one's turn it is."""
        with self._guard:
            if self._owner is turn:
                self._owner = self._waiting.popleft() if self._waiting else None
                if self._owner is not None:
                    self._owner.called.release()

    def are_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)


class Turn:
    """One stream's; a ``with`` block is its work.  Belongs to one thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._began = 0.0
        self.called = threading.Semaphore(0)

    def __enter__(self) -> Turn:
        self._turns.take(self)
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.give(self)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Let others work for the length of a block, in which this one waits for something."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def share(self) -> None:
        """Let others work if they wait, and this one has worked for long enough."""
        if self._turns.are_wanted() and time.monotonic() - self._began > SLICE:
            with self.pause():
                pass
