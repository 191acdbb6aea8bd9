"""YOLOv8, 9, 11 and 12 as Ultralytics exports them: boxes decoded in the graph, one row of scores a class.

Source: ``ultralytics.nn.modules.head.Detect``. The edge distributions are reduced inside the graph, so there is no edge
spread. Graphs exported end to end (output [1, 300, 6]) keep one score a box and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detectors.heads.layout import Decoded, Head, WrongHeadError

STRIDES_PX = (8, 16, 32)


def decode(outputs: Sequence[torch.Tensor], input_size_px: tuple[int, int]) -> Decoded:
    """Read one output [1, 4 + m, n]: centre x and y, width, height (input pixels), then m scores in 0..1."""
    height, width = input_size_px
    positions = sum((height // stride) * (width // stride) for stride in STRIDES_PX)
    fits = (
        len(outputs) == 1
        and outputs[0].ndim == 3
        and outputs[0].shape[1] > 4
        and outputs[0].shape[2] == positions
    )
    if not fits:
        raise WrongHeadError(f"one output [1, 4 + classes, {positions}]")
    rows = outputs[0][0].T
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    return Decoded(boxes=torch.cat((centre - half, centre + half), 1), scores=rows[:, 4:])


HEAD = Head(decode, letterbox=True, bgr=False, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
