"""Detections -> scores: every signal of every frame, its percentile against a fixed reference, and hardness. No GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mining.committee import Committee, committee_of
from mining.config import Config
from mining.places import Place, reading
from mining.progress import progress
from mining.schemas import SCORES, SIGNALS
from mining.score_ahead import scored
from mining.score_recording import Learned, Scored, Unit, joined, track_rows, units_of
from mining.signals.frame import BOX_MEASURES, Signals, needs_committee, with_excess
from mining.store import Store, digest
from mining.threads import at_once
from mining.types import MiningError, StageReport, UsageError

SCORE_VERSION = 4
"""Raise when the rows of this stage change for the same input."""

SIGNAL_NAMES = tuple(name for name, _ in SIGNALS)
_REFERENCE_VALUES = 10_000
"""Quantiles kept of each signal: a percentile is then exact to 0.01 %."""
_DIGEST_KEY = b"digest"
"""Where a reference file states the digest of its values."""


def check(config: Config) -> None:
    """Refuse, before hours of work, settings that this stage would refuse after them."""
    unknown = sorted(set(config.score.hardness) - set(SIGNAL_NAMES))
    if unknown:
        raise UsageError(
            f"score.hardness: no signal is called {unknown[0]!r}; known: {', '.join(SIGNAL_NAMES)}"
        )
    if config.score.calibration is not None:
        Learned.of(config, committee_of(config))


def run(store: Store, config: Config, recording_ids: Sequence[str]) -> StageReport:
    """Score every recording whose detections, settings or reference changed."""
    report = StageReport("score")
    check(config)
    committee = committee_of(config)
    learned = Learned.of(config, committee)
    units = units_of(store, committee, recording_ids)
    committed = store.markers("score")
    path = reference_path(store, committee, learned)
    reference = load_reference(path)

    def content(unit: Unit) -> str:
        settings = [
            config.score.model_dump(exclude={"calibration"}),
            learned.digest,
            committee.thresholds,
            None if reference is None else reference.digest,
        ]
        return digest(unit.detect_digests, unit.index_content, settings, SCORE_VERSION)

    due = [unit for unit in units if committed.get((unit.night, unit.key), {}).get("digest") != content(unit)]
    report.unchanged = len(units) - len(due)
    if not due:
        return report
    # Two passes where there is no reference yet: percentiles need all signals first. What is kept in between is a
    # few numbers a frame and box.
    known: dict[str, Scored] = {}
    if reference is None:
        with (
            progress("signals", len(units), "recordings") as shown,
            scored(store, committee, units, config.score, learned) as ones,
        ):
            for unit, one in zip(units, ones, strict=True):
                known[unit.key] = one
                shown.advance()
        reference = reference_of(joined([one.signals for one in known.values()]))
        if not lacking(reference, config.score.hardness, units[0].sees):
            save_reference(reference, path, store)
        else:
            report.problems.append(
                "a signal of score.hardness could not be computed on any frame (see the detect stage), so percentiles "
                "of this run hold for this run only; once it can be, everything is scored again"
            )
    reference_id = reference.reference_id

    def commit(unit: Unit, tracks: pa.Table, scores: pa.Table) -> None:
        store.commit(
            "score", unit.night, unit.key, {"tracks": tracks, "scores": scores}, digest=content(unit),
            recording_id=unit.recording_id, committee_id=committee.committee_id, reference_id=reference_id,
        )  # fmt: skip

    # Half of a short recording's time is the wait for the disk: the next ones are scored in the meantime.
    others = [unit for unit in due if unit.key not in known]
    with (
        progress("score", len(due), "recordings") as shown,
        scored(store, committee, others, config.score, learned) as ones,
        at_once(workers=2, depth=2) as later,
    ):
        for unit in due:
            one = known.pop(unit.key) if unit.key in known else next(ones)
            scores = _score_rows(one, reference, config.score.hardness, committee.committee_id)
            later(partial(commit, unit, track_rows(one, unit, committee), scores), shown.advance)
            report.done += 1
            report.add(frames=scores.num_rows, tracks=one.track_count)
    return report


@dataclass(frozen=True, slots=True)
class Reference:
    """What percentiles are taken against: the sorted values of each signal over fixed frames."""

    values: dict[str, NDArray[np.float64]]
    digest: str

    def percentile(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of reference frames below each value, ties counted half; NaN stays NaN."""
        known = self.values[name]
        if not len(known):
            return np.full(len(values), np.nan)
        below = np.searchsorted(known, values, side="left")
        not_above = np.searchsorted(known, values, side="right")
        return np.where(np.isnan(values), np.nan, (below + not_above) / (2 * len(known)))

    @property
    def reference_id(self) -> str:
        """Digest of all its values, shortened: percentiles of equal ids compare."""
        return self.digest[:12]

    def complete(self, found: Signals) -> Signals:
        """Add the signals that are measured against the usual box of the reference."""
        means = {name: self.values[f"{name}_mean"] for name in BOX_MEASURES}
        return with_excess(found, {name: float(np.median(v)) for name, v in means.items() if len(v)})


def lacking(
    reference: Reference, weights: Mapping[str, float], sees: Mapping[str, Sequence[bool]]
) -> list[str]:
    """Signals of ``hardness`` that a committee which sees this could have, but of which the reference holds no value."""
    alone = max(map(sum, zip(*sees.values(), strict=True))) < 2  # no class is known to two members
    return [n for n in weights if not len(reference.values[n]) and not (alone and needs_committee(n))]


def blend(percentiles: Signals, weights: dict[str, float]) -> NDArray[np.float64]:
    """Hardness: the weighted mean of percentiles, in 0..1.

    A percentile that could not be computed counts as the middle, 0.5: a frame without boxes is neither hidden (all its
    objects may have been missed) nor put first (most such frames are empty roads).
    """
    counted = [w * np.nan_to_num(percentiles[name], nan=0.5) for name, w in weights.items()]
    return np.asarray(sum(counted) / sum(weights.values()), np.float64)


def _score_rows(one: Scored, reference: Reference, weights: dict[str, float], committee_id: str) -> pa.Table:
    found = reference.complete(one.signals)
    percentiles = {name: reference.percentile(name, found[name]) for name in SIGNAL_NAMES}
    hardness = np.where(one.looked, blend(percentiles, weights), np.nan)
    columns = {
        **{name: one.frames[name] for name in one.frames.column_names},
        "committee_id": pa.repeat(pa.scalar(committee_id), len(one.frames)),
        "reference_id": pa.repeat(pa.scalar(reference.reference_id), len(one.frames)),
        **{name: pa.array(found[name], pa.float32(), from_pandas=True) for name in SIGNAL_NAMES},
        **{f"{name}_pct": pa.array(p, pa.float32(), from_pandas=True) for name, p in percentiles.items()},
        "hardness": pa.array(hardness, pa.float32(), from_pandas=True),
    }
    return pa.table([columns[f.name] for f in SCORES], schema=SCORES)


def reference_path(store: Store, committee: Committee, learned: Learned) -> Place:
    """Signals depend on the thresholds, the calibration and this stage's version; so does what they compare with."""
    return (
        store.root
        / "reference"
        / f"{committee.committee_id}-{digest(committee.thresholds, learned.digest, SCORE_VERSION)[:8]}.parquet"
    )


def load_reference(path: Place) -> Reference | None:
    """Read a reference; None where there is none yet.

    Raises:
        MiningError: it is damaged, or does not know all signals.
    """
    if not path.exists():
        return None
    try:
        table = pq.read_table(reading(path), partitioning=None)
        values = {name: np.asarray(table[name][0].as_py(), np.float64) for name in SIGNAL_NAMES}
        reference = Reference(values, _digest_of(values))
        if (table.schema.metadata or {}).get(_DIGEST_KEY) != reference.digest.encode():
            raise ValueError("its digest is not that of its values")
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        raise MiningError(
            f"{path}: cannot be read as a reference ({' '.join(str(error).split())[:100]}); make it anew with "
            "`mining calibrate --config CONFIG.toml`"
        ) from None
    return reference


def _digest_of(values: dict[str, NDArray[np.float64]]) -> str:
    return digest({name: v.tolist() for name, v in values.items()})


def reference_of(found: Signals) -> Reference:
    """Take the distribution of these frames' signals as the reference."""

    def kept(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.sort(values[~np.isnan(values)])
        if len(known) > _REFERENCE_VALUES:
            known = np.quantile(known, np.linspace(0, 1, _REFERENCE_VALUES), method="nearest")
        return known

    plain = {name: kept(values) for name, values in found.items()}
    complete = Reference(plain, "").complete(found)
    values = {name: plain[name] if name in plain else kept(complete[name]) for name in SIGNAL_NAMES}
    return Reference(values, _digest_of(values))


def save_reference(reference: Reference, path: Place, store: Store) -> None:
    """Keep the distribution of the first frames that this committee scored, its digest inside.

    It stays as it is, so that nights can be compared, until ``mining calibrate`` makes another on purpose.
    """
    schema = pa.schema(
        [(name, pa.list_(pa.float64())) for name in SIGNAL_NAMES], {_DIGEST_KEY: reference.digest}
    )
    columns = {name: [values.tolist()] for name, values in reference.values.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=schema), sink)
    store.write_file(path, sink.getvalue().to_pybytes())
