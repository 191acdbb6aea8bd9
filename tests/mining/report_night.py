"""A night made by hand, with footage that decodes: two drives with hostile names, a file that cannot be read, a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mining.committee import Committee
from mining.config import Config
from mining.footage import Source, stat_signature
from mining.report import scope
from mining.schemas import SIGNALS
from mining.store import Store
from mining.types import frame_id
from tests.mining.footage_clips import HEIGHT_PX, WIDTH_PX, encode
from tests.mining.synthetic import NIGHT, table

FLEET = ("car", "truck", "pedestrian", "animal")
SEES = {"one": [True, True, True, True], "two": [True, True, True, False]}
COMMITTEE = Committee("one+two-00000000", ("one", "two"), FLEET, (0.4, 0.7))
BATCH = "2026-03-14-abc123"
HOSTILE = "<img src=x onerror=alert(1)>\"'&</script><!--<script>alert(2)</script>"
FORMULA = '=HYPERLINK("http://x.invalid","y")'
DRIVES = (f"A {HOSTILE}", f"B {FORMULA}")
SAMPLED, VIDEO_HZ = 12, 5
"""Frames of each drive, one a second."""
START = datetime(2026, 3, 14, 22, 30, tzinfo=UTC)
SLICE = f"slice {HOSTILE}"
REASON = f"hardness; {HOSTILE}"


@dataclass
class Night:
    """The store, its config, and what was put in."""

    store: Store
    config: Config
    frames: list[dict[str, Any]]
    """Of both drives: frame_id, hardness, embedding, captured_at, pct of ``entropy_max``, classes, drive_id."""
    chosen: list[str]
    """In the order of the batch: seven mined, then two at random."""


def name(drive: int, second: int) -> str:
    return frame_id(f"r{drive}", second * VIDEO_HZ)


def config_at(folder: Path, **sections: Any) -> Config:
    text = {"store": "store", "footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], **sections}
    return Config.model_validate_json(json.dumps({**text, "folder": str(folder)}))


def know_committee(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the report take the config's detectors, which are no files, for this committee."""
    monkeypatch.setattr(scope, "committee_of", lambda _config: COMMITTEE)


def objects(drive: int, second: int) -> list[tuple[int, str, str, float, bool]]:
    """What the members saw: match_id, detector, class, confidence, and whether the committee disagrees about it."""
    seen = [(0, "one", "car", 0.9, False), (0, "two", "car", 0.8, False)]
    seen += [
        (1, "one", "pedestrian", 0.6, True),
        (1, "two", "pedestrian", 0.69, True),
    ]  # two is not sure enough
    if second % 2 and second != 7:  # nothing is in dispute in second 7
        seen += [(2, "one", "car", 0.8, True), (2, "two", "truck", 0.9, True)]
    if drive == 1:
        seen += [(3, "one", "animal", 0.75, False)]  # two never learned it
    return [row for row in seen if second % 4 != 3 or row[0] != 1]


def threshold(detector: str) -> float:
    return dict(zip(COMMITTEE.names, COMMITTEE.thresholds, strict=True))[detector]


def box_px(drive: int, second: int, match: int, detector: str) -> list[float]:
    x, y = 10 + 35 * match + second, 12 + 5 * drive
    return [x, y, x + 25 + (detector == "two") * 4, y + 40]


def make(folder: Path, *, batch: bool = True, footage: bool = True) -> Night:
    """Make the store in ``folder``; without ``footage`` the files are gone."""
    store = Store(folder / "store", create=True)
    rng = np.random.default_rng(5)
    frames: list[dict[str, Any]] = []
    for drive, drive_id in enumerate(DRIVES):
        frames += _commit_drive(store, folder, drive, drive_id, rng, footage)
    _commit_unreadable(store)
    chosen = [
        name(0, 2),
        name(1, 5),
        name(0, 7),
        name(1, 1),
        name(0, 11),
        name(1, 9),
        name(0, 4),
        name(1, 3),
        name(0, 9),
    ]
    if batch:
        _commit_batch(store, chosen, {frame["frame_id"]: frame for frame in frames})
    return Night(store, config_at(folder), frames, chosen)


def _commit_drive(
    store: Store, folder: Path, drive: int, drive_id: str, rng: np.random.Generator, footage: bool
) -> list[dict[str, Any]]:
    key = f"r{drive}"
    path = folder / f"{key}.mp4"
    encode(path, ticks=range(SAMPLED * VIDEO_HZ), tick_s=Fraction(1, VIDEO_HZ), gop=10)
    size_bytes, modified_ns = stat_signature(Source(str(path), "video"))
    if not footage:
        path.unlink()
    hardness = rng.random(SAMPLED).round(3)
    embedding = rng.normal(size=(SAMPLED, 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    common = {"recording_id": key, "drive_id": drive_id, "camera": "front"}
    start = START + timedelta(minutes=20 * drive)
    rows: dict[str, list[dict[str, Any]]] = {
        "recordings": [{
            **common, "vehicle_id": f"v{drive}", "uri": str(path), "kind": "video", "started_at": start, "duration_s": float(SAMPLED),
            "frame_count": SAMPLED * VIDEO_HZ, "width_px": WIDTH_PX, "height_px": HEIGHT_PX, "size_bytes": size_bytes,
            "modified_ns": modified_ns, "status": "ok", "tags": [("city", HOSTILE)],
        }],
        "frames": [], "observations": [], "detections": [], "scores": [], "tracks": [],
    }  # fmt: skip
    told = []
    for second in range(SAMPLED):
        own = {"frame_id": name(drive, second), "recording_id": key}
        seen = [row for row in objects(drive, second) if row[3] >= threshold(row[1])]
        classes = sorted({kind for _, _, kind, _, _ in seen})
        percentile = round(float(rng.random()), 3)
        rows["frames"].append({
            **common, **own, "vehicle_id": f"v{drive}", "frame_index": second * VIDEO_HZ, "pts_ns": second * 10**9,
            "captured_at": start + timedelta(seconds=second), "latitude_deg": 47.0 + drive * 0.01 + second * 0.0002,
            "longitude_deg": 15.4 + second * 0.0003, "speed_mps": 10.0,
        })  # fmt: skip
        rows["observations"].append({
            **own, "committee_id": COMMITTEE.committee_id, "luma_mean": 90.0, "sharpness": 200.0, "embedding": embedding[second].tolist(),
            "status": "ok",
        })  # fmt: skip
        rows["scores"].append({
            **own, "committee_id": COMMITTEE.committee_id, "drive_id": drive_id, "status": "ok", "hardness": float(hardness[second]),
            "classes": ",".join(classes), "entropy_max": 0.5, "entropy_max_pct": percentile, "committee_errors": 1.5,
            "committee_errors_pct": 0.25,
        })  # fmt: skip
        for number, (match, detector, kind, confidence, _) in enumerate(objects(drive, second)):
            x1, y1, x2, y2 = box_px(drive, second, match, detector)
            rows["detections"].append({
                "frame_id": own["frame_id"], "committee_id": COMMITTEE.committee_id, "detector": detector, "box_index": number,
                "class": kind, "confidence": confidence, "x1_px": x1, "y1_px": y1, "x2_px": x2, "y2_px": y2, "match_id": match,
            })  # fmt: skip
        told.append({
            "frame_id": own["frame_id"], "hardness": float(hardness[second]), "embedding": embedding[second], "classes": classes,
            "captured_at": start + timedelta(seconds=second), "entropy_max_pct": percentile, "drive_id": drive_id, "drive": drive,
            "second": second,
        })  # fmt: skip
    _commit(store, key, {table_name: table(table_name, values) for table_name, values in rows.items()})
    return told


def _commit(store: Store, key: str, tables: dict[str, Any]) -> None:
    notes = {"recording_id": key, "committee_id": COMMITTEE.committee_id, "content": key}
    store.commit("index", NIGHT, key, {t: tables[t] for t in ("frames", "recordings")}, digest="x", **notes)
    detected = {t: tables[t] for t in ("detections", "observations")}
    store.commit("detect", NIGHT, key, detected, digest="x", sees=SEES, failed_to_run=0, **notes)
    store.commit(
        "score",
        NIGHT,
        key,
        {t: tables[t] for t in ("tracks", "scores")},
        digest=key,
        reference_id="x",
        **notes,
    )


def _commit_unreadable(store: Store) -> None:
    row = {
        "recording_id": "r9", "drive_id": f"C {HOSTILE}", "camera": "rear", "uri": f"/x/{FORMULA}.mp4", "kind": "video", "started_at": START,
        "status": "unreadable", "error": f"broken: {HOSTILE}", "tags": [],
    }  # fmt: skip
    tables = {"recordings": table("recordings", [row]), "frames": table("frames", [])}
    store.commit(
        "index",
        NIGHT,
        "r9",
        tables,
        digest="x",
        recording_id="r9",
        committee_id=COMMITTEE.committee_id,
        content="r9",
    )


def _commit_batch(store: Store, chosen: list[str], frames: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "batch_id": BATCH, "frame_id": frame, "committee_id": COMMITTEE.committee_id, "rank": i + 1 if i < 7 else i - 6,
            "arm": "mined" if i < 7 else "random", "slice": SLICE if i % 3 == 0 else None, "reason": REASON,
            "hardness": frames[frame]["hardness"], "estimated_boxes": 3.0,
        }
        for i, frame in enumerate(chosen)
    ]  # fmt: skip
    slices = [
        {"batch_id": BATCH, "slice": SLICE, "floor": 5, "ceiling": 9, "eligible": 6, "chosen": 3, "lack": f"too few {HOSTILE}"},
        {"batch_id": BATCH, "slice": "rain", "floor": 0, "ceiling": 2, "eligible": 1, "chosen": 0, "lack": None},
    ]  # fmt: skip
    store.commit(
        "select", NIGHT, BATCH, {"selections": table("selections", rows), "slices": table("slices", slices)}, digest="x",
        committee_id=COMMITTEE.committee_id, budget=9, eligible=24, settings="x", scored=[f"{NIGHT} r0", f"{NIGHT} r1"],
        recordings=["r0", "r1"], select={"budget": 9, "strategy": "k_center"}, chosen_at="2026-03-15T00:00:00+00:00",
    )  # fmt: skip


SIGNAL_NAMES = [signal for signal, _ in SIGNALS]
