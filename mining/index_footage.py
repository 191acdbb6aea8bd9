"""Footage -> recordings, frames: packets only, nothing is decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from mining.buckets import is_uri
from mining.config import Config
from mining.decode import Decoder, Decoders
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
from mining.progress import Progress, progress
from mining.schemas import FRAMES, RECORDINGS
from mining.store import Store, digest
from mining.threads import in_order, run_ahead
from mining.types import FrameTimes, Recording, StageReport, UsageError, frame_id

INDEX_VERSION = 1
"""Raise when the rows of this stage change for the same input."""

_LOOK_EVERY_S = 0.5
_TELEMETRY_COLUMNS = ("speed_mps", "latitude_deg", "longitude_deg", "heading_deg")


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a thread found out about one recording."""

    source: Source
    signature: str
    recording: Recording
    times: FrameTimes
    telemetry: dict[str, NDArray[np.float64]]
    """Of the frames to look at."""
    nameless: str
    """Its id while it could not be read."""
    reached: bool = True
    """False where it could not be fetched, or is gone."""


def run(store: Store, config: Config) -> tuple[StageReport, list[str]]:
    """Index what the config's paths hold. Returns the ids of all recordings found, old and new.

    A file whose size and time are those of the last run is not opened. A recording that moved keeps its id, and with
    it all that was mined from it; so does one whose file is gone.

    Recordings are opened side by side, ahead of this thread, which takes them in order; another one commits them.
    """
    report = StageReport("index")
    sources, problems = discover(config.footage_paths)
    report.problems += [f"{problem.path}: {problem.reason}" for problem in problems]
    if not sources:
        raise UsageError(
            report.problems[0] if report.problems else f"no footage under {', '.join(config.footage_paths)}"
        )
    found: dict[str, str] = {}
    with (
        Decoders(config, config.detect.decode_workers) as decoders,
        progress("index", len(sources), "recordings") as shown,
    ):
        while sources := _index(store, config, sources, decoders, found, report, shown):
            time.sleep(_LOOK_EVERY_S)  # another job is at these: look again at what is committed
    return report, sorted(found)


def _index(
    store: Store,
    config: Config,
    sources: Sequence[Source],
    decoders: Decoders,
    found: dict[str, str],
    report: StageReport,
    shown: Progress,
) -> list[Source]:
    """Index what is not indexed as it is now; returns what another job is at."""
    known, others, taken = _known(store), list[Source](), list[str]()
    by_signature = {marker["signature"]: marker["recording_id"] for _, marker in known.values()}
    turns: deque[tuple[Source, str | None]] = deque()

    def due() -> Iterator[tuple[Source, str]]:
        """Yield what is to be opened, with its signature; that and what is known goes to ``turns``."""
        for source in sources:
            signature = _signature(source, config)
            if signature not in by_signature:
                if not store.leases.take(_lease(signature)):
                    others.append(source)
                    continue
                taken.append(_lease(signature))
                turns.append((source, None))
                yield source, signature
            else:
                turns.append((source, by_signature[signature]))

    def look(due: tuple[Source, str]) -> Iterator[str | _Opened]:
        with decoders.lend() as decoder:
            opened = _open(decoder, *due, config, known)
        if _is_committed(store, opened):
            store.leases.drop(_lease(opened.signature))
            yield opened.recording.recording_id
        else:
            yield opened

    def in_turn(looked: Iterator[str | _Opened]) -> Iterator[tuple[Source, str | _Opened]]:
        """Yield every source with the id that it is known by, or with what it holds."""
        for opened in looked:
            source, recording_id = turns.popleft()
            while recording_id is not None:
                yield source, recording_id
                source, recording_id = turns.popleft()
            yield source, opened
        for source, recording_id in turns:
            assert recording_id is not None  # nothing is left to be opened
            yield source, recording_id

    with (
        _given_back(store, taken),
        run_ahead(due(), look, config.detect.decode_workers, 1, decoders.cancel) as looked,
        in_order(partial(_commit, store, config, known), depth=2) as hand_over,
    ):
        for source, seen in in_turn(looked):
            if isinstance(seen, str):
                recording_id = seen
                report.unchanged += 1
            else:
                opened = _told_apart(seen, found, known)
                recording_id = opened.recording.recording_id
                if opened.nameless in known and recording_id != opened.nameless:
                    # It could not be read then, and now it has a name.
                    store.retract("index", known[opened.nameless][0], opened.nameless)
                if recording_id not in found or not opened.reached:
                    hand_over(opened)
                    _count(report, opened, config)
                else:
                    store.leases.drop(_lease(opened.signature))
            if recording_id in found:
                report.problems.append(
                    f"{source.path}: the same content as {found[recording_id]}; mined once"
                )
            found.setdefault(recording_id, source.path)
            shown.advance()
    return others


@contextmanager
def _given_back(store: Store, leases: Sequence[str]) -> Iterator[None]:
    """Give back, after the block, what it has not given back itself."""
    try:
        yield
    finally:
        for lease in leases:
            store.leases.drop(lease)


def _lease(signature: str) -> str:
    return f"index-{signature}"


def _open(
    decoder: Decoder,
    source: Source,
    signature: str,
    config: Config,
    known: dict[str, tuple[date, dict[str, Any]]],
) -> _Opened:
    """List a recording's frames, and read what lies beside it."""
    defaults = Defaults(image_rate_hz=config.footage.image_rate_hz)
    nameless = id_of_unreadable(source)
    try:
        with decoder.at_hand(source) as here:
            recording, times = probe(here, defaults, decoder.facts)
            if recording.recording_id == id_of_unreadable(here):
                recording = replace(recording, recording_id=nameless)
            recording = _as_known(replace(recording, uri=source.path), known)
            telemetry, trouble = _telemetry(decoder, here, recording, times, _indices(times, config))
    except FootageError as error:  # of `at_hand`: it cannot be fetched, or it is gone
        recording = out_of_reach(source, defaults, str(error))
        return _Opened(source, signature, recording, NO_FRAMES, {}, nameless, reached=False)
    if trouble:
        recording = _partial(recording, trouble)
    return _Opened(source, signature, recording, times, telemetry, nameless)


def _indices(times: FrameTimes, config: Config) -> NDArray[np.int64]:
    """Which frames are to be looked at."""
    return sampled_indices(times, config.footage.effective_sample_hz, config.footage.every)


def _is_committed(store: Store, opened: _Opened) -> bool:
    """Whether another job committed it between our look at the store and our lease.

    Once more would do harm: while a commit is written anew, others do not see the recording.
    """
    marker = store.marker_of("index", opened.recording.night, opened.recording.recording_id)
    return marker is not None and marker["signature"] == opened.signature


def _as_known(recording: Recording, known: dict[str, tuple[date, dict[str, Any]]]) -> Recording:
    """Keep the start of a recording that was indexed before: a copy has a new file time, but is no younger for it."""
    if recording.recording_id not in known or recording.started_at_source != "file_time":
        return recording
    _, marker = known[recording.recording_id]
    return replace(
        recording,
        started_at=datetime.fromisoformat(marker["started_at"]),
        started_at_source=marker["started_at_source"],
    )


def _told_apart(
    opened: _Opened, found: dict[str, str], known: dict[str, tuple[date, dict[str, Any]]]
) -> _Opened:
    """Give broken files of equal content (all empty files, say) an id each: each is a failure of its own."""
    recording = opened.recording
    if not opened.reached or recording.status != "unreadable" or recording.recording_id not in found:
        return opened
    own = replace(recording, recording_id=digest(opened.source.path)[:20])
    return replace(opened, recording=_as_known(own, known))


def _count(report: StageReport, opened: _Opened, config: Config) -> None:
    recording = opened.recording
    report.done += 1
    report.add(
        recordings=1,
        frames=len(_indices(opened.times, config)),
        **{recording.status: 1} if recording.status != "ok" else {},
    )
    if recording.error:
        report.problems.append(f"{opened.source.path}: {recording.status}: {recording.error}")


def _commit(
    store: Store, config: Config, known: dict[str, tuple[date, dict[str, Any]]], opened: _Opened
) -> None:
    """Commit a recording's rows, and take back what they replace."""
    recording = opened.recording
    before = known.get(recording.recording_id)
    try:
        if opened.reached and before is not None and before[0] != recording.night:
            # Its start was corrected: it belongs to another night.
            store.retract("index", before[0], recording.recording_id)
            _retract_mined(store, recording.recording_id, before[0])
        frames = _frame_rows(recording, opened.times, _indices(opened.times, config), opened.telemetry)
        row = _recording_row(recording)
        # What was out of reach has a signature that nobody asks for: the next run tries again.
        signature = opened.signature if opened.reached else f"out of reach {opened.signature}"
        store.commit(
            "index", recording.night, recording.recording_id, {"frames": frames, "recordings": row},
            digest=signature, signature=signature, recording_id=recording.recording_id,
            started_at=recording.started_at.isoformat(), started_at_source=recording.started_at_source,
            content=_rows_digest(frames, row),
        )  # fmt: skip
    finally:
        store.leases.drop(_lease(opened.signature))


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
