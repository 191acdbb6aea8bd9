"""Two committees on the same footage: for which frames did the place among all frames change, and do they agree?

Hardness is a blend of percentiles against each committee's own reference, so its level says nothing across committees: both have
a mean near the middle of their reference. What compares is the order. So every frame gets its place among the frames that both
scored, by the hardness of either (0 the easiest, 1 the hardest), and its shift is compared; the mean shift over all is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from mining.compare import stats
from mining.compare.rows import Dimension, Figure, Frames, classes_of, figures, read
from mining.config import Config
from mining.store import Store, sql_file
from mining.types import Nights, UsageError

CLAIMS = (
    "box_count", "expected_missed", "expected_false", "committee_missed", "committee_false", "committee_errors",
    "box_disagreement_mean", "edge_deviation_px_mean",
)  # fmt: skip
"""Signals in units that mean the same for every committee: boxes, objects, overlap, pixels. Each is what a committee believes
of itself; a detector that is too sure of itself expects too few errors."""
_SHARES = (0.01, 0.1)
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of the hardest frames are the same."""

    size: int
    """Frames in each of the two tops."""
    same: int
    what: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A frame whose place changed much."""

    frame_id: str
    drive_id: str
    captured_at: datetime
    place: tuple[float, float]
    hardness: tuple[float, float]
    signal: str | None
    """Signal of hardness that moved the most in the same direction, by its percentiles; None where none did."""
    percentile: tuple[float, float] | None
    """Of that signal, each against its committee's own reference."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How the frames of one kind moved."""

    dimension: str
    value: str
    frames: int
    drives: int
    shift: Figure
    """Mean change of place; all frames together have 0."""


@dataclass(frozen=True, slots=True)
class Sight:
    """In how many frames each committee sees a class, any member at its threshold."""

    name: str
    only_before: int
    only_after: int
    both: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The mean of one signal in its own unit."""

    signal: str
    frames: int
    mean: tuple[float, float]
    change: Figure


@dataclass(frozen=True, slots=True)
class CommitteeComparison:
    """Two committees."""

    before: str
    after: str
    nights: str | None
    """The nights that were asked for; None for all."""
    references: tuple[str | None, str | None]
    frames: int
    """That both gave a hardness: those that are compared."""
    drives: int
    only_before: int
    """Frames that the other gave no hardness."""
    only_after: int
    rank_correlation: float | None
    """Spearman's, of the two hardnesses; None where one does not vary."""
    overlaps: list[Overlap]
    batches: tuple[str | None, str | None]
    """The newest batch that each chose."""
    harder: list[Moved]
    """The frames that moved up most, of each drive and camera at most one within ``select.min_gap_s``."""
    easier: list[Moved]
    shifts: list[Shift]
    """By slice, dimension, drive and class that either sees."""
    sights: list[Sight]
    claims: list[Claim]
    slices_by: tuple[str, ...]
    left_out: tuple[str, ...]


def compare(
    store: Store,
    config: Config,
    before: str,
    after: str,
    *,
    nights: Nights | None = None,
    by: Sequence[str] = (),
    top: int = 10,
) -> CommitteeComparison:
    """Compare two committees on the frames that both scored.

    Args:
        store: holds the scores of both.
        config: names the signals of hardness, the quotas, the budget and the gap between chosen frames.
        before: a committee's id, or enough of its beginning or of its end.
        after: likewise.
        nights: only frames of these.
        by: see ``rows.read``.
        top: frames to name in each direction.

    Raises:
        UsageError: no such committee, or no frame that both scored, or scores of one against several references.
    """
    known = sorted({marker["committee_id"] for marker in store.markers("score").values()})
    before, after = _committee(store, known, before), _committee(store, known, after)
    if before == after:
        raise UsageError(f"both are {before}: name two committees; scored have {', '.join(known)}")
    first, last = nights or (date.min, date.max)
    span = {"first": first, "last": last}
    with store.connect(nights=nights) as con:
        sql = sql_file("compare_committees")
        found = (
            con.sql(sql, params={"before": before, "after": after, **span}).to_arrow_table().to_pylist()[0]
        )
        references = _references(before, after, found)
        if not found["both"]:
            raise UsageError(
                f"no frame was scored by both {before} ({found['only_before']} frames) and {after} ({found['only_after']} frames); "
                "`mining run` with either's config scores the other's footage"
            )
        signals = list(dict.fromkeys([*(f"{name}_pct" for name in config.score.hardness), *CLAIMS]))
        compared = con.sql(
            sql_file("compare_frames"),
            params={
                "committee_id": before,
                "before_first": first,
                "before_last": last,
                "after_first": first,
                "after_last": last,
            },
        )
        other = con.sql(
            "SELECT frame_id AS id_after, night AS night_after, hardness AS hardness_after, classes AS classes_after, "
            + ", ".join(f"{name} AS {name}_after" for name in signals)
            + " FROM scores WHERE committee_id = $after AND hardness IS NOT NULL AND night BETWEEN $first AND $last",
            params={"after": after, **span},
        )
        paired = compared.join(other, "frame_id = id_after AND night = night_after")
        paired = paired.order("frame_id").set_alias("mined")  # so that equals always come in one order
        columns = [
            name for of_both in ("hardness", "classes", *signals) for name in (of_both, f"{of_both}_after")
        ]
        frames = read(
            con,
            paired,
            ["frame_id", "camera", "captured_at", *columns],
            config.select,
            by,
        )
    return _compared(store, config, (before, after), references, found, frames, nights, top)


def _committee(store: Store, known: Sequence[str], text: str) -> str:
    matching = [name for name in known if name == text] or [
        name for name in known if text and (name.startswith(text) or name.endswith(text))
    ]
    if len(matching) == 1:
        return matching[0]
    what = "several committees are" if matching else "no night (write 2026-03-14) and no committee is"
    some = matching or known
    listed = ", ".join(some[:_NAMED]) + (f" and {len(some) - _NAMED} more" if len(some) > _NAMED else "")
    raise UsageError(f"{what} called {text!r} in {store.root}; scored have {listed or 'none yet'}")


def _references(before: str, after: str, found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    for name, references in ((before, found["references_before"]), (after, found["references_after"])):
        if len(references or ()) > 1:
            raise UsageError(
                f"{name} holds scores against {len(references)} references ({', '.join(references)}), which do not compare; "
                "`mining score` with its config scores them against one, or name nights of one with --nights"
            )
    one, other = ((found[f"references_{side}"] or [None])[0] for side in ("before", "after"))
    return one, other


def _compared(
    store: Store,
    config: Config,
    committees: tuple[str, str],
    references: tuple[str | None, str | None],
    found: Mapping[str, Any],
    frames: Frames,
    nights: Nights | None,
    top: int,
) -> CommitteeComparison:
    hardness = frames.column("hardness"), frames.column("hardness_after")
    place = stats.places(hardness[0]), stats.places(hardness[1])
    shift = place[1] - place[0]
    seen = [classes_of(frames.table[name]) for name in ("classes", "classes_after")]
    absent = np.zeros(len(frames), bool)
    names = sorted(set(seen[0]) | set(seen[1]))
    sees = {name: (seen[0].get(name, absent), seen[1].get(name, absent)) for name in names}
    correlation = float(np.corrcoef(*place)[0, 1]) if all(np.ptp(one) > 0 for one in place) else None
    return CommitteeComparison(
        *committees,
        nights=None if nights is None else "..".join(map(str, nights)),
        references=references,
        frames=len(frames),
        drives=len(frames.drives),
        only_before=found["only_before"],
        only_after=found["only_after"],
        rank_correlation=correlation,
        overlaps=_overlaps(hardness, config.select.budget),
        batches=(_newest_batch(store, committees[0]), _newest_batch(store, committees[1])),
        harder=_moved(frames, place, config, np.argsort(-shift, kind="stable"), 1, top),
        easier=_moved(frames, place, config, np.argsort(shift, kind="stable"), -1, top),
        shifts=_shifts(frames, shift, {name: one | other for name, (one, other) in sees.items()}),
        sights=[
            Sight(name, int((a & ~b).sum()), int((b & ~a).sum()), int((a & b).sum()))
            for name, (a, b) in sees.items()
        ],
        claims=_claims(frames),
        slices_by=frames.slices_by,
        left_out=frames.too_many,
    )


def _overlaps(hardness: tuple[Any, Any], budget: int) -> list[Overlap]:
    count = len(hardness[0])
    sizes = {
        f"select.budget, {budget}": budget,
        **{f"{share:.0%}": round(share * count) for share in _SHARES},
    }
    return [
        Overlap(size, stats.in_both_tops(*hardness, size), what)
        for what, size in sizes.items()
        if 0 < size < count
    ]


def _newest_batch(store: Store, committee_id: str) -> str | None:
    chosen = [
        (marker["chosen_at"], name)
        for (_, name), marker in store.markers("select").items()
        if marker["committee_id"] == committee_id
    ]
    return max(chosen)[1] if chosen else None


def _moved(
    frames: Frames, place: tuple[Any, Any], config: Config, order: stats.IntArray, sign: int, top: int
) -> list[Moved]:
    """Name the first frames of an order that moved in the direction ``sign``, no two of one moment."""
    at_us = frames.table["captured_at"].cast(pa.int64()).to_numpy()
    camera = frames.table["camera"]
    taken: dict[tuple[int, str], list[int]] = {}
    rows: list[int] = []
    for row in order.tolist():
        if len(rows) == top or sign * (place[1][row] - place[0][row]) <= 0:
            break
        near = taken.setdefault((int(frames.drive[row]), camera[row].as_py()), [])
        if all(abs(int(at_us[row]) - at) >= config.select.min_gap_s * 1e6 for at in near):
            near.append(int(at_us[row]))
            rows.append(row)
    picked = frames.table.take(pa.array(rows, pa.int64())).to_pylist()
    moved = []
    for row, told in zip(rows, picked, strict=True):
        steps = {
            name: weight * sign * (told[f"{name}_pct_after"] - told[f"{name}_pct"])
            for name, weight in config.score.hardness.items()
            if told[f"{name}_pct"] is not None and told[f"{name}_pct_after"] is not None
        }
        most = max(steps, key=lambda name: steps[name], default=None)
        if most is not None and steps[most] <= 0:
            most = None
        moved.append(
            Moved(
                told["frame_id"], told["drive_id"], told["captured_at"].astimezone(UTC),
                place=(float(place[0][row]), float(place[1][row])),
                hardness=(told["hardness"], told["hardness_after"]),
                signal=most,
                percentile=None if most is None else (told[f"{most}_pct"], told[f"{most}_pct_after"]),
            )
        )  # fmt: skip
    return moved


def _shifts(frames: Frames, shift: stats.Float64Array, sees: Mapping[str, Any]) -> list[Shift]:
    dimensions = [frames.slices, *frames.dimensions, Dimension("drive", frames.drives, frames.drive)]
    dimensions += [Dimension("class", (name,), np.where(seen, 0, -1)) for name, seen in sees.items()]
    sizes = [(len(frames.drives), len(one.values)) for one in dimensions]
    counts = np.concatenate(
        [stats.by_drive(frames.drive, d.of, *s) for d, s in zip(dimensions, sizes, strict=True)], axis=1
    )
    totals = np.concatenate(
        [stats.by_drive(frames.drive, d.of, *s, shift) for d, s in zip(dimensions, sizes, strict=True)],
        axis=1,
    )
    means = stats.means_of(totals, counts)
    found = figures(stats.jackknife(means.value, [means.left_out]))
    names = [(one.name, value) for one in dimensions for value in one.values]
    return [
        Shift(*names[k], int(counts[:, k].sum()), int((counts[:, k] > 0).sum()), found[k])
        for k in range(len(names))
    ]


def _claims(frames: Frames) -> list[Claim]:
    """Compare what both claim, on the frames for which both have a value."""
    whole, drives = frames.whole, len(frames.drives)
    names, numbers, means, changes = [], [], [], []
    for name in CLAIMS:
        one, other = (frames.column(column).astype(np.float64) for column in (name, f"{name}_after"))
        known = np.where(np.isnan(one) | np.isnan(other), -1, whole.of)
        counts = stats.by_drive(frames.drive, known, drives, 1)
        if not counts.sum():
            continue
        names.append(name)
        numbers.append(int(counts.sum()))
        means.append((float(one[known == 0].mean()), float(other[known == 0].mean())))
        changes.append(stats.means_of(stats.by_drive(frames.drive, known, drives, 1, other - one), counts))
    if not names:
        return []
    value = np.concatenate([change.value for change in changes])
    found = figures(stats.jackknife(value, [np.concatenate([change.left_out for change in changes], axis=1)]))
    return [Claim(*row) for row in zip(names, numbers, means, found, strict=True)]
