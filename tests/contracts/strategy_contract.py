"""What every strategy must do. Inherit it, and set ``strategy``."""

from __future__ import annotations

from dataclasses import fields, replace

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
    names = np.array([f"drive{i % 7}-{i:07d}" for i in rng.permutation(n)], dtype=np.str_)
    return Candidates(
        frame_id=names,
        hardness=np.round(rng.random(n), 1).astype(np.float32),
        embeddings=vectors[:n],
        taken=vectors[n:],
        stratum=names.astype("<U6"),  # the drive
    )


class StrategyContract:
    """The contract."""

    strategy: Strategy
    beginnings = True
    """Whether a smaller batch is the beginning of a larger one, whatever the strata."""

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
        if not self.beginnings:
            candidates = replace(candidates, stratum=np.array("one"))
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
                    candidates.stratum[order],
                ),
                90,
                seed=3,
            )
            assert (
                candidates.frame_id[order][again.index].tolist() == candidates.frame_id[picks.index].tolist()
            )

    def test_input_is_left_alone(self):
        candidates = make_candidates(40, taken=5)
        names = [field.name for field in fields(candidates)]
        before = [getattr(candidates, name).copy() for name in names]
        for name in names:
            getattr(candidates, name).flags.writeable = False
        self.choose(candidates, 20)
        for name, copy in zip(names, before, strict=True):
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

    @pytest.mark.parametrize("taken", [0, 2])
    def test_one_dimension(self, taken):
        candidates = make_candidates(30, taken=taken, d=1)  # every embedding is 1 or -1
        picks = self.choose(candidates, 40)
        assert sorted(picks.index.tolist()) == list(range(30))

    @pytest.mark.parametrize("hardness", [0.0, 1.0])
    def test_all_the_same(self, hardness):
        candidates = make_candidates(20)
        candidates = replace(
            candidates,
            hardness=np.full(20, hardness, np.float32),
            embeddings=np.tile(candidates.embeddings[0], (20, 1)),
        )
        picks = self.choose(candidates, 20)
        assert sorted(picks.index.tolist()) == list(range(20))
        assert np.isnan(picks.distance_to_nearest[0])
        assert (picks.distance_to_nearest[1:] == 0).all()

    def test_negative_k_is_refused(self):
        with pytest.raises(ValueError, match="k is -1"):
            self.choose(make_candidates(3), -1)
