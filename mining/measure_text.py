"""The yield of a batch as people and programs read it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mining.yield_summary import KINDS, Figure, Group, Summary

_COLUMNS = ("frames", "objects", *KINDS, "errors")


def as_dict(summary: Summary) -> dict[str, Any]:
    """Give a summary as JSON values, rates of groups included."""
    plain = asdict(summary)
    plain["arms"] = {name: _row(group) for name, group in summary.arms.items()}
    for name in ("by_slice", "by_signal"):
        plain[name] = [_row(group) for group in getattr(summary, name)]
    return plain


def text(summary: Summary) -> str:
    """Say it on a page."""
    lines = [
        f"{summary.frames} measured frames of {summary.drives} drive{'s' if summary.drives != 1 else ''}; intervals are 95 %, "
        f"bootstrap over {summary.drawn}",
        "",
        *_table("arm", list(summary.arms.values())),
        "",
    ]
    for arm in summary.arms:
        lines.append(f"errors per frame, {arm} arm: {_shown(summary.errors_per_frame[arm])}")
        lines.append(f"errors per labelled box, {arm} arm: {_shown(summary.errors_per_object[arm])}")
    lines += [
        "lift: each batch's mined frames against its own random ones",
        f"lift, errors per frame (mined / random): {_shown(summary.lift_per_frame)}",
        f"lift, errors per labelled box (mined / random): {_shown(summary.lift_per_object)}",
    ]
    if any(group.name for group in summary.by_slice):
        lines += ["", *_table("mined, by slice", summary.by_slice)]
    lines += ["", *_table("mined, by strongest signal", summary.by_signal), ""]
    lines.append(f"rank correlation of hardness with errors, all measured frames: {_shown(summary.hardness)}")
    lines.append("which signal earned its weight: its own rank correlation, and what the blend gains by it")
    lines += [
        f"  {worth.signal} x {worth.weight:g}: {_shown(worth.correlation, note=False)}; gain "
        f"{_shown(worth.blend_gain, note=False, digits=3)}"
        for worth in summary.signals
    ]
    return "\n".join(lines)


def _table(title: str, groups: list[Group]) -> list[str]:
    width = max(len(title), *(len(group.name or "no slice") for group in groups), 4) if groups else len(title)
    lines = [
        f"{title:{width}}"
        + "".join(f"{name.replace('_', ' '):>14}" for name in (*_COLUMNS, "per_frame", "per_box"))
    ]
    for group in groups:
        counts = "".join(f"{getattr(group, name):>14}" for name in _COLUMNS)
        rates = "".join(
            f"{'-' if r is None else f'{r:.2f}':>14}" for r in (group.per_frame, group.per_object)
        )
        lines.append(f"{group.name or 'no slice':{width}}{counts}{rates}")
    return lines


def _shown(figure: Figure, note: bool = True, digits: int = 2) -> str:
    said = f" ({figure.note})" if note and figure.note else ""
    if figure.value is None:
        return f"not computable{said}"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}, no interval{said}"
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]{said}"


def _row(group: Group) -> dict[str, Any]:
    return {**asdict(group), "per_frame": group.per_frame, "per_object": group.per_object}
