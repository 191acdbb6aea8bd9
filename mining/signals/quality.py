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

HISTOGRAM_BINS = 16

REPEAT_LUMA, REPEAT_SHARPNESS, REPEAT_HISTOGRAM = 0.05, 0.003, 0.01
"""A repeat has the hash of the frame before it, and its mean luma, sharpness (relative) and histogram within these."""

SAME_AREA_PX, SAME_LUMA = 4, 6.0
"""For ``same_picture``, at ``WIDTH_PX``. In doubled frames of a re-encoded clip the worst area differs by 0 to 10, in the calmest
moving one (a dark motorway) by 13 and more: 6 rather misses a repeat than a pedestrian."""

CUT_BITS, CUT_HISTOGRAM = 20, 0.15
"""At a scene cut so many bits of the hash differ, and so large a share of the luma histogram."""


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
    luma_histogram: tuple[float, ...]
    """HISTOGRAM_BINS numbers: the share of pixels in each 16th of the range of luma."""


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
    luma = small_luma(image)
    bin_luma = 256 // HISTOGRAM_BINS
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return FrameQuality(
        luma_mean=float(cv2.mean(luma)[0]),
        sharpness=float(deviation[0, 0]) ** 2,
        overexposed_share=float(np.count_nonzero(luma >= OVEREXPOSED_LUMA)) / luma.size,
        perceptual_hash=difference_hash(luma),
        luma_histogram=tuple(
            (np.bincount(luma.ravel() // bin_luma, minlength=HISTOGRAM_BINS) / luma.size).tolist()
        ),
    )


def small_luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of an image at ``WIDTH_PX``: [height, width, 3] RGB or [height, width] grey to [h, w], all uint8."""
    luma = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, dtype=np.uint8)
    height, width = luma.shape
    if width <= WIDTH_PX:
        return luma
    small_height = max(1, round(height * WIDTH_PX / width))
    return np.asarray(
        cv2.resize(luma, (WIDTH_PX, small_height), interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


def same_picture(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two pictures (``small_luma``) are one and the same but for the noise of a codec.

    No area of SAME_AREA_PX x SAME_AREA_PX may differ by more than SAME_LUMA in the mean: a hash or a mean over the whole picture
    would overlook a pedestrian far away who crosses before a standing car.
    """
    if a.shape != b.shape:
        return False
    areas = cv2.blur(cv2.absdiff(a, b).astype(np.float32), (SAME_AREA_PX, SAME_AREA_PX))
    return bool(areas.max() <= SAME_LUMA)


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


def compare_with_previous(
    perceptual_hash: NDArray[np.uint64],
    luma_mean: NDArray[np.floating],
    sharpness: NDArray[np.floating],
    luma_histogram: NDArray[np.floating],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of a recording's frames repeat the one before, and which begin another scene: ([F], [F]).

    A repeat: the same hash, and luma, sharpness and histogram all but equal, as only re-encoding leaves them. A cut: CUT_BITS
    of the hash differ *and* CUT_HISTOGRAM of the luma histogram (half the sum of absolute differences); turning or driving
    on changes the one or the other. The first frame is neither, nor is a frame without values (NaN), nor one after it.

    Args:
        perceptual_hash: [F] in time order.
        luma_mean: [F].
        sharpness: [F].
        luma_histogram: [F, HISTOGRAM_BINS].
    """
    if not len(perceptual_hash):
        return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    bits = hamming(perceptual_hash[1:], perceptual_hash[:-1])
    luma = np.asarray(luma_mean, np.float64)
    sharp = np.asarray(sharpness, np.float64)
    moved = np.abs(np.diff(np.asarray(luma_histogram, np.float64), axis=0)).sum(axis=1) / 2
    # Comparisons with NaN are False: no value, no verdict.
    same = (bits == 0) & (np.abs(np.diff(luma)) <= REPEAT_LUMA) & (moved <= REPEAT_HISTOGRAM)
    same &= np.abs(np.diff(sharp)) <= REPEAT_SHARPNESS * np.maximum(sharp[1:], sharp[:-1])
    cut = (bits >= CUT_BITS) & (moved >= CUT_HISTOGRAM)
    return np.append(False, same), np.append(False, cut)
