"""How many errors the primary detector should be expected to have made, by what the whole committee sees.

``expected`` asks one detector about itself: it cannot know of an object that it gave no candidate, and takes a false alarm
for as real as it is confident. The committee can tell. Every object has a probability of being real: the mean, over the
members that can know it, of how likely each holds it. A member without a box there says 0. The primary (the first member)
either reported the object, with a box at or above its operating threshold, or not::

    p(object) = mean over voters of P(real | score)
    missed    = sum of p over objects that the primary did not report
    false     = sum of 1 - p over objects that it did report

P(real | score) comes from ``calibration``: fitted where labels are given, else 1/2 at the member's operating threshold,
with the odds of the score from there. So members whose scores do not compare can be averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.signals.calibration import ScoreCalibration, probability
from mining.signals.disagreement import CommitteeBoxes
from mining.signals.expected import PRIOR_OBJECTS
from mining.signals.uncertainty import sum_by

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CommitteeErrors:
    """Expected counts by frame, each [F]; 0 in a frame without candidates, NaN where the primary or all others failed."""

    missed: Float64Array
    false_alarms: Float64Array
    objects: Float64Array
    """Sum of p over all objects that the primary can know."""

    @property
    def total(self) -> Float64Array:
        """[F] expected errors of the primary."""
        return self.missed + self.false_alarms

    @property
    def rate(self) -> Float64Array:
        """[F] expected errors per object, ``total / (objects + PRIOR_OBJECTS)``; NaN where no object is expected."""
        return np.where(self.objects == 0, np.nan, self.total / (self.objects + PRIOR_OBJECTS))


def committee_errors(
    boxes: CommitteeBoxes, calibrations: Sequence[ScoreCalibration] | None = None
) -> CommitteeErrors:
    """Expected errors of the first member in each frame, vectorised over all objects.

    An object's class is that of its likeliest box, of equal ones the lowest member's. A member that cannot know the class,
    or did not look at the frame, has no say; an object of a class that the primary cannot know is not held against it and
    is left out.

    Args:
        boxes: the committee's boxes, matched into objects.
        calibrations: [M] one a member; ``ScoreCalibration.of_threshold`` for each where None.
    """
    if calibrations is None:
        calibrations = [ScoreCalibration.of_threshold(float(t)) for t in boxes.thresholds]
    members, frames = len(boxes.thresholds), len(boxes.ran)
    if len(calibrations) != members:
        raise ValueError(
            f"committee_errors: {members} members need as many calibrations, got {len(calibrations)}"
        )
    temperature = np.array([c.temperature for c in calibrations])[boxes.member]
    bias = np.array([c.bias for c in calibrations])[boxes.member]
    real = probability(boxes.scores, temperature, bias)

    ids_per_frame = int(boxes.match_id.max(initial=0)) + 1
    key = boxes.frame.astype(np.int64) * ids_per_frame + boxes.match_id
    # Numbering by counting, not by sorting: match ids are dense in a frame.
    present = np.zeros(frames * ids_per_frame, bool)
    present[key] = True
    number = np.cumsum(present) - 1
    k, object_of_box = int(number[-1]) + 1 if len(number) else 0, number[key]
    object_frame = np.flatnonzero(present) // ids_per_frame

    by_member = np.zeros((k, members))
    has_box = np.zeros((k, members), bool)
    reported = np.zeros(k, bool)
    by_member[object_of_box, boxes.member] = real
    has_box[object_of_box, boxes.member] = True
    reported[object_of_box[(boxes.member == 0) & (boxes.scores >= boxes.thresholds[0])]] = True
    # The class of the likeliest box: its row is where the object's largest probability stands.
    best_row = np.zeros(k, np.int64)
    is_best = real >= by_member.max(axis=1, initial=0.0)[object_of_box]
    best = np.flatnonzero(is_best)
    best = best[
        np.argsort(-boxes.member[best], kind="stable")
    ]  # of equal ones the lowest member is written last
    best_row[object_of_box[best]] = best
    class_of_object = _best_class(boxes.class_scores, best_row)

    voter = (boxes.seen[:, class_of_object].T | has_box) & boxes.ran[object_frame]
    p = by_member.sum(axis=1) / np.maximum(voter.sum(axis=1), 1)
    known = voter[:, 0]
    failed = ~boxes.ran[:, 0] | (boxes.ran.sum(axis=1) < 2)

    def total(values: Float64Array) -> Float64Array:
        return np.where(failed, np.nan, sum_by(np.where(known, values, 0.0), object_frame, frames))

    return CommitteeErrors(
        missed=total(np.where(reported, 0.0, p)),
        false_alarms=total(np.where(reported, 1.0 - p, 0.0)),
        objects=total(p),
    )


def _best_class(class_scores: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Column of the largest score of each row, unseen classes left out."""
    return np.where(np.isnan(class_scores), -1.0, class_scores).argmax(axis=1)[rows]
