"""Go on with smaller batches where the device's memory does not hold the whole one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from detectors.types import Predictions

# Below "mining", whose log the command line sets up.
LOG = logging.getLogger("mining.detectors")


class Pieces:
    """Runs batches whole until one does not fit; from then on in pieces of the size that did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size: int | None = None
        """Most images that are run at once; None while no batch was too large."""

    def run(self, images: torch.Tensor, look: Callable[[torch.Tensor], Predictions]) -> Predictions:
        """Call ``look`` on images [b, ...], or on pieces of them in order, and put its predictions together.

        Raises:
            torch.OutOfMemoryError: a single image does not fit.
        """
        parts: list[Predictions] = []
        before, start = self.size, 0
        while start < len(images):
            piece = images[start : start + (self.size or len(images))]
            found = self._try(piece, look)
            if found is None:
                self.size = len(piece) // 2
                continue
            parts.append(found)
            start += len(piece)
        if self.size != before:
            LOG.warning(
                "%s: a batch of %d does not fit into the device's memory; going on with %d frames at a time",
                self.name, before or len(images), self.size,
            )  # fmt: skip
        return parts[0] if len(parts) == 1 else Predictions.joined(parts)

    def _try(self, piece: torch.Tensor, look: Callable[[torch.Tensor], Predictions]) -> Predictions | None:
        """Return what ``look`` finds; None where more than one image was too much."""
        try:
            return look(piece)
        except torch.OutOfMemoryError:
            if len(piece) == 1:
                raise
        # Only here, past the handler, has the error let go of the frames that hold the tensors.
        if piece.device.type == "cuda":
            torch.cuda.empty_cache()
        return None
