"""The same boxes and scores as Ultralytics' own ``predict`` at the same settings, and as its exported graph.

All in float32: what bfloat16 costs, where ``auto`` takes it, is for test_precision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import detectors
from detectors.preprocess import Batch
from detectors.types import Predictions
from tests.detectors.helpers import Frame, assert_same_boxes

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def predicted(model: Any, frame: Frame, **settings: Any) -> Rows:
    """Boxes, scores and classes by Ultralytics, one row a box.

    Its end-to-end heads may list one box under several classes; here a box has one row with all of its scores, so only
    the best listing stays.
    """
    result = model.predict(frame[..., ::-1], verbose=False, device="cpu", **settings)[0].boxes
    height, width = frame.shape[:2]
    boxes = result.xyxy.numpy().clip(0, [width, height] * 2)  # RT-DETR's predict leaves boxes that stick out
    scores, labels = result.conf.numpy(), result.cls.numpy()
    order = np.argsort(-scores, kind="stable")
    first = np.array(sorted(np.unique(boxes[order], axis=0, return_index=True)[1]), dtype=int)
    # Untrained end-to-end heads give boxes that are turned inside out, which is nothing to compare.
    kept = order[first][(boxes[order][first][:, 2:] > boxes[order][first][:, :2]).all(1)]
    return boxes[kept], scores[kept], labels[kept]


def ours(predictions: Predictions) -> Rows:
    scores = predictions.class_scores
    return predictions.boxes_px, scores.max(1), scores.argmax(1)


def compare(detector: Any, model: Any, frames: list[Frame], **settings: Any) -> int:
    """Compare frame by frame; returns how many boxes were compared."""
    count = 0
    for frame in frames:
        boxes, scores, labels = ours(detector.predict(Batch([frame])))
        wanted = predicted(model, frame, **settings)
        assert_same_boxes(boxes, np.stack((scores, labels), 1), wanted[0], np.stack(wanted[1:], 1))
        count += len(boxes)
    return count


@pytest.mark.parametrize("name", ["yolo11n_weather.pt", "yolov8n_weather.pt"])
@pytest.mark.parametrize(("size", "agnostic"), [(320, True), (320, False), (640, True)])
def test_trained_checkpoint(
    shared_data: Path, road_frames: list[Frame], name: str, size: int, agnostic: bool
) -> None:
    from ultralytics import YOLO

    path = shared_data / "weights" / name
    detector = detectors.load(
        path,
        image_size_px=size,
        suppress_iou=0.6,
        class_agnostic=agnostic,
        max_boxes=300,
        precision="fp32",
    )
    settings = {"imgsz": size, "conf": 0.05, "iou": 0.6, "agnostic_nms": agnostic, "max_det": 300}
    assert compare(detector, YOLO(str(path)), road_frames[:5], **settings) > 40


def test_size_of_the_checkpoint_is_the_default(shared_data: Path, road_frames: list[Frame]) -> None:
    from ultralytics import YOLO

    path = shared_data / "weights" / "yolo11n_weather.pt"
    detector = detectors.load(path, max_boxes=300, precision="fp32")
    settings = {"conf": 0.05, "iou": 0.7, "agnostic_nms": True, "max_det": 300}
    assert compare(detector, YOLO(str(path)), road_frames[:3], **settings) > 10


@pytest.mark.parametrize(
    "architecture",
    ["yolo26n.yaml", "yolo12n.yaml", "yolov10n.yaml", "rtdetr-tiny", "rtdetr-l.yaml"],
)
def test_architecture(built: Callable[[str], Path], road_frames: list[Frame], architecture: str) -> None:
    from ultralytics import RTDETR, YOLO

    path = built(architecture)
    kind = RTDETR if architecture.startswith("rtdetr") else YOLO
    # Nothing is suppressed here: untrained weights give so many boxes alike that the last bit decides which stay.
    detector = detectors.load(path, suppress_iou=1.0, max_boxes=300, precision="fp32")
    model = kind(str(path))
    for frame in road_frames[: 1 if architecture == "rtdetr-l.yaml" else 2]:
        boxes, scores, labels = ours(detector.predict(Batch([frame])))
        wanted = predicted(model, frame, imgsz=320, conf=0.05, iou=1.0, agnostic_nms=True, max_det=300)
        # Compare the best ones, down to the widest gap, where no rounding can move a box across.
        best = 10 + np.diff(scores[10:60]).argmin() + 1
        assert_same_boxes(
            boxes[:best],
            np.stack((scores, labels), 1)[:best],
            wanted[0][:best],
            np.stack(wanted[1:], 1)[:best],
        )


def test_exported_graph_equals_the_checkpoint(
    exported_onnx: tuple[Path, Path], road_frames: list[Frame]
) -> None:
    checkpoint, graph = exported_onnx
    of_graph = detectors.load(graph, head="yolov8")
    of_checkpoint = detectors.load(checkpoint, image_size_px=320, precision="fp32")
    assert of_graph.classes == of_checkpoint.classes  # from the graph's metadata
    square = [np.ascontiguousarray(frame[:180, :180]) for frame in road_frames]  # the graph's input is square
    count = 0
    for frame in square:
        got, wanted = of_graph.predict(Batch([frame])), of_checkpoint.predict(Batch([frame]))
        assert_same_boxes(got.boxes_px, got.class_scores, wanted.boxes_px, wanted.class_scores, 0.99, 1e-3)
        np.testing.assert_allclose(got.dense_entropy_mean, wanted.dense_entropy_mean, atol=1e-4)
        count += len(got.boxes_px)
    assert count > 20
