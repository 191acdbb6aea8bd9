"""Did mining pay? The errors of labelled frames, mined arm against random arm, by slice and by signal. Pure functions.

Every interval is a percentile bootstrap of 95 %, seeded. Frames of one drive are alike, so drives are drawn, each with all its
frames, where the frames come from several; else frames are drawn, within each arm. A figure that cannot be computed is None,
and ``note`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]

RESAMPLES = 1000
SEED = 0
KINDS = ("missed", "false_alarms", "misplaced", "wrong_class")
ARMS = ("mined", "random")

_UNDEFINED_SHARE = 0.025
"""A figure that more resamples than this cannot have has no upper or no lower end."""
_RANKED_FROM = 10
_INTERVAL_FROM = {"frames": 8, "drives": 5}
"""Of fewer, no interval is given: three frames that happen to be alike would seem to know everything."""
_TRUSTED_FROM = {"frames": 20, "drives": 10}


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured frames: F rows."""

    batch: Sequence[str]
    arm: Sequence[str]
    slice: Sequence[str | None]
    drive: Sequence[str]
    objects: IntArray
    """[F] labelled boxes that count."""
    errors: Mapping[str, IntArray]
    """Kind -> [F]: the four of ``KINDS``."""
    percentiles: Mapping[str, Float64Array]
    """Signal -> [F] its percentile, NaN where it has none: the signals of ``weights``."""
    weights: Mapping[str, float]
    """Signal -> its weight in hardness."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and its 95 % interval; None where it cannot be had."""

    value: float | None
    low: float | None
    high: float | None
    note: str | None = None
    """Why something is None, or how far the interval can be trusted."""


@dataclass(frozen=True, slots=True)
class Group:
    """Counts over some frames."""

    name: str
    frames: int
    objects: int
    errors: int
    missed: int
    false_alarms: int
    misplaced: int
    wrong_class: int

    @property
    def per_frame(self) -> float | None:
        """Errors per labelled frame."""
        return self.errors / self.frames if self.frames else None

    @property
    def per_object(self) -> float | None:
        """Errors per labelled box."""
        return self.errors / self.objects if self.objects else None


@dataclass(frozen=True, slots=True)
class SignalWorth:
    """What one signal of hardness was worth on the measured frames."""

    signal: str
    weight: float
    correlation: Figure
    """Spearman's rank correlation of its percentile with errors."""
    blend_gain: Figure
    """Rank correlation of hardness with errors, less that of the blend without this signal. Above 0: it earned its weight."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that labels say about a batch, or about several."""

    frames: int
    drives: int
    drawn: str
    """What the bootstrap draws: ``drives`` or ``frames``."""
    arms: dict[str, Group]
    errors_per_frame: dict[str, Figure]
    """By arm."""
    errors_per_object: dict[str, Figure]
    lift_per_frame: Figure
    """Errors of the mined arm over those that as many frames would hold at the rate of their own batch's random arm. Batches
    differ in how hard they are and in their share of random frames: put together as one they would show a lift of their own.
    """
    lift_per_object: Figure
    """The same by labelled boxes."""
    by_slice: list[Group]
    """The mined arm, by the slice that a frame fills."""
    by_signal: list[Group]
    """The mined arm, by the signal of hardness that stands out most."""
    hardness: Figure
    """Rank correlation of hardness with errors, over all measured frames."""
    signals: list[SignalWorth] = field(default_factory=list)


def summarise(measured: Measured, *, resamples: int = RESAMPLES, seed: int = SEED) -> Summary:
    """Summarise measured frames. Two calls with the same rows give the same figures."""
    arm = np.asarray(measured.arm, np.str_)
    total = np.stack([measured.errors[kind] for kind in KINDS]).sum(axis=0)
    _, batch = np.unique(np.asarray(measured.batch, np.str_), return_inverse=True)
    cell = batch * len(ARMS) + (arm == "random")
    cells = (int(batch.max(initial=-1)) + 1, len(ARMS))
    _, drive = np.unique(np.asarray(measured.drive, np.str_), return_inverse=True)
    drives = int(drive.max(initial=-1)) + 1
    signals = list(measured.weights)
    # A percentile that could not be computed counts as the middle, as in hardness.
    middle = {name: np.nan_to_num(measured.percentiles[name], nan=0.5) for name in signals}
    rankable = np.column_stack([*_blends(middle, measured.weights), *middle.values()])

    def figures(rows: IntArray) -> Float64Array:
        """Every figure over these rows, in one order; NaN where there is none."""
        errors, frames, objects = (
            np.bincount(cell[rows], weights, minlength=cells[0] * cells[1]).reshape(cells).astype(np.float64)
            for weights in (total[rows], None, measured.objects[rows])
        )
        per_frame, per_object = (
            np.divide(errors.sum(axis=0), n, out=np.full(len(ARMS), np.nan), where=n > 0)
            for n in (frames.sum(axis=0), objects.sum(axis=0))
        )
        lifts = [_lift(errors, per) for per in (frames, objects)]
        if len(rows) < _RANKED_FROM:
            return np.array([*per_frame, *per_object, *lifts, *[np.nan] * (1 + 2 * len(signals))])
        whole, without, single = np.split(spearman(rankable[rows], total[rows]), [1, 1 + len(signals)])
        return np.array([*per_frame, *per_object, *lifts, *whole, *single, *(whole - without)])

    now = figures(np.arange(len(arm)))
    drawn = np.array([figures(rows) for rows in resampled(arm, drive, resamples, seed)]).reshape(-1, len(now))
    behind = [_behind(arm, drive, names) for names in (("mined",), ("random",), ARMS, ("any",))]
    mine, blind, both, any_arm = behind
    lacking = _lacking(arm, batch, total)
    ranked = (
        None if len(arm) >= _RANKED_FROM else f"ranks need {_RANKED_FROM} frames; {len(arm)} are measured"
    )
    notes = [
        *[lacking.get(name) for name in ARMS] * 2,
        *[lacking.get("lift")] * 2,
        *[ranked] * (len(now) - 6),
    ]
    stand_on = [mine, blind, mine, blind, both, both, *[any_arm] * (len(now) - 6)]
    found = [_figure(v, drawn[:, k], notes[k], stand_on[k]) for k, v in enumerate(now.tolist())]
    mined = np.flatnonzero(arm == "mined")
    count = len(signals)
    return Summary(
        frames=len(arm),
        drives=drives,
        drawn="drives" if drives > 1 else "frames",
        arms={name: _group(name, np.flatnonzero(arm == name), measured) for name in ARMS},
        errors_per_frame=dict(zip(ARMS, found[0:2], strict=True)),
        errors_per_object=dict(zip(ARMS, found[2:4], strict=True)),
        lift_per_frame=found[4],
        lift_per_object=found[5],
        by_slice=_groups([measured.slice[i] or "" for i in mined.tolist()], mined, measured),
        by_signal=_groups(_strongest(middle, mined), mined, measured),
        hardness=found[6],
        signals=[
            SignalWorth(name, measured.weights[name], found[7 + i], found[7 + count + i])
            for i, name in enumerate(signals)
        ],
    )


def resampled(arm: NDArray[np.str_], drive: IntArray, times: int, seed: int) -> Iterator[IntArray]:
    """Draw rows with replacement: whole drives where there are several, else frames within each arm."""
    rng = np.random.default_rng(seed)
    units: list[IntArray]
    if drive.max(initial=0) > 0:
        by_drive = np.argsort(drive, kind="stable")
        units = np.split(by_drive, np.flatnonzero(np.diff(drive[by_drive])) + 1)
        for _ in range(times):
            yield np.concatenate([units[i] for i in rng.integers(0, len(units), len(units)).tolist()])
        return
    units = [np.flatnonzero(arm == name) for name in ARMS]
    for _ in range(times):
        yield np.concatenate([rng.choice(rows, len(rows)) if len(rows) else rows for rows in units])


def spearman(values: Float64Array, target: NDArray[np.floating] | IntArray) -> Float64Array:
    """[k] Spearman's rank correlation of each column of [F, k] with [F], ties by mean rank; NaN where one does not vary."""
    from scipy.stats import rankdata  # imported here: it takes a second

    x, y = rankdata(values, axis=0), rankdata(target)
    x, y = x - x.mean(axis=0), y - y.mean()
    norm = np.sqrt((x * x).sum(axis=0) * (y @ y))
    with np.errstate(invalid="ignore"):
        return np.where(norm > 0, (x.T @ y) / norm, np.nan)


def _lift(errors: Float64Array, per: Float64Array) -> float:
    """Errors of the mined arm over those expected at the random arm's rate, batch by batch; NaN where nothing is expected.

    ``errors`` and ``per`` (frames, or objects) are [batches, 2]: mined, random. Standardisation to the mined arm's mix of
    batches, as epidemiology's standardised ratios are; with one batch, the quotient of the two rates.
    """
    mined, random = per[both := (per > 0).all(axis=1)].T
    expected = (mined * errors[both, 1] / random).sum()
    return float(errors[both, 0].sum() / expected) if expected > 0 else np.nan


def _blends(middle: Mapping[str, Float64Array], weights: Mapping[str, float]) -> list[Float64Array]:
    """Hardness, and then hardness without each of its signals; constant where nothing is left."""
    whole = np.sum([w * middle[name] for name, w in weights.items()], axis=0)
    return [
        whole,
        *(whole - w * middle[name] if len(weights) > 1 else 0 * whole for name, w in weights.items()),
    ]


def _strongest(middle: Mapping[str, Float64Array], rows: IntArray) -> list[str]:
    """Name the signal with the highest percentile of each row; the first by name where several have it."""
    names = sorted(middle)
    if not names:
        return [""] * len(rows)
    return [names[i] for i in np.argmax([middle[name][rows] for name in names], axis=0).tolist()]


def _group(name: str, rows: IntArray, measured: Measured) -> Group:
    kinds = {kind: int(measured.errors[kind][rows].sum()) for kind in KINDS}
    return Group(name, len(rows), int(measured.objects[rows].sum()), sum(kinds.values()), **kinds)


def _groups(names: Sequence[str], rows: IntArray, measured: Measured) -> list[Group]:
    """One group a name, the one with the most frames first."""
    of = np.asarray(names, np.str_)
    found = [_group(str(name), rows[of == name], measured) for name in np.unique(of)]
    return sorted(found, key=lambda group: (-group.frames, group.name))


def _lacking(arm: NDArray[np.str_], batch: IntArray, total: IntArray) -> dict[str, str]:
    """Say what keeps an arm's rates, or the lift, from being computed."""
    lacking = {name: f"no frame of the {name} arm is measured" for name in ARMS if not (arm == name).any()}
    if lacking:
        lacking["lift"] = "; ".join(lacking.values())
    elif not np.intersect1d(batch[arm == "mined"], batch[arm == "random"]).size:
        lacking["lift"] = "no batch has measured frames of both arms"
    elif not total[arm == "random"].any():
        lacking["lift"] = "the frames of the random arm hold no error: nothing to divide by"
    return lacking


def _behind(arm: NDArray[np.str_], drive: IntArray, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Why no interval can stand on these arms, and how far one can be trusted; None where nothing is to be said.

    ``("any",)`` is all frames, whatever their arm.
    """
    refuse, doubt = None, None
    for name in names:
        rows = np.flatnonzero((arm == name) | (name == "any"))
        units = {"frames": len(rows)}
        if drive.max(initial=0) > 0:
            units["drives"] = len(np.unique(drive[rows]))
        for unit, count in units.items():
            said = f"{count} {unit}" + ("" if name == "any" else f" of the {name} arm")
            if count < _INTERVAL_FROM[unit]:
                refuse = refuse or f"only {said}: too few for an interval"
            elif count < _TRUSTED_FROM[unit]:
                doubt = doubt or f"only {said}: the interval is a rough guide, likely too narrow"
    return refuse, doubt


def _figure(
    value: float, drawn: Float64Array, lacking: str | None, behind: tuple[str | None, str | None]
) -> Figure:
    if np.isnan(value):
        return Figure(None, None, None, lacking or "it does not vary, or there is nothing to count")
    refuse, doubt = behind
    undefined = np.isnan(drawn)
    if refuse is None and undefined.mean() > _UNDEFINED_SHARE:
        refuse = "too few errors for an interval: many resamples have no such figure"
    if refuse is not None:
        return Figure(value, None, None, refuse)
    low, high = np.quantile(drawn[~undefined], [0.025, 0.975]).tolist()
    return Figure(value, low, high, doubt)
