"""A batch to review, of image folders on the disk: what a committee saw in them is made up, all else is done by the stages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mining import config as configs
from mining import pipeline
from mining.committee import committee_of
from mining.config import Config
from mining.review.session import Session, batch_to_review
from mining.store import Store
from tests.mining.synthetic import DIMENSIONS, table

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
START = datetime(2026, 3, 14, 20, 0, tzinfo=UTC)
CONFIG = """
store = "store"
[footage]
paths = ["drives"]
every = 1
image_rate_hz = 1
[[detector]]
name = "a"
weights = "demo:demo_yolo11.pt"
[[detector]]
name = "b"
weights = "demo:demo_yolov8.pt"
[score]
hardness = { entropy_max = 1.0 }
[select]
budget = 20
min_gap_s = 3.0
random_share = 0.2
strategy = "top_k"
[export]
vendors = ["coco", "jsonl"]
"""


def make(
    folder: Path, *, drives: tuple[str, ...] = ("d0", "d1", "d2"), seconds: int = SECONDS, more: str = ""
) -> Config:
    """Make drives of one frame a second, scored at random, each frame with one car that both members see."""
    rng = np.random.default_rng(11)
    for number, drive in enumerate(drives):
        images = folder / "drives" / f"r{number}"
        images.mkdir(parents=True)
        for i in range(seconds):
            picture = rng.integers(0, 256, (6, 8, 3), np.uint8)
            cv2.imwrite(
                str(images / f"{i:04d}.png"), cv2.resize(picture, (64, 48), interpolation=cv2.INTER_NEAREST)
            )
        started = (START + timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = drive.replace("\\", "\\\\").replace('"', '\\"')
        (folder / "drives" / f"r{number}.toml").write_text(f'drive_id = "{name}"\nstarted_at = {started}\n')
    file = folder / "night.toml"
    file.write_text(CONFIG + more)
    conf = configs.load(file)
    pipeline.run_stage("index", conf)
    look(conf)
    return conf


def look(conf: Config) -> None:
    """Commit what the committee saw in every recording."""
    store = Store(conf.store_path)
    committee = committee_of(conf)
    car = committee.classes.index("car")
    with store.connect() as con:
        rows = con.sql("SELECT night, recording_id, drive_id, list(frame_id ORDER BY frame_index) AS frames FROM frames "
                       "GROUP BY ALL ORDER BY drive_id").to_arrow_table().to_pylist()  # fmt: skip
    for number, row in enumerate(rows):
        rng = np.random.default_rng([5, number])
        embeddings = rng.normal(size=(len(row["frames"]), DIMENSIONS))
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        common = {"recording_id": row["recording_id"], "committee_id": committee.committee_id, "status": "ok"}
        observed, seen, scores = [], [], []
        for i, name in enumerate(row["frames"]):
            hardness = round(float(rng.random()), 3)
            observed.append(
                {
                    **common, "frame_id": name, "luma_mean": 100.0, "embedding": embeddings[i].tolist(),
                    "perceptual_hash": int(rng.integers(0, 2**63)), "box_count": [("a", 1), ("b", 1)],
                }
            )  # fmt: skip
            scores.append(
                {
                    **common, "frame_id": name, "drive_id": row["drive_id"], "hardness": hardness, "entropy_max": hardness,
                    "entropy_max_pct": hardness, "classes": "car", "is_night": i % 2 == 0, "reference_id": "x",
                }
            )  # fmt: skip
            for detector in ("a", "b"):
                vector = [0.01] * len(committee.classes)
                vector[car] = 0.9
                seen.append(
                    {
                        **common, "frame_id": name, "detector": detector, "box_index": 0, "class": "car", "confidence": 0.9,
                        "x1_px": 10.0, "y1_px": 10.0, "x2_px": 30.0, "y2_px": 30.0, "class_scores": vector, "match_id": 0,
                    }
                )  # fmt: skip
        notes = {
            "recording_id": row["recording_id"], "committee_id": committee.committee_id, "content": "x", "failed_to_run": 0,
            "sees": {name: [True] * len(committee.classes) for name in ("a", "b")},
        }  # fmt: skip
        key = row["recording_id"]
        store.commit(
            "detect", row["night"], key,
            {"detections": table("detections", seen), "observations": table("observations", observed)}, digest="x", **notes,
        )  # fmt: skip
        store.commit(
            "score", row["night"], key, {"scores": table("scores", scores), "tracks": table("tracks", [])},
            digest=key, reference_id="x", **notes,
        )  # fmt: skip


def select(conf: Config) -> str:
    pipeline.run_stage("select", conf)
    found = Store(conf.store_path).markers("select")
    return max(found.items(), key=lambda item: item[1]["chosen_at"])[0][1]


def session(conf: Config, reviewer: str = "ada", batch_id: str | None = None) -> Session:
    store = Store(conf.store_path)
    return Session(store, conf, batch_to_review(store, conf, batch_id), reviewer)


def batch_frames(conf: Config, batch_id: str | None = None) -> list[dict[str, Any]]:
    """Every row of the view, in the order of the batch."""
    with Store(conf.store_path).connect() as con:
        return con.sql(
            "SELECT b.*, f.drive_id, f.captured_at FROM batch_frames AS b JOIN frames AS f USING (frame_id) "
            "WHERE $b IS NULL OR batch_id = $b ORDER BY arm, rank, review_id", params={"b": batch_id}
        ).to_arrow_table().to_pylist()  # fmt: skip


def rows(conf: Config, query: str) -> list[dict[str, Any]]:
    with Store(conf.store_path).connect() as con:
        return con.sql(query).to_arrow_table().to_pylist()


@contextmanager
def reviewing(conf: Config, reviewer: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `mining review` as a process; gives the printed link."""
    command = [
        sys.executable,
        "-c",
        "from mining.cli import main; main()",
        "review",
        f"{conf.folder}/night.toml",
    ]
    process = subprocess.Popen(
        [*command, "--reviewer", reviewer, *options], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + (process.stderr.read() if process.poll() is not None and process.stderr else "")
        yield found[0], process
    finally:
        process.kill()
        process.wait()


def copied(template: Path, folder: Path) -> Config:
    """Copy the store of a template that ``make`` made; the footage stays the template's."""
    shutil.copytree(template / "store", folder / "store")
    text = (template / "night.toml").read_text().replace('"drives"', json.dumps(str(template / "drives")))
    (folder / "night.toml").write_text(text)
    return configs.load(folder / "night.toml")
