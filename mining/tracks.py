"""Objects over time in one recording: tracks of every member's boxes, and what the primary's tracks tell of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.signals import temporal
from mining.signals.disagreement import CommitteeBoxes


@dataclass(frozen=True, slots=True)
class Followed:
    """A recording's boxes followed over time."""

    track_id: NDArray[np.int64]
    """[n] unique in the recording over all members; -1 for boxes without a track."""
    signals: dict[str, NDArray[np.float64]]
    """The fields of ``temporal.TimeSignals``: [F], of the first member."""


@dataclass(frozen=True, slots=True)
class BoxesInTime:
    """What is followed of a committee's boxes: without their class vectors, which are most of them."""

    frame: NDArray[np.integer]
    """[n] index of the frame, in time order."""
    member: NDArray[np.integer]
    """[n] index of the member."""
    boxes_px: NDArray[np.floating]
    """[n, 4] x1, y1, x2, y2."""
    scores: NDArray[np.floating]
    """[n] confidence."""
    classes: NDArray[np.integer]
    """[n] index of the most confident class."""
    ran: NDArray[np.bool_]
    """[F, M] True where the member looked at the frame."""
    thresholds: NDArray[np.floating]
    """[M] operating threshold of each member."""

    @classmethod
    def of(cls, boxes: CommitteeBoxes) -> BoxesInTime:
        """Take a committee's boxes, in as few bytes as they need: of a long recording there are millions."""
        return cls(
            frame=boxes.frame.astype(np.int32),
            member=boxes.member.astype(np.int16),
            boxes_px=boxes.boxes_px.astype(np.float32),
            scores=boxes.scores.astype(np.float32),
            classes=np.nan_to_num(boxes.class_scores, nan=-1.0).argmax(axis=1).astype(np.int32),
            ran=boxes.ran,
            thresholds=boxes.thresholds,
        )

    @classmethod
    def joined(cls, parts: Sequence[BoxesInTime]) -> BoxesInTime:
        """Put parts of one recording together, in time order; there is at least one."""
        first_frame = np.cumsum([0, *(len(part.ran) for part in parts[:-1])]).tolist()
        return cls(
            frame=np.concatenate(
                [part.frame + first for part, first in zip(parts, first_frame, strict=True)]
            ),
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("member", "boxes_px", "scores", "classes", "ran")
            },
            thresholds=parts[0].thresholds,
        )


def follow(
    boxes: BoxesInTime,
    time_s: NDArray[np.float64],
    repeats: NDArray[np.bool_],
    cut: NDArray[np.bool_],
    max_step_s: float,
    max_gap_s: float,
) -> Followed:
    """Link each member's boxes, and measure the first one's.

    Args:
        boxes: of all sampled frames of one recording, frames in time order.
        time_s: [F] ascending; NaN where it is not known (such a frame is left out).
        repeats: [F] frames that show the picture of the frame before; they take its values, their boxes no track.
        cut: [F] frames with which another scene begins.
        max_step_s: frames further apart are no neighbours.
        max_gap_s: a vanished object is looked for so long.
    """
    track_id, tracks = np.full(len(boxes.frame), -1, np.int64), 0
    signals: dict[str, NDArray[np.float64]] = {}
    for member, threshold in enumerate(boxes.thresholds):
        look = boxes.ran[:, member] & ~repeats & ~np.isnan(time_s)
        picked, continues = temporal.sequence_of(time_s, look, cut, max_step_s)
        position = np.full(len(boxes.ran), -1)
        position[picked] = np.arange(len(picked))
        rows = np.flatnonzero((boxes.member == member) & (position[boxes.frame] >= 0))
        rows = rows[np.argsort(boxes.frame[rows], kind="stable")]
        sequence = temporal.Sequence(
            time_s=time_s[picked],
            continues=continues,
            frame=position[boxes.frame[rows]],
            boxes_px=boxes.boxes_px[rows].astype(np.float64),
            scores=boxes.scores[rows].astype(np.float64),
            classes=boxes.classes[rows].astype(np.int64),
            threshold=float(threshold),
            max_gap_s=max_gap_s,
        )
        links = temporal.link(sequence)
        track_id[rows] = np.where(links.track >= 0, links.track + tracks, -1)
        tracks += int(links.track.max(initial=-1)) + 1
        if member == 0:
            measured = temporal.measure_time(sequence, links)
            for name in temporal.TimeSignals.__dataclass_fields__:
                signals[name] = temporal.spread(getattr(measured, name), picked, repeats)
                signals[name][~boxes.ran[:, 0]] = np.nan
    return Followed(track_id, signals)
