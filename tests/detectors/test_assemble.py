"""Suppression and the gathering of kept boxes, against plain loops and the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from detectors.assemble import RawOutput, assemble, dense_entropy, edge_std
from detectors.preprocess import Batch
from detectors.suppress import select
from detectors.types import DetectorSpec
from tests.detectors.helpers import box_iou


def random_output(seed: int, frames: int, positions: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, 60, (frames, positions, 2))
    size = generator.uniform(5, 60, (frames, positions, 2))
    boxes = np.concatenate((corner, corner + size), 2)
    scores = generator.uniform(0, 1, (frames, positions, classes)) ** 3
    return torch.from_numpy(boxes).float(), torch.from_numpy(scores).float()


def reference_select(
    boxes: np.ndarray, scores: np.ndarray, floor: float, iou: float | None, agnostic: bool, limit: int
) -> list[int]:
    """Greedy suppression of one frame, box by box."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i].max())
    kept: list[int] = []
    for i in order:
        if scores[i].max() < floor:
            continue
        rivals = [k for k in kept if agnostic or scores[k].argmax() == scores[i].argmax()]
        if iou is None or all(box_iou(boxes[i : i + 1], boxes[k : k + 1])[0, 0] <= iou for k in rivals):
            kept.append(i)
    return kept[:limit]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 4),
    positions=st.integers(0, 40),
    iou=st.sampled_from([None, 0.3, 0.7]),
    agnostic=st.booleans(),
    limit=st.sampled_from([1, 5, 100]),
)
def test_select_equals_greedy_suppression(
    seed: int, frames: int, positions: int, iou: float | None, agnostic: bool, limit: int
) -> None:
    boxes, scores = random_output(seed, frames, positions, 3)
    frame, position = select(boxes, scores, 0.2, iou, agnostic, limit)
    wanted = [
        (f, p)
        for f in range(frames)
        for p in reference_select(boxes[f].numpy(), scores[f].numpy(), 0.2, iou, agnostic, limit)
    ]
    assert list(zip(frame.tolist(), position.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("limit", [1, 100, 5000])
@pytest.mark.parametrize("grid", [True, False])
@pytest.mark.parametrize("iou", [0.3, 0.6, 0.7])
def test_select_equals_torchvision(agnostic: bool, limit: int, grid: bool, iou: float) -> None:
    """On a grid some boxes are equal, some overlap equally, and some have no area."""
    generator = torch.Generator().manual_seed(limit)
    corner = torch.rand(3000, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + torch.rand(3000, 2, generator=generator) * 40), 1)
    boxes = boxes.div(10).round() if grid else boxes
    scores = torch.rand(3000, 4, generator=generator)
    order = scores.amax(1).argsort(descending=True, stable=True)
    best = scores[order].max(1)
    kept = batched_nms(
        boxes[order], best.values, torch.zeros_like(best.indices) if agnostic else best.indices, iou
    )
    wanted = order[kept[best.values[kept] >= 0.2]][:limit]
    assert select(boxes[None], scores[None], 0.2, iou, agnostic, limit)[1].tolist() == wanted.tolist()


def test_suppression_by_class_is_exact_far_from_the_origin() -> None:
    boxes = torch.tensor([[[7000.0, 7000.0, 7001.0, 7001.0], [7000.0, 7000.0, 7001.0, 7000.72]]])
    scores = torch.zeros(1, 2, 80)
    scores[0, :, 79] = torch.tensor([0.9, 0.8])
    assert select(boxes, scores, 0.1, 0.71, False, 10)[1].tolist() == [0]
    assert select(boxes, scores, 0.1, 0.73, False, 10)[1].tolist() == [0, 1]


def test_edge_std_equals_the_formula() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 4, 16))
    got = edge_std(torch.from_numpy(logits)).numpy()
    for k in range(5):
        for edge in range(4):
            p = np.exp(logits[k, edge]) / np.exp(logits[k, edge]).sum()
            mean = sum(i * p[i] for i in range(16))
            assert got[k, edge] == pytest.approx(math.sqrt(sum(p[i] * (i - mean) ** 2 for i in range(16))))


def test_dense_entropy_equals_the_formula() -> None:
    scores = torch.tensor([[[0.5, 0.0], [0.9, 1.0], [0.1, 0.2]]])
    largest, mean = dense_entropy(scores)

    def entropy(p: float) -> float:
        return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)

    assert largest[0].tolist() == pytest.approx([math.log(2), entropy(0.2)])
    assert mean[0].tolist() == pytest.approx(
        [(math.log(2) + 2 * entropy(0.1)) / 3, entropy(0.2) / 3], abs=1e-6
    )


def test_a_class_that_maps_to_nothing_does_not_exist() -> None:
    """Its box neither suppresses the truck beneath it nor appears; fleet scores are the best of their model classes."""
    boxes = torch.tensor([[[10.0, 10.0, 50.0, 50.0], [11.0, 10.0, 51.0, 50.0], [70.0, 70.0, 90.0, 90.0]]])
    #                          boat, bicycle, motorcycle, truck
    scores = torch.tensor([[[0.99, 0.0, 0.0, 0.02], [0.3, 0.1, 0.2, 0.6], [0.9, 0.0, 0.0, 0.0]]])
    raw = RawOutput(boxes, scores, torch.ones(1, 4, 2, 2))
    prepared = Batch([np.zeros((100, 100, 3), np.uint8)]).stretched((100, 100), torch.device("cpu"))
    result = assemble(raw, prepared, ((1, 2), (), (3,)), DetectorSpec("x.pt"))
    np.testing.assert_allclose(result.boxes_px, [[11, 10, 51, 50]])
    np.testing.assert_allclose(result.class_scores, [[0.2, np.nan, 0.6]])
    assert np.isnan(result.dense_entropy_mean[0]).tolist() == [False, True, False]


def test_scales_of_boxes_and_spread_follow_the_letterbox() -> None:
    frame = np.zeros((50, 200, 3), np.uint8)
    prepared = Batch([frame]).letterboxed((100, 100), None, torch.device("cpu"))  # half size, 37 rows above
    raw = RawOutput(
        boxes=torch.tensor([[[10.0, 40.0, 30.0, 60.0], [10.0, 0.0, 30.0, 20.0]]]),
        scores=torch.tensor([[[0.9], [0.8]]]),
        features=torch.ones(1, 4, 2, 2),
        edges=torch.zeros(1, 2, 4, 2),  # two bins, equally likely: a deviation of half a bin
        bin_px=torch.tensor([8.0, 16.0]),
    )
    result = assemble(raw, prepared, ((0,),), DetectorSpec("x.pt"))
    assert prepared.top_px == 37
    np.testing.assert_allclose(result.boxes_px, [[20, 6, 60, 46]])  # the second lies on the padding alone
    assert result.box_std_px is not None
    np.testing.assert_allclose(result.box_std_px, [[8, 8, 8, 8]])
    np.testing.assert_allclose(result.embeddings, [[0.5] * 4])
