"""What a strategy takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """``n`` frames that may be chosen, in any order, and what is taken already."""

    frame_id: NDArray[np.str_]
    """[n] unique names; equal values are ordered by them."""
    hardness: FloatArray
    """[n] in 0..1."""
    embeddings: FloatArray
    """[n, d], each of length 1."""
    taken: FloatArray
    """[m, d] embeddings, each of length 1, of frames that are labelled or were chosen before; m may be 0."""

    stratum: NDArray[np.str_] = field(default_factory=lambda: np.array(""))
    """[n] the group that a frame counts towards; one name alone stands for all rows."""

    def __post_init__(self) -> None:
        """Check shapes and values; the message says what to mend."""
        n = len(self.frame_id)
        if self.frame_id.dtype.kind != "U":
            raise ValueError(f"Candidates.frame_id must be an array of str, got {self.frame_id.dtype}")
        if self.stratum.ndim == 0:
            object.__setattr__(self, "stratum", np.broadcast_to(self.stratum, (n,)))
        if self.stratum.dtype.kind != "U" or self.stratum.shape != (n,):
            raise ValueError(
                f"Candidates.stratum must be an array of str of shape {(n,)}, "
                f"got {self.stratum.dtype} of shape {self.stratum.shape}"
            )
        for what in ("hardness", "embeddings", "taken"):
            if getattr(self, what).dtype != np.float32:
                raise ValueError(f"Candidates.{what} must be float32, got {getattr(self, what).dtype}")
        if self.hardness.shape != (n,):
            raise ValueError(f"Candidates.hardness has shape {self.hardness.shape}, not {(n,)}")
        if self.embeddings.ndim != 2 or len(self.embeddings) != n:
            raise ValueError(f"Candidates.embeddings has shape {self.embeddings.shape}, not ({n}, d)")
        if self.taken.ndim != 2 or self.taken.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"Candidates.taken has shape {self.taken.shape}, not (m, {self.embeddings.shape[1]}): "
                "embeddings of one detector only compare with each other"
            )
        if not ((self.hardness >= 0) & (self.hardness <= 1)).all():
            raise ValueError("Candidates.hardness must lie in 0..1; leave out frames without a score")
        for what, vectors in (("embeddings", self.embeddings), ("taken", self.taken)):
            length = np.sqrt(np.vecdot(vectors, vectors))
            if np.isnan(length).any():
                raise ValueError(
                    f"Candidates.{what} holds NaN in {int(np.isnan(length).sum())} of {len(length)} rows; "
                    "leave out frames without an embedding"
                )
            if (abs(length - 1) > 1e-3).any():
                raise ValueError(
                    f"Candidates.{what} must have length 1, got {length.min():.4g} to {length.max():.4g}; "
                    "divide each by its norm"
                )

    def __len__(self) -> int:
        """How many frames may be chosen."""
        return len(self.frame_id)


@dataclass(frozen=True, slots=True)
class Picks:
    """What was chosen, the best first."""

    index: NDArray[np.int64]
    """[p] rows of ``Candidates``, none twice; p = min(k, n)."""
    distance_to_nearest: FloatArray
    """[p] Euclidean distance (0..2) of each pick to the nearest frame taken or picked before it; NaN where there was
    none yet."""


def check_k(k: int) -> None:
    """Raise ValueError for a negative number of picks."""
    if k < 0:
        raise ValueError(f"k is {k}; need 0 or above")


class Strategy(Protocol):
    """Choose ``min(k, n)`` of ``n`` candidates. Same input and seed, same picks, whatever the order of the rows."""

    def __call__(self, candidates: Candidates, k: int, seed: int) -> Picks:
        """Choose; raises ValueError for a negative ``k``."""
        ...
