"""A store filled by hand: recordings, frames and scores with chosen values, committed as the stages do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.signal import lfilter

from mining.schemas import TABLES
from mining.store import Store
from mining.types import frame_id

NIGHT = date(2026, 3, 14)
COMMITTEE = "a+b-00000000"
DIMENSIONS = 32
"""Of the embeddings; in fewer, random ones would now and then change alike, as if footage were uploaded twice."""


@dataclass(frozen=True)
class Drive:
    """One recording of one frame a second."""

    recording_id: str
    hardness: Sequence[float]
    camera: str = "front"
    drive_id: str | None = None
    start_s: float = 0.0
    tags: tuple[tuple[str, str], ...] = ()
    embeddings: Any = None
    hashes: Any = None
    night: date = NIGHT
    classes: Sequence[str] | None = None
    """Of each frame, as in ``scores.classes``."""
    is_night: bool | None = None
    position_deg: tuple[float, float] | None = None
    telemetry: Sequence[dict[str, float]] = ()
    """Columns of ``frames`` for the first frames."""
    committee_id: str = COMMITTEE
    scores: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Further columns of ``scores``, a value a frame."""
    vehicle_id: str | None = None


def commit(store: Store, drive: Drive, seed: int = 0, reference_id: str = "x") -> None:
    """Commit a drive's recordings, frames, observations, (empty) detections and scores."""
    _commit(store, drive, drive.recording_id, _tables(drive, seed), reference_id)


def commit_together(store: Store, drives: Sequence[Drive], seed: int = 0) -> None:
    """Commit drives of one night and committee as one shard, which is quicker; for what only reads the tables."""
    each = [_tables(drive, seed) for drive in drives]
    tables = {name: pa.concat_tables([one[name] for one in each]) for name in each[0]}
    _commit(store, drives[0], drives[0].recording_id, tables, "x")


def _tables(drive: Drive, seed: int) -> dict[str, pa.Table]:
    n = len(drive.hardness)
    rng = np.random.default_rng([seed, *drive.recording_id.encode()])
    start = datetime.combine(drive.night, datetime.min.time(), UTC) + timedelta(seconds=drive.start_s)
    ids = [frame_id(drive.recording_id, i) for i in range(n)]
    embeddings = (
        rng.normal(size=(n, DIMENSIONS)) if drive.embeddings is None else np.asarray(drive.embeddings)
    )
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    hashes = rng.integers(0, 2**63, n) if drive.hashes is None else drive.hashes
    common = {
        "recording_id": drive.recording_id,
        "drive_id": drive.drive_id or drive.recording_id,
        "camera": drive.camera,
        "vehicle_id": drive.vehicle_id,
    }
    recording = {
        **common, "uri": f"/{drive.recording_id}.mp4", "kind": "video", "started_at": start, "status": "ok",
        "tags": list(drive.tags), "frame_count": n, "width_px": 640, "height_px": 480,
    }  # fmt: skip
    frames = [
        {
            **common,
            "frame_id": ids[i],
            "frame_index": i,
            "pts_ns": i * 10**9,
            "captured_at": start + timedelta(seconds=i),
            "latitude_deg": drive.position_deg and drive.position_deg[0],
            "longitude_deg": drive.position_deg and drive.position_deg[1],
            **(drive.telemetry[i] if i < len(drive.telemetry) else {}),
        }
        for i in range(n)
    ]
    observed = [
        {
            "frame_id": ids[i], "committee_id": drive.committee_id, "recording_id": drive.recording_id, "luma_mean": 100.0,
            "embedding": embeddings[i].tolist(), "perceptual_hash": int(hashes[i]), "status": "ok",
        }
        for i in range(n)
    ]  # fmt: skip
    scores = [
        {
            "frame_id": ids[i], "committee_id": drive.committee_id, "recording_id": drive.recording_id, "status": "ok",
            "hardness": None if np.isnan(h) else float(h), "entropy_max_pct": float(h), "presence_sum_pct": 0.5,
            "drive_id": common["drive_id"], "is_night": drive.is_night,
            "classes": drive.classes and drive.classes[i], **{name: values[i] for name, values in drive.scores.items()},
        }
        for i, h in enumerate(drive.hardness)
    ]  # fmt: skip
    rows = {
        "recordings": [recording],
        "frames": frames,
        "observations": observed,
        "detections": [],
        "scores": scores,
    }
    return {name: table(name, values) for name, values in rows.items()}


def _commit(
    store: Store, drive: Drive, recording_id: str, tables: dict[str, pa.Table], reference_id: str
) -> None:
    key = recording_id + ("" if drive.committee_id == COMMITTEE else f"-{drive.committee_id}")
    notes = {
        "recording_id": recording_id, "committee_id": drive.committee_id, "content": recording_id,
        "failed_to_run": 0, "sees": {},
    }  # fmt: skip
    store.commit(
        "index",
        drive.night,
        drive.recording_id,
        {t: tables[t] for t in ("frames", "recordings")},
        digest="x",
        **notes,
    )
    store.commit(
        "detect",
        drive.night,
        key,
        {t: tables[t] for t in ("detections", "observations")},
        digest="x",
        **notes,
    )
    scored = {"scores": tables["scores"], "tracks": table("tracks", [])}
    store.commit("score", drive.night, key, scored, digest=f"{key}", reference_id=reference_id, **notes)


def footage_of_a_drive(seed: int, seconds: int) -> NDArray[np.float64]:
    """[seconds, DIMENSIONS] embeddings, one a second, of which each number wanders by itself and forgets in some seconds."""
    wander = lfilter(
        [1], [1, -0.6], np.random.default_rng(seed).standard_normal((seconds, DIMENSIONS)), axis=0
    )
    return 1 + 0.3 * np.asarray(wander)


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Build a table of a known schema; columns that are not given are NULL."""
    schema = TABLES[name]
    return pa.Table.from_pylist(
        [{column: row.get(column) for column in schema.names} for row in rows], schema
    )


def store_of(folder: Path, *drives: Drive) -> Store:
    """Make a store that holds these drives."""
    store = Store(folder / "store", create=True)
    for drive in drives:
        commit(store, drive)
    return store
