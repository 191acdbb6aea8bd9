"""The store -> one plain dict, which a page shows. Everything is counted in SQL; only samples and chosen frames are rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow as pa

from mining.config import Config
from mining.report.cards import cards_of, chosen_rows, iso, named_rows
from mining.report.charts import charts_of, make_pool
from mining.report.scope import Scope, scope_of
from mining.report.summary import summary_of
from mining.store import Store, sql_file
from mining.views import quoted

HARDEST = 24
"""Frames that the page of a night without a batch shows."""


def collect(
    store: Store, config: Config, *, night: date | None = None, batch_id: str | None = None
) -> dict[str, Any]:
    """Gather all that a page says, but the pictures: every card's ``image`` is None.

    Args:
        store: the config's.
        config: names the committee.
        night: show this night, and what of it the newest batch holds; without a batch, its hardest frames.
        batch_id: show this batch; the committee's newest where neither is given.

    Returns:
        JSON values: mode, title, made_at, night, batch_id, committee_id, members, summary, charts, frames, reviewer.

    Raises:
        UsageError: no such night or batch, or another committee chose it.
    """
    scope = scope_of(store, config, night=night, batch_id=batch_id)
    with scope.connect() as con:
        make_pool(con, scope)
        frames = cards_of(con, scope, _shown(con, scope))
        summary = summary_of(con, scope, frames)
        charts = charts_of(con, scope, frames)
    return {
        "mode": "report",
        "title": _title(scope),
        "made_at": iso(datetime.now(UTC)),
        "night": None if scope.night is None else scope.night.isoformat(),
        "batch_id": scope.batch_id,
        "committee_id": scope.committee.committee_id,
        "members": [
            {"name": name, "threshold": threshold}
            for name, threshold in zip(scope.committee.names, scope.committee.thresholds, strict=True)
        ],
        "summary": summary,
        "charts": charts,
        "frames": frames,
        "frames_are": "hardest" if scope.batch_id is None else "chosen",
        "reviewer": None,
    }  # fmt: skip


def cards(store: Store, config: Config, batch_id: str, frame_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Make the cards of any mined frames, such as replacements, in the order given; ``image`` is None.

    How a frame was chosen (rank, arm, slice, reason) is None where the batch does not hold it.

    Raises:
        UsageError: no such batch, or another committee chose it.
    """
    scope = scope_of(store, config, batch_id=batch_id)
    with scope.connect(footage=False) as con:
        _narrow(con, frame_ids)
        return cards_of(con, scope, named_rows(con, frame_ids, batch_id))


def _narrow(con: duckdb.DuckDBPyConnection, frame_ids: Sequence[str]) -> None:
    """Have the widest views hold the rows alone that cards of these frames need: files without any are passed over.

    Parquet tells the smallest and largest name in each part of a file, and DuckDB looks there for names that stand in the
    query, not for those of a join.
    """
    names = ", ".join(quoted(name) for name in frame_ids)
    drives = con.execute(f"SELECT DISTINCT drive_id FROM frames WHERE frame_id IN ({names})").fetchall()
    near = ", ".join(quoted(drive) for (drive,) in drives) or "NULL"
    for table, condition in (
        ("detections", f"frame_id IN ({names})"),
        ("observations", f"frame_id IN ({names})"),
        ("scores", f"drive_id IN ({near})"),
        ("frames", f"drive_id IN ({near})"),
    ):
        con.execute(f"CREATE TEMP VIEW {table} AS FROM memory.main.{table} WHERE {condition}")


def _shown(con: duckdb.DuckDBPyConnection, scope: Scope) -> pa.Table:
    """Which frames get a card: the chosen ones; of a night without a batch its hardest, one a moment."""
    if scope.batch_id is not None:
        return chosen_rows(con, scope.batch_id, here_only=scope.is_night)
    gap_us = max(int(scope.config.select.min_gap_s * 1e6), 1)
    found = con.execute(sql_file("report_hardest"), {"gap_us": gap_us, "count": HARDEST}).fetchall()
    return named_rows(con, [name for (name,) in found], None)


def _title(scope: Scope) -> str:
    return f"Batch {scope.batch_id}" if scope.night is None else f"Night of {scope.night.isoformat()}"
