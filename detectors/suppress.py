"""Non-maximum suppression that keeps track of positions, so that everything known about a kept box can be gathered.

Usual implementations reduce a box to one score and one class before they suppress. Here the answer is where the kept
boxes stood among the model's outputs; their full class vectors and edge distributions stay with the caller.
"""

from __future__ import annotations

import torch
from torchvision.ops import nms


def select(
    boxes: torch.Tensor,
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
    confidence, label = scores.max(dim=2)
    frame, position = (confidence >= floor).nonzero(as_tuple=True)
    counts = torch.bincount(frame, minlength=boxes.shape[0]).tolist()
    kept = []
    # One call a frame: suppressing the whole batch at once needs memory that grows with the square of its boxes.
    for rows in torch.arange(len(frame), device=frame.device).split(counts):
        f, p = frame[rows], position[rows]
        best = confidence[f, p]
        order = best.argsort(descending=True, stable=True)
        if suppress_iou is not None:
            candidates = boxes[f, p]
            if not class_agnostic and len(candidates):
                # Shift classes apart so that they cannot overlap; in float64, so that the shift costs no precision.
                span = candidates.max() - candidates.min() + 1
                candidates = candidates.double() + (label[f, p].double() * span)[:, None]
            order = order[nms(candidates[order], best[order].to(candidates.dtype), suppress_iou)]
        kept.append(rows[order[:max_boxes]])
    chosen = torch.cat(kept)
    return frame[chosen], position[chosen]
