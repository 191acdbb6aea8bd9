"""Perturbed copies of a detector keep to the contract, and find things where they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import detectors
from detectors.classes import ClassMap
from detectors.perturb import PerturbedDetector
from detectors.preprocess import Batch
from detectors.types import DetectorError, DetectorSpec, FrameBatch, Pending, Predictions, Unbegun
from tests.contracts.detector_contract import DetectorContract, Load
from tests.detectors.helpers import Frame, box_iou, resized


class OnRoadFrames(DetectorContract):
    edge_spread = True
    flip: bool
    scale: float

    @pytest.fixture(scope="class")
    @classmethod
    def frames(cls, road_frames: list[Frame]) -> list[Frame]:
        return [resized(frame, 270, 480) for frame in road_frames[:4]]

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, fleet: ClassMap) -> Load:
        path, fixed = shared_data / "weights" / "yolov8n_weather.pt", {"flip": cls.flip, "scale": cls.scale}
        return lambda **settings: detectors.load(path, fleet, **{**fixed, **settings})


class TestFlipped(OnRoadFrames):
    flip, scale = True, 1.0

    def test_equals_the_original_on_mirrored_frames(
        self, shared_data: Path, fleet: ClassMap, predictions: Predictions, frames: list[Frame]
    ) -> None:
        original = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", fleet)
        mirrored = original.predict(Batch([np.ascontiguousarray(frame[:, ::-1]) for frame in frames]))
        np.testing.assert_array_equal(mirrored.class_scores, predictions.class_scores)
        x1, y1, x2, y2 = mirrored.boxes_px.T
        np.testing.assert_allclose(
            predictions.boxes_px, np.stack([480 - x2, y1, 480 - x1, y2], axis=1), atol=1e-3
        )
        assert mirrored.box_std_px is not None
        assert predictions.box_std_px is not None
        np.testing.assert_array_equal(mirrored.box_std_px[:, [2, 1, 0, 3]], predictions.box_std_px)


class TestFlippedAndShrunken(OnRoadFrames):
    flip, scale = True, 0.8

    def test_finds_the_objects_that_the_original_finds(
        self, shared_data: Path, fleet: ClassMap, predictions: Predictions, frames: list[Frame]
    ) -> None:
        original = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", fleet).predict(
            Batch(frames)
        )
        sure = np.nanmax(original.class_scores, axis=1) > 0.18
        overlap = [
            box_iou(box[None], predictions.boxes_px[predictions.frame_index == frame]).max(initial=0)
            for frame, box in zip(original.frame_index[sure], original.boxes_px[sure], strict=True)
        ]
        assert len(overlap) >= 4
        assert np.mean(np.array(overlap) > 0.5) >= 0.7

    def test_its_digest_is_known_without_loading_it(
        self, shared_data: Path, fleet: ClassMap, load: Load
    ) -> None:
        weights = str(shared_data / "weights" / "yolov8n_weather.pt")
        specs = [
            DetectorSpec(weights, flip=flip, scale=scale) for flip in (False, True) for scale in (1.0, 0.8)
        ]
        digests = [detectors.digest_of(spec, fleet) for spec in specs]
        assert len(set(digests)) == 4
        assert load().digest == digests[3]


class Echo:
    """Finds the bright rectangle in each frame."""

    name, digest = "echo", "0"
    classes: tuple[str, ...] = ("thing",)
    seen = np.array([True])

    def __init__(self, spec: DetectorSpec) -> None:
        self.spec = spec

    def begin(self, frames: FrameBatch) -> Pending:
        return Unbegun(partial(self.predict, frames))

    def predict(self, frames: FrameBatch) -> Predictions:
        boxes, b = [], len(frames.frames)
        for frame in frames.frames:
            y, x = np.nonzero(frame[..., 0] > 200)
            boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        return Predictions(
            np.arange(b, dtype=np.int32), np.array(boxes, np.float32), np.full((b, 1), 0.9, np.float32),
            np.tile(np.array([1, 2, 3, 4], np.float32), (b, 1)), np.ones((b, 2), np.float32),
            np.zeros((b, 1), np.float32), np.zeros((b, 1), np.float32),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("flip", "scale", "std"),
    [(True, 1.0, [3, 2, 1, 4]), (False, 0.5, [2, 4, 6, 8]), (True, 0.5, [6, 4, 2, 8])],
)
def test_boxes_and_their_spread_come_back_to_source_pixels(flip: bool, scale: float, std: list[int]) -> None:
    frame = np.full((80, 120, 3), 20, np.uint8)
    frame[12:40, 16:56] = 255
    found = PerturbedDetector(Echo(DetectorSpec("x.pt", flip=flip, scale=scale))).predict(Batch([frame]))
    np.testing.assert_allclose(found.boxes_px, [[16, 12, 56, 40]], atol=1.01)
    assert found.box_std_px is not None
    np.testing.assert_allclose(found.box_std_px, [std], rtol=1e-6)


def test_a_scale_out_of_range_is_refused() -> None:
    with pytest.raises(DetectorError, match=r"scale is 1\.5; need 0\.25 to 1"):
        DetectorSpec("x.pt", scale=1.5)
