"""The one record that every vendor format is written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PreAnnotation:
    """An object that the committee sees: for a labeler to correct rather than draw."""

    class_name: str
    confidence: float
    """Mean over the members that know the class; a member that did not see the object counts as 0."""
    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float
    detectors: tuple[str, ...]
    """Members that saw it."""
    in_doubt: bool = False
    """Not all members that know the class saw it, or not surely. Delivered where the config asks for it, and only in
    formats that can mark it."""


@dataclass(frozen=True, slots=True)
class ContextImage:
    """A frame from shortly before or after, for the labeler to look at; never to be labelled."""

    file_name: str
    """Relative to the delivery's folder, with forward slashes."""
    offset_s: float
    """Time from the image that it belongs to; negative before it."""
    sha256: str


@dataclass(frozen=True, slots=True)
class DeliveredImage:
    """One image of a delivery."""

    frame_id: str
    file_name: str
    """Relative to the delivery's folder, with forward slashes."""
    uri: str
    """Where the vendor finds the image: ``file_name``, or made from the config's template."""
    sha256: str
    width_px: int
    height_px: int
    rank: int
    arm: str
    slice: str | None
    reason: str
    hardness: float
    estimated_boxes: float
    drive_id: str
    vehicle_id: str | None
    camera: str
    captured_at: datetime
    recording_id: str
    frame_index: int
    pts_ns: int
    boxes: tuple[PreAnnotation, ...] = field(default=())
    context: tuple[ContextImage, ...] = ()
    """In order of time."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch as it goes out."""

    batch_id: str
    classes: tuple[str, ...]
    """The fleet's class list, in order."""
    images: tuple[DeliveredImage, ...]
    """In the order of the batch: mined by rank, then random."""


def image_row(image: DeliveredImage) -> dict[str, object]:
    """List an image's plain columns, as the flat formats (CSV, JSON lines) write them."""
    return {
        "frame_id": image.frame_id,
        "image": image.file_name,
        "uri": image.uri,
        "rank": image.rank,
        "arm": image.arm,
        "slice": image.slice,
        "hardness": round(image.hardness, 6),
        "estimated_boxes": image.estimated_boxes,
        "reason": image.reason,
        "drive_id": image.drive_id,
        "vehicle_id": image.vehicle_id,
        "camera": image.camera,
        "captured_at": image.captured_at.isoformat(),
        "recording_id": image.recording_id,
        "frame_index": image.frame_index,
        "pts_ns": image.pts_ns,
        "width_px": image.width_px,
        "height_px": image.height_px,
        "sha256": image.sha256,
        "context": [context.file_name for context in image.context],
    }
