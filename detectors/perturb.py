"""A detector that looks at mirrored or shrunken frames: a second opinion where only one detector is at hand.

What a detector truly knows, it also sees in the mirror and from a little further away; where the answers differ, it guesses
(consistency as in CALD, Yu et al., "Consistency-based Active Learning for Object Detection", 2022). Such a copy is a member of
the committee like any other. It shares the blind spots of its original, so it finds fewer errors than another architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.preprocess import PADDING_GREY
from detectors.types import Detector, DetectorSpec, FloatArray, FrameBatch, Pending, Predictions


class PerturbedDetector:
    """A ``Detector`` around another; boxes come back in pixels of the frame as it was."""

    def __init__(self, detector: Detector) -> None:
        """Wrap a loaded detector whose spec asks for it.

        ``flip`` mirrors left and right; ``scale`` shrinks the picture to this share of its width and height, in the middle of a
        grey frame of the old size.
        """
        self.original = detector
        self.name = detector.name
        self.classes = detector.classes
        self.seen = detector.seen
        self.spec: DetectorSpec = detector.spec
        self.digest = detector.digest  # covers the spec

    def predict(self, frames: FrameBatch) -> Predictions:
        """Change the frames, let the detector look at them, and map its boxes back."""
        return self.begin(frames).result()

    def begin(self, frames: FrameBatch) -> Pending:
        """Ask the detector about changed frames; they are changed when it takes them."""
        height, width = frames.frames[0].shape[:2]
        inner_width = max(round(width * self.spec.scale), 1)
        inner_height = max(round(height * self.spec.scale), 1)
        left, top = (width - inner_width) // 2, (height - inner_height) // 2
        changed = _Changed(frames, lambda frame: self._change(frame, inner_width, inner_height, left, top))
        place = (width, height, inner_width, inner_height, left, top)
        return _Mapped(self.original.begin(changed), partial(self._back, place))

    def _back(self, place: tuple[int, int, int, int, int, int], found: Predictions) -> Predictions:
        """Map boxes to pixels of the frame as it was."""
        width, height, inner_width, inner_height, left, top = place
        share = np.array([inner_width / width, inner_height / height] * 2, np.float32)
        boxes = (found.boxes_px - np.array([left, top] * 2, np.float32)) / share
        std = None if found.box_std_px is None else found.box_std_px / share
        if self.spec.flip:
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
            std = None if std is None else std[:, [2, 1, 0, 3]]
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)
        # Of a box that lies wholly in the padding, nothing is left.
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(
            found,
            frame_index=found.frame_index[inside],
            boxes_px=boxes[inside],
            class_scores=found.class_scores[inside],
            box_std_px=_rows(std, inside),
        )

    def _change(
        self, frame: NDArray[np.uint8], width: int, height: int, left: int, top: int
    ) -> NDArray[np.uint8]:
        """Mirror and shrink one frame; it keeps its size."""
        if self.spec.flip:
            frame = frame[:, ::-1]
        if frame.shape[:2] == (height, width):
            return np.ascontiguousarray(frame)
        canvas = np.full_like(frame, PADDING_GREY, order="C")
        canvas[top : top + height, left : left + width] = cv2.resize(
            np.ascontiguousarray(frame), (width, height), interpolation=cv2.INTER_AREA
        )
        return canvas


@dataclass(frozen=True, slots=True)
class _Changed:
    """A ``FrameBatch`` of frames that are changed when they are taken."""

    original: FrameBatch
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

    @property
    def frames(self) -> list[NDArray[np.uint8]]:
        return [self.change(frame) for frame in self.original.frames]


@dataclass(frozen=True, slots=True)
class _Mapped:
    """``Pending`` of what was changed."""

    pending: Pending
    back: Callable[[Predictions], Predictions]

    @property
    def under_way(self) -> bool:
        return self.pending.under_way

    def result(self) -> Predictions:
        return self.back(self.pending.result())

    def cancel(self) -> None:
        self.pending.cancel()


def _rows(values: FloatArray | None, which: NDArray[np.bool_]) -> FloatArray | None:
    return None if values is None else values[which].astype(np.float32)
