"""Signals of time, against plain loops over frames and boxes, and against scenes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mining import boxes
from mining.boxes import iou_matrix
from mining.signals.temporal import (
    Sequence,
    box_jitter,
    class_flipped,
    count_change,
    find_gaps,
    link,
    measure_time,
    sequence_of,
    spread,
)

T = 0.25  # threshold; a full vote is 0.4167


def sequence(rows, frames, *, rate_hz=10.0, cuts=(), max_gap_s=0.7, threshold=T):
    """Rows of (frame, box, score, class)."""
    rows = sorted(rows, key=lambda row: row[0])
    continues = np.ones(frames, bool)
    continues[[0, *cuts] if frames else []] = False
    return Sequence(
        time_s=np.arange(frames) / rate_hz,
        continues=continues,
        frame=np.array([r[0] for r in rows], np.int64),
        boxes_px=np.array([r[1] for r in rows], np.float64).reshape(-1, 4),
        scores=np.array([r[2] for r in rows], np.float64),
        classes=np.array([r[3] for r in rows], np.int64),
        threshold=threshold,
        max_gap_s=max_gap_s,
    )


def moving(frames, *, x=100.0, step=4.0, size=40.0, score=0.8, kind=0, skip=()):
    """An object that moves evenly; ``skip``: frames that do not show it."""
    return [
        (t, [x + step * t, 50, x + step * t + size, 50 + size], score, kind)
        for t in range(frames)
        if t not in skip
    ]


def measured(s):
    return measure_time(s, link(s))


# -- links -------------------------------------------------------------------------------------------------------------


def random_sequence(seed, frames=12, objects=9):
    """Crowded and shaking, so that overlaps are contested."""
    rng = np.random.default_rng(seed)
    at, size = rng.uniform(0, 150, (objects, 2)), rng.uniform(20, 60, (objects, 2))
    rows = []
    for t in range(frames):
        for o in rng.permutation(objects):
            if rng.random() < 0.85:
                corner = at[o] + 3 * t + rng.normal(0, 4, 2)
                rows.append(
                    (t, [*corner, *(corner + size[o])], float(rng.uniform(0.05, 1)), int(rng.integers(2)))
                )
    return sequence(rows, frames)


@pytest.mark.parametrize("seed", range(6))
def test_links_by_overlap_are_scipys_best_assignment_of_each_pair_of_frames(seed):
    s = random_sequence(seed)
    links = link(s)
    for t in range(len(s.time_s) - 1):
        a = np.flatnonzero((s.frame == t) & (s.scores >= T))
        b = np.flatnonzero((s.frame == t + 1) & (s.scores >= T))
        overlap = iou_matrix(s.boxes_px[a], s.boxes_px[b])
        allowed = np.where(overlap >= 0.3, overlap, 0.0)
        rows, cols = linear_sum_assignment(allowed, maximize=True)
        got = links.after[a]
        linked = got >= 0
        linked[linked] = s.frame[got[linked]] == t + 1
        position = np.searchsorted(b, got[linked])
        by_overlap = overlap[np.flatnonzero(linked), position]
        assert by_overlap[by_overlap >= 0.3].sum() == pytest.approx(allowed[rows, cols].sum(), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_links_are_one_to_one_and_tracks_are_their_chains(seed):
    s = random_sequence(seed)
    links = link(s)
    rows = np.arange(len(s.frame))
    has = links.after >= 0
    np.testing.assert_array_equal(links.before[links.after[has]], rows[has])
    assert has.sum() == (links.before >= 0).sum() > 20
    assert ((links.track >= 0) == (s.scores >= T)).all()
    # walk each chain from its head
    expected, number = np.full(len(rows), -1), 0
    for row in rows[(s.scores >= T) & (links.before < 0)]:
        while row >= 0:
            expected[row] = number
            row = links.after[row]  # noqa: PLW2901
        number += 1
    np.testing.assert_array_equal(links.track, expected)
    for track in range(number):
        assert (np.diff(s.frame[links.track == track]) >= 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_boxes_in_a_frame_changes_no_link(seed):
    s = random_sequence(seed)
    order = np.lexsort((np.random.default_rng(seed + 100).random(len(s.frame)), s.frame))
    shuffled = Sequence(
        s.time_s, s.continues, s.frame[order], s.boxes_px[order], s.scores[order], s.classes[order], T, 0.7
    )
    a, b = link(s), link(shuffled)
    back = np.argsort(order)
    np.testing.assert_array_equal(np.append(order, -1)[b.after][back], a.after)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_taken_in_small_pieces_give_the_same_links(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    rows = [
        (t, [x, y, x + 20, y + 20], 0.9, 0)
        for t in range(8)
        for x, y in rng.uniform(0, 90, (12, 2))  # nothing overlaps for long: many links are by distance
    ]
    s = sequence(rows, 8)
    whole = link(s)
    monkeypatch.setattr(boxes, "_PAIRS_PER_CHUNK", 7)
    pieces = link(s)
    np.testing.assert_array_equal(pieces.after, whole.after)
    linked = np.flatnonzero(whole.after >= 0)
    np.testing.assert_array_equal(whole.before[whole.after[linked]], linked)
    overlap = iou_matrix(s.boxes_px[linked], s.boxes_px[whole.after[linked]]).diagonal()
    assert (overlap < 0.3).sum() > 5


def test_links_do_not_cross_a_cut():
    s = sequence(moving(6), 6, cuts=(3,))
    assert link(s).track.tolist() == [0, 0, 0, 1, 1, 1]
    assert link(sequence(moving(6, skip=(2,)), 6, cuts=(3,))).track.tolist() == [0, 0, 1, 1, 1]


def test_a_fast_object_is_linked_by_distance_only_if_sure_and_of_one_class():
    fast = {"step": 26.0}  # IoU 14 / 66 = 0.21, distance 0.65 of its size
    assert link(sequence(moving(3, **fast), 3)).track.tolist() == [0, 0, 0]
    assert link(sequence(moving(3, score=0.4, **fast), 3)).track.tolist() == [0, 1, 2]
    flipping = [(t, box, score, t % 2) for t, box, score, _ in moving(3, **fast)]
    assert link(sequence(flipping, 3)).track.tolist() == [0, 1, 2]
    assert link(sequence(moving(3, step=29.0), 3)).track.tolist() == [0, 1, 2]  # 0.725 of its size


def test_neither_distance_nor_gap_makes_one_object_of_two():
    grown = [(0, [100, 50, 140, 90], 0.8, 0), (1, [120, 50, 172, 102], 0.8, 0)]  # IoU 0.23, area 1.69 times
    assert link(sequence(grown, 2)).track.tolist() == [0, 1]
    other = [(t, box, score, int(t > 4)) for t, box, score, _ in moving(9, skip=(4,))]
    s = sequence(other, 9)
    assert link(s).track.tolist() == [0] * 4 + [1] * 4
    assert len(find_gaps(s, link(s)).frame) == 0


def test_boxes_without_area_and_empty_recordings():
    nothing = sequence([], 0)
    assert len(measured(nothing).flicker) == 0
    empty = sequence([], 5)
    assert np.nan_to_num(measured(empty).flicker, nan=-1).tolist() == [-1, 0, 0, 0, -1]
    flat = sequence([(t, [5, 5, 5, 9], 0.9, 0) for t in range(4)], 4)
    assert link(flat).track.tolist() == [0, 1, 2, 3]
    assert np.isnan(measured(flat).box_jitter_max).all()


# -- flicker -----------------------------------------------------------------------------------------------------------


def test_an_object_that_vanishes_and_comes_back_is_a_flicker():
    s = sequence(moving(9, skip=(4, 5)), 9)
    found = measured(s)
    assert found.flicker[1:-1].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert found.dips[1:-1].tolist() == [0] * 7
    gaps = find_gaps(s, link(s))
    np.testing.assert_allclose(gaps.place_px, [box for t, box, _, _ in moving(9) if t in {4, 5}])
    assert set(link(s).track.tolist()) == {0}


def test_the_place_follows_the_clock_not_the_frame_number():
    rows = [(0, [0, 0, 40, 40], 0.9, 0), (2, [20, 0, 60, 40], 0.9, 0)]
    s = sequence(rows, 3)
    uneven = Sequence(
        np.array([0.0, 0.05, 0.2]), s.continues, s.frame, s.boxes_px, s.scores, s.classes, T, 0.7
    )
    np.testing.assert_allclose(find_gaps(uneven, link(uneven)).place_px, [[5, 0, 45, 40]])


@pytest.mark.parametrize(
    ("extra", "flicker", "dips"),
    [
        ([], 1, 0),
        ([(4, [118, 52, 158, 92], 0.1, 0)], 0, 1),  # a trace: only the score dipped
        ([(4, [118, 52, 158, 92], 0.1, 1)], 0, 1),  # of another class, too
        ([(4, [118, 52, 158, 92], 0.9, 1)], 0, 0),  # it is reported, as another class
        ([(4, [116, 70.8, 156, 110.8], 0.9, 1)], 0, 0),  # IoU 0.32, hides 0.48 of the place
        ([(4, [300, 50, 340, 90], 0.1, 0)], 1, 0),  # elsewhere
        ([(4, [100, 40, 260, 200], 0.9, 1)], 0, 0),  # behind a bus: hidden, not missed
        ([(4, [100, 40, 260, 200], 0.2, 1)], 1, 0),  # a weak candidate that large hides nothing
    ],
    ids=[
        "nothing",
        "trace",
        "trace of another class",
        "reported as another",
        "reported beside it",
        "elsewhere",
        "hidden",
        "weak and large",
    ],
)
def test_what_is_left_at_the_place_decides(extra, flicker, dips):
    found = measured(sequence(moving(9, skip=(4,)) + extra, 9))
    assert found.flicker[4] == flicker
    assert found.dips[4] == dips
    assert np.nansum(found.flicker) == flicker
    assert np.nansum(found.dips) == dips


def test_what_was_never_sure_does_not_flicker():
    found = measured(sequence(moving(9, score=0.4, skip=(4,)), 9))
    assert found.flicker[4] == found.dips[4] == 0


def test_who_is_away_too_long_has_gone():
    def flicker(away, rate_hz=10.0):
        return np.nansum(
            measured(sequence(moving(12, step=1.0, skip=range(3, 3 + away)), 12, rate_hz=rate_hz)).flicker
        )

    assert flicker(5) == 5
    assert flicker(6) == 0
    # the same five frames, but more or less than 0.7 s from box to box
    assert flicker(5, rate_hz=8.6) == 5
    assert flicker(5, rate_hz=8.5) == 0


def test_flicker_is_unknown_where_frames_lie_too_far_apart_to_show_a_gap():
    slow = measured(sequence(moving(9, step=1.0, skip=(4,)), 9, rate_hz=2.0))
    assert np.isnan(slow.flicker).all()
    assert np.isnan(slow.dips).all()
    assert not np.isnan(slow.box_jitter_max[[1, 2, 6, 7]]).any()
    assert np.nansum(measured(sequence(moving(9, step=1.0, skip=(4,)), 9, rate_hz=3.0)).flicker) == 1


def test_an_object_that_leaves_or_enters_is_no_flicker():
    assert np.nansum(measured(sequence(moving(9, skip=range(5, 9)), 9)).flicker) == 0
    assert np.nansum(measured(sequence(moving(9, skip=range(4)), 9)).flicker) == 0


# -- class flips, jitter, counts ---------------------------------------------------------------------------------------


def test_class_flips_show_on_both_sides_of_the_change():
    rows = [(t, box, score, 1 if t == 4 else 0) for t, box, score, _ in moving(8)]
    s = sequence(rows, 8)
    assert np.flatnonzero(class_flipped(s, link(s))).tolist() == [3, 4, 5]
    assert measured(s).class_flips.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    weak = sequence([(t, box, 0.4, kind) for t, box, _, kind in rows], 8)
    assert measured(weak).class_flips.sum() == 0


def test_even_motion_and_growth_have_no_jitter():
    rows = [(t, [90 - t, 50 - 2 * t, 130 + 5 * t, 90 + 3 * t], 0.8, 0) for t in range(8)]
    jitter = measured(sequence(rows, 8)).box_jitter_max
    np.testing.assert_allclose(jitter[1:-1], 0, atol=1e-12)
    assert np.isnan(jitter[[0, -1]]).all()


def test_jitter_is_the_second_difference_over_the_size():
    rows = moving(7)
    frame, box, score, kind = rows[3]
    rows[3] = (frame, [box[0] + 4, box[1], box[2] + 4, box[3]], score, kind)  # 4 px aside for one frame
    s = sequence(rows, 7)
    off = {2: 2.0, 3: 4.0, 4: 2.0}  # half of it is seen by the frames beside
    expected = [math.sqrt(2 * off.get(t, 0.0) ** 2 / 4) / 40 for t in range(1, 6)]
    np.testing.assert_allclose(box_jitter(s, link(s))[1:-1], expected, atol=1e-12)
    np.testing.assert_allclose(measured(s).box_jitter_mean[1:-1], expected, atol=1e-12)


def test_what_all_boxes_do_is_the_camera():
    def shaken(count):
        rows = [row for o in range(count) for row in moving(5, x=100.0 * o)]
        return [
            (t, list(np.array(box) + (6.0 if t == 2 else 0.0)), score, kind) for t, box, score, kind in rows
        ]

    alone = measured(sequence(shaken(2), 5)).box_jitter_max
    together = measured(sequence(shaken(3), 5)).box_jitter_max
    assert alone[2] == pytest.approx(6 / 40)
    np.testing.assert_allclose(together[1:-1], 0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_count_change_equals_numpys_median(seed):
    rng = np.random.default_rng(seed)
    count, continues = rng.poisson(4, 40), rng.random(40) > 0.15
    continues[0] = False
    got = count_change(count, continues)
    scene = np.cumsum(~continues)
    for t in range(40):
        near = [n for n in (t - 2, t - 1, t + 1, t + 2) if 0 <= n < 40 and scene[n] == scene[t]]
        if t - 1 in near and t + 1 in near:
            median = np.median(count[near])
            assert got[t] == pytest.approx(abs(count[t] - median) / math.sqrt(median + 1))
        else:
            assert np.isnan(got[t])


def test_signals_need_their_neighbours():
    s = sequence(moving(7), 7, cuts=(4,))
    found = measured(s)
    both = [False, True, True, False, False, True, False]
    for name in ("flicker", "dips", "box_jitter_max", "box_jitter_mean", "count_change"):
        assert (~np.isnan(getattr(found, name))).tolist() == both, name
    assert not np.isnan(found.class_flips).any()
    alone = measured(sequence(moving(3), 3, cuts=(1, 2)))
    assert np.isnan(alone.class_flips).all()


# -- frames ------------------------------------------------------------------------------------------------------------


def test_neighbours_leave_out_what_was_not_looked_at():
    time_s = np.array([0, 0.5, 1.0, 1.5, 2.0, 3.0])
    look = np.array([True, False, True, True, True, True])
    cut = np.array([False, True, False, True, False, False])
    picked, continues = sequence_of(time_s, look, np.zeros(6, bool), 1.0)
    assert picked.tolist() == [0, 2, 3, 4, 5]
    assert continues.tolist() == [False, True, True, True, True]
    assert sequence_of(time_s, look, np.zeros(6, bool), 0.6)[1].tolist() == [False, False, True, True, False]
    # a cut counts also where it fell on the frame that was left out
    assert sequence_of(time_s, look, cut, 1.0)[1].tolist() == [False, False, False, True, True]
    assert len(sequence_of(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), 1.0)[0]) == 0


def test_a_frame_at_the_time_of_the_one_before_is_left_out():
    picked, continues = sequence_of(
        np.array([0.0, 0.0, 0.1, 0.1, 0.1, 0.2]),
        np.array([False, True, True, True, True, True]),
        np.array([False, False, False, True, False, False]),
        1.0,
    )
    assert picked.tolist() == [1, 2, 5]
    assert continues.tolist() == [False, True, False]  # the cut fell on a frame that was left out


def test_repeats_take_the_value_of_what_they_repeat():
    repeats = np.array([False, True, True, False, False, True])
    got = spread(np.array([5.0, 7.0]), np.array([0, 3]), repeats)
    np.testing.assert_array_equal(got, [5, 5, 5, 7, np.nan, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_s": np.array([0.0, 0.2, 0.1])}, "time_s must ascend"),
        ({"frame": np.array([1, 0, 2])}, "frame must ascend"),
        ({"frame": np.array([0, 1, 3])}, "frame must ascend"),
        ({"scores": np.ones(2)}, r"scores has shape \(2,\)"),
        ({"continues": np.ones(3, bool)}, "the first frame has none before it"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    s = sequence(moving(3), 3)
    fields = {name: getattr(s, name) for name in Sequence.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        Sequence(**{**fields, **change})


def test_a_missed_object_among_many_is_found_at_scale():
    """Two thousand frames of twenty objects: each vanished box is counted in its frame, and nothing else is."""
    rng = np.random.default_rng(5)
    frames, objects = 2000, 20
    gone = {
        (int(t), int(o))
        for t, o in zip(rng.integers(10, 1990, 60), rng.integers(0, objects, 60), strict=True)
    }
    rows = [
        (t, [60.0 * o + (t % 200) * 0.1, 0, 60.0 * o + (t % 200) * 0.1 + 50, 50], 0.9, 0)
        for t in range(frames)
        for o in range(objects)
        if (t, o) not in gone
    ]
    found = measured(sequence(rows, frames, rate_hz=10))
    expected = np.bincount([t for t, _ in gone], minlength=frames)
    np.testing.assert_array_equal(found.flicker[1:-1], expected[1:-1])
