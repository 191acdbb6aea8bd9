"""Non-maximum suppression that keeps track of positions, so that everything known about a kept box can be gathered.

Usual implementations reduce a box to one score and one class before they suppress. Here the answer is where the kept
boxes stood among the model's outputs; their full class vectors and edge distributions stay with the caller.

torchvision's ``nms`` gives the same (tests hold that), but its import takes as long as that of torch itself.
"""

from __future__ import annotations

from typing import Protocol

import torch

_BLOCK = 128


class Boxes(Protocol):
    """Boxes [b, n, 4], of which some are asked for."""

    def __getitem__(self, at: tuple[torch.Tensor, torch.Tensor], /) -> torch.Tensor:
        """[k] frames and positions -> [k, 4] x1, y1, x2, y2."""
        ...


def select(
    boxes: Boxes,
    scores: torch.Tensor,
    floor: float,
    suppress_iou: float | None,
    class_agnostic: bool,
    max_boxes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the boxes to keep of every frame.

    Args:
        boxes: [b, n, 4] x1, y1, x2, y2.
        scores: [b, n, c] in 0..1; a box's confidence is its largest score, its class the one that holds it.
        floor: boxes below this confidence are dropped.
        suppress_iou: a box that overlaps a better one by more is dropped; None where the model has suppressed already.
        class_agnostic: whether boxes of different classes suppress each other.
        max_boxes: at most this many a frame, the most confident first.

    Returns:
        ``frame`` and ``position``, both [k] int64: indices into the first two axes, ordered by frame, then by falling
        confidence (equal ones by position).
    """
    confidence = scores.amax(2)
    frame, position = (confidence >= floor).nonzero(as_tuple=True)
    counts = torch.bincount(frame, minlength=len(scores)).tolist()
    kept = []
    # One frame at a time: suppressing the whole batch at once needs memory that grows with the square of its boxes.
    for f, p in zip(frame.split(counts), position.split(counts), strict=True):
        order = confidence[f, p].argsort(descending=True, stable=True)
        if suppress_iou is not None:
            order = order[
                _survivors(boxes, scores, f[order], p[order], suppress_iou, class_agnostic, max_boxes)
            ]
        kept.append((f[order[:max_boxes]], p[order[:max_boxes]]))
    frames, positions = zip(*kept, strict=True)
    return torch.cat(frames), torch.cat(positions)


def _survivors(
    boxes: Boxes,
    scores: torch.Tensor,
    frame: torch.Tensor,
    position: torch.Tensor,
    suppress_iou: float,
    class_agnostic: bool,
    max_boxes: int,
) -> torch.Tensor:
    """Suppress boxes that come by falling confidence; returns which survive, in order, at least the first ``max_boxes``.

    Whether a box survives depends on better ones alone. So they are looked at in blocks, until enough survive: of the thousands
    of positions that a noisy network calls objects, most are never compared.
    """
    survivors = frame.new_zeros(0)
    for block in torch.arange(len(frame), device=frame.device).split(_BLOCK):
        rank = torch.cat((survivors, block))
        better, label = boxes[frame[rank], position[rank]], scores[frame[rank], position[rank]].argmax(1)
        own = slice(len(survivors), None)
        over = _iou(better, better[own]).double() > suppress_iou
        if not class_agnostic:
            over &= label[:, None] == label[own]
        # As numbers: to count by a matrix product is ten times as fast as to ask for any.
        suppresses = over.float()
        free, rivals = suppresses[: len(survivors)].sum(0) == 0, suppresses[own].triu(1)
        # Each round settles at least the best box that is still open, whose better ones are settled; a round that changes
        # nothing has found the greedy answer. Cluster-NMS: Zheng et al. 2020, arXiv 2005.03572, section 3.3.
        before, kept = None, free
        while before is None or not torch.equal(before, kept):
            before, kept = kept, free & (kept.float() @ rivals == 0)
        survivors = torch.cat((survivors, block[kept]))
        if len(survivors) >= max_boxes:
            break
    return survivors


def _iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union [m, n] of boxes [m, 4] and [n, 4]; NaN of two without an area."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = one[:, :, None].unbind(1), other.unbind(1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_(min=0)
    shared = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_(min=0).mul_(width)
    return shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared)
