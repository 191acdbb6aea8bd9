"""Frames drawn blindly: what mining is measured against."""

from __future__ import annotations

import numpy as np

from mining.strategies.distance import distances_when_picked
from mining.strategies.types import Candidates, Picks, check_k


def random_draw(candidates: Candidates, k: int, seed: int) -> Picks:
    """Draw uniformly without replacement. Rows are put in order of frame_id first, so that only the seed decides."""
    check_k(k)
    by_name = np.argsort(candidates.frame_id, kind="stable")
    index = by_name[np.random.default_rng(seed).permutation(len(candidates))[:k]]
    return Picks(index, distances_when_picked(candidates.embeddings[index], candidates.taken))
