"""How fast is ``k_center``, and does it pick what the plain greedy algorithm picks?

    python tools/bench_select.py [--rows 1000000] [--picks 2000] [--ratio-rows 100000] [--ratio-picks 500] [--verify] [--json]

Two kinds of data: random directions that are all equally hard (no bound helps much: the worst case), and clusters with
hardness of any size (what embeddings of drives are like). Bars, on 2 cores:

- ``--rows`` candidates x 128-d, ``--picks`` picks: under 30 s and under 4 GB, both kinds.
- ``--ratio-rows`` candidates: at least 15 times as fast as scikit-activeml's core-set, with the same picks. It is no
  dependency of the project: ``pip install scikit-activeml`` to see this bar; it is left open (null) without it.

Picks are compared with the plain algorithm's at a smaller size, and at full size with ``--verify`` (some minutes). BLAS
gets one thread unless OPENBLAS_NUM_THREADS says otherwise: with several, they wait for each other on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it once, when it is imported

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.strategies import STRATEGIES, Candidates
from mining.strategies.distance import SAME_BELOW

BAR_S, BAR_GB, BAR_RATIO = 30.0, 4.0, 15.0
DIMENSIONS = 128
SMALL_ROWS, SMALL_PICKS = 20_000, 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--picks", type=int, default=2000)
    parser.add_argument("--ratio-rows", type=int, default=100_000)
    parser.add_argument("--ratio-picks", type=int, default=500)
    parser.add_argument("--verify", action="store_true", help="compare all picks at full size too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.rows, options.picks, options.ratio_rows, options.ratio_picks) < 2:
        parser.error("--rows, --picks, --ratio-rows and --ratio-picks need at least 2")

    figures = []
    for kind, make in KINDS.items():
        candidates = make(options.rows)
        _, wall, cpu = timed(candidates, options.picks)
        # The peak so far of the whole process, in which the data was made too; kinds come one after the other.
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        what = f"{options.picks:,} of {options.rows:,}, {kind}"
        figures += [figure(f"seconds, {what}", wall, BAR_S, wall < BAR_S, cpu_s=cpu)]
        figures += [figure(f"peak GB, {what}", peak_gb, BAR_GB, peak_gb < BAR_GB)]
    for kind, make in KINDS.items():
        size = (options.rows, options.picks) if options.verify else (SMALL_ROWS, SMALL_PICKS)
        rows, count = min(size[0], options.rows), min(size[1], options.picks)
        candidates = make(rows)
        other = differing(timed(candidates, count)[0], plain_greedy(candidates, count))
        figures += [
            figure(f"picks unlike the plain algorithm's, {count:,} of {rows:,}, {kind}", other, 0, other == 0)
        ]
    figures += against_core_set(options.ratio_rows, options.ratio_picks)
    for row in figures:
        said = {True: "holds", False: "FAILS", None: "open "}[row["holds"]]
        value = "not measured" if row["value"] is None else f"{row['value']:.4g}"
        print(
            f"{said}  {row['what']}: {value} (bar {row['bar']:g})"
            + (f", {row['note']}" if "note" in row else "")
        )
    if options.json:
        threads = os.environ["OPENBLAS_NUM_THREADS"]
        print(json.dumps({"figures": figures, "blas_threads": threads, "holds": all_hold(figures)}))


def random_directions(rows: int) -> Candidates:
    """Directions drawn evenly, all equally hard."""
    rng = np.random.default_rng(0)
    return candidates_of(rng.standard_normal((rows, DIMENSIONS), dtype=np.float32), np.ones(rows, np.float32))


def clusters(rows: int) -> Candidates:
    """One cluster for every 500 frames, of any hardness."""
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((max(rows // 500, 1), DIMENSIONS), dtype=np.float32))
    vectors = rng.standard_normal((rows, DIMENSIONS), dtype=np.float32)
    vectors *= 0.03
    vectors += centres[rng.integers(0, len(centres), rows)]
    return candidates_of(vectors, rng.random(rows, dtype=np.float32))


KINDS = {"random directions, equally hard": random_directions, "clusters, any hardness": clusters}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row, in place, by its length."""
    vectors /= np.sqrt(np.vecdot(vectors, vectors))[:, None]
    return vectors


def candidates_of(vectors: NDArray[np.float32], hardness: NDArray[np.float32]) -> Candidates:
    """Candidates with names as long as real ones; nothing is taken."""
    frame_id = np.array([f"{i:028d}" for i in range(len(vectors))])
    return Candidates(frame_id, hardness, unit(vectors), np.empty((0, DIMENSIONS), np.float32))


def timed(candidates: Candidates, picks: int) -> tuple[NDArray[np.int64], float, float]:
    """Picks of ``k_center``, and its seconds by wall and by CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    index = STRATEGIES["k_center"](candidates, picks, 0).index
    return index, time.perf_counter() - wall, time.process_time() - cpu


def plain_greedy(candidates: Candidates, picks: int) -> NDArray[np.int64]:
    """The definition of ``k_center``: after each pick every row is compared with it. Rows must be in order of frame_id."""
    vectors = candidates.embeddings.astype(np.float64)
    square = np.vecdot(vectors, vectors)
    squared_distance = np.full(len(vectors), np.inf)
    for other in candidates.taken.astype(np.float64):
        np.minimum(
            squared_distance, square + other @ other - 2 * np.vecdot(vectors, other), out=squared_distance
        )
    free = np.ones(len(vectors), bool)
    index: list[int] = []
    while len(index) < min(picks, len(vectors)):
        distance = np.sqrt(np.maximum(squared_distance, 0))
        distance[distance < SAME_BELOW] = 0
        if not index and not len(candidates.taken):
            distance[:] = 1
        for value in (candidates.hardness * distance, distance, candidates.hardness):
            pick = int(np.where(free, value, -1.0).argmax())
            if value[pick] > 0:
                break
        index.append(pick)
        free[pick] = False
        products = np.vecdot(vectors, vectors[pick])
        np.minimum(squared_distance, square + square[pick] - 2 * products, out=squared_distance)
    return np.asarray(index, np.int64)


def against_core_set(rows: int, picks: int) -> list[dict]:
    """The bar against scikit-activeml: embeddings in float64, as its distances in float32 are off by 1e-7."""
    what = f"times as fast as scikit-activeml's core-set, {picks:,} of {rows:,}"
    try:
        from skactiveml.pool import CoreSet
    except ModuleNotFoundError:
        return [figure(what, None, BAR_RATIO, None, note="scikit-activeml is not installed")]
    candidates = random_directions(rows)
    ours, wall, cpu = timed(candidates, picks)
    labels = np.full(rows, np.nan)
    labels[ours[0]] = 0  # the same start
    vectors = candidates.embeddings.astype(np.float64)
    began, began_cpu = time.perf_counter(), time.process_time()
    theirs = CoreSet(random_state=0).query(vectors, labels, batch_size=picks - 1)
    their_wall, their_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    other = differing(ours[1:], theirs)
    return [
        figure(
            what, their_wall / wall, BAR_RATIO, their_wall / wall >= BAR_RATIO, by_cpu_time=their_cpu / cpu
        ),
        figure("picks unlike scikit-activeml's", other, 0, other == 0),
    ]


def differing(index: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many places hold another pick."""
    return int((index != other).sum())


def figure(what: str, value: float | None, bar: float, holds: bool | None, **more: float | str) -> dict:
    return {"what": what, "value": value, "bar": bar, "holds": holds, **more}


def all_hold(figures: list[dict]) -> bool | None:
    """False where one fails, null where one is open."""
    holds = [row["holds"] for row in figures]
    return False if False in holds else None if None in holds else True


if __name__ == "__main__":
    main()
