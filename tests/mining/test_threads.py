"""Threads ahead of a stage and behind it: items keep their order, and what fails is raised."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from mining.threads import at_once, in_order, run_ahead


def test_jobs_run_side_by_side_and_items_come_in_order() -> None:
    both = threading.Barrier(2, timeout=20)

    def work(job: int) -> Iterator[tuple[int, int]]:
        if job < 2:
            both.wait()  # neither goes on before the other has begun
        for i in range(30):
            yield job, i

    with run_ahead(range(5), work, workers=2, depth=3) as items:
        found = list(items)
    assert found == [(job, i) for job in range(5) for i in range(30)]


def settled(made: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Wait until there are ``count``, and whether more come after; in order."""
    until = time.monotonic() + 20
    while len(made) < count and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    return sorted(made)


def test_no_job_runs_further_ahead_than_asked() -> None:
    made: list[tuple[int, int]] = []

    def work(job: int) -> Iterator[int]:
        for i in range(100):
            made.append((job, i))
            yield i

    with run_ahead(range(3), work, workers=2, depth=4) as items:
        # Before any is asked for: four waiting and one in hand of the first two; nothing of the third.
        assert settled(made, 5 + 5) == [(job, i) for job in range(2) for i in range(5)]
        next(items)
        assert len(settled(made, 5 + 5 + 1)) == 5 + 5 + 1
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_what_a_job_raises_is_raised_in_its_turn() -> None:
    def work(job: int) -> Iterator[int]:
        yield job
        if job == 1:
            raise ValueError("broken")

    with run_ahead(range(4), work, workers=3, depth=2) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_a_writer_takes_all_in_order_and_its_failure_stops_the_others() -> None:
    taken: list[int] = []
    with in_order(taken.append, depth=2) as hand_over:
        for i in range(50):
            hand_over(i)
    assert taken == list(range(50))

    def full(item: int) -> None:
        if item == 3:
            raise OSError("no space left")

    handed = []

    def hand_over_all() -> None:
        with in_order(full, depth=1) as hand_over:
            for i in range(1000):
                hand_over(i)
                handed.append(i)

    with pytest.raises(OSError, match="no space left"):
        hand_over_all()
    assert len(handed) < 10


def test_a_failure_of_the_block_is_not_hidden_by_the_writer() -> None:
    def stopped() -> None:
        with in_order(lambda _: None, depth=1) as hand_over:
            hand_over(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()


def test_told_to_stop_while_it_waits_for_the_writer_no_more_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, taken = threading.Event(), list[int]()

    def take(item: int) -> None:
        goes_on.wait(timeout=20)
        taken.append(item)

    real = threading.Thread.join
    told: list[bool] = []

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name == "write" and not told:
            told.append(True)
            threading.Timer(0.2, goes_on.set).start()
            raise KeyboardInterrupt
        real(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)

    def block() -> None:
        with in_order(take, depth=3) as hand_over:
            for i in range(3):
                hand_over(i)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert taken == [0]
    assert not [thread for thread in threading.enumerate() if thread.name == "write"]


def test_work_goes_on_side_by_side_and_what_follows_comes_in_order() -> None:
    together, told, told_by = threading.Barrier(3), list[int](), set[str]()

    def tell(number: int) -> None:
        told.append(number)
        told_by.add(threading.current_thread().name)

    with at_once(workers=3, depth=4) as later:
        for number in range(9):
            later(partial(together.wait, 20), partial(tell, number))
        later(None, partial(tell, 9))
        assert told == list(range(len(told)))
        assert len(told) >= 6  # at most four were not done
    assert told == list(range(10))
    assert told_by == {threading.current_thread().name}


def test_after_work_that_fails_none_is_begun_and_nothing_is_told() -> None:
    begun, told = list[int](), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"), at_once(workers=1, depth=2) as later:  # noqa: PT012
        for number in range(100):
            later(partial(work, number), partial(told.append, number))
    assert told == [0, 1]
    assert begun in ([0, 1, 2], [0, 1, 2, 3])


def test_work_under_way_ends_before_the_block_does() -> None:
    begun, done = threading.Event(), list[int]()

    def work(number: int) -> None:
        begun.set()
        time.sleep(0.2)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), at_once(workers=1, depth=8) as later:  # noqa: PT012
        for number in range(3):
            later(partial(work, number), lambda: None)
        begun.wait(20)
        raise KeyboardInterrupt
    assert done == [0]
