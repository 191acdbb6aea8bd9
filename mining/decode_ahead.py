"""Decodes shards side by side, ahead of the detectors, and hands their frames on in order, in full batches."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mining.decode import Decoder, Decoders
from mining.footage import FootageError, Source, read
from mining.progress import Clock
from mining.signals.quality import FrameQuality, measure_quality, same_picture, small_luma
from mining.threads import run_ahead
from mining.types import Frame, FrameTimes

if TYPE_CHECKING:
    # A decoder's process starts in a third less time without it.
    from mining.config import Config


@dataclass(frozen=True, slots=True)
class Shard:
    """A few minutes of one recording: the unit of work, retry and resume."""

    recording_id: str
    source: Source
    night: date
    key: str
    digest: str
    frame_indices: NDArray[np.int64]
    size_px: tuple[int, int]
    indexed_as: tuple[int, int]
    """``stat_signature`` of the recording when it was indexed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame of a shard, on its way to the detectors."""

    shard: Shard
    frame: Frame
    quality: FrameQuality | None
    """None where the frame did not decode."""
    repeat_of: int | None = None
    """``frame_index`` of the earlier frame of the shard that it repeats: nobody needs to look at it again."""

    @property
    def to_look_at(self) -> bool:
        """Whether the detectors are to see it."""
        return self.frame.rgb is not None and self.repeat_of is None


@dataclass(slots=True)
class FrameBatch:
    """Frames of one size for the detectors, of one shard or several, and those that travel along unseen."""

    look_at: list[Decoded] = field(default_factory=list)
    others: list[Decoded] = field(default_factory=list)
    """Repeats and frames that did not decode."""


@contextmanager
def batches(shards: Iterable[Shard], config: Config, clock: Clock) -> Iterator[Iterator[FrameBatch]]:
    """Give the shards' frames in batches of ``batch_size``, across recordings, in an order that depends on nothing else.

    Decoding goes on within the block, from its start. Frames of another size wait in a batch of their own until it or the
    next one is full. Decoding runs in processes of its own (``mining.decode``): a file that FFmpeg crashes on, or never ends
    with, costs its own frames.
    """
    detect = config.detect
    times = _Times(keep=2 * detect.decode_workers)
    workers = detect.decode_workers
    with Decoders(config, workers) as decoders:

        def decode(shard: Shard) -> Iterator[Decoded]:
            with decoders.lend() as decoder:
                yield from _decode(shard, times, decoder, detect.skip_repeats, clock)

        with run_ahead(shards, decode, workers, detect.batch_size, decoders.cancel) as frames:
            yield _batched(frames, detect.batch_size)


def _batched(frames: Iterable[Decoded], batch_size: int) -> Iterator[FrameBatch]:
    waiting: dict[tuple[int, ...], list[Decoded]] = {}
    others: list[Decoded] = []
    for decoded in frames:
        if not decoded.to_look_at:
            others.append(decoded)
            if len(others) < 8 * batch_size:
                continue
            yield FrameBatch(others=others)
            others = []
            continue
        assert decoded.frame.rgb is not None
        same_size = waiting.setdefault(decoded.frame.rgb.shape, [])
        same_size.append(decoded)
        if len(same_size) == batch_size:
            yield FrameBatch(same_size, others)
            del waiting[decoded.frame.rgb.shape]
            yield from (FrameBatch(smaller) for smaller in waiting.values())
            waiting, others = {}, []
    yield from (FrameBatch(smaller) for smaller in waiting.values())
    if others:
        yield FrameBatch(others=others)


def _decode(
    shard: Shard, times: _Times, decoder: Decoder, skip_repeats: bool, clock: Clock
) -> Iterator[Decoded]:
    """Decode and measure one shard's frames in a process of its own."""
    wanted, done = shard.frame_indices.tolist(), 0
    try:
        known = times.of(shard, decoder)
        if wanted[-1] >= len(known):
            raise FootageError(f"holds {len(known)} frames now, fewer than when it was indexed")
        measured = decoder.each(
            decode_and_measure, shard.source, known, wanted, shard.size_px, skip_repeats,
            lost=lambda index, reason: (Frame(index, 0, None, reason), None, None, {}),
        )  # fmt: skip
        for frame, quality, repeat_of, seconds in measured:
            for name, spent in seconds.items():
                clock.add(name, spent)
            yield Decoded(shard, frame, quality, repeat_of)
            done += 1
    except FootageError as error:
        for index in wanted[done:]:
            yield Decoded(shard, Frame(index, 0, None, str(error), opened=False), None)


Measured = tuple[Frame, FrameQuality | None, int | None, dict[str, float]]
"""A frame, what was measured of it, which frame it repeats, and the seconds that it took."""


def decode_and_measure(
    source: Source, times: FrameTimes, wanted: Sequence[int], size_px: tuple[int, int], skip_repeats: bool
) -> Iterator[Measured]:
    """Decode and measure frames, and find those that repeat an earlier one. Runs in a worker."""
    original: tuple[int, NDArray[np.uint8]] | None = None
    frames = read(source, times, wanted, size_px)
    while True:
        clock = Clock()
        with clock.timed("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        if frame.rgb is None:
            original = None
            yield frame, None, None, clock.seconds
            continue
        with clock.timed("measure"):
            luma = small_luma(frame.rgb)
            quality = measure_quality(luma)
            # Compared with the frame that was looked at, not with the one before: slow change must not add up.
            repeats = skip_repeats and original is not None and same_picture(original[1], luma)
        if repeats and original is not None:
            yield replace(frame, rgb=None), quality, original[0], clock.seconds
        else:
            original = (frame.frame_index, luma)
            yield frame, quality, None, clock.seconds


class _Times:
    """The frame times of the latest recordings: listing packets reads a whole file, and its shards come one after another."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._known: dict[str, FrameTimes | FootageError] = {}
        self._locks: dict[str, threading.Lock] = {}

    def of(self, shard: Shard, decoder: Decoder) -> FrameTimes:
        """List the packets, once a recording. Raises FootageError where the file cannot be used (any more)."""
        source = shard.source
        with self._lock:
            lock = self._locks.setdefault(source.path, threading.Lock())
        with lock:  # several shards of one recording wait for one listing; other recordings do not
            if source.path not in self._known:
                try:
                    # A recording was listed before, when it was indexed: one that cannot be now is not looked into twice.
                    found: FrameTimes | FootageError = decoder.times(source, shard.indexed_as)
                except FootageError as error:
                    found = error
                with self._lock:
                    self._known[source.path] = found
                    for path in list(self._known)[: -self._keep]:
                        del self._known[path]
                        self._locks.pop(path, None)
            else:
                found = self._known[source.path]
        if isinstance(found, FootageError):
            raise found
        return found
