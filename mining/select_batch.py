"""Scores -> selections: SQL finds the candidates, ``choose`` keeps them apart, within quotas and budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mining import candidates, views
from mining.candidates import Eligible, read_embeddings
from mining.choose import Chosen, Reader, choose
from mining.committee import Committee, committee_of, primary_of
from mining.config import Config, SelectConfig
from mining.same_moment import SameMoments
from mining.schemas import SELECTIONS, SLICES
from mining.similar import embeddings_of, image_digests
from mining.store import Store, digest, sql_file
from mining.strategies import STRATEGIES
from mining.types import FloatArray, StageReport, UsageError

SELECT_VERSION = 4
"""Raise when the rows of this stage change for the same input."""


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> tuple[StageReport, str | None]:
    """Choose a batch from these recordings and those of the other sites.

    Returns the batch's id: the committed one where nothing changed, None where no frame could be chosen.
    """
    report = StageReport("select")
    select = config.select
    check(store, config)
    committee = committee_of(config)
    others = other_stores(config)
    wanted, scored = _scored(store, others, committee, recording_ids)
    if not scored:
        report.problems.append("nothing is scored: no frame could be chosen")
        return report, None
    # Of image files the pixels count: another picture of the same name is another wish.
    pictures = image_digests(config, select.like)
    settings = digest(committee.committee_id, select.model_dump(), pictures, SELECT_VERSION)
    for (_, batch_id), marker in sorted(store.markers("select").items()):
        # Less footage than before (old drives were cleaned up, say) is no reason for another batch.
        if marker["settings"] == settings and set(scored) <= set(marker["scored"]):
            report.unchanged = 1
            report.counts = {"frames": marker["rows"]["selections"]}
            return report, batch_id
    content = digest(scored, settings)
    batch_id = f"{scored[-1][:10]}-{content[:6]}"
    with views.connect([store, *others]) as con:
        earlier, labelled = candidates.list_given_out(
            con, None if select.exclude_chosen else [], None if select.exclude_labelled else []
        )
        frames = candidates.eligible_frames(
            con, select, committee, wanted, examples_of(store, config, committee)
        )
        names = con.sql("SELECT frame_id FROM given_out ORDER BY frame_id").to_arrow_table()["frame_id"]
        taken = read_embeddings(con, committee, names.to_numpy().astype(np.str_), known_only=True)
        chosen = choose(frames, select, taken, reader_of(con, frames, committee, select, wanted))
        tables = {
            "selections": selections_of(con, batch_id, committee, frames, chosen, config),
            "slices": _slices(batch_id, chosen),
        }
    report.problems += _problems(select, frames, chosen)
    if not chosen.rows:
        return report, None
    # What labels are measured against later must be what the primary saw now, whatever its threshold is then.
    primary = next(filter(None, (primary_of(site, committee) for site in (store, *others))), None)
    store.commit(
        "select", date.fromisoformat(batch_id[:10]), batch_id, tables, digest=content,
        committee_id=committee.committee_id, budget=select.budget, eligible=len(frames), settings=settings,
        scored=scored, select=select.model_dump(), steps=[asdict(step) for step in chosen.steps],
        cost=chosen.cost, stopped_by_cost=chosen.stopped_by_cost, recordings=wanted, earlier=earlier,
        labelled=labelled, primary=primary, chosen_at=datetime.now(UTC).isoformat(),
    )  # fmt: skip
    report.done = 1
    report.add(frames=len(chosen.rows), eligible=len(frames))
    return report, batch_id


def check(store: Store, config: Config) -> None:
    """Refuse, before hours of work, settings that this stage would refuse after them."""
    if config.select.strategy not in STRATEGIES:
        raise UsageError(
            f"select.strategy is {config.select.strategy!r}; known: {', '.join(sorted(STRATEGIES))}"
        )
    other_stores(config)
    image_digests(config, config.select.like)
    with store.connect() as con:
        candidates.check(con, config.select)


def other_stores(config: Config) -> list[Store]:
    """Open the stores of the other sites."""
    return [Store(config.place(site)) for site in config.select.other_stores]


def batch_of(store: Store, committee: Committee, batch_id: str | None) -> tuple[str | None, dict[str, Any]]:
    """Find a batch and its marker: the named one, or the committee's newest; (None, {}) where there is none yet."""
    batches = {name: marker for (_, name), marker in store.markers("select").items()}
    if batch_id is not None:
        if batch_id not in batches:
            known = ", ".join(sorted(batches)[-5:]) or "none yet"
            raise UsageError(f"no batch is called {batch_id!r}; the latest: {known}")
        return batch_id, batches[batch_id]
    own = [
        (marker["chosen_at"], name)
        for name, marker in batches.items()
        if marker["committee_id"] == committee.committee_id
    ]
    return (max(own)[1], batches[max(own)[1]]) if own else (None, {})


def _scored(
    store: Store, others: Sequence[Store], committee: Committee, recording_ids: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Recordings whose frames are candidates, and a line for each that names its night and the digest of its scores.

    Raises:
        UsageError: percentiles of two recordings were taken against different references.
    """
    found: dict[str, tuple[str, str]] = {}
    references: dict[str, Store] = {}
    mine = set(recording_ids)
    for site in (store, *others):
        for (night, _), marker in site.markers("score").items():
            name = marker["recording_id"]
            if marker["committee_id"] != committee.committee_id or (site is store and name not in mine):
                continue
            if name not in found:
                found[name] = (f"{night} {marker['digest']}", marker["reference_id"])
                references.setdefault(marker["reference_id"], site)
    if len(references) > 1 and others:
        (one, here), (two, there) = list(references.items())[:2]
        raise UsageError(
            f"percentiles of {here.root} and {there.root} do not compare: they stand on references {one} and {two}; "
            f"copy the file of reference/ from one store to the other and run `mining score` there"
        )
    return sorted(found), sorted(line for line, _ in found.values())


def examples_of(store: Store, config: Config, committee: Committee) -> FloatArray:
    """[m, d] embeddings of the frames and images that ``select.like`` names."""
    if not config.select.like:
        return np.empty((0, 1), np.float32)
    return embeddings_of(store, config, committee, config.select.like)


def reader_of(
    con: duckdb.DuckDBPyConnection,
    frames: Eligible,
    committee: Committee,
    select: SelectConfig,
    recording_ids: Sequence[str],
) -> Reader:
    """What ``choose`` reads of some frames only; the connection must stay open, and hold the table ``given_out``."""
    return Reader(
        embeddings=lambda rows: read_embeddings(con, committee, frames.names(rows)),
        boxes=lambda rows: candidates.estimated_boxes(con, committee, frames.names(rows)),
        same_moment=_moments_of(con, frames, committee, recording_ids)
        if select.same_moment_once
        else lambda _: {},
    )


def _moments_of(
    con: duckdb.DuckDBPyConnection, frames: Eligible, committee: Committee, recording_ids: Sequence[str]
) -> Callable[[NDArray[np.int64]], dict[int, set[int]]]:
    """Read the footage; what comes back tells of rows of ``frames`` which show the same moment (see ``Reader``)."""
    names, footage, given_out = candidates.read_footage(con, committee, recording_ids)
    moments = SameMoments(footage, given_out)
    place = pc.index_in(frames.frame_id, value_set=names).to_numpy().astype(np.int64)
    row_of = dict.fromkeys(given_out.tolist(), -1)

    def same_moment(rows: NDArray[np.int64]) -> dict[int, set[int]]:
        places = place[rows]
        row_of.update(zip(places.tolist(), rows.tolist(), strict=True))
        found = moments.of(places)
        return {row_of[place]: {row_of[other] for other in others} for place, others in found.items()}

    return same_moment


def _problems(select: SelectConfig, frames: Eligible, chosen: Chosen) -> list[str]:
    """Say what the batch lacks, and why."""
    found = []
    lacking = select.budget - len(chosen.rows)
    if not len(frames):
        found.append(
            "no frame is eligible: none is scored that fulfils select.where and lies apart from earlier batches "
            "(`mining explain FRAME_ID` says it of one frame)"
        )
    elif lacking and chosen.stopped_by_cost:
        limit = select.cost.limit or 0.0
        found.append(
            f"the batch holds {len(chosen.rows)} frames, {lacking} fewer than its budget: the next one would cost more "
            f"than the {limit - chosen.cost:g} left of select.cost.limit = {limit:g}"
        )
    elif lacking:
        closed = (
            " or are of slices that are full" if any(s.chosen >= s.ceiling for s in chosen.slices) else ""
        )
        found.append(
            f"the batch holds {len(chosen.rows)} frames, {lacking} fewer than its budget of {select.budget}: "
            f"{len(frames)} frames were eligible; those left out lie within {select.min_gap_s:g} s of a chosen frame of "
            f"their camera{',' if closed else ' or'} show the same picture or moment as one{closed}; lower "
            f"select.min_gap_s, widen select.where,{' raise the max of a quota,' if closed else ''} or add footage"
        )
    found += [
        f"slice {s.name}: {s.chosen} frames, wanted at least {s.floor}: {s.lack}"
        if s.chosen < s.floor
        else f"slice {s.name}: {s.chosen} frames, wanted at most {s.ceiling}: {s.lack}"
        for s in chosen.slices
        if s.lack is not None
    ]
    return found


def selections_of(
    con: duckdb.DuckDBPyConnection,
    batch_id: str,
    committee: Committee,
    frames: Eligible,
    chosen: Chosen,
    config: Config,
) -> pa.Table:
    """Build the rows of ``selections``: mined frames in the order of choice, then the random arm."""
    order = sorted(range(len(chosen.rows)), key=lambda i: chosen.arm[i])
    arms = [chosen.arm[i] for i in order]
    table = pa.table(
        {
            "position": pa.array(range(len(order)), pa.int64()),
            "frame_id": pa.array(
                frames.names(np.asarray([chosen.rows[i] for i in order], np.int64)), pa.string()
            ),
            "arm": pa.array(arms, pa.string()),
            "rank": pa.array([i + 1 - arms.index(arm) for i, arm in enumerate(arms)], pa.int64()),
            "slice": pa.array([chosen.slice[i] for i in order], pa.string()),
            "distance": pa.array([chosen.distance[i] for i in order], pa.float64()),
            "boxes": pa.array([chosen.boxes[i] for i in order], pa.float64()),
        }
    )
    con.register("chosen", table)
    con.register("blended", pa.table({"signal": [f"{name}_pct" for name in config.score.hardness]}))
    return con.sql(
        sql_file("selections"), params={"batch_id": batch_id, "committee_id": committee.committee_id}
    ).to_arrow_table().cast(SELECTIONS)  # fmt: skip


def _slices(batch_id: str, chosen: Chosen) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"batch_id": batch_id, "slice": s.name, **{k: v for k, v in asdict(s).items() if k != "name"}}
        for s in chosen.slices
    ]
    return pa.Table.from_pylist(rows, SLICES)
