"""Every question of docs/cookbook.md runs and has an answer; the page holds the queries as they are now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import make_cookbook
import numpy as np
import pytest
from make_cookbook import QUESTIONS, Question

from mining import ask
from mining.store import Store
from mining.types import frame_id
from tests.mining.synthetic import COMMITTEE, NIGHT, table

FRAMES = 60
CLASSES = ("", "car", "car,pedestrian", "animal")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two drives, one by night and one at dusk, with something in every table."""
    store = Store(tmp_path_factory.mktemp("cookbook") / "store", create=True)
    rng = np.random.default_rng(5)
    picked: list[dict[str, Any]] = []
    for name, sun_deg, weather in (("r1", -20.0, "rain"), ("r2", -3.0, "clear")):
        start = datetime.combine(NIGHT, datetime.min.time(), UTC) + timedelta(hours=20)
        ids = [frame_id(name, i) for i in range(FRAMES)]
        drive = {"recording_id": name, "drive_id": f"drive-{name}", "camera": "front"}
        key = {"recording_id": name, "committee_id": COMMITTEE, "status": "ok"}
        recording = {
            **drive, "uri": f"/{name}.mp4", "kind": "video", "started_at": start, "frame_count": 5 * FRAMES,
            "tags": [("weather", weather)], "status": "ok",
        }  # fmt: skip
        frames, observed, scores, boxes, tracks = [], [], [], [], []
        for i, frame in enumerate(ids):
            hardness = float(rng.random())
            frames.append(
                {**drive, "frame_id": frame, "frame_index": i, "pts_ns": i * 10**9, "speed_mps": 0.6 * i,
                 "captured_at": start + timedelta(seconds=i), "latitude_deg": 53.553 + i * 2e-4, "longitude_deg": 9.993}
            )  # fmt: skip
            observed.append(
                {**key, "frame_id": frame, "luma_mean": 40.0, "embedding": rng.normal(size=8).tolist()}
            )
            scores.append(
                {**key, "frame_id": frame, "drive_id": drive["drive_id"], "classes": CLASSES[i % 4], "hardness": hardness,
                 "sun_elevation_deg": sun_deg, "is_night": sun_deg < -6, "presence_sum": float(rng.random()),
                 "entropy_mean_pct": hardness, "box_count": 2.0}
            )  # fmt: skip
            for detector, kind, match in (("a", "pedestrian", 0), ("a", "car", 1), ("b", "truck", 1)):
                boxes.append(
                    {"frame_id": frame, "committee_id": COMMITTEE, "detector": detector, "box_index": match, "class": kind,
                     "confidence": 0.6, "x1_px": 0.0, "y1_px": 0.0, "x2_px": 9.0, "y2_px": 20.0, "match_id": match}
                )  # fmt: skip
                tracks.append(
                    {**key, "frame_id": frame, "detector": detector, "box_index": match, "track_id": match}
                )
        notes = {"recording_id": name, "committee_id": COMMITTEE, "content": name}
        for stage, rows in {
            "index": {"recordings": [recording], "frames": frames},
            "detect": {"observations": observed, "detections": boxes},
            "score": {"scores": scores, "tracks": tracks},
        }.items():
            tables = {of: table(of, content) for of, content in rows.items()}
            store.commit(stage, NIGHT, name, tables, digest="x", **notes)
        picked += [
            {
                "batch_id": "b",
                "frame_id": frame,
                "committee_id": COMMITTEE,
                "rank": i + 1,
                "arm": arm,
                "reason": "hard",
            }
            for i, (frame, arm) in enumerate(zip(ids[:5], ["mined"] * 4 + ["random"], strict=True))
        ]
    start_ns = int(start.timestamp() * 1e9)
    scene = {"scene_id": "s", "committee_id": COMMITTEE, "drive_id": "drive-r1", "camera": "front", "frames": 3,
             "start_ns": start_ns, "end_ns": start_ns + 2_500_000_000, "peak_hardness": 0.9, "classes": ["car"]}  # fmt: skip
    store.commit("scenes", NIGHT, COMMITTEE, {"scenes": table("scenes", [scene])}, digest="x")
    store.commit(
        "select",
        NIGHT,
        "b",
        {"slices": table("slices", []), "selections": table("selections", picked)},
        digest="x",
    )
    return store


def answer(store: Store, question: Question) -> list[dict[str, Any]]:
    return ask.query([store.root], question.sql, parameters=question.parameters).to_pylist()


@pytest.mark.parametrize("question", QUESTIONS, ids=[q.asked for q in QUESTIONS])
def test_every_question_has_an_answer(store: Store, question: Question) -> None:
    rows = answer(store, question)
    assert rows
    for column in rows[0]:
        assert any(row[column] is not None for row in rows), column


def test_the_page_holds_twenty_questions_as_they_are_now() -> None:
    text = make_cookbook.PAGE.read_text()
    assert len(QUESTIONS) == 20
    assert re.findall(r"```sql\n(.*?)\n```\n", text, re.DOTALL) == [q.sql.strip() for q in QUESTIONS]
    assert re.findall(r"^## \d+\. (.*)$", text, re.MULTILINE) == [q.asked for q in QUESTIONS]


def test_answers_say_what_the_tables_hold(store: Store) -> None:
    """A few answers worked out by hand from how the store was filled."""
    by_words = {q.asked: answer(store, q) for q in QUESTIONS}

    def of(words: str) -> list[dict[str, Any]]:
        return next(rows for asked, rows in by_words.items() if words in asked)

    hardest = of("2,000 hardest night frames")
    assert len(hardest) == 5
    assert {row["drive_id"] for row in hardest} == {"drive-r1"}  # r2 drove at dusk
    assert [row["hardness"] for row in hardest] == sorted((row["hardness"] for row in hardest), reverse=True)
    assert of("only one detector")[0]["seen_by"] == "a"
    assert of("call differently") == [{"one_says": "car", "another_says": "truck", "objects": 2 * FRAMES}]
    assert {row["class"]: row["frames"] for row in of("each class seen")} == {
        "car": 60,
        "pedestrian": 30,
        "animal": 30,
    }
    # 500 m at 22.24 m a frame: frames 0 to 22.
    assert [(row["frames"], row["nearest_m"]) for row in of("within 500 m")] == [(23, 0), (23, 0)]
    assert {row["arm"]: row["frames"] for row in of("drawn at random")} == {
        "mined": 8,
        "random": 2,
        "not chosen": 110,
    }
    assert {row["drive_id"] for row in of("dusk")} == {"drive-r2"}
    assert {(row["objects"], row["longest"]) for row in of("hold on")} == {(4, FRAMES), (2, FRAMES)}


def test_the_page_shows_a_few_rows_and_says_how_many_there_are(store: Store) -> None:
    text = make_cookbook.page(store.root)
    assert "10 rows." in text
    assert "NULL" not in make_cookbook.as_markdown(ask.query([store.root], "SELECT 'a|b' AS x"))
    assert "a\\|b" in make_cookbook.as_markdown(ask.query([store.root], "SELECT 'a|b' AS x"))


def test_the_question_of_the_bench_is_in_the_cookbook() -> None:
    import bench_sql

    assert bench_sql.HARDEST.format(view="scores").strip() in {q.sql.strip() for q in QUESTIONS}


def test_the_bench_runs_small_and_lists_only_the_nights_asked_for(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    tool = Path(__file__).resolve().parents[2] / "tools" / "bench_sql.py"
    command = [
        sys.executable,
        str(tool),
        str(tmp_path),
        "--rows",
        "30000",
        "--nights",
        "9",
        "--shard-rows",
        "2000",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["only_nights_asked"]
    assert result["runs"]["a week, FROM scores"]["folders_listed"] == 7 * 6
    assert result["runs"]["all nights, FROM scores"]["folders_listed"] == 9 * 6
    rows = result["runs"]["a week, FROM scores"]["rows"]
    assert 0 < rows == result["runs"]["a week, FROM mined"]["rows"]
