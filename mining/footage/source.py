"""The words of this package: where footage lies, what is wrong with a path, and what stands in for a missing sidecar."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mining.types import FrameTimes, MiningError


class FootageError(MiningError):
    """Footage, or a file that belongs to it, cannot be used; the message is one line."""


class OutOfReach(FootageError):
    """Footage cannot be had now; nothing is known to be wrong with it, and the next run tries again."""


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One recording as found, not opened yet."""

    path: str
    """A video file, or a folder that holds images directly: an absolute path, links resolved, or ``s3://bucket/key``, which
    ``cache.at_hand`` brings to the local disk. Whatever opens files takes a local one."""
    kind: Literal["video", "images"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A path that was asked for and gives no footage."""

    path: str
    """As given; bytes that are no UTF-8 are shown escaped, so the text is always valid Unicode."""
    reason: str
    """One line."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a recording is taken to be where its sidecar says nothing."""

    image_rate_hz: float
    """Frames a second of an image folder whose file names are no timestamps."""
    camera: str = "front"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recording's own bytes tell, without sidecar or defaults."""

    times: FrameTimes
    codec: str | None
    size_px: tuple[int, int] | None
    """(width, height) as displayed."""
    frame_count_from_header: int | None
    created_at: datetime | None
    """UTC time of the first frame, where the content states a believable one."""
    faults: list[str] = field(default_factory=list)
    """One line for each thing that is wrong; empty for a sound recording."""
