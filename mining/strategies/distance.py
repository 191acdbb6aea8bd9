"""Distances between embeddings of length 1, where |x - y|^2 = 2 - 2 x.y."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

SAME_BELOW = 2e-3
"""Nearer than this two embeddings are one and the same (distance 0): float32 cannot tell them apart.

The rounding of a dot product of some hundred terms is a few 1e-7, which the square root above makes a few 1e-4.
"""

_ROWS_PER_BLOCK = 8192
_COLUMNS_PER_BLOCK = 1024


def to_distance(similarity: FloatArray) -> FloatArray:
    """Euclidean distance (0..2) from the dot product of vectors of length 1; elementwise."""
    distance = np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0, dtype=np.float32))
    return np.where(distance < SAME_BELOW, np.float32(0.0), distance)


def nearest_similarity(vectors: FloatArray, others: FloatArray) -> FloatArray:
    """[n] largest dot product of each of ``vectors`` [n, d] with any of ``others`` [m, d]; -inf where m is 0."""
    nearest = np.full(len(vectors), -np.inf, dtype=np.float32)
    for row in range(0, len(vectors), _ROWS_PER_BLOCK):
        rows = slice(row, row + _ROWS_PER_BLOCK)
        for column in range(0, len(others), _COLUMNS_PER_BLOCK):
            block = vectors[rows] @ others[column : column + _COLUMNS_PER_BLOCK].T
            np.maximum(nearest[rows], block.max(axis=1), out=nearest[rows])
    return nearest


def distances_when_picked(picked: FloatArray, taken: FloatArray) -> FloatArray:
    """[p] distance of each pick [p, d] to the nearest of ``taken`` [m, d] and of the picks before it; NaN if none."""
    nearest = nearest_similarity(picked, taken)
    for row in range(0, len(picked), _COLUMNS_PER_BLOCK):
        block = picked[row : row + _COLUMNS_PER_BLOCK]
        np.maximum(
            nearest[row : row + len(block)],
            nearest_similarity(block, picked[:row]),
            out=nearest[row : row + len(block)],
        )
        within = np.where(np.tri(len(block), k=-1, dtype=bool), block @ block.T, -np.inf).max(axis=1)
        np.maximum(nearest[row : row + len(block)], within, out=nearest[row : row + len(block)])
    return np.where(np.isneginf(nearest), np.float32(np.nan), to_distance(np.maximum(nearest, -1.0)))
