"""Intervals and splits are those of published tests where these apply, and hold their promise where drives vary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mining.compare import stats

RNG = np.random.default_rng(3)


def sums(values: np.ndarray, drive: np.ndarray, group: np.ndarray | None = None, groups: int = 1):
    group = np.zeros(len(values), np.int64) if group is None else group
    drives = int(drive.max()) + 1
    return (
        stats.by_drive(drive, group, drives, groups),
        stats.by_drive(drive, group, drives, groups, values.astype(np.float64)),
    )


def mean(values: np.ndarray, drive: np.ndarray) -> stats.Means:
    counts, totals = sums(values, drive)
    return stats.means_of(totals, counts)


def test_with_one_frame_a_drive_a_difference_of_means_is_welchs_test() -> None:
    a, b = RNG.normal(0, 1, 12), RNG.normal(1, 3, 30)
    ours = stats.difference(mean(a, np.arange(12)), mean(b, np.arange(30)))
    theirs = scipy_stats.ttest_ind(b, a, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.p[0] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low[0], ours.high[0]) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_sample_with_one_frame_a_drive_is_students_test() -> None:
    change = RNG.normal(0.3, 1, 15)
    one = mean(change, np.arange(15))
    ours = stats.jackknife(one.value, [one.left_out])
    assert ours.p[0] == pytest.approx(scipy_stats.ttest_1samp(change, 0).pvalue, rel=1e-9)


@pytest.mark.parametrize("digits", [8, 0])
def test_with_one_frame_a_drive_superiority_is_brunner_and_munzels_test(digits: int) -> None:
    """Also where many values are equal."""
    a, b = np.round(RNG.normal(0, 2, 20), digits), np.round(RNG.normal(1, 3, 35), digits)
    values, is_after = np.r_[a, b], np.arange(55) >= 20
    probability, left_out = stats.superiority(values, is_after, np.arange(55), 55)
    u = scipy_stats.mannwhitneyu(b, a).statistic
    assert probability == pytest.approx(u / (20 * 35))
    ours = stats.jackknife(np.array([probability]), [one[:, None] for one in left_out], null=0.5)
    assert ours.p[0] == pytest.approx(scipy_stats.brunnermunzel(a, b).pvalue, rel=1e-6)


def test_leaving_a_drive_out_of_superiority_is_what_it_says() -> None:
    values, is_after = RNG.integers(0, 5, 60).astype(float), np.arange(60) >= 25
    drive = np.r_[RNG.integers(0, 4, 25), RNG.integers(4, 9, 35)]
    probability, left_out = stats.superiority(values, is_after, drive, 9)
    for d in range(9):
        kept = drive != d
        expected, _ = stats.superiority(values[kept], is_after[kept], drive[kept], 9)
        assert left_out[int(d >= 4)][d] == pytest.approx(expected)
        assert np.isnan(left_out[int(d < 4)][d])
    assert probability == pytest.approx(
        scipy_stats.mannwhitneyu(values[is_after], values[~is_after]).statistic / (25 * 35)
    )


def test_intervals_are_as_wide_as_those_of_a_bootstrap_by_drive() -> None:
    drive = np.repeat(np.arange(40), RNG.integers(5, 60, 40))
    values = RNG.normal(0, 1, 40)[drive] + RNG.normal(0, 1, len(drive))
    one = mean(values, drive)
    ours = stats.jackknife(one.value, [one.left_out])
    counts, totals = sums(values, drive)
    drawn = RNG.integers(0, 40, (4000, 40))
    spread = (totals[drawn, 0].sum(axis=1) / counts[drawn, 0].sum(axis=1)).std()
    half = (ours.high[0] - ours.low[0]) / 2
    assert half == pytest.approx(scipy_stats.t.ppf(0.975, 39) * spread, rel=0.1)
    # Taking frames for independent would make it several times too narrow.
    assert half > 2 * 1.96 * values.std() / np.sqrt(len(values))


def test_kitagawas_split_by_hand() -> None:
    """Rain rises from 20 to 60 % of the frames, and rain itself from .5 to .6; dry stays at .3."""
    found = stats.decompose(
        np.array([80.0, 20.0]), np.array([24.0, 10.0]), np.array([40.0, 60.0]), np.array([12.0, 36.0])
    )
    # .48 - .34; (.2 + .6) / 2 * .1; -.4 * .3 + .4 * (.5 + .6) / 2
    assert found == pytest.approx([0.14, 0.04, 0.10, 0.0])


def test_what_only_one_side_has_stands_apart() -> None:
    """A third slice comes in after, with a tenth of the frames: the others do not change."""
    found = stats.decompose(
        np.array([50.0, 50.0, 0.0]),
        np.array([10.0, 20.0, 0.0]),
        np.array([45.0, 45.0, 10.0]),
        np.array([9.0, 18.0, 9.0]),
    )
    assert found == pytest.approx([0.06, 0.0, 0.0, 0.1 * (0.9 - 0.3)])


def test_with_nothing_in_common_nothing_is_told_of_mix_and_within() -> None:
    found = stats.decompose(
        np.array([5.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 5.0]), np.array([0.0, 4.0])
    )
    assert found == pytest.approx([0.6, 0.0, 0.0, 0.6])


_counts = st.lists(st.integers(0, 30), min_size=4, max_size=4).filter(any)


@settings(max_examples=100, deadline=None)
@given(_counts, _counts, st.integers(0, 2**32 - 1))
def test_the_parts_add_up_and_swapping_sides_turns_their_signs(
    before: list[int], after: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = [np.array(before, float), np.array(after, float)]
    totals = [count * rng.random(4) for count in counts]
    found = stats.decompose(counts[0], totals[0], counts[1], totals[1])
    assert found[1:].sum() == pytest.approx(found[0], abs=1e-12)
    assert stats.decompose(counts[1], totals[1], counts[0], totals[0]) == pytest.approx(-found, abs=1e-12)


def test_few_drives_give_no_interval_and_a_constant_none() -> None:
    two, many = mean(RNG.random(20), np.arange(20) % 2), mean(RNG.random(40), np.arange(40) % 8)
    found = stats.difference(two, many)
    assert not np.isnan(found.value[0])
    assert np.isnan(found.low[0])
    assert np.isnan(found.p[0])
    same = mean(np.ones(40), np.arange(40) % 8)
    assert np.isnan(stats.difference(same, same).p[0])


def test_drives_without_a_frame_of_a_kind_do_not_count() -> None:
    drive, group = np.repeat(np.arange(10), 6), np.repeat([0] * 8 + [1] * 2, 6)
    counts, totals = sums(RNG.random(60), drive, group, 2)
    found = stats.means_of(totals, counts)
    one = stats.jackknife(found.value, [found.left_out])
    assert not np.isnan(one.p[0])
    assert np.isnan(one.p[1])  # two drives only


@pytest.mark.parametrize("drives", [4, 12])
def test_alike_nights_are_told_apart_in_a_twentieth_of_cases(drives: int) -> None:
    """Frames of a drive are alike, drives of unequal length: of 400 pairs of nights, the share that comes out as different.

    A rate of 5 % is found within [2.2, 8.5] % in all but one of a thousand such draws (binomial).
    """
    rng = np.random.default_rng(drives)
    found = {"mean": 0, "superiority": 0}
    plain = 0
    for _ in range(400):
        drive = np.repeat(np.arange(2 * drives), rng.integers(10, 80, 2 * drives))
        values = rng.normal(0, 0.7, 2 * drives)[drive] + rng.normal(0, 1, len(drive))
        is_after = drive >= drives
        counts, totals = sums(values, drive)
        means = [
            stats.means_of(totals[side], counts[side]) for side in (slice(0, drives), slice(drives, None))
        ]
        found["mean"] += bool(stats.difference(*means).p[0] < 0.05)
        probability, left = stats.superiority(values, is_after, drive, 2 * drives)
        p = stats.jackknife(np.array([probability]), [one[:, None] for one in left], null=0.5).p[0]
        found["superiority"] += bool(p < 0.05)
        plain += bool(scipy_stats.ttest_ind(values[is_after], values[~is_after]).pvalue < 0.05)
    for what, count in found.items():
        assert 0.022 * 400 <= count <= 0.085 * 400, what
    assert plain > 0.4 * 400  # what frames taken for independent would say


def test_adjusted_p_leaves_out_what_is_not_known() -> None:
    p = np.array([0.001, np.nan, 0.04, 0.9])
    expected = scipy_stats.false_discovery_control([0.001, 0.04, 0.9])
    found = stats.adjusted(p)
    assert found[[0, 2, 3]] == pytest.approx(expected)
    assert np.isnan(found[1])
    assert np.isnan(stats.adjusted(np.array([np.nan]))).all()


def test_places_and_tops() -> None:
    values = RNG.integers(0, 8, 50).astype(float)
    other = RNG.random(50)
    places = stats.places(values)
    assert np.corrcoef(places, stats.places(other))[0, 1] == pytest.approx(
        scipy_stats.spearmanr(values, other).statistic
    )
    assert (places.min() >= 0, places.max() <= 1, places.mean()) == (True, True, pytest.approx(0.5))
    assert stats.places(np.array([7.0])) == pytest.approx([0.5])
    top = set(np.argsort(-other)[:9]) & set(np.lexsort((np.arange(50), -values))[:9])
    assert stats.in_both_tops(values, other, 9) == len(top)
