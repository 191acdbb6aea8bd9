"""Frames drawn where there is much to cover: k-means++ seeding, weighted by hardness."""

from __future__ import annotations

import numpy as np

from mining.strategies.distance import distances_when_picked, nearest_similarity, to_distance
from mining.strategies.types import Candidates, Picks, check_k


def k_means_pp(candidates: Candidates, k: int, seed: int) -> Picks:
    """Draw, again and again, a frame with a chance in proportion to hardness x distance^2 to what is taken or picked.

    The D^2 sampling of Arthur & Vassilvitskii (SODA 2007) with the points weighted by hardness: an outlier is likely, but
    not certain, to be drawn, and so are places where many frames lie. Where nothing is taken, the first is drawn in
    proportion to hardness. Where no frame has any chance left, those of hardness 0 follow by distance^2, and at last the
    repeats (distance 0), the hardest first. Equals go by frame_id.

    Only the seed and the frames decide, not the order of the rows. One pass over the embeddings a pick: O(n d k).
    """
    check_k(k)
    n = len(candidates)
    by_name = np.argsort(candidates.frame_id, kind="stable")
    embeddings, hardness = candidates.embeddings[by_name], candidates.hardness[by_name].astype(np.float64)
    rng = np.random.default_rng(seed)
    near = nearest_similarity(embeddings, candidates.taken)
    free = np.ones(n)
    picks: list[int] = []
    while len(picks) < min(k, n):
        # Nothing is near to anything yet: all distances count the same.
        square = to_distance(near).astype(np.float64) ** 2 if picks or len(candidates.taken) else np.ones(n)
        chances = (np.cumsum(free * chance) for chance in (hardness * square, square))
        total = next((chance for chance in chances if chance[-1] > 0), None)
        if total is None:
            rest = np.flatnonzero(free)
            picks += rest[np.argsort(-hardness[rest], kind="stable")].tolist()
            break
        # The draw is below the last sum, and equal sums (no chance) are stepped over: what it finds has a chance.
        pick = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        pick = min(pick, int(np.searchsorted(total, total[-1])))
        picks.append(pick)
        free[pick] = 0
        np.maximum(near, np.vecdot(embeddings, embeddings[pick]), out=near)
    order = np.asarray(picks[:k], np.int64)
    return Picks(by_name[order], distances_when_picked(embeddings[order], candidates.taken))
