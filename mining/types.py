"""The words that every stage shares: recordings, frames, and how a frame is named."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

Nights = tuple[date, date]
"""The first and the last night, both included."""


class MiningError(Exception):
    """Something the user can mend; the message is one line that says what and how. Exit code 1."""


class UsageError(MiningError):
    """A wrong command, config or query. Exit code 2."""


class TemporaryError(MiningError):
    """Nothing is wrong with the job: no space, a store that is gone or read-only, another job. Exit code 75: try again."""


def may_pass(error: OSError) -> bool:
    """Tell whether the next run may not meet an error of the disk: no space, over quota, read-only, gone for a while."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}


class Terminated(BaseException):
    """SIGTERM: stop as for Ctrl-C, also where Ctrl-C would only give up a query. Exit code 143."""


class QueryError(UsageError):
    """A query that is wrong or may not run; the message has the query's line in it, so it may be several lines long."""


def nights_of(text: str, what: str = "--nights") -> Nights:
    """Read nights as people write them: ``2026-03-01``, or ``2026-03-01..2026-03-14`` with both ends included.

    ``what`` is what a person mends where they cannot be read.
    """
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})(?:\.\.(\d{4}-\d{2}-\d{2}))?", text)
    try:
        if match is None:
            raise ValueError
        first, last = date.fromisoformat(match[1]), date.fromisoformat(match[2] or match[1])
    except ValueError:
        raise UsageError(f"{what} {text}: write it as 2026-03-01 or 2026-03-01..2026-03-14") from None
    if last < first:
        raise UsageError(f"{what} {text}: ends before it begins")
    return first, last


def frame_id(recording_id: str, frame_index: int) -> str:
    """Name a frame. The only place that decides what a frame id looks like; nothing parses it."""
    return f"{recording_id}-{frame_index:07d}"


@dataclass(frozen=True, slots=True)
class Recording:
    """One video file, image folder or camera topic, known by its content. One row of ``recordings``."""

    recording_id: str
    """First 20 hexadecimal digits of the content's sha256."""
    uri: str
    """Where it was found: an absolute path, or ``s3://bucket/key``."""
    kind: str
    """``video`` or ``images``."""
    drive_id: str
    vehicle_id: str | None
    camera: str
    started_at: datetime
    """UTC time of the first frame."""
    started_at_source: str
    """Where ``started_at`` comes from: ``sidecar``, ``container`` or ``file_time``."""
    size_bytes: int
    modified_ns: int
    """Of the file (of the newest file in a folder); unchanged size and time mean that nothing is read again."""
    duration_s: float | None = None
    frame_rate_hz: float | None = None
    """Mean rate over the frames that the file really holds."""
    width_px: int | None = None
    height_px: int | None = None
    """As displayed: after any rotation that the container asks for."""
    codec: str | None = None
    frame_count: int | None = None
    """Frames that decode, counted from packets (those marked for discarding left out)."""
    frame_count_from_header: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    status: str = "ok"
    """``ok``, ``partial`` (some of it cannot be read) or ``unreadable``."""
    error: str | None = None

    def __post_init__(self) -> None:
        """Check what later stages rely on."""
        if self.started_at.tzinfo is None:
            raise ValueError(f"Recording.started_at needs a time zone, got {self.started_at!r}")
        if self.status not in {"ok", "partial", "unreadable"}:
            raise ValueError(f"Recording.status is {self.status!r}")
        if (self.status == "ok") == (self.error is not None):
            raise ValueError(f"Recording.status {self.status!r} does not go with error {self.error!r}")

    @property
    def night(self) -> date:
        """The partition: the UTC day on which the recording began."""
        return self.started_at.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Every frame that a recording holds, in the order in which the decoder hands them out, found without decoding."""

    pts_ns: NDArray[np.int64]
    """[n] exact presentation times in nanoseconds, ascending, in the container's own time base (the first frame
    need not be at 0)."""

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self.pts_ns)

    def captured_at(self, started_at: datetime, index: int) -> datetime:
        """When frame ``index`` was taken: the recording's start plus the time since its first frame."""
        return started_at + timedelta(microseconds=int(self.pts_ns[index] - self.pts_ns[0]) // 1000)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame, or the reason why there is none."""

    frame_index: int
    pts_ns: int
    rgb: NDArray[np.uint8] | None
    """[height, width, 3], RGB, display orientation; None where it did not decode."""
    error: str | None = None
    opened: bool = True
    """False where the recording as a whole could not be opened."""


@dataclass(slots=True)
class StageReport:
    """What one stage did, for the summary and for ``--json``."""

    stage: str
    done: int = 0
    """Units of work (recordings, shards, batches) that were run and committed."""
    unchanged: int = 0
    """Units that an earlier run had already committed."""
    would_do: int = 0
    """Units that a dry run found due."""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    """What came out: frames, boxes, scenes, ..."""
    profile: dict[str, float] = field(default_factory=dict)
    """Seconds by activity, where the stage takes them down; threads work side by side, so they add up to more."""
    problems: list[str] = field(default_factory=list)
    """One line for each thing that failed or was left out; the rest of the night went on."""

    def add(self, **counts: int) -> None:
        """Add to the counts."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(count)
