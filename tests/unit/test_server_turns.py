"""Streams take turns, and a stream that hangs keeps nobody from working."""

from __future__ import annotations

import random
import threading
import time
from typing import Callable, List

import pytest

from manuka.server import turns
from manuka.server.turns import Turn, Turns


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses patience."""
    monkeypatch.setattr(turns, "PATIENCE", 60.0)


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> bool:
    for thread in threads:
        thread.join(30)
    return not any(thread.is_alive() for thread in threads)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.usefixtures("patient")
def test_one_works_at_a_time_and_the_others_follow_in_their_order() -> None:
    shared = Turns()
    order: List[int] = []
    threads = []
    with Turn(shared):
        for number in range(4):

            def work(number: int = number) -> None:
                with Turn(shared):
                    order.append(number)

            threads.append(started(work))
            until(lambda: len(shared._waiting) == len(threads))
        assert order == []
    assert ended(*threads)
    assert order == [0, 1, 2, 3]
    assert not shared.are_wanted()


@pytest.mark.usefixtures("patient")
def test_who_waits_for_its_connection_lets_others_work() -> None:
    shared = Turns()
    said: List[str] = []

    def work() -> None:
        with Turn(shared):
            said.append("the other works")

    with Turn(shared) as turn:
        thread = started(work)
        until(shared.are_wanted)
        with turn.pause():
            assert ended(thread)
        said.append("and then this one again")
    assert said == ["the other works", "and then this one again"]


@pytest.mark.usefixtures("patient")
def test_a_turn_is_shared_when_it_was_long_and_only_if_somebody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SLICE", 60.0)
    shared = Turns()
    done = threading.Event()

    def work() -> None:
        with Turn(shared):
            done.set()

    with Turn(shared) as turn:
        turn.share()
        thread = started(work)
        until(shared.are_wanted)
        turn.share()
        assert not done.is_set()
        monkeypatch.setattr(turns, "SLICE", 0.0)
        turn.share()
        assert done.is_set()
    assert ended(thread)


def test_one_that_hangs_loses_its_turn_and_goes_on_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    shared = Turns()
    hanging, other, third = Turn(shared), Turn(shared), Turn(shared)
    with hanging:
        began = time.monotonic()
        with other:
            assert 0.04 < time.monotonic() - began < 30
            hanging.__exit__()
            # It was not the owner's any more, so the third one has to wait for the second.
            thread = started(third.__enter__)
            until(shared.are_wanted)
        assert ended(thread)
        third.__exit__()
    with hanging:
        pass


def test_many_that_work_and_wait_at_random_all_come_to_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.0005)
    monkeypatch.setattr(turns, "SLICE", 0.0)
    shared = Turns()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        turn = Turn(shared)
        for _ in range(100):
            with turn:
                time.sleep(chance.choice((0, 0.0003, 0.001)))
                turn.share()
                with turn.pause():
                    time.sleep(chance.choice((0, 0.0005)))

    threads = [started(lambda seed=seed: work(seed)) for seed in range(6)]
    assert ended(*threads)
    assert not shared.are_wanted()
    with Turn(shared) as turn:
        assert shared._owner is turn
