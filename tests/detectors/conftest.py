"""Models that several detector tests share: real ones, and ones built from Ultralytics' own yaml files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detectors.classes import ClassMap
from detectors.weights import quiet_ultralytics
from tests.detectors.helpers import FLEET, Frame, lively_model, real_frames, save_checkpoint

quiet_ultralytics()
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fleet() -> ClassMap:
    return ClassMap.load(FLEET)


@pytest.fixture(scope="session")
def road_frames(shared_data: Path) -> list[Frame]:
    return real_frames(shared_data)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, road_frames: list[Frame]) -> Callable[..., Path]:
    """``built("yolo26n.yaml")``: a checkpoint of this architecture with random weights, made once."""
    folder = tmp_path_factory.mktemp("built")

    def build(architecture: str, classes: int = 6) -> Path:
        path = folder / f"{Path(architecture).stem}-{classes}.pt"
        if not path.exists():
            images = road_frames[: 1 if architecture == "rtdetr-l.yaml" else 2]  # a large model
            save_checkpoint(lively_model(architecture, classes, images), path)
        return path

    return build


@pytest.fixture(scope="session")
def exported_onnx(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, Path]:
    """A real checkpoint, and the graph that Ultralytics exports from it at 320 x 320."""
    from ultralytics import YOLO

    checkpoint = tmp_path_factory.mktemp("exported") / "yolov8n_weather.pt"
    shutil.copy(shared_data / "weights" / "yolov8n_weather.pt", checkpoint)
    return checkpoint, Path(
        YOLO(str(checkpoint)).export(format="onnx", imgsz=320, simplify=False, verbose=False)
    )
