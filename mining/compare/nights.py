"""Two nights (or runs of nights) under one committee: which is harder, and is it the mix of footage or the footage itself?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mining.committee import Committee, committee_of
from mining.compare import stats
from mining.compare.rows import Dimension, Figure, Frames, classes_of, figures, read
from mining.config import Config
from mining.schemas import SIGNALS
from mining.store import Store, sql_file
from mining.types import Nights, UsageError, nights_of

_COLUMNS = ("is_after", "hardness", "classes", *(name for name, _ in SIGNALS))
_NAMED = 5
Sides = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Which of the frames are of before, and which of after."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one night holds."""

    nights: str
    """As 2026-03-14, or 2026-03-01..2026-03-07."""
    recordings: int
    unreadable_recordings: int
    drives: int
    vehicles: int
    hours: float
    """Length of its recordings."""
    frames: int
    """Sampled."""
    failed_frames: int
    repeated_frames: int
    """That show the picture of the one before."""
    scored_frames: int
    compared_frames: int
    """With a hardness: those that are compared."""
    mean_hardness: float
    hard_share: float
    """Of the compared frames, those of ``hard_from`` or more."""
    deciles: list[float]
    """Hardness that 10, 20, ... 90 % of the frames stay below."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The frames of one kind, before and after."""

    dimension: str
    value: str
    frames: tuple[int, int]
    drives: tuple[int, int]
    share: tuple[float, float]
    share_change: Figure
    hardness: tuple[float | None, float | None]
    """Mean."""
    hardness_change: Figure


@dataclass(frozen=True, slots=True)
class SignalChange:
    """How one signal moved."""

    signal: str
    of_hardness: bool
    """Whether the config blends it."""
    median: tuple[float | None, float | None]
    above: Figure
    """Probability that a frame of after has more of it than one of before, ties counted half; .5 is no difference."""


@dataclass(frozen=True, slots=True)
class NightComparison:
    """Two nights."""

    committee_id: str
    reference_id: str | None
    """What the percentiles of both are taken against."""
    before: Side
    after: Side
    hard_from: float
    hardness_change: Figure
    """Of the mean; judged by itself."""
    hard_share_change: Figure
    within: Figure
    """What slices that both have changed by: see ``stats.decompose``."""
    mix: Figure
    only_one_side: Figure
    shared_slices: tuple[float, float]
    """Share of each side's frames in slices that both have."""
    slices_by: tuple[str, ...]
    slices: list[Kind]
    """The largest first."""
    kinds: list[Kind]
    """By each dimension, and by class seen, where one frame may be of several."""
    signals: list[SignalChange]
    """The strongest first."""
    left_out: tuple[str, ...]
    """What has too many values to part frames by."""


def compare(
    store: Store, config: Config, before: Nights, after: Nights, by: Sequence[str] = ()
) -> NightComparison:
    """Compare two nights, or runs of nights, under the config's committee.

    Raises:
        UsageError: they overlap, hold nothing that this committee scored, or were scored against different references.
    """
    if before[0] <= after[1] and after[0] <= before[1]:
        raise UsageError(f"{named(before)} and {named(after)} overlap: name nights that do not")
    committee = committee_of(config)
    span = min(before[0], after[0]), max(before[1], after[1])
    asked = {
        "committee_id": committee.committee_id,
        "before_first": before[0], "before_last": before[1], "after_first": after[0], "after_last": after[1],
    }  # fmt: skip
    with store.connect(nights=span) as con:
        facts = con.sql(sql_file("compare_nights"), params=asked).to_arrow_table().to_pylist()
        _check(store, committee, (before, after), facts)
        relation = con.sql(sql_file("compare_frames"), params=asked).set_alias("mined")
        frames = read(con, relation, _COLUMNS, config.select, by)
    return _compared(config, committee, (before, after), facts, frames)


def span_of(text: str) -> Nights | None:
    """Read what may be nights; None for a text that is none, such as a committee's id.

    Raises:
        UsageError: it looks like nights, and there are no such days.
    """
    return nights_of(text, "night") if re.match(r"\d{4}-\d\d-\d\d(\.\.|$)", text) else None


def named(nights: Nights) -> str:
    """Write nights as people do."""
    return str(nights[0]) if nights[0] == nights[1] else f"{nights[0]}..{nights[1]}"


def _check(
    store: Store, committee: Committee, spans: tuple[Nights, Nights], facts: list[dict[str, Any]]
) -> None:
    for nights, fact in zip(spans, facts, strict=True):
        if not fact["recordings"]:
            known = store.nights("index")
            some = ", ".join(map(str, known[-_NAMED:])) or "none yet"
            raise UsageError(
                f"{named(nights)}: {store.root} holds no footage of then; it holds {len(known)} nights"
                f"{', the latest' if len(known) > _NAMED else ''}: {some}"
            )
        if not fact["scored_frames"]:
            others = _committees(store, nights)
            scored_by = f"; scored by {', '.join(others)}: name the config of one" if others else ""
            raise UsageError(
                f"{named(nights)}: none of its {fact['frames']} frames is scored by {committee.committee_id}{scored_by or '; `mining run` scores them'}"
            )
    references = sorted({name or "none" for fact in facts for name in fact["reference_ids"]})
    if len(references) > 1:
        raise UsageError(
            f"{named(spans[0])} and {named(spans[1])} hold scores against {len(references)} references ({', '.join(references)}), "
            "which do not compare; `mining score --config CONFIG.toml` scores them against one"
        )


def _committees(store: Store, nights: Nights) -> list[str]:
    with store.connect(nights=nights) as con:
        rows = con.execute(
            "SELECT DISTINCT committee_id FROM scores WHERE night BETWEEN ? AND ? ORDER BY ALL", list(nights)
        ).fetchall()
    return [name for (name,) in rows]


def _compared(
    config: Config,
    committee: Committee,
    spans: tuple[Nights, Nights],
    facts: list[dict[str, Any]],
    frames: Frames,
) -> NightComparison:
    hardness = frames.column("hardness").astype(np.float64)
    is_after = frames.column("is_after").astype(bool)
    for nights, rows in zip(spans, (~is_after, is_after), strict=True):
        if not rows.any():
            raise UsageError(
                f"{named(nights)}: no frame has a hardness: the committee's first detector saw none of them"
            )
    sides = ~is_after, is_after
    hard = (hardness >= config.scenes.min_hardness).astype(np.float64)
    overall = []
    for values in (hardness, hard):
        counts, totals = _summed(frames, sides, frames.whole, values)
        means = [stats.means_of(totals[side], counts[side]) for side in (0, 1)]
        overall += figures(stats.difference(*means), one_by_one=True)

    counts, totals = _summed(frames, sides, frames.slices, hardness)
    parts = figures(stats.decomposition((counts[0], counts[1]), (totals[0], totals[1])), one_by_one=True)
    shared = (counts[0].sum(axis=0) > 0) & (counts[1].sum(axis=0) > 0)
    dimensions = [frames.slices, *frames.dimensions]
    classes = classes_of(frames.table["classes"])
    dimensions += [Dimension("class", (name,), np.where(has, 0, -1)) for name, has in classes.items()]
    kinds = [
        *_kinds(frames, sides, dimensions[:1], hardness),
        *_kinds(frames, sides, dimensions[1:], hardness),
    ]
    return NightComparison(
        committee_id=committee.committee_id,
        reference_id=facts[0]["reference_ids"][0],
        before=_side(spans[0], facts[0], hardness[~is_after], hard[~is_after]),
        after=_side(spans[1], facts[1], hardness[is_after], hard[is_after]),
        hard_from=config.scenes.min_hardness,
        hardness_change=overall[0],
        hard_share_change=overall[1],
        within=parts[1],
        mix=parts[2],
        only_one_side=parts[3],
        shared_slices=(
            float(counts[0][:, shared].sum() / counts[0].sum()),
            float(counts[1][:, shared].sum() / counts[1].sum()),
        ),
        slices_by=frames.slices_by,
        slices=sorted(
            (kind for kind in kinds if kind.dimension == "slice"), key=lambda kind: -sum(kind.frames)
        ),
        kinds=[kind for kind in kinds if kind.dimension != "slice"],
        signals=_signals(frames, is_after, config.score.hardness),
        left_out=frames.too_many,
    )


def _summed(
    frames: Frames, sides: Sides, dimension: Dimension, values: stats.Float64Array
) -> tuple[list[stats.Float64Array], list[stats.Float64Array]]:
    """Of each side, [D, K] frames by drive and kind, and [D, K] sums of ``values`` [F] over them."""
    size = len(frames.drives), len(dimension.values)
    parted = [(frames.drive[rows], dimension.of[rows], values[rows]) for rows in sides]
    counts = [stats.by_drive(drive, of, *size) for drive, of, _ in parted]
    return counts, [stats.by_drive(drive, of, *size, value) for drive, of, value in parted]


def _side(
    nights: Nights, fact: dict[str, Any], hardness: stats.Float64Array, hard: stats.Float64Array
) -> Side:
    told = {name: value for name, value in fact.items() if name != "reference_ids"}
    deciles = np.quantile(hardness, np.arange(1, 10) / 10).tolist()
    return Side(
        nights=named(nights), **told, compared_frames=len(hardness), mean_hardness=float(hardness.mean()),
        hard_share=float(hard.mean()), deciles=deciles,
    )  # fmt: skip


def _kinds(
    frames: Frames, sides: Sides, dimensions: Sequence[Dimension], hardness: stats.Float64Array
) -> list[Kind]:
    """Compare every kind of these dimensions; they are judged together."""
    each = [_summed(frames, sides, dimension, hardness) for dimension in dimensions]
    if not each:
        return []
    counts, totals = (
        [np.concatenate([one[i][side] for one in each], axis=1) for side in (0, 1)] for i in (0, 1)
    )
    shares = [
        stats.means_of(counts[side], _summed(frames, sides, frames.whole, hardness)[0][side])
        for side in (0, 1)
    ]
    means = [stats.means_of(totals[side], counts[side]) for side in (0, 1)]
    share_changes, changes = figures(stats.difference(*shares)), figures(stats.difference(*means))
    names = [(one.name, value) for one in dimensions for value in one.values]
    return [
        Kind(
            dimension,
            value,
            frames=(int(counts[0][:, k].sum()), int(counts[1][:, k].sum())),
            drives=(int((counts[0][:, k] > 0).sum()), int((counts[1][:, k] > 0).sum())),
            share=(float(shares[0].value[k]), float(shares[1].value[k])),
            share_change=share_changes[k],
            hardness=(_known(means[0].value[k]), _known(means[1].value[k])),
            hardness_change=changes[k],
        )
        for k, (dimension, value) in enumerate(names)
    ]


def _signals(frames: Frames, is_after: NDArray[np.bool_], weights: dict[str, float]) -> list[SignalChange]:
    names, medians, above, without = [], [], [], []
    for name, _ in SIGNALS:
        values = frames.column(name)
        known = ~np.isnan(values)
        sides = [values[known & rows] for rows in (~is_after, is_after)]
        if not all(map(len, sides)):
            continue
        probability, left_out = stats.superiority(
            values[known], is_after[known], frames.drive[known], len(frames.drives)
        )
        names.append(name)
        medians.append((float(np.median(sides[0])), float(np.median(sides[1]))))
        above.append(probability)
        without.append(left_out)
    left = [np.stack([one[side] for one in without], axis=1) for side in (0, 1)] if names else []
    estimates = stats.jackknife(np.array(above), left, null=0.5)
    found = figures(replace(estimates, low=np.maximum(estimates.low, 0), high=np.minimum(estimates.high, 1)))
    changes = [SignalChange(name, name in weights, medians[i], found[i]) for i, name in enumerate(names)]
    return sorted(changes, key=lambda change: -abs((change.above.value or 0.5) - 0.5))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
