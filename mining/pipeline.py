"""READ FIRST: the night, stage after stage. Each stage can be run alone and hands on nothing but tables.

footage --index-->  recordings, frames            packets only, nothing is decoded
        --detect--> detections, observations      one decode, every detector, one pass
        --score-->  scores                        signals from detections; no GPU
        --scenes--> scenes                        runs of hard frames
        --select--> selections                    SQL candidates, then diversity on embeddings
        --export--> images, manifests, exports    the same pixels, decoded again
vendor  --import--> labels                        as they come back; not part of a night
        --measure-> yields                        the errors that the primary had made in them
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mining import (
    detect_objects,
    export_batch,
    find_scenes,
    import_labels,
    index_footage,
    lineage,
    measure_yield,
    score_frames,
    select_batch,
    stop,
)
from mining.committee import committee_of
from mining.config import Config
from mining.import_report import ImportReport
from mining.progress import LOG, set_run_id
from mining.store import Store, sql_file
from mining.types import MiningError, StageReport, TemporaryError, UsageError
from mining.views import unreadable
from mining.yield_summary import Summary

_T = TypeVar("_T")

# What the tables take of a frame (10 kB with two noisy detectors, measured), what an exported image takes, and what no
# disk should be without.
_BYTES_A_FRAME, _BYTES_AN_IMAGE, _SPARE_BYTES = 20_000, 500_000, 50_000_000


@dataclass(slots=True)
class NightReport:
    """What a run did."""

    stages: list[StageReport] = field(default_factory=list)
    batch_id: str | None = None
    batch_folder: str | None = None
    run_id: str | None = None
    seconds: float = 0.0
    failed_recordings: int = 0
    """Of the footage of this config: that could not be read at all."""
    recordings: int = 0
    failed_frames: int = 0
    """That did not decode, or that every detector failed on."""
    frames: int = 0
    too_many_failed: bool = False
    """More than the config's ``run.max_failed_share`` of the recordings or of the frames."""

    @property
    def nothing_to_do(self) -> bool:
        """True where every stage found its work committed."""
        return self.batch_id is not None and all(stage.done == 0 for stage in self.stages)

    @property
    def problems(self) -> list[str]:
        """Everything that failed or was left out, one line each."""
        return [f"{stage.stage}: {problem}" for stage in self.stages for problem in stage.problems]

    def as_dict(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return {**asdict(self), "nothing_to_do": self.nothing_to_do, "problems": self.problems}


def run_night(config: Config, *, retry_failed: bool = False) -> NightReport:
    """Run every stage over the config's footage; each does only what is not committed yet.

    ``retry_failed`` tries recordings again that could not be read wholly, or of which frames failed.
    """
    started = time.monotonic()
    night = NightReport()
    store = Store(config.store_path, create=True)
    with store.writing():
        check(store, config)
        run = lineage.begin(store, config)
        night.run_id = run.run_id
        set_run_id(run.run_id)
        try:
            if retry_failed:
                _take_back_failed(store, config)
            _run_stages(store, config, night)
        except BaseException as error:
            stopped = not isinstance(error, Exception) or stop.seen() is not None
            told = unreadable(error) if isinstance(error, Exception) else None
            said = None if stopped else " ".join(str(told or error).split())[:500]
            _end_run(store, config, run, night, "stopped" if stopped else "failed", said)
            raise
        state = (
            "no batch" if night.batch_id is None else "too many failed" if night.too_many_failed else "done"
        )
        _end_run(store, config, run, night, state)
    night.seconds = time.monotonic() - started
    return night


def _end_run(
    store: Store, config: Config, run: lineage.Run, night: NightReport, state: str, error: str | None = None
) -> None:
    told = {
        name: getattr(night, name)
        for name in ("batch_id", "recordings", "failed_recordings", "frames", "failed_frames")
    }
    if state in {"stopped", "failed"}:
        told = {"error": error}  # the counts were not taken
    seconds = [(stage.stage, stage.seconds) for stage in night.stages]
    try:
        lineage.end(store, run, state, seconds=seconds, **told)
        if config.run.metrics is not None:
            lineage.write_metrics(config.path(config.run.metrics), store, run)
    except MiningError as problem:
        if state not in {"failed", "stopped"}:
            raise
        LOG.error("%s", problem)  # what ended the run is what is to be told


def _take_back_failed(store: Store, config: Config) -> None:
    """Take back the commits of what failed, so that the stages find it due."""
    known = [marker["recording_id"] for marker in store.markers("index").values()]
    with store.connect() as con:
        found = con.execute(sql_file("failed_recordings"), {"recordings": known}).fetchall()
    failed = {row[0] for row in found}
    for stage in ("index", "detect"):
        for where, marker in store.markers(stage).items():
            if marker["recording_id"] in failed:
                store.retract(stage, *where)
    LOG.info("%d recordings that failed are tried again", len(failed))


def _run_stages(store: Store, config: Config, night: NightReport) -> None:
    index, recordings = _timed(lambda: index_footage.run(store, config))
    night.stages.append(index)
    _check_space(store, config, recordings)
    night.stages.append(_timed(lambda: detect_objects.run(store, config, recordings)))
    night.stages.append(_in_turn(store, "score", lambda: score_frames.run(store, config, recordings)))
    night.stages.append(_in_turn(store, "scenes", lambda: find_scenes.run(store, config, recordings)))
    select, night.batch_id = _in_turn(store, "select", lambda: select_batch.run(store, config, recordings))
    night.stages.append(select)
    if night.batch_id is not None:
        export, folder = _in_turn(
            store, "export", lambda: export_batch.run(store, config, night.batch_id or "")
        )
        night.stages.append(export)
        night.batch_folder = str(folder)
    _count_failures(store, config, recordings, night)


def _check_space(store: Store, config: Config, recordings: Sequence[str]) -> None:
    """Refuse at the start a night that the disk cannot hold; a bucket takes what comes."""
    if not isinstance(store.root, Path):
        return
    with store.connect() as con:
        frames = con.execute(sql_file("frames_to_look_at"), {"recordings": list(recordings)}).fetchall()[0][0]
    wanted = frames * _BYTES_A_FRAME + config.select.budget * _BYTES_AN_IMAGE * bool(frames) + _SPARE_BYTES
    free = shutil.disk_usage(store.root).free
    if free < wanted:
        raise TemporaryError(
            f"{store.root}: {free / 1e6:.0f} MB are free, and {frames} frames need about {wanted / 1e6:.0f} MB; make room "
            "and run the same command again"
        )


def _count_failures(store: Store, config: Config, recordings: Sequence[str], night: NightReport) -> None:
    with store.connect() as con:
        row = con.execute(
            sql_file("failures"),
            {"recordings": list(recordings), "committee_id": committee_of(config).committee_id},
        ).fetchall()[0]
    night.recordings, night.failed_recordings, night.frames, night.failed_frames = row
    most = config.run.max_failed_share
    night.too_many_failed = (
        night.failed_recordings > most * night.recordings or night.failed_frames > most * night.frames
    )


def check(store: Store, config: Config) -> None:
    """Refuse at the start what a late stage would refuse after hours of work."""
    score_frames.check(config)
    select_batch.check(store, config)
    export_batch.check(config)


def _in_turn(store: Store, name: str, stage: Callable[[], _T]) -> _T:
    """Run a stage that one job at a time does in a store: a second one waits, and finds its work committed."""
    with store.leases.turn(name):
        return _timed(stage)


def _timed(stage: Callable[[], _T]) -> _T:
    started = time.monotonic()
    result = stage()
    report: Any = result[0] if isinstance(result, tuple) else result
    report.seconds = time.monotonic() - started
    LOG.info("%s", one_line(report))
    return result


def one_line(report: StageReport) -> str:
    """Say what a stage did in one line."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items() if count)
    dry = f"dry run, {report.would_do} would be done" if report.would_do else "nothing to do"
    work = f"{report.done} done" if report.done else dry
    unchanged = f", {report.unchanged} unchanged" if report.unchanged else ""
    problems = f", {len(report.problems)} problems" if report.problems else ""
    return f"{report.stage}: {work}{unchanged}{problems}{' - ' + counts if counts else ''} ({report.seconds:.1f} s)"


def where_time_went(report: StageReport) -> str:
    """Say it as a table: seconds of each activity, and their share of the stage's."""
    lines = [f"{'where the time went':32} {'seconds':>9}   of the stage"]
    for name, seconds in sorted(report.profile.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:30} {seconds:9.2f}   {seconds / max(report.seconds, 1e-9):6.1%}")
    busy = sum(
        v for name, v in report.profile.items() if name.startswith(("forward pass: ", "suppression: "))
    )
    lines.append(
        f"detectors busy for {busy / max(report.seconds, 1e-9):.1%} (forward pass and suppression); threads work side by side"
    )
    return "\n".join(lines)


def run_stage(name: str, config: Config) -> StageReport:
    """Run one stage alone over what the store already holds of the config's footage."""
    store = Store(config.store_path, create=name == "index")
    with store.writing():
        return _run_one(name, store, config)


def _run_one(name: str, store: Store, config: Config) -> StageReport:
    if name == "index":
        return _timed(lambda: index_footage.run(store, config))[0]
    recordings = index_footage.indexed(store, config)
    if name == "select":
        return _in_turn(store, name, lambda: select_batch.run(store, config, recordings))[0]
    if name == "detect":
        return _timed(lambda: detect_objects.run(store, config, recordings))
    stages = {"score": score_frames.run, "scenes": find_scenes.run}
    return _in_turn(store, name, lambda: stages[name](store, config, recordings))


def run_export(
    config: Config, batch_id: str | None, chosen_in: Store | None = None
) -> tuple[StageReport, Path | str]:
    """Export a batch, the newest where none is named; ``chosen_in`` holds it where the config's store does not."""
    store = Store(config.store_path)
    if batch_id is None:
        committee_id = committee_of(config).committee_id
        chosen = [
            (marker["chosen_at"], name)
            for (_, name), marker in (chosen_in or store).markers("select").items()
            if marker["committee_id"] == committee_id
        ]
        if not chosen:
            raise UsageError(
                f"{store.root}: this committee has chosen no batch yet; `mining select` chooses one"
            )
        batch_id = max(chosen)[1]
    name = batch_id
    with store.writing():
        return _in_turn(store, "export", lambda: export_batch.run(store, config, name, chosen_in))


def run_import(
    config: Config,
    batch_id: str,
    vendor: str,
    files: Sequence[Path],
    *,
    annotator: str | None = None,
    add: bool = False,
    accept_bad: bool = False,
    dry_run: bool = False,
) -> tuple[StageReport, ImportReport]:
    """Take in the labels of a batch: see ``import_labels.run``."""
    store = Store(config.store_path)
    with store.writing():
        return _in_turn(store, "import",
            lambda: import_labels.run(
                store, config, batch_id, vendor, files,
                annotator=annotator, add=add, accept_bad=accept_bad, dry_run=dry_run,
            )
        )  # fmt: skip


def run_measure(config: Config, batch_ids: Sequence[str]) -> tuple[StageReport, Summary]:
    """Measure batches against their labels, all that have some where none is named, and summarise them together."""
    store = Store(config.store_path)
    with store.writing():
        report = _in_turn(store, "measure", lambda: measure_yield.run(store, config, batch_ids))
    return report, measure_yield.summary(store, config, batch_ids)
