"""Works on a batch on the CPU frame by frame, each by one thread.

Torch would run each operation with all threads, and each of its hundreds of operations ends in waiting for the slowest one:
beside processes that decode on the same cores, that is most of the time. And what a frame gives must not depend on where a night
was interrupted: a convolution over more frames goes another way through its sums, and the last bits differ.
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
    """The ``Pending`` of a batch whose frames wait for a thread, or have one."""

    frames: list[Future[Predictions]]
    threads: int
    under_way: ClassVar[bool] = True

    def result(self) -> Predictions:
        """Put the predictions of all frames together, in their order."""
        try:
            whole = Predictions.joined([frame.result() for frame in self.frames])
        finally:
            self.cancel()  # where one failed, nobody needs the others
        return replace(
            whole, forward_s=whole.forward_s / self.threads, assemble_s=whole.assemble_s / self.threads
        )

    def cancel(self) -> None:
        """Let go of the frames that have no thread yet."""
        for frame in self.frames:
            frame.cancel()


def begin(images: torch.Tensor, look: Callable[[torch.Tensor], Predictions], waiting: int = 0) -> Running:
    """Have ``look`` called on each of images [b, 3, height, width], as [1, ...], after those of batches that were begun before.

    ``waiting``: threads beside one a core, where ``look`` mostly waits for threads of others.
    """
    workers, threads = shared_out(torch.get_num_threads())
    pool = _pool("look", workers + waiting, threads // workers)
    call = torch.inference_mode()(look)
    return Running([pool.submit(call, image) for image in images.split(1)], workers + waiting)


def prepare(work: Callable[..., object], *frames: Iterable[Any]) -> None:
    """Call ``work`` with what belongs to each frame of a batch, beside the frames that are being looked at."""
    workers, threads = shared_out(torch.get_num_threads())
    list(_pool("prepare", workers, threads // workers).map(torch.inference_mode()(work), *frames))


def shared_out(cores: int) -> tuple[int, int]:
    """How many frames at a time so many cores work on, and how many of the cores that takes."""
    threads_a_frame = max(1, cores // _FRAMES_AT_ONCE)
    workers = cores // threads_a_frame
    return workers, workers * threads_a_frame


@cache
def _pool(purpose: str, workers: int, threads_each: int) -> ThreadPoolExecutor:
    all_started = Barrier(workers)
    usual = torch.get_num_threads()

    def start() -> None:
        torch.set_num_threads(threads_each)
        torch.get_num_threads()  # from here on it is this thread's own number, whatever others set
        all_started.wait()

    pool = ThreadPoolExecutor(workers, purpose, initializer=start)
    list(pool.map(lambda _: None, range(workers)))
    torch.set_num_threads(usual)  # what a worker sets is also the default of threads that come later
    return pool
