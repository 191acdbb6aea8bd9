"""Why a frame is in a batch or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mining import candidates, views
from mining.committee import Committee, committee_of
from mining.config import Config, SelectConfig
from mining.same_moment import SameMoments
from mining.select_batch import batch_of, examples_of, other_stores
from mining.signals.quality import hamming
from mining.store import Store, sql_file
from mining.types import UsageError


@dataclass(slots=True)
class Story:
    """What a person is told of a frame."""

    frame_id: str
    batch_id: str | None
    chosen: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """What it is: recording, time, place, state, hardness."""
    signals: list[dict[str, Any]] = field(default_factory=list)
    """Of hardness: name, value, percentile, weight."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    """Boxes at the threshold by detector and class."""
    history: list[str] = field(default_factory=list)
    """Batches that hold it, deliveries, and its labels."""
    verdict: list[str] = field(default_factory=list)
    """Why it is in the batch; or each thing that kept it out, and what it would have needed."""

    def as_dict(self) -> dict[str, Any]:
        """Give the story as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Tell it to a person."""
        lines = [f"frame {self.frame_id}"]
        lines += [f"  {name:14} {value}" for name, value in self.facts.items() if value is not None]
        if self.signals:
            lines.append("signals of hardness (one without a value counts as the middle, 50 %)")
            lines += [
                f"  {s['signal']:28} {_shown(s['value']) or '-':>10}   {_percent(s['percentile']):>5}   weight {s['weight']:g}"
                for s in self.signals
            ]
        if self.objects:
            lines.append("seen at the threshold")
            lines += [
                f"  {o['detector']:20} {o['boxes']} {o['class']}, best {o['best']:.2f}" for o in self.objects
            ]
        if self.history:
            lines += ["history", *(f"  {line}" for line in self.history)]
        if self.batch_id is None:
            lines.append("no batch has been chosen yet")
        else:
            lines.append(f"batch {self.batch_id}: {'chosen' if self.chosen else 'not chosen'}")
            lines += [f"  {line}" for line in self.verdict]
        return "\n".join(lines)


def explain(store: Store, config: Config, frame_id: str, batch_id: str | None = None) -> Story:
    """Tell the story of a frame with respect to a batch, the committee's newest where none is named.

    Raises:
        UsageError: no such frame or batch.
    """
    committee = committee_of(config)
    batch_id, marker = batch_of(store, committee, batch_id)
    # The stores that the batch was chosen from, where it says so: they may have come with --store.
    chosen_with = config.model_copy(update={"select": _select_of(marker)}) if "select" in marker else config
    with views.connect([store, *other_stores(chosen_with)]) as con:
        ask = {"committee_id": committee.committee_id, "frame_id": frame_id}
        found = con.sql(sql_file("explain_frame"), params=ask).to_arrow_table().to_pylist()
        if not found:
            raise UsageError(
                f"no frame is called {frame_id!r} in {store.root}; `mining sql` lists them: SELECT frame_id FROM frames"
            )
        frame = found[0]
        story = Story(frame_id, batch_id)
        story.facts = _facts(frame)
        story.signals = _signals(con, config, ask)
        story.objects = _objects(con, committee, frame_id)
        story.history = _history(con, frame_id)
        if batch_id is not None:
            chosen = con.sql(
                "SELECT * FROM batch_frames WHERE batch_id = $b AND frame_id = $f AND (in_batch OR origin <> 'extra')",
                params={"b": batch_id, "f": frame_id},
            ).to_arrow_table().to_pylist()  # fmt: skip
            story.chosen = bool(chosen)
            if chosen:
                row = chosen[0]
                story.verdict = [f"rank {row['rank']} of the {row['arm']} arm: {row['reason']}"]
                if not row["in_batch"]:
                    why = "dropped" if row["dropped"] else "the frame whose place it took was taken back"
                    story.verdict.append(f"no longer in the batch: {why} in review")
            else:
                story.verdict = _kept_out(con, store, chosen_with, committee, frame, batch_id, marker)
    return story


def _select_of(marker: dict[str, Any]) -> SelectConfig:
    return SelectConfig.model_validate(marker["select"])


def _facts(frame: dict[str, Any]) -> dict[str, Any]:
    place = frame["latitude_deg"], frame["longitude_deg"]
    return {
        "recording": frame["uri"],
        "drive": frame["drive_id"],
        "vehicle": frame["vehicle_id"],
        "camera": frame["camera"],
        "frame index": frame["frame_index"],
        "captured at": frame["captured_at"],
        "speed": None if frame["speed_mps"] is None else f"{frame['speed_mps']:.1f} m/s",
        "place": None if None in place else f"{place[0]:.5f}, {place[1]:.5f}",
        "tags": ", ".join(f"{k}: {v}" for k, v in frame["tags"] or []) or None,
        "luma mean": _shown(frame["luma_mean"]),
        "state": frame["status"] if frame["error"] is None else f"{frame['status']}: {frame['error']}",
        "hardness": _shown(frame["hardness"]),
    }


def _signals(con: duckdb.DuckDBPyConnection, config: Config, ask: dict[str, Any]) -> list[dict[str, Any]]:
    rows = con.sql(
        "SELECT * FROM scores WHERE committee_id = $committee_id AND frame_id = $frame_id", params=ask
    ).to_arrow_table().to_pylist()  # fmt: skip
    weights = sorted(config.score.hardness.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"signal": name, "value": row[name], "percentile": row[f"{name}_pct"], "weight": weight}
        for row in rows
        for name, weight in weights
    ]


def _objects(con: duckdb.DuckDBPyConnection, committee: Committee, frame_id: str) -> list[dict[str, Any]]:
    con.register("members", candidates.members_table(committee))
    return con.sql(
        'SELECT d.detector, d."class", count(*) AS boxes, max(d.confidence) AS best FROM detections AS d '
        "JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold "
        "WHERE d.frame_id = $f AND d.committee_id = $c GROUP BY ALL ORDER BY d.detector, boxes DESC, d.\"class\"",
        params={"f": frame_id, "c": committee.committee_id},
    ).to_arrow_table().to_pylist()  # fmt: skip


def _history(con: duckdb.DuckDBPyConnection, frame_id: str) -> list[str]:
    chosen = con.sql(
        "SELECT batch_id, arm, rank FROM batch_frames WHERE frame_id = $f AND (in_batch OR origin <> 'extra') ORDER BY batch_id",
        params={"f": frame_id},
    ).to_arrow_table().to_pylist()  # fmt: skip
    said = con.sql(
        "SELECT batch_id, reviewer, verdict, reason, reviewed_at FROM verdicts WHERE frame_id = $f ORDER BY review_id",
        params={"f": frame_id},
    ).to_arrow_table().to_pylist()  # fmt: skip
    sent = con.sql(
        "SELECT DISTINCT batch_id, status, error, image_uri FROM exports WHERE frame_id = $f ORDER BY ALL",
        params={"f": frame_id},
    ).to_arrow_table().to_pylist()  # fmt: skip
    labelled = con.sql(
        "SELECT batch_id, import_id, count(label_index) AS boxes, imported_at FROM truth WHERE frame_id = $f "
        "GROUP BY ALL ORDER BY ALL", params={"f": frame_id},
    ).to_arrow_table().to_pylist()  # fmt: skip
    return [
        *(f"chosen for {row['batch_id']}, rank {row['rank']} of the {row['arm']} arm" for row in chosen),
        *(
            f"reviewed for {row['batch_id']}: {row['verdict']} by {row['reviewer']}"
            + (f" ({row['reason']})" if row["reason"] else "")
            for row in said
        ),
        *(
            f"delivered in {row['batch_id']}: {row['image_uri']}"
            if row["status"] == "ok"
            else f"not delivered in {row['batch_id']}: {row['error']}"
            for row in sent
        ),
        *(
            f"labelled in {row['batch_id']}: {row['boxes']} boxes (import {row['import_id']}, {row['imported_at']:%Y-%m-%d %H:%M})"
            for row in labelled
        ),
    ]


def _kept_out(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    config: Config,
    committee: Committee,
    frame: dict[str, Any],
    batch_id: str,
    marker: dict[str, Any],
) -> list[str]:
    """Each thing that kept a frame out of a batch, in the order in which ``choose`` looks at them."""
    if marker["committee_id"] != committee.committee_id:
        return [
            f"the batch was chosen by committee {marker['committee_id']}: explain it with the config that chose it"
        ]
    if "select" not in marker:
        return ["the batch was chosen by an older mining, which did not write its settings down"]
    if frame["hardness"] is None:
        what = "was not looked at yet" if frame["status"] is None else f"has no score ({frame['error']})"
        return [f"it {what}: run `mining run`, or see the reason above"]
    if frame["recording_id"] not in marker["recordings"]:
        return ["its recording was not among those that the batch was chosen from: it was scored later, or lies outside "
                "footage.paths"]  # fmt: skip
    if frame["embedding"] is None:
        why = frame["error"] or "no reason is recorded"
        return [f"the committee's first detector, {committee.names[0]}, did not see it: {why}"]
    select = config.select
    examples = examples_of(store, config, committee)
    this = candidates.with_likeness(
        con,
        con.sql(
            "FROM mined WHERE frame_id = $f AND committee_id = $c",
            params={"f": frame["frame_id"], "c": committee.committee_id},
        ),
        examples,
    )
    found: list[str] = []
    if not len(this.filter(duckdb.SQLExpression(select.where)).select("frame_id").fetchall()):
        today = ", as the tables are today" if "chosen" in select.where or "exported" in select.where else ""
        found.append(f"it does not fulfil select.where{today}: {select.where}")
    candidates.list_given_out(
        con,
        marker["earlier"] if select.exclude_chosen else [],
        # A batch of before labels could be imported says nothing of them.
        marker.get("labelled", []) if select.exclude_labelled else [],
    )
    found += _given_out(con, select, frame)
    batch = con.sql(sql_file("batch_neighbours"), params={"batch_id": batch_id}).to_arrow_table().to_pylist()
    found += _too_near(select, frame, batch)
    found += _full_slices(con, this, select, batch_id)
    found += _repeated(select, frame, batch)
    if not found and select.same_moment_once:
        found += _same_moment(con, committee, frame, batch, marker)
    if found:
        return found
    return _not_picked(this, select, frame, batch, marker)


def _given_out(con: duckdb.DuckDBPyConnection, select: SelectConfig, frame: dict[str, Any]) -> list[str]:
    rows = con.sql(
        "SELECT batch_id, frame_id, only_labelled, abs(epoch_us(captured_at) - epoch_us($at::TIMESTAMPTZ)) / 1e6 AS apart_s "
        "FROM frames JOIN given_out USING (frame_id) WHERE drive_id = $d AND camera = $c "
        "ORDER BY apart_s, batch_id LIMIT 1",
        params={"at": frame["captured_at"], "d": frame["drive_id"], "c": frame["camera"]},
    ).to_arrow_table().to_pylist()  # fmt: skip
    if not rows or rows[0]["apart_s"] * 1e6 > candidates.reach_us(select.min_gap_s):
        return []
    row = rows[0]
    itself = row["frame_id"] == frame["frame_id"]
    where = "is" if itself else f"lies {row['apart_s']:.2f} s from"
    if row["only_labelled"]:
        what = "is labelled" if itself else f"{where} frame {row['frame_id']}, which is labelled"
        return [f"it {what} (batch {row['batch_id']}; select.exclude_labelled)"]
    return [
        f"it {where} frame {row['frame_id']} of the earlier batch {row['batch_id']} (select.exclude_chosen)"
    ]


def _too_near(select: SelectConfig, frame: dict[str, Any], batch: Sequence[dict[str, Any]]) -> list[str]:
    at_us = int(frame["captured_at"].timestamp() * 1e6)
    near = [
        (abs(row["at_us"] - at_us), row)
        for row in batch
        if (row["drive_id"], row["camera"]) == (frame["drive_id"], frame["camera"])
        and abs(row["at_us"] - at_us) <= candidates.reach_us(select.min_gap_s)
    ]
    found = []
    for apart, row in sorted(near, key=lambda pair: (pair[0], pair[1]["frame_id"])):
        needed = f"select.min_gap_s of at most {apart / 1e6:g}"
        if row["arm"] == "random":
            why = "drawn at random"
        elif row["slice"] is not None:
            why = f"chosen for the slice {row['slice']}"
        else:
            why = f"hardness {row['hardness']:.2f}; this one has {frame['hardness']:.2f}"
            if row["hardness"] > frame["hardness"] and select.order_by is None and not select.like:
                needed = f"to be harder than that one, or {needed}"
        found.append(
            f"it lies {apart / 1e6:.2f} s from the chosen frame {row['frame_id']} ({why}): it would have needed {needed}"
        )
    return found


def _repeated(select: SelectConfig, frame: dict[str, Any], batch: Sequence[dict[str, Any]]) -> list[str]:
    if select.max_duplicate_bits < 0:
        return []
    found = []
    for row in batch:
        if row["embedding"] is None:
            continue
        bits = int(
            hamming(np.array([row["perceptual_hash"]], np.uint64), np.uint64(frame["perceptual_hash"]))[0]
        )
        distance = float(np.linalg.norm(np.subtract(row["embedding"], frame["embedding"])))
        if bits <= select.max_duplicate_bits and distance <= select.max_duplicate_distance:
            found.append(
                f"it shows the same picture as the chosen frame {row['frame_id']} ({bits} bits of the perceptual hash and "
                f"{distance:.3f} of the embedding apart): only one is kept"
            )
    return found


def _same_moment(
    con: duckdb.DuckDBPyConnection,
    committee: Committee,
    frame: dict[str, Any],
    batch: Sequence[dict[str, Any]],
    marker: dict[str, Any],
) -> list[str]:
    """Look at the same footage as the choice did: it says what is usual in it."""
    names, footage, given_out = candidates.read_footage(con, committee, marker["recordings"])
    looked_at = pa.array([frame["frame_id"], *(row["frame_id"] for row in batch)])
    rows = pc.index_in(looked_at, value_set=names).drop_null().to_numpy().astype(np.int64)
    if not len(rows) or names[rows[0]].as_py() != frame["frame_id"]:
        return []
    moments = SameMoments(footage, np.concatenate([given_out, rows[1:]]))
    # The choice had asked for other frames of the recording too, and so learned what footage it shares.
    moments.of(np.flatnonzero(footage.recording == footage.recording[rows[0]]))
    same = moments.of(rows[:1]).get(int(rows[0]), set())
    if same & set(given_out.tolist()):
        return [
            "an earlier batch holds its moment: the same footage was uploaded twice (select.same_moment_once)"
        ]
    return [
        f"it shows the same moment as the chosen frame {names[row].as_py()}: the same footage was uploaded twice "
        "(select.same_moment_once)"
        for row in rows[1:].tolist()
        if row in same
    ][:1]


def _full_slices(
    con: duckdb.DuckDBPyConnection, this: duckdb.DuckDBPyRelation, select: SelectConfig, batch_id: str
) -> list[str]:
    rows = con.sql(
        "SELECT slice, ceiling FROM slices WHERE batch_id = $b AND chosen >= ceiling", params={"b": batch_id}
    ).to_arrow_table().to_pylist()  # fmt: skip
    full = {row["slice"]: row["ceiling"] for row in rows}
    found = []
    for quota in select.quota:
        expression = duckdb.SQLExpression(quota.where or f"({quota.by})::VARCHAR")
        value = this.select(expression).fetchall()[0][0]
        name = quota.title if quota.where is not None else f"{quota.title} = {value}"
        if value not in (None, False) and name in full:
            found.append(f"the slice {name} was full with {full[name]} frames")
    return found


def _not_picked(
    this: duckdb.DuckDBPyRelation,
    select: SelectConfig,
    frame: dict[str, Any],
    batch: Sequence[dict[str, Any]],
    marker: dict[str, Any],
) -> list[str]:
    """It was eligible, and others were better: outside the pool, or passed over by the strategy."""
    order = candidates.order_of(select)
    steps = [step for step in marker["steps"] if step["slice"] is None]
    if marker["stopped_by_cost"]:
        return [
            f"the batch ended at select.cost.limit = {select.cost.limit:g}, before it was this frame's turn: it would have "
            "needed to be among those picked first, or a higher limit"
        ]
    if not steps:
        used = "the floors of select.quota" if select.quota else "the random arm"
        return [f"{used} used up the budget, and it was not among the frames taken for that"]
    value = this.select(duckdb.SQLExpression(f"TRY_CAST(({order}) AS DOUBLE)")).fetchall()[0][0]
    border = min((s["least_priority"] for s in steps if s["least_priority"] is not None), default=None)
    if value is not None and border is not None and value < border:
        return [
            f"{order} is {value:.4g}, below the pool of the best {sum(s['pool'] for s in steps)}: it would have needed "
            f"{border:.4g}, or a larger select.pool_factor (now {select.pool_factor:g})"
        ]
    vectors = [row["embedding"] for row in batch if row["embedding"] is not None]
    if not vectors:
        return [
            f"the strategy {select.strategy} preferred others; their observations are not in the store any more"
        ]
    nearest = float(np.linalg.norm(np.subtract(vectors, frame["embedding"]), axis=1).min())
    last = steps[-1]["least_value"]
    words = [
        f"it was good enough for the pool, or lay within {select.min_gap_s:g} s of a frame that was, and the strategy "
        f"{select.strategy} preferred others: the nearest chosen frame is {nearest:.2f} away"
    ]
    if select.strategy == "k_center" and last is not None:
        words.append(
            f"hardness x distance is {frame['hardness'] * nearest:.3f}; the last pick had {last:.3f}: at this distance it "
            f"would have needed hardness {min(last / max(nearest, 1e-9), 99):.2f}"
        )
    return words


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
