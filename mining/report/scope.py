"""What a page is about: a batch or a night, its committee, the footage that its frames were chosen from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mining import views
from mining.committee import Committee, committee_of, sees_of
from mining.config import Config, SelectConfig
from mining.select_batch import batch_of, other_stores
from mining.store import Store
from mining.types import Nights, UsageError


@dataclass(frozen=True, slots=True)
class Scope:
    """A batch, or a night with the batch that holds frames of it."""

    config: Config
    committee: Committee
    stores: tuple[Store, ...]
    """The config's store, and those of the other sites that the batch was chosen from."""
    nights: Nights
    """First and last night of the footage: no other night's files are listed."""
    night: date | None = None
    """Of a page on one night."""
    batch_id: str | None = None
    marker: dict[str, Any] = field(default_factory=dict)
    """What the select stage wrote down about the batch; empty where there is none."""

    @property
    def is_night(self) -> bool:
        """Whether the page is on a night, not on a batch."""
        return self.night is not None

    @contextmanager
    def connect(self, *, footage: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the views over these stores and nights, with tables ``members`` and ``knows``, and ``footage`` where wanted.

        ``footage`` holds the recordings that the page is on: of a batch those that were scored for it, and those of its
        nights that this committee never scored (they could not be read, or not yet); of a night all of them.
        """
        with views.connect(self.stores, nights=self.nights) as con:
            con.register("members", _members(self.committee))
            con.register("knows", _knows(self.stores[0], self.committee))
            if footage:
                self._make_footage(con)
            yield con

    def _make_footage(self, con: duckdb.DuckDBPyConnection) -> None:
        con.register(
            "scored", pa.table({"recording_id": pa.array(self.marker.get("recordings", []), pa.string())})
        )
        con.execute(
            "CREATE TEMP TABLE footage AS SELECT recording_id FROM recordings AS r WHERE $whole_night OR "
            "EXISTS (FROM scored AS s WHERE s.recording_id = r.recording_id) OR NOT EXISTS "
            "(FROM scores AS s WHERE s.recording_id = r.recording_id AND s.committee_id = $committee_id)",
            # A batch of an older mining does not say which recordings it was chosen from.
            {"whole_night": self.is_night or "recordings" not in self.marker, "committee_id": self.committee.committee_id},
        )  # fmt: skip


def scope_of(
    store: Store, config: Config, *, night: date | None = None, batch_id: str | None = None
) -> Scope:
    """Find out what a page on a night or a batch is about; on the committee's newest batch where neither is named.

    Raises:
        UsageError: no such night or batch, or another committee chose it.
    """
    committee = committee_of(config)
    if night is not None and batch_id is not None:
        raise UsageError("give a night or a batch, not both")
    if night is not None:
        return _scope_of_night(store, config, committee, night)
    batch_id, marker = batch_of(store, committee, batch_id)
    if batch_id is None:
        raise UsageError(
            f"{store.root}: this committee has chosen no batch yet; `mining select` chooses one, and --night shows a night "
            "without one"
        )
    if marker["committee_id"] != committee.committee_id:
        raise UsageError(
            f"batch {batch_id} was chosen by committee {marker['committee_id']}, the config has "
            f"{committee.committee_id}: give the config that chose it"
        )
    # A line of ``scored`` names a night and the digest of a recording's scores.
    nights = sorted({date.fromisoformat(line[:10]) for line in marker["scored"]})
    sites = _sites(store, config, marker)
    return Scope(config, committee, sites, (nights[0], nights[-1]), batch_id=batch_id, marker=marker)


def _scope_of_night(store: Store, config: Config, committee: Committee, night: date) -> Scope:
    known = store.nights("index")
    if night not in known:
        near = ", ".join(day.isoformat() for day in known[-5:]) or "none yet"
        raise UsageError(f"{store.root}: holds nothing of the night {night}; the latest: {near}")
    with store.connect(nights=(night, night)) as con:
        holding = con.execute(
            "SELECT DISTINCT batch_id FROM batch_frames SEMI JOIN frames USING (frame_id) "
            "WHERE committee_id = $committee_id AND in_batch",
            {"committee_id": committee.committee_id},
        ).fetchall()
    names = {name for (name,) in holding}
    batches = [
        (marker["chosen_at"], name, marker)
        for (_, name), marker in store.markers("select").items()
        if name in names
    ]
    if not batches:
        return Scope(config, committee, (store,), (night, night), night)
    _, name, marker = max(batches, key=lambda batch: batch[:2])
    return Scope(config, committee, (store,), (night, night), night, name, marker)


def _sites(store: Store, config: Config, marker: dict[str, Any]) -> tuple[Store, ...]:
    """The stores that the batch was chosen from, where its marker says so: they may have come with --store."""
    if "select" not in marker:  # chosen by an older mining
        return (store,)
    select = SelectConfig.model_validate(marker["select"])
    return (store, *other_stores(config.model_copy(update={"select": select})))


def _members(committee: Committee) -> pa.Table:
    # Tables hold 32-bit scores: 0.7 in the config is 0.699999988 there, and equal to it.
    thresholds = np.asarray(committee.thresholds, np.float32)
    return pa.table({"detector": list(committee.names), "threshold": thresholds})


def _knows(store: Store, committee: Committee) -> pa.Table:
    """Which classes each member can see; every class where the detect stage has not written it down."""
    sees = sees_of(store, committee.committee_id)
    every = [True] * len(committee.classes)
    pairs = [
        (name, class_name)
        for name in committee.names
        for class_name, seen in zip(committee.classes, sees.get(name, every), strict=True)
        if seen
    ]
    return pa.table(
        {"detector": [name for name, _ in pairs], "class": [class_name for _, class_name in pairs]},
        schema=pa.schema([("detector", pa.string()), ("class", pa.string())]),
    )
