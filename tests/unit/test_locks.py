"""manuka.locks: one lock for each layer."""

from __future__ import annotations

import threading
import time

import pytest

from manuka.locks import LayerLocks


def test_a_layer_is_held_by_one_thread_at_a_time_and_others_are_not_held_up():
    locks, inside, most = LayerLocks(), [], []
    other_done = threading.Event()

    def work():
        with locks.hold("one"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()

    def other():
        with locks.hold("two"):
            other_done.set()

    threads = [threading.Thread(target=work) for _ in range(16)]
    with locks.hold("one"):
        for thread in threads:
            thread.start()
        threading.Thread(target=other).start()
        assert other_done.wait(60)
        assert not most
    for thread in threads:
        thread.join()
    assert most == [1] * 16


def test_a_thread_may_take_a_lock_that_it_holds():
    locks = LayerLocks()
    with locks.hold("one"), locks.hold("one"):
        pass
    with locks.hold("one"):
        pass


def test_locks_are_gone_with_their_last_user_also_after_errors():
    locks = LayerLocks()
    with pytest.raises(KeyError), locks.hold("one"), locks.hold("two"):
        raise KeyError
    assert locks._locks == {}
