"""Each kind of detector keeps to the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detectors
from detectors.classes import ClassMap
from tests.contracts.detector_contract import DetectorContract, Load
from tests.detectors.helpers import Frame, resized


class OnRoadFrames(DetectorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def frames(cls, road_frames: list[Frame]) -> list[Frame]:
        return [resized(frame, 270, 480) for frame in road_frames[:4]]


def loader(path: Path, classes: ClassMap | None, **fixed: Any) -> Load:
    return lambda **settings: detectors.load(path, classes, **{**fixed, **settings})


class TestYolo11(OnRoadFrames):
    edge_spread = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, fleet: ClassMap) -> Load:
        return loader(shared_data / "weights" / "yolo11n_weather.pt", fleet)


class TestYolov8(OnRoadFrames):
    edge_spread = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, fleet: ClassMap) -> Load:
        return loader(shared_data / "weights" / "yolov8n_weather.pt", fleet)


class TestYolo26(OnRoadFrames):
    edge_spread = False
    score_tolerance = 0.02  # random weights magnify the last bits

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, built: Callable[[str], Path]) -> Load:
        return loader(built("yolo26n.yaml"), None)


class TestRtDetr(OnRoadFrames):
    edge_spread = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, built: Callable[[str], Path]) -> Load:
        names = ("car", "truck", "bus", "person", "bicycle", "toaster")
        return loader(built("rtdetr-tiny"), ClassMap.of(["car", "person"], {}), class_names=names)


class TestNanodet(OnRoadFrames):
    edge_spread = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, fleet: ClassMap) -> Load:
        return loader(shared_data / "weights" / "nanodet_m.onnx", fleet, head="nanodet")


class TestFastestDet(OnRoadFrames):
    edge_spread = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, fleet: ClassMap) -> Load:
        return loader(shared_data / "weights" / "FastestDet.onnx", fleet, head="fastestdet")


class TestExportedYolov8(OnRoadFrames):
    edge_spread = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, exported_onnx: tuple[Path, Path], fleet: ClassMap) -> Load:
        return loader(exported_onnx[1], fleet, head="yolov8")
