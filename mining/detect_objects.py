"""Footage -> detections, observations: one decode, every member of the committee, one pass."""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from mining import decode_ahead
from mining.committee import Committee, committee_of, load_members
from mining.config import Config
from mining.decode_ahead import FrameBatch, Shard
from mining.detect_rows import Rows
from mining.footage import Source
from mining.progress import LOG, Clock, Progress, progress
from mining.store import Store, digest
from mining.threads import in_order
from mining.types import StageReport

if TYPE_CHECKING:
    from detectors.types import Detector, Pending, Predictions

_LOOK_EVERY_S = 0.5
_GIVE_MEMORY_BACK_EVERY_S = 10.0
DETECT_VERSION = 6
"""Raise when the rows of this stage change for the same input."""


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> StageReport:
    """Detect on every shard of these recordings that is not committed yet for the config's committee.

    Frames are decoded by threads of their own, shards are written by another; this one keeps the detectors busy.
    """
    report, clock = StageReport("detect"), Clock()
    committee = committee_of(config)
    shards = plan(store, config, committee, recording_ids)
    due = _due(store, shards, committee, recording_ids)
    report.unchanged = len(shards) - len(due)
    if not due:
        return report
    total = sum(len(shard.frame_indices) for shard in due)
    members: list[Detector] = []
    with progress("detect", total, "frames") as shown:
        writer = _Writer(store, config, committee, members, report, shown, clock)
        while due:
            done, others = report.done, list[Shard]()
            mine = _shared_out(store, due, others, report)
            with (
                decode_ahead.batches(mine, config, clock) as batches,
                in_order(writer.take, depth=2) as hand_over,
            ):
                # Imports torch: only when there is something to look at, and while that is decoded.
                if not members:
                    with clock.timed("load the detectors"):
                        members += load_members(config)
                with closing(_looked_at(batches, members, clock)) as looked_at:
                    for item in looked_at:
                        with clock.timed("wait for the writer"):
                            hand_over(item)
                        del item  # frames are large
            # What other jobs had taken on is done by now, or they are at it, or they are gone.
            due = others
            if due and report.done == done:
                with clock.timed("wait for other jobs"):
                    time.sleep(_LOOK_EVERY_S)
    members.clear()
    _give_memory_back()
    report.profile = clock.seconds
    return report


def _give_memory_back() -> None:
    """Have glibc let go of what is free between what is not: over hours it keeps more and more, for each thread its own."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _shared_out(
    store: Store, shards: Sequence[Shard], others: list[Shard], report: StageReport
) -> Iterator[Shard]:
    """Yield the shards that nobody has taken on; what other jobs are at goes to ``others``."""
    for shard in shards:
        if not store.leases.take(_lease(shard)):
            others.append(shard)
        elif _committed(store.marker_of("detect", shard.night, shard.key)) == shard.digest:
            store.leases.drop(_lease(shard))
            report.unchanged += 1
        else:
            yield shard


def _lease(shard: Shard) -> str:
    return f"detect-{shard.key}"


def _committed(marker: dict[str, Any] | None) -> str | None:
    """Digest of a commit that stands; what a detector or an unreachable file lost is tried again."""
    return None if marker is None or marker["failed_to_run"] else marker["digest"]


class _Writer:
    """Sorts what was seen by shard, and commits each shard when its last frame has come."""

    def __init__(
        self,
        store: Store,
        config: Config,
        committee: Committee,
        members: Sequence[Detector],
        report: StageReport,
        shown: Progress,
        clock: Clock,
    ) -> None:
        self.store, self.config, self.committee, self.members = store, config, committee, members
        self.report, self.shown, self.clock = report, shown, clock
        self.rows: dict[str, Rows] = {}
        self.gave_memory_back = time.monotonic()

    def take(self, item: tuple[FrameBatch, list[Predictions | str]]) -> None:
        """Take in a batch."""
        # Takes half a second: now, while the detectors look at the next batch, and not when the first shard is complete.
        import scipy.optimize  # noqa: F401

        batch, seen = item
        with self.clock.timed("rows"):
            touched: dict[str, list[int]] = {}
            for slot, decoded in enumerate(batch.look_at):
                touched.setdefault(decoded.shard.key, []).append(slot)
            for slots in touched.values():
                self._of(batch.look_at[slots[0]].shard).add(batch.look_at, slots, seen)
            for decoded in batch.others:
                self._of(decoded.shard).add_unseen(decoded)
                touched.setdefault(decoded.shard.key, [])
        self.report.add(failed_batches=sum(isinstance(one, str) for one in seen))
        self.shown.advance(len(batch.look_at) + len(batch.others))
        for key in touched:
            if not self.rows[key].missing:
                self._commit(self.rows.pop(key))

    def _of(self, shard: Shard) -> Rows:
        if shard.key not in self.rows:
            self.rows[shard.key] = Rows(self.committee, shard)
        return self.rows[shard.key]

    def _commit(self, rows: Rows) -> None:
        shard, report = rows.shard, self.report
        with self.clock.timed("rows"):
            detections, observations = rows.tables(self.config.detect.match_iou)
        with self.clock.timed("write"):
            self.store.commit(
                "detect", shard.night, shard.key, {"detections": detections, "observations": observations},
                digest=shard.digest, recording_id=shard.recording_id, committee_id=self.committee.committee_id,
                sees={member.name: member.seen.tolist() for member in self.members},
                failed_to_run=rows.failed_to_run,
            )  # fmt: skip
        self.store.leases.drop(_lease(shard))
        report.done += 1
        report.add(
            frames=observations.num_rows, boxes=detections.num_rows, failed_frames=rows.failed,
            repeats=rows.repeats,
        )  # fmt: skip
        report.problems += [f"{shard.source.path}: {reason}" for reason in rows.problems()]
        if time.monotonic() - self.gave_memory_back > _GIVE_MEMORY_BACK_EVERY_S:
            _give_memory_back()
            self.gave_memory_back = time.monotonic()


def plan(store: Store, config: Config, committee: Committee, recording_ids: Sequence[str]) -> list[Shard]:
    """Cut the sampled frames of the recordings into shards of ``shard_minutes``."""
    recordings, frames = _read_index(store, recording_ids)
    while len(recordings) < len(set(recording_ids)):
        store.index_of(recording_ids)  # waits until they are there
        recordings, frames = _read_index(store, recording_ids)
    ids = np.asarray(frames["recording_id"], dtype=np.str_)
    shards = []
    for recording_id, night, uri, kind, width, height, size_bytes, modified_ns in recordings:
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
                    digest=digest(
                        recording_id,
                        committee.committee_id,
                        part.tolist(),
                        config.detect.skip_repeats,
                        DETECT_VERSION,
                    ),
                    frame_indices=part,
                    size_px=(width, height),
                    indexed_as=(size_bytes, modified_ns),
                )
            )
    return shards


def _read_index(store: Store, recording_ids: Sequence[str]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Read recordings in the order in which they are looked at, and their sampled frames."""
    with store.connect() as con:
        con.execute(
            "CREATE TEMP TABLE wanted AS SELECT unnest(?::VARCHAR[]) AS recording_id", [list(recording_ids)]
        )
        recordings = con.execute(
            "SELECT recording_id, night, uri, kind, width_px, height_px, size_bytes, modified_ns FROM recordings SEMI JOIN wanted "
            "USING (recording_id) ORDER BY night, drive_id, camera, started_at, recording_id"
        ).fetchall()
        frames = con.execute(
            "SELECT recording_id, frame_index, pts_ns FROM frames SEMI JOIN wanted USING (recording_id) "
            "ORDER BY recording_id, frame_index"
        ).fetchnumpy()
    return recordings, frames


def _due(
    store: Store, shards: list[Shard], committee: Committee, recording_ids: Sequence[str]
) -> list[Shard]:
    """Leave out what is committed, and retract commits of these recordings that the plan no longer holds."""
    planned = {(shard.night, shard.key) for shard in shards}
    mine = set(recording_ids)
    committed: dict[tuple[date, str], str | None] = {}
    for where, marker in store.markers("detect").items():
        if marker["recording_id"] not in mine or marker["committee_id"] != committee.committee_id:
            continue
        if where in planned:
            committed[where] = _committed(marker)  # damage within the footage is final
        else:
            store.retract("detect", *where)
    return [shard for shard in shards if committed.get((shard.night, shard.key)) != shard.digest]


def _looked_at(
    batches: Iterator[FrameBatch], members: Sequence[Detector], clock: Clock
) -> Generator[tuple[FrameBatch, list[Predictions | str]]]:
    """Show each batch to every member; one that fails gives its reason in place of predictions.

    Where threads work on a batch by themselves, the next one is asked for before the answers to this one are waited for: they do not
    run out of frames.
    """
    waiting: deque[tuple[FrameBatch, list[Pending | str]]] = deque()
    try:
        while True:
            with clock.timed("wait for frames"):
                batch = next(batches, None)
            ahead = 0
            if batch is not None:
                waiting.append((batch, []))  # before anything is asked: what was is let go, whatever comes
                _ask(members, *waiting[-1], clock)
                ahead = any(not isinstance(one, str) and one.under_way for one in waiting[-1][1])
            while len(waiting) > ahead:
                answers = _answers(members, waiting[0][1], clock)
                yield waiting.popleft()[0], answers
                del answers
            if batch is None:
                return
    finally:
        for _, asked in waiting:
            for one in asked:
                if not isinstance(one, str):
                    one.cancel()


def _ask(members: Sequence[Detector], frames: FrameBatch, asked: list[Pending | str], clock: Clock) -> None:
    """Ask every member about the frames of a batch; ``asked`` takes what is to come, or why nothing is."""
    if not frames.look_at:
        return
    from detectors.preprocess import Batch

    batch = Batch([decoded.frame.rgb for decoded in frames.look_at if decoded.frame.rgb is not None])
    for member in members:
        try:
            with clock.timed("ask the detectors"):
                asked.append(member.begin(batch))
        except Exception as error:
            asked.append(_failed(member, error))


def _answers(
    members: Sequence[Detector], asked: list[Pending | str], clock: Clock
) -> list[Predictions | str]:
    """Wait for what was asked; of each answer that is there, ``asked`` lets go."""
    seen: list[Predictions | str] = []
    for member in members[: len(asked)]:
        pending = asked.pop(0)
        if isinstance(pending, str):
            seen.append(pending)
            continue
        try:
            with clock.timed("wait for the detectors"):
                found = pending.result()
        except Exception as error:
            seen.append(_failed(member, error))
            continue
        clock.add(f"forward pass: {member.name}", found.forward_s)
        clock.add(f"suppression: {member.name}", found.assemble_s)
        seen.append(found)
    return seen


def _failed(member: Detector, error: Exception) -> str:
    """Say why: one member's failure must not cost the others' boxes, nor the night."""
    said = str(error).splitlines()[0] if str(error) else ""
    reason = f"{member.name}: {type(error).__name__}: {said}"
    LOG.warning("%s", reason)
    return reason
