"""A batch that the device's memory does not hold is halved, and the detector remembers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detectors
from detectors.memory import Pieces
from detectors.preprocess import Batch
from tests.contracts.detector_contract import assert_equal
from tests.detectors.helpers import Frame, resized

Detector = Any


@pytest.fixture
def detector(shared_data: Path) -> Detector:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    loaded: Detector = detectors.load(path, precision="fp32", device="cpu")
    loaded._pieces, loaded._traced = Pieces(loaded.name), None  # as on a GPU
    return loaded


@pytest.fixture(scope="module")
def frames(road_frames: list[Frame]) -> list[Frame]:
    return [resized(frame, 90, 160) for frame in (*road_frames, *road_frames)][:11]


def limit(detector: Detector, most: int) -> list[int]:
    """Let the network run out of memory beyond ``most`` images; returns the list of the batches that it is shown."""
    shown: list[int] = []

    def check(_model: object, inputs: tuple[torch.Tensor, ...]) -> None:
        shown.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    detector.model.register_forward_pre_hook(check)
    return shown


def test_halved_and_remembered(
    detector: Detector, frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [detector.predict(Batch(frames[i : i + 2])) for i in range(0, 11, 2)]
    shown = limit(detector, 3)
    with caplog.at_level(logging.WARNING, "mining"):
        found = detector.predict(Batch(frames))
        assert shown == [11, 5, 2, 2, 2, 2, 2, 1]
        shown.clear()
        again = detector.predict(Batch(frames[:4]))
        assert shown == [2, 2]
    assert caplog.messages == [
        "yolov8n_weather: a batch of 11 does not fit into the device's memory; going on with 2 frames at a time"
    ]
    assert len(found.embeddings) == 11
    for i, piece in enumerate(wanted):
        rows = (found.frame_index >= 2 * i) & (found.frame_index < 2 * i + 2)
        np.testing.assert_array_equal(found.frame_index[rows] - 2 * i, piece.frame_index)
        np.testing.assert_array_equal(found.boxes_px[rows], piece.boxes_px)
        np.testing.assert_array_equal(found.class_scores[rows], piece.class_scores)
        np.testing.assert_array_equal(found.embeddings[2 * i : 2 * i + 2], piece.embeddings)
    assert_equal(again, type(again).joined(wanted[:2]))


def test_a_frame_that_does_not_fit_is_an_error(detector: Detector, frames: list[Frame]) -> None:
    limit(detector, 0)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        detector.predict(Batch(frames[:3]))


def test_errors_keep_their_frames(detector: Detector, frames: list[Frame]) -> None:
    good = detector.predict(Batch(frames[:3]))
    broken = np.zeros_like(frames[0])

    is_black: list[torch.Tensor] = []

    def note(_model: object, inputs: tuple[torch.Tensor, ...]) -> None:
        is_black[:] = [inputs[0].amax((1, 2, 3)) < 0.5]  # the padding is grey

    def spoil(_head: object, inputs: tuple[list[torch.Tensor], ...]) -> None:
        for maps in inputs[0]:
            maps[is_black[0]] = torch.nan

    detector.model.register_forward_pre_hook(note)
    detector.model.model[-1].register_forward_pre_hook(spoil)
    limit(detector, 2)
    found = detector.predict(Batch([frames[0], broken, frames[1], broken, frames[2]]))
    assert sorted(found.errors) == [1, 3]
    assert set(found.frame_index.tolist()) <= {0, 2, 4}
    assert np.isnan(found.embeddings).any(1).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(found.embeddings[[0, 2, 4]], good.embeddings, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_whose_memory_runs_out(shared_data: Path, frames: list[Frame]) -> None:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    detector: Detector = detectors.load(path, precision="fp32", device="cuda", image_size_px=640)
    many = [frames[0]] * 64
    wanted = detector.predict(Batch(many[:1]))
    torch.cuda.reset_peak_memory_stats()
    detector.predict(Batch(many))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.max_memory_allocated() * 0.6 / total)
    try:
        found = detector.predict(Batch(many))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert detector._pieces.size in {16, 32}
    np.testing.assert_allclose(found.embeddings[-1], wanted.embeddings[0], atol=1e-3)
