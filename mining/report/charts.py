"""What the charts of a page show: counts over the pool made in SQL, and samples of it where each frame is a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.report.cards import iso, rounded
from mining.report.scope import Scope
from mining.schemas import SIGNALS
from mining.store import sql_file

HARDNESS_BINS = 25
SIGNAL_BINS = 20
SAMPLE = 4000
"""Points of the pool in a scatter plot: more of them hide each other, and the page must stay small."""
_DRIVE_POINTS, _MOST_DRIVE_POINTS = 400, 40_000
"""Of hardness over time: of a drive, and of all together."""


def make_pool(con: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    """Make the table ``pool``: the scored frames of ``footage``, each signal's percentile as the number of its bin.

    The batch was chosen from these. A byte a signal: a table of all the percentiles would not fit a small machine's memory.
    """
    # `least` passes over NULL: what was not computed must not count as the highest.
    bins = ", ".join(
        f'CASE WHEN isfinite(s."{name}_pct") THEN least(floor(s."{name}_pct" * {SIGNAL_BINS}), {SIGNAL_BINS - 1})::UTINYINT END '
        f'AS "{name}"'
        for name, _ in SIGNALS
    )
    con.execute(
        "CREATE TEMP TABLE pool AS SELECT s.frame_id, s.drive_id, f.camera, f.captured_at, f.latitude_deg, f.longitude_deg, "
        f"s.hardness, s.classes, {bins} FROM scores AS s SEMI JOIN footage USING (recording_id) "
        "JOIN frames AS f ON f.frame_id = s.frame_id AND f.night = s.night "
        "WHERE s.committee_id = $committee_id AND s.hardness IS NOT NULL",
        {"committee_id": scope.committee.committee_id},
    )


def charts_of(
    con: duckdb.DuckDBPyConnection, scope: Scope, frames: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Make the charts' numbers from the table ``pool`` and the cards of the frames that are shown."""
    return {
        "hardness": _hardness(con, frames),
        "signals": _signals(con, scope, frames),
        "slices": _slices(con, scope),
        "hours": _hours(con, frames),
        "classes": _classes(con, frames),
        "map": _map(con, frames),
        "embedding": _embedding(con, scope, frames),
        "drives": _drives(con, frames),
    }


def _hardness(con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    arms = {"mined": [], "random": []}  # type: dict[str, list[float]]
    for frame in frames:
        if frame["hardness"] is not None:
            arms["random" if frame["arm"] == "random" else "mined"].append(frame["hardness"])
    return {
        "bins": HARDNESS_BINS,
        "pool": _counted(
            con, f"least(floor(hardness * {HARDNESS_BINS}), {HARDNESS_BINS - 1})::INTEGER", HARDNESS_BINS
        ),
        **{arm: _histogram(values, HARDNESS_BINS) for arm, values in arms.items()},
    }


def _signals(
    con: duckdb.DuckDBPyConnection, scope: Scope, frames: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Of each signal that has values: how the pool and the batch spread over its percentiles; those of hardness first."""
    weights = scope.config.score.hardness
    found = []
    for name, doc in SIGNALS:
        pool = _counted(con, f'"{name}"', SIGNAL_BINS)
        if any(pool):
            values = [p for frame in frames if (p := frame["percentiles"][name]) is not None]
            found.append(
                {
                    "name": name,
                    "doc": doc,
                    "weight": weights.get(name),
                    "pool": pool,
                    "batch": _histogram(values, SIGNAL_BINS),
                    "batch_mean": rounded(float(np.mean(values)), 3) if values else None,
                    "pool_mean": rounded(
                        float(np.average(np.arange(SIGNAL_BINS) + 0.5, weights=pool)) / SIGNAL_BINS, 3
                    ),
                }
            )
    return sorted(found, key=lambda signal: -(signal["weight"] or 0.0))


def _slices(con: duckdb.DuckDBPyConnection, scope: Scope) -> list[dict[str, Any]]:
    if scope.batch_id is None:
        return []
    return con.sql(
        "SELECT slice, floor, ceiling, eligible, chosen, lack FROM slices WHERE batch_id = $b ORDER BY slice",
        params={"b": scope.batch_id},
    ).to_arrow_table().to_pylist()  # fmt: skip


def _hours(con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch = [0] * 24
    for frame in frames:
        if frame["captured_at"] is not None:
            batch[int(frame["captured_at"][11:13])] += 1
    return {"pool": _counted(con, "hour(captured_at)", 24), "batch": batch}


def _classes(con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Frames in which any member sees a class at its threshold."""
    rows = con.execute(
        "SELECT class, count(*) AS frames FROM (SELECT unnest(string_split(classes, ',')) AS class FROM pool) "
        "WHERE class <> '' GROUP BY class ORDER BY frames DESC, class"
    ).fetchall()
    return [
        {"class": name, "pool": count, "batch": sum(name in frame["classes"] for frame in frames)}
        for name, count in rows
    ]


def _map(con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pool = con.execute(
        "SELECT longitude_deg, latitude_deg FROM pool WHERE isfinite(longitude_deg) AND isfinite(latitude_deg) "
        "ORDER BY hash(frame_id) LIMIT $n",
        {"n": SAMPLE},
    ).fetchall()
    known = con.execute("SELECT count(longitude_deg + latitude_deg) FROM pool").fetchall()[0][0]
    return {
        "pool": [[round(longitude, 6), round(latitude, 6)] for longitude, latitude in pool],
        "pool_frames": known,
        "chosen": [
            [frame["longitude_deg"], frame["latitude_deg"], position]
            for position, frame in enumerate(frames)
            if frame["longitude_deg"] is not None and frame["latitude_deg"] is not None
        ],
    }


def _embedding(
    con: duckdb.DuckDBPyConnection, scope: Scope, frames: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Project embeddings onto their two main directions (PCA), found on a sample of the pool."""
    con.execute(
        "CREATE TEMP TABLE sampled AS SELECT frame_id FROM pool ORDER BY hash(frame_id) LIMIT $n",
        {"n": SAMPLE},
    )
    places = {frame["frame_id"]: position for position, frame in enumerate(frames)}
    con.register("shown", pa.table({"frame_id": pa.array(list(places), pa.string())}))
    rows = con.sql(
        "SELECT frame_id, embedding, frame_id IN (FROM sampled) AS of_sample FROM observations "
        "SEMI JOIN (FROM sampled UNION FROM shown) USING (frame_id) "
        "WHERE committee_id = $committee_id AND embedding IS NOT NULL ORDER BY frame_id",
        params={"committee_id": scope.committee.committee_id},
    ).to_arrow_table()  # fmt: skip
    con.unregister("shown")
    con.execute("DROP TABLE sampled")
    of_sample = rows["of_sample"].to_numpy()
    if of_sample.sum() < 3:
        return {"pool": [], "chosen": [], "explained": []}
    vectors = np.stack(rows["embedding"].to_numpy()).astype(np.float64)
    points, explained = _plane(vectors, of_sample)
    names = rows["frame_id"].to_pylist()
    spots = np.round(points, 3).tolist()
    return {
        "pool": [spot for spot, sampled in zip(spots, of_sample, strict=True) if sampled],
        "chosen": [[*spot, places[name]] for name, spot in zip(names, spots, strict=True) if name in places],
        "explained": [rounded(share, 3) for share in explained],
    }


def _plane(
    vectors: NDArray[np.float64], of_sample: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[float]]:
    """[n, 2] places on the sample's two main directions, and the share of its variance that each holds."""
    centred = vectors - vectors[of_sample].mean(axis=0)
    sample = centred[of_sample]
    variance, directions = np.linalg.eigh(sample.T @ sample)
    main = directions[:, [-1, -2]]
    # Either sign would do; this one is the same on every machine.
    main = main * np.sign(main[np.abs(main).argmax(axis=0), [0, 1]])
    return centred @ main, (variance[[-1, -2]] / max(variance.sum(), 1e-12)).tolist()


def _drives(con: duckdb.DuckDBPyConnection, frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hardness over time of the drives that the frames are of, seconds from the first frame."""
    keys = sorted({(f["drive_id"], f["camera"]) for f in frames if f["drive_id"] is not None})
    if not keys:
        return []
    shown = {"drive_id": [drive for drive, _ in keys], "camera": [camera for _, camera in keys]}
    con.register(
        "shown", pa.table(shown, schema=pa.schema([("drive_id", pa.string()), ("camera", pa.string())]))
    )
    points = max(40, min(_DRIVE_POINTS, _MOST_DRIVE_POINTS // len(keys)))
    rows = con.sql(sql_file("report_drives"), params={"points": points}).to_arrow_table().to_pylist()
    con.unregister("shown")
    return [{**row, "started_at": iso(row["started_at"])} for row in rows]


def _counted(con: duckdb.DuckDBPyConnection, bin_of: str, bins: int) -> list[int]:
    """Count the pool's frames by a bin's number."""
    rows = con.execute(
        f"SELECT {bin_of} AS bin, count(*) FROM pool WHERE bin IS NOT NULL GROUP BY bin"
    ).fetchall()
    counts = [0] * bins
    for position, count in rows:
        counts[int(position)] = count
    return counts


def _histogram(shares: Sequence[float], bins: int) -> list[int]:
    """Count values in 0..1 as ``_counted`` does."""
    places = np.minimum(np.floor(np.asarray(shares, np.float64) * bins), bins - 1).astype(np.int64)
    return np.bincount(places, minlength=bins).tolist()
