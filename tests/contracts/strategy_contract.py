"""What every strategy must do. Inherit it, and set ``strategy``."""

from __future__ import annotations

import numpy as np
import pytest

from mining.strategies import Candidates, Picks, Strategy


def make_candidates(n: int, *, taken: int = 0, d: int = 16, seed: int = 0, repeats: int = 0) -> Candidates:
    """Random candidates; the last ``repeats`` have the embeddings of the first, and some are equally hard."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n + taken, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if repeats:
        vectors[n - repeats : n] = vectors[:repeats]
    return Candidates(
        frame_id=np.array([f"drive{i % 7}-{i:07d}" for i in rng.permutation(n)], dtype=np.str_),
        hardness=np.round(rng.random(n), 1).astype(np.float32),
        embeddings=vectors[:n],
        taken=vectors[n:],
    )


class StrategyContract:
    """The contract."""

    strategy: Strategy

    def choose(self, candidates: Candidates, k: int, seed: int = 0) -> Picks:
        return type(self).strategy(candidates, k, seed)

    @pytest.mark.parametrize("taken", [0, 9])
    @pytest.mark.parametrize("k", [0, 1, 17, 60, 61, 1000])
    def test_picks_are_distinct_rows_and_as_many_as_asked(self, k, taken):
        picks = self.choose(make_candidates(60, taken=taken, repeats=20), k)
        assert picks.index.dtype == np.int64
        assert len(picks.index) == len(picks.distance_to_nearest) == min(k, 60)
        assert len(set(picks.index.tolist())) == len(picks.index)
        assert ((picks.index >= 0) & (picks.index < 60)).all()

    def test_no_candidates(self):
        for taken in (0, 3):
            picks = self.choose(make_candidates(0, taken=taken), 5)
            assert picks.index.tolist() == []
            assert picks.index.dtype == np.int64
            assert picks.distance_to_nearest.shape == (0,)

    def test_fewer_picks_are_the_first_of_more(self):
        candidates = make_candidates(80, taken=4)
        assert self.choose(candidates, 10).index.tolist() == self.choose(candidates, 50).index[:10].tolist()

    def test_same_seed_same_picks(self):
        candidates = make_candidates(80, taken=4)
        for seed in (0, 1, 12345):
            one, two = self.choose(candidates, 30, seed), self.choose(candidates, 30, seed)
            assert one.index.tolist() == two.index.tolist()
            np.testing.assert_array_equal(one.distance_to_nearest, two.distance_to_nearest)

    @pytest.mark.parametrize("taken", [0, 9])
    def test_order_of_rows_does_not_matter(self, taken):
        candidates = make_candidates(90, taken=taken, repeats=30)
        picks = self.choose(candidates, 90, seed=3)
        for shuffle in range(3):
            order = np.random.default_rng(shuffle).permutation(90)
            again = self.choose(
                Candidates(
                    candidates.frame_id[order],
                    candidates.hardness[order],
                    candidates.embeddings[order],
                    candidates.taken,
                ),
                90,
                seed=3,
            )
            assert (
                candidates.frame_id[order][again.index].tolist() == candidates.frame_id[picks.index].tolist()
            )

    def test_input_is_left_alone(self):
        candidates = make_candidates(40, taken=5)
        before = [getattr(candidates, name).copy() for name in candidates.__slots__]
        for name in candidates.__slots__:
            getattr(candidates, name).flags.writeable = False
        self.choose(candidates, 20)
        for name, copy in zip(candidates.__slots__, before, strict=True):
            np.testing.assert_array_equal(getattr(candidates, name), copy)

    @pytest.mark.parametrize("taken", [0, 9])
    def test_distances_are_those_to_what_was_there_before(self, taken):
        candidates = make_candidates(50, taken=taken, repeats=10)
        picks = self.choose(candidates, 50)
        vectors = candidates.embeddings.astype(np.float64)
        for turn, (index, distance) in enumerate(zip(picks.index, picks.distance_to_nearest, strict=True)):
            before = np.concatenate([candidates.taken.astype(np.float64), vectors[picks.index[:turn]]])
            if len(before):
                assert distance == pytest.approx(
                    np.linalg.norm(before - vectors[index], axis=1).min(), abs=2e-3
                )
            else:
                assert np.isnan(distance)

    def test_negative_k_is_refused(self):
        with pytest.raises(ValueError, match="k is -1"):
            self.choose(make_candidates(3), -1)
