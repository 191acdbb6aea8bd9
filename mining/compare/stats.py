"""The statistics of a comparison: pure functions on arrays.

Frames of one drive are alike, so drives are what varies, and not frames. Every interval is made by leaving out one drive after
the other (the jackknife) and reading Student's t: of two nights with Welch's degrees of freedom (Arvesen, "Jackknifing
U-statistics", Annals of Mathematical Statistics 40, 1969; MacKinnon, Nielsen and Webb, "Fast and reliable jackknife and
bootstrap methods for cluster-robust inference", Journal of Applied Econometrics 38, 2023, who find it sound with few clusters,
where the bootstrap's intervals are too narrow). With one frame a drive, a difference of means is Welch's test, and
``superiority`` is Brunner and Munzel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]

LEAST_DRIVES = 3
"""With fewer on a side there is no interval: nothing says how much drives vary."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimates:
    """K figures; NaN where one cannot be had."""

    value: Float64Array
    """[K]"""
    low: Float64Array
    """[K] lower end of the 95 % interval."""
    high: Float64Array
    """[K]"""
    p: Float64Array
    """[K] how probable so large a figure is where there is nothing but noise."""


@dataclass(frozen=True, slots=True)
class Means:
    """K means over frames, and each again without one of the D drives."""

    value: Float64Array
    """[K]; NaN where there is no frame."""
    left_out: Float64Array
    """[D, K] NaN where a drive has no frame of a mean, or all of them."""


def means_of(totals: Float64Array, counts: Float64Array) -> Means:
    """Average over frames: ``totals`` [D, K] sums over each drive's frames, ``counts`` [D, K] or [D, 1] how many these are."""
    counts = np.broadcast_to(counts, totals.shape)
    total, count = totals.sum(axis=0), counts.sum(axis=0)
    rest = np.where(counts > 0, count - counts, 0)
    return Means(_ratio(total, count), _ratio(total - totals, rest))


def difference(before: Means, after: Means) -> Estimates:
    """Estimate ``after - before`` of two sets of drives that are independent of each other."""
    return jackknife(
        after.value - before.value, [after.value - before.left_out, after.left_out - before.value]
    )


def jackknife(value: Float64Array, left_out: Sequence[Float64Array], null: float = 0.0) -> Estimates:
    """Estimate K figures from their values without one drive.

    Args:
        value: [K] over all drives.
        left_out: for each independent set of drives, [D, K] the figures without one; NaN where a drive has no part in one.
        null: what the figure is where there is nothing but noise.
    """
    from scipy.special import stdtr, stdtrit

    variance, of_each = np.zeros(len(value)), np.zeros(len(value))
    enough = ~np.isnan(value)
    for figures in left_out:
        known = ~np.isnan(figures)
        drives = known.sum(axis=0)
        spread = np.square(np.where(known, figures - value, 0)).sum(axis=0) * (1 - 1 / np.maximum(drives, 1))
        variance += spread
        of_each += spread**2 / np.maximum(drives - 1, 1)
        enough &= drives >= LEAST_DRIVES
    enough &= variance > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(enough, np.sqrt(variance), np.nan)
        freedom = np.where(enough, variance**2 / of_each, np.nan)  # Welch and Satterthwaite
        half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
        p = 2 * stdtr(freedom, -np.abs(value - null) / error)
    return Estimates(value, value - half, value + half, p)


def superiority(
    values: NDArray[np.floating], is_after: NDArray[np.bool_], drive: IntArray, drives: int
) -> tuple[float, list[Float64Array]]:
    """Give the probability that a frame of after is above one of before, ties counted half; .5 is no difference.

    That is Mann and Whitney's U as a share, and the area under the ROC curve; its pieces by drive are those of Obuchowski,
    "Nonparametric analysis of clustered ROC curve data" (Biometrics 53, 1997).

    Args:
        values: [F] without NaN.
        is_after: [F] which side a frame is on.
        drive: [F] number of its drive, from 0.
        drives: D, how many there are.

    Returns:
        The probability, and without each drive of before [D] and of after [D]; NaN where a drive has no frame there.
    """
    order = np.argsort(values)
    ranked, after, of_drive = values[order], is_after[order], drive[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sizes = np.diff(np.append(starts, len(ranked)))
    after_there = np.add.reduceat(after, starts, dtype=np.int64)
    before_there = sizes - after_there
    # Of each frame, the share of the other side that it is above.
    above_before = np.repeat((np.cumsum(before_there) - before_there / 2) / max(before_there.sum(), 1), sizes)
    above_after = np.repeat((np.cumsum(after_there) - after_there / 2) / max(after_there.sum(), 1), sizes)
    found = []
    whole = np.zeros_like(of_drive)
    for side, share in ((~after, 1 - above_after), (after, above_before)):
        held = side.astype(np.float64)
        totals, counts = (by_drive(of_drive, whole, drives, 1, weights) for weights in (held * share, held))
        found.append(means_of(totals, counts))
    return float(found[1].value[0]), [one.left_out[:, 0] for one in found]


def decompose(
    counts_before: Float64Array,
    totals_before: Float64Array,
    counts_after: Float64Array,
    totals_after: Float64Array,
) -> Float64Array:
    """Split the change of a mean over C slices: [..., 4] total, within slices, mix of slices, slices that only one side has.

    Over the slices that both sides have, ``within`` is the change of each slice's mean at the average of its two shares, and
    ``mix`` the change of its share at the average of its two means (Kitagawa, "Components of a difference between two rates",
    Journal of the American Statistical Association 50, 1955). What slices of one side alone add to that side's mean cannot be
    told to be the one or the other and stands apart (Ñopo, "Matching as a tool to decompose wage gaps", Review of Economics and
    Statistics 90, 2008). The last three add up to the first.

    Args:
        counts_before: [..., C] frames of each slice.
        totals_before: [..., C] sum over them.
        counts_after: likewise.
        totals_after: likewise.
    """
    both = (counts_before > 0) & (counts_after > 0)
    shares, levels, means, common = [], [], [], []
    for counts, totals in ((counts_before, totals_before), (counts_after, totals_after)):
        shares.append(
            np.nan_to_num(_ratio(np.where(both, counts, 0), np.where(both, counts, 0).sum(-1, keepdims=True)))
        )
        levels.append(np.nan_to_num(_ratio(totals, counts)))
        means.append(_ratio(totals.sum(-1), counts.sum(-1)))
        common.append((shares[-1] * levels[-1]).sum(-1))
    within = ((shares[0] + shares[1]) / 2 * np.where(both, levels[1] - levels[0], 0)).sum(-1)
    mix = (np.where(both, levels[0] + levels[1], 0) / 2 * (shares[1] - shares[0])).sum(-1)
    total = means[1] - means[0]
    return np.stack([total, within, mix, total - (common[1] - common[0])], axis=-1)


def decomposition(
    counts: tuple[Float64Array, Float64Array], totals: tuple[Float64Array, Float64Array]
) -> Estimates:
    """Estimate the four of ``decompose`` from [D, C] counts and totals of each side's drives."""
    whole = [(counts[side].sum(axis=0), totals[side].sum(axis=0)) for side in (0, 1)]
    left_out = []
    for side in (0, 1):
        takes_part = counts[side].sum(axis=1, keepdims=True) > 0
        without = (whole[side][0] - counts[side], whole[side][1] - totals[side])
        sides = (without, whole[1]) if side == 0 else (whole[0], without)
        left_out.append(np.where(takes_part, decompose(*sides[0], *sides[1]), np.nan))
    return jackknife(decompose(*whole[0], *whole[1]), left_out)


def adjusted(p: Float64Array) -> Float64Array:
    """[K] p after Benjamini and Hochberg (1995): of those at most .05, some 5 % are false finds; NaN stays and does not count."""
    from scipy.stats import false_discovery_control  # imported here: it takes a second

    known = ~np.isnan(p)
    found = np.full(len(p), np.nan)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found


def places(values: NDArray[np.floating]) -> Float64Array:
    """[F] place of each value among all, 0 the lowest and 1 the highest, ties sharing their middle; .5 where there is one."""
    from scipy.stats import rankdata

    if len(values) < 2:
        return np.full(len(values), 0.5)
    return np.asarray((rankdata(values) - 1) / (len(values) - 1), np.float64)


def in_both_tops(one: NDArray[np.floating], other: NDArray[np.floating], size: int) -> int:
    """Count the frames that are among the ``size`` highest of both; equals in the order in which they stand."""
    tops = [np.argsort(-values, kind="stable")[:size] for values in (one, other)]
    return len(np.intersect1d(tops[0], tops[1]))


def by_drive(
    drive: IntArray, group: IntArray, drives: int, groups: int, weights: Float64Array | None = None
) -> Float64Array:
    """[drives, groups] count frames, or sum ``weights`` [F], by drive and group; a group of -1 is in none."""
    held = group >= 0
    cell = drive[held] * groups + group[held]
    summed = np.bincount(cell, None if weights is None else weights[held], drives * groups)
    return summed.reshape(drives, groups).astype(np.float64)


def _ratio(above: Float64Array, below: Float64Array) -> Float64Array:
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
