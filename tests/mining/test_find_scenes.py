"""Scenes are runs of hard frames: checked against a plain walk over the frames."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mining import find_scenes
from mining.committee import Committee
from mining.config import Config
from mining.store import Store
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, commit, store_of


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
    monkeypatch.setattr(find_scenes, "committee_of", lambda _config: known)


def config(**scenes: Any) -> Config:
    return Config.model_validate_json(
        json.dumps({"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], "scenes": scenes})
    )


def scenes(store: Store) -> list[dict[str, Any]]:
    with store.connect() as con:
        return con.sql("SELECT * FROM scenes ORDER BY drive_id, start_ns").to_arrow_table().to_pylist()


def walk(hardness: list[float], least: float, gap_s: float, frames: int) -> list[tuple[int, int, int]]:
    """(first, last, how many hard) of each run in one drive of a frame a second."""
    runs: list[list[int]] = []
    for second, value in enumerate(hardness):
        if np.float32(value) >= np.float32(least):
            if runs and second - runs[-1][-1] <= gap_s:
                runs[-1].append(second)
            else:
                runs.append([second])
    return [(run[0], run[-1], len(run)) for run in runs if len(run) >= frames]


@pytest.mark.parametrize("settings", [(0.5, 1.0, 1), (0.7, 2.0, 2), (0.6, 3.5, 4)])
def test_runs_equal_a_plain_walk(tmp_path: Path, settings: tuple[float, float, int]) -> None:
    least, gap_s, frames = settings
    rng = np.random.default_rng(5)
    drives = {f"r{i}": rng.random(90).round(3).tolist() for i in range(3)}
    store = store_of(tmp_path, *(Drive(name, values, drive_id=name) for name, values in drives.items()))
    find_scenes.run(store, config(min_hardness=least, max_gap_s=gap_s, min_frames=frames), list(drives))
    found = scenes(store)
    for name, values in drives.items():
        mine = [row for row in found if row["drive_id"] == name]
        start = min(row["start_ns"] for row in found) if found else 0
        day_ns = start - start % (86_400 * 10**9)
        got = [
            ((r["start_ns"] - day_ns) // 10**9, (r["end_ns"] - day_ns) // 10**9, r["frames"]) for r in mine
        ]
        assert got == walk(values, least, gap_s, frames)
        for row in mine:
            seconds = range((row["start_ns"] - day_ns) // 10**9, (row["end_ns"] - day_ns) // 10**9 + 1)
            assert row["peak_hardness"] == pytest.approx(max(values[s] for s in seconds))
            assert values[int(row["peak_frame_id"][-7:])] == pytest.approx(row["peak_hardness"])


def test_cameras_do_not_mix_and_recordings_of_one_drive_do(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        Drive("r0", [0.9] * 5, drive_id="d"),
        Drive("r1", [0.9] * 5, drive_id="d", camera="rear"),
        Drive("r2", [0.9] * 5, drive_id="d", start_s=6),
    )
    find_scenes.run(store, config(max_gap_s=2.0), ["r0", "r1", "r2"])
    assert sorted((row["camera"], row["frames"]) for row in scenes(store)) == [("front", 10), ("rear", 5)]


def test_a_scene_tells_length_recordings_and_the_telemetry_of_its_hard_frames(tmp_path: Path) -> None:
    places = [(10.0, 59.9, -0.2), (4.0, 59.8, 0.1), (99.0, 1.0, 1.0), (7.0, 59.95, -0.3)]
    telemetry = [dict(zip(("speed_mps", "latitude_deg", "longitude_deg"), p, strict=True)) for p in places]
    store = store_of(
        tmp_path,
        Drive("r1", [0.9, 0.9, 0.1, 0.9], drive_id="d", telemetry=telemetry),  # the third frame is not hard
        Drive("r0", [0.9, 0.9], drive_id="d", start_s=4.5),  # without telemetry
        Drive("r2", [0.9, 0.9], drive_id="e"),
    )
    find_scenes.run(store, config(max_gap_s=2.0), ["r0", "r1", "r2"])
    first, other = scenes(store)
    assert first["duration_s"] == pytest.approx(5.5)
    assert (first["frames"], first["recording_ids"]) == (5, ["r0", "r1"])
    assert (first["speed_min_mps"], first["speed_max_mps"]) == (4.0, 10.0)
    assert (first["latitude_min_deg"], first["latitude_max_deg"]) == (59.8, 59.95)
    assert (first["longitude_min_deg"], first["longitude_max_deg"]) == (-0.3, 0.1)
    assert other["duration_s"] == pytest.approx(1.0)
    assert {other[name] for name in other if name.startswith(("speed", "latitude", "longitude"))} == {None}


def test_midnight_cuts_a_drive_of_two_files_but_not_a_recording(tmp_path: Path) -> None:
    late = 86_400 - 3
    whole = Drive("r0", [0.9] * 6, drive_id="whole", start_s=late)
    evening = Drive("r1", [0.9] * 3, drive_id="cut", start_s=late)
    morning = Drive("r2", [0.9] * 3, drive_id="cut", night=NIGHT + timedelta(days=1))
    find_scenes.run(store := store_of(tmp_path, whole, evening, morning), config(), ["r0", "r1", "r2"])
    assert [(row["drive_id"], str(row["night"]), row["frames"]) for row in scenes(store)] == [
        ("cut", "2026-03-14", 3),
        ("cut", "2026-03-15", 3),
        ("whole", "2026-03-14", 6),
    ]


def test_nothing_changed_means_nothing_to_do_and_new_scores_replace_the_scenes(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.9] * 5))
    assert find_scenes.run(store, config(), ["r0"]).done == 1
    assert find_scenes.run(store, config(), ["r0"]).unchanged == 1
    commit(store, Drive("r1", [0.95] * 5))
    assert find_scenes.run(store, config(), ["r0", "r1"]).done == 1
    assert len(scenes(store)) == 2
    assert len({row["scene_id"] for row in scenes(store)}) == 2


def test_a_night_without_hard_frames_has_no_scenes(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.1] * 5))
    report = find_scenes.run(store, config(), ["r0"])
    assert (report.done, report.counts) == (1, {"scenes": 0})
    assert scenes(store) == []
