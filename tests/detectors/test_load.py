"""Finding, verifying and loading weights; every refusal is one line that says how to mend it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import detectors
from detectors import weights
from detectors.types import DetectorError, DetectorSpec


def refusal(name: str | Path, **settings: Any) -> str:
    with pytest.raises(DetectorError) as caught:
        detectors.load(name, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_fresh_python(code: str, home: Path) -> str:
    """Run code in a new interpreter whose home and environment hold nothing of Ultralytics."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("YOLO_") and "PYTEST" not in k}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    code = "import sys, detectors; print([m for m in ('torch', 'ultralytics', 'onnx', 'cv2') if m in sys.modules])"
    assert in_fresh_python(code, tmp_path).strip() == "[]"


def test_loading_is_quiet_and_leaves_no_trace(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    code = f"""
import detectors
detectors.load({str(path)!r})
from ultralytics.utils import ONLINE, SETTINGS_FILE
from ultralytics.utils.events import events
assert not ONLINE and not events.enabled
print(SETTINGS_FILE.parent.parent)
"""
    folder = in_fresh_python(code, tmp_path).strip()
    assert "\n" not in folder  # nothing else was printed
    assert not Path(folder).exists()
    assert not (tmp_path / ".config").exists()


def test_a_path_may_be_relative_or_below_home(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(shared_data / "weights" / "yolov8n_weather.pt", tmp_path / "my.model.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert detectors.load("my.model.pt").name == "my.model"
    assert detectors.load(Path("~/my.model.pt")).name == "my.model"
    assert detectors.load(DetectorSpec("./my.model.pt", name="mine")).name == "mine"


def test_digest_is_verified(shared_data: Path) -> None:
    path = shared_data / "weights" / "yolov8n_weather.pt"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    detectors.load(path, sha256=right.upper())
    wrong = "0" * 64
    message = refusal(path, sha256=wrong)
    assert right in message
    assert wrong in message


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "mine.pt") in refusal("mine.pt")
    assert "no official" in refusal("mine.onnx", head="yolov8")
    (tmp_path / "folder.pt").mkdir()
    assert "is a folder" in refusal("folder.pt")
    assert "known are .pt, .onnx" in refusal("model.engine")
    assert "known are .pt, .onnx" in refusal("model")
    assert "no demo detector 'x.pt'" in refusal("demo:x.pt")
    assert "no demo detector" in refusal("demo:../types.py.pt")


def test_an_official_name_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    monkeypatch.chdir(tmp_path)

    def no_network(*_args: Any, **_kwargs: Any) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "head", no_network)
    message = refusal("yolo11n.pt")
    assert "no network" in message
    assert "github.com/ultralytics/assets/releases/download/v8.4.0/yolo11n.pt" in message
    assert str(tmp_path / "yolo11n.pt") in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["yolov8n.pt", "yolo12s.pt", "yolo26n.pt", "rtdetr-l.pt"])
def test_an_official_name_is_fetched_by_ultralytics(
    name: str, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    import ultralytics.utils.downloads as downloads

    monkeypatch.chdir(tmp_path)
    fetched: list[str] = []

    def fetch(url: str, file: Path, **_kwargs: Any) -> None:
        fetched.append(url)
        shutil.copy(shared_data / "weights" / "yolov8n_weather.pt", file)

    monkeypatch.setattr(requests, "head", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(downloads, "safe_download", fetch)
    assert detectors.load(name).name == Path(name).stem
    assert detectors.load(name).name == Path(name).stem  # found this time
    assert fetched == [f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{name}"]


def test_settings() -> None:
    assert "did you mean 'floor'" in refusal("x.pt", flor=0.1)
    assert "need 0 < floor" in refusal("x.pt", floor=0.2)
    with pytest.raises(TypeError, match="no further settings"):
        detectors.load(DetectorSpec("x.pt"), floor=0.05)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"device": "cuda"}, True),
        ({"name": "x"}, True),
        ({"threshold": 0.5}, True),
        ({"weights": "elsewhere.pt"}, True),
        ({"floor": 0.01}, False),
        ({"suppress_iou": 0.5}, False),
        ({"class_agnostic": False}, False),
        ({"max_boxes": 10}, False),
        ({"image_size_px": 320}, False),
        ({"head": "nanodet"}, False),
        ({"class_names": ("a",)}, False),
        ({"precision": "auto"}, True),  # whatever the machine makes of it
        ({"precision": "fp32"}, False),
        ({"precision": "bf16"}, False),
    ],
)
def test_digest_holds_what_changes_predictions(change: dict[str, Any], same: bool) -> None:
    def digest(spec: DetectorSpec, sha: str = "s", classes: str = "c") -> str:
        return weights.spec_digest(spec, sha, classes)

    plain = digest(DetectorSpec("w.pt"))
    changed = DetectorSpec(**{"weights": "w.pt", "floor": 0.05, "suppress_iou": 0.7, **change})
    assert (digest(changed) == plain) == same
    assert digest(DetectorSpec("w.pt"), sha="t") != plain
    assert digest(DetectorSpec("w.pt"), classes="d") != plain


def test_digests_of_stores_that_exist_stay() -> None:
    """Of the version before ``precision``: another digest would have every night looked at again."""
    digest = weights.spec_digest(DetectorSpec("w.pt"), "s", "c")
    assert digest == "d0b709e5ee9ad3c508ed66cf97e5536b3719b8c0cce46fd9fd3eaf87181d6c71"


def test_a_detector_that_sees_nothing_of_the_fleet(shared_data: Path) -> None:
    classes = detectors.ClassMap.of(["boat"], {"persons": "boat"})
    with pytest.raises(DetectorError, match=r"none of the model's classes .*'person' looks like 'persons'"):
        detectors.load(shared_data / "weights" / "yolov8n_weather.pt", classes)
