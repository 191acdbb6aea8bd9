"""The proof of the loop on real images: out as a batch, back in two formats, measured; and planted errors found again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mining.footage.images import list_images
from mining.store import Store

ROOT = Path(__file__).resolve().parents[2]


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, cwd="/", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def arguments(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Every 16th image of weather/pool with its labels, and a folder that the tools share: detectors run once."""
    folder = tmp_path_factory.mktemp("labelled")
    weather = shared_data / "labelled/weather"
    for kind in ("images", "labels"):
        (folder / "set" / kind / "pool").mkdir(parents=True)
    shutil.copy(weather / "data.yaml", folder / "set")
    for image in sorted((weather / "images/pool").iterdir())[::16]:
        shutil.copy(image, folder / "set/images/pool")
        shutil.copy((weather / "labels/pool" / image.name).with_suffix(".txt"), folder / "set/labels/pool")
    detectors = [shared_data / "weights" / f"{name}_weather.pt" for name in ("yolov8n", "yolo11n")]
    return [
        "--labels", folder / "set/data.yaml", "--images", folder / "set/images/pool", "--detectors", *detectors,
        "--folder", folder / "work", "--json",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def measured(arguments: list[object]) -> dict[str, Any]:
    done = run("measure_yield_on_labels.py", *arguments, "--frames", 20)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_formats_bring_the_same_yields_and_every_box(measured: dict[str, Any]) -> None:
    assert measured["figures"]["differing_rows"] == {"value": 0, "bar": 0, "holds": True}
    assert measured["figures"]["share_of_true_boxes_standing"]["value"] == 1.0
    arms = measured["summary"]["arms"]
    assert (arms["mined"]["frames"], arms["random"]["frames"]) == (10, 10)
    assert arms["mined"]["errors"] > 0
    assert "only 10 frames" in measured["summary"]["lift_per_frame"]["note"]


def test_the_yields_are_those_of_the_label_files(measured: dict[str, Any], arguments: list[object]) -> None:
    """Objects of each frame, counted in the YOLO files themselves."""
    work, labels = (
        Path(str(arguments[arguments.index("--folder") + 1])),
        Path(str(arguments[1])).parent / "labels/pool",
    )
    store = Store(work / "store")
    names = list_images(str(work / "images/labelled")).names
    with store.connect() as con:
        rows = con.execute(
            "SELECT f.frame_index, y.objects FROM yields AS y JOIN frames AS f USING (frame_id)"
        ).fetchall()
    assert len(rows) == 20
    for index, objects in rows:
        text = (labels / names[index]).with_suffix(".txt").read_text()
        assert objects == len([line for line in text.splitlines() if line.strip()])
    (marker,) = store.markers("select").values()
    assert marker["primary"] == {
        "detector": "yolov8n_weather", "threshold": 0.25, "classes": ["car", "truck", "bus", "two_wheeler", "pedestrian"],
    }  # fmt: skip


def test_planted_errors_come_to_the_top(measured: dict[str, Any], arguments: list[object]) -> None:
    work = Path(str(arguments[arguments.index("--folder") + 1]))
    shutil.copytree(work, work.parent / "planted")
    done = run("measure_label_checks.py", *arguments, "--folder", work.parent / "planted", "--times", 1)
    assert done.returncode == 0, done.stderr
    kinds = json.loads(done.stdout.splitlines()[-1])["kinds"]
    assert set(kinds) == {"overlooked", "badly_placed", "swapped"}
    assert sum(kind["found"] for kind in kinds.values()) > 2 * sum(
        kind["found_blindly"] for kind in kinds.values()
    )


def test_what_does_not_go_together_is_one_line(arguments: list[object]) -> None:
    done = run("measure_yield_on_labels.py", *arguments, "--formats", "coco", "coco")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "measure_yield_on_labels: --formats takes two formats"
