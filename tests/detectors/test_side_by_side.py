"""On a CPU a batch goes through in pieces, each by one thread, and nobody can tell from the predictions."""

from __future__ import annotations

import threading
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
