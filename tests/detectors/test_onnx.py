"""ONNX graphs: decoding against the published formulas cell by cell, and graphs that must be refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import detectors
from detectors.preprocess import Batch
from detectors.types import DetectorError
from tests.detectors.helpers import Frame, assert_same_boxes, box_iou

Rows = list[tuple[list[float], NDArray[Any], list[float] | None]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def prepare(frame: Frame, side: int, keep_aspect: bool) -> tuple[Frame, NDArray[Any], NDArray[Any]]:
    """Fit a BGR frame into a square, on grey or stretched: the image, its top left corner, its scale (x, y)."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale)) if keep_aspect else (side, side)
    corner = np.array([(side - size[0]) // 2, (side - size[1]) // 2])
    canvas = np.full((side, side, 3), 114, np.uint8)
    area = canvas[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]]
    area[:] = cv2.resize(frame[..., ::-1], size, interpolation=cv2.INTER_LINEAR)
    return canvas, corner, np.array(size) / (width, height)


def run_graph(path: Path, image: Frame, mean: Any, std: Any) -> dict[str, NDArray[Any]]:
    """Feed a BGR image to the graph as its authors do."""
    normalised = (image.astype(np.float32) - np.float32(mean)) / np.float32(std)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"input.1": normalised.transpose(2, 0, 1)[None]})
    return dict(zip(names, values, strict=True))


def nanodet_reference(outputs: dict[str, NDArray[Any]], floor: float) -> Rows:
    """RangiLyu/nanodet: centres at (i + 0.5) * stride; each side is the expectation over 8 bins, times the stride."""
    rows: Rows = []
    for scores_name, edges_name, stride in (("792", "795", 8), ("814", "817", 16), ("836", "839", 32)):
        side = 416 // stride
        for row in range(side):
            for column in range(side):
                cell = row * side + column
                scores = outputs[scores_name][0, cell]
                if scores.max() < floor:
                    continue
                distances, spreads = [], []
                for edge in range(4):
                    logits = outputs[edges_name][0, cell, edge * 8 : edge * 8 + 8].astype(np.float64)
                    p = np.exp(logits - logits.max())
                    p /= p.sum()
                    mean = sum(k * p[k] for k in range(8))
                    distances.append(mean * stride)
                    spreads.append(math.sqrt(sum(p[k] * (k - mean) ** 2 for k in range(8))) * stride)
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                box = [x - distances[0], y - distances[1], x + distances[2], y + distances[3]]
                rows.append((box, scores, spreads))
    return rows


def fastestdet_reference(outputs: dict[str, NDArray[Any]], floor: float) -> Rows:
    """dog-qiuqiu/FastestDet: score = obj^0.6 * cls^0.4; centre = (tanh(t) + cell) / 22; size = sigmoid(t)."""
    rows: Rows = []
    for row in range(22):
        for column in range(22):
            cell = outputs["758"][0, :, row, column].astype(np.float64)
            scores = np.array([cell[0] ** 0.6 * c**0.4 for c in cell[5:]])
            if scores.max() < floor:
                continue
            x, y = (math.tanh(cell[1]) + column) / 22, (math.tanh(cell[2]) + row) / 22
            w, h = sigmoid(cell[3]), sigmoid(cell[4])
            rows.append(([352 * v for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)], scores, None))
    return rows


def greedy(rows: Rows, iou: float) -> Rows:
    """Suppress across classes, best first."""
    kept: Rows = []
    for row in sorted(rows, key=lambda r: -r[1].max()):
        if all(box_iou(np.array([row[0]]), np.array([other[0]]))[0, 0] <= iou for other in kept):
            kept.append(row)
    return kept


HEADS = {
    "nanodet": (
        "nanodet_m.onnx",
        416,
        True,
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        nanodet_reference,
    ),
    "fastestdet": ("FastestDet.onnx", 352, False, (0, 0, 0), (255, 255, 255), fastestdet_reference),
}


@pytest.mark.parametrize("head", list(HEADS))
def test_decoding_equals_the_published_formulas(
    shared_data: Path, road_frames: list[Frame], head: str
) -> None:
    name, side, keep_aspect, mean, std, reference = HEADS[head]
    path = shared_data / "weights" / name
    detector = detectors.load(path, head=head, floor=0.1, threshold=0.4, suppress_iou=0.6, max_boxes=1000)
    for frame in road_frames[:4]:
        image, corner, scale = prepare(frame, side, keep_aspect)
        wanted = greedy(reference(run_graph(path, image, mean, std), 0.1), 0.6)
        got = detector.predict(Batch([frame]))
        height, width = frame.shape[:2]
        boxes = (np.array([row[0] for row in wanted]) - np.tile(corner, 2)) / np.tile(scale, 2)
        boxes = boxes.clip(0, [width, height] * 2)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        scores = np.array([row[1] for row in wanted])
        assert inside.sum() > 5
        assert_same_boxes(got.boxes_px, got.class_scores, boxes[inside], scores[inside], 0.995, 1e-3)
        if got.box_std_px is not None:  # both sorted by confidence
            spread = np.array([row[2] for row in wanted])[inside] / np.tile(scale, 2)
            np.testing.assert_allclose(got.box_std_px, spread, rtol=0.02, atol=0.05)


def test_cars_are_found_where_they_are(shared_data: Path, road_frames: list[Frame]) -> None:
    """Frame 20 of the Udacity clip: a black and a white car, marked by hand."""
    cars = np.array([[816, 408, 948, 498], [1030, 404, 1228, 504]])
    for head, (name, *_rest) in HEADS.items():
        detector = detectors.load(shared_data / "weights" / name, head=head)
        result = detector.predict(Batch([road_frames[0]]))
        sure = result.class_scores[:, detector.classes.index("car")] > 0.5
        assert (box_iou(cars, result.boxes_px[sure]).max(1) > 0.7).all()


def graph(
    outputs: dict[str, list[int]], side: Any = 64, channels: int = 3, batch: Any = 1, names: str | None = None
) -> onnx.ModelProto:
    """A graph that convolves its input once and reshapes constants into outputs of these shapes."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 2, 2], np.zeros(48))
    nodes = [helper.make_node("Conv", ["images", "w"], ["map"], strides=[2, 2])]
    initializers = [weight]
    for name, shape in outputs.items():
        initializers.append(
            helper.make_tensor(f"{name}_data", TensorProto.FLOAT, shape, np.zeros(math.prod(shape)))
        )
        nodes.append(helper.make_node("Identity", [f"{name}_data"], [name]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, channels, side, side])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    if names is not None:
        model.metadata_props.add(key="names", value=names)
    return model


@pytest.fixture
def write(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def save(model: onnx.ModelProto) -> Path:
        path = tmp_path / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


YOLO_64 = {"output0": [1, 4 + 3, 84]}  # 64 + 16 + 4 positions


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DetectorError) as caught:
        detectors.load(path, **{"head": "yolov8", **settings})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_come_from_spec_metadata_or_coco(write: Callable[[onnx.ModelProto], Path]) -> None:
    carried = write(graph(YOLO_64, names="{0: 'car', 1: 'dog', 2: 'tree'}"))
    assert detectors.load(carried, head="yolov8").classes == ("car", "dog", "tree")
    assert detectors.load(carried, head="yolov8", class_names=("a", "b", "c")).classes == ("a", "b", "c")
    assert "class_names has 1 names" in refusal(carried, class_names=("a",))
    assert "give class_names" in refusal(write(graph(YOLO_64)))
    coco = detectors.load(write(graph({"output0": [1, 84, 84]})), head="yolov8")
    assert len(coco.classes) == 80
    for hostile in ("__import__('os').system('true')", "{0: 'car'}", "[" * 10_000, "{'a': 'car'}", "3"):
        assert "class_names" in refusal(write(graph(YOLO_64, names=hostile)))


def test_dynamic_sides_take_the_specs_size(write: Callable[[onnx.ModelProto], Path]) -> None:
    path = write(graph(YOLO_64, side="side", batch="batch"))
    detector = detectors.load(path, head="yolov8", image_size_px=64, class_names=("a", "b", "c"))
    result = detector.predict(Batch([np.zeros((30, 50, 3), np.uint8)] * 2))
    assert result.embeddings.shape == (2, 4)
    assert "exported for 64x64" in refusal(write(graph(YOLO_64)), image_size_px=320)


def test_wrong_head(shared_data: Path, write: Callable[[onnx.ModelProto], Path]) -> None:
    nanodet, fastestdet = (shared_data / "weights" / HEADS[head][0] for head in ("nanodet", "fastestdet"))
    assert "does not fit head 'fastestdet'" in refusal(nanodet, head="fastestdet")
    assert "does not fit head 'nanodet'" in refusal(fastestdet, head="nanodet")
    assert "does not fit head 'yolov8'" in refusal(nanodet)
    assert "[1, 300, 6]" in refusal(write(graph({"output0": [1, 300, 6]})))
    assert "yolov8, nanodet, fastestdet" in refusal(nanodet, head="yolo")
    assert "yolov8, nanodet, fastestdet" in refusal(nanodet, head=None)


def test_weights_outside_the_file_are_refused(
    tmp_path: Path, write: Callable[[onnx.ModelProto], Path]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    for location in ("weights.bin", "/etc/passwd", "../../../etc/passwd", str(secret)):
        model = graph(YOLO_64, names="{0: 'a', 1: 'b', 2: 'c'}")
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        assert "in other files" in refusal(write(model))
    # The same, hidden in the constant of a branch.
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    hidden.ClearField("float_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value=str(secret))
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=hidden)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )
    model = graph(YOLO_64, names="{0: 'a', 1: 'b', 2: 'c'}")
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["yes"], ["d"], then_branch=branch, else_branch=branch))
    assert "in other files" in refusal(write(model))


def test_damaged_and_unfit_graphs(tmp_path: Path, write: Callable[[onnx.ModelProto], Path]) -> None:
    path = tmp_path / "graph.onnx"
    whole = graph(YOLO_64).SerializeToString()
    for content in (b"", b"hello", whole[: len(whole) // 2], bytes(100), b"\x89PNG" * 50):
        path.write_bytes(content)
        assert "graph.onnx" in refusal(path)
    assert "must take one input" in refusal(write(graph(YOLO_64, channels=4)))
    assert "must take one input" in refusal(write(graph(YOLO_64, batch=8)))
    assert "32 to 4096" in refusal(write(graph(YOLO_64, side=8192)))
    unknown = graph(YOLO_64)
    unknown.graph.node[0].op_type = "Teleport"
    refusal(write(unknown))


def test_devices(shared_data: Path) -> None:
    path = shared_data / "weights" / "FastestDet.onnx"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert "device" in refusal(path, head="fastestdet", device="cuda")
    assert "known are" in refusal(path, head="fastestdet", device="tpu")
