"""The demo's files: the same seed gives the same bytes, and what lies beside a video agrees with it."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, date
from math import cos, hypot, radians
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from mining.demo import make_drives
from mining.demo.drives import make_drive
from mining.demo.scripts import SCRIPTS
from mining.types import UsageError

SECONDS = 1.2


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "new"
    steps: list[int] = []
    made = make_drives(folder, seed=5, drives=2, seconds=SECONDS, progress=steps.append)
    assert steps == [1, 1]
    assert made == [folder / f"{script.stem}.mp4" for script in SCRIPTS[:2]]
    return folder


def test_same_seed_gives_the_same_bytes(drives: Path, tmp_path: Path) -> None:
    make_drives(tmp_path / "again", seed=5, drives=2, seconds=SECONDS)
    names = sorted(path.name for path in drives.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (drives / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_another_seed_gives_another_drive(drives: Path, tmp_path: Path) -> None:
    other = make_drive(tmp_path, SCRIPTS[1], seed=6, seconds=0.2)
    ours, theirs = decode(drives / other.name)[0], decode(other)[0]
    assert np.abs(ours.astype(int) - theirs).mean() > 1.0


def test_each_drive_has_exactly_its_four_files(drives: Path) -> None:
    endings = (".csv", ".mp4", ".toml", ".truth.parquet")
    assert sorted(p.name for p in drives.iterdir()) == sorted(
        s.stem + e for s in SCRIPTS[:2] for e in endings
    )


@pytest.mark.parametrize("script", SCRIPTS[:2], ids=lambda script: script.stem)
def test_video_sidecar_telemetry_and_truth_agree(drives: Path, script) -> None:
    video = drives / f"{script.stem}.mp4"
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 640, 384)
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert len(times) == 12
    assert np.allclose(np.diff(times), 0.1)

    sidecar = tomllib.loads(video.with_suffix(".toml").read_text())
    assert sidecar["drive_id"] == script.drive_id
    assert sidecar["vehicle_id"] == script.vehicle_id
    assert sidecar["camera"] == script.camera
    assert sidecar["started_at"].astimezone(UTC).date() == date(2026, 3, 14)
    assert sidecar["started_at"].tzinfo is not None
    assert sidecar["tags"] == {
        "weather": script.weather,
        "time_of_day": script.time_of_day,
        "city": script.city,
        "road": script.road,
    }

    with video.with_suffix(".csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert list(rows[0]) == ["time_s", "speed_mps", "latitude_deg", "longitude_deg", "heading_deg"]
    assert np.allclose([row["time_s"] for row in rows], np.array(times) - times[0])
    # The way between two positions is the speed times the time between them.
    for a, b in itertools.pairwise(rows):
        north = (b["latitude_deg"] - a["latitude_deg"]) * 111_320
        east = (b["longitude_deg"] - a["longitude_deg"]) * 111_320 * cos(radians(a["latitude_deg"]))
        assert hypot(north, east) == pytest.approx(a["speed_mps"] * 0.1, abs=0.03)

    truth = pq.read_table(drives / f"{script.stem}.truth.parquet").to_pylist()
    for row in truth:
        assert 0 <= row["frame_index"] < len(times)
        assert 0 <= row["x1_px"] < row["x2_px"] <= 640
        assert 0 <= row["y1_px"] < row["y2_px"] <= 384
        assert 0 < row["visible_fraction"] <= 1
        assert (row["event"] is None) == (row["event_id"] is None)


def test_cameras_of_one_drive_share_its_time() -> None:
    front, rear = (s for s in SCRIPTS if s.drive_id == "v1-seattle-1830")
    assert (front.camera, rear.camera) == ("front", "rear")
    assert (front.started_at, front.vehicle_id) == (rear.started_at, rear.vehicle_id)


def test_frames_at_the_red_light_are_identical_once_decoded(tmp_path: Path) -> None:
    # The car stops at 1 s, others cross until 7 s, then nothing moves until 13 s.
    script = replace(SCRIPTS[0], red_light_s=1.0, seconds=16.0)
    frames = decode(make_drive(tmp_path, script, seed=5, seconds=9.0))
    changes = [np.abs(a.astype(int) - b).max() for a, b in itertools.pairwise(frames)]
    assert min(changes[:60]) > 20, "while others cross, every frame is new"
    still = changes[70:89]
    assert sum(change == 0 for change in still) >= 0.8 * len(still), still


@pytest.mark.parametrize(
    ("more", "what"), [({"drives": 0}, "drives is 0"), ({"seconds": 0.0}, "seconds is 0")]
)
def test_impossible_sizes_are_refused_in_one_line(tmp_path: Path, more: dict, what: str) -> None:
    with pytest.raises(UsageError, match=what) as refused:
        make_drives(tmp_path, **more)
    assert "\n" not in str(refused.value)


def test_importing_the_demo_is_light() -> None:
    code = "import sys, mining.demo; print({'torch', 'ultralytics', 'duckdb', 'scipy'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )
