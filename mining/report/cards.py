"""Frames -> cards: what a page says of one frame, without its picture."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from mining.report.scope import Scope
from mining.schemas import SIGNALS
from mining.store import sql_file

NEIGHBOURS = 4
"""Sampled frames before, and as many after, that a card names."""
_NEIGHBOURS_WITHIN_S = 60.0

_WANTED = pa.schema(
    [
        ("frame_id", pa.string()), ("position", pa.int32()), ("rank", pa.int32()), ("arm", pa.string()),
        ("slice", pa.string()), ("reason", pa.string()), ("estimated_boxes", pa.float32()),
        ("distance_to_chosen", pa.float32()),
    ]
)  # fmt: skip


def chosen_rows(
    con: duckdb.DuckDBPyConnection, batch_id: str, *, here_only: bool = False, reviewed_out: bool = False
) -> pa.Table:
    """Read a batch's frames in its order, in the columns of ``cards_of``: those that it holds after its review.

    ``here_only`` those of the listed nights; ``reviewed_out`` also those that a review dropped or only found.
    """
    where = "SEMI JOIN frames USING (frame_id)" if here_only else ""
    state = "true" if reviewed_out else "in_batch"
    found = con.sql(
        "SELECT frame_id, (row_number() OVER (ORDER BY arm, rank))::INTEGER - 1 AS position, rank, arm, slice, reason, "
        f"estimated_boxes, distance_to_chosen FROM batch_frames {where} WHERE batch_id = $batch_id AND {state} ORDER BY position",
        params={"batch_id": batch_id},
    )
    return found.to_arrow_table().cast(_WANTED)


def named_rows(con: duckdb.DuckDBPyConnection, frame_ids: Sequence[str], batch_id: str | None) -> pa.Table:
    """Make the same columns of any frames, in the order given; how they were chosen where the batch holds them."""
    known: dict[str, dict[str, Any]] = {}
    if batch_id is not None:
        known = {row["frame_id"]: row for row in chosen_rows(con, batch_id, reviewed_out=True).to_pylist()}
    rows = [
        {**known.get(name, {}), "frame_id": name, "position": position}
        for position, name in enumerate(dict.fromkeys(frame_ids))
    ]
    return pa.Table.from_pylist(rows, _WANTED)


def cards_of(con: duckdb.DuckDBPyConnection, scope: Scope, wanted: pa.Table) -> list[dict[str, Any]]:
    """Make the cards of some frames, in the order of their ``position``.

    Args:
        con: ``scope``'s connection.
        scope: whose committee saw them.
        wanted: frame_id, position, and how it was chosen: rank, arm, slice, reason, estimated_boxes, distance_to_chosen.
    """
    con.register("wanted", wanted)
    try:
        asked = {"committee_id": scope.committee.committee_id}
        facts = con.sql(sql_file("report_cards"), params=asked).to_arrow_table().to_pylist()
        boxes = con.sql(sql_file("report_boxes"), params=asked).to_arrow_table().to_pylist()
        around = {"within_us": int(_NEIGHBOURS_WITHIN_S * 1e6), "each": NEIGHBOURS}
        near = con.sql(sql_file("report_neighbours"), params={**asked, **around}).to_arrow_table().to_pylist()
    finally:
        con.unregister("wanted")
    boxes_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for box in boxes:
        boxes_of[box["frame_id"]].append(box)
    neighbours_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in near:
        neighbours_of[row["of_frame"]].append(
            {"frame_id": row["frame_id"], "dt_s": rounded(row["dt_s"]), "hardness": rounded(row["hardness"])}
        )
    return [_card(row, boxes_of[row["frame_id"]], neighbours_of[row["frame_id"]]) for row in facts]


def _card(
    row: dict[str, Any], boxes: list[dict[str, Any]], neighbours: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("frame_id", "rank", "arm", "slice", "reason")},
        **{name: row[name] for name in ("drive_id", "vehicle_id", "camera", "width_px", "height_px")},
        "hardness": rounded(row["hardness"]),
        "captured_at": iso(row["captured_at"]),
        "frame_index": row["frame_index"],
        "recording_id": row["recording_id"],
        "night": None if row["night"] is None else row["night"].isoformat(),
        "tags": dict(row["tags"] or []),
        "speed_mps": rounded(row["speed_mps"]),
        "latitude_deg": rounded(row["latitude_deg"], 8),
        "longitude_deg": rounded(row["longitude_deg"], 8),
        "luma_mean": rounded(row["luma_mean"], 3),
        "sharpness": rounded(row["sharpness"], 3),
        "is_night": row["is_night"],
        "estimated_boxes": rounded(row["estimated_boxes"]),
        "distance_to_chosen": rounded(row["distance_to_chosen"], 3),
        "status": row["status"],
        "error": row["error"],
        "signals": {name: rounded(row[name]) for name, _ in SIGNALS},
        "percentiles": {name: rounded(row[f"{name}_pct"], 3) for name, _ in SIGNALS},
        "boxes": [_box(box) for box in boxes],
        "disagreements": len({box["match_id"] for box in boxes if box["disagrees"]}),
        "classes": sorted(filter(None, (row["classes"] or "").split(","))),
        "neighbours": neighbours,
        "image": None,
        "image_error": None,
        "verdict": None,
    }


def _box(box: dict[str, Any]) -> dict[str, Any]:
    return {
        "detector": box["detector"],
        "class": box["class"],
        "confidence": rounded(box["confidence"], 3),
        "box": [round(box[edge], 1) for edge in ("x1_px", "y1_px", "x2_px", "y2_px")],
        "match_id": box["match_id"],
        "disagrees": box["disagrees"],
    }


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round to significant digits: a page holds many numbers. None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def iso(at: datetime | None) -> str | None:
    """Write a time as UTC with milliseconds: 2026-03-14T22:05:01.500Z."""
    return (
        None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
