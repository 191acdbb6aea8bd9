"""Labels and detections -> yields: the errors that the primary detector had made in frames that have labels now.

What it saw is what the tables hold: the detections of the committee that chose the batch, at the threshold that it was chosen
with. A detector trained on these labels since changes nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from detectors.classes import ClassMap
from mining import views
from mining.check_delivery import asked_for
from mining.committee import committee_of, primary_of
from mining.config import Config
from mining.schemas import YIELDS
from mining.signals.errors import count_errors
from mining.store import Store, digest, sql_file
from mining.types import MiningError, StageReport, UsageError
from mining.vendors.labels import LOSES_BOXES
from mining.yield_summary import KINDS, Measured, Summary, summarise

MEASURE_VERSION = 2
"""Raise when the rows of this stage change for the same input."""

_EDGES = ("x1_px", "y1_px", "x2_px", "y2_px")
_DETECTIONS = """
    SELECT d.frame_id, d.class, d.confidence, d.x1_px, d.y1_px, d.x2_px, d.y2_px
    FROM detections AS d
    SEMI JOIN labelled USING (frame_id)
    WHERE d.committee_id = $committee_id AND d.detector = $detector AND d.confidence >= $threshold
    ORDER BY d.frame_id, d.box_index
"""
_LABELS = """
    SELECT t.frame_id, t.class, t.x1_px, t.y1_px, t.x2_px, t.y2_px, coalesce(t.ignore, false) AS ignore
    FROM truth AS t
    SEMI JOIN labelled USING (frame_id)
    WHERE t.class IS NOT NULL
    ORDER BY t.frame_id, t.label_index
"""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch, and whose errors are counted in it."""

    batch_id: str
    night: date
    committee_id: str
    detector: str
    threshold: float
    classes: tuple[str, ...]
    """Fleet classes that the detector sees and the labelers were asked for."""


def run(store: Store, config: Config, batch_ids: Sequence[str]) -> StageReport:
    """Measure these batches; all that have labelled frames where none is named.

    Raises:
        UsageError: a batch that is not there.
        MiningError: no frame of any of them has labels.
    """
    report = StageReport("measure")
    fleet = ClassMap.load(config.classes_path).fleet
    asked = asked_for(config.labels, fleet) if config.labels.classes else None
    chosen = {batch_id: (night, marker) for (night, batch_id), marker in store.markers("select").items()}
    for batch_id in batch_ids:
        if batch_id not in chosen:
            known = ", ".join(sorted(chosen)[-5:]) or "none yet"
            raise UsageError(f"no batch is called {batch_id!r}; the latest: {known}")
    sites = [store, *(Store(config.place(site)) for site in config.select.other_stores)]
    with views.connect(sites) as con:
        labelled = con.execute(
            "SELECT DISTINCT batch_id FROM batch_frames SEMI JOIN truth USING (frame_id) WHERE in_batch"
        ).fetchall()
        have = {batch_id for (batch_id,) in labelled}
        for batch_id in dict.fromkeys(batch_ids or sorted(have & set(chosen))):
            if batch_id not in have:
                report.problems.append(f"{batch_id}: none of its frames has labels yet")
                continue
            night, marker = chosen[batch_id]
            _measure(store, con, _batch(store, config, batch_id, night, marker, asked), report)
    if not report.done and not report.unchanged:
        raise MiningError(
            f"{'; '.join(report.problems) or 'no batch has labels yet'}; `mining import-labels` brings them in"
        )
    return report


def summary(store: Store, config: Config, batch_ids: Sequence[str]) -> Summary:
    """Summarise what was measured of these batches, all together; of all where none is named.

    Raises:
        MiningError: nothing is measured yet.
    """
    wanted = list(batch_ids) or [batch_id for _, batch_id in store.markers("measure")]
    sites = [store, *(Store(config.place(site)) for site in config.select.other_stores)]
    with views.connect(sites) as con:
        con.register("wanted", pa.table({"batch_id": pa.array(wanted, pa.string())}))
        rows = con.sql(sql_file("yield_summary")).to_arrow_table()
    if not rows.num_rows:
        raise MiningError("nothing is measured yet: `mining measure` measures what has labels")
    weights = {name: weight for name, weight in config.score.hardness.items() if weight > 0}
    return summarise(
        Measured(
            batch=rows["batch_id"].to_pylist(),
            arm=rows["arm"].to_pylist(),
            slice=rows["slice"].to_pylist(),
            drive=rows["drive_id"].to_pylist(),
            objects=rows["objects"].to_numpy().astype(np.int64),
            errors={kind: rows[kind].to_numpy().astype(np.int64) for kind in KINDS},
            percentiles={name: rows[f"{name}_pct"].to_numpy().astype(np.float64) for name in weights},
            weights=weights,
        )
    )


def _batch(
    store: Store,
    config: Config,
    batch_id: str,
    night: date,
    marker: dict[str, Any],
    asked: Sequence[str] | None,
) -> _Batch:
    """Find out whose errors count: as it was written down with the choice, or from a config of the same committee."""
    primary = marker.get("primary")
    if primary is None:
        committee = committee_of(config)
        if committee.committee_id != marker["committee_id"]:
            raise UsageError(
                f"batch {batch_id} was chosen by committee {marker['committee_id']}, before thresholds were kept with the "
                f"choice; the config has {committee.committee_id}: measure it with the config that chose it, and the others by name "
                "with --batch"
            )
        primary = primary_of(store, committee)
    if primary is None:
        raise MiningError(
            f"batch {batch_id}: the store holds nothing of what committee {marker['committee_id']} can see; measure it where "
            "it was detected"
        )
    return _Batch(
        batch_id=batch_id,
        night=night,
        committee_id=marker["committee_id"],
        detector=primary["detector"],
        threshold=primary["threshold"],
        classes=tuple(name for name in primary["classes"] if asked is None or name in asked),
    )


def _measure(store: Store, con: duckdb.DuckDBPyConnection, batch: _Batch, report: StageReport) -> None:
    """Measure one batch and commit its rows, where they are not those that are committed."""
    batch_rows = con.sql(
        "SELECT frame_id, arm FROM batch_frames WHERE batch_id = $batch_id AND in_batch",
        params={"batch_id": batch.batch_id},
    ).to_arrow_table()
    con.register("batch", batch_rows)
    _tell_review(con, batch.batch_id, report)
    looked = {"detector": batch.detector, "committee_id": batch.committee_id}
    frames = con.sql(
        sql_file("measured_frames"), params={**looked, "losing": sorted(LOSES_BOXES)}
    ).to_arrow_table()
    labelled = pc.is_valid(frames["import_id"])
    whole = pc.and_(frames["ran"], pc.invert(frames["lost_boxes"]))
    con.register("labelled", measured := frames.filter(pc.and_(labelled, whole)))
    seen = con.sql(_DETECTIONS, params={**looked, "threshold": batch.threshold}).to_arrow_table()
    labels = con.sql(_LABELS).to_arrow_table()
    unlabelled = len(frames) - pc.sum(labelled).as_py()
    unseen = pc.sum(pc.and_(labelled, pc.invert(frames["ran"]))).as_py() or 0
    lost = len(frames) - unlabelled - len(measured) - unseen
    report.add(
        frames=len(measured),
        frames_without_labels=unlabelled,
        frames_not_seen=unseen,
        frames_with_lost_boxes=lost,
    )
    if lost:
        report.problems.append(
            f"{batch.batch_id}: {lost} labelled frames are not measured: boxes of theirs were bad and not taken in "
            "(label_rejects), and what is lost would count as false alarms"
        )
    if unseen:
        report.problems.append(
            f"{batch.batch_id}: {unseen} labelled frames are not measured: this store has no detections of "
            f"{batch.detector} on them"
        )
    content = digest(
        batch.detector, batch.threshold, batch.classes, MEASURE_VERSION,
        *(table.to_pydict() for table in (measured, seen, labels)),
    )  # fmt: skip
    committed = store.markers("measure").get((batch.night, batch.batch_id), {})
    if committed.get("digest") == content:
        report.unchanged += 1
        return
    rows = _yields(batch, measured, seen, labels)
    store.commit(
        "measure", batch.night, batch.batch_id, {"yields": rows}, digest=content, detector=batch.detector,
        threshold=batch.threshold, classes=batch.classes,
    )  # fmt: skip
    report.done += 1


def _tell_review(con: duckdb.DuckDBPyConnection, batch_id: str, report: StageReport) -> None:
    """Say what a review took out of each arm: the rates are those of frames that reviewers let pass."""
    [found] = con.sql(sql_file("reviewed"), params={"batch_id": batch_id}).to_arrow_table().to_pylist()
    names = ("dropped_mined", "dropped_random", "replaced", "added")
    if not any(found[name] for name in names):
        return
    report.add(**{name: found[name] for name in names})
    lines = [
        f"{batch_id}: a review dropped {found['dropped_mined']} of {found['chosen_mined']} mined and "
        f"{found['dropped_random']} of {found['chosen_random']} random frames; {found['replaced']} were replaced"
    ]
    if found["added"]:
        lines.append(f"{found['added']} frames that a reviewer asked for count as mined")
    if found["dropped_random"]:
        lines.append("the random arm stands for frames that reviewers let pass, not for all (docs/review.md)")
    report.problems.append("; ".join(lines))


def _yields(batch: _Batch, frames: pa.Table, seen: pa.Table, labels: pa.Table) -> pa.Table:
    """Count the errors of each frame: rows of ``yields``."""
    classes = pa.array(batch.classes, pa.string())
    seen = seen.filter(pc.is_in(seen["class"], value_set=classes))
    # A region to ignore covers boxes of every class, whatever its own.
    labels = labels.filter(pc.or_(pc.is_in(labels["class"], value_set=classes), labels["ignore"]))
    names = frames["frame_id"].combine_chunks()

    def arrays(table: pa.Table) -> tuple[Any, Any, Any]:
        return (
            pc.index_in(table["frame_id"], value_set=names).to_numpy().astype(np.int64),
            np.column_stack([table[edge].to_numpy() for edge in _EDGES]),
            pc.fill_null(pc.index_in(table["class"], value_set=classes), len(classes))
            .to_numpy()
            .astype(np.int64),
        )

    frame, boxes, of_class = arrays(seen)
    scores = seen["confidence"].to_numpy().astype(np.float64)
    ignore = labels["ignore"].to_numpy(zero_copy_only=False).astype(bool)
    found = count_errors(
        frame, boxes, of_class, scores, *arrays(labels), len(frames), ignore, pair_classes=True
    )
    columns = {
        "batch_id": [batch.batch_id] * len(frames),
        "committee_id": [batch.committee_id] * len(frames),
        "detector": [batch.detector] * len(frames),
        "boxes": np.bincount(frame, minlength=len(frames)),
        "errors": found.total,
        "measured_at": [datetime.now(UTC)] * len(frames),
        **{name: frames[name] for name in ("frame_id", "import_id", "arm")},
        **{name: getattr(found, name) for name in ("objects", *KINDS)},
    }
    return pa.table({field.name: columns[field.name] for field in YIELDS}).cast(YIELDS)
