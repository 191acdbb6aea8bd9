"""How well a signal finds errors: AUROC, rank correlation, lift of the top tenth, and bootstrap intervals. Pure functions.

A frame whose signal could not be computed (NaN) stands in the middle, as in ``hardness``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mining import yield_summary

Float64Array = NDArray[np.float64]

TOP_SHARE = 0.1
"""The part of the frames that a batch would hold."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Worth:
    """What one signal is worth."""

    auroc: float
    """Chance that a frame with more errors per object than the median frame has the higher signal."""
    with_errors: float
    """Spearman's rank correlation with errors."""
    with_rate: float
    """Spearman's rank correlation with errors per object."""
    error_lift: Interval
    """Mean errors of the top tenth over the mean of all frames."""
    rate_lift: Interval
    """Mean errors per object of the top tenth over the mean of all frames."""


def worth(
    signal: Float64Array, errors: Float64Array, rate: Float64Array, resamples: NDArray[np.int64]
) -> Worth:
    """Measure one signal [F] against errors [F] and errors per object [F]; ``resamples`` is [B, F] frame numbers."""
    signal = middle_for_nan(signal)
    lifts = np.array([_lifts(signal[i], errors[i], rate[i]) for i in resamples])
    now = _lifts(signal, errors, rate)
    low, high = np.nanquantile(lifts, [0.025, 0.975], axis=0)
    return Worth(
        auroc=auroc(signal, rate > np.median(rate)),
        with_errors=spearman(signal, errors),
        with_rate=spearman(signal, rate),
        error_lift=Interval(now[0], float(low[0]), float(high[0])),
        rate_lift=Interval(now[1], float(low[1]), float(high[1])),
    )


def paired_difference(
    a: Float64Array, b: Float64Array, errors: Float64Array, resamples: NDArray[np.int64]
) -> Interval:
    """Rank correlation of ``a`` with errors less that of ``b``, both on the same resampled frames."""
    a, b = middle_for_nan(a), middle_for_nan(b)
    differences = [spearman(a[i], errors[i]) - spearman(b[i], errors[i]) for i in resamples]
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return Interval(spearman(a, errors) - spearman(b, errors), float(low), float(high))


def interval(of: Callable[[NDArray[np.int64]], float], frames: int, resamples: NDArray[np.int64]) -> Interval:
    """Any figure of a choice of frames, with its interval."""
    low, high = np.nanquantile([of(i) for i in resamples], [0.025, 0.975])
    return Interval(of(np.arange(frames)), float(low), float(high))


def bootstrap(frames: int, times: int, seed: int = 0) -> NDArray[np.int64]:
    """[times, frames] frame numbers, drawn with replacement."""
    return np.random.default_rng(seed).integers(0, frames, (times, frames))


def top_weights(signal: Float64Array, share: float = TOP_SHARE) -> Float64Array:
    """[F] 1 for frames in the top ``share``, 0 below; frames tied at the border share the places that are left."""
    places = max(1, round(len(signal) * share))
    border = np.partition(signal, len(signal) - places)[len(signal) - places]
    above, tied = signal > border, signal == border
    return above + tied * ((places - above.sum()) / tied.sum())


def lift(signal: Float64Array, values: Float64Array) -> float:
    """Mean of ``values`` in the top tenth over their mean; NaN where their mean is 0."""
    mean = values.mean()
    return float(np.average(values, weights=top_weights(signal)) / mean) if mean > 0 else float("nan")


def _lifts(signal: Float64Array, errors: Float64Array, rate: Float64Array) -> tuple[float, float]:
    weights = top_weights(signal)
    top = weights.sum()
    return tuple(  # type: ignore[return-value]
        float(v @ weights / top / v.mean()) if v.any() else float("nan") for v in (errors, rate)
    )


def auroc(signal: Float64Array, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney); NaN where one of the two kinds is absent."""
    p, n = int(positive.sum()), int((~positive).sum())
    if p == 0 or n == 0:
        return float("nan")
    return float((rankdata(signal)[positive].sum() - p * (p + 1) / 2) / (p * n))


def spearman(a: Float64Array, b: Float64Array) -> float:
    """Spearman's rank correlation, ties by mean rank; NaN where one does not vary."""
    return float(yield_summary.spearman(a[:, None], b)[0])


def middle_for_nan(signal: Float64Array) -> Float64Array:
    """NaN becomes the median of the rest; a signal that was never computed is 0 everywhere."""
    known = ~np.isnan(signal)
    return np.where(known, signal, np.median(signal[known]) if known.any() else 0.0)
