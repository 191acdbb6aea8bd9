"""OpenVINO runs a YOLO in bfloat16: torch's numbers but for rounding, every time the same, and torch again where it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detectors
from detectors import compiled, ultralytics
from detectors.compiled import Compiled
from detectors.preprocess import Batch
from tests.contracts.detector_contract import assert_equal
from tests.detectors.helpers import Frame, resized

ARCHITECTURES = ["yolov8n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml", "yolov10n.yaml", "yolov8n-p6.yaml"]  # fmt: skip


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that has it; OpenVINO takes float32 where this one has not."""
    monkeypatch.setattr(ultralytics, "cpu_has", lambda precision: precision == "bf16")


@pytest.fixture(scope="module")
def frames(road_frames: list[Frame]) -> list[Frame]:
    return [resized(frame, 90, 160) for frame in (*road_frames, *road_frames)][:7]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the detectors; jobs of other tests may still keep their leases."""
    return [record.message for record in caplog.records if record.name == "mining.detectors"]


def network(detector: Any) -> Compiled:
    assert isinstance(detector._compiled, Compiled)
    return detector._compiled


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_numbers_are_those_of_torch(
    built: Callable[..., Path], frames: list[Frame], architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    detector: Any = detectors.load(built(architecture), precision="bf16", device="cpu", image_size_px=192)
    images = detector._prepare(Batch(frames)).images
    for image in images[:2].split(1):
        found, wanted = network(detector)(image), detector._tensors(image.float() / 255)
        assert [f.shape for f in found] == [w.shape for w in wanted]
        for f, w in zip(found, wanted, strict=True):
            assert f.dtype == torch.float32
            assert (f - w).norm() < 0.1 * w.norm()
    assert not said(caplog)


@pytest.mark.usefixtures("bf16")
def test_as_frame_by_frame(shared_data: Path, frames: list[Frame]) -> None:
    """Also where several threads begin with two sizes at once, and in another detector of the same file."""
    path = shared_data / "weights" / "yolo11n_weather.pt"
    detector, other = (detectors.load(path, precision="bf16", device="cpu") for _ in range(2))
    small = [resized(frame, 64, 160) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        batches = [frames, small, frames[::-1], small]
        one, two, three, four = pool.map(lambda batch: detector.predict(Batch(batch)), batches)
    assert len(one.frame_index) > 5
    assert_equal(two, four)
    assert_equal(one, other.predict(Batch(frames)))
    alone = [other.predict(Batch([frame])) for frame in frames]
    assert_equal(one, type(one).joined(alone))
    assert_equal(three, type(one).joined(alone[::-1]))


@pytest.mark.usefixtures("bf16")
def test_what_it_returned_stays(shared_data: Path, frames: list[Frame]) -> None:
    """Results are not written over by the next frame's."""
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision="bf16", device="cpu")  # fmt: skip
    images = detector._prepare(Batch(frames)).images
    first = network(detector)(images[:1])
    kept = [part.clone() for part in first]
    network(detector)(images[3:4])
    assert all(map(torch.equal, first, kept))


@pytest.mark.usefixtures("bf16")
def test_wrong_numbers_are_not_used(
    shared_data: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OneDNN's graphs for TorchScript gave numbers of yolov8n that were off by half; nobody would have known."""

    def wrong(self: Any, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        edges, logits, deepest = real(self, image)
        return edges, logits * 1.5, deepest

    real = compiled._OfOneSize.__call__
    monkeypatch.setattr(compiled._OfOneSize, "__call__", wrong)
    path = shared_data / "weights" / "yolov8n_weather.pt"
    plain, detector = (detectors.load(path, precision=p, device="cpu") for p in ("fp32", "bf16"))
    found, wanted = detector.predict(Batch(frames)), plain.predict(Batch(frames))
    assert_close(found, wanted)
    [message] = said(caplog)
    assert "yolov8n_weather: OpenVINO's numbers are off by 0.00" in message
    assert ", 0.5, 0.0" in message
    assert "torch goes on in fp32" in message


@pytest.mark.usefixtures("bf16")
def test_neither_are_numbers_that_are_none(
    shared_data: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(self: Any, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        edges, logits, deepest = real(self, image)
        logits[0, 0, 0] = torch.nan
        return edges, logits, deepest

    real = compiled._OfOneSize.__call__
    monkeypatch.setattr(compiled._OfOneSize, "__call__", wrong)
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision="bf16", device="cpu")  # fmt: skip
    assert not detector.predict(Batch(frames)).errors
    assert "nan" in said(caplog)[0]


@pytest.mark.usefixtures("bf16")
def test_torch_runs_sizes_that_it_refuses(
    shared_data: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Any, image: torch.Tensor) -> None:
        raise RuntimeError("Check failed at\n src/plugins/intel_cpu")

    monkeypatch.setattr(Compiled, "_compile", refuse)
    path = shared_data / "weights" / "yolov8n_weather.pt"
    plain, detector = (detectors.load(path, precision=p, device="cpu") for p in ("fp32", "bf16"))
    assert_close(detector.predict(Batch(frames)), plain.predict(Batch(frames)))
    [message] = said(caplog)  # once, not for every frame
    assert "OpenVINO cannot run it (Check failed at src/plugins/intel_cpu) at 320 x 192 pixels" in message


def assert_close(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found.frame_index, wanted.frame_index)
    np.testing.assert_allclose(found.boxes_px, wanted.boxes_px, atol=0.05)
    np.testing.assert_allclose(found.class_scores, wanted.class_scores, atol=1e-4)


@pytest.mark.usefixtures("bf16")
def test_torch_runs_what_it_cannot(
    shared_data: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No conversion rule found for operations: aten::new")

    monkeypatch.setattr(Compiled, "__init__", refuse)
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision="bf16", device="cpu")  # fmt: skip
    assert "OpenVINO cannot run it, torch does: No conversion rule" in said(caplog)[0]
    assert {p.dtype for p in detector.model.parameters()} == {torch.bfloat16}
    assert len(detector.predict(Batch(frames)).frame_index)


@pytest.mark.usefixtures("bf16")
def test_torch_runs_all_where_it_is_not_there(
    shared_data: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "detectors.compiled", None)
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision="bf16", device="cpu")  # fmt: skip
    assert "OpenVINO cannot run it, torch does: import of detectors.compiled halted" in said(caplog)[0]
    assert len(detector.predict(Batch(frames)).frame_index)


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_formats_are_torchs(shared_data: Path, precision: Any) -> None:
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision=precision, device="cpu")  # fmt: skip
    assert detector._compiled is None


def test_sizes_that_are_long_past_are_let_go(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, bf16: None
) -> None:
    monkeypatch.setattr(compiled, "_MOST_SIZES", 2)
    detector: Any = detectors.load(shared_data / "weights" / "yolov8n_weather.pt", precision="bf16", device="cpu", image_size_px=160)  # fmt: skip
    for height in (32, 64, 96, 96, 32):
        detector.predict(Batch([np.zeros((height, 160, 3), np.uint8)]))
    assert list(network(detector)._of_size) == [(96, 160), (32, 160)]


def test_nobody_is_told_that_it_runs(tmp_path: Path) -> None:
    """OpenVINO's own Python package reports to its makers as soon as it is imported."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    code = (
        "import sys, detectors.compiled, openvino.tools.ovc; print(sys.modules.get('openvino_telemetry', 0))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["None"]
    assert not list(tmp_path.iterdir())
