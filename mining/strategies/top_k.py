"""The hardest frames, however alike they are."""

from __future__ import annotations

import numpy as np

from mining.strategies.distance import distances_when_picked
from mining.strategies.types import Candidates, Picks, check_k


def top_k(candidates: Candidates, k: int, seed: int) -> Picks:
    """Choose by falling hardness, equals by frame_id; ``seed`` plays no part."""
    check_k(k)
    index = np.lexsort((candidates.frame_id, -candidates.hardness))[:k]
    return Picks(index, distances_when_picked(candidates.embeddings[index], candidates.taken))
