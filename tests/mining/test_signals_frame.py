"""Signals of whole frames: expected errors by the committee against a plain loop, gathering, bounds, empty frames."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.schemas import SIGNALS
from mining.signals.calibration import ScoreCalibration
from mining.signals.consensus import committee_errors
from mining.signals.disagreement import CommitteeBoxes
from mining.signals.frame import BOX_MEASURES, frame_signals, needs_committee, with_excess
from mining.signals.localisation import edge_std_px, edge_std_relative
from mining.signals.temporal import TimeSignals
from mining.signals.uncertainty import top_mean


def committee(rng, frames=12, members=3, classes=4) -> CommitteeBoxes:
    """Objects numbered in each frame; each member has at most one box in each; member 1 does not know class 0."""
    rows = []
    for f in range(frames - 1):  # the last frame stays empty
        for o in range(rng.integers(0, 7)):
            for m in range(members):
                if rng.random() < 0.6:
                    rows.append((f, m, o))
    rng.shuffle(rows)
    frame, member, match_id = np.array(rows).T if rows else np.zeros((3, 0), int)
    n = len(frame)
    seen = np.ones((members, classes), bool)
    seen[1, 0] = False
    class_scores = rng.random((n, classes)) * 0.9 + 0.01
    class_scores[~seen[member]] = np.nan
    corner = rng.uniform(0, 50, (n, 2))
    ran = np.ones((frames, members), bool)
    ran[2, 0], ran[3, 2], ran[4] = False, False, [True, False, False]
    present = ran[frame, member]
    return CommitteeBoxes(
        frame[present], member[present], match_id[present],
        np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], axis=1)[present],
        np.nanmax(class_scores, axis=1, initial=0)[present], class_scores[present],
        np.array([0.5, 0.6, 0.4])[:members], seen, ran, rng.uniform(0.5, 4, (n, 4))[present],
    )  # fmt: skip


def errors_by_loop(b: CommitteeBoxes, calibrations):
    rows = np.zeros((len(b.ran), 3))
    for f in range(len(b.ran)):
        for o in sorted(set(b.match_id[b.frame == f].tolist())):
            of = {int(b.member[i]): i for i in np.flatnonzero((b.frame == f) & (b.match_id == o))}
            p = {m: float(calibrations[m].probability(b.scores[i : i + 1])[0]) for m, i in of.items()}
            best = max(p, key=lambda m: p[m])
            klass = int(np.nanargmax(b.class_scores[of[best]]))
            voters = [m for m in range(len(b.thresholds)) if b.ran[f, m] and (b.seen[m, klass] or m in of)]
            if 0 not in voters:
                continue
            real = sum(p.values()) / len(voters)
            reported = 0 in of and b.scores[of[0]] >= b.thresholds[0]
            rows[f] += (0 if reported else real), (1 - real if reported else 0), real
        if not b.ran[f, 0] or b.ran[f].sum() < 2:
            rows[f] = np.nan
    return rows


@pytest.mark.parametrize("calibrated", [False, True])
def test_expected_errors_of_the_committee_equal_a_plain_loop(calibrated):
    b = committee(np.random.default_rng(5), frames=40)
    calibrations = [ScoreCalibration(0.5, -0.3), ScoreCalibration(1.2, 0.4), ScoreCalibration(0.9, -1.0)]
    got = committee_errors(b, calibrations if calibrated else None)
    if not calibrated:
        calibrations = [ScoreCalibration.of_threshold(t) for t in b.thresholds]
    wanted = errors_by_loop(b, calibrations)
    np.testing.assert_allclose(
        np.stack([got.missed, got.false_alarms, got.objects], axis=1), wanted, atol=1e-9
    )
    assert np.nansum(wanted[:, 0]) > 1
    assert np.nansum(wanted[:, 1]) > 1


def test_expected_errors_come_true_where_the_committee_is_calibrated():
    """Two members whose mean probability is the truth: expected and real errors of the first agree."""
    rng = np.random.default_rng(6)
    n = 60_000
    p = rng.uniform(0.02, 0.98, (n, 2))
    real = rng.random(n) < p.mean(axis=1)
    b = CommitteeBoxes(
        np.repeat(np.arange(100), 2 * n // 100), np.tile([0, 1], n), np.repeat(np.arange(n) % (n // 100), 2),
        np.tile([0.0, 0, 9, 9], (2 * n, 1)), p.ravel(), p.reshape(-1, 1),
        np.array([0.5, 0.5]), np.ones((2, 1), bool), np.ones((100, 2), bool),
    )  # fmt: skip
    got = committee_errors(b, [ScoreCalibration(1.0, 0.0)] * 2)
    reported = p[:, 0] >= 0.5
    assert got.missed.sum() == pytest.approx((real & ~reported).sum(), rel=0.03)
    assert got.false_alarms.sum() == pytest.approx((~real & reported).sum(), rel=0.03)


def test_what_the_primary_cannot_know_is_not_held_against_it():
    boxes = np.tile([0.0, 0, 9, 9], (1, 1))
    b = CommitteeBoxes(
        np.zeros(1, int), np.ones(1, int), np.zeros(1, int), boxes, np.array([0.9]), np.array([[np.nan, 0.9]]),
        np.array([0.25, 0.25]), np.array([[True, False], [False, True]]), np.ones((1, 2), bool),
    )  # fmt: skip
    assert committee_errors(b).missed[0] == 0


def dense(b: CommitteeBoxes):
    return np.full((len(b.ran), b.seen.shape[1]), 0.1)


def test_every_column_of_scores_is_computed_and_nothing_else():
    b = committee(np.random.default_rng(7))
    got = with_excess(frame_signals(b, dense(b), dense(b)), dict.fromkeys(BOX_MEASURES, 0.3))
    assert set(got) | set(TimeSignals.__dataclass_fields__) == {name for name, _ in SIGNALS}
    assert all(v.shape == (12,) for v in got.values())


def test_signals_by_hand_on_one_frame():
    class_scores = np.array([[0.8, 0.1], [0.5, 0.4], [0.1, 0.05]])
    std = np.array([[1.0, 1, 1, 1], [3, 3, 3, 3], [2, 2, 2, 2]])
    boxes_px = np.array([[0.0, 0, 10, 20], [50, 50, 60, 60], [90, 90, 99, 99]])
    b = CommitteeBoxes(
        np.zeros(3, int), np.zeros(3, int), np.arange(3), boxes_px, class_scores.max(axis=1), class_scores,
        np.array([0.3, 0.3]), np.ones((2, 2), bool), np.ones((1, 2), bool), std,
    )  # fmt: skip
    weighted = frame_signals(
        b, np.array([[0.2, 0.6]]), np.array([[0.01, 0.03]]), class_weights=np.array([2.0, 1.0])
    )
    got = with_excess(weighted, {"least_confidence": 0.3})
    wanted = {
        "box_count": 2, "candidate_count": 3, "least_confidence_max": 0.5, "least_confidence_mean": 0.35,
        "least_confidence_sum": 0.7, "least_confidence_top3": 0.35, "least_confidence_excess": 0.1,
        "box_std_px_max": 3, "box_std_px_sum": 4, "candidate_box_std_px_sum": 6, "box_std_relative_max": 0.3,
        "dense_entropy_max": 0.6, "dense_entropy_mean": 0.04, "expected_missed": 0.1, "expected_false": 0.7,
        "expected_error_rate": 0.8 / 2.4, "entropy_weighted_sum": 2 * weighted["entropy_sum"][0],
    }  # fmt: skip
    for name, value in wanted.items():
        assert got[name][0] == pytest.approx(value), name
    assert np.isnan(got["margin_excess"][0])


def test_a_member_that_failed_leaves_null_not_zero():
    b = committee(np.random.default_rng(8))
    got = frame_signals(b, dense(b), dense(b))
    for name, values in got.items():
        assert np.isnan(values[4] if needs_committee(name) else values[2]), name
    assert np.isnan(got["committee_errors"][2])
    assert got["committee_errors"][11] == 0  # an empty frame was looked at
    assert np.isnan(got["entropy_mean"][11])
    assert np.isnan(got["expected_error_rate"][11])


def test_members_that_share_no_class_cannot_contradict_each_other_on_it():
    """A detector of class 0 and one of classes 1 and 2: a third that shares two classes with the second makes a difference."""
    seen = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]], bool)
    vectors = np.where(seen, [[0.8, 0.7, 0.1], [0.8, 0.7, 0.1], [0.8, 0.2, 0.6]], np.nan)
    boxes_px = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [50, 50, 60, 60]])

    def signals(members, ran):
        n = len(members)
        b = CommitteeBoxes(
            np.zeros(n, int), np.arange(n), np.array([0, 1, 1])[members], boxes_px[members],
            np.nanmax(vectors, axis=1)[members], vectors[members], np.full(n, 0.3), seen[members], np.array(ran),
        )  # fmt: skip
        return frame_signals(b, dense(b)[:, :3], dense(b)[:, :3])

    two = signals([0, 1], [[True, True], [True, True]])
    for how in ("max", "mean", "sum"):
        assert np.isnan(two[f"presence_{how}"]).all()
        assert np.isnan(two[f"class_disagreement_{how}"]).all()
    assert two["box_disagreement_sum"].tolist() == [0, 0]
    three = signals([0, 1, 2], [[True] * 3, [True, True, False]])
    assert three["class_disagreement_sum"][0] > 0.05
    assert three["presence_sum"][0] == 0  # both are sure of it
    assert np.isnan(three["class_disagreement_sum"][1])  # the third has failed there
    assert np.isnan(three["presence_sum"][1])


def test_a_head_without_edge_distributions_gives_null():
    b = dataclasses.replace(committee(np.random.default_rng(9)), box_std_px=None)
    got = frame_signals(b, dense(b), dense(b))
    assert all(np.isnan(v).all() for name, v in got.items() if "box_std" in name)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_changes_nothing_and_bounds_hold(seed):
    rng = np.random.default_rng(seed)
    b = committee(rng)
    turn = rng.permutation(len(b.frame))
    names = ("frame", "member", "match_id", "boxes_px", "scores", "class_scores", "box_std_px")
    turned = dataclasses.replace(b, **{name: getattr(b, name)[turn] for name in names})
    first, second = (frame_signals(x, dense(x), dense(x)) for x in (b, turned))
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-9, err_msg=name)
        assert (first[name][~np.isnan(first[name])] >= 0).all(), name
    for name in ("expected_error_rate", "committee_error_rate"):
        assert (first[name][~np.isnan(first[name])] < 1).all() or name == "committee_error_rate"


def test_of_two_equally_sure_boxes_the_first_member_names_the_object():
    """A detector of class 0, and two of class 1: who is believed decides how many can judge the object."""
    seen = np.array([[1, 0], [0, 1], [0, 1]], bool)
    vectors = np.array([[0.8, np.nan], [np.nan, 0.8]])

    def false_alarms(order):
        b = CommitteeBoxes(
            np.zeros(2, int), np.array(order), np.zeros(2, int), np.tile([0.0, 0, 9, 9], (2, 1)), np.full(2, 0.8),
            vectors[order], np.full(3, 0.3), seen, np.ones((1, 3), bool),
        )  # fmt: skip
        return committee_errors(b).false_alarms[0]

    real = float(ScoreCalibration.of_threshold(0.3).probability(np.array([0.8]))[0])
    assert false_alarms([0, 1]) == pytest.approx(1 - real)
    assert false_alarms([1, 0]) == pytest.approx(1 - real)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4))
def test_top_mean_equals_sorting_each_frame(seed, k):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 5, 30)
    values = np.where(rng.random(30) < 0.2, np.nan, rng.normal(size=30))
    got = top_mean(values, frame, 6, k)
    for f in range(6):
        mine = sorted((v for v in values[frame == f] if not np.isnan(v)), reverse=True)[:k]
        assert got[f] == pytest.approx(np.mean(mine)) if mine else np.isnan(got[f])


def test_edges_by_hand():
    std, box = np.array([[3.0, 4, 3, 4], [np.nan] * 4]), np.array([[0.0, 0, 30, 20], [0, 0, 1, 1]])
    np.testing.assert_allclose(edge_std_px(std), [np.sqrt(12.5), np.nan])
    np.testing.assert_allclose(edge_std_relative(std, box), [np.sqrt((0.01 + 0.04) / 2), np.nan])
    assert edge_std_relative(np.full((1, 4), 9.0), np.zeros((1, 4)))[0] == 1
