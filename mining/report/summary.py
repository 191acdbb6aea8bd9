"""The numbers at the top of a page: recorded, mined, chosen, delivered, failed; and what failed, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from mining.report.cards import iso, rounded
from mining.report.scope import Scope
from mining.store import sql_file

LISTED = 100
"""Failures that a page names of each kind; the others are counted."""


def summary_of(
    con: duckdb.DuckDBPyConnection, scope: Scope, frames: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Count what happened to the table ``footage``; ``frames`` are the cards of the page."""
    asked = {"committee_id": scope.committee.committee_id}
    counts = con.sql(sql_file("report_counts"), params=asked).to_arrow_table().to_pylist()[0]
    failures = con.sql(sql_file("report_failures"), params=asked)
    listed = failures.limit(LISTED).to_arrow_table().to_pylist()
    more = len(failures.to_arrow_table()) - len(listed) if len(listed) == LISTED else 0
    return {
        **counts,
        "hardness_mean": _mean_hardness(con, frames),
        "failures": listed,
        "more_failures": more,
        "batch": None if scope.batch_id is None else _batch(con, scope, frames),
        "runs": _runs(con, scope),
    }


def _mean_hardness(
    con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]
) -> dict[str, float | None]:
    def mean(values: list[float]) -> float | None:
        return rounded(sum(values) / len(values), 3) if values else None

    known = [frame for frame in frames if frame["hardness"] is not None]
    pool = con.execute("SELECT avg(hardness) FROM pool").fetchall()[0][0]
    return {
        "pool": rounded(pool, 3),
        "mined": mean([frame["hardness"] for frame in known if frame["arm"] == "mined"]),
        "random": mean([frame["hardness"] for frame in known if frame["arm"] == "random"]),
    }


def _batch(con: duckdb.DuckDBPyConnection, scope: Scope, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    marker = scope.marker
    select = marker.get("select", {})
    asked = {"b": scope.batch_id}
    whole = con.execute(
        "SELECT count(*) FROM batch_frames WHERE batch_id = $b AND in_batch", asked
    ).fetchall()[0][0]
    con.register(
        "shown", pa.table({"frame_id": pa.array([frame["frame_id"] for frame in frames], pa.string())})
    )
    delivered = con.execute(
        "SELECT count(DISTINCT frame_id) FILTER (status = 'ok'), count(DISTINCT frame_id) FILTER (status = 'failed'), "
        "list(DISTINCT vendor ORDER BY vendor) FROM exports SEMI JOIN shown USING (frame_id) WHERE batch_id = $b",
        asked,
    ).fetchall()[0]
    lost = con.sql(
        "SELECT DISTINCT frame_id, error FROM exports SEMI JOIN shown USING (frame_id) "
        "WHERE batch_id = $b AND status = 'failed' ORDER BY frame_id LIMIT $n",
        params={**asked, "n": LISTED},
    ).to_arrow_table().to_pylist()  # fmt: skip
    labelled = con.execute(
        "SELECT count(DISTINCT frame_id) FROM truth SEMI JOIN shown USING (frame_id) WHERE batch_id = $b",
        asked,
    ).fetchall()
    con.unregister("shown")
    return {
        "frames": len(frames),
        "whole": whole,
        "mined": sum(frame["arm"] == "mined" for frame in frames),
        "random": sum(frame["arm"] == "random" for frame in frames),
        "estimated_boxes": rounded(sum(frame["estimated_boxes"] or 0.0 for frame in frames)),
        "disagreements": sum(frame["disagreements"] for frame in frames),
        "budget": marker["budget"],
        "eligible": marker["eligible"],
        "chosen_at": marker["chosen_at"],
        "cost": rounded(marker.get("cost")),
        "stopped_by_cost": bool(marker.get("stopped_by_cost")),
        **{name: select.get(name) for name in ("strategy", "where", "order_by", "min_gap_s", "random_share")},
        "delivered": delivered[0],
        "not_delivered": delivered[1],
        "vendors": delivered[2] or [],
        "lost": lost,
        "labelled": labelled[0][0],
    }


def _runs(con: duckdb.DuckDBPyConnection, scope: Scope) -> list[dict[str, Any]]:
    """The latest runs of this committee that ended with the batch; of a night without one, those that began since."""
    where = "batch_id = $about" if scope.batch_id is not None else "began_at >= $about::TIMESTAMPTZ"
    rows = con.sql(
        f"SELECT run_id, began_at, ended_at, state, error, host FROM runs WHERE committee_id = $c AND {where} "
        "ORDER BY began_at DESC LIMIT 5",
        params={"c": scope.committee.committee_id, "about": scope.batch_id or str(scope.nights[0])},
    ).to_arrow_table().to_pylist()  # fmt: skip
    return [{**row, "began_at": iso(row["began_at"]), "ended_at": iso(row["ended_at"])} for row in rows]
