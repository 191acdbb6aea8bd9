"""Works on a batch on the CPU in small pieces of one size, each by one thread.

Torch would run each operation with all threads, and each of its hundreds of operations ends in waiting for the slowest one:
beside processes that decode on the same cores, that is most of the time. And what a frame gives must not depend on where a night
was interrupted: a convolution over more frames goes another way through its sums, and the last bits differ. So all pieces are
of one size, the last one too; which frames lie beside each other makes no difference then. Their size depends on the number
format, the input's size and the number of threads, thus on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from threading import Barrier
from typing import Any, ClassVar

import torch

from detectors.types import Predictions

_FRAMES_AT_ONCE = 16
"""As many as a batch usually holds; twice as many cores and more share a frame."""


@dataclass(frozen=True, slots=True)
class Running:
    """The ``Pending`` of a batch whose pieces wait for a thread, or have one."""

    pieces: list[Future[Predictions]]
    in_last: int
    """Frames of the last piece; what is beyond fills it up."""
    threads: int
    under_way: ClassVar[bool] = True

    def result(self) -> Predictions:
        """Put the predictions of all pieces together, in their order."""
        try:
            found = [piece.result() for piece in self.pieces]
        finally:
            self.cancel()  # where one failed, nobody needs the others
        whole = Predictions.joined([*found[:-1], found[-1].first(self.in_last)])
        return replace(
            whole, forward_s=whole.forward_s / self.threads, assemble_s=whole.assemble_s / self.threads
        )

    def cancel(self) -> None:
        """Let go of the pieces that have no thread yet."""
        for piece in self.pieces:
            piece.cancel()


def begin(images: torch.Tensor, look: Callable[[torch.Tensor], Predictions]) -> Running:
    """Have ``look`` called on pieces of images [b, 3, height, width], after those of batches that were begun before."""
    size = _frames_a_piece(images)
    pieces = list(images.split(size))
    left = len(pieces[-1])
    if left < size:
        pieces[-1] = torch.cat([pieces[-1], pieces[-1][-1:]])
    pool, threads = _pool("look", torch.get_num_threads())
    return Running([pool.submit(torch.inference_mode()(look), piece) for piece in pieces], left, threads)


def _frames_a_piece(images: torch.Tensor) -> int:
    """Two frames at once in bfloat16 take a seventh less time than one after the other; two in float32 take more.

    One where there are so many cores that some would have nothing to do. One, too, where a map at stride 32 has an odd number of
    cells: with two, a tensor of 16 channels or an odd multiple of them would end within a vector, and torch computes what is
    left over of the last vector in another way.
    """
    cells = (images.shape[2] // 32) * (images.shape[3] // 32)
    few_cores = 2 * torch.get_num_threads() <= _FRAMES_AT_ONCE
    return 2 if images.dtype == torch.bfloat16 and few_cores and cells % 2 == 0 else 1


def prepare(work: Callable[..., object], *frames: Iterable[Any]) -> None:
    """Call ``work`` with what belongs to each frame of a batch, beside the frames that are being looked at."""
    pool, _ = _pool("prepare", torch.get_num_threads())
    list(pool.map(torch.inference_mode()(work), *frames))


@cache
def _pool(purpose: str, cores: int) -> tuple[ThreadPoolExecutor, int]:
    """Threads for all cores, and how many they are."""
    threads_a_frame = max(1, cores // _FRAMES_AT_ONCE)
    workers = cores // threads_a_frame
    all_started = Barrier(workers)

    def start() -> None:
        torch.set_num_threads(threads_a_frame)
        torch.get_num_threads()  # from here on it is this thread's own number, whatever others set
        all_started.wait()

    pool = ThreadPoolExecutor(workers, purpose, initializer=start)
    list(pool.map(lambda _: None, range(workers)))
    torch.set_num_threads(cores)  # what a worker sets is also the default of threads that come later
    return pool, workers
