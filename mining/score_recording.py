"""Detections of one recording -> its signals and tracks: what can be said of its frames without comparing them to those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mining.calibration import Calibration
from mining.committee import Committee, member_digests
from mining.config import Config, ScoreConfig
from mining.schemas import SCORES, TRACKS
from mining.signals.calibration import ScoreCalibration
from mining.signals.disagreement import CommitteeBoxes
from mining.signals.frame import Signals, frame_signals
from mining.signals.quality import HISTOGRAM_BINS, compare_with_previous
from mining.signals.sun import NIGHT_ELEVATION_DEG, NIGHT_LUMA, sun_elevation_deg
from mining.store import Store
from mining.tracks import BoxesInTime, follow

_OBSERVED = (
    "frame_id", "recording_id", "box_count", "dense_entropy_max", "dense_entropy_mean",
    "luma_mean", "sharpness", "perceptual_hash", "luma_histogram", "status", "error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """One recording under one committee: all its shards are scored together."""

    recording_id: str
    night: date
    key: str
    shards: tuple[str, ...]
    detect_digests: tuple[str, ...]
    index_content: str
    """Digest of the recording's rows in the index."""
    boxes: int
    """Rows of ``detections``."""
    sees: dict[str, list[bool]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What labels taught, where the config names a calibration."""

    calibrations: list[ScoreCalibration] | None = None
    class_weights: NDArray[np.float64] | None = None
    digest: str | None = None

    @classmethod
    def of(cls, config: Config, committee: Committee) -> Learned:
        """Read the calibration that the config names; empty where it names none."""
        if config.score.calibration is None:
            return cls()
        file = Calibration.load(config.path(config.score.calibration))
        return cls(
            file.of_members(member_digests(config), committee.names),
            file.class_weights(committee.classes),
            file.digest,
        )


def units_of(store: Store, committee: Committee, recording_ids: Sequence[str]) -> list[Unit]:
    """What can be scored: those of the recordings on which the committee has run."""
    wanted = set(recording_ids)
    indexed = store.index_of(recording_ids)
    shards: dict[tuple[date, str], list[tuple[str, dict[str, Any]]]] = {}
    for (night, key), marker in store.markers("detect").items():
        if marker["committee_id"] == committee.committee_id and marker["recording_id"] in wanted:
            shards.setdefault((night, marker["recording_id"]), []).append((key, marker))
    return [
        Unit(
            recording_id=recording_id,
            night=night,
            key=f"{recording_id}-{committee.committee_id}",
            shards=tuple(key for key, _ in members),
            detect_digests=tuple(marker["digest"] for _, marker in members),
            index_content=indexed[recording_id]["content"],
            boxes=sum(marker["rows"]["detections"] for _, marker in members),
            sees=members[0][1]["sees"],
        )
        for (night, recording_id), members in sorted(shards.items())
    ]


@dataclass(frozen=True, slots=True)
class Scored:
    """What can be said of a recording's frames without comparing them to those of others."""

    frames: pa.Table
    """One row a frame: what ``scores`` says of it beside signals."""
    signals: Signals
    """Name -> [F]."""
    tracks: pa.Table
    """See ``track_rows``."""
    track_count: int
    looked: NDArray[np.bool_]
    """[F] the first member, whose errors are looked for, has seen the frame; without that there is no hardness."""


def score_unit(
    store: Store, committee: Committee, unit: Unit, config: ScoreConfig, learned: Learned
) -> Scored:
    """Read a recording's detections, follow its objects, and compute its signals.

    Shard by shard, for a long recording's class vectors are more than memory may hold; over all of them, what time tells.
    """
    parts = [_seen_in(store, committee, unit, key, learned) for key in unit.shards]
    frames = pa.concat_tables(part.frames for part in parts)
    signals = joined([part.signals for part in parts])
    if {part.has_edges for part in parts} == {False, None}:
        # Shards without a box could not tell that the head gives no edge distributions.
        signals |= {name: np.full(len(frames), np.nan) for name in signals if "box_std" in name}
    classes = pa.concat_arrays([part.classes for part in parts])
    boxes = BoxesInTime.joined([part.boxes for part in parts])
    box_index = np.concatenate([part.box_index for part in parts])
    del parts  # half of what is held of an hour's boxes
    repeats, cut = _compared(frames)
    index = _index_rows(store, unit, frames)
    times_s = np.asarray(index["pts_ns"].cast(pa.float64()).to_numpy(), np.float64) / 1e9
    followed = follow(boxes, times_s, repeats, cut, config.max_step_s, config.max_gap_s)
    unseen = pc.is_null(frames["luma_mean"])
    for name, flags in (("repeats_previous", repeats), ("scene_cut", cut)):
        frames = frames.append_column(name, pc.if_else(unseen, None, pa.array(flags)))
    elevation_deg = _sun_elevations_deg(index)
    night = pc.coalesce(
        pc.less(elevation_deg, NIGHT_ELEVATION_DEG), pc.less(frames["luma_mean"].combine_chunks(), NIGHT_LUMA)
    )
    frames = (
        frames.append_column("drive_id", index["drive_id"])
        .append_column("classes", pc.if_else(unseen, None, classes))
        .append_column("sun_elevation_deg", elevation_deg)
        .append_column("is_night", night)
    )
    in_track = np.flatnonzero(followed.track_id >= 0)
    tracks = {
        "frame_id": frames["frame_id"].combine_chunks().take(pa.array(boxes.frame[in_track])),
        "detector": pa.array(committee.names, pa.string()).take(pa.array(boxes.member[in_track])),
        "box_index": pa.array(box_index[in_track]),
        "track_id": pa.array(followed.track_id[in_track]),
    }
    return Scored(
        frames=frames.select([name for name in frames.column_names if name in SCORES.names]),
        signals=signals | followed.signals,
        tracks=pa.table(tracks),
        track_count=int(followed.track_id.max(initial=-1)) + 1,
        looked=boxes.ran[:, 0],
    )


def track_rows(one: Scored, unit: Unit, committee: Committee) -> pa.Table:
    """Rows of ``tracks``."""
    names = {"committee_id": committee.committee_id, "recording_id": unit.recording_id}
    columns = {name: one.tracks[name] for name in one.tracks.column_names}
    columns |= {name: _constant(text, len(one.tracks)) for name, text in names.items()}
    return pa.table([columns[f.name] for f in TRACKS], schema=TRACKS)


def _constant(text: str, rows: int) -> pa.ChunkedArray:
    """One text in so many rows, in the memory of some thousands."""
    some = pa.repeat(pa.scalar(text), min(rows, 1 << 14))
    chunks = [some.slice(0, rows - start) for start in range(0, rows, 1 << 14)]
    return pa.chunked_array(chunks, pa.string())


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one shard tells by itself."""

    frames: pa.Table
    """What was observed, one row a frame."""
    signals: Signals
    """Those of ``frame_signals``."""
    boxes: BoxesInTime
    box_index: NDArray[np.int32]
    """[n] what names each box, with its frame and member."""
    classes: pa.Array
    """[F] see ``_classes_seen``."""
    has_edges: bool | None
    """Whether the first member's boxes have edge distributions; None where it has no box."""


def _seen_in(store: Store, committee: Committee, unit: Unit, key: str, learned: Learned) -> _Seen:
    """Read one shard's detections, and compute what each frame tells."""
    frames = store.read("observations", unit.night, key, _OBSERVED)
    detections = store.read("detections", unit.night, key)
    boxes = committee_boxes(frames, detections, committee, unit.sees)
    dense_max, dense_mean = (
        _dense(frames, column, committee.names[0], len(committee.classes))
        for column in ("dense_entropy_max", "dense_entropy_mean")
    )
    std = np.zeros(0) if boxes.box_std_px is None else boxes.box_std_px[boxes.member == 0]
    return _Seen(
        frames=frames,
        signals=frame_signals(boxes, dense_max, dense_mean, learned.calibrations, learned.class_weights),
        boxes=BoxesInTime.of(boxes),
        box_index=detections["box_index"].to_numpy().astype(np.int32),
        classes=_classes_seen(boxes, detections["class"], committee.classes),
        has_edges=not np.isnan(std).all() if len(std) else None,
    )


def _index_rows(store: Store, unit: Unit, frames: pa.Table) -> pa.Table:
    """What the index says of each frame, in the order of ``frames``; NULL where it has the frame no longer."""
    columns = ["frame_id", "drive_id", "pts_ns", "captured_at", "latitude_deg", "longitude_deg"]
    index = store.read("frames", unit.night, unit.recording_id, columns)
    return index.take(pc.index_in(frames["frame_id"], value_set=index["frame_id"].combine_chunks()))


def _sun_elevations_deg(index: pa.Table) -> pa.Array:
    """[F] float32; NULL where the index knows no time or no position."""
    at_s = np.asarray(index["captured_at"].cast(pa.int64()).to_numpy(), np.float64) / 1e6
    elevation = sun_elevation_deg(at_s, index["latitude_deg"].to_numpy(), index["longitude_deg"].to_numpy())
    return pa.array(elevation, pa.float32(), from_pandas=True)


def _classes_seen(boxes: CommitteeBoxes, classes: pa.ChunkedArray, fleet: Sequence[str]) -> pa.Array:
    """[F] the classes that a frame's boxes at or above their detector's threshold have, as one text.

    Text and not a list: few texts are different, so Parquet and DuckDB handle each once. A list takes ten times as long.
    """
    names = sorted(fleet)
    kept = boxes.scores >= boxes.thresholds[boxes.member]
    seen = np.zeros((len(boxes.ran), len(names)), bool)
    seen[boxes.frame[kept], pc.index_in(classes, value_set=pa.array(names)).to_numpy()[kept]] = True
    different, which = np.unique(seen, axis=0, return_inverse=True)
    texts = [",".join(name for name, there in zip(names, row, strict=True) if there) for row in different]
    return pa.array(texts, pa.string()).take(pa.array(which.reshape(-1)))


def _compared(frames: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which frames repeat the one before, and which begin another scene; False where a frame did not decode."""
    return compare_with_previous(
        pc.fill_null(frames["perceptual_hash"], 0).to_numpy(),
        frames["luma_mean"].to_numpy(),
        frames["sharpness"].to_numpy(),
        _rows_of(frames["luma_histogram"].combine_chunks(), HISTOGRAM_BINS),
    )


def committee_boxes(
    frames: pa.Table, detections: pa.Table, committee: Committee, sees: dict[str, list[bool]]
) -> CommitteeBoxes:
    """Turn rows of ``observations`` and ``detections`` into the arrays that signals are computed from."""
    frame = pc.index_in(detections["frame_id"], value_set=frames["frame_id"].combine_chunks())
    member = pc.index_in(detections["detector"], value_set=pa.array(committee.names, pa.string()))
    flat = detections["class_scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    ran = np.tile(np.asarray(pc.equal(frames["status"], "ok"))[:, None], len(committee.names))
    for i in np.flatnonzero(np.asarray(pc.equal(frames["status"], "partial"))):
        looked = {name for name, _ in frames["box_count"][int(i)].as_py() or ()}
        ran[i] = [name in looked for name in committee.names]
    return CommitteeBoxes(
        frame=frame.to_numpy(),
        member=member.to_numpy(),
        match_id=detections["match_id"].to_numpy(),
        boxes_px=np.column_stack([detections[f"{edge}_px"].to_numpy() for edge in ("x1", "y1", "x2", "y2")]),
        scores=detections["confidence"].to_numpy(),
        class_scores=flat.reshape(-1, len(committee.classes)),
        thresholds=np.array(committee.thresholds),
        seen=np.array([sees[name] for name in committee.names]),
        ran=ran,
        box_std_px=_rows_of(detections["box_std_px"].combine_chunks(), 4),
    )


def _rows_of(lists: pa.ListArray, width: int) -> NDArray[np.float64]:
    """Turn n lists of ``width`` numbers into [n, width]; NULL, in a list or for one, becomes NaN."""
    rows = np.full((len(lists), width), np.nan)
    rows[np.asarray(pc.is_valid(lists))] = (
        lists.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    )
    return rows


def _dense(frames: pa.Table, column: str, detector: str, classes: int) -> NDArray[np.float64]:
    """One detector's [F, c] of ``dense_entropy_max`` or ``dense_entropy_mean``; NaN where unseen or not run."""
    values = pc.map_lookup(frames[column], pa.scalar(detector), "first").combine_chunks()
    return _rows_of(values, classes)


def joined(found: Sequence[Signals]) -> Signals:
    """Put the signals of several recordings, or shards, behind each other."""
    return {name: np.concatenate([signals[name] for signals in found]) for name in found[0]}
