"""The committed demo detectors: small, free of this machine's traces, and able to see what the renderer paints."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mining.demo.layout import build
from mining.demo.render import Renderer
from mining.demo.scripts import SCRIPTS

FOLDER = Path(__file__).resolve().parents[2] / "detectors" / "demo_weights"
NAMES = ("demo_yolov8.pt", "demo_yolo11.pt")
HELD_OUT_SEED = 9100


def test_together_they_are_small() -> None:
    assert sum((FOLDER / name).stat().st_size for name in NAMES) < 8_000_000


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_holds_no_trace_of_the_machine(name: str) -> None:
    with zipfile.ZipFile(FOLDER / name) as archive:
        content = b"".join(archive.read(member) for member in archive.namelist())
    for trace in (b"/work", b"/tmp", b"/root", b"/home", b"optimizer_state"):
        assert trace not in content


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_names_only_classes_of_networks(name: str) -> None:
    with zipfile.ZipFile(FOLDER / name) as archive:
        pickle = next(archive.read(member) for member in archive.namelist() if member.endswith("data.pkl"))
    words: list[str] = []
    wanted: set[str] = set()
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            wanted.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            wanted.add(".".join(words[-2:]))
        elif isinstance(argument, str):
            words.append(argument)
    allowed = ("torch.", "ultralytics.nn.", "collections.OrderedDict", "__builtin__.set", "builtins.set")
    assert wanted
    assert [word for word in wanted if not word.startswith(allowed)] == []


@pytest.mark.parametrize("name", NAMES)
def test_large_cars_by_day_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    ultralytics = pytest.importorskip("ultralytics")
    model = ultralytics.YOLO(str(FOLDER / name))
    assert set(model.names.values()) == {"car", "truck", "bus", "pedestrian", "cyclist", "animal"}
    paint = Renderer(build(SCRIPTS[0], HELD_OUT_SEED))
    found, planted = 0, 0
    for index in range(10, 460, 40):
        image, boxes = paint.frame(index)
        cars = [b for b in boxes if b.kind == "car" and b.visible_fraction > 0.7 and b.y2_px - b.y1_px > 22]
        seen = model.predict(image[..., ::-1], imgsz=320, conf=0.25, device="cpu", verbose=False)[0].boxes
        names = [model.names[int(c)] for c in seen.cls]
        for car in cars:
            box = np.array([car.x1_px, car.y1_px, car.x2_px, car.y2_px])
            planted += 1
            found += any(
                n == "car" and _iou(box, b) > 0.5 for n, b in zip(names, seen.xyxy.numpy(), strict=True)
            )
    assert planted >= 8
    assert found / planted >= 0.7, f"{found} of {planted}"


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
