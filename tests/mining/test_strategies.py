"""Strategies: the contract for each, and each against its own definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mining.strategies import STRATEGIES, Candidates
from mining.strategies import distance as distance_module
from mining.strategies.distance import distances_when_picked
from tests.contracts.strategy_contract import StrategyContract, make_candidates


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
    ],
)
def test_candidates_refuse_what_no_strategy_can_use(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(make_candidates(5), **{name: value})
