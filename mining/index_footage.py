"""Footage -> recordings, frames: packets only, nothing is decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from mining.buckets import is_uri
from mining.config import Config
from mining.decode import Decoder
from mining.footage import (
    NO_FRAMES,
    Defaults,
    FootageError,
    Source,
    companions,
    described,
    discover,
    id_of_unreadable,
    load_telemetry,
    out_of_reach,
    probe,
    sampled_indices,
    stat_signature,
)
from mining.isolated import Crashed
from mining.progress import progress
from mining.schemas import FRAMES, RECORDINGS
from mining.store import Store, digest
from mining.threads import in_order
from mining.types import FrameTimes, Recording, StageReport, UsageError, frame_id

INDEX_VERSION = 1
"""Raise when the rows of this stage change for the same input."""

_Act = Callable[[], None]
_LOOK_EVERY_S = 0.5
_TELEMETRY_COLUMNS = ("speed_mps", "latitude_deg", "longitude_deg", "heading_deg")


def run(store: Store, config: Config) -> tuple[StageReport, list[str]]:
    """Index what the config's paths hold. Returns the ids of all recordings found, old and new.

    A file whose size and time are those of the last run is not opened. A recording that moved keeps its id, and with
    it all that was mined from it; so does one whose file is gone.
    """
    report = StageReport("index")
    sources, problems = discover(config.footage_paths)
    report.problems += [f"{problem.path}: {problem.reason}" for problem in problems]
    if not sources:
        raise UsageError(
            report.problems[0] if report.problems else f"no footage under {', '.join(config.footage_paths)}"
        )
    known = _known(store)
    by_signature = {marker["signature"]: marker["recording_id"] for _, marker in known.values()}
    defaults = Defaults(image_rate_hz=config.footage.image_rate_hz)
    found: dict[str, str] = {}
    with Decoder(config) as decoder, progress("index", len(sources), "recordings") as shown:
        todo = sources
        while todo:
            others = []
            taken: list[str] = []
            try:
                # The next recording is opened while the disk is waited for. All is committed, or known to have failed, before
                # other jobs are waited for: they may be waiting for our leases.
                with in_order(_do, depth=4) as later:
                    for source in todo:
                        signature = _signature(source, config)
                        lease = f"index-{signature}"
                        if signature in by_signature:
                            recording_id = by_signature[signature]
                            report.unchanged += 1
                        elif store.leases.take(lease):
                            taken.append(lease)
                            recording_id, settle = _open(
                                store, config, source, signature, decoder, defaults, known, found, report
                            )
                            later(settle)
                            later(partial(store.leases.drop, lease))
                        else:
                            others.append(source)
                            continue
                        if recording_id in found:
                            same = f"{source.path}: the same content as {found[recording_id]}; mined once"
                            later(partial(report.problems.append, same))
                        found.setdefault(recording_id, source.path)
                        later(shown.advance)
            finally:
                for lease in taken:  # of what was let go where something failed
                    store.leases.drop(lease)
            todo = others
            if todo:  # another job is at them: look again at what is committed
                time.sleep(_LOOK_EVERY_S)
                known = _known(store)
                by_signature = {marker["signature"]: marker["recording_id"] for _, marker in known.values()}
    return report, sorted(found)


def _do(act: _Act) -> None:
    act()


def _open(
    store: Store,
    config: Config,
    source: Source,
    signature: str,
    decoder: Decoder,
    defaults: Defaults,
    known: dict[str, tuple[date, dict[str, Any]]],
    found: dict[str, str],
    report: StageReport,
) -> tuple[str, _Act]:
    """Open a file. Returns its recording_id, and what commits its rows: nothing where another file had the same content."""
    nameless = id_of_unreadable(source)
    commit: _Act = _nothing
    try:
        with decoder.at_hand(source) as here:
            recording, times = probe(here, defaults, decoder.facts)
            if recording.recording_id == id_of_unreadable(here):
                recording = replace(recording, recording_id=nameless)
            recording = replace(recording, uri=source.path)
            if recording.status == "unreadable" and recording.recording_id in found:
                # Broken files of equal content (all empty files, say) are each a failure of their own.
                recording = replace(recording, recording_id=digest(source.path)[:20])
            if _is_committed(store, recording, signature):
                report.unchanged += 1
            elif recording.recording_id not in found:
                before = known.get(recording.recording_id)
                if before is not None and recording.started_at_source == "file_time":
                    # A copy has a new file time; the footage is no younger for it.
                    recording = replace(
                        recording,
                        started_at=datetime.fromisoformat(before[1]["started_at"]),
                        started_at_source=before[1]["started_at_source"],
                    )
                indices = sampled_indices(times, config.footage.effective_sample_hz, config.footage.every)
                telemetry, trouble = _telemetry(decoder, here, recording, times, indices)
                if trouble:
                    recording = _partial(recording, trouble)
                moved_from = before[0] if before is not None and before[0] != recording.night else None
                commit = partial(
                    _commit,
                    store,
                    source,
                    recording,
                    times,
                    indices,
                    telemetry,
                    signature,
                    moved_from,
                    report,
                )
    except FootageError as error:  # of `at_hand`: it cannot be fetched, or it is gone
        recording = out_of_reach(source, defaults, str(error))
        # Its signature is nobody's: the next run tries again.
        commit = partial(
            _commit, store, source, recording, NO_FRAMES, np.empty(0, np.int64), {}, f"out of reach {signature}",
            None, report,
        )  # fmt: skip
    if nameless not in known or recording.recording_id == nameless:
        return recording.recording_id, commit

    def commit_and_rename() -> None:
        commit()
        store.retract(
            "index", known[nameless][0], nameless
        )  # it could not be read then, and now it has a name

    return recording.recording_id, commit_and_rename


def _nothing() -> None:
    """Commit nothing."""


def _is_committed(store: Store, recording: Recording, signature: str) -> bool:
    """Whether another job committed it between our look at the store and our lease.

    Once more would do harm: while a commit is written anew, other jobs do not see the recording.
    """
    marker = store.marker_of("index", recording.night, recording.recording_id)
    return marker is not None and marker["signature"] == signature


def indexed(store: Store, config: Config) -> list[str]:
    """Ids of the recordings under the config's paths that are indexed as they are now."""
    sources, _ = discover(config.footage_paths)
    signatures = {_signature(source, config) for source in sources}
    ids = {
        recording_id
        for recording_id, (_, marker) in _known(store).items()
        if marker["signature"] in signatures
    }
    if not ids:
        raise UsageError("none of the config's footage is indexed as it is now; run `mining index` first")
    return sorted(ids)


def _known(store: Store) -> dict[str, tuple[date, dict[str, Any]]]:
    """Recording id -> night and marker of its commit."""
    return {marker["recording_id"]: (night, marker) for (night, _), marker in store.markers("index").items()}


def _signature(source: Source, config: Config) -> str:
    """Digest of what can be told without opening the footage: sizes and times, sampling, companions' content.

    Of a recording in a bucket, what its listing tells: the service knows each content by its e_tag.
    """
    if is_uri(source.path):
        told: tuple[Any, ...] = tuple(described(source).signature)
    else:
        told = (
            stat_signature(source),
            {kind: _content_digest(path) for kind, path in companions(source).items()},
        )
    return digest(
        source.path,
        *told,
        config.footage.model_dump(exclude={"paths", "cache_gb"}),
        INDEX_VERSION,
    )


def _content_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _commit(
    store: Store,
    source: Source,
    recording: Recording,
    times: FrameTimes,
    indices: NDArray[np.int64],
    telemetry: dict[str, NDArray[np.float64]],
    signature: str,
    moved_from: date | None,
    report: StageReport,
) -> None:
    """Commit the rows of a recording; its start may have been corrected, so that it belongs to another night."""
    if moved_from is not None:
        store.retract("index", moved_from, recording.recording_id)
        _retract_mined(store, recording.recording_id, moved_from)
    frames, row = _frame_rows(recording, times, indices, telemetry), _recording_row(recording)
    store.commit(
        "index", recording.night, recording.recording_id, {"frames": frames, "recordings": row},
        digest=signature, signature=signature, recording_id=recording.recording_id,
        started_at=recording.started_at.isoformat(), started_at_source=recording.started_at_source,
        content=_rows_digest(frames, row),
    )  # fmt: skip
    report.done += 1
    report.add(recordings=1, frames=len(indices), **{recording.status: 1} if recording.status != "ok" else {})
    if recording.error:
        report.problems.append(f"{source.path}: {recording.status}: {recording.error}")


def _rows_digest(frames: pa.Table, recording: pa.Table) -> str:
    """Digest of what later stages take from these rows; where the file lies and its times are not part of it."""
    sink = pa.BufferOutputStream()
    for table in (frames, recording.drop_columns(["uri", "size_bytes", "modified_ns"])):
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]


def _retract_mined(store: Store, recording_id: str, night: date) -> None:
    """Take back what was mined under the wrong night; it is mined again under the right one."""
    for stage in ("detect", "score"):
        for (where, key), marker in store.markers(stage).items():
            if where == night and marker["recording_id"] == recording_id:
                store.retract(stage, where, key)


def _partial(recording: Recording, reason: str) -> Recording:
    if recording.status == "unreadable":
        return recording
    return replace(recording, status="partial", error="; ".join(filter(None, [recording.error, reason])))


def _telemetry(
    decoder: Decoder, source: Source, recording: Recording, times: FrameTimes, indices: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], str | None]:
    """Telemetry at the sampled frames; a file that cannot be used is named, and its columns stay NULL."""
    path = companions(source).get("telemetry")
    if path is None or not len(indices):
        return {}, None
    try:
        telemetry = decoder.call(load_telemetry, path, recording.started_at)
    except FootageError as error:
        return {}, str(error)
    except Crashed as error:
        return {}, f"telemetry {os.path.basename(path)}: its reader {error}"
    return telemetry.at((times.pts_ns[indices] - times.pts_ns[0]) / 1e9), None


def _recording_row(recording: Recording) -> pa.Table:
    row = {name: getattr(recording, name) for name in RECORDINGS.names}
    return pa.Table.from_pylist([{**row, "tags": sorted(recording.tags.items())}], RECORDINGS)


def _frame_rows(
    recording: Recording,
    times: FrameTimes,
    indices: Sequence[int] | NDArray[np.int64],
    telemetry: dict[str, NDArray[np.float64]],
) -> pa.Table:
    n = len(indices)
    pts = times.pts_ns[indices]
    since_first_us = (pts - times.pts_ns[0]) // 1000 if n else pts
    start_us = int(recording.started_at.timestamp() * 1e6)
    extra = {name: values for name, values in telemetry.items() if name not in _TELEMETRY_COLUMNS}
    columns: dict[str, Any] = {
        "frame_id": [frame_id(recording.recording_id, int(i)) for i in indices],
        "recording_id": [recording.recording_id] * n,
        "drive_id": [recording.drive_id] * n,
        "vehicle_id": [recording.vehicle_id] * n,
        "camera": [recording.camera] * n,
        "frame_index": np.asarray(indices, np.int64),
        "pts_ns": pts,
        "captured_at": pa.array(start_us + since_first_us, pa.int64()).cast(FRAMES.field("captured_at").type),
        **{name: telemetry.get(name, np.full(n, np.nan)) for name in _TELEMETRY_COLUMNS},
        "telemetry": [
            [(name, float(values[i])) for name, values in extra.items() if np.isfinite(values[i])]
            for i in range(n)
        ],
    }
    return pa.table([pa.array(columns[f.name], f.type, from_pandas=True) for f in FRAMES], schema=FRAMES)
