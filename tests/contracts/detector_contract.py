"""What every kind of detector must keep to. A kind inherits ``DetectorContract`` and says how it is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.preprocess import Batch
from detectors.types import Detector, Predictions
from tests.detectors.helpers import assert_same_boxes

Frame = NDArray[np.uint8]
Load = Callable[..., Detector]


class DetectorContract:
    """Inherit, and provide ``load`` (settings -> a detector mapped onto the fleet's classes) and ``frames``."""

    edge_spread: bool
    """Whether the head has edge distributions."""
    score_tolerance: float = 1e-4
    """How much a score may change with the batch that a frame is in (libraries choose other algorithms)."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Load:
        """Override: load the detector with these settings of its spec."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def frames(cls) -> list[Frame]:
        """Override: at least three different frames of one size, on which the detector finds something."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, load: Load) -> Detector:
        return load()

    @pytest.fixture(scope="class")
    @classmethod
    def predictions(cls, detector: Detector, frames: list[Frame]) -> Predictions:
        return detector.predict(Batch(frames))

    def test_finds_something(self, predictions: Predictions) -> None:
        assert len(predictions.frame_index) > 3
        assert not predictions.errors

    def test_batches_asked_for_in_turn_are_answered_each_for_itself(
        self, detector: Detector, predictions: Predictions, frames: list[Frame]
    ) -> None:
        one, dropped, other = (detector.begin(Batch(f)) for f in (frames, frames, frames[::-1]))
        dropped.cancel()
        assert_equal(other.result(), detector.predict(Batch(frames[::-1])))
        assert_equal(one.result(), predictions)

    def test_shapes_and_types(
        self, detector: Detector, predictions: Predictions, frames: list[Frame]
    ) -> None:
        n, b, c = len(predictions.frame_index), len(frames), len(detector.classes)
        assert predictions.frame_index.dtype == np.int32
        assert predictions.boxes_px.shape == (n, 4)
        assert predictions.class_scores.shape == (n, c)
        assert predictions.dense_entropy_max.shape == predictions.dense_entropy_mean.shape == (b, c)
        assert predictions.embeddings.shape[0] == b
        assert detector.seen.shape == (c,)
        assert detector.seen.dtype == np.bool_
        floats = [predictions.boxes_px, predictions.class_scores, predictions.embeddings]
        floats += [predictions.dense_entropy_max, predictions.dense_entropy_mean]
        if predictions.box_std_px is not None:
            floats.append(predictions.box_std_px)
        assert {array.dtype for array in floats} == {np.dtype(np.float32)}

    def test_order(self, predictions: Predictions) -> None:
        confidence = np.nanmax(predictions.class_scores, axis=1)
        keys = list(zip(predictions.frame_index.tolist(), (-confidence).tolist(), strict=True))
        assert keys == sorted(keys)

    def test_limits(self, detector: Detector, predictions: Predictions) -> None:
        assert np.nanmax(predictions.class_scores, axis=1).min() >= detector.spec.floor
        assert np.bincount(predictions.frame_index).max() <= detector.spec.max_boxes

    def test_boxes_lie_inside_the_frame(self, predictions: Predictions, frames: list[Frame]) -> None:
        height, width = frames[0].shape[:2]
        x1, y1, x2, y2 = predictions.boxes_px.T
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= width).all()
        assert (y2 <= height).all()
        assert (x2 > x1).all()
        assert (y2 > y1).all()

    def test_scores_are_known_exactly_where_the_class_is_seen(
        self, detector: Detector, predictions: Predictions
    ) -> None:
        assert detector.seen.any()
        for values in (
            predictions.class_scores,
            predictions.dense_entropy_max,
            predictions.dense_entropy_mean,
        ):
            assert (np.isnan(values) == ~detector.seen).all()
        known = predictions.class_scores[:, detector.seen]
        assert known.min() >= 0
        assert known.max() <= 1

    def test_entropy_is_binary_entropy(self, detector: Detector, predictions: Predictions) -> None:
        largest = predictions.dense_entropy_max[:, detector.seen]
        mean = predictions.dense_entropy_mean[:, detector.seen]
        assert (mean >= 0).all()
        assert (mean <= largest + 1e-6).all()
        assert largest.max() <= math.log(2) + 1e-6
        # The largest over all positions is no less than that of any kept box.
        p = predictions.class_scores[:, detector.seen].astype(np.float64).clip(1e-9, 1 - 1e-9)
        entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
        assert (entropy <= largest[predictions.frame_index] + 1e-5).all()

    def test_embedding_is_a_unit_vector(self, predictions: Predictions) -> None:
        np.testing.assert_allclose(np.linalg.norm(predictions.embeddings, axis=1), 1, atol=1e-4)

    def test_embedding_tells_frames_apart(self, predictions: Predictions) -> None:
        likeness = predictions.embeddings @ predictions.embeddings.T
        assert likeness[~np.eye(len(likeness), dtype=bool)].max() < 0.99999

    def test_edge_spread(self, predictions: Predictions) -> None:
        assert (predictions.box_std_px is not None) == self.edge_spread
        if predictions.box_std_px is not None:
            assert np.isfinite(predictions.box_std_px).all()
            assert (predictions.box_std_px > 0).all()

    def test_same_again(self, detector: Detector, predictions: Predictions, frames: list[Frame]) -> None:
        again = detector.predict(Batch(frames))
        assert_equal(again, predictions)

    def test_batch_equals_single_frames(
        self, detector: Detector, predictions: Predictions, frames: list[Frame]
    ) -> None:
        for i, frame in enumerate(frames):
            single = detector.predict(Batch([frame]))
            rows = predictions.frame_index == i
            got, wanted = (
                single.class_scores[:, detector.seen],
                predictions.class_scores[rows][:, detector.seen],
            )
            assert_same_boxes(
                single.boxes_px, got, predictions.boxes_px[rows], wanted, 0.99, self.score_tolerance
            )
            np.testing.assert_allclose(single.embeddings[0], predictions.embeddings[i], atol=1e-3)
            np.testing.assert_allclose(
                single.dense_entropy_mean[0], predictions.dense_entropy_mean[i], atol=1e-3
            )

    def test_sharing_a_batch_changes_nothing(
        self, load: Load, detector: Detector, predictions: Predictions, frames: list[Frame]
    ) -> None:
        shared = Batch(frames)
        other = load(name="other", max_boxes=7)
        few = other.predict(shared)
        assert_equal(detector.predict(shared), predictions)
        assert_equal(other.predict(Batch(frames)), few)
        assert np.bincount(few.frame_index).max() <= 7

    def test_a_black_frame_is_no_failure(self, detector: Detector, frames: list[Frame]) -> None:
        result = detector.predict(Batch([np.zeros_like(frames[0])]))
        assert not result.errors
        assert np.isfinite(result.embeddings).all()

    @pytest.mark.parametrize(
        ("height", "width"), [(333, 187), (97, 451), (1, 64)], ids=["portrait", "odd", "thin"]
    )
    def test_any_frame_size(self, detector: Detector, frames: list[Frame], height: int, width: int) -> None:
        frame = np.ascontiguousarray(np.resize(frames[0], (height, width, 3)))
        result = detector.predict(Batch([frame]))
        assert not result.errors
        assert (result.boxes_px <= np.array([width, height] * 2)).all()
        assert (result.boxes_px >= 0).all()

    def test_the_floor_only_cuts_the_tail(
        self, load: Load, detector: Detector, predictions: Predictions, frames: list[Frame]
    ) -> None:
        floor = 1.5 * detector.spec.floor
        higher = load(floor=floor, threshold=0.9).predict(Batch(frames))
        confidence = np.nanmax(predictions.class_scores, axis=1)
        best = confidence.argmax()
        assert len(higher.frame_index) <= (confidence >= floor).sum()
        assert np.nanmax(higher.class_scores) == pytest.approx(confidence[best], abs=1e-6)

    def test_digest(self, load: Load, detector: Detector) -> None:
        floor = detector.spec.floor
        assert load(name="other", threshold=0.9, floor=floor, device="cpu").digest == detector.digest
        assert load(floor=floor / 2).digest != detector.digest


def assert_equal(a: Predictions, b: Predictions) -> None:
    """Two predictions are the same to the last bit."""
    np.testing.assert_array_equal(a.frame_index, b.frame_index)
    np.testing.assert_array_equal(a.boxes_px, b.boxes_px)
    np.testing.assert_array_equal(a.class_scores, b.class_scores)
    np.testing.assert_array_equal(a.embeddings, b.embeddings)
    np.testing.assert_array_equal(a.dense_entropy_max, b.dense_entropy_max)
    np.testing.assert_array_equal(a.dense_entropy_mean, b.dense_entropy_mean)
    assert (a.box_std_px is None) == (b.box_std_px is None)
    if a.box_std_px is not None and b.box_std_px is not None:
        np.testing.assert_array_equal(a.box_std_px, b.box_std_px)
