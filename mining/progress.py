"""What a person sees while a stage runs: a bar with rate and time left on a terminal, quiet lines elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("mining")
_QUIET_LINE_EVERY_S = 30.0


_run_id: list[str] = []


def set_run_id(run_id: str) -> None:
    """Name the run that JSON logs belong to from now on."""
    _run_id[:] = [run_id]


def run_id() -> str | None:
    """Give the run that is on, where there is one."""
    return _run_id[0] if _run_id else None


class Clock:
    """Adds up where time goes, by name; several threads may time at once."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time that the block takes, also where it raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Add time that was taken elsewhere."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class Progress:
    """Counts units done; ``advance`` may be called from any one thread at a time."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and total:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=label, unit=f" {unit}", leave=False, dynamic_ncols=True, smoothing=0.1
            )

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more units are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= _QUIET_LINE_EVERY_S:
            self._last_line = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else float("inf")
            LOG.info(
                "%s: %d of %d %s, %.1f a second, %.0f s left",
                self._label, self._done, self._total, self._unit, rate, left,
            )  # fmt: skip

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Progress]:
    """Show progress while the block runs."""
    shown = Progress(label, total, unit)
    try:
        yield shown
    finally:
        shown.close()
