"""Boxes: overlap against plain geometry, matching against scipy run on every frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mining import boxes as boxes_module
from mining.boxes import area, iou_matrix, iou_pairs, match_committee

coordinate = st.floats(min_value=-1e6, max_value=1e6, width=32, allow_nan=False)
any_box = st.lists(
    st.one_of(coordinate, st.just(float("nan")), st.just(float("inf")), st.just(-float("inf"))),
    min_size=4,
    max_size=4,
)


def iou_by_counting(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of integer boxes by counting the unit squares that they cover."""
    canvas = np.zeros((2, 40, 40), dtype=bool)
    for layer, (x1, y1, x2, y2) in zip(canvas, (a, b), strict=True):
        layer[y1:y2, x1:x2] = True
    return (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()


def test_area():
    got = area(
        np.array([[0, 0, 2, 3], [0, 0, 0, 3], [5, 5, 4, 9], [0, 0, np.inf, 1], [np.nan, 0, 1, 1]], np.float32)
    )
    assert got.tolist() == [6, 0, 0, 0, 0]


def test_iou_equals_counted_squares():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 20, (2, 300, 2))
    a, b = np.concatenate([corner, corner + rng.integers(1, 20, (2, 300, 2))], axis=2)
    counted = [iou_by_counting(x, y) for x, y in zip(a, b, strict=True)]
    assert np.count_nonzero(counted) > 50
    np.testing.assert_allclose(iou_pairs(a, b), counted, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(iou_matrix(a, b)), counted, atol=1e-12)


def test_iou_matrix_is_batched():
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 50, (3, 7, 2))
    a = np.concatenate([corner, corner + rng.uniform(10, 60, corner.shape)], axis=-1)
    b = a[:, :4] + 3
    got = iou_matrix(a, b)
    assert got.shape == (3, 7, 4)
    for f in range(3):
        for i in range(7):
            np.testing.assert_allclose(got[f, i], iou_pairs(np.repeat(a[f, i][None], 4, axis=0), b[f]))


@pytest.mark.parametrize(
    "box",
    [
        [1, 1, 1, 5],
        [3, 3, 1, 1],
        [0, 0, 0, 0],
        [np.nan, 0, 1, 1],
        [0, 0, np.inf, np.inf],
        [-np.inf, 0, np.inf, 1],
    ],
)
def test_box_without_area_overlaps_nothing_not_even_itself(box):
    one = np.array([box], dtype=np.float32)
    whole = np.array([[-10, -10, 10, 10]], dtype=np.float32)
    assert (
        iou_pairs(one, whole).tolist()
        == iou_pairs(whole, one).tolist()
        == iou_pairs(one, one).tolist()
        == [0.0]
    )


@given(a=any_box, b=any_box)
def test_iou_is_a_number_in_bounds_and_symmetric(a, b):
    a, b = np.array([a], dtype=np.float32), np.array([b], dtype=np.float32)
    value = iou_pairs(a, b)
    assert 0.0 <= value[0] <= 1.0
    assert value == iou_pairs(b, a)
    assert iou_pairs(a, a)[0] in {0.0, 1.0}


def reference_groups(frame, member, boxes, scores, threshold):
    """The definition, slowly: frame by frame and member by member, each solved by scipy on the full matrix."""
    groups = []
    for f in np.unique(frame):
        objects: list[list[int]] = []
        for m in np.unique(member[frame == f]):
            newcomers = np.flatnonzero((frame == f) & (member == m))
            newcomers = newcomers[np.lexsort((*boxes[newcomers].T[::-1], -scores[newcomers]))]
            unmatched = set(newcomers.tolist())
            if objects:
                means = np.array([boxes[o].astype(np.float64).mean(axis=0) for o in objects])
                overlap = iou_matrix(means, boxes[newcomers])
                overlap[overlap < threshold] = 0.0
                for o, j in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                    if overlap[o, j] > 0:
                        objects[o].append(int(newcomers[j]))
                        unmatched.remove(int(newcomers[j]))
            objects.extend([j] for j in newcomers.tolist() if j in unmatched)
        groups.extend((int(f), frozenset(o)) for o in objects)
    return set(groups)


def groups_of(frame, match_id):
    """The same shape from ``match_id``."""
    keys = list(zip(frame.tolist(), match_id.tolist(), strict=True))
    return {(key[0], frozenset(i for i, other in enumerate(keys) if other == key)) for key in set(keys)}


def random_committee(seed, *, frames=25, members=3, crowd=60.0, most=9):
    """Random members that see noisy copies of the same crowded objects, and some that are not there."""
    rng = np.random.default_rng(seed)
    rows = []
    for f in range(frames):
        n = rng.integers(0, most + 1)
        corner, size = rng.uniform(0, crowd, (n, 2)), rng.uniform(15, 40, (n, 2))
        truth = np.concatenate([corner, corner + size], axis=1)
        for m in range(members):
            seen = truth[rng.random(n) < 0.85] if n else truth
            boxes = np.concatenate([seen, seen[: len(seen) // 3]]) + rng.normal(
                0, 3.0, (len(seen) + len(seen) // 3, 4)
            )
            rows += [(f, m, box, rng.uniform(0.05, 1)) for box in boxes]
    order = rng.permutation(len(rows))
    frame = np.array([rows[i][0] for i in order], dtype=np.int64)
    member = np.array([rows[i][1] for i in order], dtype=np.int64)
    boxes = np.array([rows[i][2] for i in order], dtype=np.float32)
    scores = np.array([rows[i][3] for i in order], dtype=np.float32)
    return frame, member, boxes, scores


@pytest.mark.parametrize("members", [2, 3, 8])
@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_matching_equals_scipy_on_every_frame(members, threshold):
    for seed in range(4):
        case = random_committee(seed, members=members, frames=15 if members == 8 else 30)
        match_id = match_committee(*case, iou_threshold=threshold)
        assert match_id.dtype == np.int32
        assert groups_of(case[0], match_id) == reference_groups(*case, threshold)


def test_matching_equals_scipy_with_small_chunks(monkeypatch):
    case = random_committee(7)
    monkeypatch.setattr(boxes_module, "_PAIRS_PER_CHUNK", 5)
    assert groups_of(case[0], match_committee(*case)) == reference_groups(*case, 0.5)


def test_best_total_wins_over_first_come():
    # The better scored box of member 1 overlaps A best, but giving it B lets both of them find an object.
    a, b = [0, 0, 100, 100], [0, 20, 100, 120]
    first, second = [0, 6, 100, 106], [0, -30, 100, 70]
    got = match_committee(
        np.zeros(4, int),
        np.array([0, 0, 1, 1]),
        np.array([a, b, first, second], float),
        np.array([0.9, 0.8, 0.7, 0.6]),
    )
    assert got.tolist() == [0, 1, 1, 0]


def test_ids_follow_the_highest_score_and_ties_follow_the_member():
    boxes = np.array(
        [[0, 0, 10, 10], [50, 50, 60, 60], [50, 50, 60, 60], [90, 90, 99, 99], [0, 0, 9, 9]], float
    )
    frame, member = np.array([0, 0, 0, 0, 3]), np.array([0, 0, 1, 1, 1])
    assert match_committee(frame, member, boxes, np.array([0.3, 0.2, 0.9, 0.5, 0.1])).tolist() == [
        2,
        0,
        0,
        1,
        0,
    ]
    assert match_committee(frame, member, boxes, np.array([0.5, 0.2, 0.9, 0.5, 0.1])).tolist() == [
        1,
        0,
        0,
        2,
        0,
    ]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), coarse=st.booleans())
def test_grouping_has_its_properties(seed, coarse):
    frame, member, boxes, scores = random_committee(seed % 1000, frames=6)
    if coarse:  # whole numbers: equal scores, equal overlaps, equal boxes
        boxes, scores = np.round(boxes / 10) * 10, np.round(scores * 3) / 3
    match_id = match_committee(frame, member, boxes, scores)
    # one box of a member an object; numbers without gaps; the best score first
    assert len(set(zip(frame.tolist(), member.tolist(), match_id.tolist(), strict=True))) == len(frame)
    for f in np.unique(frame):
        ids = np.unique(match_id[frame == f])
        assert ids.tolist() == list(range(len(ids)))
        best = [scores[(frame == f) & (match_id == i)].max() for i in ids]
        assert best == sorted(best, reverse=True)
    # the order of rows does not matter; of boxes that are equal in everything, either may be the one
    order = np.random.default_rng(seed).permutation(len(frame))
    again = match_committee(frame[order], member[order], boxes[order], scores[order])

    def contents(f, m, b, s, ids):
        return sorted(
            zip(f.tolist(), m.tolist(), map(tuple, b.tolist()), s.tolist(), ids.tolist(), strict=True)
        )

    assert contents(frame, member, boxes, scores, match_id) == contents(
        frame[order], member[order], boxes[order], scores[order], again
    )
    # frames do not touch each other
    one = frame == frame[0]
    assert (
        match_committee(frame[one], member[one], boxes[one], scores[one]).tolist() == match_id[one].tolist()
    )


def test_no_boxes_one_member_and_boxes_without_area():
    empty = match_committee(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    assert empty.shape == (0,)
    assert empty.dtype == np.int32
    same = np.array([[0, 0, 10, 10]] * 2, float)
    assert match_committee(np.array([4, 4]), np.array([1, 1]), same, np.array([0.1, 0.2])).tolist() == [1, 0]
    flat = np.array([[5, 5, 5, 9], [5, 5, 5, 9], [np.nan] * 4], float)
    assert sorted(match_committee(np.zeros(3, int), np.array([0, 1, 2]), flat, np.full(3, 0.5))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.array([0.5, np.nan])}, "1 of 2 scores are not finite"),
        ({"member": np.array([0])}, r"needs member \[2\]"),
        ({"iou_threshold": 0.0}, "iou_threshold is 0.0"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "frame": np.array([0, 0]),
        "member": np.array([0, 1]),
        "boxes": np.array([[0, 0, 1, 1]] * 2, float),
        "scores": np.array([0.5, 0.5]),
    }
    with pytest.raises(ValueError, match=message):
        match_committee(**(good | change))
