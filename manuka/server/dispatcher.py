"""Which thread serves a request.

Waitress has a pool of threads and a queue.  Here every call that may take long gets a thread of
its own, and so does every other that finds the pool busy: a short call waits while another has its
layer, and those that wait so must not hold up another's container.

Easy to get wrong: a thread may stay with the connection that it has served (see
`manuka.server.channel`).  It counts as busy meanwhile, so only a few may; and what such a thread
has read itself must not be queued for another.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Set

from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]

from manuka.api import calls

_MOST_KEPT = 8


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Waitress' pool for the short calls, a thread of its own for each long one.

    A task is a channel with a request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own_threads: Set[threading.Thread] = set()
        self._kept: Set[Any] = set()
        #: Whether threads may stay; set this to False to have them all back.
        self.keeps = True

    def keep(self, task: Any) -> bool:
        """Whether the calling thread may stay with `task`, until it calls `leave`."""
        with self.lock:
            if not self.keeps or len(self._kept) >= _MOST_KEPT:
                return False
            self._kept.add(task)
        return True

    def leave(self, task: Any) -> None:
        """The calling thread is about to leave `task` to the main loop."""
        with self.lock:
            self._kept.discard(task)

    def add_task(self, task: Any) -> None:
        if task.kept:
            return  # the thread that stays there asks for it next
        if task.requests[0].path in calls.LONG or not self._queue(task):
            self._start_thread(task)

    def _start_thread(self, task: Any) -> None:
        name = task.requests[0].path[1:]
        thread = threading.Thread(target=self._serve, args=(task,), name=name, daemon=True)
        self._own_threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no room for another thread
            self._own_threads.discard(thread)
            self.logger.warning("%s waits for a thread of the pool: %s", name, error)
            super().add_task(task)

    def _queue(self, task: Any) -> bool:
        """Leave `task` to the pool if a thread of it is idle."""
        with self.lock:
            idle = len(self.threads) - self.stop_count - self.active_count - len(self.queue)
            if idle > 0:
                self.queue.append(task)
                self.queue_cv.notify()
        return bool(idle > 0)

    def _serve(self, task: Any) -> None:
        try:
            task.service()
        except BaseException:
            self.logger.exception("Exception when servicing %r", task)
        finally:
            self._own_threads.discard(threading.current_thread())

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        deadline = time.monotonic() + timeout
        done: bool = super().shutdown(cancel_pending, timeout)
        for thread in list(self._own_threads):
            thread.join(max(0, deadline - time.monotonic()))
        return done and not self._own_threads
