"""Drives of which index and detect are committed, their boxes written down by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from mining.committee import Committee
from mining.store import Store
from mining.types import frame_id
from tests.mining.synthetic import table

FIRST, SECOND = date(2026, 3, 1), date(2026, 3, 2)
KNOWN = Committee("a+b-00000000", ("a", "b"), ("car", "bus"), (0.25, 0.25))


def add_drive(
    store: Store,
    name: str,
    night: date,
    boxes: dict[str, list[list[tuple[float, float, str]]]],
    *,
    rate_hz: float = 10.0,
    pictures: list[int | None] | None = None,
    tick_ns: int = 1,
    sees: dict[str, list[bool]] | None = None,
    start: datetime | None = None,
    position_deg: tuple[float, float] | None = None,
    luma: float = 100.0,
) -> None:
    """Commit index and detect. ``boxes``: detector -> a list a frame of (x1 of a 40 px box, score, class).

    ``pictures``: a frame's hash, None for one that did not decode; all different where not given. ``tick_ns``: of the
    container's clock; a coarse one gives several frames one time.
    """
    n = len(boxes["a"])
    pictures = [1 << i for i in range(n)] if pictures is None else pictures
    ids = [frame_id(name, i) for i in range(n)]
    start = start or datetime.combine(night, datetime.min.time(), UTC)
    latitude, longitude = position_deg or (None, None)
    drive = {"recording_id": name, "drive_id": f"drive-{name}", "camera": "front"}
    key = {"recording_id": name, "committee_id": KNOWN.committee_id}
    index = {
        "recordings": [{**drive, "uri": f"/{name}.mp4", "kind": "video", "started_at": start, "status": "ok"}],
        "frames": [
            {**drive, "frame_id": ids[i], "frame_index": i, "pts_ns": round(i * 1e9 / rate_hz) // tick_ns * tick_ns,
             "captured_at": start + timedelta(seconds=i / rate_hz), "latitude_deg": latitude,
             "longitude_deg": longitude}
            for i in range(n)
        ],
    }  # fmt: skip
    observed: list[dict[str, Any]] = []
    for i, picture in enumerate(pictures):
        row: dict[str, Any] = {**key, "frame_id": ids[i], "status": "failed", "error": "torn"}
        if picture is not None:
            bins = np.eye(16)[picture % 16]
            row |= {
                "luma_mean": luma, "sharpness": 50.0, "perceptual_hash": picture, "luma_histogram": bins.tolist(),
                "status": "ok", "error": None, "box_count": [(d, len(boxes[d][i])) for d in KNOWN.names],
                "dense_entropy_max": [("a", [0.5, 0.5])], "dense_entropy_mean": [("a", [0.1, 0.1])],
            }  # fmt: skip
        observed.append(row)
    detections = [
        {
            **key, "frame_id": ids[i], "detector": d, "box_index": k, "class": kind, "confidence": score,
            "x1_px": x, "y1_px": 50.0, "x2_px": x + 40.0, "y2_px": 90.0, "match_id": k,
            "class_scores": [score, 0.01] if kind == "car" else [0.01, score],
        }
        for i in range(n) for d in KNOWN.names for k, (x, score, kind) in enumerate(boxes[d][i])
    ]  # fmt: skip
    tables = {t: table(t, rows) for t, rows in index.items()}
    store.commit(
        "index", night, name, tables, digest="x", recording_id=name, content=f"{start} {position_deg}",
        uri=f"/{name}.mp4",
    )  # fmt: skip
    tables = {"detections": table("detections", detections), "observations": table("observations", observed)}
    sees = sees or {d: [True, True] for d in KNOWN.names}
    store.commit("detect", night, f"{name}-0000", tables, digest=name, sees=sees, **key)


def steady(counts: list[int]) -> dict[str, list[list[tuple[float, float, str]]]]:
    """So many sure cars in each frame, for both detectors."""
    frames = [[(100.0 * k, 0.9, "car") for k in range(count)] for count in counts]
    return {"a": frames, "b": frames}
