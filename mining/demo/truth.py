"""What really was on the road of the demo, and which planted rare events a batch of frames caught."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mining.types import UsageError

SCHEMA = pa.schema([
    pa.field("frame_index", pa.int64(), nullable=False),
    pa.field("class", pa.string(), nullable=False),
    pa.field("x1_px", pa.float32(), nullable=False),
    pa.field("y1_px", pa.float32(), nullable=False),
    pa.field("x2_px", pa.float32(), nullable=False),
    pa.field("y2_px", pa.float32(), nullable=False),
    pa.field("visible_fraction", pa.float32(), nullable=False),
    pa.field("distance_m", pa.float32(), nullable=False),
    pa.field("event", pa.string()),
    pa.field("event_id", pa.string()),
])  # fmt: skip
"""One row is one labelled object in one frame; boxes are clipped to the image. ``event`` names a rare event
(``mining.demo.scripts.EVENTS``) and is NULL for everyday objects; ``event_id`` is the same for all frames of one event."""

RARE_VISIBLE = 0.3
RARE_HEIGHT_PX = 14.0
"""A frame holds a rare event where at least so much of its object can be seen, at this height or more."""


def truth_path(video: Path) -> Path:
    """Where the truth about a recording lies (never NAME.parquet, which would be its telemetry)."""
    return video.with_name(f"{video.stem}.truth.parquet")


def rare_events(folder: Path) -> dict[tuple[str, int], str]:
    """Every frame that holds a rare event: (recording's file stem, frame_index) -> event."""
    return {frame: event for frame, (event, _) in _rare_frames(folder).items()}


def caught(folder: Path, chosen: Iterable[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """Which planted events the chosen frames hold: event_id -> those frames; an event that was missed is left out.

    An event_id reads ``drive_id/event-number``. With all frames chosen, this lists every planted event.
    """
    rare = _rare_frames(folder)
    held: dict[str, list[tuple[str, int]]] = {}
    for frame in sorted(set(chosen) & rare.keys()):
        held.setdefault(rare[frame][1], []).append(frame)
    return held


def _rare_frames(folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """(stem, frame_index) -> (event, event_id)."""
    paths = sorted(folder.glob("*.truth.parquet"))
    if not paths:
        raise UsageError(
            f"no *.truth.parquet in {folder}: make the drives with mining.demo.make_drives first"
        )
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for path in paths:
        table = pq.read_table(path, schema=SCHEMA)
        tall = pc.greater_equal(pc.subtract(table["y2_px"], table["y1_px"]), RARE_HEIGHT_PX)
        seen = pc.greater_equal(table["visible_fraction"], RARE_VISIBLE)
        rows = table.filter(pc.and_(pc.is_valid(table["event"]), pc.and_(tall, seen)))
        stem = path.name.removesuffix(".truth.parquet")
        for index, event, event_id in zip(
            *(rows[c].to_pylist() for c in ("frame_index", "event", "event_id")), strict=True
        ):
            found[stem, index] = (event, event_id)
    return found
