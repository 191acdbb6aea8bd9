"""Frames that stand for many hard ones: lazy greedy facility location."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mining.strategies.distance import distances_when_picked
from mining.strategies.types import Candidates, Picks, check_k

_COLUMNS_PER_BLOCK = 4096
_ROWS_PER_BLOCK = 64
_FIRST_ROWS = 8
"""How many of the most promising frames are looked at first for each pick; each further look takes twice as many."""


def facility_location(candidates: Candidates, k: int, seed: int) -> Picks:
    """Take, again and again, the frame that adds most to the sum over all candidates i of hardness_i x cover_i.

    cover_i is the largest similarity, (1 + cosine) / 2, of candidate i to any frame taken or picked, and 0 where there is
    none. Greedy choice is within 1 - 1/e of the best sum (Nemhauser et al. 1978); what a frame adds only shrinks, so one
    whose last known gain is too small need not be looked at again (Minoux 1978; CELF, Leskovec et al. 2007). Gains that
    differ by n x 1e-13 or less are equal, and go by frame_id. Frames that add nothing come last, the hardest first.
    ``seed`` plays no part.

    Exact, in float64. Memory: 16 MB and two times the embeddings in float64. Time: 2 n d operations a look, one look at
    every frame at the start and again after the first pick, then some a pick (see docs/selection.md).
    """
    check_k(k)
    n = len(candidates)
    size = min(k, n)
    by_name = np.argsort(candidates.frame_id, kind="stable")
    vectors = candidates.embeddings[by_name].astype(np.float64)
    hardness = candidates.hardness[by_name].astype(np.float64)
    cover = _cover(vectors, candidates.taken.astype(np.float64))
    equal = n * 1e-13
    gain = np.full(n, np.inf)
    free = np.ones(n, bool)
    picks: list[int] = []
    while len(picks) < size:
        known = ~free
        rows = _FIRST_ROWS
        while True:
            best = gain[known & free].max(initial=-np.inf)
            stale = np.flatnonzero(~known & (gain >= best - equal))
            if not len(stale):
                break
            if len(stale) > rows:
                stale = stale[np.argpartition(gain[stale], len(stale) - rows)[len(stale) - rows :]]
            gain[stale] = _gain(vectors, stale, hardness, cover)
            known[stale] = True
            rows *= 2
        if best <= equal:
            rest = np.flatnonzero(free)
            picks += rest[np.argsort(-hardness[rest], kind="stable")].tolist()
            break
        pick = int((known & free & (gain >= best - equal)).argmax())
        picks.append(pick)
        free[pick] = False
        np.maximum(cover, (1 + vectors @ vectors[pick]) / 2, out=cover)
    order = np.asarray(picks[:size], np.int64)
    index = by_name[order]
    return Picks(index, distances_when_picked(candidates.embeddings[index], candidates.taken))


def _gain(
    vectors: NDArray[np.float64],
    rows: NDArray[np.int64],
    hardness: NDArray[np.float64],
    cover: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[r] what each of ``rows`` [r] would add."""
    gain = np.zeros(len(rows))
    for r in range(0, len(rows), _ROWS_PER_BLOCK):
        some = slice(r, r + _ROWS_PER_BLOCK)
        halves = vectors[rows[some]] / 2
        for c in range(0, len(vectors), _COLUMNS_PER_BLOCK):
            part = slice(c, c + _COLUMNS_PER_BLOCK)
            added = halves @ vectors[part].T
            added += 0.5 - cover[part]
            np.maximum(added, 0, out=added)
            gain[some] += added @ hardness[part]
    return gain


def _cover(vectors: NDArray[np.float64], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] largest similarity of each of ``vectors`` [n, d] to any of ``taken`` [m, d]."""
    cover = np.zeros(len(vectors))
    for r in range(0, len(taken), _ROWS_PER_BLOCK):
        for c in range(0, len(vectors), _COLUMNS_PER_BLOCK):
            part = slice(c, c + _COLUMNS_PER_BLOCK)
            similarity = (1 + taken[r : r + _ROWS_PER_BLOCK] @ vectors[part].T) / 2
            np.maximum(cover[part], similarity.max(axis=0), out=cover[part])
    return cover
