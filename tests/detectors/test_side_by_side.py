"""On a CPU a batch goes through frame by frame, each by one thread, and nobody can tell from the predictions."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detectors
from detectors.preprocess import Batch
from tests.contracts.detector_contract import assert_equal
from tests.detectors.helpers import Frame, resized


@pytest.fixture(scope="module")
def frames(road_frames: list[Frame]) -> list[Frame]:
    return [resized(frame, 90, 160) for frame in (*road_frames, *road_frames)][:7]


@pytest.mark.parametrize("weights", ["yolov8n_weather.pt", "yolo11n_weather.pt"])
def test_as_frame_by_frame(shared_data: Path, frames: list[Frame], weights: str) -> None:
    detector: Any = detectors.load(shared_data / "weights" / weights, precision="fp32", device="cpu")
    threads = torch.get_num_threads()
    assert detector._traced is not None
    traced = detector.predict(Batch(frames))
    seen: list[tuple[int, str, int]] = []

    def note(_model: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((len(inputs[0]), threading.current_thread().name, torch.get_num_threads()))

    detector._traced = None
    detector.model.register_forward_pre_hook(note)
    found = detector.predict(Batch(frames))
    assert [images for images, _, _ in seen] == [1] * len(frames)
    assert {name.partition("_")[0] for _, name, _ in seen} == {"look"}
    assert {of_one for _, _, of_one in seen} == {1}
    assert torch.get_num_threads() == threads
    assert len(found.frame_index) > 5
    assert_equal(found, traced)
    assert_equal(found, type(found).joined([detector.predict(Batch([frame])) for frame in frames]))


def test_what_goes_wrong_in_a_thread_is_raised(shared_data: Path, frames: list[Frame]) -> None:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    detector: Any = detectors.load(path, precision="fp32", device="cpu")

    def fail(_model: object, inputs: tuple[torch.Tensor, ...]) -> None:
        raise RuntimeError("broken")

    detector._traced = None
    hook = detector.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        detector.predict(Batch(frames))
    hook.remove()
    assert np.isfinite(detector.predict(Batch(frames)).embeddings).all()


def test_a_batch_that_is_let_go_is_not_looked_at(shared_data: Path, frames: list[Frame]) -> None:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    detector: Any = detectors.load(path, precision="fp32", device="cpu")
    go_on, seen = threading.Event(), list[int]()

    def wait(_model: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        go_on.wait(20)

    detector._traced = None
    hook = detector.model.register_forward_pre_hook(wait)
    many = Batch(frames * math.ceil(4 * torch.get_num_threads() / len(frames)))
    first, second = detector.begin(many), detector.begin(many)
    second.cancel()
    first.cancel()
    go_on.set()
    with pytest.raises(CancelledError):
        first.result()
    begun = len(seen)
    detector.predict(Batch(frames))  # in line behind whatever was left
    assert len(seen) - begun == len(frames)
    assert begun <= torch.get_num_threads()
    hook.remove()


def test_threads_are_not_lost_to_ultralytics_nor_to_the_pool(shared_data: Path) -> None:
    """Ultralytics sets OMP_NUM_THREADS to 1 when it is imported, and what a thread sets is the default of later ones."""
    code = f"""
import os, threading
from detectors import weights
weights._is_official("yolo11n.pt")  # imports Ultralytics, as a name of theirs does that is not on the disk
import numpy as np, torch, detectors
from detectors.preprocess import Batch
detector = detectors.load({str(shared_data / "weights" / "yolov8n_weather.pt")!r}, precision="fp32", device="cpu")
found = [torch.get_num_threads()]
detector.predict(Batch([np.zeros((90, 160, 3), np.uint8)]))
later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
later.start()
later.join()
print(*found, torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    plain, found = (
        subprocess.run(
            [sys.executable, "-c", each], capture_output=True, text=True, check=True, env=environment
        ).stdout.split()
        for each in ("import torch; print(torch.get_num_threads())", code)
    )
    assert found == plain * 3
