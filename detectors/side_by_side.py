"""Works on a batch on the CPU in small pieces of one size, each by one thread.

Torch would run each operation with all threads, and each of its hundreds of operations ends in waiting for the slowest one:
beside processes that decode on the same cores, that is most of the time. And what a frame gives must not depend on where a night
was interrupted: a convolution over more frames goes another way through its sums, and the last bits differ. So all pieces are
of one size, the last one too; which frames lie beside each other makes no difference then (tests hold that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch

from detectors.types import Predictions

_Found = TypeVar("_Found")
_FRAMES_AT_ONCE = 16
"""As many as a batch usually holds; twice as many cores and more share a frame."""


@dataclass(frozen=True, slots=True)
class Running:
    """The ``Pending`` of a batch whose pieces wait for a thread, or have one."""

    pieces: list[Future[Predictions]]
    in_last: int
    """Frames of the last piece; what is beyond fills it up."""

    def result(self) -> Predictions:
        """Put the predictions of all pieces together, in their order."""
        try:
            found = [piece.result() for piece in self.pieces]
        finally:
            self.cancel()  # where one failed, nobody needs the others
        return Predictions.joined([*found[:-1], found[-1].first(self.in_last)])

    def cancel(self) -> None:
        """Let go of the pieces that have no thread yet."""
        for piece in self.pieces:
            piece.cancel()


def begin(images: torch.Tensor, look: Callable[[torch.Tensor], Predictions]) -> Running:
    """Have ``look`` called on pieces of images [b, ...] on the CPU, after those of batches that were begun before."""
    size = _frames_a_piece(images.dtype)
    pieces = list(images.split(size))
    left = len(pieces[-1])
    pieces[-1] = torch.cat([pieces[-1], *[pieces[-1][-1:]] * (size - left)])
    pool = _pool(torch.get_num_threads())
    return Running([pool.submit(torch.inference_mode()(look), piece) for piece in pieces], left)


def _frames_a_piece(dtype: torch.dtype) -> int:
    """Two frames at once in bfloat16 take a seventh less time than one after the other; two in float32 take more.

    One where there are so many cores that some would have nothing to do.
    """
    return 2 if dtype.itemsize == 2 and 2 * torch.get_num_threads() <= _FRAMES_AT_ONCE else 1


def each(work: Callable[..., _Found], *frames: Iterable[Any]) -> list[_Found]:
    """Do as ``map`` does with what belongs to each frame of a batch."""
    return list(_pool(torch.get_num_threads()).map(torch.inference_mode()(work), *frames))


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    threads_a_frame = max(1, cores // _FRAMES_AT_ONCE)
    workers = cores // threads_a_frame
    all_started = Barrier(workers)

    def start() -> None:
        torch.set_num_threads(threads_a_frame)
        torch.get_num_threads()  # from here on it is this thread's own number, whatever others set
        all_started.wait()

    pool = ThreadPoolExecutor(workers, "look", initializer=start)
    list(pool.map(lambda _: None, range(workers)))
    torch.set_num_threads(cores)  # what a worker sets is also the default of threads that come later
    return pool
