"""From a network's raw output to ``Predictions``: the same for every kind of detector."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from detectors.preprocess import Prepared
from detectors.suppress import select
from detectors.types import DetectorSpec, FloatArray, Predictions

_VALUES_AT_ONCE = 1 << 16  # a quarter of a megabyte


@dataclass(frozen=True, slots=True)
class EdgeBoxes:
    """Boxes as distances of their edges from a cell's centre, worked out where somebody asks: few positions hold an object.

    A distance is the mean of a distribution over the bins (Li et al., Generalized Focal Loss, 2020), or the one number there is.
    """

    edges: torch.Tensor
    """[b, n, 4, r] logits over distances 0..r-1; the distance itself where r is 1."""
    centre: torch.Tensor
    """[n, 2] of each cell, in cells."""
    cell_px: torch.Tensor
    """[n] input pixels of a cell."""

    def __getitem__(self, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """[k] frames and positions -> [k, 4] x1, y1, x2, y2 in input pixels, float32."""
        _, position = at
        edges, centre = self.edges[at].float(), self.centre[position]
        bins = torch.arange(edges.shape[2], dtype=edges.dtype, device=edges.device)
        distance = edges[:, :, 0] if len(bins) == 1 else (edges.softmax(2) * bins).sum(2)
        boxes = torch.cat((centre - distance[:, :2], centre + distance[:, 2:]), 1)
        return boxes * self.cell_px[position][:, None]


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a network says about a batch of ``b`` frames at ``n`` positions, before anything is dropped."""

    boxes: torch.Tensor | EdgeBoxes
    """[b, n, 4] x1, y1, x2, y2 in pixels of the network's input."""
    scores: torch.Tensor
    """[b, n, m] in 0..1, one column a class of the model's own list."""
    features: torch.Tensor
    """[b, d, h, w] the feature map whose mean is the frame's embedding."""
    edges: torch.Tensor | None = None
    """[b, n, 4, r] logits over r distance bins for each edge (left, top, right, bottom); None where there are none."""
    bin_px: torch.Tensor | None = None
    """[n] input pixels that one distance bin stands for."""
    end_to_end: bool = False
    """The network was trained to give one box an object: nothing is left to suppress."""


def look(
    run: Callable[[], RawOutput],
    prepared: Prepared,
    columns: tuple[tuple[int, ...], ...],
    spec: DetectorSpec,
) -> Predictions:
    """Run the network, and assemble what it says; both are timed."""
    began = time.perf_counter()
    raw = run()
    if raw.scores.is_cuda:
        torch.cuda.synchronize(
            raw.scores.device
        )  # its first question would wait too, and count as `assemble`
    ran = time.perf_counter()
    found = assemble(raw, prepared, columns, spec)
    return replace(found, forward_s=ran - began, assemble_s=time.perf_counter() - ran)


def assemble(
    raw: RawOutput, prepared: Prepared, columns: tuple[tuple[int, ...], ...], spec: DetectorSpec
) -> Predictions:
    """Map scores to the fleet's classes, suppress, and gather everything about the boxes that are kept.

    Classes are mapped before suppression and the floor: a class that maps to nothing does not exist for the fleet, so
    its boxes must neither suppress others nor take up places in the list.
    """
    embeddings = raw.features.float().mean(dim=(2, 3))
    # Scores are probabilities; a graph exported without its sigmoid gives others, which no signal could use. A NaN is no
    # extreme that lies within bounds either, and neither it nor infinity leaves a mean finite.
    finite = (raw.scores.amin((1, 2)) >= 0) & (raw.scores.amax((1, 2)) <= 1)
    finite &= _finite(raw.boxes.edges if isinstance(raw.boxes, EdgeBoxes) else raw.boxes)
    finite &= embeddings.isfinite().all(1)
    scores = fleet_scores(raw.scores, columns)
    if not finite.all():
        scores = scores.where(finite[:, None, None], 0.0)
    frame, position = select(
        raw.boxes,
        scores,
        spec.floor,
        None if raw.end_to_end else spec.suppress_iou,
        spec.class_agnostic,
        spec.max_boxes,
    )
    boxes = prepared.to_source(raw.boxes[frame, position])
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)  # the rest lies wholly on the padding
    frame, position, boxes = frame[inside], position[inside], boxes[inside]
    box_std = None
    if raw.edges is not None and raw.bin_px is not None:
        std_bins = edge_std(raw.edges[frame, position].float())
        box_std = _numpy(std_bins * raw.bin_px[position][:, None] / prepared.scales(boxes))
    seen = np.array([len(c) > 0 for c in columns])
    entropy_max, entropy_mean = dense_entropy(scores)
    embeddings = F.normalize(embeddings, dim=1)
    unknown = ~finite[:, None]
    return Predictions(
        frame_index=frame.to("cpu", torch.int32).numpy(),
        boxes_px=_numpy(boxes),
        class_scores=_spread(scores[frame, position], seen),
        box_std_px=box_std,
        embeddings=_numpy(embeddings.masked_fill(unknown, torch.nan)),
        dense_entropy_max=_spread(entropy_max.masked_fill(unknown, torch.nan), seen),
        dense_entropy_mean=_spread(entropy_mean.masked_fill(unknown, torch.nan), seen),
        errors=dict.fromkeys(
            (~finite).nonzero().flatten().tolist(), "the model's output holds NaN or infinity"
        ),
    )


def fleet_scores(scores: torch.Tensor, columns: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """[b, n, m] scores of the model's classes -> [b, n, s] of the fleet classes that it sees (the largest of each)."""
    groups = [list(c) for c in columns if c]
    if groups == [[c] for c in range(scores.shape[2])]:
        return scores
    # Class by class, as YOLO heads write them: what follows reads along the positions.
    return torch.stack([scores[:, :, group].amax(2) for group in groups], dim=1).transpose(1, 2)


def edge_std(logits: torch.Tensor) -> torch.Tensor:
    """[k, 4, r] logits over distances 0..r-1 -> [k, 4] standard deviation of each edge, in bins.

    The head predicts each edge's distance as a discrete distribution and takes its mean for the box (Li et al.,
    Generalized Focal Loss, 2020); its spread is the model's own doubt about where the edge lies.
    """
    probability = logits.softmax(dim=2)
    bins = torch.arange(logits.shape[2], dtype=logits.dtype, device=logits.device)
    mean = (probability * bins).sum(2, keepdim=True)
    return (probability * (bins - mean) ** 2).sum(2).sqrt()


def dense_entropy(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[b, n, s] scores -> binary entropy (nats) of each class: maximum and mean over the n positions, both [b, s]."""
    tiny = torch.finfo(scores.dtype).tiny  # log(0) times 0 would be NaN
    largest, mean = [], []
    # A frame at a time: the temporaries of a whole batch of large frames would not fit beside the model. On a CPU a few classes
    # of it, which fit into a core's cache.
    b, n, s = scores.shape
    rows_at_once = s if scores.is_cuda else max(1, _VALUES_AT_ONCE // n)
    for p in scores.transpose(1, 2).reshape(b * s, n).split(rows_at_once):
        q = 1 - p
        negative = p.clamp(min=tiny).log_().mul_(p).add_(q.clamp(min=tiny).log_().mul_(q))
        largest.append(negative.amin(1).abs())
        mean.append(negative.mean(1).abs())
    return torch.cat(largest).view(b, s), torch.cat(mean).view(b, s)


def _finite(values: torch.Tensor) -> torch.Tensor:
    """[b, ...] -> [b] whether all are finite: NaN is carried on by both extremes."""
    rest = tuple(range(1, values.ndim))
    return values.amin(rest).isfinite() & values.amax(rest).isfinite()


def _spread(values: torch.Tensor, seen: NDArray[np.bool_]) -> FloatArray:
    """[k, s] values of the seen classes -> [k, c] over all fleet classes, NaN where unseen."""
    out = np.full((values.shape[0], len(seen)), np.nan, np.float32)
    out[:, seen] = _numpy(values)
    return out


def _numpy(tensor: torch.Tensor) -> FloatArray:
    """Bring a result to the host."""
    return tensor.detach().to("cpu", torch.float32).numpy()
