"""What nobody may recognise, such as faces and plates, is hidden before an image is encoded."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.committee import load_alone
from mining.config import Config
from mining.types import MiningError, UsageError


class NotBlurred(MiningError):
    """The detector failed on an image; it must not go out."""


class Blur:
    """``export.blur``, with its detector loaded."""

    def __init__(self, config: Config) -> None:
        """Load the detector. ``UsageError`` where it knows none of a class that was asked for."""
        settings = config.export.blur
        assert settings is not None
        self._settings = settings
        self._detector = load_alone(config, settings.detector)
        unknown = [name for name in settings.classes if name not in self._detector.classes]
        if unknown:
            raise UsageError(
                f"export.blur.classes: {settings.detector.weights} has no class {unknown[0]!r}; "
                f"it has {', '.join(self._detector.classes)}"
            )
        self._columns = [self._detector.classes.index(name) for name in settings.classes]

    def hidden(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of an image [height, width, 3] without what is to be hidden. ``NotBlurred`` on failure."""
        from detectors.preprocess import Batch

        name = self._detector.name
        try:
            seen = self._detector.predict(Batch([rgb]))
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else ""
            raise NotBlurred(f"not blurred: {name}: {type(error).__name__}: {said}") from error
        if seen.errors:
            raise NotBlurred(f"not blurred: {name}: {seen.errors[0]}")
        found = np.nanmax(seen.class_scores[:, self._columns], axis=1, initial=0.0)
        boxes_px = seen.boxes_px[found >= self._detector.spec.threshold]
        return blurred(rgb, boxes_px, cells=self._settings.cells, margin=self._settings.margin)


def blurred(
    rgb: NDArray[np.uint8], boxes_px: NDArray[np.float32], *, cells: int, margin: float
) -> NDArray[np.uint8]:
    """Reduce each box [n, 4] of an image to ``cells`` patches along its longer side, with soft edges between them.

    Means over patches are what is left, so that no sharpening brings the content back, as it may from a Gaussian blur.
    """
    height_px, width_px = rgb.shape[:2]
    result = rgb.copy()
    sizes_px = (boxes_px[:, 2:] - boxes_px[:, :2]) * margin
    first = np.floor(boxes_px[:, :2] - sizes_px).clip(min=0)
    last = np.ceil(boxes_px[:, 2:] + sizes_px).clip(max=[width_px, height_px])
    for x1, y1, x2, y2 in np.hstack([first, last]).astype(int).tolist():
        across_px, down_px = x2 - x1, y2 - y1
        if across_px < 1 or down_px < 1:
            continue
        share = min(1.0, cells / max(across_px, down_px))
        patches = (max(1, round(across_px * share)), max(1, round(down_px * share)))
        # From the original: boxes that overlap hide no less.
        few = cv2.resize(rgb[y1:y2, x1:x2], patches, interpolation=cv2.INTER_AREA)
        result[y1:y2, x1:x2] = cv2.resize(few, (across_px, down_px), interpolation=cv2.INTER_LINEAR)
    return result
