"""The choice keeps every promise at once, whatever is asked of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.candidates import Eligible
from mining.choose import Chosen, Reader, choose
from mining.config import SelectConfig

CITIES = ("Oslo", "Paris", "Rome")


def frames_of(seed: int, n: int) -> tuple[Eligible, Any, Any]:
    """Some cameras, frames a second apart with pauses, hardness with ties, some repeated pictures."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(n).round(1).astype(np.float32)
    order = np.lexsort((np.arange(n), -hardness))
    embeddings = rng.normal(size=(n, 6)).astype(np.float32)
    hashes = rng.integers(0, 2**63, n).astype(np.uint64)
    twins = rng.integers(0, max(n, 1), n // 5)
    hashes[: len(twins)], embeddings[: len(twins)] = hashes[twins], embeddings[twins]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    frames = Eligible(
        frame_id=pa.array([f"f{i:04}" for i in order], pa.string()),
        hardness=hardness[order],
        priority=hardness[order].astype(np.float64),
        draw=rng.integers(0, 2**63, n).astype(np.uint64),
        camera=(np.arange(n) % 3)[order].astype(np.int32),
        at_us=(np.cumsum(rng.choice([1, 1, 1, 20], n)) * 500_000)[order],
        perceptual_hash=hashes[order],
        stratum=np.zeros(n, np.int32),
        slices=np.stack([rng.integers(-1, 3, n), rng.integers(-1, 1, n)], axis=1).astype(np.int32),
        slice_names=(CITIES, ("night",)),
    )
    return frames, embeddings[order], rng.integers(0, 9, n).astype(float)


def chosen_of(seed: int, n: int, select: dict[str, Any]) -> tuple[Eligible, Any, Any, SelectConfig, Chosen]:
    frames, embeddings, boxes = frames_of(seed, n)
    conf = SelectConfig.model_validate(select)
    read = Reader(
        embeddings=lambda rows: embeddings[rows],
        boxes=lambda rows: boxes[rows],
        same_moment=lambda _: {},
    )
    return frames, embeddings, boxes, choose(frames, conf, np.empty((0, 6), np.float32), read)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 120),
    budget=st.integers(1, 40),
    gap=st.sampled_from([0.0, 1.5, 4.0]),
    strategy=st.sampled_from(["k_center", "top_k", "random"]),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    floors=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ceilings=st.tuples(st.integers(8, 12), st.integers(8, 12)),
    limit=st.sampled_from([None, 25.0, 90.0]),
)
def test_every_promise_is_kept_or_its_lack_is_said(
    seed: int,
    n: int,
    budget: int,
    gap: float,
    strategy: str,
    share: float,
    floors: Any,
    ceilings: Any,
    limit: Any,
) -> None:
    quota = [
        {"name": "city", "by": "city", "min": min(floors[0], budget), "max": ceilings[0]},
        {"name": "night", "where": "night", "min": min(floors[1], budget), "max": ceilings[1]},
    ]
    frames, embeddings, boxes, got = chosen_of(
        seed, n,
        {"budget": budget, "min_gap_s": gap, "strategy": strategy, "random_share": share, "quota": quota,
         "pool_factor": 2.0, "cost": {"limit": limit, "per_frame": 2.0}},
    )  # fmt: skip
    rows = np.asarray(got.rows, np.int64)
    assert len(set(got.rows)) == len(rows) <= budget
    assert got.arm.count("random") <= round(budget * share)
    for camera in range(3):
        times = np.sort(frames.at_us[rows[frames.camera[rows] == camera]])
        assert all(b - a >= gap * 1e6 - 1 for a, b in pairwise(times))
    for i, row in enumerate(rows):
        same = frames.perceptual_hash[rows[:i]] == frames.perceptual_hash[row]
        assert not (np.linalg.norm(embeddings[rows[:i]] - embeddings[row], axis=1)[same] < 0.1).any()
    mined = np.array([arm == "mined" for arm in got.arm], bool)
    for q, (ceiling, names) in enumerate(zip(ceilings, frames.slice_names, strict=True)):
        for s, name in enumerate(names):
            count = int((frames.slices[rows, q] == s).sum())
            blind = int((frames.slices[rows[~mined], q] == s).sum())
            assert count <= max(ceiling, blind)
            report = next(r for r in got.slices if r.name in {f"city = {name}", name})
            assert report.chosen == count
            assert (report.lack is not None) == (count < report.floor or count > report.ceiling)
    if limit is not None:
        costs = 2.0 + boxes[rows]
        assert costs[mined].sum() + costs[~mined].sum() <= limit
        assert got.cost == costs.sum()
    # Never short in silence: what is left cannot be taken for a reason that is said.
    if len(rows) < budget and not got.stopped_by_cost:
        left = np.setdiff1d(np.arange(n), rows)
        for row in left:
            near = np.abs(frames.at_us[rows] - frames.at_us[row]) < max(gap * 1e6, 1)
            twin = frames.perceptual_hash[rows] == frames.perceptual_hash[row]
            full = any(
                s >= 0 and (frames.slices[rows, q] == s).sum() >= ceilings[q]
                for q, s in enumerate(frames.slices[row])
            )
            assert full or twin.any() or (near & (frames.camera[rows] == frames.camera[row])).any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(1, 30))
def test_top_k_within_ceilings_is_the_plain_greedy_walk(seed: int, budget: int) -> None:
    quota = [{"name": "city", "by": "city", "max": 4}, {"name": "night", "where": "night", "max": 5}]
    frames, _, _, got = chosen_of(
        seed, 80,
        {"budget": budget, "min_gap_s": 0.0, "strategy": "top_k", "random_share": 0.0, "quota": quota,
         "max_duplicate_bits": -1, "pool_factor": 3.0},
    )  # fmt: skip
    counts: dict[tuple[int, int], int] = {}
    want: list[int] = []
    for row in range(80):  # frames stand in order of hardness
        inside = [(q, int(s)) for q, s in enumerate(frames.slices[row]) if s >= 0]
        if len(want) < budget and all(counts.get(key, 0) < (4, 5)[key[0]] for key in inside):
            want.append(row)
            for key in inside:
                counts[key] = counts.get(key, 0) + 1
    assert got.rows == want


def test_floors_are_filled_scarcest_first() -> None:
    quota = [
        {"name": "city", "by": "city", "min": 3},
        {"name": "night", "where": "night", "min": 10},
    ]
    frames, _, _, got = chosen_of(
        5, 100, {"budget": 20, "min_gap_s": 0.0, "random_share": 0.0, "quota": quota}
    )
    scarcity = {
        "night": (frames.slices[:, 1] == 0).sum() / 10,
        **{f"city = {c}": (frames.slices[:, 0] == s).sum() / 3 for s, c in enumerate(CITIES)},
    }
    order = [name for name in dict.fromkeys(got.slice) if name is not None]
    assert order == sorted(order, key=lambda name: scarcity[name])
    assert all(s.chosen >= s.floor for s in got.slices)
