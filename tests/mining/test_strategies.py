"""Strategies: the contract for each, and each against its own definition."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from mining.strategies import STRATEGIES, Candidates
from mining.strategies import distance as distance_module
from mining.strategies.distance import distances_when_picked
from tests.contracts.strategy_contract import StrategyContract, make_candidates
from tools.bench_select import plain_greedy

# The package hands out the functions of the same names.
k_center_module = sys.modules["mining.strategies.k_center"]
facility_location_module = sys.modules["mining.strategies.facility_location"]


class TestTopK(StrategyContract):
    strategy = staticmethod(STRATEGIES["top_k"])

    def test_hardest_first_then_by_name(self):
        candidates = make_candidates(100)
        want = sorted(range(100), key=lambda i: (-candidates.hardness[i], candidates.frame_id[i]))
        assert self.choose(candidates, 100).index.tolist() == want


class TestRandom(StrategyContract):
    strategy = staticmethod(STRATEGIES["random"])

    def test_every_frame_is_as_likely(self):
        candidates = make_candidates(10)
        count = np.zeros(10)
        for seed in range(2000):
            count[self.choose(candidates, 3, seed).index] += 1
        # binomial with p = 0.3: standard deviation 20.5
        assert abs(count - 600).max() < 100


class TestKCenter(StrategyContract):
    strategy = staticmethod(STRATEGIES["k_center"])

    @pytest.mark.parametrize("taken", [0, 1, 25])
    @pytest.mark.parametrize("d", [2, 16, 128])
    def test_equals_a_slow_loop_in_float64(self, taken, d):
        candidates = make_candidates(300, taken=taken, d=d, seed=d)
        assert self.choose(candidates, 60).index.tolist() == slow_k_center(candidates, 60)

    def test_constant_hardness_is_plain_farthest_first(self):
        candidates = make_candidates(200, taken=3)
        want = self.choose(replace(candidates, hardness=np.ones(200, np.float32)), 40).index.tolist()
        assert (
            self.choose(replace(candidates, hardness=np.full(200, 0.25, np.float32)), 40).index.tolist()
            == want
        )
        assert self.choose(replace(candidates, hardness=np.zeros(200, np.float32)), 40).index.tolist() == want

    def test_covers_clusters_that_top_k_misses(self):
        rng = np.random.default_rng(5)
        centres = np.eye(16, dtype=np.float32)[:8]
        vectors = np.repeat(centres, 50, axis=0) + rng.normal(0, 0.02, (400, 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        hardness = np.repeat(np.linspace(0.5, 1.0, 8), 50).astype(np.float32)
        candidates = Candidates(
            np.array([f"{i:04d}" for i in range(400)]), hardness, vectors, np.zeros((0, 16), np.float32)
        )
        assert set(self.choose(candidates, 8).index // 50) == set(range(8))
        assert len(set(STRATEGIES["top_k"](candidates, 8, 0).index // 50)) == 1

    def test_repeats_come_last_and_by_hardness(self):
        candidates = make_candidates(60, repeats=20)  # rows 40..59 repeat rows 0..19
        hardness = np.linspace(0.1, 0.9, 60).astype(np.float32)
        candidates = replace(candidates, hardness=hardness)
        picks = self.choose(candidates, 60)
        assert (picks.distance_to_nearest[40:] == 0).all()
        assert (picks.distance_to_nearest[1:40] > 0).all()
        late = hardness[picks.index[40:]]
        assert late.tolist() == sorted(late.tolist(), reverse=True)

    def test_what_is_taken_is_not_chosen_again(self):
        candidates = make_candidates(60)
        candidates = replace(candidates, taken=candidates.embeddings[:20])
        picks = self.choose(candidates, 60)
        assert set(picks.index[40:].tolist()) == set(range(20))
        assert (picks.distance_to_nearest[40:] == 0).all()

    def test_equals_are_ordered_by_name(self):
        same = np.tile(np.eye(4, dtype=np.float32)[0], (5, 1))
        candidates = Candidates(
            np.array(["c", "a", "e", "b", "d"]),
            np.full(5, 0.5, np.float32),
            same,
            np.zeros((0, 4), np.float32),
        )
        assert candidates.frame_id[self.choose(candidates, 5).index].tolist() == ["a", "b", "c", "d", "e"]

    @pytest.mark.parametrize(
        "kind", ["random", "clusters", "repeats", "one-hot", "not quite unit", "many taken"]
    )
    @pytest.mark.parametrize("any_hardness", [True, False])
    def test_bounds_and_blocks_change_no_pick(self, monkeypatch, kind, any_hardness):
        monkeypatch.setattr(k_center_module, "_ACTIVE_ROWS", 40)
        monkeypatch.setattr(k_center_module, "_ROWS_PER_BLOCK", 64)
        monkeypatch.setattr(k_center_module, "_CENTRES_PER_BLOCK", 8)
        candidates = by_name(make_candidates(900, taken=200 if kind == "many taken" else 0, d=24))
        vectors = candidates.embeddings.copy()
        if kind == "clusters":
            vectors = vectors[:30][np.arange(900) % 30] + 0.05 * vectors
        elif kind == "repeats":
            vectors = vectors[np.arange(900) % 200]
        elif kind == "one-hot":
            vectors = np.eye(24, dtype=np.float32)[np.arange(900) % 24]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if kind == "not quite unit":
            vectors *= np.linspace(0.9992, 1.0008, 900, dtype=np.float32)[:, None]
        hardness = candidates.hardness if any_hardness else np.full(900, 0.5, np.float32)
        candidates = replace(candidates, embeddings=vectors, hardness=hardness)
        want = plain_greedy(candidates, 500).tolist()
        for k in (1, 2, 90, 500):
            assert self.choose(candidates, k).index.tolist() == want[:k]

    def test_hardness_of_zero_comes_after_all_others_by_distance(self):
        candidates = by_name(make_candidates(200, taken=3))
        hardness = np.where(np.arange(200) < 50, candidates.hardness, 0).astype(np.float32)
        candidates = replace(candidates, hardness=hardness)
        picks = self.choose(candidates, 200).index
        assert picks.tolist() == plain_greedy(candidates, 200).tolist()
        assert (hardness[picks] > 0).argmin() == (hardness > 0).sum()


class TestKMeansPP(StrategyContract):
    strategy = staticmethod(STRATEGIES["k_means_pp"])

    @pytest.mark.parametrize("taken", [0, 2])
    def test_chances_are_those_of_the_definition(self, taken):
        candidates = make_candidates(12, taken=taken, d=3, seed=4)
        draws = 4000
        count = Counter(tuple(self.choose(candidates, 2, seed).index.tolist()) for seed in range(draws))
        chance = two_draws(candidates)
        assert set(count) <= set(chance)
        likely = [pair for pair, p in chance.items() if p * draws >= 5]
        seen = [count[pair] for pair in likely]
        want = [chance[pair] * draws for pair in likely]
        rest = draws - sum(want)
        assert chisquare([*seen, draws - sum(seen)], [*want, rest]).pvalue > 1e-4

    def test_the_seed_decides(self):
        candidates = make_candidates(80)
        assert len({tuple(self.choose(candidates, 10, seed).index.tolist()) for seed in range(5)}) == 5

    def test_those_without_hardness_and_repeats_come_last(self):
        candidates = make_candidates(60, repeats=20, taken=2)  # rows 40..59 repeat rows 0..19
        hardness = np.where(np.arange(60) % 20 < 10, 0.5, 0).astype(np.float32)
        picks = self.choose(replace(candidates, hardness=hardness), 60)
        assert (hardness[picks.index[:20]] > 0).all()
        assert (hardness[picks.index[20:40]] == 0).all()
        assert (picks.distance_to_nearest[40:] == 0).all()
        assert (hardness[picks.index[40:50]] > 0).all()


class TestFacilityLocation(StrategyContract):
    strategy = staticmethod(STRATEGIES["facility_location"])

    @pytest.mark.parametrize("taken", [0, 1, 40])
    @pytest.mark.parametrize("d", [2, 16, 128])
    def test_equals_greedy_that_looks_at_every_frame(self, taken, d):
        candidates = make_candidates(150, taken=taken, d=d, seed=d)
        assert self.choose(candidates, 70).index.tolist() == plain_facility_location(candidates, 70)

    def test_block_sizes_change_no_pick(self, monkeypatch):
        candidates = make_candidates(300, taken=10, repeats=100)
        want = self.choose(candidates, 300).index.tolist()
        for name, value in (("_COLUMNS_PER_BLOCK", 7), ("_ROWS_PER_BLOCK", 3), ("_FIRST_ROWS", 1)):
            monkeypatch.setattr(facility_location_module, name, value)
        assert self.choose(candidates, 300).index.tolist() == want

    def test_the_first_stands_for_the_hard_crowd(self):
        rng = np.random.default_rng(3)
        centres = np.eye(8, dtype=np.float32)[:2]
        vectors = np.repeat(centres, [20, 30], axis=0) + rng.normal(0, 0.05, (50, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        hardness = np.repeat([0.9, 0.3], [20, 30]).astype(np.float32)
        names = np.array([f"{i:02d}" for i in range(50)])
        candidates = Candidates(names, hardness, vectors, np.empty((0, 8), np.float32))
        first, second = self.choose(candidates, 2).index
        assert first < 20 <= second
        # And once the hard crowd is taken, the other one is first.
        assert self.choose(replace(candidates, taken=vectors[:20]), 1).index[0] >= 20


class TestStratified(StrategyContract):
    strategy = staticmethod(STRATEGIES["stratified"])
    beginnings = False

    def test_shares_by_largest_remainder(self):
        # 21.0, 8.4, 8.4, 4.2 of 42: the remainders of b and c are equal, and b comes first by name.
        sizes = {"a": 50, "b": 20, "c": 20, "d": 10}
        candidates = replace(make_candidates(100), stratum=np.repeat(list(sizes), list(sizes.values())))
        picks = self.choose(candidates, 42)
        assert Counter(candidates.stratum[picks.index].tolist()) == {"a": 21, "b": 9, "c": 8, "d": 4}

    def test_hardest_of_each_stratum_and_hardest_first(self):
        candidates = make_candidates(90)
        index = self.choose(candidates, 30).index
        order = sorted(range(90), key=lambda i: (-candidates.hardness[i], candidates.frame_id[i]))
        assert index.tolist() == [i for i in order if i in set(index.tolist())]
        for name in np.unique(candidates.stratum):
            those = [i for i in order if candidates.stratum[i] == name]
            got = [i for i in index.tolist() if candidates.stratum[i] == name]
            assert got == those[: len(got)]

    def test_one_stratum_is_top_k(self):
        candidates = replace(make_candidates(40), stratum=np.array(""))
        want = STRATEGIES["top_k"](candidates, 15, 0).index.tolist()
        assert self.choose(candidates, 15).index.tolist() == want


def by_name(candidates):
    """The same candidates in order of frame_id."""
    order = np.argsort(candidates.frame_id)
    return Candidates(
        candidates.frame_id[order],
        candidates.hardness[order],
        candidates.embeddings[order],
        candidates.taken,
        candidates.stratum[order],
    )


def two_draws(candidates):
    """The chance of each ordered pair under D^2 sampling weighted by hardness."""
    vectors, taken = candidates.embeddings.astype(np.float64), candidates.taken.astype(np.float64)
    hardness = candidates.hardness.astype(np.float64)

    def chances(centres):
        if not len(centres):
            return hardness / hardness.sum()
        weight = hardness * ((vectors[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1)
        return weight / weight.sum()

    first = chances(taken)
    return {
        (i, j): first[i] * p
        for i in np.flatnonzero(first).tolist()
        for j, p in enumerate(chances(np.concatenate([taken, vectors[i : i + 1]])).tolist())
        if p > 1e-6
    }


def plain_facility_location(candidates, k):
    """The definition: for each pick, the whole sum for every frame."""
    vectors = candidates.embeddings.astype(np.float64)
    similarity = (1 + vectors @ vectors.T) / 2
    cover = np.max((1 + vectors @ candidates.taken.T.astype(np.float64)) / 2, axis=1, initial=0)
    names = np.argsort(candidates.frame_id)
    chosen: list[int] = []
    for _ in range(k):
        total = (candidates.hardness * np.maximum(similarity, cover)).sum(axis=1)
        total[chosen] = -1
        chosen.append(int(names[np.flatnonzero(total[names] >= total.max() - 1e-10)[0]]))
        cover = np.maximum(cover, similarity[chosen[-1]])
    return chosen


def slow_k_center(candidates, k):
    """The definition, one pick and one candidate after the other, in float64."""
    vectors = candidates.embeddings.astype(np.float64)
    hardness = candidates.hardness.astype(np.float64)
    chosen: list[int] = []
    centres = list(candidates.taken.astype(np.float64))
    while len(chosen) < k:
        best = None
        for i in sorted(set(range(len(vectors))) - set(chosen), key=lambda i: candidates.frame_id[i]):
            worth = hardness[i] * (
                np.sqrt(((np.array(centres) - vectors[i]) ** 2).sum(axis=1)).min() if centres else 1.0
            )
            if best is None or worth > best[0] + 1e-9:
                best = (worth, i)
        chosen.append(best[1])
        centres.append(vectors[best[1]])
    return chosen


def test_distances_do_not_depend_on_block_sizes(monkeypatch):
    candidates = make_candidates(70, taken=30)
    want = distances_when_picked(candidates.embeddings, candidates.taken)
    monkeypatch.setattr(distance_module, "_ROWS_PER_BLOCK", 7)
    monkeypatch.setattr(distance_module, "_COLUMNS_PER_BLOCK", 4)
    np.testing.assert_allclose(
        distances_when_picked(candidates.embeddings, candidates.taken), want, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "embeddings",
            np.full((5, 16), np.nan, np.float32),
            r"embeddings holds NaN in 5 of 5 rows; leave out",
        ),
        ("taken", np.full((2, 16), np.nan, np.float32), r"taken holds NaN in 2 of 2 rows"),
        ("embeddings", np.ones((5, 16), np.float32), "must have length 1, got 4 to 4"),
        ("embeddings", np.zeros((5, 16), np.float32), "must have length 1"),
        ("embeddings", np.zeros((4, 16), np.float32), r"embeddings has shape \(4, 16\), not \(5, d\)"),
        ("taken", np.zeros((0, 8), np.float32), r"taken has shape \(0, 8\), not \(m, 16\)"),
        ("hardness", np.array([0, 0, 0, 0, np.nan], np.float32), r"hardness must lie in 0\.\.1"),
        ("hardness", np.array([0, 0, 0, 0, 1.5], np.float32), r"hardness must lie in 0\.\.1"),
        ("hardness", np.zeros(4, np.float32), r"hardness has shape \(4,\)"),
        ("frame_id", np.arange(5), "must be an array of str"),
        ("stratum", np.arange(5), "stratum must be an array of str"),
        ("stratum", np.array(["a", "b"]), r"of shape \(5,\), got <U1 of shape \(2,\)"),
        ("hardness", np.zeros(5), "hardness must be float32, got float64"),
        ("embeddings", np.eye(5, 16), "embeddings must be float32, got float64"),
    ],
)
def test_candidates_refuse_what_no_strategy_can_use(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(make_candidates(5), **{name: value})
