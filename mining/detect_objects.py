"""Footage -> detections, observations: one decode, every member of the committee, one pass."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.boxes import match_committee
from mining.committee import Committee, committee_of, load_members
from mining.config import Config
from mining.footage import Defaults, FootageError, Source, frame_times, read
from mining.progress import LOG, progress
from mining.schemas import DETECTIONS, OBSERVATIONS
from mining.signals.quality import measure_quality
from mining.store import Store, digest
from mining.types import Frame, FrameTimes, StageReport, frame_id

if TYPE_CHECKING:
    from detectors.types import Detector, Predictions

DETECT_VERSION = 2
"""Raise when the rows of this stage change for the same input."""

_PLAIN_COLUMNS = (
    "luma_mean", "sharpness", "overexposed_share", "perceptual_hash", "luma_histogram", "embedding", "box_count", "status", "error",
)  # fmt: skip

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shard:
    """A few minutes of one recording: the unit of work, retry and resume."""

    recording_id: str
    source: Source
    night: date
    key: str
    digest: str
    frame_indices: NDArray[np.int64]
    size_px: tuple[int, int]


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> StageReport:
    """Detect on every shard of these recordings that is not committed yet for the config's committee."""
    report = StageReport("detect")
    committee = committee_of(config)
    shards = plan(store, config, committee, recording_ids)
    due = _due(store, shards, committee, recording_ids)
    report.unchanged = len(shards) - len(due)
    if not due:
        return report
    members = load_members(config)  # imports torch: only when there is something to look at
    total = sum(len(shard.frame_indices) for shard in due)
    with progress("detect", total, "frames") as shown:
        batches = prefetch(_decode(due, config), depth=3)
        for shard, group in itertools.groupby(batches, key=lambda item: item[0]):
            rows = _Rows(committee, shard)
            for _, frames in group:
                rows.add(frames, _look(members, frames, report))
                shown.advance(len(frames))
            detections, observations = rows.tables(config.detect.match_iou)
            store.commit(
                "detect", shard.night, shard.key, {"detections": detections, "observations": observations},
                digest=shard.digest, recording_id=shard.recording_id, committee_id=committee.committee_id,
                sees={member.name: member.seen.tolist() for member in members},
                failed_to_run=rows.failed_to_run,
            )  # fmt: skip
            report.done += 1
            report.add(frames=observations.num_rows, boxes=detections.num_rows, failed_frames=rows.failed)
            report.problems += [f"{shard.source.path}: {reason}" for reason in rows.problems()]
    return report


def plan(store: Store, config: Config, committee: Committee, recording_ids: Sequence[str]) -> list[Shard]:
    """Cut the sampled frames of the recordings into shards of ``shard_minutes``."""
    with store.connect() as con:
        con.execute(
            "CREATE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS recording_id", [list(recording_ids)]
        )
        recordings = con.execute(
            "SELECT recording_id, night, uri, kind, width_px, height_px FROM recordings SEMI JOIN wanted "
            "USING (recording_id) ORDER BY night, drive_id, camera, started_at, recording_id"
        ).fetchall()
        frames = con.execute(
            "SELECT recording_id, frame_index, pts_ns FROM frames SEMI JOIN wanted USING (recording_id) "
            "ORDER BY recording_id, frame_index"
        ).fetchnumpy()
    ids = np.asarray(frames["recording_id"], dtype=np.str_)
    shards = []
    for recording_id, night, uri, kind, width, height in recordings:
        first, last = np.searchsorted(ids, [recording_id, recording_id + "\x7f"])
        if first == last:
            continue
        indices = np.asarray(frames["frame_index"][first:last], np.int64)
        pts = np.asarray(frames["pts_ns"][first:last], np.int64)
        number = (pts - pts[0]) // int(config.detect.shard_minutes * 60e9)
        for n in np.unique(number):
            part = indices[number == n]
            shards.append(
                Shard(
                    recording_id=recording_id,
                    source=Source(uri, kind),
                    night=night,
                    key=f"{recording_id}-{committee.committee_id}-{n:04d}",
                    digest=digest(recording_id, committee.committee_id, part.tolist(), DETECT_VERSION),
                    frame_indices=part,
                    size_px=(width, height),
                )
            )
    return shards


def _due(
    store: Store, shards: list[Shard], committee: Committee, recording_ids: Sequence[str]
) -> list[Shard]:
    """Leave out what is committed, and retract commits of these recordings that the plan no longer holds."""
    planned = {(shard.night, shard.key) for shard in shards}
    mine = set(recording_ids)
    committed: dict[tuple[date, str], str] = {}
    for where, marker in store.markers("detect").items():
        if marker["recording_id"] not in mine or marker["committee_id"] != committee.committee_id:
            continue
        if where in planned:
            # What a detector or an unreachable file lost is tried again; damage within the footage is final.
            committed[where] = "" if marker["failed_to_run"] else marker["digest"]
        else:
            store.retract("detect", *where)
    return [shard for shard in shards if committed.get((shard.night, shard.key)) != shard.digest]


def _decode(shards: Iterable[Shard], config: Config) -> Iterator[tuple[Shard, list[Frame]]]:
    """Decode the shards' frames in batches whose good frames have one size; failed frames travel along."""
    defaults, batch_size = Defaults(image_rate_hz=config.footage.image_rate_hz), config.detect.batch_size
    times: FrameTimes | FootageError = FootageError("not opened yet")
    known: str | None = None
    for shard in shards:
        if known != shard.source.path:
            known = shard.source.path
            try:
                times = frame_times(shard.source, defaults)
            except FootageError as error:
                times = error
        batch: list[Frame] = []
        shape: tuple[int, ...] | None = None
        for frame in _read(shard, times):
            frame_shape = None if frame.rgb is None else frame.rgb.shape
            if len(batch) == batch_size or (shape and frame_shape and frame_shape != shape):
                yield shard, batch
                batch, shape = [], None
            batch.append(frame)
            shape = shape or frame_shape
        yield shard, batch


def _read(shard: Shard, times: FrameTimes | FootageError) -> Iterator[Frame]:
    """Read a shard's frames; where the recording cannot be opened any more, each frame says so."""
    wanted = shard.frame_indices.tolist()
    done = 0
    try:
        if isinstance(times, FootageError):
            raise times
        if wanted[-1] >= len(times):
            raise FootageError(f"holds {len(times)} frames now, fewer than when it was indexed")
        for frame in read(shard.source, times, wanted, shard.size_px):
            done += 1
            yield frame
    except FootageError as error:
        for index in wanted[done:]:
            yield Frame(index, 0, None, str(error), opened=False)


def prefetch(items: Iterable[_T], depth: int) -> Iterator[_T]:
    """Run an iterator in its own thread, at most ``depth`` items ahead; its exception is raised here."""
    end = object()
    ahead: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        while (item := ahead.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _look(members: Sequence[Detector], frames: list[Frame], report: StageReport) -> list[Predictions | str]:
    """Show the good frames to every member; a member that fails gives its reason in place of predictions."""
    from detectors.preprocess import Batch

    images = [frame.rgb for frame in frames if frame.rgb is not None]
    if not images:
        return ["no frame decoded"] * len(members)
    batch = Batch(images)
    seen: list[Predictions | str] = []
    for member in members:
        try:
            seen.append(member.predict(batch))
        except Exception as error:
            # One member's failure must not cost the others' boxes, nor the night.
            reason = (
                f"{member.name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
            LOG.warning("%s", reason)
            report.add(failed_batches=1)
            seen.append(reason)
    return seen


@dataclass(slots=True)
class _Rows:
    """Collects one shard's rows as flat arrays."""

    committee: Committee
    shard: Shard
    failed: int = 0
    failed_to_run: int = 0
    """Frames lost to a failing detector or to a recording that could not be opened."""
    reasons: list[str] = field(default_factory=list)
    _frames: list[Frame] = field(default_factory=list)
    _observations: list[dict[str, Any]] = field(default_factory=list)
    _boxes: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def add(self, frames: list[Frame], seen: list[Predictions | str]) -> None:
        """Take in one batch."""
        good = [i for i, frame in enumerate(frames) if frame.rgb is not None]
        base = len(self._frames)
        self._frames += frames
        self.failed_to_run += sum(not frame.opened for frame in frames)
        errors: list[list[str]] = [[f.error or "did not decode"] if f.rgb is None else [] for f in frames]
        observations: list[dict[str, Any]] = [
            {} if f.rgb is None else {**_quality(f.rgb), "box_count": [], "dense_max": [], "dense_mean": []}
            for f in frames
        ]
        for member, predictions in enumerate(seen):
            name = self.committee.names[member]
            if isinstance(predictions, str):
                self.failed_to_run += len(good)
                for i in good:
                    errors[i].append(predictions)
                continue
            position = np.asarray(good, np.int64)
            counts = np.bincount(predictions.frame_index, minlength=len(good))
            for slot, i in enumerate(good):
                if slot in predictions.errors:
                    errors[i].append(f"{name}: {predictions.errors[slot]}")
                    continue
                row = observations[i]
                row["box_count"].append((name, int(counts[slot])))
                row["dense_max"].append((name, predictions.dense_entropy_max[slot]))
                row["dense_mean"].append((name, predictions.dense_entropy_mean[slot]))
                if member == 0:
                    row["embedding"] = predictions.embeddings[slot]
            n = len(predictions.frame_index)
            std = predictions.box_std_px
            self._boxes.append(
                (
                    base + position[predictions.frame_index],
                    np.full(n, member, np.int32),
                    predictions.boxes_px,
                    predictions.class_scores,
                    np.full((n, 4), np.nan, np.float32) if std is None else std,
                )
            )
        for i, row in enumerate(observations):
            reasons = errors[i]
            all_failed = frames[i].rgb is None or not row["box_count"]
            row["status"] = "ok" if not reasons else "failed" if all_failed else "partial"
            row["error"] = "; ".join(reasons) or None
            if reasons:
                self.failed += 1
                self.reasons.append(str(row["error"]))
        self._observations += observations

    def problems(self) -> list[str]:
        """One line for each different reason, with how many frames it cost."""
        counts = Counter(self.reasons)
        return [f"{count} frames failed: {reason}" for reason, count in counts.items()]

    def tables(self, match_iou: float) -> tuple[pa.Table, pa.Table]:
        """Build the shard's detections and observations."""
        ids = [frame_id(self.shard.recording_id, frame.frame_index) for frame in self._frames]
        return self._detections(pa.array(ids, pa.string()), match_iou), self._observation_table(ids)

    def _observation_table(self, ids: list[str]) -> pa.Table:
        rows = self._observations
        columns = {
            "frame_id": ids,
            "committee_id": [self.committee.committee_id] * len(ids),
            "recording_id": [self.shard.recording_id] * len(ids),
            "dense_entropy_max": [_nullable(row.get("dense_max")) for row in rows],
            "dense_entropy_mean": [_nullable(row.get("dense_mean")) for row in rows],
        }
        for name in _PLAIN_COLUMNS:
            columns[name] = [row.get(name) for row in rows]
        return pa.table(
            [pa.array(columns[f.name], f.type, from_pandas=True) for f in OBSERVATIONS], schema=OBSERVATIONS
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


def _quality(rgb: NDArray[np.uint8]) -> dict[str, Any]:
    quality = measure_quality(rgb)
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


def _nullable(
    pairs: list[tuple[str, NDArray[np.float32]]] | None,
) -> list[tuple[str, list[float | None]]] | None:
    if pairs is None:
        return None
    return [(name, [None if np.isnan(v) else float(v) for v in values]) for name, values in pairs]
