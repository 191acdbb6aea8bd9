"""How unsure one detector is of each of its boxes, from the box's full class vector.

A class vector holds one sigmoid score a class, in 0..1, NaN where the detector cannot see the class. The scores need not
sum to 1: a box may be a car *and* a truck to some degree, or hardly anything at all. So two views are offered. Least
confidence, margin and Bernoulli entropy take the scores as they are: each class is a yes-or-no question of its own, and a
weak box is an unsure box. Categorical entropy divides the vector by its sum first: *given* that something is there, which
class is it? That view forgets how strong the scores were, so (0.6, 0.2) and (0.06, 0.02) are the same to it.

Every function is high where the detector is unsure, and leaves out unseen classes. On vectors that sum to 1 the first
three equal those of modAL and scikit-activeml (with the margin turned round).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


def least_confidence(p: NDArray[np.floating]) -> Float64Array:
    """``1 - max p``: [n, c] -> [n] in 0..1. Settles, "Active Learning Literature Survey" (2009), section 3.1.

    NaN where no class is seen. modAL: ``classifier_uncertainty``.
    """
    return 1.0 - _two_best(p)[0]


def margin(p: NDArray[np.floating]) -> Float64Array:
    """``1 - (p1 - p2)``, best score less second best: [n, c] -> [n] in 0..1. Scheffer et al. (2001), Settles (2009).

    modAL's ``classifier_margin`` is ``p1 - p2``, low where unsure; this is 1 less that, high where unsure. Of a single
    seen class the second best is 0. NaN where no class is seen.
    """
    best, second = _two_best(p)
    return 1.0 - (best - second)


def entropy(p: NDArray[np.floating]) -> Float64Array:
    """Entropy of the class vector divided by its sum, in nats: [n, c] -> [n] in 0..ln c. Shannon (1948), Settles (2009).

    ``-sum q ln q`` with ``q = p / sum p``. NaN where no class is seen or all scores are 0 (there is nothing to divide).
    modAL: ``classifier_entropy``.
    """
    scores = _checked(p)
    seen_any = ~np.isnan(scores).all(axis=1)
    scores = np.nan_to_num(scores)
    total = scores.sum(axis=1)
    q = scores / np.where(total > 0, total, 1.0)[:, None]
    return np.where(seen_any & (total > 0), _minus_x_log_x(q).sum(axis=1), np.nan)


def bernoulli_entropy(p: NDArray[np.floating]) -> Float64Array:
    """Sum over the seen classes of the binary entropy of each score, in nats: [n, c] -> [n] in 0..c ln 2.

    ``sum -p ln p - (1 - p) ln(1 - p)``: the uncertainty of a sigmoid head, whose classes are independent questions.
    NaN where no class is seen.
    """
    scores = _checked(p)
    return np.where(~np.isnan(scores).all(axis=1), binary_entropy(np.nan_to_num(scores)).sum(axis=1), np.nan)


def binary_entropy(p: Float64Array) -> Float64Array:
    """``-p ln p - (1 - p) ln(1 - p)`` in nats, elementwise, 0 at 0 and 1; NaN stays NaN."""
    return _minus_x_log_x(p) + _minus_x_log_x(1.0 - p)


@dataclass(frozen=True, slots=True)
class FrameAggregate:
    """Values of boxes (or objects) gathered by frame. Each array is [F]."""

    max: Float64Array
    """Largest value; NaN in a frame that has none."""
    mean: Float64Array
    """Mean value; NaN in a frame that has none."""
    sum: Float64Array
    """Sum; 0 in a frame that has none. Grows with the number of boxes: over kept boxes it is hardly more than a count."""
    count: NDArray[np.int64]
    """How many values went in."""


def aggregate(values: NDArray[np.floating], frame: NDArray[np.integer], frame_count: int) -> FrameAggregate:
    """Gather values by frame. A NaN value was not computed, and is left out as if its box were not there.

    Args:
        values: [n] one a box or object.
        frame: [n] which frame it belongs to, in 0..frame_count - 1; any order.
        frame_count: F, frames without boxes included.

    Raises:
        ValueError: a frame number outside of 0..frame_count - 1.
    """
    if len(frame) and not 0 <= int(frame.min()) <= int(frame.max()) < frame_count:
        raise ValueError(
            f"aggregate: frames {frame.min()} to {frame.max()} do not lie in 0..{frame_count - 1}"
        )
    computed = ~np.isnan(values)
    values, frame = values[computed], frame[computed]
    count = np.bincount(frame, minlength=frame_count)
    total = sum_by(values, frame, frame_count)
    largest = np.full(frame_count, -np.inf)
    np.maximum.at(largest, frame, values)
    empty = count == 0
    return FrameAggregate(
        max=np.where(empty, np.nan, largest),
        mean=np.where(empty, np.nan, total / np.maximum(count, 1)),
        sum=total,
        count=count,
    )


def top_mean(
    values: NDArray[np.floating], frame: NDArray[np.integer], frame_count: int, k: int
) -> Float64Array:
    """[F] mean of the ``k`` largest values of each frame (of all, where it has fewer); NaN in a frame that has none.

    Between max (one odd box decides) and mean (many easy boxes hide the hard ones). Arguments as for ``aggregate``; a NaN
    value is left out.
    """
    computed = ~np.isnan(values)
    values, frame = values[computed], frame[computed]
    order = np.lexsort((-values, frame))
    count = np.bincount(frame, minlength=frame_count)
    first = np.cumsum(count) - count
    in_order = frame[order]
    top = np.arange(len(order)) - first[in_order] < k
    total = sum_by(values[order][top], in_order[top], frame_count)
    return np.where(count == 0, np.nan, total / np.maximum(np.minimum(count, k), 1))


def sum_by(values: NDArray[np.floating], group: NDArray[np.integer], group_count: int) -> Float64Array:
    """[group_count] sum of ``values`` [n] in each group; ``group`` [n] in 0..group_count - 1."""
    if not len(group):
        return np.zeros(group_count)  # numpy would answer with integers
    return np.bincount(group, weights=values, minlength=group_count).astype(np.float64)


def _checked(p: NDArray[np.floating]) -> Float64Array:
    """Class vectors in float64; refuses what is no score."""
    scores: Float64Array = np.asarray(p, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(f"class vectors need shape [n, c], got {list(scores.shape)}")
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError(
            f"class scores must lie in 0..1, got {np.nanmin(scores):.6g} to {np.nanmax(scores):.6g}"
        )
    return scores


def _two_best(p: NDArray[np.floating]) -> tuple[Float64Array, Float64Array]:
    """Best and second best score of each row; NaN where no class is seen, second best 0 where only one is."""
    scores = _checked(p)
    seen = (~np.isnan(scores)).sum(axis=1)
    padded = np.pad(np.where(np.isnan(scores), -1.0, scores), ((0, 0), (0, 2)), constant_values=-1.0)
    best_two = np.partition(padded, -2, axis=1)[:, -2:]
    best = np.where(seen > 0, best_two[:, 1], np.nan)
    return best, np.where(seen > 1, best_two[:, 0], np.where(seen > 0, 0.0, np.nan))


def _minus_x_log_x(x: Float64Array) -> Float64Array:
    """``-x ln x``, 0 at 0."""
    return -x * np.log(np.where(x > 0, x, 1.0))
