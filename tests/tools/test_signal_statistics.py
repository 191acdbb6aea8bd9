"""The tool's statistics against scipy and plain loops."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from tools.signal_statistics import (
    auroc,
    bootstrap,
    lift,
    middle_for_nan,
    paired_difference,
    spearman,
    top_weights,
    worth,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    errors = rng.poisson(4, 200).astype(float)
    return np.round(errors + rng.normal(0, 3, 200)), errors


def test_rank_correlation_and_auroc_equal_scipy(data):
    signal, errors = data
    assert spearman(signal, errors) == pytest.approx(spearmanr(signal, errors)[0])
    positive = errors > np.median(errors)
    u = mannwhitneyu(signal[positive], signal[~positive]).statistic
    assert auroc(signal, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()))
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_ties_at_the_border_share_the_places(data):
    signal, errors = data
    rng = np.random.default_rng(1)
    drawn = [errors[np.lexsort((rng.random(200), -signal))[:20]].mean() / errors.mean() for _ in range(4000)]
    assert lift(signal, errors) == pytest.approx(np.mean(drawn), rel=0.01)
    assert top_weights(signal).sum() == pytest.approx(20)
    assert lift(np.ones(200), errors) == pytest.approx(1)


def test_intervals_hold_the_truth_and_a_signal_does_not_beat_itself(data):
    signal, errors = data
    resamples = bootstrap(200, 300)
    got = worth(signal, errors, errors / 5, resamples)
    assert got.error_lift.low < got.error_lift.value < got.error_lift.high
    assert got.error_lift.value == pytest.approx(got.rate_lift.value)
    same = paired_difference(signal, signal, errors, resamples)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = paired_difference(errors, signal, errors, resamples)
    assert better.low > 0


def test_what_was_not_computed_stands_in_the_middle():
    np.testing.assert_array_equal(middle_for_nan(np.array([1, np.nan, 5, 2])), [1, 2, 5, 2])
    np.testing.assert_array_equal(middle_for_nan(np.full(3, np.nan)), 0)
