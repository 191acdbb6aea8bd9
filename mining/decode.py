"""Listing and decoding recordings in a process of their own: a file that crashes FFmpeg, or never ends, costs frames, not the job.

Whoever needs a recording's frames gets them here. Only ``mining.isolated`` starts processes; this says what is lost with one.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mining.footage import (
    Defaults,
    Facts,
    FootageError,
    Sidecar,
    Source,
    at_hand,
    frame_times,
    frame_times_near,
    read,
    read_facts,
    stat_signature,
)
from mining.isolated import Crashed, Worker
from mining.progress import LOG
from mining.types import Frame, FrameTimes

if TYPE_CHECKING:
    # A decoder's process starts in a third less time without it.
    from mining.config import Config

_CRASHES = 3
"""A file whose decoder crashes or hangs more often than this is given up."""
_SLOWEST_BYTES_A_S = 5e6
"""A file that is read more slowly than this, over and above the time limit, counts as one that hangs."""

_Item = TypeVar("_Item")


class Decoder:
    """One process that decodes. Not for use by two threads at a time."""

    def __init__(self, config: Config) -> None:
        """Take the config's time limit, and the frame rate of image folders; nothing is started yet."""
        self._timeout_s = config.detect.decode_timeout_s
        self._defaults = Defaults(image_rate_hz=config.footage.image_rate_hz)
        self._cache_gb = config.footage.cache_gb
        self._worker = Worker()

    def __enter__(self) -> Decoder:
        """Decode within a block; the process ends with it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._worker.close()

    def cancel(self) -> None:
        """End what it is at, from another thread, and for good: ``Cancelled`` is raised there."""
        self._worker.cancel()

    def at_hand(self, source: Source) -> AbstractContextManager[Source]:
        """Have a recording on the local disk for the length of a block: see ``footage.at_hand``. What follows does it too."""
        return at_hand(source, self._cache_gb)

    def facts(self, source: Source, sidecar: Sidecar, defaults: Defaults) -> Facts:
        """List a recording's packets: see ``footage.read_facts``. ``FootageError`` also where that crashes or hangs."""
        with self.at_hand(source) as here:
            return self._listed(here, read_facts, here, sidecar, defaults)

    def times(self, source: Source, indexed_as: tuple[int, int]) -> FrameTimes:
        """List a recording's frames: see ``footage.frame_times``. ``FootageError`` also where that crashes or hangs.

        ``indexed_as`` is its ``stat_signature`` as the tables have it; another file in its place is refused.
        """
        with self.at_hand(source) as here:
            _check_unchanged(source, here, indexed_as)
            return self._listed(here, frame_times, here, self._defaults)

    def times_near(
        self, source: Source, indexed_as: tuple[int, int], wanted: Mapping[int, int]
    ) -> tuple[FrameTimes, dict[int, int]]:
        """List the frames around some: see ``footage.frame_times_near``; the rest is as for ``times``."""
        with self.at_hand(source) as here:
            _check_unchanged(source, here, indexed_as)
            return self._listed(here, frame_times_near, here, self._defaults, dict(wanted))

    def frames(
        self,
        source: Source,
        times: FrameTimes,
        indices: Sequence[int] | NDArray[np.int64],
        size_px: tuple[int, int] | None,
    ) -> Iterator[Frame]:
        """Decode: see ``footage.read``. A frame at which the decoder crashes or hangs comes with an error, as damage does."""
        wanted = sorted({int(index) for index in indices})
        return self.each(
            read, source, times, wanted, size_px,
            lost=lambda index, reason: Frame(index, int(times.pts_ns[index]), None, reason),
        )  # fmt: skip

    def each(
        self,
        function: Callable[..., Iterator[_Item]],
        source: Source,
        times: FrameTimes,
        wanted: Sequence[int],
        *more: Any,
        lost: Callable[[int, str], _Item],
    ) -> Iterator[_Item]:
        """Yield what ``function(source, times, wanted, *more)`` gives: one item a frame, in the order of ``wanted``.

        Where it crashes or hangs, the frame that it was at is ``lost(frame_index, reason)``, and it goes on behind; too
        often, and all that is left is lost.
        """
        with self.at_hand(source) as here:
            yield from self._each(function, here, times, wanted, *more, lost=lost)

    def _each(
        self,
        function: Callable[..., Iterator[_Item]],
        source: Source,
        times: FrameTimes,
        wanted: Sequence[int],
        *more: Any,
        lost: Callable[[int, str], _Item],
    ) -> Iterator[_Item]:
        left = list(wanted)
        reason = ""
        for _ in range(_CRASHES + 1):
            try:
                for item in self._worker.run(function, source, times, left, *more, timeout_s=self._timeout_s):
                    yield item
                    left = left[1:]
                return
            except Crashed as error:
                reason = f"the decoder {error}"
            LOG.warning("%s: frame %d: %s", source.path, left[0], reason)
            yield lost(left[0], reason)
            left = left[1:]
            if not left:
                return
        for index in left:
            yield lost(index, reason)

    def call(self, function: Callable[..., _Item], *arguments: Any) -> _Item:
        """Run anything else that reads bytes from outside. ``Crashed`` where it crashes or hangs."""
        found: _Item = self._worker.call(function, *arguments, timeout_s=self._timeout_s)
        return found

    def _listed(self, source: Source, function: Callable[..., _Item], *arguments: Any) -> _Item:
        size_bytes, _ = stat_signature(source)
        limit_s = self._timeout_s + size_bytes / _SLOWEST_BYTES_A_S
        try:
            found: _Item = self._worker.call(function, *arguments, timeout_s=limit_s)
        except Crashed as error:
            raise FootageError(f"FFmpeg {error} while its packets were listed") from None
        return found


class Decoders:
    """Decoders for several threads, which end with a block."""

    def __init__(self, config: Config, count: int) -> None:
        """Have ``count`` of them; a process starts when its decoder is used."""
        self._all = [Decoder(config) for _ in range(count)]
        self._idle: queue.LifoQueue[Decoder] = queue.LifoQueue()  # one that has started goes first
        for decoder in self._all:
            self._idle.put(decoder)

    @contextmanager
    def lend(self) -> Iterator[Decoder]:
        """Have one of them for the length of a block; waits while all are lent."""
        decoder = self._idle.get()
        try:
            yield decoder
        finally:
            self._idle.put(decoder)

    def cancel(self) -> None:
        """End what all of them are at, from another thread, and for good: ``Cancelled`` is raised there."""
        for decoder in self._all:
            decoder.cancel()

    def __enter__(self) -> Decoders:
        """Use them within a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        for decoder in self._all:
            decoder.close()


def _check_unchanged(source: Source, here: Source, indexed_as: tuple[int, int]) -> None:
    if stat_signature(here) != indexed_as:
        raise FootageError(f"{source.path}: gone, or changed since it was indexed; run `mining index`")
