"""Real errors, against a plain loop over frames and classes with scipy's assignment."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from mining.signals.errors import count_errors, real_boxes


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def assigned(boxes, truth, threshold):
    if not boxes or not truth:
        return []
    overlap = np.array([[iou(a, b) for b in truth] for a in boxes])
    overlap[overlap < threshold] = 0
    return [(i, j) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] > 0]


def by_loop(frame, boxes, classes, truth_frame, truth, truth_classes, frames):
    rows = np.zeros((frames, 3), int)
    for f in range(frames):
        for c in range(3):
            mine = [b for b, g, k in zip(boxes, frame, classes, strict=True) if g == f and k == c]
            theirs = [
                b for b, g, k in zip(truth, truth_frame, truth_classes, strict=True) if g == f and k == c
            ]
            found = assigned(mine, theirs, 0.5)
            mine = [b for i, b in enumerate(mine) if i not in {i for i, _ in found}]
            theirs = [b for j, b in enumerate(theirs) if j not in {j for _, j in found}]
            beside = len(assigned(mine, theirs, 0.1))
            rows[f] += len(theirs) - beside, len(mine) - beside, beside
    return rows


def scene(rng, frames=60):
    truth_frame = rng.integers(0, frames, 240)
    corner = rng.uniform(0, 60, (240, 2))
    truth = np.concatenate([corner, corner + rng.uniform(15, 40, (240, 2))], axis=1)
    seen = rng.random(240) < 0.8
    boxes = np.concatenate([truth[seen] + rng.normal(0, 5, (seen.sum(), 4)), truth[:50] + 200])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    frame = np.concatenate([truth_frame[seen], truth_frame[:50]])
    truth_classes = rng.integers(0, 3, 240)
    classes = np.concatenate([truth_classes[seen], truth_classes[:50]])
    classes[rng.random(len(classes)) < 0.1] = 0
    return frame, boxes, classes, rng.random(len(frame)), truth_frame, truth, truth_classes


def test_errors_equal_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    frame, boxes, classes, scores, truth_frame, truth, truth_classes = scene(rng)
    got = count_errors(frame, boxes, classes, scores, truth_frame, truth, truth_classes, 60)
    wanted = by_loop(frame, boxes, classes, truth_frame, truth, truth_classes, 60)
    np.testing.assert_array_equal(np.stack([got.missed, got.false_alarms, got.misplaced], axis=1), wanted)
    assert (wanted.sum(axis=0) > 5).all()  # each kind did occur
    np.testing.assert_array_equal(got.total, wanted.sum(axis=1))
    np.testing.assert_array_equal(got.objects, np.bincount(truth_frame, minlength=60))
    np.testing.assert_allclose(got.rate, wanted.sum(axis=1) / (np.bincount(truth_frame, minlength=60) + 1))


def test_one_error_of_each_kind():
    box = np.array([[0.0, 0, 10, 10]])
    empty = np.zeros((0, 4))
    zero, one, none = np.zeros(1, int), np.ones(1, int), np.zeros(0, int)

    def count(boxes, classes, truth, truth_classes, ignore=None):
        e = count_errors(
            np.zeros(len(boxes), int), boxes, classes, np.ones(len(boxes)),
            np.zeros(len(truth), int), truth, truth_classes, 1, ignore,
        )  # fmt: skip
        return int(e.missed[0]), int(e.false_alarms[0]), int(e.misplaced[0])

    assert count(box, zero, box, zero) == (0, 0, 0)
    assert count(empty, none, box, zero) == (1, 0, 0)
    assert count(box, zero, empty, none) == (0, 1, 0)
    assert count(box, one, box, zero) == (1, 1, 0)  # wrong class: two errors
    assert count(box + np.array([6, 0, 6, 0]), zero, box, zero) == (0, 0, 1)  # IoU 0.25
    assert count(box + np.array([9, 0, 9, 0]), zero, box, zero) == (1, 1, 0)  # IoU 0.05
    assert count(np.repeat(box, 2, axis=0), np.zeros(2, int), box, zero) == (0, 1, 0)  # a duplicate
    ignored = np.ones(1, bool)
    assert count(empty, none, box, zero, ignored) == (0, 0, 0)
    assert count(box, zero, box, zero, ignored) == (0, 0, 0)
    assert count(empty, none, empty, none) == (0, 0, 0)


def test_of_two_candidates_on_one_object_the_better_one_is_real():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]], float)
    got = real_boxes(
        np.zeros(4, int), boxes, np.array([0, 0, 0, 1]), np.array([0.3, 0.8, 0.9, 0.95]),
        np.zeros(1, int), boxes[:1], np.zeros(1, int),
    )  # fmt: skip
    np.testing.assert_array_equal(got, [False, True, False, False])


def test_a_wrong_class_is_one_error_where_asked():
    rng = np.random.default_rng(1)
    frame, boxes, classes, scores, truth_frame, truth, truth_classes = scene(rng)
    arguments = (frame, boxes, classes, scores, truth_frame, truth, truth_classes, 60)
    two, one = count_errors(*arguments), count_errors(*arguments, pair_classes=True)
    # By a plain loop: of what neither finds nor is found in its class, pairs of IoU .5 or more, one to one.
    wanted = np.zeros(60, int)
    for f in range(60):
        left_boxes, left_objects = [], []
        for c in range(3):
            mine = list(boxes[(frame == f) & (classes == c)])
            theirs = list(truth[(truth_frame == f) & (truth_classes == c)])
            for threshold in (0.5, 0.1):
                found = assigned(mine, theirs, threshold)
                mine = [b for i, b in enumerate(mine) if i not in {i for i, _ in found}]
                theirs = [b for j, b in enumerate(theirs) if j not in {j for _, j in found}]
            left_boxes += mine
            left_objects += theirs
        wanted[f] = len(assigned(left_boxes, left_objects, 0.5))
    np.testing.assert_array_equal(one.wrong_class, wanted)
    assert wanted.sum() > 3
    np.testing.assert_array_equal(one.missed, two.missed - wanted)
    np.testing.assert_array_equal(one.false_alarms, two.false_alarms - wanted)
    np.testing.assert_array_equal(one.misplaced, two.misplaced)
    np.testing.assert_array_equal(one.total, two.total - wanted)
    assert not two.wrong_class.any()


def test_boxes_in_an_ignored_region_are_no_false_alarms():
    crowd = np.array([[0.0, 0, 100, 50]])
    boxes = np.array(
        [[10.0, 10, 20, 20], [95, 0, 105, 10], [96, 0, 106, 10]]
    )  # within, half out, further out
    got = count_errors(
        np.zeros(3, int), boxes, np.array([0, 1, 0]), np.ones(3), np.zeros(1, int), crowd, np.zeros(1, int), 1,
        np.ones(1, bool),
    )  # fmt: skip
    assert got.false_alarms.tolist() == [1]
    assert got.objects.tolist() == got.missed.tolist() == [0]
