"""Every signal that one frame's detections give, by name: what ``scores`` holds a column of. Vectorised over frames.

The formulas stand in the modules beside this one; here is only which boxes each is taken over and how it is gathered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mining.signals.calibration import ScoreCalibration
from mining.signals.consensus import committee_errors
from mining.signals.disagreement import CommitteeBoxes, measure_disagreement
from mining.signals.expected import expected_errors
from mining.signals.localisation import edge_std_px, edge_std_relative
from mining.signals.uncertainty import (
    aggregate,
    bernoulli_entropy,
    entropy,
    least_confidence,
    margin,
    sum_by,
    top_mean,
)

Float64Array = NDArray[np.float64]
Signals = dict[str, Float64Array]

BOX_MEASURES = (
    "least_confidence",
    "margin",
    "entropy",
    "bernoulli_entropy",
    "box_std_px",
    "box_std_relative",
)
"""Measured on each kept box of the primary; each has ``_max``, ``_mean``, ``_sum``, ``_top3`` and ``_excess``."""
OBJECT_MEASURES = ("presence", "class_disagreement", "box_disagreement", "edge_deviation_px")
"""Measured on each object of the committee; each has ``_max``, ``_mean`` and ``_sum``."""
_SHARED_CLASSES = {"presence": 1, "class_disagreement": 2}
"""Classes that two members must share before they can disagree so; they can put any box elsewhere."""


def frame_signals(
    boxes: CommitteeBoxes,
    dense_max: NDArray[np.floating],
    dense_mean: NDArray[np.floating],
    calibrations: Sequence[ScoreCalibration] | None = None,
    class_weights: NDArray[np.floating] | None = None,
) -> Signals:
    """Compute every signal but those that need the reference (``with_excess``), time or the image.

    Args:
        boxes: the committee's boxes, matched; member 0 is the primary.
        dense_max: [F, c] the primary's largest binary entropy per class over all positions, NaN where unseen.
        dense_mean: [F, c] the same, mean.
        calibrations: [M] fitted on labels; scores are taken as they are where None.
        class_weights: [c] PPAL's weights of the classes; signals that need them are NaN where None.

    Returns:
        name -> [F], NaN where it cannot be computed: what the primary says where it failed, what the committee disagrees on
        where fewer than two members ran or none share a class, a mean or largest value without boxes.
    """
    count, threshold = len(boxes.ran), float(boxes.thresholds[0])
    primary = np.flatnonzero(boxes.member == 0)
    frame, scores = boxes.frame[primary], boxes.scores[primary]
    is_kept = scores >= threshold
    kept, kept_frame = primary[is_kept], frame[is_kept]
    if calibrations is None:
        expected = expected_errors(scores, frame, count, threshold)
    else:
        expected = expected_errors(
            calibrations[0].probability(scores),
            frame,
            count,
            float(calibrations[0].probability(boxes.thresholds[:1])[0]),
        )
    by_primary: Signals = {
        "box_count": np.bincount(kept_frame, minlength=count).astype(np.float64),
        "candidate_count": np.bincount(frame, minlength=count).astype(np.float64),
        "expected_missed": expected.missed,
        "expected_false": expected.false_alarms,
        "expected_error_rate": expected.rate,
    }

    p = boxes.class_scores[kept]
    std = None if boxes.box_std_px is None else boxes.box_std_px[primary]
    measured = {
        "least_confidence": least_confidence(p),
        "margin": margin(p),
        "entropy": entropy(p),
        "bernoulli_entropy": bernoulli_entropy(p),
        "box_std_px": _nan(len(kept)) if std is None else edge_std_px(std[is_kept]),
        "box_std_relative": _nan(len(kept))
        if std is None
        else edge_std_relative(std[is_kept], boxes.boxes_px[kept]),
    }
    for name in BOX_MEASURES:
        over_boxes = aggregate(measured[name], kept_frame, count)
        by_primary[f"{name}_max"], by_primary[f"{name}_mean"] = over_boxes.max, over_boxes.mean
        by_primary[f"{name}_sum"] = over_boxes.sum
        by_primary[f"{name}_top3"] = top_mean(measured[name], kept_frame, count, k=3)
    by_primary["candidate_box_std_px_sum"] = (
        _nan(count) if std is None else sum_by(np.nan_to_num(edge_std_px(std)), frame, count)
    )
    if std is None or (len(std) and np.isnan(std).all()):  # this head has no edge distributions
        for name in by_primary:
            if "box_std" in name:
                by_primary[name] = _nan(count)
    if class_weights is None:
        by_primary["entropy_weighted_sum"] = _nan(count)
    else:
        weight = (
            np.asarray(class_weights)[np.nan_to_num(p, nan=-1.0).argmax(axis=1)] if len(p) else np.zeros(0)
        )
        by_primary["entropy_weighted_sum"] = aggregate(measured["entropy"] * weight, kept_frame, count).sum
    unseen = np.isnan(dense_mean).all(axis=1)
    by_primary["dense_entropy_max"] = np.where(
        unseen, np.nan, np.fmax.reduce(dense_max, axis=1, initial=-np.inf)
    )
    by_primary["dense_entropy_mean"] = np.where(unseen, np.nan, np.nansum(dense_mean, axis=1))
    for values in by_primary.values():
        values[~boxes.ran[:, 0]] = np.nan

    found = measure_disagreement(boxes)
    by_committee: Signals = {}
    for name, of_object in zip(
        OBJECT_MEASURES,
        (found.presence_entropy, found.class_divergence, found.box_disagreement, found.edge_deviation_px),
        strict=True,
    ):
        over_objects = aggregate(of_object, found.frame, count)
        by_committee[f"{name}_max"], by_committee[f"{name}_mean"] = over_objects.max, over_objects.mean
        # A sum over nothing is 0 only where there could have been something.
        never = (over_objects.count == 0) & ~_some_share(boxes, _SHARED_CLASSES.get(name, 0))
        by_committee[f"{name}_sum"] = np.where(never, np.nan, over_objects.sum)
    errors = committee_errors(boxes, calibrations)
    by_committee["committee_missed"], by_committee["committee_false"] = errors.missed, errors.false_alarms
    by_committee["committee_errors"], by_committee["committee_error_rate"] = errors.total, errors.rate
    alone = boxes.ran.sum(axis=1) < 2
    for values in by_committee.values():
        values[alone] = np.nan
    return by_primary | by_committee


def with_excess(signals: Mapping[str, Float64Array], typical: Mapping[str, float]) -> Signals:
    """Add the count-corrected sum of each box measure: ``sum - box_count * typical``, the excess over so many usual boxes.

    A sum over boxes is a count of boxes in disguise (rank correlation .84 to .98). Dividing it does not help much: by the
    root of the count it is .66 to .97. The excess over what as many typical boxes would have is not correlated with the
    count (-.11 to .14), and unlike the mean it still tells one unsure box from ten.

    Args:
        signals: of ``frame_signals``.
        typical: by measure, the value of a usual box, which must be fixed: the median of its frame means in the reference.
    """
    excess = {
        f"{name}_excess": signals[f"{name}_sum"] - signals["box_count"] * typical.get(name, np.nan)
        for name in BOX_MEASURES
    }
    return {**signals, **excess}


def needs_committee(signal: str) -> bool:
    """Whether a signal compares members, so that one detector alone can never have it."""
    return signal.startswith(("committee_", *(f"{name}_" for name in OBJECT_MEASURES)))


def _some_share(boxes: CommitteeBoxes, classes: int) -> NDArray[np.bool_]:
    """[F] True where two members that ran can both see this many classes."""
    seen, ran = boxes.seen.astype(np.int64), boxes.ran.astype(np.int64)
    pair = (seen @ seen.T >= classes) & ~np.eye(len(seen), dtype=np.bool_)
    return np.asarray(((ran @ pair > 0) & boxes.ran).any(axis=1), np.bool_)


def _nan(count: int) -> Float64Array:
    return np.full(count, np.nan)
