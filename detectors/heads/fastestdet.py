"""FastestDet: one map; objectness, box and class scores of every cell in one output.

Source: dog-qiuqiu/FastestDet, ``utils/tool.py`` (``handle_preds``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detectors.heads.layout import Decoded, Head, WrongHeadError, grid

OBJECTNESS_POWER, CLASS_POWER = 0.6, 0.4


def decode(outputs: Sequence[torch.Tensor], input_size_px: tuple[int, int]) -> Decoded:
    """Read one output [1, 5 + m, rows, columns]: objectness, tx, ty, tw, th, then m class scores.

    cx = (tanh(tx) + column) / columns, w = sigmoid(tw), both as shares of the input; score = obj^0.6 * class^0.4.
    """
    if len(outputs) != 1 or outputs[0].ndim != 4 or outputs[0].shape[1] <= 5:
        raise WrongHeadError("one output [1, 5 + classes, rows, columns]")
    height, width = outputs[0].shape[2:]
    cells = outputs[0][0].flatten(1).T
    columns, rows = grid(height, width)
    centre = torch.stack(((cells[:, 1].tanh() + columns) / width, (cells[:, 2].tanh() + rows) / height), 1)
    half = cells[:, 3:5].sigmoid() / 2
    size_px = centre.new_tensor([input_size_px[1], input_size_px[0]] * 2)
    return Decoded(
        boxes=torch.cat((centre - half, centre + half), 1) * size_px,
        scores=cells[:, :1] ** OBJECTNESS_POWER * cells[:, 5:] ** CLASS_POWER,
    )


HEAD = Head(decode, letterbox=False, bgr=True, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
