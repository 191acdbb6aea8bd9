"""Disagreement of a committee, against scipy, modAL and scikit-activeml (recorded), and cases by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy

from mining.boxes import iou_pairs, match_committee
from mining.signals.disagreement import (
    CommitteeBoxes,
    box_spread,
    jensen_shannon,
    measure_disagreement,
    presence_entropy,
    votes,
)

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "active_learning_references.json").read_text())
LN2 = np.log(2)


def test_presence_equals_scikit_activeml_vote_entropy():
    ballots = np.array(REFERENCES["presence_votes"])
    got = presence_entropy(ballots.sum(axis=1), np.full(len(ballots), ballots.shape[1]))
    np.testing.assert_allclose(got, REFERENCES["skactiveml_vote_entropy"], atol=1e-12)


def test_votes_are_graded_by_the_threshold():
    thresholds = np.array([0.3, 0.3, 0.3, 0.3, 0.3, 0.6])
    np.testing.assert_allclose(
        votes(np.array([0.099, 0.05, 0.3, 0.4, 0.9, 0.6]), thresholds), [0, 0, 0.5, 0.75, 1, 0.5]
    )


def flat(members):
    """[m, k, c] one vector a member and object -> flat boxes, shuffled."""
    m, k, c = members.shape
    order = np.random.default_rng(0).permutation(m * k)
    return members.reshape(m * k, c)[order], np.tile(np.arange(k), m)[order], k


def test_class_divergence_equals_references():
    members = np.array(REFERENCES["members"])
    got = jensen_shannon(*flat(members))
    np.testing.assert_allclose(got, REFERENCES["skactiveml_average_kl_divergence"], atol=1e-12)
    mutual_information = np.array(REFERENCES["modal_consensus_entropy"]) - scipy_entropy(
        members, axis=2
    ).mean(axis=0)
    np.testing.assert_allclose(got, np.maximum(mutual_information, 0), atol=1e-12)
    pairs = members[:2]
    np.testing.assert_allclose(
        jensen_shannon(*flat(pairs)), jensenshannon(pairs[0], pairs[1], axis=1) ** 2, atol=1e-9
    )


def test_class_divergence_looks_only_at_classes_that_all_see():
    a = np.array([0.6, 0.2, 0.1, np.nan])
    b = np.array([0.1, np.nan, 0.5, 0.3])
    got = jensen_shannon(np.stack([a, b]), np.array([0, 0]), 1)
    p, q = np.array([0.6, 0.1]) / 0.7, np.array([0.1, 0.5]) / 0.6
    assert got == pytest.approx([jensenshannon(p, q) ** 2])


def test_class_divergence_is_nan_where_it_cannot_be_measured():
    nan = np.nan
    vectors = np.array(
        [[0.5, 0.2], [0.5, nan], [0.4, 0.1], [0.0, 0.0], [0.3, 0.3], [nan, 0.2], [0.2, nan], [0.9, 0.1]]
    )
    object_of_box = np.array([0, 1, 1, 2, 2, 3, 3, 4])
    assert np.isnan(jensen_shannon(vectors, object_of_box, 6)).all()


def test_box_spread_equals_a_loop():
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 9, 60)
    object_of_box = np.repeat(np.arange(60), sizes)
    corner = rng.uniform(0, 30, (len(object_of_box), 2))
    boxes = np.concatenate([corner, corner + rng.uniform(30, 60, corner.shape)], axis=1)
    order = rng.permutation(len(boxes))
    got_iou, got_px = box_spread(boxes[order], object_of_box[order], 61)
    for o in range(60):
        mine = boxes[object_of_box == o]
        if len(mine) < 2:
            assert np.isnan(got_iou[o])
            assert np.isnan(got_px[o])
            continue
        pairs = [iou_pairs(mine[i : i + 1], mine[j : j + 1])[0] for i, j in combinations(range(len(mine)), 2)]
        assert got_iou[o] == pytest.approx(1 - np.mean(pairs))
        assert got_px[o] == pytest.approx(np.sqrt(np.mean((mine - mine.mean(axis=0)) ** 2)))
    assert np.isnan(got_iou[60])  # an object without boxes


def committee(rows, *, frames=1, thresholds=(0.3, 0.3), seen=None, ran=None):
    """Rows of (frame, member, match_id, box, class vector)."""
    vectors = np.array([r[4] for r in rows], dtype=np.float32).reshape(len(rows), -1 if rows else 2)
    members, classes = len(thresholds), vectors.shape[1]
    return CommitteeBoxes(
        frame=np.array([r[0] for r in rows], dtype=np.int64),
        member=np.array([r[1] for r in rows], dtype=np.int64),
        match_id=np.array([r[2] for r in rows], dtype=np.int32),
        boxes_px=np.array([r[3] for r in rows], dtype=np.float32).reshape(-1, 4),
        scores=np.nanmax(vectors, axis=1) if rows else np.zeros(0, dtype=np.float32),
        class_scores=vectors,
        thresholds=np.array(thresholds),
        seen=np.ones((members, classes), dtype=bool) if seen is None else np.array(seen),
        ran=np.ones((frames, members), dtype=bool) if ran is None else np.array(ran),
    )


BOX = [0, 0, 10, 10]


def test_presence_by_hand():
    got = measure_disagreement(
        committee(
            [
                (0, 0, 0, BOX, [0.9, 0.1]),  # both are sure
                (0, 1, 0, BOX, [0.8, 0.1]),
                (0, 1, 1, BOX, [0.9, 0.1]),  # one alone is sure
                (2, 0, 0, BOX, [0.3, 0.1]),  # one alone is half sure: mean vote 1/4
            ],
            frames=3,
        )
    )
    assert got.frame.tolist() == [0, 0, 2]
    assert got.match_id.tolist() == [0, 1, 0]
    np.testing.assert_allclose(got.presence_entropy, [0, LN2, scipy_entropy([0.25, 0.75])], atol=1e-6)


def test_who_cannot_know_has_no_vote():
    rows = [(0, 0, 0, BOX, [0.9, 0.1, 0.0]), (1, 0, 0, BOX, [0.1, 0.9, 0.0])]
    seen = [[True, True, True], [True, False, True], [True, True, True]]
    # class 0 is known to all three (1 vote of 3), class 1 to two (1 of 2)
    got = measure_disagreement(committee(rows, frames=2, thresholds=(0.3, 0.3, 0.3), seen=seen))
    np.testing.assert_allclose(got.presence_entropy, [scipy_entropy([1, 2]), LN2], atol=1e-6)
    # where the third member failed: 1 vote of 2 for class 0, and nobody else to ask for class 1
    ran = [[True, True, False], [True, True, False]]
    got = measure_disagreement(committee(rows, frames=2, thresholds=(0.3, 0.3, 0.3), seen=seen, ran=ran))
    np.testing.assert_allclose(got.presence_entropy, [LN2, np.nan], atol=1e-6)


def test_an_object_is_what_its_best_box_says_and_whoever_has_a_box_in_it_has_a_vote():
    # The best box says class 0, which members 1 and 2 cannot see; but member 1 has a box there: votes 1 and 3/4.
    rows = [(0, 0, 0, BOX, [0.9, 0.1]), (0, 1, 0, BOX, [np.nan, 0.8])]
    seen = [[True, True], [False, True], [False, True]]
    got = measure_disagreement(committee(rows, thresholds=(0.3, 0.6, 0.3), seen=seen))
    np.testing.assert_allclose(got.presence_entropy, [scipy_entropy([0.875, 0.125])], atol=1e-6)


def test_boxes_under_a_third_of_the_threshold_change_nothing():
    strong = [(0, 0, 0, BOX, [0.9, 0.1]), (0, 1, 0, [0, 0, 10, 8], [0.5, 0.4])]
    weak = [(0, 0, 1, BOX, [0.09, 0.01]), (0, 1, 2, BOX, [0.05, 0.01])]
    want, got = measure_disagreement(committee(strong)), measure_disagreement(committee(strong + weak))
    for field in want.__slots__:
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
    # a weak partner in the object itself: the object is seen by one alone
    alone = measure_disagreement(committee([strong[0], (0, 1, 0, BOX, [0.01, 0.09])]))
    np.testing.assert_allclose(alone.presence_entropy, [LN2], atol=1e-6)
    assert np.isnan(alone.class_divergence).all()
    assert np.isnan(alone.box_disagreement).all()


def test_no_boxes_at_all():
    got = measure_disagreement(committee([], frames=3))
    assert all(len(getattr(got, field)) == 0 for field in got.__slots__)


@pytest.mark.filterwarnings("error")
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), members=st.integers(2, 8))
def test_bounds_and_order_of_rows(seed, members):
    rng = np.random.default_rng(seed)
    n, frames, classes = 60, 4, 5
    seen = rng.random((members, classes)) < 0.7
    seen[:, 0] = True
    frame, member = rng.integers(0, frames, n), rng.integers(0, members, n)
    corner = rng.uniform(0, 40, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 40, (n, 2))], axis=1).astype(np.float32)
    vectors = np.where(seen[member], rng.uniform(0, 1, (n, classes)), np.nan).astype(np.float32)
    scores = np.nanmax(vectors, axis=1)
    case = CommitteeBoxes(
        frame,
        member,
        match_committee(frame, member, boxes, scores, iou_threshold=0.1),
        boxes,
        scores,
        vectors,
        rng.uniform(0.1, 0.7, members),
        seen,
        rng.random((frames, members)) < 0.9,
    )
    got = measure_disagreement(case)
    for values, bound in (
        (got.presence_entropy, LN2),
        (got.class_divergence, np.log(members)),
        (got.box_disagreement, 1.0),
        (got.edge_deviation_px, 80.0),
    ):
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= bound + 1e-9)).all()
    order = rng.permutation(n)
    per_box = ("frame", "member", "match_id", "boxes_px", "scores", "class_scores")
    again = measure_disagreement(replace(case, **{name: getattr(case, name)[order] for name in per_box}))
    for field in got.__slots__:
        np.testing.assert_allclose(getattr(again, field), getattr(got, field), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member": np.array([0, 2])}, r"member runs from 0 to 2, not in 0\.\.1"),
        ({"frame": np.array([-1, 0])}, r"frame runs from -1 to 0, not in 0\.\.0"),
        ({"scores": np.array([0.5, np.nan])}, r"scores must lie in 0\.\.1"),
        ({"thresholds": np.array([0.5, 0.0])}, "need 0 < threshold < 1"),
        ({"class_scores": np.zeros((2, 3))}, r"class_scores has shape \(2, 3\), not \(2, 2\)"),
    ],
)
def test_bad_input_is_named(change, message):
    good = committee([(0, 0, 0, BOX, [0.9, 0.1]), (0, 1, 0, BOX, [0.8, 0.1])])
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


def test_two_boxes_of_one_member_in_an_object_are_refused():
    twice = committee([(3, 1, 4, BOX, [0.9, 0.1]), (3, 1, 4, BOX, [0.8, 0.1])], frames=5)
    with pytest.raises(ValueError, match="member 1 has more than one box in object 4 of frame 3"):
        measure_disagreement(twice)
