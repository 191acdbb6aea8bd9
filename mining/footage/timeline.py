"""Times of frames: from a container's time base to nanoseconds, and which frames a sampling rate picks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mining.types import FrameTimes

NS_PER_S = 1_000_000_000


def ticks_to_ns(ticks: int, tick_s: Fraction) -> int:
    """``ticks * tick_s`` in nanoseconds: exact integer arithmetic, rounded once (halves up).

    The same function serves the index and the reader, so that a frame is found again by its time.
    """
    numerator, denominator = ticks * tick_s.numerator * NS_PER_S, tick_s.denominator
    return (2 * numerator + denominator) // (2 * denominator)


def ns_to_ticks(ns: int, tick_s: Fraction) -> int:
    """The tick nearest to a time in nanoseconds; undoes :func:`ticks_to_ns` for ticks longer than a nanosecond."""
    numerator, denominator = ns * tick_s.denominator, tick_s.numerator * NS_PER_S
    return (2 * numerator + denominator) // (2 * denominator)


def even_times(count: int, rate_hz: Fraction) -> FrameTimes:
    """Times of ``count`` frames at a constant rate; frame n lies at n / rate."""
    return FrameTimes(np.array([ticks_to_ns(n, 1 / rate_hz) for n in range(count)], dtype=np.int64))


def mean_rate_hz(times: FrameTimes) -> float | None:
    """Frames a second from first to last frame; None for fewer than two moments."""
    if len(times) < 2 or times.pts_ns[-1] == times.pts_ns[0]:
        return None
    return (len(times) - 1) * NS_PER_S / int(times.pts_ns[-1] - times.pts_ns[0])


def duration_s(times: FrameTimes, rate_hz: float | None) -> float | None:
    """First to last frame, plus one frame at ``rate_hz``; None where the rate is unknown or there is no frame."""
    if not len(times) or not rate_hz:
        return None
    return int(times.pts_ns[-1] - times.pts_ns[0]) / NS_PER_S + 1 / rate_hz


def sampled_indices(times: FrameTimes, sample_hz: float | None, every: int | None) -> NDArray[np.int64]:
    """Pick frames by rate, or every n-th; with neither, all of them.

    By rate: for each tick k / sample_hz since the first frame (k = 0, 1, ...), the first frame at or after the tick,
    each frame once. A recording slower than ``sample_hz`` gives all its frames.

    Returns [m] ascending frame indices. Raises ValueError for a rate or step that is not positive, or for both.
    """
    if sample_hz is not None and every is not None:
        raise ValueError("sample by rate (sample_hz) or by step (every), not by both")
    count = len(times)
    if every is not None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        return np.arange(0, count, every, dtype=np.int64)
    if sample_hz is None:
        return np.arange(count, dtype=np.int64)
    if not 0 < sample_hz < float("inf"):
        raise ValueError(f"sample_hz must be positive, got {sample_hz}")
    if count == 0:
        return np.empty(0, dtype=np.int64)
    since_first_ns = times.pts_ns - times.pts_ns[0]
    # A frame is the first at or after some tick exactly when a tick lies in (time of the frame before, its own time].
    # Counting ticks up to each frame keeps the work at one step a frame, whatever the rate. Half a nanosecond is
    # added because frame times are rounded to whole ones: at 3 Hz, tick 1 is 333333333.33 ns, the frame 333333333.
    ticks = np.floor((since_first_ns + 0.5) * sample_hz / NS_PER_S).astype(np.int64)
    new_tick = np.diff(ticks, prepend=-1) > 0
    return np.flatnonzero(new_tick).astype(np.int64)
