"""What the committee saw of one shard, as rows of ``detections`` and ``observations``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.boxes import match_committee
from mining.committee import Committee
from mining.decode_ahead import Decoded, Shard
from mining.schemas import DETECTIONS, OBSERVATIONS
from mining.types import frame_id

if TYPE_CHECKING:
    from detectors.types import Predictions

_PLAIN_COLUMNS = (
    "luma_mean", "sharpness", "overexposed_share", "perceptual_hash", "luma_histogram", "embedding", "box_count", "status", "error",
    "repeat_of",
)  # fmt: skip


@dataclass(slots=True)
class Rows:
    """Collects one shard's rows as flat arrays; its frames may come in any order."""

    committee: Committee
    shard: Shard
    failed: int = 0
    failed_to_run: int = 0
    """Frames lost to a failing detector or to a recording that could not be opened."""
    reasons: list[str] = field(default_factory=list)
    missing: int = field(init=False)
    """Frames that have not come yet."""
    _observations: list[dict[str, Any]] = field(init=False)
    """By position in the shard."""
    _repeats: list[tuple[int, int]] = field(default_factory=list)
    """Positions of a repeat and of the frame that it repeats."""
    _boxes: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make room for every frame."""
        self.missing = len(self.shard.frame_indices)
        self._observations = [{} for _ in range(self.missing)]

    def add_unseen(self, decoded: Decoded) -> None:
        """Take in a frame that no detector looked at: a repeat, or one that did not decode."""
        self.missing -= 1
        position = self._position(decoded.frame.frame_index)
        if decoded.repeat_of is not None:
            self._observations[position] = _measured(decoded)
            self._repeats.append((position, self._position(decoded.repeat_of)))
            return
        self.failed_to_run += not decoded.frame.opened
        self._finish(position, {}, [decoded.frame.error or "did not decode"], all_failed=True)

    def add(self, batch: Sequence[Decoded], slots: Sequence[int], seen: Sequence[Predictions | str]) -> None:
        """Take in what the members saw of a batch, of which the frames at ``slots`` are this shard's."""
        self.missing -= len(slots)
        positions = [self._position(batch[slot].frame.frame_index) for slot in slots]
        rows = [
            {**_measured(batch[slot]), "box_count": [], "dense_max": [], "dense_mean": []} for slot in slots
        ]
        errors: list[list[str]] = [[] for _ in slots]
        position_of_slot = np.full(len(batch), -1, np.int64)
        position_of_slot[list(slots)] = positions
        for member, predictions in enumerate(seen):
            name = self.committee.names[member]
            if isinstance(predictions, str):
                self.failed_to_run += len(slots)
                for reasons in errors:
                    reasons.append(predictions)
                continue
            counts = np.bincount(predictions.frame_index, minlength=len(batch))
            for slot, row, reasons in zip(slots, rows, errors, strict=True):
                if slot in predictions.errors:
                    reasons.append(f"{name}: {predictions.errors[slot]}")
                    continue
                row["box_count"].append((name, int(counts[slot])))
                row["dense_max"].append((name, predictions.dense_entropy_max[slot]))
                row["dense_mean"].append((name, predictions.dense_entropy_mean[slot]))
                if member == 0:
                    row["embedding"] = predictions.embeddings[slot]
            position = position_of_slot[predictions.frame_index]
            mine = position >= 0
            n, std = int(mine.sum()), predictions.box_std_px
            self._boxes.append(
                (
                    position[mine],
                    np.full(n, member, np.int32),
                    predictions.boxes_px[mine],
                    predictions.class_scores[mine],
                    np.full((n, 4), np.nan, np.float32) if std is None else std[mine],
                )
            )
        for at, row, reasons in zip(positions, rows, errors, strict=True):
            self._finish(at, row, reasons, all_failed=not row["box_count"])

    @property
    def repeats(self) -> int:
        """How many frames took the result of an earlier one."""
        return len(self._repeats)

    def _position(self, frame_index: int) -> int:
        return int(np.searchsorted(self.shard.frame_indices, frame_index))

    def _finish(self, position: int, row: dict[str, Any], reasons: list[str], *, all_failed: bool) -> None:
        row["status"] = "ok" if not reasons else "failed" if all_failed else "partial"
        row["error"] = "; ".join(reasons) or None
        if reasons:
            self.failed += 1
            self.reasons.append(str(row["error"]))
        self._observations[position] = row

    def problems(self) -> list[str]:
        """One line for each different reason, with how many frames it cost."""
        counts = Counter(self.reasons)
        return [f"{count} frames failed: {reason}" for reason, count in counts.items()]

    def tables(self, match_iou: float) -> tuple[pa.Table, pa.Table]:
        """Build the shard's detections and observations, once no frame is missing."""
        ids = [frame_id(self.shard.recording_id, index) for index in self.shard.frame_indices.tolist()]
        for position, original in self._repeats:
            # What was seen is the original's; the picture was measured by itself.
            self._observations[position] = {
                **self._observations[original], **self._observations[position], "repeat_of": ids[original]
            }  # fmt: skip
        return self._detections(pa.array(ids, pa.string()), match_iou), self._observation_table(ids)

    def _observation_table(self, ids: list[str]) -> pa.Table:
        rows = self._observations
        columns: dict[str, Any] = {
            "frame_id": ids,
            "committee_id": [self.committee.committee_id] * len(ids),
            "recording_id": [self.shard.recording_id] * len(ids),
            "dense_entropy_max": _maps([row.get("dense_max") for row in rows]),
            "dense_entropy_mean": _maps([row.get("dense_mean") for row in rows]),
        }
        for name in _PLAIN_COLUMNS:
            columns[name] = [row.get(name) for row in rows]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, f.type, from_pandas=True)
            for f, column in ((f, columns[f.name]) for f in OBSERVATIONS)
        ]
        return pa.table(arrays, schema=OBSERVATIONS)

    def _with_repeats(self, frame: NDArray[np.int64], *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Give every repeat the boxes of the frame that it repeats, in their order."""
        order = np.argsort(frame, kind="stable")
        frame, columns = frame[order], tuple(column[order] for column in columns)
        first = np.searchsorted(frame, [original for _, original in self._repeats], side="left")
        last = np.searchsorted(frame, [original for _, original in self._repeats], side="right")
        rows = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
        copied = np.concatenate([np.zeros(0, np.int64), *rows])
        copies = np.repeat(np.asarray([repeat for repeat, _ in self._repeats], np.int64), last - first)
        return (
            np.concatenate([frame, copies]),
            *(np.concatenate([column, column[copied]]) for column in columns),
        )

    def _detections(self, ids: pa.Array, match_iou: float) -> pa.Table:
        classes = len(self.committee.classes)
        empty = (
            np.zeros(0, np.int64),
            np.zeros(0, np.int32),
            np.zeros((0, 4)),
            np.zeros((0, classes)),
            np.zeros((0, 4)),
        )
        parts = zip(*(self._boxes or [empty]), strict=True)
        frame, member, boxes, scores, std = (np.concatenate(part) for part in parts)
        frame, member, boxes, scores, std = self._with_repeats(frame, member, boxes, scores, std)
        order = np.lexsort((member, frame))  # stable: by frame, member, falling confidence
        frame, member, boxes, scores, std = (a[order] for a in (frame, member, boxes, scores, std))
        n = len(frame)
        best = np.argmax(np.nan_to_num(scores, nan=-1.0), axis=1) if n else np.zeros(0, np.int64)
        confidence = scores[np.arange(n), best]
        match = match_committee(frame, member, boxes, confidence, iou_threshold=match_iou)
        columns = {
            "frame_id": ids.take(pa.array(frame)),
            "committee_id": pa.repeat(pa.scalar(self.committee.committee_id), n),
            "detector": pa.array(self.committee.names, pa.string()).take(pa.array(member)),
            "box_index": pa.array(_position_in_group(frame, member), pa.int32()),
            "class": pa.array(self.committee.classes, pa.string()).take(pa.array(best)),
            "confidence": pa.array(confidence, pa.float32()),
            **{
                f"{edge}_px": pa.array(boxes[:, i], pa.float32())
                for i, edge in enumerate(("x1", "y1", "x2", "y2"))
            },
            "class_scores": _lists(scores),
            "box_std_px": _lists(std, null_rows=np.isnan(std).all(axis=1)),
            "match_id": pa.array(match, pa.int32()),
        }
        return pa.table([columns[f.name].cast(f.type) for f in DETECTIONS], schema=DETECTIONS)


def _measured(decoded: Decoded) -> dict[str, Any]:
    quality = decoded.quality
    assert quality is not None
    return {
        "luma_mean": quality.luma_mean,
        "sharpness": quality.sharpness,
        "overexposed_share": quality.overexposed_share,
        "perceptual_hash": int(quality.perceptual_hash),
        "luma_histogram": quality.luma_histogram,
    }


def _position_in_group(frame: NDArray[np.int64], member: NDArray[np.int32]) -> NDArray[np.int64]:
    """Count 0, 1, 2, ... within each run of equal (frame, member)."""
    if not len(frame):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, (np.diff(frame) != 0) | (np.diff(member) != 0)])
    return np.arange(len(frame)) - np.repeat(starts, np.diff(np.r_[starts, len(frame)]))


def _lists(values: NDArray[Any], null_rows: NDArray[np.bool_] | None = None) -> pa.Array:
    """Turn [n, k] floats into n lists of k; NaN becomes NULL, and so do whole rows of ``null_rows``."""
    n, k = values.shape
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1), pa.float32(), from_pandas=True)
    mask = None if null_rows is None or not null_rows.any() else pa.array(null_rows)
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * k, pa.int32()), flat, mask=mask)


def _maps(of_frames: list[list[tuple[str, NDArray[np.float32]]] | None]) -> pa.MapArray:
    """[F] pairs of a detector's name and its k numbers, as maps of lists; None becomes NULL, and so does NaN."""
    pairs = [pair for of_frame in of_frames for pair in of_frame or ()]
    ends = np.cumsum([0, *(len(of_frame or ()) for of_frame in of_frames)])
    missing = np.array([*(of_frame is None for of_frame in of_frames), False])
    numbers = np.stack([numbers for _, numbers in pairs]) if pairs else np.empty((0, 1), np.float32)
    return pa.MapArray.from_arrays(
        pa.array(ends, pa.int32(), mask=missing),
        pa.array([name for name, _ in pairs], pa.string()),
        _lists(numbers),
    )
