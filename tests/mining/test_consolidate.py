"""Consolidation against the inventors' weighted box fusion, against cases by hand, and for any numbering of annotators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.consolidate import annotator_agreement, consolidate

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "label_references.json").read_text())
CAR, TRUCK, PERSON = 0, 1, 2


def flat(frames, labelled=None):
    """{frame: {annotator: [(box, class[, ignore]), ...]}} -> the arguments of `consolidate`."""
    rows = [
        (f, a, *thing[0], thing[1], len(thing) > 2 and thing[2])
        for f, by in frames.items()
        for a, things in by.items()
        for thing in things
    ]
    table = np.array(rows, float).reshape(-1, 8)
    pairs = np.array([(f, a) for f, by in frames.items() for a in by], int).reshape(-1, 2)
    return (
        table[:, 0].astype(int),
        table[:, 1].astype(int),
        table[:, 2:6],
        table[:, 6].astype(int),
        table[:, 7] > 0,
        pairs[:, 0],
        pairs[:, 1],
    )


def agreement_of(arguments, **settings):
    f, a, b, c, _, lf, la = arguments
    return annotator_agreement(consolidate(*arguments, **settings), f, a, b, c, lf, la)


@pytest.mark.parametrize("case", REFERENCES["fusion"])
def test_boxes_are_those_of_the_inventors_of_weighted_box_fusion(case) -> None:
    frames = {
        0: {
            a: list(zip(drawn["boxes_px"], drawn["classes"], strict=True))
            for a, drawn in enumerate(case["annotators"])
        }
    }
    weights = None if case["weights"] is None else np.array(case["weights"])
    done = consolidate(*flat(frames), min_agreement=0.01, weights=weights)
    got = sorted((int(c), *b) for c, b in zip(done.classes, done.boxes_px.tolist(), strict=True))
    want = sorted((int(c), *b) for c, b in zip(case["classes"], case["boxes_px"], strict=True))
    assert len(got) == len(want) > 3
    np.testing.assert_allclose(got, want, atol=1e-3)  # they compute in float32


def test_a_frame_of_one_annotator_passes_unchanged_in_its_order() -> None:
    boxes = [((50, 0, 60, 10), TRUCK), ((0, 0, 10, 10), CAR, True), ((0, 0, 10, 10), CAR)]
    done = consolidate(*flat({3: {7: boxes}}))
    np.testing.assert_array_equal(done.boxes_px, [b[0] for b in boxes])
    assert done.classes.tolist() == [TRUCK, CAR, CAR]
    assert done.ignore.tolist() == [False, True, False]
    assert np.isnan(done.agreement).all()
    assert not done.is_fused.any()
    assert done.raw.tolist() == done.part_of.tolist() == [0, 1, 2]


def test_minorities_fall_and_halves_stand() -> None:
    car, stray = ((0, 0, 100, 50), CAR), ((300, 300, 400, 400), CAR)
    for drawers, others, stands in [(1, 1, True), (1, 2, False), (2, 1, True), (2, 2, True), (1, 3, False)]:
        people = {a: [car, stray] if a < drawers else [car] for a in range(drawers + others)}
        arguments = flat({0: people})
        done = consolidate(*arguments)
        assert (len(done.frame) == 2) == stands
        at_stray = arguments[2][:, 0] == 300
        assert (done.part_of[at_stray] >= 0).all() == stands
        assert done.agreement[0] == 1.0
        if stands:
            assert done.agreement[1] == pytest.approx(drawers / (drawers + others))


def test_those_who_found_a_frame_empty_have_a_vote() -> None:
    done = consolidate(*flat({0: {0: [((0, 0, 10, 10), CAR)], 1: [], 2: []}}))
    assert len(done.frame) == 0
    assert done.part_of.tolist() == [-1]


def test_the_class_is_voted_and_a_tie_goes_to_the_first_in_the_list() -> None:
    box = (0, 0, 100, 50)
    assert consolidate(
        *flat({0: {0: [(box, TRUCK)], 1: [(box, CAR)], 2: [(box, TRUCK)]}})
    ).classes.tolist() == [TRUCK]
    assert consolidate(*flat({0: {0: [(box, TRUCK)], 1: [(box, CAR)]}})).classes.tolist() == [CAR]
    weighted = consolidate(*flat({0: {0: [(box, TRUCK)], 1: [(box, CAR)]}}), weights=np.array([3.0, 1.0]))
    assert weighted.classes.tolist() == [TRUCK]


def test_who_drew_both_meant_both() -> None:
    rider, bicycle = (0, 0, 40, 100), (0, 10, 40, 105)  # they overlap by IoU .86
    both = [(rider, PERSON), (bicycle, TRUCK)]
    done = consolidate(*flat({0: {0: both, 1: both[::-1], 2: [(bicycle, TRUCK)]}}))
    assert sorted(done.classes.tolist()) == [TRUCK, PERSON]
    assert sorted(done.agreement.tolist()) == [pytest.approx(2 / 3), 1.0]


def test_ignore_stands_where_half_say_so() -> None:
    box = (0, 0, 100, 50)
    for votes, ignored in [((True, False), True), ((True, False, False), False), ((True, True, False), True)]:
        frames = {0: {a: [(box, CAR, vote)] for a, vote in enumerate(votes)}}
        assert consolidate(*flat(frames)).ignore.tolist() == [ignored]


def test_agreement_by_annotator_and_class() -> None:
    car, truck, person = ((0, 0, 100, 100), CAR), ((200, 0, 300, 100), TRUCK), ((400, 0, 450, 100), PERSON)
    frames = {
        0: {0: [car, truck], 1: [car, ((200, 0, 300, 100), CAR)], 2: [car, truck, person]},
        1: {0: [car], 1: [], 2: [car]},
        2: {0: [person]},  # shared with nobody: says nothing of agreement
    }
    got = agreement_of(flat(frames))
    rows = {
        (int(a), int(c)): (int(f), int(b), int(y), int(m), float(g))
        for a, c, f, b, y, m, g in zip(
            got.annotator,
            got.classes,
            got.frames,
            got.boxes,
            got.agreed,
            got.missed,
            got.agreement,
            strict=True,
        )
    }
    # truth: frame 0: car, truck (the person of one of three falls); frame 1: car
    assert rows[0, CAR] == (2, 2, 2, 0, 1.0)
    assert rows[0, TRUCK] == (2, 1, 1, 0, 1.0)
    assert rows[0, PERSON][:4] == (2, 0, 0, 0)
    assert np.isnan(rows[0, PERSON][4])
    assert rows[1, CAR] == (2, 2, 1, 1, pytest.approx(1 / 3))  # a truck called car; a car overlooked
    assert rows[1, TRUCK] == (2, 0, 0, 1, 0.0)
    assert rows[2, PERSON] == (2, 1, 0, 0, 0.0)
    assert set(got.annotator.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(got.mean_iou[got.agreed > 0], 1.0)
    assert np.isnan(got.mean_iou[got.agreed == 0]).all()


def test_mean_iou_is_that_of_the_drawn_box_with_the_fused_one() -> None:
    got = agreement_of(flat({0: {0: [((0, 0, 100, 10), CAR)], 1: [((0, 0, 80, 10), CAR)]}}))
    np.testing.assert_allclose(got.mean_iou, [90 / 100, 80 / 90])  # fused: 0, 0, 90, 10


def test_nobody_shares_a_frame() -> None:
    got = agreement_of(flat({0: {0: [((0, 0, 9, 9), CAR)]}, 1: {1: []}}))
    assert len(got.annotator) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: (*a[:5], np.r_[a[5], a[5][:1]], np.r_[a[6], a[6][:1]]), "twice"),
        (lambda a: (*a[:5], a[5][1:], a[6][1:]), "did not label its frame"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message) -> None:
    arguments = flat({0: {0: [((0, 0, 9, 9), CAR)], 1: []}})
    with pytest.raises(ValueError, match=message):
        consolidate(*change(arguments))


# Coordinates of few values, so that boxes overlap, coincide and tie all the time.
edges = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 5))
things = st.tuples(
    edges.map(lambda e: (e[0], e[1], e[0] + e[2], e[1] + e[3])), st.integers(0, 2), st.booleans()
)
drawings = st.dictionaries(
    st.integers(0, 2),
    st.dictionaries(st.integers(0, 3), st.lists(things, max_size=4), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


def rows_of(done):
    keys = (done.frame, done.boxes_px, done.classes, done.ignore, done.agreement, done.is_fused)
    return sorted(map(repr, zip(*(k.tolist() for k in keys), strict=True)))


@settings(max_examples=80, deadline=None)
@given(frames=drawings, shuffle=st.permutations(range(4)), seed=st.integers(0, 99))
def test_neither_the_numbers_of_annotators_nor_the_order_of_rows_matter(frames, shuffle, seed) -> None:
    f, a, b, c, i, lf, la = flat(frames)
    order = np.random.default_rng(seed).permutation(len(f))
    numbers = np.array(shuffle)
    done = consolidate(f, a, b, c, i, lf, la)
    again = consolidate(
        f[order], numbers[a[order]], b[order], c[order], i[order], lf[::-1], numbers[la][::-1]
    )
    assert rows_of(again) == rows_of(done)


@settings(max_examples=80, deadline=None)
@given(frames=drawings)
def test_every_box_is_accounted_for(frames) -> None:
    arguments = flat(frames)
    f, a = arguments[:2]
    heads = {frame: len(by) for frame, by in frames.items()}
    done = consolidate(*arguments)
    got = agreement_of(arguments)
    assert (np.diff(done.frame) >= 0).all()
    for k in range(len(done.frame)):
        parts = np.flatnonzero(done.part_of == k)
        assert (f[parts] == done.frame[k]).all()
        assert len(set(a[parts].tolist())) == len(parts) > 0
        if done.is_fused[k]:
            assert done.agreement[k] == pytest.approx(len(parts) / heads[int(done.frame[k])])
            assert done.agreement[k] >= 0.5
    for frame, by in frames.items():
        if len(by) == 1:
            assert (done.part_of[f == frame] >= 0).all()
    assert (got.agreed <= got.boxes).all()
    assert (got.missed >= 0).all()


@settings(max_examples=60, deadline=None)
@given(boxes=st.lists(things, max_size=5, unique_by=lambda t: t[0]), people=st.integers(2, 4))
def test_those_who_draw_the_same_get_just_that(boxes, people) -> None:
    arguments = flat({0: dict.fromkeys(range(people), boxes)})
    done = consolidate(*arguments)
    got = sorted(
        (tuple(b), c, g)
        for b, c, g in zip(done.boxes_px.tolist(), done.classes.tolist(), done.ignore.tolist(), strict=True)
    )
    assert got == sorted((tuple(map(float, b)), c, g) for b, c, g in boxes)
    assert (done.agreement == 1.0).all()
    assert (agreement_of(arguments).agreement == 1.0).all()
