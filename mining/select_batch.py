"""Scores -> selections: SQL finds the candidates and keeps them apart in time, a strategy picks diverse ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.committee import Committee, committee_of
from mining.config import Config, SelectConfig
from mining.schemas import SELECTIONS
from mining.signals.quality import hamming
from mining.store import Store, digest, sql_file
from mining.strategies import STRATEGIES, Candidates
from mining.types import FloatArray, StageReport, UsageError

SELECT_VERSION = 1
"""Raise when the rows of this stage change for the same input."""

_POOL_COLUMNS = (
    "frame_id", "drive_id", "camera", "at_us", "hardness", "perceptual_hash", "embedding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pool:
    """Frames that may be chosen, in falling priority, with what the strategy needs."""

    frame_id: NDArray[np.str_]
    drive_id: NDArray[np.str_]
    camera: NDArray[np.str_]
    at_us: NDArray[np.int64]
    hardness: FloatArray
    perceptual_hash: NDArray[np.uint64]
    embedding: FloatArray

    def __len__(self) -> int:
        return len(self.frame_id)

    @staticmethod
    def join(first: _Pool, second: _Pool) -> _Pool:
        return _Pool(*(np.concatenate([getattr(p, name) for p in (first, second)]) for name in _POOL_COLUMNS))

    def take(self, index: NDArray[np.int64]) -> _Pool:
        return _Pool(*(getattr(self, name)[index] for name in _POOL_COLUMNS))


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> tuple[StageReport, str | None]:
    """Choose a batch from these recordings. Returns the batch's id: the committed one where nothing changed."""
    report = StageReport("select")
    select = config.select
    check(store, config)
    committee = committee_of(config)
    wanted = set(recording_ids)
    scored = sorted(
        f"{night} {marker['digest']}"
        for (night, _), marker in store.markers("score").items()
        if marker["committee_id"] == committee.committee_id and marker["recording_id"] in wanted
    )
    if not scored:
        report.problems.append("nothing is scored: no frame could be chosen")
        return report, None
    settings = digest(committee.committee_id, select.model_dump(), SELECT_VERSION)
    for (_, batch_id), marker in sorted(store.markers("select").items()):
        # Less footage than before (old drives were cleaned up, say) is no reason for another batch.
        if marker["settings"] == settings and set(scored) <= set(marker["scored"]):
            report.unchanged = 1
            report.counts = {"frames": marker["rows"]["selections"]}
            return report, batch_id
    content = digest(scored, settings)
    with store.connect() as con:
        _open_candidates(con, config, committee, recording_ids)
        random_pick = _random_arm(con, select)
        mined = _mined_arm(con, select, random_pick)
        batch_id = f"{scored[-1][:10]}-{content[:6]}"
        rows = _rows(con, batch_id, committee, random_pick, mined)
        eligible = _count(con, "candidates")
    chosen = rows.num_rows
    if chosen < select.budget:
        report.problems.append(
            f"the batch holds {chosen} frames, {select.budget - chosen} fewer than its budget of {select.budget}: "
            f"{eligible} frames were eligible; those left out lie within {select.min_gap_s:g} s of a chosen frame of "
            "their camera or show the same picture as one; lower select.min_gap_s, widen select.where, or add footage"
        )
    if not chosen:
        return report, None
    night = date.fromisoformat(batch_id[:10])
    store.commit(
        "select", night, batch_id, {"selections": rows}, digest=content, committee_id=committee.committee_id,
        budget=select.budget, eligible=eligible, settings=settings, scored=scored,
        chosen_at=datetime.now(UTC).isoformat(),
    )  # fmt: skip
    report.done = 1
    report.add(frames=chosen, eligible=eligible)
    return report, batch_id


def check(store: Store, config: Config) -> None:
    """Refuse, before hours of work, settings that this stage would refuse after them."""
    if config.select.strategy not in STRATEGIES:
        raise UsageError(
            f"select.strategy is {config.select.strategy!r}; known: {', '.join(sorted(STRATEGIES))}"
        )
    with store.connect() as con:
        try:
            con.sql("FROM mined LIMIT 0").filter(duckdb.SQLExpression(config.select.where)).fetchall()
        except duckdb.Error as error:
            raise UsageError(
                f"select.where is not one SQL condition over `mined`: {_first_line(error)}"
            ) from None


def _open_candidates(
    con: duckdb.DuckDBPyConnection, config: Config, committee: Committee, recording_ids: Sequence[str]
) -> None:
    """Make the table ``candidates``: every eligible frame with its priority columns."""
    select = config.select
    con.execute(
        "CREATE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS recording_id", [list(recording_ids)]
    )
    con.execute(
        "CREATE TEMP TABLE earlier AS SELECT DISTINCT f.drive_id, f.camera, epoch_us(f.captured_at) AS at_us "
        "FROM selections AS s JOIN frames AS f USING (frame_id) WHERE $exclude",
        {"exclude": select.exclude_chosen},
    )
    parameters = {"committee_id": committee.committee_id, "reach_us": _reach_us(select)}
    con.sql(sql_file("candidates"), params=parameters).filter(duckdb.SQLExpression(select.where)).create(
        "candidates"
    )


def _random_arm(con: duckdb.DuckDBPyConnection, select: SelectConfig) -> _Pool:
    """Draw the random arm blindly from all candidates; only gap and repeated pictures are looked at."""
    count = round(select.budget * select.random_share)
    # md5 and not random(): the draw must not change with threads, file order or DuckDB's version.
    _thin(con, select, f"md5(concat({select.seed}, '|', frame_id))", near=None)
    return _walk(con, select, count, apart_from=None)


def _mined_arm(
    con: duckdb.DuckDBPyConnection, select: SelectConfig, random_pick: _Pool
) -> tuple[_Pool, FloatArray]:
    """Pick the rest of the budget; returns the picks in order and their distance to the nearest frame before them."""
    budget = select.budget - len(random_pick)
    _thin(con, select, "hardness", near=random_pick)
    pool = _walk(con, select, int(np.ceil(budget * select.pool_factor)), apart_from=random_pick)
    candidates = Candidates(
        frame_id=pool.frame_id, hardness=pool.hardness, embeddings=pool.embedding, taken=random_pick.embedding
    )
    picks = STRATEGIES[select.strategy](candidates, budget, select.seed)
    return pool.take(picks.index), picks.distance_to_nearest


def _thin(con: duckdb.DuckDBPyConnection, select: SelectConfig, priority: str, near: _Pool | None) -> None:
    """Make the table ``kept``: candidates that keep the gap among themselves and to ``near``, the first by priority."""
    reach = {"reach_us": _reach_us(select)}
    con.execute(
        "CREATE OR REPLACE TEMP TABLE open_frames AS "
        f"SELECT frame_id, drive_id, camera, epoch_us(captured_at) AS at_us, {priority} AS priority FROM candidates"
    )
    con.execute("CREATE OR REPLACE TEMP TABLE kept AS FROM open_frames LIMIT 0")
    con.execute("CREATE OR REPLACE TEMP TABLE round AS FROM open_frames LIMIT 0")
    if near is not None and len(near):
        con.register(
            "near", pa.table({"drive_id": near.drive_id, "camera": near.camera, "at_us": near.at_us})
        )
        con.execute("INSERT INTO round BY NAME SELECT drive_id, camera, at_us FROM near")
        con.unregister("near")
    while True:
        con.execute(
            "DELETE FROM open_frames AS o USING round AS r WHERE r.drive_id = o.drive_id AND r.camera = o.camera "
            "AND abs(r.at_us - o.at_us) <= $reach_us",
            reach,
        )
        if not _count(con, "open_frames"):
            break
        con.execute(f"CREATE OR REPLACE TEMP TABLE round AS {sql_file('gap_peaks')}", reach)
        con.execute("INSERT INTO kept FROM round")


def _walk(
    con: duckdb.DuckDBPyConnection, select: SelectConfig, count: int, apart_from: _Pool | None
) -> _Pool:
    """Walk down ``kept`` until ``count`` different pictures are found, none of them like one of ``apart_from``."""
    found = _read_kept(con, 0, 0)
    offset = 0
    while len(found) < count:
        part = _read_kept(con, offset, count)
        if not len(part):
            break
        offset += len(part)
        before = found if apart_from is None else _Pool.join(apart_from, found)
        found = _Pool.join(found, part.take(_distinct(part, before, select)))
    return found.take(np.arange(min(count, len(found))))


def _read_kept(con: duckdb.DuckDBPyConnection, offset: int, count: int) -> _Pool:
    table = con.sql(
        "SELECT k.frame_id, k.drive_id, k.camera, k.at_us, c.hardness, c.perceptual_hash, c.embedding "
        "FROM (FROM kept ORDER BY priority DESC, frame_id LIMIT $count OFFSET $offset) AS k "
        "JOIN candidates AS c USING (frame_id) ORDER BY k.priority DESC, k.frame_id",
        params={"count": count, "offset": offset},
    ).to_arrow_table()
    # Told apart from the rows: a table without rows still has embeddings of some length.
    size = con.execute("SELECT coalesce(max(len(embedding)), 1) FROM candidates").fetchall()[0][0]
    return _Pool(
        frame_id=np.asarray(table["frame_id"].to_pylist(), np.str_),
        drive_id=np.asarray(table["drive_id"].to_pylist(), np.str_),
        camera=np.asarray(table["camera"].to_pylist(), np.str_),
        at_us=table["at_us"].to_numpy(),
        hardness=table["hardness"].to_numpy().astype(np.float32),
        perceptual_hash=table["perceptual_hash"].to_numpy().astype(np.uint64),
        embedding=table["embedding"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, size)
        .astype(np.float32),
    )


def _distinct(pool: _Pool, taken: _Pool, select: SelectConfig) -> NDArray[np.int64]:
    """Indices of the pool without frames that show the same picture as ``taken`` or as a harder frame of the pool."""
    if select.max_duplicate_bits < 0:
        return np.arange(len(pool))
    kept = len(taken)
    hashes = np.concatenate([taken.perceptual_hash, np.zeros(len(pool), np.uint64)])
    embeddings = np.concatenate([taken.embedding, np.zeros_like(pool.embedding)])
    keep: list[int] = []
    for i in range(len(pool)):  # a few thousand at most; each step is one vectorised comparison
        near = np.flatnonzero(hamming(hashes[:kept], pool.perceptual_hash[i]) <= select.max_duplicate_bits)
        distance = np.linalg.norm(embeddings[near] - pool.embedding[i], axis=1)
        if (distance <= select.max_duplicate_distance).any():
            continue
        hashes[kept], embeddings[kept] = pool.perceptual_hash[i], pool.embedding[i]
        kept += 1
        keep.append(i)
    return np.asarray(keep, np.int64)


def _rows(
    con: duckdb.DuckDBPyConnection,
    batch_id: str,
    committee: Committee,
    random_pick: _Pool,
    mined: tuple[_Pool, FloatArray],
) -> pa.Table:
    """Build the rows of ``selections``, with reasons and the expected number of boxes."""
    picks, distance = mined
    chosen = pa.table(
        {
            "position": np.arange(len(picks) + len(random_pick)),
            "frame_id": [*picks.frame_id, *random_pick.frame_id],
            "arm": ["mined"] * len(picks) + ["random"] * len(random_pick),
            "rank": [*range(1, len(picks) + 1), *range(1, len(random_pick) + 1)],
            "distance": np.concatenate([distance, np.full(len(random_pick), np.nan, np.float32)]),
        }
    )
    con.register("chosen", chosen)
    con.register(
        "members", pa.table({"detector": list(committee.names), "threshold": list(committee.thresholds)})
    )
    return con.sql(
        sql_file("selections"), params={"batch_id": batch_id, "committee_id": committee.committee_id}
    ).to_arrow_table().cast(SELECTIONS)  # fmt: skip


def _reach_us(select: SelectConfig) -> int:
    """Frames at most this far apart are too near: one microsecond less than the gap."""
    return max(int(select.min_gap_s * 1e6) - 1, 0)


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
