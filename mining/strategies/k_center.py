"""Hard frames that differ from each other and from all that is taken: greedy k-center, weighted by hardness."""

from __future__ import annotations

import numpy as np

from mining.strategies.distance import nearest_similarity, to_distance
from mining.strategies.types import Candidates, Picks


def k_center(candidates: Candidates, k: int, seed: int) -> Picks:
    """Take, again and again, the frame with the largest hardness x distance to the nearest frame taken or picked.

    Farthest-first traversal (Gonzalez 1985), which is the core-set choice of Sener & Savarese (ICLR 2018), with the
    distance weighted by hardness. Where nothing is taken, the hardest frame is first. Where no frame has any value left,
    those of hardness 0 follow by distance, and at last the repeats (distance 0) by hardness. Equals go by frame_id.
    Greedy and exact; ``seed`` plays no part. One matrix-vector product a pick, and O(n) memory beside the embeddings.
    """
    if k < 0:
        raise ValueError(f"k is {k}; need 0 or above")
    n = len(candidates)
    # In order of frame_id the first of equal values wins; and the same rows meet the same arithmetic in any input order.
    by_name = np.argsort(candidates.frame_id, kind="stable")
    embeddings = candidates.embeddings if (np.diff(by_name) == 1).all() else candidates.embeddings[by_name]
    hardness = candidates.hardness[by_name]
    nearest = nearest_similarity(embeddings, candidates.taken)
    free = np.ones(n, dtype=bool)
    picks = np.empty(min(k, n), dtype=np.int64)
    distance_to_nearest = np.full(len(picks), np.nan, dtype=np.float32)

    for turn in range(len(picks)):
        if turn == 0 and not len(candidates.taken):
            pick = int(hardness.argmax())
        else:
            distance = to_distance(nearest)
            for value in (hardness * distance, distance, hardness):
                pick = int(np.where(free, value, np.float32(-1.0)).argmax())
                if value[pick] > 0:
                    break
            distance_to_nearest[turn] = distance[pick]
        picks[turn] = pick
        free[pick] = False
        np.maximum(nearest, embeddings @ embeddings[pick], out=nearest)
    return Picks(by_name[picks], distance_to_nearest)
