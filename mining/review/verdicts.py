"""The verdicts on one batch: rows of ``reviews`` and ``additions``, appended one commit each, and what they come to.

Several servers may review one batch at once. Each verdict is given in a turn (``Journal.turn``), which one server has at a
time: it reads what the others have committed, decides upon that, and commits. So no verdict is lost, no frame is given
twice, and review_ids rise in the order in which verdicts were given, whatever the clocks say. What holds is asked of the
same SQL as the views ``verdicts`` and ``batch_frames``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Lock, RLock
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mining.schemas import ADDITIONS, REVIEWS, TABLES
from mining.store import Store, sql_file

VERDICTS = ("keep", "drop", "more")
TAKEN_BACK = "none"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the verdicts on a batch come to, after so many of them."""

    version: int
    """How many verdicts were given, those taken back and those that take back included."""
    frames: dict[str, dict[str, Any]]
    """frame_id -> its row of the view ``batch_frames``; in the order of the batch, replacements behind what they replace."""
    verdicts: dict[str, list[dict[str, Any]]]
    """frame_id -> what each reviewer says now, by name: reviewer, verdict, reason, at."""

    def in_place(self, place: str) -> str | None:
        """Which frame has a place of the batch now; None where every one that could was dropped."""
        return next(
            (name for name, row in self.frames.items() if row["place"] == place and row["in_batch"]), None
        )


class Journal:
    """What has been said of one batch. Its methods may be called from several threads."""

    def __init__(self, store: Store, night: date, batch_id: str) -> None:
        """Read what there is. ``night`` is that of the batch, under which its reviews are kept."""
        self._store, self._night, self._batch_id = store, night, batch_id
        self._turn, self._lock = Lock(), RLock()
        self._rows: list[dict[str, Any]] = []
        """Of ``reviews``, in the order in which they were given."""
        self._standing: Standing | None = None
        with store.connect(nights=(night, night)) as con:  # of these tables every night is seen
            self._tables = {
                table: con.sql(
                    f"SELECT * EXCLUDE (night) FROM {table} WHERE batch_id = $batch_id", params={"batch_id": batch_id}
                ).to_arrow_table().cast(TABLES[table])
                for table in ("selections", "reviews", "additions")
            }  # fmt: skip
        self._seen = {self._key(name) for name in self._tables["reviews"]["review_id"].to_pylist()}
        self._take_in([])

    def standing(self) -> Standing:
        """What holds now, verdicts included that other servers have committed meanwhile."""
        with self._lock:
            self._read_new()
            if self._standing is None:
                self._standing = _standing_of(self._tables, len(self._rows))
            return self._standing

    def changed(self, since: int) -> tuple[set[str], bool]:
        """Which frames were judged after the first ``since`` verdicts, and whether any of these brought a frame.

        Everything, where there were never so many.
        """
        with self._lock:
            new = self._rows[since if 0 <= since <= len(self._rows) else 0 :]
            names = {row["review_id"] for row in new}
            brought = any(name in names for name in self._tables["additions"]["review_id"].to_pylist())
            return {row["frame_id"] for row in new}, brought

    @contextmanager
    def turn(self) -> Iterator[Standing]:
        """Be the only one to judge this batch, among all servers, knowing all that was said before.

        Raises:
            TemporaryError: the store cannot be written to, or another job has it alone.
        """
        with self._turn, self._store.writing(), self._store.leases.turn(f"review-{self._batch_id}"):
            yield self.standing()

    def give(
        self,
        frame_id: str,
        reviewer: str,
        verdict: str,
        reason: str | None = None,
        *,
        undoes: str | None = None,
        additions: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Commit one verdict, within a ``turn``; it is on the disk when this returns.

        Args:
            frame_id: a frame of ``standing().frames``.
            reviewer: who says it.
            verdict: one of ``VERDICTS``, or ``TAKEN_BACK``.
            reason: in the reviewer's words.
            undoes: the verdict that this one takes back.
            additions: rows of ``additions`` that it brings; their review_id is filled in.
        """
        at = self._next_time()
        review_id = f"{at:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"  # as text in the order of time
        row = {
            "review_id": review_id, "batch_id": self._batch_id, "frame_id": frame_id, "reviewer": reviewer,
            "verdict": verdict, "reason": reason, "undoes": undoes, "reviewed_at": at,
        }  # fmt: skip
        tables = {
            "reviews": pa.Table.from_pylist([row], REVIEWS),
            "additions": pa.Table.from_pylist(
                [{**one, "review_id": review_id} for one in additions], ADDITIONS
            ),
        }
        with self._lock:
            self._store.commit("review", self._night, self._key(review_id), tables, digest=review_id)
            self._seen.add(self._key(review_id))
            self._take_in([tables])

    def last_of(self, reviewer: str) -> tuple[dict[str, Any], str, str | None] | None:
        """Find what ``undo`` takes back: the reviewer's last verdict that was not taken back by an undo yet.

        Returns:
            Its row, and the verdict and reason that held before it; None where there is nothing to take back.
        """
        with self._lock:
            undone = {row["undoes"] for row in self._rows}
            own = [
                row
                for row in self._rows
                if row["reviewer"] == reviewer and row["undoes"] is None and row["review_id"] not in undone
            ]
        if not own:
            return None
        last = own[-1]
        before = [row for row in own[:-1] if row["frame_id"] == last["frame_id"]]
        return (last, before[-1]["verdict"], before[-1]["reason"]) if before else (last, TAKEN_BACK, None)

    def _next_time(self) -> datetime:
        """Now, and later than every verdict before: the order must not hang on clocks that differ."""
        times = [row["reviewed_at"] + timedelta(microseconds=1) for row in self._rows[-1:]]
        return max([datetime.now(UTC), *times])

    def _key(self, review_id: str) -> str:
        return f"{self._batch_id}-{review_id}"

    def _read_new(self) -> None:
        if not self._store.nights("review", (self._night, self._night)):
            return
        keys = self._store.keys("review", self._night)
        new = [key for key in keys if key.startswith(self._key("")) and key not in self._seen]
        tables = ("reviews", "additions")
        self._take_in([{name: self._store.read(name, self._night, key) for name in tables} for key in new])
        self._seen.update(new)

    def _take_in(self, found: Sequence[dict[str, pa.Table]]) -> None:
        """Add the rows of some commits. Of a batch whose name begins as this one's does there may be some among them."""
        if self._rows and not found:
            return
        for name in ("reviews", "additions"):
            rows = pa.concat_tables([self._tables[name], *(one[name].cast(TABLES[name]) for one in found)])
            self._tables[name] = rows.filter(pc.equal(rows["batch_id"], self._batch_id)).sort_by("review_id")
        self._rows = self._tables["reviews"].to_pylist()
        self._standing = None


def _standing_of(tables: dict[str, pa.Table], version: int) -> Standing:
    with duckdb.connect() as con:  # the views, over these rows alone
        con.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            con.register(name, table)
        for name in ("verdicts", "batch_frames"):
            con.execute(f"CREATE TEMP VIEW {name} AS {sql_file(name)}")
        rows = con.sql("FROM verdicts ORDER BY frame_id, reviewer").to_arrow_table().to_pylist()
        frames = con.sql(
            "SELECT b.* FROM batch_frames AS b LEFT JOIN selections AS s ON s.frame_id = b.place "
            "ORDER BY s.arm NULLS LAST, s.rank, b.review_id, b.rank"
        ).to_arrow_table().to_pylist()  # fmt: skip
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        verdicts.setdefault(row["frame_id"], []).append(
            {
                "reviewer": row["reviewer"], "verdict": row["verdict"], "reason": row["reason"],
                "at": row["reviewed_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
        )  # fmt: skip
    return Standing(version, {row["frame_id"]: row for row in frames}, verdicts)
