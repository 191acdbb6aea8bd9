"""What an image is worth as an image: dark, blurred, over-exposed, or the same as another."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX = 320
"""Images are measured at this width (area-averaged); narrower ones as they are."""

OVEREXPOSED_LUMA = 250
"""From this luma on (of 255) a pixel counts as blown out."""


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """Measured on luma (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B) at ``WIDTH_PX``."""

    luma_mean: float
    """0..255; a night highway is near 6, a day street near 110."""
    sharpness: float
    """Variance of the Laplacian (Pech-Pacheco et al. 2000); low where blurred, but also where nothing is to be seen."""
    overexposed_share: float
    """Share of pixels with luma of ``OVEREXPOSED_LUMA`` or more, 0..1."""
    perceptual_hash: np.uint64
    """64-bit difference hash; see ``difference_hash``."""


def measure_quality(image: NDArray[np.uint8]) -> FrameQuality:
    """Measure one image: [height, width, 3] RGB or [height, width] grey, uint8.

    Raises:
        ValueError: another shape or type, or an image without pixels.
    """
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"measure_quality needs uint8 [height, width, 3] or [height, width], got {image.dtype} {list(image.shape)}"
        )
    if 0 in image.shape:
        raise ValueError(f"measure_quality got an image without pixels: {list(image.shape)}")
    luma = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, dtype=np.uint8)
    height, width = luma.shape
    if width > WIDTH_PX:
        small_height = max(1, round(height * WIDTH_PX / width))
        small = cv2.resize(luma, (WIDTH_PX, small_height), interpolation=cv2.INTER_AREA)
        luma = np.asarray(small, dtype=np.uint8)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return FrameQuality(
        luma_mean=float(cv2.mean(luma)[0]),
        sharpness=float(deviation[0, 0]) ** 2,
        overexposed_share=float(np.count_nonzero(luma >= OVEREXPOSED_LUMA)) / luma.size,
        perceptual_hash=difference_hash(luma),
    )


def difference_hash(luma: NDArray[np.uint8]) -> np.uint64:
    """64-bit difference hash (dHash, Krawetz 2013) of luma [height, width].

    Luma is averaged over 9 x 8 areas; each of the 8 bits of a row tells whether an area is brighter than its left
    neighbour; the top left is the highest bit. Scaling, recompression and brightness change few bits.
    """
    areas = cv2.resize(luma.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    bits = areas[:, 1:] > areas[:, :-1]
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def hamming(a: NDArray[np.uint64] | np.uint64, b: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ, 0..64; elementwise, broadcasting."""
    return np.bitwise_count(np.bitwise_xor(a, b))
