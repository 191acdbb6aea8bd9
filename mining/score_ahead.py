"""Scores recordings side by side, in processes: what numpy does with a few thousand boxes holds Python's lock most of the time.

Only where there is enough of it: a process takes a second of a core to start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from queue import SimpleQueue

import numpy as np

from mining.committee import Committee
from mining.config import ScoreConfig
from mining.isolated import Crashed, Worker
from mining.places import place
from mining.progress import LOG
from mining.score_recording import Learned, Scored, Unit, score_unit
from mining.store import Store
from mining.threads import run_ahead

_MOST_PROCESSES = 4
"""Each holds the boxes of one recording in memory."""
_WORTH_IT_BOXES, _BOXES_A_RECORDING = 300_000, 1500
"""From so many boxes on, which take one core more than two seconds; beside its boxes a recording takes the time of some."""
_TIMEOUT_S = 7 * 86400.0
"""As good as none: these are our own numbers, not bytes from outside."""


@contextmanager
def scored(
    store: Store, committee: Committee, units: Sequence[Unit], config: ScoreConfig, learned: Learned
) -> Iterator[Iterator[Scored]]:
    """Have recordings scored within the block, and get them in their order."""
    work = sum(unit.boxes + _BOXES_A_RECORDING for unit in units)
    processes = min(_cores(), _MOST_PROCESSES, len(units))
    if processes < 2 or work < _WORTH_IT_BOXES:
        yield (score_unit(store, committee, unit, config, learned) for unit in units)
        return
    workers = [Worker() for _ in range(processes)]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)
    here = threading.Lock()

    def elsewhere(unit: Unit) -> Iterator[Scored]:
        worker = idle.get()
        try:
            yield worker.call(_score, str(store.root), committee, unit, config, learned, timeout_s=_TIMEOUT_S)
        except Crashed as error:
            # Where memory runs out, the system takes such a process first. One at a time there may be enough.
            LOG.warning("score: a process that scored %s %s; once more, here", unit.recording_id, error)
            with here:
                one = score_unit(store, committee, unit, config, learned)
            yield one
        finally:
            idle.put(worker)

    def cancel() -> None:
        for worker in workers:
            worker.cancel()

    try:
        with run_ahead(units, elsewhere, processes, 1, cancel) as found:
            yield found
    finally:
        for worker in workers:
            worker.close()


def _score(root: str, committee: Committee, unit: Unit, config: ScoreConfig, learned: Learned) -> Scored:
    one = score_unit(_store(root), committee, unit, config, learned)
    # Of a part of a larger table, as `compact` makes them, all of it would be sent.
    return replace(one, frames=one.frames.take(np.arange(len(one.frames))))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _store(root: str) -> Store:
    return Store(place(root))
