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
    confidence = scores.amax(2)
    frame, position = (confidence >= floor).nonzero(as_tuple=True)
    counts = torch.bincount(frame, minlength=boxes.shape[0]).tolist()
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
    boxes: torch.Tensor,
    scores: torch.Tensor,
    frame: torch.Tensor,
    position: torch.Tensor,
    suppress_iou: float,
    class_agnostic: bool,
    max_boxes: int,
) -> torch.Tensor:
    """Suppress boxes that come by falling confidence; returns which survive, in order, at least the first ``max_boxes``.

    Whether a box survives depends on better ones alone. So the best are enough where enough of them survive: the cost of a
    network that calls thousands of positions an object grows with the square of their number.
    """
    looked_at = 4 * max_boxes
    while True:
        f, p = frame[:looked_at], position[:looked_at]
        candidates, (confidence, label) = boxes[f, p], scores[f, p].max(1)
        if not class_agnostic and len(candidates):
            # Shift classes apart so that they cannot overlap; in float64, so that the shift costs no precision.
            span = candidates.max() - candidates.min() + 1
            candidates = candidates.double() + (label.double() * span)[:, None]
        survivors: torch.Tensor = nms(candidates, confidence.to(candidates.dtype), suppress_iou)
        if len(survivors) >= max_boxes or looked_at >= len(frame):
            return survivors
        looked_at *= 4
