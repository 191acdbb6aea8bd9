"""Frames, models and boxes for the detector tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.preprocess import Batch
from detectors.weights import quiet_ultralytics

Frame = NDArray[np.uint8]
# RT-DETR in small: strided convolutions, attention on the deepest map, a decoder of two layers over three maps.
TINY_RTDETR: dict[str, Any] = {
    "nc": 80,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [48, 3, 2]],
        [-1, 1, "Conv", [64, 3, 2]],
    ],
    "head": [[-1, 1, "AIFI", [128, 4]], [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 64, 100, 4, 4, 2, 128]]],
}
FLEET = Path(__file__).resolve().parents[2] / "configs" / "classes.toml"
# One frame each of day highway, city and dashcam footage; sizes 1280x720, 640x360, 854x480, 320x180.
CLIPS = (
    ("udacity_vd_test_video.mp4", 20),
    ("tmo324_seattlestreet1.mp4", 300),
    ("kartik_dashcam2.mp4", 200),
    ("hifza_dashcam.mp4", 30),
)


def video_frame(path: Path, index: int) -> Frame:
    """Decode one frame as RGB."""
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i == index:
                return frame.to_ndarray(format="rgb24")
    raise AssertionError(f"{path} has no frame {index}")


def real_frames(shared_data: Path) -> list[Frame]:
    """Frames of four clips, each of its own size, and three photos of odd sizes and of fog and rain."""
    photos = sorted((shared_data / "labelled" / "weather").rglob("*.jpg"))[::120][:3]
    frames = [video_frame(shared_data / "video" / name, index) for name, index in CLIPS]
    return frames + [np.ascontiguousarray(cv2.imread(str(photo))[..., ::-1]) for photo in photos]


def resized(frame: Frame, height: int, width: int) -> Frame:
    """Make a frame of another size out of a real one."""
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def lively_model(architecture: str, class_count: int, images: Sequence[Frame], seed: int = 0) -> nn.Module:
    """Build a model from its yaml (or ``rtdetr-tiny``) with random weights that yet gives varied scores and boxes.

    Batch norms take the statistics of the images (of one aspect, as those that the model will see), and the last class
    and box layers are scaled until their outputs spread as those of a trained model do.
    """
    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    torch.manual_seed(seed)
    kind = RTDETRDetectionModel if architecture.startswith("rtdetr") else DetectionModel
    config = copy.deepcopy(TINY_RTDETR) if architecture == "rtdetr-tiny" else architecture
    model = kind(config, nc=class_count, verbose=False)
    model.names = {i: f"class{i}" for i in range(class_count)}
    inputs = [Batch([image]).letterboxed((320, 320), 32, torch.device("cpu")).images for image in images]
    tensor = torch.cat(inputs).float() / 255
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.eval()
    with torch.inference_mode():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        model(tensor)
        model.eval()
        for layers, is_class, low, high in _last_layers(model):
            for layer in layers:
                _spread_outputs(model, tensor, layer, 0.97 if is_class else 0.03, low, high)
                bins = getattr(model.model[-1], "reg_max", 1)
                if (
                    not is_class and bins > 1
                ):  # near edges are likelier than far ones: boxes that fit into the frame
                    layer.bias.sub_(torch.arange(bins).repeat(4))
    return model


def _last_layers(model: nn.Module) -> list[tuple[list[Any], bool, float, float]]:
    """Groups of last layers, whether they give classes, and the range that the top of their outputs shall cover."""
    head = model.model[-1]
    if hasattr(head, "dec_score_head"):
        return [
            ([head.dec_score_head[-1]], True, -2.0, 0.0),
            ([head.dec_bbox_head[-1].layers[-1]], False, -1.0, 1.0),
        ]
    edges = (1.0, 6.0) if head.reg_max == 1 else (-3.0, 3.0)
    return [
        group
        for prefix in ("", "one2one_")
        if getattr(head, f"{prefix}cv3", None) is not None
        for group in (
            ([branch[-1] for branch in getattr(head, f"{prefix}cv3")], True, -2.0, 0.0),
            ([branch[-1] for branch in getattr(head, f"{prefix}cv2")], False, *edges),
        )
    ]


def _spread_outputs(
    model: nn.Module, images: torch.Tensor, layer: Any, quantile: float, low: float, high: float
) -> None:
    """Scale a layer so that in each channel this quantile over the images becomes ``low`` and the largest ``high``."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(images)
    handle.remove()
    outputs = seen[0].transpose(0, 1).flatten(1) if seen[0].ndim == 4 else seen[0].flatten(0, 1).T
    bottom = outputs.quantile(quantile, dim=1)
    scale = (high - low) / (outputs.amax(1) - bottom).clamp(min=1e-6)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.copy_((layer.bias - bottom) * scale + low)


def save_checkpoint(model: nn.Module, path: Path, image_size_px: int = 320, **entries: Any) -> Path:
    """Write a checkpoint as Ultralytics' trainer does."""
    torch.save({"model": model, "train_args": {"imgsz": image_size_px, "task": "detect"}, **entries}, path)
    return path


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """[n, 4], [m, 4] -> [n, m] intersection over union, written out."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(2)
    areas = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None]
    return overlap / np.maximum(areas - overlap, 1e-9)


def assert_same_boxes(
    got_boxes: NDArray[Any],
    got_scores: NDArray[Any],
    wanted_boxes: NDArray[Any],
    wanted_scores: NDArray[Any],
    min_iou: float = 0.99,
    max_score_difference: float = 0.01,
) -> None:
    """Each box has a partner of its own on the other side: same place, same score (a class vector or one score)."""
    assert len(got_boxes) == len(wanted_boxes)
    if not len(got_boxes):
        return
    from scipy.optimize import linear_sum_assignment

    overlap = box_iou(got_boxes, wanted_boxes)
    difference = np.abs(got_scores[:, None] - wanted_scores[None]).reshape(*overlap.shape, -1).max(2)
    rows, columns = linear_sum_assignment(difference - overlap)
    assert overlap[rows, columns].min() > min_iou
    assert difference[rows, columns].max() < max_score_difference
