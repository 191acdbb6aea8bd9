"""A comparison as people read it: what is said first, then tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill
from typing import Any, TypeVar

from mining.compare.committees import CommitteeComparison, Moved
from mining.compare.nights import Kind, NightComparison, SignalChange
from mining.compare.rows import Figure, rows_of
from mining.compare.stats import LEAST_DRIVES
from mining.text import one_line

_WIDTH, _NAME = 100, 34
_ROWS, _OF_EACH = 12, 6
_T = TypeVar("_T")
_STARS = (
    "[ ] is the 95 % interval of each figure by itself; drives are what varies, not frames. * is more than\n"
    "noise: of a table's stars at most 5 % are false finds (Benjamini and Hochberg). What has no interval\n"
    f"cannot be told: it lies in fewer than {LEAST_DRIVES} drives, or does not vary."
)


def as_dict(found: NightComparison | CommitteeComparison) -> dict[str, Any]:
    """Give a comparison as JSON values; ``says`` is its first sentence."""
    kind, says = (
        ("nights", night_sentence(found))
        if isinstance(found, NightComparison)
        else ("committees", committee_sentence(found))
    )
    return {"compares": kind, "says": says, **rows_of(found)}


def text(found: NightComparison | CommitteeComparison) -> str:
    """Say it on a page."""
    return "\n".join(_nights(found) if isinstance(found, NightComparison) else _committees(found))


# -- nights ----------------------------------------------------------------------------------------------------------


def night_sentence(found: NightComparison) -> str:
    """Say in one sentence which night is harder, and why."""
    before, after, change = found.before, found.after, found.hardness_change
    means = f"mean hardness {before.mean_hardness:.3f} -> {after.mean_hardness:.3f}"
    if change.told is None:
        return (
            f"Whether {after.nights} is harder than {before.nights} cannot be told: {means} ({_signed(change)}), and frames of "
            f"{before.drives} and {after.drives} drives do not say how much drives vary."
        )
    if not change.told:
        return f"Between {before.nights} and {after.nights} there is no difference that is more than noise: {means} ({_signed(change)})."
    how = "harder" if (change.value or 0) > 0 else "easier"
    if not found.slices_by:
        return f"{after.nights} is {how} than {before.nights}: {means} ({_signed(change)})."
    parts = [f"{_plain(found.within)} within slices", f"{_plain(found.mix)} from the mix of slices"]
    if found.shared_slices != (1.0, 1.0):
        parts.append(f"{_plain(found.only_one_side)} from slices that only one of them has")
    return f"{after.nights} is {how} than {before.nights}: {means} ({_signed(change)}); of it {', '.join(parts)}."


def _nights(found: NightComparison) -> list[str]:
    before, after = found.before, found.after
    lines = [fill(one_line(night_sentence(found)), _WIDTH), f"Committee {one_line(found.committee_id)}.", ""]
    lines.append(f"{'':{_NAME}} {before.nights:>23} {after.nights:>23}")
    for what in (
        "recordings",
        "unreadable_recordings",
        "drives",
        "vehicles",
        "frames",
        "failed_frames",
        "repeated_frames",
        "compared_frames",
    ):
        lines.append(
            f"{what.replace('_', ' '):{_NAME}} {getattr(before, what):>23} {getattr(after, what):>23}"
        )
    lines += [
        f"{'hours of footage':{_NAME}} {before.hours:>23.1f} {after.hours:>23.1f}",
        f"{'mean hardness':{_NAME}} {before.mean_hardness:>23.3f} {after.mean_hardness:>23.3f}",
        f"  change {_signed(found.hardness_change)}{_star(found.hardness_change)}",
        f"{f'frames of hardness {found.hard_from:g} or more':{_NAME}} {before.hard_share:>23.1%} {after.hard_share:>23.1%}",
        f"  change {_signed(found.hard_share_change, '.1%')}{_star(found.hard_share_change)}",
        "",
        f"{'deciles of hardness':{_NAME}}" + "".join(f"{10 * i:>6} %"[:7].rjust(7) for i in range(1, 10)),
        *(
            f"  {side.nights:{_NAME - 2}}" + "".join(f"{value:7.2f}" for value in side.deciles)
            for side in (before, after)
        ),
        "",
    ]
    if found.slices_by:
        lines += [
            fill(
                f"Slices are made by {', '.join(map(one_line, found.slices_by))}; {found.shared_slices[0]:.0%} and "
                f"{found.shared_slices[1]:.0%} of the frames lie in slices that both have.",
                _WIDTH,
            ),
            f"  the same slices changed by              {_signed(found.within)}{_star(found.within)}",
            f"  their mix changed it by                 {_signed(found.mix)}{_star(found.mix)}",
            f"  slices that only one of them has, by    {_signed(found.only_one_side)}{_star(found.only_one_side)}",
            "",
            *_kinds("slice", found.slices, _ROWS),
        ]
    for dimension in dict.fromkeys(kind.dimension for kind in found.kinds):
        of_this = sorted((k for k in found.kinds if k.dimension == dimension), key=_told_first)
        if dimension == "class" or (len(of_this) > 1 and (dimension,) != found.slices_by):
            lines += _kinds(dimension, of_this, _ROWS if dimension == "class" else _OF_EACH)
    lines += _left_out(found.left_out)
    lines += [
        f"{'signal':{_NAME}} {'median':>24}   chance of more of it (0.5: alike)",
        *(_signal(one) for one in found.signals if one.of_hardness),
        *_some([one for one in found.signals if not one.of_hardness], _OF_EACH, _signal),
        f"Signals of hardness come first. Chance: that a frame of {after.nights} has more of it than one of",
        f"{before.nights}, ties counted half.",
        "",
        _STARS,
    ]
    return lines


def _kinds(title: str, kinds: Sequence[Kind], limit: int) -> list[str]:
    lines = [f"{_short(title):{_NAME}} {'share of frames':>19}  {'mean hardness':>15}   change of hardness"]
    for kind in kinds[:limit]:
        shares = f"{kind.share[0]:.1%} -> {kind.share[1]:.1%}{'*' if kind.share_change.told else ' '}"
        means = " -> ".join("-" if mean is None else f"{mean:.2f}" for mean in kind.hardness)
        lines.append(
            f"  {_short(kind.value, _NAME - 2):{_NAME - 2}} {shares:>20} {means:>15}   "
            f"{_signed(kind.hardness_change, '.2f')}{_star(kind.hardness_change)}"
        )
    if len(kinds) > limit:
        lines.append(f"  and {len(kinds) - limit} more: --json has all")
    return [*lines, ""]


def _signal(one: SignalChange) -> str:
    medians = " -> ".join("-" if m is None else f"{m:.4g}" for m in one.median)
    above = one.above
    interval = "" if above.low is None else f" [{above.low:.2f}, {above.high:.2f}]"
    return f"  {one.signal:{_NAME - 2}} {medians:>24}   {above.value:.2f}{interval}{_star(above)}"


# -- committees ------------------------------------------------------------------------------------------------------


def committee_sentence(found: CommitteeComparison) -> str:
    """Say in one sentence whether two committees find the same frames hard."""
    agreed = (
        ""
        if found.rank_correlation is None
        else f"rank correlation of hardness {found.rank_correlation:.2f}; "
    )
    top = next(iter(found.overlaps), None)
    same = "" if top is None else f"{top.same} of the {top.size} hardest frames are the same; "
    return (
        f"{found.before} -> {found.after}: {agreed}{same}{found.frames} frames of {found.drives} drives, that both scored, are "
        "compared."
    )


def _committees(found: CommitteeComparison) -> list[str]:
    lines = [
        fill(one_line(committee_sentence(found)), _WIDTH),
        "Hardness is a blend of ranks against each committee's own reference: levels do not compare, orders",
        "do. So a frame has a place with each, from 0 (the easiest of these) to 1 (the hardest); all together",
        "move by 0. Which committee errs less only labels tell: `mining measure`.",
        "",
        f"before (A) {one_line(found.before)}: {found.only_before} frames that only it scored",
        f"after  (B) {one_line(found.after)}: {found.only_after} frames that only it scored",
        *(
            f"of the {o.size} hardest ({o.what}) the same: {o.same}, {o.same / o.size:.0%}"
            for o in found.overlaps
        ),
    ]
    if None not in found.batches:
        lines.append(
            f"their newest batches: `mining diff {found.batches[0]} {found.batches[1]} --store STORE`"
        )
    lines += ["", *_moved("harder with B", found.harder), *_moved("easier with B", found.easier)]
    for dimension in dict.fromkeys(shift.dimension for shift in found.shifts):
        of_this = sorted(
            (s for s in found.shifts if s.dimension == dimension),
            key=lambda s: (not s.shift.told, -abs(s.shift.value or 0)),
        )
        if dimension != "class" and (len(of_this) < 2 or (dimension,) == found.slices_by):
            continue
        title = f"slice: {', '.join(found.slices_by)}" if dimension == "slice" else dimension
        lines.append(f"{_short(title, 44):44} {'frames':>8} {'drives':>7}   mean change of place")
        lines += _some(
            of_this, _ROWS if dimension == "class" else _OF_EACH,
            lambda s: f"  {_short(s.value, 42):42} {s.frames:>8} {s.drives:>7}   {_signed(s.shift, '.2f')}{_star(s.shift)}",
        )  # fmt: skip
        lines.append("")
    lines += _left_out(found.left_out)
    if found.sights:
        lines += [f"{'class':44} {'only A sees it':>16} {'both':>10} {'only B sees it':>16}   frames"]
        lines += [
            f"  {_short(s.name, 42):42} {s.only_before:>16} {s.both:>10} {s.only_after:>16}"
            for s in found.sights
        ]
        lines.append("")
    lines += [
        f"{'what each believes, a frame':{_NAME}} {'A':>12} {'B':>12}   change",
        *(
            f"  {c.signal:{_NAME - 2}} {c.mean[0]:>12.3f} {c.mean[1]:>12.3f}   {_signed(c.change)}{_star(c.change)}"
            for c in found.claims
        ),
        "Boxes, objects, 1 - IoU, pixels; of the first detector at its threshold. To expect fewer errors is not",
        "to make fewer.",
        "",
        _STARS,
    ]
    return lines


def _moved(title: str, frames: Sequence[Moved]) -> list[str]:
    lines = [f"{title:29} {'place':>12}  {'captured at (UTC)':19} drive, and the signal that moved most"]
    for one in frames:
        moved = (
            ""
            if one.signal is None or one.percentile is None
            else f"  {one.signal} {one.percentile[0]:.2f} -> {one.percentile[1]:.2f}"
        )
        lines.append(
            f"  {one_line(one.frame_id)} {one.place[0]:5.2f} -> {one.place[1]:.2f}  {one.captured_at:%Y-%m-%d %H:%M:%S} "
            f"{_short(one.drive_id, 24)}"
        )
        if moved:
            lines.append(f"    {moved.strip()}")
    return [*lines, ""] if frames else [f"{title}: none", ""]


# -- both ------------------------------------------------------------------------------------------------------------


def _some(rows: Sequence[_T], limit: int, line: Callable[[_T], str]) -> list[str]:
    more = [f"  and {len(rows) - limit} more: --json has all"] if len(rows) > limit else []
    return [*(line(row) for row in rows[:limit]), *more]


def _told_first(kind: Kind) -> tuple[bool, int]:
    return not (kind.hardness_change.told or kind.share_change.told), -sum(kind.frames)


def _left_out(names: Sequence[str]) -> list[str]:
    return (
        [f"Left out, for they have too many values: {', '.join(map(one_line, names))}.", ""] if names else []
    )


def _signed(figure: Figure, form: str = ".3f") -> str:
    if figure.value is None:
        return "-"
    interval = "" if figure.low is None else f" [{figure.low:+{form}}, {figure.high:+{form}}]"
    return f"{figure.value:+{form}}{interval}"


def _plain(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:+.3f}"


def _star(figure: Figure) -> str:
    return " *" if figure.told else ""


def _short(name: str, width: int = _NAME) -> str:
    """Fit a name from outside into a column."""
    shown = one_line(name)
    return (
        shown if len(shown) <= width else f"{shown[: width // 2 - 1]}..{shown[-(width - width // 2 - 1) :]}"
    )
