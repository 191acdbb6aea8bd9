"""The tool on real images: its signals are those that the pipeline writes, and it says what is wrong in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mining import config, pipeline
from mining.committee import committee_of
from mining.schemas import SIGNALS
from mining.score_recording import Learned
from mining.store import Store

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
store = "store"
[footage]
paths = ["set/images/val"]
[[detector]]
weights = "{weights}/yolov8n_weather.pt"
[[detector]]
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
threshold = 0.4
floor = 0.13
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/measure_signals.py"), *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, cwd="/", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tenth image of weather/val, with its labels."""
    folder = tmp_path_factory.mktemp("signals")
    weather = shared_data / "labelled/weather"
    for kind in ("images", "labels"):
        (folder / "set" / kind / "val").mkdir(parents=True)
    shutil.copy(weather / "data.yaml", folder / "set")
    for image in sorted((weather / "images/val").iterdir())[::10]:
        shutil.copy(image, folder / "set/images/val")
        shutil.copy((weather / "labels/val" / image.name).with_suffix(".txt"), folder / "set/labels/val")
    return folder


@pytest.fixture(scope="module")
def arguments(folder: Path, shared_data: Path) -> list[object]:
    weights = shared_data / "weights"
    return [
        "--labels", folder / "set", "--split", "val", "--resamples", 20, "--cache", folder / "cache", "--detectors",
        f"{weights}/yolov8n_weather.pt", f"{weights}/nanodet_m.onnx,head=nanodet,threshold=0.4,floor=0.13",
    ]  # fmt: skip


def test_signals_and_hardness_are_those_that_the_pipeline_writes(
    folder: Path, shared_data: Path, arguments
) -> None:
    path = folder / "night.toml"
    path.write_text(CONFIG.format(weights=shared_data / "weights"))
    loaded = config.load(path)
    for stage in ("index", "detect", "score"):
        pipeline.run_stage(stage, loaded)
    names = [name for name, _ in SIGNALS]
    with Store(loaded.store_path).connect() as con:
        columns = ", ".join(f"scores.{name}" for name in [*names, "hardness"])
        stored = con.execute(
            f"SELECT {columns} FROM scores JOIN frames USING (frame_id) ORDER BY frame_index"
        ).fetchnumpy()

    sys.path.insert(0, str(ROOT))
    from detectors import ClassMap
    from mining.score_frames import blend, reference_of
    from tools import measure_signals as tool

    classes = ClassMap.load(config.shipped("classes.toml"))
    specs = loaded.resolved_detectors
    cache = tool.Cache(folder / "cache", specs, classes)
    images = sorted((folder / "set/images/val").iterdir())
    pictures = tool.Pictures.of("labelled", images, is_video=False)
    members = [cache.detections(pictures, i) for i in range(2)]
    signals = tool._signals(members, specs, cache.seen(), None, None)
    reference = reference_of(signals)
    signals = reference.complete(signals)
    for name in names:
        got = np.ma.filled(stored[name].astype(np.float64), np.nan)
        np.testing.assert_allclose(signals[name], got, rtol=2e-3, atol=2e-4, err_msg=name)
    weights = loaded.score.hardness
    hardness = blend({name: reference.percentile(name, signals[name]) for name in weights}, weights)
    np.testing.assert_allclose(hardness, np.ma.filled(stored["hardness"], np.nan), atol=0.02)
    assert np.ptp(hardness) > 0.3


def test_the_report_ends_in_one_line_of_json(folder: Path, shared_data: Path, arguments) -> None:
    clip = shared_data / "video/udacity_vd_test_video.mp4"
    done = run(*arguments, "--mix", clip, "--write-calibration", folder / "calibration.json", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["images"] == 26
    assert said["objects"] >= said["missed"] + said["misplaced"]
    assert said["figures"]["error_lift"]["bar"] == 3.4
    assert said["holds"] == all(f["holds"] for f in said["figures"].values() if f["bar"] is not None)
    assert said["signals"]["oracle (errors)"]["with_errors"] == pytest.approx(1)
    assert said["signals"]["oracle (errors per object)"]["auroc"] == pytest.approx(1)
    oracle = said["signals"]["oracle (errors)"]["error_lift"]["value"]
    assert all(s["error_lift"]["value"] <= oracle + 1e-9 for s in said["signals"].values())
    assert 0 <= said["figures"]["top_tenth_share_udacity_vd_test_video"]["value"] <= 1
    calibrated = run(
        *arguments, "--calibration", folder / "calibration.json", "--primary", "nanodet_m", "--json"
    )
    assert calibrated.returncode == 0, calibrated.stderr
    again = json.loads(calibrated.stdout.splitlines()[-1])
    assert again["primary"] == "nanodet_m"
    assert again["figures"]["error_lift"]["bar"] == 3.0


def test_a_calibration_from_labels_with_other_names_serves_a_config(
    folder: Path, shared_data: Path, arguments
) -> None:
    """--map names labels; it must not make other detectors of the members."""
    written = folder / "mapped.json"
    done = run(*arguments, "--map", "Vehiculo=car", "--write-calibration", written)
    assert done.returncode == 0, done.stderr
    path = folder / "calibrated.toml"
    path.write_text(CONFIG.format(weights=shared_data / "weights"))
    loaded = config.load(path, (f"score.calibration='{written}'",))
    learned = Learned.of(loaded, committee_of(loaded))
    assert learned.calibrations is not None
    assert len(learned.calibrations) == 2


def test_a_copy_in_the_mirror_can_be_a_member(arguments) -> None:
    weights = arguments[-2]
    done = run(*arguments[:-1], f"{weights},name=mirror,flip=true,scale=0.9", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["committee"] == ["yolov8n_weather", "mirror"]
    assert said["signals"]["presence_sum"]["with_errors"] > 0.3


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--primary", "yolo"], "--primary yolo: no such detector; there are yolov8n_weather, nanodet_m"),
        (["--hardness", "surprise=1"], "need a weight above 0 and one of box_count"),
        (["--hardness", "entropy_max"], "write it as SIGNAL=WEIGHT"),
        (["--map", "Auto"], "write it as NAME=FLEET_CLASS"),
        (["--mix", "/nowhere.mp4"], "no such video"),
        (["--calibration", "/nowhere.json"], "cannot be read"),
        (["--split", "test"], "has no split 'test'"),
        (["--detectors", "a.pt"], "2 to 8 detectors, got 1"),
        (["--detectors", "a.pt", "b.pt,colour=red"], "is no setting=value"),
        (["--detectors", "a.pt", "b/a.pt"], "two detectors have one name"),
        (["--detectors", "/nowhere/a.pt", "/nowhere/b.pt"], "/nowhere/a.pt"),
        (["--detectors", "a.pt", "b.pt,flip=yes"], "flip needs true or false, got 'yes'"),
        (["--mix", ROOT / "README.md"], "README.md: "),
        (["--write-calibration", "/nowhere/c.json"], "/nowhere/c.json: No such file or directory"),
        (["--hardness", "flicker=1"], "flicker cannot be computed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, extra, message) -> None:
    done = run(*arguments, *extra)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
