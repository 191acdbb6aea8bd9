"""``mining demo``: the main job, end to end, on drives that mining makes itself and whose truth it therefore knows."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mining import config as config_file
from mining import pipeline
from mining.demo import caught, make_drives, rare_events
from mining.places import Place
from mining.progress import LOG, progress
from mining.store import Store
from mining.types import UsageError

_DRIVES = 8


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo's batch caught of the rare events that were planted."""

    night: pipeline.NightReport
    config_path: Path
    store_path: Place
    batch_frames: int
    sampled_frames: int
    planted: dict[str, int]
    """Kind of event -> how many were planted."""
    caught: dict[str, int]
    """Kind of event -> how many of them the batch holds at least one frame of."""
    frames_caught: int
    """Chosen frames that show a rare event."""
    events_expected_at_random: float
    """Events of which a random batch of the same size would hold at least one frame, on average (exact)."""
    frames_expected_at_random: float

    def as_dict(self) -> dict[str, Any]:
        """Give the result as JSON values."""
        from dataclasses import asdict

        return {**asdict(self), "night": self.night.as_dict()}

    def text(self) -> str:
        """Say it to a person."""
        events = ", ".join(
            f"{name.replace('_', ' ')} {self.caught.get(name, 0)} of {count}"
            for name, count in sorted(self.planted.items())
        )
        total, got = sum(self.planted.values()), sum(self.caught.values())
        return "\n".join(
            [
                f"Mined {self.sampled_frames} frames of {_DRIVES} drives; the batch holds {self.batch_frames}.",
                f"Rare events caught: {got} of {total} ({events}); a random batch of {self.batch_frames} holds "
                f"{self.events_expected_at_random:.1f} on average.",
                f"Chosen frames that show one: {self.frames_caught}; at random {self.frames_expected_at_random:.1f}.",
                f"Batch: {self.night.batch_folder}",
                "Try next:",
                '  mining sql "SELECT rank, drive_id, camera, round(hardness, 2) AS hardness, reason FROM selections '
                f'JOIN mined USING (frame_id, hardness) ORDER BY rank LIMIT 10" --store {self.store_path}',
                f"  mining report {self.config_path}    (the night as a page)",
                f"  mining review {self.config_path} --open    (keep, drop, more like this)",
                f"  mining run {self.config_path}    (again: there is nothing left to do)",
            ]
        )


def run_demo(folder: Path, seed: int) -> DemoResult:
    """Make the drives (once), mine them, and compare the batch with the planted truth."""
    drives = folder / "drives"
    config_path = folder / "demo.toml"
    _make(folder, drives, seed)
    shutil.copyfile(config_file.shipped("demo.toml"), config_path)
    config = config_file.load(config_path)
    night = pipeline.run_night(config)
    for problem in night.problems:
        LOG.warning("%s", problem)
    if night.batch_id is None:
        raise UsageError(f"the demo made no batch; delete {folder} and run it again")
    store = Store(config.store_path)
    with store.connect() as con:
        sampled = con.execute(
            "SELECT r.uri, f.frame_index FROM frames AS f JOIN recordings AS r USING (recording_id)"
        ).fetchall()
        chosen = con.execute(
            "SELECT r.uri, f.frame_index FROM selections AS s JOIN frames AS f USING (frame_id) "
            "JOIN recordings AS r USING (recording_id) WHERE s.batch_id = ?",
            [night.batch_id],
        ).fetchall()
    rare = rare_events(drives)
    planted = caught(drives, rare)
    in_batch = caught(drives, [(Path(uri).stem, index) for uri, index in chosen])
    in_all = caught(drives, [(Path(uri).stem, index) for uri, index in sampled])
    kind = {event: rare[frames[0]] for event, frames in planted.items()}
    # Without replacement, an event of m frames is missed by n of N with probability C(N - m, n) / C(N, n).
    size, total = len(chosen), len(sampled)
    missed = [math.comb(total - len(frames), size) / math.comb(total, size) for frames in in_all.values()]
    return DemoResult(
        night=night,
        config_path=config_path,
        store_path=config.store_path,
        batch_frames=size,
        sampled_frames=total,
        planted=dict(Counter(kind.values())),
        caught=dict(Counter(kind[event] for event in in_batch)),
        frames_caught=sum(len(frames) for frames in in_batch.values()),
        events_expected_at_random=sum(1 - probability for probability in missed),
        frames_expected_at_random=size * sum(len(frames) for frames in in_all.values()) / total,
    )


def _make(folder: Path, drives: Path, seed: int) -> None:
    """Render the drives beside their place and rename them: a demo that was stopped starts afresh.

    Nothing is ever deleted but what a demo made: its drives, known by their stamp, and its own half-made ones.
    """
    stamp = folder / f"drives-{seed}.done"
    if stamp.exists() and drives.is_dir():
        return
    stamps = list(folder.glob("drives-*.done"))
    partial = folder / "drives.partial"
    others = [p for p in folder.iterdir() if p != partial] if folder.exists() else []
    if others and not stamps:
        raise UsageError(f"{folder}: not empty and not a demo; name an empty or a new folder")
    for leftover in (partial, drives):
        shutil.rmtree(leftover, ignore_errors=True)
    for old in stamps:
        old.unlink()
    partial.mkdir(parents=True)
    LOG.info("rendering %d drives", _DRIVES)
    with progress("render", _DRIVES, "drives") as shown:
        make_drives(partial, seed=seed, drives=_DRIVES, progress=shown.advance)
    stamp.touch()
    partial.rename(drives)
