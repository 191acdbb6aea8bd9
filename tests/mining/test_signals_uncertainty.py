"""Uncertainty and expected errors, against scipy, modAL (recorded) and sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mining.signals.expected import expected_errors
from mining.signals.uncertainty import aggregate, bernoulli_entropy, entropy, least_confidence, margin

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "active_learning_references.json").read_text())
SIGNALS = (least_confidence, margin, entropy, bernoulli_entropy)

score = st.one_of(st.floats(0, 1, width=32), st.just(float("nan")))
class_vectors = arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=score)


def test_equal_to_modal_on_probabilities():
    p = np.array(REFERENCES["members"][0])
    np.testing.assert_allclose(least_confidence(p), REFERENCES["modal_classifier_uncertainty"], atol=1e-12)
    np.testing.assert_allclose(1 - margin(p), REFERENCES["modal_classifier_margin"], atol=1e-12)
    np.testing.assert_allclose(entropy(p), REFERENCES["modal_classifier_entropy"], atol=1e-12)


def test_equal_to_scipy_on_sigmoid_scores():
    p = np.random.default_rng(0).uniform(0, 1, (200, 8)).astype(np.float32)
    p[0], p[1, 1:] = 0.5, 0.0
    # scipy divides by the sum too
    np.testing.assert_allclose(entropy(p), scipy.stats.entropy(p.astype(np.float64), axis=1), atol=1e-12)
    by_class = scipy.stats.bernoulli.entropy(p.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(bernoulli_entropy(p), by_class, atol=1e-12)


@pytest.mark.parametrize("signal", SIGNALS)
def test_unseen_classes_are_left_out(signal):
    p = np.random.default_rng(1).uniform(0.01, 0.9, (50, 4))
    wider = np.insert(p, [0, 2, 4], np.nan, axis=1)
    np.testing.assert_allclose(signal(wider), signal(p), atol=1e-15)


def test_edges():
    nothing_seen = np.full((1, 3), np.nan)
    for signal in SIGNALS:
        assert np.isnan(signal(nothing_seen)).all()
        assert signal(np.zeros((0, 3))).shape == (0,)
    one_class = np.array([[np.nan, 0.7]])
    assert least_confidence(one_class) == pytest.approx([0.3])
    assert margin(one_class) == pytest.approx([0.3])
    assert entropy(one_class) == pytest.approx([0.0])
    all_zero = np.zeros((1, 3))
    assert least_confidence(all_zero) == margin(all_zero) == [1.0]
    assert bernoulli_entropy(all_zero) == [0.0]
    assert np.isnan(entropy(all_zero)).all()


@pytest.mark.filterwarnings("error")
@given(p=class_vectors)
def test_bounds_and_class_order(p):
    seen = (~np.isnan(p)).sum(axis=1)
    bounds = {
        least_confidence: 1.0,
        margin: 1.0,
        entropy: np.log(np.maximum(seen, 1)),
        bernoulli_entropy: seen * np.log(2),
    }
    for signal, bound in bounds.items():
        value = signal(p)
        known = ~np.isnan(value)
        assert not known[seen == 0].any()
        if signal is not entropy:
            assert known[seen > 0].all()
        assert ((value >= -1e-12) & (value <= bound + 1e-6))[known].all()
        np.testing.assert_allclose(signal(p[:, ::-1]), value, atol=1e-12)


@pytest.mark.parametrize("bad", [[[0.5, 1.5]], [[-0.1, 0.5]], [[np.inf, 0.0]]])
def test_what_is_no_score_is_refused(bad):
    for signal in SIGNALS:
        with pytest.raises(ValueError, match=r"class scores must lie in 0\.\.1"):
            signal(np.array(bad))
    with pytest.raises(ValueError, match=r"need shape \[n, c\]"):
        entropy(np.array([0.5, 0.5]))


@given(data=st.data(), n=st.integers(0, 30))
def test_aggregate_equals_a_loop(data, n):
    values = data.draw(arrays(np.float64, n, elements=st.one_of(st.floats(-5, 5), st.just(float("nan")))))
    frame = data.draw(arrays(np.int64, n, elements=st.integers(0, 4)))
    got = aggregate(values, frame, 6)
    for f in range(6):
        mine = values[(frame == f) & ~np.isnan(values)]
        assert got.count[f] == len(mine)
        assert got.sum[f] == pytest.approx(mine.sum())
        assert np.isnan(got.mean[f]) == np.isnan(got.max[f]) == (len(mine) == 0)
        if len(mine):
            assert got.max[f] == mine.max()
            assert got.mean[f] == pytest.approx(mine.mean())
    assert got.sum[5] == 0


def test_aggregate_refuses_frames_that_are_not_there():
    with pytest.raises(ValueError, match=r"frames 0 to 2 do not lie in 0\.\.1"):
        aggregate(np.ones(2), np.array([0, 2]), 2)


def test_expected_errors_by_hand():
    scores = np.array([0.9, 0.25, 0.2, 0.1, 0.06], dtype=np.float32)
    got = expected_errors(scores, np.array([0, 0, 0, 0, 2]), 4, threshold=0.25)
    np.testing.assert_allclose(got.missed, [0.3, 0, 0.06, 0], atol=1e-7)
    np.testing.assert_allclose(got.false_alarms, [0.1 + 0.75, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(got.objects, [1.45, 0, 0.06, 0], atol=1e-7)
    np.testing.assert_allclose(got.rate, [1.15 / 2.45, np.nan, 0.06 / 1.06, np.nan], atol=1e-7)


def test_expected_errors_are_what_calibrated_scores_promise():
    # Each candidate is an object with the probability that its score says: real errors then agree with expected ones.
    rng = np.random.default_rng(3)
    frame = np.repeat(np.arange(400), 500)
    scores = rng.beta(0.6, 1.2, len(frame))
    real = rng.random(len(frame)) < scores
    got = expected_errors(scores, frame, 400, threshold=0.3)
    kept = scores >= 0.3
    for expected, count in (
        (got.missed, real & ~kept),
        (got.false_alarms, ~real & kept),
        (got.objects, real),
    ):
        assert expected.sum() == pytest.approx(count.sum(), rel=0.05)


def test_expected_errors_refuse_bad_input():
    with pytest.raises(ValueError, match=r"scores must lie in 0\.\.1"):
        expected_errors(np.array([np.nan]), np.array([0]), 1, 0.25)
    with pytest.raises(ValueError, match=r"do not lie in 0\.\.0"):
        expected_errors(np.array([0.5]), np.array([1]), 1, 0.25)
