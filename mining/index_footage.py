"""Footage -> recordings, frames: packets only, nothing is decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from types import TracebackType
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
from mining.progress import progress
from mining.schemas import FRAMES, RECORDINGS
from mining.store import Store, digest
from mining.threads import at_once
from mining.types import FrameTimes, Recording, StageReport, UsageError, frame_id

INDEX_VERSION = 1
"""Raise when the rows of this stage change for the same input."""

_Act = Callable[[], None]
_Known = tuple[date, dict[str, Any]]
_LOOK_EVERY_S = 0.5
_COMMITS = 4
"""At a time: a commit mostly waits for the disk, or for a bucket."""
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
    found: dict[str, str] = {}
    with _Openers(config) as openers, progress("index", len(sources), "recordings") as shown:
        todo = sources
        while todo:
            turn = _Turn(store, config, openers, known)
            try:
                # All is committed, or known to have failed, before other jobs are waited for: they may be waiting for our leases.
                with at_once(_COMMITS, depth=2 * _COMMITS) as later:
                    for begun in openers.ahead(map(turn.begin, todo)):
                        source, recording_id = begun.source, begun.recording_id
                        if recording_id is not None:
                            report.unchanged += 1
                        else:
                            assert begun.opened is not None
                            recording_id, commit, tell = _settled(
                                store, source, begun.opened.result(), begun.signature, known, found, report
                            )
                            later(partial(_both, commit, partial(store.leases.drop, begun.lease)), tell)
                        if recording_id in found:
                            same = f"{source.path}: the same content as {found[recording_id]}; mined once"
                            later(None, partial(report.problems.append, same))
                        found.setdefault(recording_id, source.path)
                        later(None, shown.advance)
            finally:
                turn.end()
            todo = turn.others
            if todo:  # another job is at them: look again at what is committed
                time.sleep(_LOOK_EVERY_S)
                known = _known(store)
    return report, sorted(found)


class _Turn:
    """One pass over sources: which of them are known, which are this job's to open, and which another job's."""

    def __init__(self, store: Store, config: Config, openers: _Openers, known: Mapping[str, _Known]) -> None:
        self.others: list[Source] = []
        """Another job is at them."""
        self._store, self._config, self._openers, self._known = store, config, openers, known
        self._by_signature = {marker["signature"]: marker["recording_id"] for _, marker in known.values()}
        self._taken: list[str] = []

    def begin(self, source: Source) -> _Begun | None:
        """Have it opened where that is due; None where another job is at it."""
        signature = _signature(source, self._config)
        if signature in self._by_signature:
            return _Begun(source, signature, self._by_signature[signature])
        lease = f"index-{signature}"
        if not self._store.leases.take(lease):
            self.others.append(source)
            return None
        self._taken.append(lease)
        return _Begun(source, signature, None, lease, self._openers.begin(source, self._known))

    def end(self) -> None:
        """Give back the leases on what was let go, where something failed."""
        for lease in self._taken:
            self._store.leases.drop(lease)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a file holds, as far as that does not depend on other files."""

    recording: Recording
    nameless: str
    """Id that the file has where it cannot be read."""
    times: FrameTimes
    indices: NDArray[np.int64]
    telemetry: dict[str, NDArray[np.float64]]
    telemetry_trouble: str | None
    in_reach: bool


@dataclass(frozen=True, slots=True)
class _Begun:
    """A source whose turn comes: known, or being opened."""

    source: Source
    signature: str
    recording_id: str | None
    """Of a known one."""
    lease: str = ""
    opened: Future[_Opened] | None = None


class _Openers:
    """Open several files at a time, ahead of the one whose turn it is."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ahead = config.detect.decode_workers
        self._decoders = Decoders(config, self._ahead)
        self._threads = ThreadPoolExecutor(self._ahead, "open")

    def begin(self, source: Source, known: Mapping[str, _Known]) -> Future[_Opened]:
        """Open one as soon as a decoder is free."""
        return self._threads.submit(self._open, source, known)

    def ahead(self, begun: Iterable[_Begun | None]) -> Iterator[_Begun]:
        """Give them in their order, each when as many after it have been begun as can be opened at a time."""
        waiting: deque[_Begun] = deque()
        for one in begun:
            if one is not None:
                waiting.append(one)
            if len(waiting) > self._ahead:
                yield waiting.popleft()
        yield from waiting

    def _open(self, source: Source, known: Mapping[str, _Known]) -> _Opened:
        with self._decoders.lend() as decoder:
            return _open(self._config, source, decoder, known)

    def __enter__(self) -> _Openers:
        """Open files within a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes, also where they are at something."""
        if kind is not None:
            self._decoders.cancel()
        self._threads.shutdown(cancel_futures=True)
        self._decoders.__exit__(kind, error, trace)


def _open(config: Config, source: Source, decoder: Decoder, known: Mapping[str, _Known]) -> _Opened:
    """Open a file."""
    nameless = id_of_unreadable(source)
    defaults = Defaults(image_rate_hz=config.footage.image_rate_hz)
    try:
        with decoder.at_hand(source) as here:
            recording, times = probe(here, defaults, decoder.facts)
            if recording.recording_id == id_of_unreadable(here):
                recording = replace(recording, recording_id=nameless)
            recording = replace(recording, uri=source.path)
            if (
                recording.status != "unreadable"
            ):  # those that are get another id yet, where another has the same content
                recording = _as_known(recording, known)
            indices = sampled_indices(times, config.footage.effective_sample_hz, config.footage.every)
            telemetry, trouble = _telemetry(decoder, here, recording, times, indices)
            return _Opened(recording, nameless, times, indices, telemetry, trouble, in_reach=True)
    except FootageError as error:  # of `at_hand`: it cannot be fetched, or it is gone
        recording = out_of_reach(source, defaults, str(error))
        return _Opened(recording, nameless, NO_FRAMES, np.empty(0, np.int64), {}, None, in_reach=False)


def _as_known(recording: Recording, known: Mapping[str, _Known]) -> Recording:
    """Give it the start that it had: a copy has a new file time, and the footage is no younger for it."""
    if recording.recording_id not in known or recording.started_at_source != "file_time":
        return recording
    _, before = known[recording.recording_id]
    return replace(
        recording,
        started_at=datetime.fromisoformat(before["started_at"]),
        started_at_source=before["started_at_source"],
    )


def _settled(
    store: Store,
    source: Source,
    opened: _Opened,
    signature: str,
    known: Mapping[str, _Known],
    found: Mapping[str, str],
    report: StageReport,
) -> tuple[str, _Act, _Act]:
    """Return an opened file's recording_id, what commits its rows, and what tells of that.

    Both are nothing where another file had the same content.
    """
    recording, nameless = opened.recording, opened.nameless
    commit = tell = _nothing
    if not opened.in_reach:
        # Its signature is nobody's: the next run tries again.
        commit, tell = _committing(store, source, opened, f"out of reach {signature}", None, report)
    else:
        if recording.status == "unreadable" and recording.recording_id in found:
            # Broken files of equal content (all empty files, say) are each a failure of their own.
            recording = replace(recording, recording_id=digest(source.path)[:20])
        recording = _as_known(recording, known)
        if _is_committed(store, recording, signature):
            report.unchanged += 1
        elif recording.recording_id not in found:
            if opened.telemetry_trouble:
                recording = _partial(recording, opened.telemetry_trouble)
            night = known[recording.recording_id][0] if recording.recording_id in known else None
            moved_from = night if night != recording.night else None
            opened = replace(opened, recording=recording)
            commit, tell = _committing(store, source, opened, signature, moved_from, report)
    if nameless in known and recording.recording_id != nameless:
        # It could not be read then, and now it has a name.
        commit = partial(_both, commit, partial(store.retract, "index", known[nameless][0], nameless))
    return recording.recording_id, commit, tell


def _committing(
    store: Store,
    source: Source,
    opened: _Opened,
    signature: str,
    moved_from: date | None,
    report: StageReport,
) -> tuple[_Act, _Act]:
    return partial(_commit, store, opened, signature, moved_from), partial(_tell, source, opened, report)


def _both(first: _Act, then: _Act) -> None:
    first()
    then()


def _nothing() -> None:
    """Do nothing."""


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


def _known(store: Store) -> dict[str, _Known]:
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


def _commit(store: Store, opened: _Opened, signature: str, moved_from: date | None) -> None:
    """Commit the rows of a recording; its start may have been corrected, so that it belongs to another night."""
    recording = opened.recording
    if moved_from is not None:
        store.retract("index", moved_from, recording.recording_id)
        _retract_mined(store, recording.recording_id, moved_from)
    frames = _frame_rows(recording, opened.times, opened.indices, opened.telemetry)
    row = _recording_row(recording)
    store.commit(
        "index", recording.night, recording.recording_id, {"frames": frames, "recordings": row},
        digest=signature, signature=signature, recording_id=recording.recording_id,
        started_at=recording.started_at.isoformat(), started_at_source=recording.started_at_source,
        content=_rows_digest(frames, row),
    )  # fmt: skip


def _tell(source: Source, opened: _Opened, report: StageReport) -> None:
    recording, frames = opened.recording, len(opened.indices)
    report.done += 1
    report.add(recordings=1, frames=frames, **{recording.status: 1} if recording.status != "ok" else {})
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
