"""What every head states, and what its ``decode`` gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


class WrongHeadError(Exception):
    """The graph's outputs do not have this head's layout; the message says what the layout is."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame's outputs at ``n`` positions over the model's ``m`` classes."""

    boxes: torch.Tensor
    """[n, 4] x1, y1, x2, y2 in pixels of the network's input."""
    scores: torch.Tensor
    """[n, m] in 0..1."""
    edges: torch.Tensor | None = None
    """[n, 4, r] logits over r distance bins for each edge (left, top, right, bottom)."""
    bin_px: torch.Tensor | None = None
    """[n] input pixels that one distance bin stands for."""


@dataclass(frozen=True, slots=True)
class Head:
    """An output layout. A new one is one file like its neighbours and one entry in ``HEADS``."""

    decode: Callable[[Sequence[torch.Tensor], tuple[int, int]], Decoded]
    """(the graph's outputs in their own order, each with its batch axis of 1; input height and width) -> ``Decoded``.
    Raises ``WrongHeadError`` where the outputs do not fit."""
    letterbox: bool
    """Whether frames keep their aspect on grey padding, or are stretched to the input."""
    bgr: bool
    """Order of the input's channels: blue first, or red first."""
    mean: tuple[float, float, float]
    """Subtracted from each channel (0..255), in the input's order."""
    std: tuple[float, float, float]
    """Each channel is then divided by this."""


def grid(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and rows of the cells of a map, both [height * width], row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return columns.flatten().float(), rows.flatten().float()
