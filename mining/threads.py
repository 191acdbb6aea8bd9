"""Threads that work ahead of, or behind, the one that a stage runs in; items stay in their order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_Job = TypeVar("_Job")
_Item = TypeVar("_Item")


@contextmanager
def run_ahead(
    jobs: Iterable[_Job],
    work: Callable[[_Job], Iterator[_Item]],
    workers: int,
    depth: int,
    cancel: Callable[[], None] = lambda: None,
) -> Iterator[Iterator[_Item]]:
    """Run the iterators of several jobs in threads within the block, and give their items job after job, as one thread would.

    Args:
        jobs: in the order of their items; one is asked for when there is a thread for it.
        work: makes a job's iterator; what it raises is raised here.
        workers: jobs that run at a time.
        depth: items that each may be ahead.
        cancel: ends what the threads are waiting for, where the block ends before they do.
    """
    stopped = threading.Event()
    running: deque[tuple[queue.Queue[Any], threading.Thread]] = deque()
    end = object()

    def put(ahead: queue.Queue[Any], item: Any) -> bool:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def run(job: _Job, ahead: queue.Queue[Any]) -> None:
        try:
            for item in work(job):
                if not put(ahead, item):
                    return
            put(ahead, end)
        except BaseException as error:
            put(ahead, error)

    waiting = iter(jobs)

    def start_next() -> None:
        for job in waiting:
            ahead: queue.Queue[Any] = queue.Queue(maxsize=depth)
            thread = threading.Thread(target=run, args=(job, ahead), name="decode", daemon=True)
            thread.start()
            running.append((ahead, thread))
            return

    def items() -> Iterator[_Item]:
        while running:
            ahead, thread = running[0]
            while (item := ahead.get()) is not end:
                if isinstance(item, BaseException):
                    raise item
                yield item
            running.popleft()
            thread.join()
            start_next()

    try:
        for _ in range(workers):
            start_next()
        yield items()
    finally:
        stopped.set()
        if running:
            cancel()
        for _, thread in running:
            thread.join()


@contextmanager
def in_order(take: Callable[[_Item], None], depth: int) -> Iterator[Callable[[_Item], None]]:
    """Let a thread ``take`` items, one after another, at most ``depth`` behind.

    The block gets the function that hands an item over. What ``take`` raises is raised by it, or at the end of the block;
    the block ends when all items are taken, or, where it raises itself, at once.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=depth)
    end = object()
    failed: list[BaseException] = []

    def work() -> None:
        while (item := waiting.get()) is not end:
            if not failed:
                try:
                    take(item)
                except BaseException as error:
                    failed.append(error)

    def hand_over(item: _Item) -> None:
        if failed:
            raise failed[0]
        waiting.put(item)

    thread = threading.Thread(target=work, name="write", daemon=True)
    thread.start()
    try:
        yield hand_over
    except BaseException as error:
        failed.append(error)  # what still waits is let go
        raise
    finally:
        try:
            waiting.put(end)
            thread.join()
        except BaseException as error:
            # Told to stop while it waits: what is being taken ends, and no more is.
            failed.append(error)
            waiting.put(end)
            thread.join()
            raise
    if failed:
        raise failed[0]


@contextmanager
def at_once(
    workers: int, depth: int
) -> Iterator[Callable[[Callable[[], object] | None, Callable[[], None]], None]]:
    """Have pieces of work done by several threads, and what follows each of them here, in their order.

    The block gets the function that takes a piece of work (None: there is nothing to wait for) and what follows it; it waits
    while ``depth`` of them are not done. What work raises is raised by it, or at the end of the block; then no more is begun.
    """
    waiting: deque[tuple[Future[object] | None, Callable[[], None]]] = deque()
    pool = ThreadPoolExecutor(workers, "write")

    begun = 0

    def settle(most: int) -> None:
        """Tell of what is done, and wait until no more than so many are not."""
        nonlocal begun
        while waiting:
            work, then = waiting[0]
            if work is not None:
                if begun <= most and not work.done():
                    return
                work.result()
                begun -= 1
            waiting.popleft()
            then()

    def later(work: Callable[[], object] | None, then: Callable[[], None]) -> None:
        nonlocal begun
        settle(depth - 1)
        begun += work is not None
        waiting.append((None if work is None else pool.submit(work), then))

    try:
        yield later
        settle(0)
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except BaseException:
            pool.shutdown()  # told to stop while it waits: what is being done ends
            raise
