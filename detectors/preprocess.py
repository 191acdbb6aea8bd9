"""Letterbox or stretch a batch of frames once for each input size, on the device where the model runs.

Geometry, padding and interpolation are those of Ultralytics' ``predict`` (``ultralytics.data.augment.LetterBox`` and
``ultralytics.utils.ops.scale_boxes``): the models were trained on it, and the parity tests hold us to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from detectors import side_by_side
from detectors.types import DetectorError, FrameBatch

PADDING_GREY = 114


def choose_device(name: str) -> torch.device:
    """Turn a spec's ``device`` into a torch device.

    Raises:
        DetectorError: the name is unknown, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise DetectorError(f"device is {name!r}; known are 'auto', 'cpu', 'cuda' and 'cuda:N'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DetectorError(
            f'device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices; set device = "cpu" or "auto"'
        )
    return device


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch in a network's input size, and the way back to source pixels."""

    images: torch.Tensor
    """[b, 3, height, width] uint8, RGB, on the model's device; channels last in memory, as networks run fastest."""
    scale_x: float
    """Input pixels a source pixel, across."""
    scale_y: float
    """Input pixels a source pixel, down."""
    left_px: int
    """Columns of padding on the left."""
    top_px: int
    """Rows of padding above."""
    source_height_px: int
    source_width_px: int
    _normalised: dict[torch.dtype, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def normalised(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the images in 0..1 and a network's number format, converted once for all members that share it."""
        if dtype not in self._normalised:
            found = torch.empty_like(self.images, dtype=dtype)
            if found.device.type == "cpu":
                # By threads that work alone: those that share an operation go on spinning for a while when it is done,
                # on the cores that decode the next frames.
                side_by_side.prepare(_normalise, self.images, found)
            else:
                _normalise(self.images, found)
            self._normalised[dtype] = found
        return self._normalised[dtype]

    def to_source(self, boxes: torch.Tensor) -> torch.Tensor:
        """Map boxes [n, 4] (x1, y1, x2, y2 in input pixels) to source pixels, clipped to the frame."""
        offset = boxes.new_tensor([self.left_px, self.top_px, self.left_px, self.top_px])
        limit = boxes.new_tensor([self.source_width_px, self.source_height_px] * 2)
        return ((boxes - offset) / self.scales(boxes)).clamp(min=0).minimum(limit)

    def scales(self, like: torch.Tensor) -> torch.Tensor:
        """[4] input pixels a source pixel for each edge (left, top, right, bottom), on the device of ``like``."""
        return like.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])


def _normalise(pixels: torch.Tensor, found: torch.Tensor) -> None:
    found.copy_(pixels).div_(255)


class Batch:
    """Frames of one size that several detectors look at (a ``FrameBatch``); each input size is prepared once."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Take b >= 1 frames [height, width, 3], RGB uint8, all of one size.

        Raises:
            ValueError: there is no frame, or one has another size or type.
        """
        if not frames:
            raise ValueError("a batch needs at least one frame")
        shape = frames[0].shape
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"a frame has shape {shape}; need [height, width, 3]")
        for frame in frames:
            if frame.shape != shape or frame.dtype != np.uint8:
                raise ValueError(
                    f"frames of one batch differ: {frame.shape} {frame.dtype} beside {shape} uint8; batch them by size"
                )
        self.frames = frames
        self.height_px, self.width_px = shape[:2]
        self._prepared: dict[tuple[object, ...], Prepared] = {}
        self._uploaded: dict[torch.device, torch.Tensor] = {}

    @classmethod
    def of(cls, frames: FrameBatch) -> Batch:
        """Return ``frames`` itself where it is a ``Batch`` (so that its cache is shared), else wrap it."""
        return frames if isinstance(frames, cls) else cls(frames.frames)

    def letterboxed(self, size_px: tuple[int, int], stride_px: int | None, device: torch.device) -> Prepared:
        """Fit the frames into ``size_px`` (height, width), keeping their aspect, on grey padding.

        ``stride_px`` cuts the padding to the smallest that makes both sides multiples of it; None fills ``size_px``.
        """
        key = ("letterbox", size_px, stride_px, device)
        if key not in self._prepared:
            scale = min(size_px[0] / self.height_px, size_px[1] / self.width_px)
            # Each side is rounded to whole pixels (a thin frame keeps at least one), so the two scales differ a little.
            width = max(round(self.width_px * scale), 1)
            height = max(round(self.height_px * scale), 1)
            spare_x, spare_y = size_px[1] - width, size_px[0] - height
            if stride_px is not None:
                spare_x, spare_y = spare_x % stride_px, spare_y % stride_px
            left, right = round(spare_x / 2 - 0.1), round(spare_x / 2 + 0.1)
            top, bottom = round(spare_y / 2 - 0.1), round(spare_y / 2 + 0.1)
            images = self._resized(height, width, (left, right, top, bottom), device)
            self._prepared[key] = self._describe(images, height, width, left, top)
        return self._prepared[key]

    def stretched(self, size_px: tuple[int, int], device: torch.device) -> Prepared:
        """Resize the frames to ``size_px`` (height, width), whatever their aspect."""
        key = ("stretch", size_px, device)
        if key not in self._prepared:
            height, width = size_px
            images = self._resized(height, width, (0, 0, 0, 0), device)
            self._prepared[key] = self._describe(images, height, width, 0, 0)
        return self._prepared[key]

    def _describe(self, images: torch.Tensor, height: int, width: int, left: int, top: int) -> Prepared:
        """Put images, in which a frame covers ``height`` x ``width`` pixels, together with the way back."""
        scale_x, scale_y = width / self.width_px, height / self.height_px
        return Prepared(images, scale_x, scale_y, left, top, self.height_px, self.width_px)

    def _resized(
        self, height: int, width: int, padding: tuple[int, int, int, int], device: torch.device
    ) -> torch.Tensor:
        """Resize to ``height`` x ``width`` and pad (left, right, top, bottom): [b, 3, ., .] uint8 on ``device``."""
        if device.type == "cpu":
            return resize_on_cpu(self.frames, height, width, padding)
        if device not in self._uploaded:
            self._uploaded[device] = torch.from_numpy(np.stack(self.frames)).to(device).permute(0, 3, 1, 2)
        return resize_with_torch(self._uploaded[device], height, width, padding)


def resize_on_cpu(
    frames: Sequence[NDArray[np.uint8]], height: int, width: int, padding: tuple[int, int, int, int]
) -> torch.Tensor:
    """Resize with OpenCV (bilinear, fixed point: what Ultralytics uses) and pad with grey."""
    left, right, top, bottom = padding
    shape = (len(frames), height + top + bottom, width + left + right, 3)
    canvas = np.full(shape, PADDING_GREY, np.uint8)

    def place(frame: NDArray[np.uint8], whole: NDArray[np.uint8]) -> None:
        room = whole[top : top + height, left : left + width]
        if frame.shape[:2] == (height, width):
            room[:] = frame
        else:
            room[:] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)

    side_by_side.prepare(place, frames, canvas)
    return torch.from_numpy(canvas).permute(0, 3, 1, 2)


def resize_with_torch(
    frames: torch.Tensor, height: int, width: int, padding: tuple[int, int, int, int]
) -> torch.Tensor:
    """Do the same to frames [b, 3, height, width] on their own device; within one grey level of OpenCV."""
    if tuple(frames.shape[2:]) != (height, width):
        # No antialiasing, as in OpenCV: the models were trained on images shrunk that way.
        frames = F.interpolate(
            frames.float(), (height, width), mode="bilinear", align_corners=False, antialias=False
        )
        frames = frames.round_().clamp_(0, 255).to(torch.uint8)
    return F.pad(frames, padding, value=PADDING_GREY).contiguous(memory_format=torch.channels_last)
