"""Runs a batch on the CPU frame by frame, each frame by one thread.

Torch would run each operation with all threads, and each of its hundreds of operations ends in waiting for the slowest one:
beside processes that decode on the same cores, that is most of the time. And what a frame gives must not depend on the frames
beside it: a convolution over several goes another way through its sums, so that the last bits of a frame's boxes would depend on
where a night was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch

from detectors.types import Predictions

_FRAMES_AT_ONCE = 16
"""As many as a batch usually holds; twice as many cores and more share a frame."""


def run(images: torch.Tensor, look: Callable[[torch.Tensor], Predictions]) -> Predictions:
    """Call ``look`` on each of images [b, ...] on the CPU, and put its predictions together in their order."""
    pool = _pool(torch.get_num_threads())
    return Predictions.joined(list(pool.map(torch.inference_mode()(look), images.split(1))))


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
