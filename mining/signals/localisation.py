"""How unsure a detector is of where its boxes end, from the distribution that its head gives each edge.

Heads with distribution focal loss (Li et al., "Generalized Focal Loss", 2020: YOLOv8, 11, NanoDet) predict for each edge a
distribution of its distance from the anchor. ``box_std_px`` [n, 4] is its standard deviation in pixels of the source frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


def edge_std_px(box_std_px: NDArray[np.floating]) -> Float64Array:
    """Root mean square of the four edges' standard deviations, pixels: [n, 4] -> [n]; NaN where the head has none."""
    std = np.asarray(box_std_px, np.float64)
    return np.asarray(np.sqrt((std**2).mean(axis=1)))


def edge_std_relative(box_std_px: NDArray[np.floating], boxes_px: NDArray[np.floating]) -> Float64Array:
    """The same as a share of the box: left and right by its width, top and bottom by its height: [n, 4] -> [n] in 0..1.

    A box narrower than a pixel counts as a pixel wide. Above 1 (an edge less certain than the box is large) it is 1.
    """
    std, boxes = np.asarray(box_std_px, np.float64), np.asarray(boxes_px, np.float64)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    return np.minimum(np.sqrt(((std / np.tile(size, 2)) ** 2).mean(axis=1)), 1.0)
