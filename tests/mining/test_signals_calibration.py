"""What scores are worth: fits recover what made the data; PPAL's formulas by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mining.calibration import Calibration
from mining.signals.calibration import ScoreCalibration, class_difficulty, difficulty_weights, fit_calibration
from mining.types import UsageError


def test_a_fit_recovers_temperature_and_bias():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.02, 0.95, 40_000)
    truth = ScoreCalibration(temperature=0.6, bias=-0.8)
    got = fit_calibration(scores, rng.random(len(scores)) < truth.probability(scores))
    assert got.temperature == pytest.approx(0.6, rel=0.05)
    assert got.bias == pytest.approx(-0.8, abs=0.05)


def test_fitted_probabilities_come_true_bin_by_bin():
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.01, 0.9, 60_000)
    real = rng.random(len(scores)) < 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) + 1)))
    p = fit_calibration(scores.astype(np.float32), real).probability(scores)
    for low in np.arange(0, 1, 0.2):
        here = (p >= low) & (p < low + 0.2)
        assert real[here].mean() == pytest.approx(p[here].mean(), abs=0.02)


def test_without_labels_the_threshold_is_worth_a_half():
    c = ScoreCalibration.of_threshold(0.4)
    odds = (0.2 / 0.8) / (0.4 / 0.6)
    np.testing.assert_allclose(
        c.probability(np.array([0.4, 0.2, 0.0, 1.0])), [0.5, odds / (1 + odds), 0, 1], atol=1e-8
    )


@pytest.mark.parametrize(
    ("scores", "real", "message"),
    [
        (np.linspace(0.1, 0.9, 30), np.arange(30) < 5, "at least 10 candidates that are objects"),
        (np.linspace(0.1, 0.9, 400), np.arange(400) < 200, "do not rise with truth"),
    ],
)
def test_a_fit_refuses_labels_that_teach_nothing(scores, real, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(scores, real)


def test_a_calibration_never_turns_the_order_of_scores_round():
    with pytest.raises(ValueError, match="temperature"):
        ScoreCalibration(-1.0, 0.0)


def test_difficulty_by_hand():
    got = class_difficulty(np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.8, 0.0]), np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(got, [(0 + 1 - 0.5**0.6 * 0.8**0.4) / 2, np.nan, 1.0])
    gamma = math.exp(1 / 0.3) - 1
    weights = difficulty_weights(np.array([0.0, np.nan, 1.0, 0.5]))
    np.testing.assert_allclose(weights, [1, 1, 1.2, 1 + 0.3 * 0.2 * math.log(1 + gamma * 0.5)])


def test_a_file_keeps_everything_and_notices_a_changed_number(tmp_path: Path):
    path = tmp_path / "calibration.json"
    wrote = Calibration({"abc": ScoreCalibration(0.7, -1.25)}, {"car": 0.5}, "20 images")
    wrote.save(path)
    read = Calibration.load(path)
    assert read == wrote
    assert read.of_members(["abc"], ["yolo"]) == [ScoreCalibration(0.7, -1.25)]
    np.testing.assert_allclose(read.class_weights(["bus", "car"])[0], 1.0)
    with pytest.raises(UsageError, match="does not know nanodet"):
        read.of_members(["def"], ["nanodet"])
    data = json.loads(path.read_text())
    data["detectors"]["abc"]["bias"] = 0.0
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="changed by hand"):
        Calibration.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "x", "detectors": {"a": 1}, "difficulty": {}}'])
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no calibration file") as error:
        Calibration.load(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="cannot be read"):
        Calibration.load(tmp_path / "missing.json")
