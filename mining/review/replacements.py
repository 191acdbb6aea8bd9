"""The next best frames for a batch under review: what select would have chosen next, and what looks like a given frame.

The choice is taken up where it ended, with the settings and the footage that the batch was chosen with: the frames that stand
are in it, and a new one keeps their gap, repeats none of their pictures and moments, and none of what was dropped either. What
other batches hold meanwhile, and what has labels, is out, as the settings say. Reading the candidates takes a while in a large
store; it is done once, and again where another batch, delivery or import has come since.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

import duckdb
import numpy as np

from mining import candidates, views
from mining.candidates import Eligible, read_embeddings
from mining.choose import Choice, Chosen, Reader
from mining.committee import Committee
from mining.config import Config, SelectConfig
from mining.review.verdicts import Standing
from mining.select_batch import examples_of, other_stores, reader_of, selections_of
from mining.similar import nearest
from mining.store import Store, digest
from mining.types import FloatArray, UsageError

OFFERED = 6
"""Frames that "more like this" finds."""
_LOOKED_THROUGH = 2000
"""Nearest frames that are looked through at first for these: many lie beside each other."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """What was read once."""

    came: str
    """Digest of what had been committed that takes frames away."""
    con: duckdb.DuckDBPyConnection
    frames: Eligible
    """Those that may be chosen, and those of this batch."""
    row_of: dict[str, int]
    read: Reader
    earlier: FloatArray
    """Embeddings of what other batches hold."""


class Finder:
    """Finds frames for one batch. One thread at a time; others wait."""

    def __init__(
        self, store: Store, config: Config, committee: Committee, batch_id: str, marker: dict[str, Any]
    ) -> None:
        """``marker`` is what the select stage wrote down about the batch."""
        if "select" not in marker:
            raise UsageError(
                f"batch {batch_id} was chosen by an older mining, which did not write its settings down: it cannot be reviewed"
            )
        self._select = SelectConfig.model_validate(marker["select"])
        self._config = config.model_copy(update={"select": self._select})
        self._store, self._committee, self._batch_id, self._marker = store, committee, batch_id, marker
        self._stores = [store, *other_stores(self._config)]
        self._ready: _Ready | None = None
        self._lock = RLock()

    def prepare(self, members: Iterable[str]) -> None:
        """Read the candidates, where that is due; ``members`` are all frames of ``Standing.frames``."""
        with self._lock:
            self._up_to_date(list(members))

    def end(self) -> None:
        """Close what ``prepare`` has opened, unless somebody is still at it after a moment."""
        if self._lock.acquire(timeout=2):
            try:
                if self._ready is not None:
                    self._ready.con.close()
                    self._ready = None
            finally:
                self._lock.release()

    def replacement(self, standing: Standing, frame_id: str) -> tuple[dict[str, Any] | None, str | None]:
        """Find what takes the place of a frame of the batch that is being dropped: of its arm, and of its slice if possible.

        Returns:
            A row of ``additions`` without review_id, or None and the reason.
        """
        with self._lock:
            ready = self._up_to_date(list(standing.frames))
            row = standing.frames[frame_id]
            place = standing.frames[row["place"]]
            choice = self._choice(ready, standing, also_dropped=frame_id)
            found = self._drawn(choice) if place["arm"] == "random" else self._picked(choice, place["slice"])
            if found is None:
                if choice.chosen.stopped_by_cost:
                    return (
                        None,
                        "no frame takes its place: the next one would cost more than is left of select.cost.limit",
                    )
                return (
                    None,
                    "no frame takes its place: no other frame may be chosen (`mining explain` says it of one)",
                )
            [made] = self._rows(ready, found)
            reason = f"in place of {frame_id}, dropped in review; {made['reason']}"
            return {
                **made, "rank": place["rank"], "reason": reason, "replaces": frame_id, "place": row["place"],
            }, None  # fmt: skip

    def similar(self, standing: Standing, frame_id: str) -> list[dict[str, Any]]:
        """Find frames that look like one of the batch, nearest first, and that may be chosen beside what it holds.

        Quotas and cost are a person's to overrule here. Returns rows of ``additions`` without review_id.
        """
        with self._lock:
            ready = self._up_to_date(list(standing.frames))
            choice = self._choice(ready, standing)
            example = read_embeddings(ready.con, self._committee, np.asarray([frame_id]), known_only=True)
            if not len(example):
                return []
            count, kept = _LOOKED_THROUGH, np.empty(0, np.int64)
            while True:
                names = nearest(ready.con, self._committee, example[0], ready.frames.frame_id, count)
                kept = choice.walk(np.asarray([ready.row_of[name] for name in names], np.int64), OFFERED)
                if len(kept) == OFFERED or len(names) < count:
                    break
                count *= 8
            n = len(kept)
            boxes = ready.read.boxes(kept).tolist()
            chosen = Chosen(kept.tolist(), ["mined"] * n, [None] * n, [math.nan] * n, boxes)
            rank = max((row["rank"] for row in standing.frames.values() if row["arm"] == "mined"), default=0)
            reason = f"reviewer asked for more like {frame_id}"
            return [
                {**row, "rank": rank + number, "reason": reason, "like_frame_id": frame_id}
                for number, row in enumerate(self._rows(ready, chosen), 1)
            ]

    def taken_elsewhere(self, frame_id: str) -> str | None:
        """Say why a frame that was found for this batch may not come into it any more; None where it may."""
        with self._lock, views.connect(self._stores) as con:
            rows = con.execute(
                "SELECT 'batch ' || batch_id || ' holds it' FROM batch_frames WHERE $chosen AND frame_id = $f AND batch_id <> $own "
                "AND (in_batch OR origin <> 'extra') UNION ALL "
                "SELECT 'it has labels' FROM labels WHERE $labelled AND frame_id = $f AND batch_id <> $own LIMIT 1",
                {
                    "f": frame_id, "own": self._batch_id,
                    "chosen": self._select.exclude_chosen, "labelled": self._select.exclude_labelled,
                },
            ).fetchall()  # fmt: skip
        return rows[0][0] if rows else None

    # -- choosing --------------------------------------------------------------------------------------------------

    def _choice(self, ready: _Ready, standing: Standing, also_dropped: str | None = None) -> Choice:
        """Take the choice up where it ended: the frames that stand are taken, what was dropped is kept away from."""
        held = {
            ready.row_of[name]: row for name, row in standing.frames.items() if name in ready.row_of
        }  # fmt: skip
        stands = {i: row for i, row in held.items() if row["in_batch"] and row["frame_id"] != also_dropped}
        rows = np.asarray(list(stands), np.int64)
        choice = Choice(
            ready.frames,
            self._select,
            np.concatenate([ready.earlier, ready.read.embeddings(rows)]),
            ready.read,
        )
        ready.read.same_moment(np.asarray(list(held), np.int64))
        for i, row in held.items():
            if i in stands:
                choice.take(i, row["arm"], row["slice"], math.nan, row["estimated_boxes"] or 0.0)
            elif row["dropped"] or row["frame_id"] == also_dropped:
                choice.avoid(i)
            else:  # offered, or found for a place that was given back: it has its own way in
                choice.repeats[i] = True
        return choice

    def _picked(self, choice: Choice, slice_name: str | None) -> Chosen | None:
        """What the strategy picks next, first of all within the slice that the dropped frame was chosen for."""
        wanted = [
            (q, s)
            for q, names in enumerate(choice.frames.slice_names)
            for s in range(len(names))
            if choice.name((q, s)) == slice_name
        ]
        before = len(choice.chosen.rows)
        for slice_of in [*wanted, None]:
            name = None if slice_of is None else slice_name
            pools = [step["pool"] for step in self._marker.get("steps", ()) if step["slice"] == name]
            choice.fill(1, slice_of, max([math.ceil(self._select.pool_factor), *pools]))
            if len(choice.chosen.rows) > before or choice.chosen.stopped_by_cost:
                break
        return _last(choice.chosen) if len(choice.chosen.rows) > before else None

    def _drawn(self, choice: Choice) -> Chosen | None:
        """What the blind draw holds next: the arm stays one that nobody has picked."""
        rows = choice.walk(np.argsort(choice.frames.draw, kind="stable"), 1)
        if not len(rows):
            return None
        boxes = float(choice.read.boxes(rows)[0])
        if not choice.fits(choice.chosen.cost + choice.cost_of(boxes)):
            choice.chosen.stopped_by_cost = True
            return None
        choice.take(int(rows[0]), "random", None, math.nan, boxes)
        return _last(choice.chosen)

    def _rows(self, ready: _Ready, chosen: Chosen) -> list[dict[str, Any]]:
        """Rows of ``additions`` in the order of choice, with what they came for still to be filled in."""
        table = selections_of(ready.con, self._batch_id, self._committee, ready.frames, chosen, self._config)
        empty = dict.fromkeys(("review_id", "replaces", "place", "like_frame_id"))
        return [{**row, **empty} for row in table.to_pylist()]

    # -- reading ---------------------------------------------------------------------------------------------------

    def _up_to_date(self, members: Sequence[str]) -> _Ready:
        ready, came = self._ready, self._came()
        if ready is None or ready.came != came:
            if ready is not None:
                ready.con.close()
            self._ready = ready = self._read(members, came)
        return ready

    def _came(self) -> str:
        """Digest of the names of what takes frames away: batches, deliveries and imports, but this batch's own delivery."""
        return digest(
            [
                (str(store.root), stage, sorted(key for night in store.nights(stage) for key in store.keys(stage, night)
                    if key != self._batch_id))
                for store in self._stores for stage in ("select", "export", "import")
            ]
        )  # fmt: skip

    def _read(self, members: Sequence[str], came: str) -> _Ready:
        select, recordings = self._select, self._marker["recordings"]
        con = views.connect(self._stores)
        asked = {"own": self._batch_id}
        batches = con.execute(
            "SELECT batch_id FROM selections UNION SELECT batch_id FROM exports EXCEPT SELECT $own", asked
        ).fetchall()
        imports = con.execute(
            "SELECT DISTINCT import_id FROM labels WHERE batch_id <> $own", asked
        ).fetchall()
        candidates.list_given_out(
            con,
            [name for (name,) in batches] if select.exclude_chosen else [],
            [name for (name,) in imports] if select.exclude_labelled else [],
        )
        examples = examples_of(self._store, self._config, self._committee)
        frames = candidates.eligible_frames(con, select, self._committee, recordings, examples, members)
        names = con.sql("SELECT frame_id FROM given_out ORDER BY frame_id").to_arrow_table()["frame_id"]
        return _Ready(
            came=came,
            con=con,
            frames=frames,
            row_of={name: i for i, name in enumerate(frames.frame_id.to_pylist())},
            read=reader_of(con, frames, self._committee, select, recordings),
            earlier=read_embeddings(con, self._committee, names.to_numpy().astype(np.str_), known_only=True),
        )


def _last(chosen: Chosen) -> Chosen:
    return Chosen(
        chosen.rows[-1:], chosen.arm[-1:], chosen.slice[-1:], chosen.distance[-1:], chosen.boxes[-1:]
    )
