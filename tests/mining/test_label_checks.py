"""Label checks against ObjectLab's inventors where both can speak, and by hand where the two part on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.label_checks import check_labels

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "label_references.json").read_text())
CAR, TRUCK, TRAM = 0, 1, 2


def checks(labels, objects, known=(True, True, True), frames=None):
    """Of one frame: labels are (box, class[, ignore]), objects are (box, class, confidence)."""
    n, m = len(labels), len(objects)
    return check_labels(
        np.zeros(n, int), np.array([t[0] for t in labels], float).reshape(-1, 4),
        np.array([t[1] for t in labels], int), np.array([len(t) > 2 and t[2] for t in labels], bool),
        np.zeros(m, int), np.array([t[0] for t in objects], float).reshape(-1, 4),
        np.array([t[1] for t in objects], int), np.array([t[2] for t in objects], float), np.array(known),
    )  # fmt: skip


@pytest.mark.parametrize("image", REFERENCES["object_lab"]["images"])
def test_where_objects_lie_apart_it_says_what_cleanlab_says(image) -> None:
    sure = np.array(image["objects"]["confidence"]) >= REFERENCES["object_lab"]["threshold"]
    boxes = np.array(image["labels"]["boxes_px"])
    seen = np.array(image["objects"]["boxes_px"])[sure]
    confidence = np.array(image["objects"]["confidence"])[sure]
    got = checks(
        list(zip(boxes.tolist(), image["labels"]["classes"], strict=True)),
        list(zip(seen.tolist(), np.array(image["objects"]["classes"])[sure], confidence, strict=True)),
        known=(True,) * 4,
    )
    # Its similarity is .9 IoU + .1 exp(-.1 distance of the centres); of the nearest object, for nothing overlaps two.
    centre = (boxes[:, None, :2] + boxes[:, None, 2:] - seen[None, :, :2] - seen[None, :, 2:]) / 2
    distance = np.linalg.norm(centre, axis=2)
    nearest = distance.argmin(axis=1)
    part = 0.1 * np.exp(-0.1 * distance.min(axis=1))

    location = np.array(image["location"])
    said = location < 1.0  # 1 is its way to say nothing
    np.testing.assert_array_equal(~np.isnan(got.location_quality), said)
    np.testing.assert_allclose(0.9 * got.location_quality[said] + part[said], location[said], atol=1e-6)

    swapped = np.array(image["class"])
    other = got.class_quality < 1.0
    np.testing.assert_array_equal(other, swapped < 0.8)
    iou = (1.0 - got.class_quality[other]) / confidence[nearest[other]]
    np.testing.assert_allclose(1.0 - 0.9 * iou - part[other], swapped[other], atol=1e-6)

    overlooked = np.array(image["overlooked"], float)[sure]
    np.testing.assert_array_equal(np.isnan(got.overlooked_quality), np.isnan(overlooked))
    missing = ~np.isnan(overlooked)
    np.testing.assert_allclose(got.overlooked_quality[missing], 1.0 - confidence[missing])


def test_the_reference_has_all_three_kinds() -> None:
    images = REFERENCES["object_lab"]["images"]
    assert sum(v is not None for i in images for v in i["overlooked"]) >= 3
    assert sum(v < 1.0 for i in images for v in i["location"]) >= 5
    assert sum(v < 0.8 for i in images for v in i["class"]) >= 3


def test_in_a_queue_each_label_has_its_own_object() -> None:
    # The neighbour overlaps too, and is surer; ObjectLab's "most similar of all" would not see that the second is missing.
    first, second = (0, 0, 100, 100), (40, 0, 140, 100)
    got = checks([(first, CAR)], [(first, CAR, 0.9), (second, CAR, 0.8)])
    assert got.location_quality.tolist() == [1.0]
    assert np.isnan(got.overlooked_quality[0])
    assert got.overlooked_quality[1] == pytest.approx(1 - 0.8 * (1 - 60 / 140))


def test_a_shifted_label_is_worse_the_further_it_lies() -> None:
    place = [((d, 0, 100 + d, 100), CAR) for d in (0, 20, 50)]
    got = [checks([label], [((0, 0, 100, 100), CAR, 0.9)]).location_quality[0] for label in place]
    assert got == [1.0, pytest.approx(80 / 120), pytest.approx(50 / 150)]
    assert np.isnan(checks([((90, 0, 190, 100), CAR)], [((0, 0, 100, 100), CAR, 0.9)]).location_quality[0])


def test_another_class_is_worse_the_surer_the_committee() -> None:
    box = (0, 0, 100, 100)
    sure, unsure = (checks([(box, CAR)], [(box, TRUCK, p)]) for p in (0.9, 0.3))
    assert sure.class_quality[0] == pytest.approx(0.1)
    assert unsure.class_quality[0] == pytest.approx(0.7)
    assert sure.seen_class.tolist() == [TRUCK]
    assert np.isnan(sure.location_quality[0])
    assert checks([(box, CAR)], [(box, CAR, 0.9)]).class_quality.tolist() == [1.0]


def test_nothing_is_said_where_the_committee_sees_nothing() -> None:
    box = (0, 0, 100, 100)
    for objects in ([], [((500, 0, 600, 100), CAR, 0.9)], [(box, CAR, 0.1)]):
        got = checks([(box, CAR)], objects)
        assert np.isnan([got.location_quality[0], got.class_quality[0]]).all()
        assert got.seen_class.tolist() == [-1]
    assert np.isnan(got.overlooked_quality).all()  # the last: below OBJECT_CONFIDENCE


def test_a_class_that_no_member_knows_is_not_called_swapped() -> None:
    box = (0, 0, 100, 100)
    got = checks([(box, TRAM)], [(box, TRUCK, 0.9)], known=(True, True, False))
    assert np.isnan(got.class_quality[0])
    assert np.isnan(got.overlooked_quality[0])  # the label is about that object nevertheless


def test_ignore_regions_hide_what_lies_in_them() -> None:
    crowd = ((0, 0, 400, 100), CAR, True)
    inside, half_out, outside = (
        ((10, 10, 50, 60), CAR, 0.9),
        ((370, 0, 430, 100), CAR, 0.9),
        ((380, 0, 480, 100), CAR, 0.9),
    )
    got = checks([crowd], [inside, half_out, outside])
    assert np.isnan(got.location_quality[0])
    assert np.isnan(got.class_quality[0])
    assert np.isnan(got.overlooked_quality).tolist() == [True, True, False]


def test_frames_do_not_mix() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    got = check_labels(
        np.array([1]), box, np.array([CAR]), np.array([False]),
        np.array([0]), box, np.array([CAR]), np.array([0.9]), np.ones(3, bool),
    )  # fmt: skip
    assert np.isnan(got.location_quality[0])
    assert got.overlooked_quality[0] == pytest.approx(0.1)


boxes = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)).map(
    lambda e: (e[0] + 0.137 * e[2], e[1] + 0.071 * e[3], e[0] + 1.3 * e[2], e[1] + 1.1 * e[3])
)


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(
        st.tuples(st.integers(0, 2), boxes, st.integers(0, 2), st.booleans()), max_size=6, unique=True
    ),
    objects=st.lists(
        st.tuples(st.integers(0, 2), boxes, st.integers(0, 2), st.floats(0, 1)), max_size=6, unique=True
    ),
    seed=st.integers(0, 9),
)
def test_qualities_are_shares_and_rows_may_stand_in_any_order(labels, objects, seed) -> None:
    def columns(rows):
        return (
            np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], float).reshape(-1, 4),
            np.array([r[2] for r in rows], int), np.array([r[3] for r in rows]),
        )  # fmt: skip

    f, b, c, i = columns(labels)
    of, ob, oc, op = columns(objects)
    i, op = i.astype(bool), op.astype(float)
    known = np.array([True, True, False])
    got = check_labels(f, b, c, i, of, ob, oc, op, known)
    for values in (got.location_quality, got.class_quality, got.overlooked_quality):
        there = values[~np.isnan(values)]
        assert ((there >= 0) & (there <= 1)).all()
    assert np.isnan(got.location_quality[i]).all()
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(len(f)), rng.permutation(len(of))
    again = check_labels(f[p], b[p], c[p], i[p], of[q], ob[q], oc[q], op[q], known)
    # Which of two equally good assignments is taken may differ; how much is found may not.
    assert np.isnan(again.overlooked_quality).sum() == np.isnan(got.overlooked_quality).sum()
