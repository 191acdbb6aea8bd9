"""How many errors a detector should be expected to have made in a frame, by its own scores.

If scores are calibrated (of boxes scored 0.3, three in ten are objects), a candidate under the operating threshold that
scores s is a missed object with probability s, and a kept box that scores s is a false alarm with probability 1 - s.
Sums of probabilities are expected counts. Uncalibrated scores still rank frames; only the unit is then not "errors".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.signals.uncertainty import sum_by

Float64Array = NDArray[np.float64]

PRIOR_OBJECTS = 1.0
"""Objects added to the denominator of the rate. See ``ExpectedErrors.rate``."""


@dataclass(frozen=True, slots=True)
class ExpectedErrors:
    """Expected counts by frame, each [F]; 0 in a frame without candidates."""

    missed: Float64Array
    """Sum of the scores of candidates under the threshold."""
    false_alarms: Float64Array
    """Sum of (1 - score) over boxes at or above the threshold."""
    objects: Float64Array
    """Sum of the scores of all candidates."""

    @property
    def rate(self) -> Float64Array:
        """[F] errors per object: ``(missed + false_alarms) / (objects + PRIOR_OBJECTS)``; NaN without candidates.

        Without the prior, one stray candidate of 0.06 in an empty road makes a rate of 1, as bad as a street where every
        object is missed. One object more makes that 0.06, and changes a frame of ten objects by 9 %. A frame
        without candidates has no expected objects, so it has no rate: NaN, not 0 (nothing there is not known to be right).
        """
        none = self.objects == 0
        return np.where(none, np.nan, (self.missed + self.false_alarms) / (self.objects + PRIOR_OBJECTS))


def expected_errors(
    scores: NDArray[np.floating], frame: NDArray[np.integer], frame_count: int, threshold: float
) -> ExpectedErrors:
    """Expected errors of one detector in each frame.

    Args:
        scores: [n] in 0..1, all candidates of the detector down to its floor. The lower the floor, the more of
            the missed objects are counted.
        frame: [n] which frame each belongs to, in 0..frame_count - 1; any order.
        frame_count: F, frames without candidates included.
        threshold: the detector's operating threshold.

    Raises:
        ValueError: a score outside of 0..1, or a frame number outside of 0..frame_count - 1.
    """
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("expected_errors: scores must lie in 0..1")
    if len(frame) and not 0 <= int(frame.min()) <= int(frame.max()) < frame_count:
        raise ValueError(
            f"expected_errors: frames {frame.min()} to {frame.max()} do not lie in 0..{frame_count - 1}"
        )
    scores = scores.astype(np.float64)
    kept = scores >= threshold
    return ExpectedErrors(
        missed=sum_by(np.where(kept, 0.0, scores), frame, frame_count),
        false_alarms=sum_by(np.where(kept, 1.0 - scores, 0.0), frame, frame_count),
        objects=sum_by(scores, frame, frame_count),
    )
