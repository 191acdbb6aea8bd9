"""A fair share of the batch for every stratum: a city, a camera, a weather."""

from __future__ import annotations

import numpy as np

from mining.strategies.distance import distances_when_picked
from mining.strategies.types import Candidates, Picks, check_k


def stratified(candidates: Candidates, k: int, seed: int) -> Picks:
    """Give each stratum picks in proportion to its candidates, and choose its hardest; equals go by frame_id.

    Shares are rounded by largest remainder (Hamilton); equal remainders go by the stratum's name. So a smaller batch need
    not be the beginning of a larger one. The picks of all strata come in order of falling hardness. ``seed`` and what is
    taken play no part.
    """
    check_k(k)
    n = len(candidates)
    k = min(k, n)
    _, stratum, size = np.unique(candidates.stratum, return_inverse=True, return_counts=True)
    if not n:
        return Picks(np.empty(0, np.int64), np.empty(0, np.float32))
    share, remainder = np.divmod(k * size, n)
    share[np.argsort(-remainder, kind="stable")[: k - share.sum()]] += 1
    hardest_first = np.lexsort((candidates.frame_id, -candidates.hardness))
    # Sorting by stratum, stably, leaves the hardest of each at the front of its run.
    by_stratum = hardest_first[np.argsort(stratum[hardest_first], kind="stable")]
    place = np.arange(n) - np.repeat(np.cumsum(size) - size, size)
    chosen = np.zeros(n, bool)
    chosen[by_stratum[place < np.repeat(share, size)]] = True
    index = hardest_first[chosen[hardest_first]]
    return Picks(index, distances_when_picked(candidates.embeddings[index], candidates.taken))
