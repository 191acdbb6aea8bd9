"""Two batches: settings, arms, slices, drives, and the frames that only one holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mining.config import QuotaConfig, SelectConfig
from mining.store import Store, sql_file
from mining.text import one_line
from mining.types import UsageError


@dataclass(frozen=True, slots=True)
class Difference:
    """How two batches differ."""

    batches: tuple[str, str]
    committees: tuple[str, str]
    """Which chose them; hardness of two does not compare."""
    frames: tuple[int, int]
    common: int
    settings: dict[str, tuple[Any, Any]]
    """Keys of ``select`` that differ, with both values."""
    measures: list[dict[str, Any]]
    """Arms, drives and slices: name, frames in the first and in the second."""
    mean_hardness: tuple[float | None, float | None]
    only: tuple[list[str], list[str]]
    """Frame ids, in order of rank."""

    def text(self) -> str:
        """Tell it to a person."""
        one, two = self.batches
        lines = [
            f"{one}: {self.frames[0]} frames, mean hardness {_shown(self.mean_hardness[0])}",
            f"{two}: {self.frames[1]} frames, mean hardness {_shown(self.mean_hardness[1])}",
            f"{self.common} frames are in both",
        ]
        if self.committees[0] != self.committees[1]:
            lines.append(
                f"two committees chose them, whose hardness does not compare: see `mining compare {' '.join(self.committees)}`"
            )
        for key, (a, b) in self.settings.items():
            lines += [f"  {line}" for line in _changes(f"select.{key}", a, b)]
        lines += [f"  {one_line(m['what']):40} {m['first']:6} -> {m['second']}" for m in self.measures]
        for name, frames in zip(self.batches, self.only, strict=True):
            more = f" and {len(frames) - 10} more" if len(frames) > 10 else ""
            lines.append(f"only in {name}: {', '.join(frames[:10]) or 'none'}{more}")
        return "\n".join(lines)


def diff(store: Store, one: str, two: str) -> Difference:
    """Compare two batches of a store, whatever committee chose them."""
    batches = {name: marker for (_, name), marker in store.markers("select").items()}
    for name in (one, two):
        if name not in batches:
            known = ", ".join(sorted(batches)[-5:]) or "none yet"
            raise UsageError(f"no batch is called {name!r}; the latest: {known}")
        if "select" not in batches[name]:
            raise UsageError(f"{name} was chosen by an older mining, which did not write its settings down")
    before, after = (SelectConfig.model_validate(batches[name]["select"]).model_dump() for name in (one, two))
    with store.connect() as con:
        asked = {"one": one, "two": two}
        rows = con.sql(
            "SELECT batch_id, frame_id, hardness FROM selections WHERE batch_id IN ($one, $two) "
            "ORDER BY arm, rank", params=asked,
        ).to_arrow_table().to_pylist()  # fmt: skip
        measures = con.sql(sql_file("diff"), params=asked).to_arrow_table().to_pylist()
    frames = {name: [row["frame_id"] for row in rows if row["batch_id"] == name] for name in (one, two)}
    hardness = {
        name: [row["hardness"] for row in rows if row["batch_id"] == name and row["hardness"] is not None]
        for name in (one, two)
    }
    first, second = set(frames[one]), set(frames[two])
    return Difference(
        batches=(one, two),
        committees=(batches[one]["committee_id"], batches[two]["committee_id"]),
        frames=(len(first), len(second)),
        common=len(first & second),
        settings={key: (before[key], after[key]) for key in before if before[key] != after[key]},
        measures=measures,
        mean_hardness=(_mean(hardness[one]), _mean(hardness[two])),
        only=([f for f in frames[one] if f not in second], [f for f in frames[two] if f not in first]),
    )


def _changes(name: str, before: Any, after: Any) -> Iterator[str]:
    """Say a setting's change, a line for each thing that changed in it."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if before[key] != after[key]:
                yield from _changes(f"{name}.{key}", before[key], after[key])
    elif name == "select.quota":
        was, now = (
            {QuotaConfig.model_validate(one).title: one for one in quotas} for quotas in (before, after)
        )
        for title in [*was, *(title for title in now if title not in was)]:
            quota = f"{name} {title}"
            if title not in now:
                yield f"{quota}: taken out ({_said(was[title])})"
            elif title not in was:
                yield f"{quota}: new ({_said(now[title])})"
            else:
                yield from _changes(quota, was[title], now[title])
        if list(was) != list(now) and sorted(was) == sorted(now):
            yield f"{name}: in another order"
    else:
        yield f"{name}: {_said(before)} -> {_said(after)}"


def _said(value: Any) -> str:
    """Write a setting for people, much as a config does."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{one_line(value)}"'
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(
            f"{key} = {_said(item)}" for key, item in value.items() if item is not None and key != "name"
        )
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    return str(value)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
