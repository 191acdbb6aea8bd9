"""What a score is worth: the probability that a box with this score is an object, from labels where there are any.

A detector's score ranks its own boxes; it is no probability, and a 0.3 of one detector is not a 0.3 of another. Fitting two
numbers on labelled frames mends both::

    P(real | s) = sigmoid(logit(s) / temperature + bias)

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017) with the bias of Platt scaling (1999),
which detectors need because most of their candidates are no objects. Without labels, the operating threshold is all that is
known: people set it where a box is about as likely an object as not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

_MIN_OF_EACH = 10
"""Real boxes, and unreal ones, that a fit needs."""


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """``P(real | s) = sigmoid(logit(s) / temperature + bias)``."""

    temperature: float
    """Above 0; above 1 makes scores more moderate."""
    bias: float

    def __post_init__(self) -> None:
        """Refuse a temperature that would turn the order of scores round."""
        if not (math.isfinite(self.temperature) and self.temperature > 0 and math.isfinite(self.bias)):
            raise ValueError(
                f"ScoreCalibration: temperature {self.temperature} and bias {self.bias}; need above 0 and finite"
            )

    @classmethod
    def of_threshold(cls, threshold: float) -> ScoreCalibration:
        """What is taken without labels: 1/2 at the operating threshold, temperature 1."""
        return cls(1.0, -math.log(threshold / (1.0 - threshold)))

    def probability(self, scores: NDArray[np.floating]) -> Float64Array:
        """[n] scores in 0..1 -> [n] probabilities."""
        return probability(scores, self.temperature, self.bias)


def probability(
    scores: NDArray[np.floating], temperature: Float64Array | float, bias: Float64Array | float
) -> Float64Array:
    """``sigmoid(logit(s) / temperature + bias)``, elementwise; scores within 1e-9 of 0 and 1 are taken as that far off."""
    s = np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(1.0 / (1.0 + np.exp(-(np.log(s / (1.0 - s)) / temperature + bias))))


def fit_calibration(scores: NDArray[np.floating], real: NDArray[np.bool_]) -> ScoreCalibration:
    """Fit temperature and bias by maximum likelihood.

    Args:
        scores: [n] candidates of one detector on labelled frames, down to its floor.
        real: [n] True where the candidate is an object.

    Raises:
        ValueError: fewer than 10 real or 10 unreal candidates, or scores that say nothing (they do not rise with truth).
    """
    if min(int(real.sum()), int((~real).sum())) < _MIN_OF_EACH:
        raise ValueError(
            f"calibration needs at least {_MIN_OF_EACH} candidates that are objects and {_MIN_OF_EACH} that are not; "
            f"got {int(real.sum())} and {int((~real).sum())}"
        )
    from scipy.optimize import minimize  # imported here: few runs fit anything

    s = np.clip(scores.astype(np.float64), 1e-9, 1 - 1e-9)
    x, y = np.log(s / (1.0 - s)), np.where(real, 1.0, -1.0)

    def loss(slope_bias: Float64Array) -> tuple[float, Float64Array]:
        z = y * (slope_bias[0] * x + slope_bias[1])
        pull = -y / (1.0 + np.exp(np.clip(z, -700, 700)))
        return float(np.logaddexp(0.0, -z).mean()), np.array([(pull * x).mean(), pull.mean()])

    slope, bias = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if slope <= 1e-3:
        raise ValueError(
            "calibration: the scores do not rise with truth; these labels do not fit this detector"
        )
    return ScoreCalibration(float(1.0 / slope), float(bias))


# PPAL, "Plug and Play Active Learning for Object Detection" (Yang, Huang, Crowley, CVPR 2024), section 3.2.
PPAL_XI = 0.6
PPAL_ALPHA = 0.3
PPAL_BETA = 0.2


def class_difficulty(
    probability_of_class: NDArray[np.floating],
    iou: NDArray[np.floating],
    classes: NDArray[np.integer],
    class_count: int,
) -> Float64Array:
    """Mean difficulty of the labelled objects of each class: [c] in 0..1, NaN for a class without objects.

    PPAL: an object whose best box gives its class the probability p at overlap u has the difficulty
    ``1 - p^xi * u^(1 - xi)``, with xi = 0.6; one that no box overlaps has 1. PPAL averages over training steps; here a
    validation set is averaged.

    Args:
        probability_of_class: [m] score that the object's box gives its class; 0 where there is no box.
        iou: [m] overlap of that box with the object; 0 where there is none.
        classes: [m] the objects' classes, in 0..class_count - 1.
        class_count: c.
    """
    p, u = np.asarray(probability_of_class, np.float64), np.asarray(iou, np.float64)
    if not (((p >= 0) & (p <= 1)).all() and ((u >= 0) & (u <= 1)).all()):
        raise ValueError("class_difficulty: scores and overlaps must lie in 0..1")
    difficulty = 1.0 - p**PPAL_XI * u ** (1.0 - PPAL_XI)
    count = np.bincount(classes, minlength=class_count)
    total = np.bincount(classes, weights=difficulty, minlength=class_count)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def difficulty_weights(difficulty: NDArray[np.floating]) -> Float64Array:
    """PPAL's weight of each class: ``1 + alpha * beta * ln(1 + gamma * d)``, gamma = e^(1 / alpha) - 1: [c] in 1..1 + beta.

    alpha = 0.3 and beta = 0.2 as in the paper. 1 for a class of unknown difficulty.
    """
    gamma = math.exp(1.0 / PPAL_ALPHA) - 1.0
    weights = 1.0 + PPAL_ALPHA * PPAL_BETA * np.log1p(gamma * np.asarray(difficulty, np.float64))
    return np.nan_to_num(weights, nan=1.0)
