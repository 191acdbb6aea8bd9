"""``mining calibrate``: make a committee's reference on purpose, from drives that people chose.

The first scoring run takes whatever it scores as the reference, so that a new store works at once. Percentiles of two nights
or two sites compare only if their reference is the same and stands for the fleet; that choice is made here. Nothing is
detected and nothing scored: the next ``mining score`` (or ``run``) does the latter for every recording, because the digest of a
score covers its reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mining.committee import Committee, committee_of
from mining.config import Config
from mining.progress import progress
from mining.score_ahead import scored
from mining.score_frames import (
    SIGNAL_NAMES,
    Reference,
    lacking,
    load_reference,
    reference_of,
    reference_path,
    save_reference,
)
from mining.score_recording import Learned, joined, units_of
from mining.store import Store
from mining.types import MiningError, UsageError, nights_of


@dataclass(frozen=True, slots=True)
class Change:
    """How the reference of one signal moved; None where it holds no value."""

    signal: str
    median_before: float | None
    median_after: float | None
    top_tenth_before: float | None
    """Value from which a frame is in the top tenth."""
    top_tenth_after: float | None


@dataclass(frozen=True, slots=True)
class CalibrateReport:
    """What was made, and what it replaces."""

    committee_id: str
    reference_id: str
    replaced: str | None
    """``reference_id`` of the one before; None where there was none that can be read."""
    recordings: int
    drives: int
    nights: tuple[str, str]
    frames: int
    due: int
    """Recordings of the store whose scores now have to be made again."""
    changes: list[Change]
    """Of every signal."""
    hardness: tuple[str, ...]
    """Signals that the config blends."""

    def text(self) -> str:
        """Say it to a person."""
        first, last = self.nights
        lines = [
            f"Reference {self.reference_id} of {self.committee_id}: {self.frames} frames of {self.recordings} recordings, "
            f"{self.drives} drives, nights {first} to {last}."
        ]
        if self.replaced == self.reference_id:
            lines.append("It is the reference that stood before: nothing changes.")
        elif self.replaced is not None:
            lines += [
                f"It replaces {self.replaced}. What a frame must have to stand in the middle, and in the top tenth:",
                f"  {'signal':26} {'median':>10} {'was':>10} {'top tenth':>10} {'was':>10}",
            ]
            for c in self.changes:
                numbers = (c.median_after, c.median_before, c.top_tenth_after, c.top_tenth_before)
                shown = " ".join(f"{'-' if n is None else format(n, '.4g'):>10}" for n in numbers)
                if c.signal in self.hardness:
                    lines.append(f"  {c.signal:26} {shown}")
            lines.append("Shown are the signals of `hardness`; `--json` has all.")
        if self.due:
            lines.append(f"{self.due} recordings are due to be scored again: `mining score` does it.")
        return "\n".join(lines)


def run(
    store: Store, config: Config, nights: str | None = None, drives: Sequence[str] = ()
) -> CalibrateReport:
    """Make the reference of the config's committee from what it detected, and replace the one that stands.

    Args:
        store: holds the detections.
        config: names the committee and the score settings.
        nights: ``YYYY-MM-DD`` or ``YYYY-MM-DD..YYYY-MM-DD``, both ends included; all where None.
        drives: drive ids; all where empty.

    Raises:
        UsageError: nights or drives that cannot be read, are unknown, hold no detections of this committee, or no value
            of a signal that hardness needs.
    """
    committee = committee_of(config)
    learned = Learned.of(config, committee)
    chosen = _recordings(store, nights, drives)
    units = units_of(store, committee, list(chosen))
    if not units:
        raise UsageError(
            f"{committee.committee_id} has not run on any of these {len(chosen)} recordings; run `mining detect` first"
        )
    found, frames = [], 0
    with (
        progress("signals", len(units), "recordings") as shown,
        scored(store, committee, units, config.score, learned) as ones,
    ):
        for one in ones:
            found.append(one.signals)
            frames += len(one.frames)
            shown.advance()
    reference = reference_of(joined(found))
    if unknown := lacking(reference, config.score.hardness, units[0].sees):
        raise UsageError(
            f"none of the {frames} frames has a value of {unknown[0]}, which score.hardness needs; choose more drives "
            "(`error` in `observations` says what failed there)"
        )
    path = reference_path(store, committee, learned)
    try:
        before = load_reference(path)
    except MiningError:
        before = None  # damaged: this is how it is mended
    save_reference(reference, path, store)
    held = sorted(str(unit.night) for unit in units)
    return CalibrateReport(
        committee_id=committee.committee_id,
        reference_id=reference.reference_id,
        replaced=None if before is None else before.reference_id,
        recordings=len(units),
        drives=len({chosen[unit.recording_id] for unit in units}),
        nights=(held[0], held[-1]),
        frames=frames,
        due=_due(store, committee, reference),
        changes=[] if before is None else [_change(name, before, reference) for name in SIGNAL_NAMES],
        hardness=tuple(config.score.hardness),
    )


def _recordings(store: Store, nights: str | None, drives: Sequence[str]) -> dict[str, str]:
    """Recording -> drive, of those that were asked for."""
    first, last = (date.min, date.max) if nights is None else nights_of(nights)
    with store.connect() as con:
        known = con.execute("SELECT recording_id, drive_id, night FROM recordings").fetchall()
    unknown = sorted(set(drives) - {drive for _, drive, _ in known})
    if unknown:
        raise UsageError(
            f"--drive {unknown[0]}: no such drive in {store.root}; `mining sql` lists them: "
            "SELECT DISTINCT drive_id FROM recordings"
        )
    chosen = {
        recording: drive
        for recording, drive, night in known
        if first <= night <= last and (not drives or drive in drives)
    }
    if not chosen:
        raise UsageError(f"{store.root} holds no recording of these nights and drives")
    return chosen


def _due(store: Store, committee: Committee, reference: Reference) -> int:
    """Count the committee's recordings whose scores stand on another reference."""
    return sum(
        marker["committee_id"] == committee.committee_id
        and marker.get("reference_id") != reference.reference_id
        for marker in store.markers("score").values()
    )


def _change(name: str, before: Reference, after: Reference) -> Change:
    def at(reference: Reference, share: float) -> float | None:
        values = reference.values[name]
        return float(np.quantile(values, share)) if len(values) else None

    return Change(name, at(before, 0.5), at(after, 0.5), at(before, 0.9), at(after, 0.9))
