"""Which frames may be chosen: the candidate query, and what the choice needs to know of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mining.committee import Committee
from mining.config import SelectConfig
from mining.same_moment import AROUND_S, Footage
from mining.store import sql_file
from mining.types import FloatArray, QueryError, UsageError
from mining.views import check_that_it_reads, unreadable

LATEST = 20_000
"""Frames given out that are compared with, to tell moments that are in a batch already: the work grows with them."""

_ROWS_PER_READ = 65_536


@dataclass(frozen=True, slots=True)
class Eligible:
    """``n`` frames that may be chosen, the best by ``order_by`` first, equals by frame_id. Embeddings stay on disk."""

    frame_id: pa.StringArray
    """[n]"""
    hardness: FloatArray
    """[n] in 0..1."""
    priority: NDArray[np.float64]
    """[n] value of ``order_by``, falling; NaN where it is no number."""
    draw: NDArray[np.uint64]
    """[n] a number that depends on nothing but the seed and the frame: the order of a blind draw."""
    camera: NDArray[np.int32]
    """[n] number of the frame's drive and camera."""
    at_us: NDArray[np.int64]
    """[n] when it was taken, microseconds since 1970."""
    perceptual_hash: NDArray[np.uint64]
    """[n]"""
    stratum: NDArray[np.int32]
    """[n] number of the value of ``stratify_by``; -1 where that is NULL."""
    slices: NDArray[np.int32]
    """[n, q] for each quota, number in ``slice_names`` of the slice that holds the frame; -1 for none."""
    slice_names: tuple[tuple[str, ...], ...]
    """For each quota, its slices: one for ``where``, one a value for ``by``."""

    def __len__(self) -> int:
        """How many frames may be chosen."""
        return len(self.frame_id)

    def names(self, rows: NDArray[np.int64]) -> NDArray[np.str_]:
        """Frame ids of some rows."""
        return np.asarray(self.frame_id.take(pa.array(rows)).to_pylist(), np.str_)


def check(con: duckdb.DuckDBPyConnection, select: SelectConfig) -> None:
    """Refuse settings that are no SQL over ``mined``, with DuckDB's words. Reads no rows."""
    for name, text in _expressions(select).items():
        check_expression(con, name, text, select, is_condition=name.endswith("where"))


def check_expression(
    con: duckdb.DuckDBPyConnection, name: str, text: str, select: SelectConfig, *, is_condition: bool = False
) -> None:
    """Refuse a text that is not one SQL expression over ``mined``; ``name`` is what a person mends."""
    if select.like:
        con.execute("CREATE OR REPLACE TEMP VIEW seen AS SELECT *, 0.0::FLOAT AS likeness FROM mined")
    else:
        con.execute("CREATE OR REPLACE TEMP VIEW seen AS FROM mined")
    # One row of NULL: an expression must make one value of it, else it would add or lose frames.
    one = con.sql("SELECT seen.* FROM (SELECT 1) LEFT JOIN (FROM seen LIMIT 0) AS seen ON true").set_alias(
        "mined"
    )
    what = "condition" if is_condition else "expression"
    try:
        expression = duckdb.SQLExpression(text)  # DuckDB's words for what does not parse
        check_that_it_reads(con, f"SELECT {text}")
        # Beside a column, so that an aggregate is refused; in an order, so that a type without one is.
        found = one.select("frame_id", expression).order("2")
        rows, kind = len(found.fetchall()), str(found.types[1])
    except duckdb.Error as error:
        raise unreadable(error) or UsageError(
            f"{name} is not one SQL {what} over `mined`: {said(error)}"
        ) from None
    except QueryError as error:
        raise UsageError(f"{name}: {error}") from None
    if rows != 1:
        raise UsageError(
            f"{name} makes {rows} values of one frame: it must be one SQL {what} over `mined`, without unnest"
        )
    if is_condition and kind != "BOOLEAN":
        raise UsageError(
            f"{name} is of type {kind}, and a condition must be true or false: compare it with something"
        )


def list_given_out(
    con: duckdb.DuckDBPyConnection, batch_ids: Sequence[str] | None, import_ids: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Make the table ``given_out``: frames that batches hold, that were delivered, or that are labelled.

    Its columns are frame_id, the last batch that gave it out (or that it was labelled in), and whether it is only labelled.

    Args:
        con: has the views of the stores.
        batch_ids: the batches that count; all where None.
        import_ids: the imports of labels that count; all where None.

    Returns:
        The batches and the imports that are in it, in order.
    """
    given = {
        "batches": None if batch_ids is None else list(batch_ids),
        "imports": None if import_ids is None else list(import_ids),
    }
    con.execute(
        "CREATE OR REPLACE TEMP TABLE given_out AS "
        "SELECT frame_id, max(batch_id) AS batch_id, bool_and(labelled) AS only_labelled FROM ("
        # What was dropped in review stays given out, and so does a replacement whose place was given back.
        "SELECT frame_id, batch_id, false AS labelled FROM batch_frames "
        "WHERE (in_batch OR origin <> 'extra') AND ($batches IS NULL OR batch_id = ANY($batches::VARCHAR[])) "
        # A batch that another site chose is known here by what was delivered of it.
        "UNION SELECT frame_id, batch_id, false FROM exports "
        "WHERE status = 'ok' AND ($batches IS NULL OR batch_id = ANY($batches::VARCHAR[])) "
        "UNION SELECT frame_id, batch_id, true FROM labels "
        "WHERE $imports IS NULL OR import_id = ANY($imports::VARCHAR[])"
        ") GROUP BY frame_id",
        given,
    )
    batches = con.execute("SELECT DISTINCT batch_id FROM given_out WHERE NOT only_labelled ORDER BY ALL")
    names = [name for (name,) in batches.fetchall()]
    imports = con.execute(
        "SELECT DISTINCT import_id FROM labels WHERE $imports IS NULL OR import_id = ANY($imports::VARCHAR[]) ORDER BY ALL",
        {"imports": given["imports"]},
    )
    return names, [name for (name,) in imports.fetchall()]


def eligible_frames(
    con: duckdb.DuckDBPyConnection,
    select: SelectConfig,
    committee: Committee,
    recording_ids: Sequence[str],
    examples: FloatArray,
    also: Sequence[str] = (),
) -> Eligible:
    """Ask for the candidates.

    Args:
        con: has the views of the stores.
        select: the conditions.
        committee: whose scores count.
        recording_ids: the recordings that are looked at.
        examples: [m, d] embeddings that ``likeness`` is measured to; m is 0 where there are none.
        also: frames of these recordings that are listed whether they may be chosen or not.

    Raises:
        UsageError: a condition fails on the rows themselves (a text that is no number, say).
    """
    candidates = query(con, select, committee, recording_ids, examples)
    if also:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE also AS SELECT unnest(?::VARCHAR[]) AS frame_id", [list(also)]
        )
        own = con.sql(
            "SELECT m.* FROM mined AS m SEMI JOIN wanted USING (recording_id) SEMI JOIN also USING (frame_id) "
            "WHERE m.committee_id = $own_committee AND m.hardness IS NOT NULL AND m.embedding IS NOT NULL",
            params={"own_committee": committee.committee_id},
        )
        others = candidates.filter("frame_id NOT IN (FROM also)")
        candidates = others.union(with_likeness(con, own, examples)).set_alias("mined")
    quotas = [
        duckdb.SQLExpression(quota.by).cast("VARCHAR")
        if quota.by is not None
        else duckdb.CaseExpression(
            duckdb.SQLExpression(quota.where or "true"), duckdb.ConstantExpression(quota.title)
        )
        for quota in select.quota
    ]
    try:
        table = (
            candidates.select(
                "frame_id",
                duckdb.SQLExpression("hardness::FLOAT").alias("hardness"),
                # md5 and not random(): the draw must not change with threads, file order or DuckDB's version.
                duckdb.SQLExpression(f"md5_number_lower(concat({int(select.seed)}, '|', frame_id))").alias(
                    "draw"
                ),
                # A text with its length first: no two pairs of names make the same one.
                duckdb.SQLExpression("concat(length(drive_id), ':', drive_id, camera)").alias("camera"),
                duckdb.SQLExpression("epoch_us(captured_at)").alias("at_us"),
                "perceptual_hash",
                duckdb.SQLExpression(select.stratify_by).cast("VARCHAR").alias("stratum"),
                # NaN (0 / 0) is no value; DuckDB sorts it above all others.
                duckdb.SQLExpression(
                    f"CASE WHEN isnan(TRY_CAST(({order_of(select)}) AS DOUBLE)) THEN NULL ELSE ({order_of(select)}) END"
                ).alias("priority"),
                duckdb.SQLExpression(f"TRY_CAST(({order_of(select)}) AS DOUBLE)").alias("value"),
                *(quota.alias(f"slice_{i}") for i, quota in enumerate(quotas)),
            )
            .order("priority DESC NULLS LAST, frame_id")
            .to_arrow_table()
        )
    except duckdb.Error as error:
        raise unreadable(error) or UsageError(f"the candidates cannot be asked for: {said(error)}") from None
    labels = [_numbered(table[f"slice_{i}"]) for i in range(len(quotas))]
    return Eligible(
        frame_id=table["frame_id"].combine_chunks(),
        hardness=table["hardness"].to_numpy(),
        priority=np.asarray(table["value"].to_numpy(), np.float64),
        draw=table["draw"].to_numpy(),
        camera=_numbered(table["camera"])[0],
        at_us=table["at_us"].to_numpy(),
        perceptual_hash=pc.fill_null(table["perceptual_hash"], 0).to_numpy(),
        stratum=_numbered(table["stratum"])[0],
        slices=np.stack([numbers for numbers, _ in labels], axis=1)
        if labels
        else np.empty((len(table), 0), np.int32),
        slice_names=tuple(names for _, names in labels),
    )


def query(
    con: duckdb.DuckDBPyConnection,
    select: SelectConfig,
    committee: Committee,
    recording_ids: Sequence[str],
    examples: FloatArray,
) -> duckdb.DuckDBPyRelation:
    """Build the candidate query (``sql/candidates.sql`` and the config's ``where``); nothing is read yet."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS recording_id",
        [list(recording_ids)],
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE earlier AS SELECT DISTINCT drive_id, camera, epoch_us(captured_at) AS at_us "
        "FROM frames SEMI JOIN given_out USING (frame_id)"
    )
    parameters = {"committee_id": committee.committee_id, "reach_us": reach_us(select.min_gap_s)}
    found = with_likeness(con, con.sql(sql_file("candidates"), params=parameters), examples)
    # Conditions may name the view: at_night(mined).
    return found.filter(duckdb.SQLExpression(select.where)).set_alias("mined")


def with_likeness(
    con: duckdb.DuckDBPyConnection, frames: duckdb.DuckDBPyRelation, examples: FloatArray
) -> duckdb.DuckDBPyRelation:
    """Add the column ``likeness``, the cosine to the nearest of ``examples`` [m, d], where there are any."""
    if not len(examples):
        return frames.set_alias("mined")
    con.register("examples", pa.table({"example": pa.array(examples.tolist(), pa.list_(pa.float32()))}))
    # Vectors have length 1: their inner product is the cosine.
    cosine = "(SELECT max(list_inner_product(embedding, example)) FROM examples)"
    return frames.select(f"*, greatest({cosine}, 0)::FLOAT AS likeness").set_alias("mined")


def read_embeddings(
    con: duckdb.DuckDBPyConnection, committee: Committee, names: NDArray[np.str_], *, known_only: bool = False
) -> FloatArray:
    """[m, d] embeddings of frames, in the order of ``names``, each of length 1; d is right for m = 0 too.

    ``known_only`` leaves out frames that this committee has not looked at.
    """
    con.register("named", pa.table({"frame_id": pa.array(names, pa.string())}))
    try:
        found = con.sql(
            "SELECT frame_id, embedding FROM observations SEMI JOIN named USING (frame_id) "
            "WHERE committee_id = $committee_id AND embedding IS NOT NULL",
            params={"committee_id": committee.committee_id},
        ).to_arrow_table()
    finally:
        con.unregister("named")
    if not len(found):
        size = con.execute(
            "SELECT len(embedding) FROM observations WHERE committee_id = ? AND embedding IS NOT NULL LIMIT 1",
            [committee.committee_id],
        ).fetchall()
        return np.empty((0, size[0][0] if size else 1), np.float32)
    where = pc.index_in(pa.array(names, pa.string()), value_set=found["frame_id"].combine_chunks())
    if known_only:
        where = where.drop_null()
    vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
    return np.ascontiguousarray(vectors[where.to_numpy()], np.float32)


def read_footage(
    con: duckdb.DuckDBPyConnection, committee: Committee, recording_ids: Sequence[str]
) -> tuple[pa.StringArray, Footage, NDArray[np.int64]]:
    """Read the embeddings of whole recordings, and of what is around the latest ``LATEST`` frames that were given out.

    Held in half precision: 2 bytes a number, of every frame of these recordings.

    Returns:
        [F] frame ids; the footage in the same order; [t] its rows that were given out.
    """
    con.execute(
        "CREATE OR REPLACE TEMP TABLE latest AS SELECT frame_id, recording_id, pts_ns "
        "FROM frames JOIN given_out USING (frame_id) ORDER BY batch_id DESC, frame_id LIMIT $latest",
        {"latest": LATEST},
    )
    found = con.sql(
        sql_file("footage"),
        params={
            "committee_id": committee.committee_id,
            "recordings": list(recording_ids),
            "around_ns": int(AROUND_S * 1e9),
        },
    )
    names, recording, time_s, vectors = [], [], [], []
    for rows in found.to_arrow_reader(_ROWS_PER_READ):
        names.append(rows["frame_id"])
        recording.append(rows["recording"].to_numpy())
        time_s.append(rows["time_s"].to_numpy())
        flat = rows["embedding"].flatten().to_numpy().astype(np.float16)
        vectors.append(flat.reshape(len(rows), -1))
    if not names:
        return pa.array([], pa.string()), Footage.none(), np.empty(0, np.int64)
    number, time = np.concatenate(recording), np.concatenate(time_s)
    name = pa.concat_arrays(names)
    order = np.lexsort((name.to_numpy(zero_copy_only=False), time, number))
    footage = Footage(number[order], time[order], np.concatenate(vectors)[order])
    name = name.take(pa.array(order))
    latest = con.sql("SELECT frame_id FROM latest ORDER BY frame_id").to_arrow_table()["frame_id"]
    # What was given out may hold frames that this committee has not looked at.
    taken = pc.index_in(latest, value_set=name).drop_null().to_numpy().astype(np.int64)
    return name, footage, taken


def estimated_boxes(
    con: duckdb.DuckDBPyConnection, committee: Committee, names: NDArray[np.str_]
) -> NDArray[np.float64]:
    """[m] objects that the committee sees in each frame, any member at its threshold."""
    con.register("named", pa.table({"frame_id": pa.array(names, pa.string())}))
    con.register("members", members_table(committee))
    try:
        found = con.sql(
            sql_file("estimated_boxes"), params={"committee_id": committee.committee_id}
        ).to_arrow_table()
    finally:
        con.unregister("named")
        con.unregister("members")
    where = pc.index_in(pa.array(names, pa.string()), value_set=found["frame_id"].combine_chunks())
    return np.asarray(pc.fill_null(pc.take(found["boxes"], where), 0).to_numpy(), np.float64)


def members_table(committee: Committee) -> pa.Table:
    """The members and their thresholds, for a join."""
    return pa.table({"detector": list(committee.names), "threshold": list(committee.thresholds)})


def order_of(select: SelectConfig) -> str:
    """What the pool is the best of."""
    return select.order_by or ("likeness" if select.like else "hardness")


def reach_us(gap_s: float) -> int:
    """Frames at most this far apart are too near: one microsecond less than the gap."""
    return max(int(gap_s * 1e6) - 1, 0)


def said(error: duckdb.Error) -> str:
    """DuckDB's message in one line: what is wrong, and what it proposes, without the drawing of the query."""
    lines = str(error).split("\n\nLINE ")[0].splitlines()
    return " ".join(line.strip() for line in lines if line.strip()) or type(error).__name__


def _expressions(select: SelectConfig) -> dict[str, str]:
    """Every SQL text of the settings, by the key that a person mends."""
    found = {
        "select.where": select.where,
        "select.order_by": order_of(select),
        "select.stratify_by": select.stratify_by,
    }
    for i, quota in enumerate(select.quota):
        if quota.where is not None:
            found[f"select.quota.{i}.where"] = quota.where
        else:
            found[f"select.quota.{i}.by"] = quota.by or ""
    return found


def _numbered(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Turn texts into numbers from 0, -1 for NULL, and the list of texts in their order of numbers."""
    # Not VARCHAR from DuckDB as it stands: numbers must not depend on the order in which values are met.
    names = pc.unique(column.drop_null()).sort() if len(column) else pa.array([], pa.string())
    numbers = pc.fill_null(pc.index_in(column, value_set=names), -1)
    return np.asarray(numbers.to_numpy(), np.int32), tuple(names.to_pylist())
