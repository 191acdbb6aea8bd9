"""What a comparison looks at: frames as arrays, and the ways in which they are parted; read in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mining import candidates
from mining.compare.stats import Estimates, IntArray, adjusted
from mining.config import SelectConfig
from mining.types import UsageError

FEW_VALUES = 8
"""What parts frames into 2 to so many kinds can be one of the things that make a slice."""
MOST_SLICES = 200
MOST_VALUES = 500
"""What has more values (a note, a cell of the map) parts frames into nothing that could be compared."""
_STANDARD = {"light": "light", "camera": "camera", "vehicle": "vehicle_id", "hours": "hours"}
_OF_SLICES = ("light", "camera")
TOLD_FROM = 0.05
"""Largest p, after Benjamini and Hochberg over its table, of what is more than noise."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A difference, and whether it is more than noise; None where it cannot be had."""

    value: float | None
    low: float | None
    """Lower end of the 95 % interval; None where fewer than three drives say how much drives vary."""
    high: float | None
    p_adjusted: float | None
    """After Benjamini and Hochberg over the figures of one table."""

    @property
    def told(self) -> bool | None:
        """Whether it is more than noise; None where that cannot be told."""
        return None if self.p_adjusted is None else self.p_adjusted <= TOLD_FROM


def figures(found: Estimates, *, one_by_one: bool = False) -> list[Figure]:
    """Make figures of estimates, judged together; or each by itself, where they are not many of one kind."""
    p = found.p if one_by_one else adjusted(found.p)
    columns = (found.value, found.low, found.high, p)
    return [Figure(*(None if np.isnan(v) else float(v) for v in row)) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to part frames into kinds: by light, camera, a tag, a quota."""

    name: str
    values: tuple[str, ...]
    of: IntArray
    """[F] number of each frame's value; -1 where it has none."""


@dataclass(frozen=True, slots=True)
class Frames:
    """F frames."""

    table: pa.Table
    """The columns that were asked for."""
    drive: IntArray
    """[F] number in ``drives``."""
    drives: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    slices: Dimension
    """The kinds that some of the dimensions make together."""
    slices_by: tuple[str, ...]
    """Names of these."""
    too_many: tuple[str, ...]
    """What has more than ``MOST_VALUES`` values, and is left out."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.drive)

    @property
    def whole(self) -> Dimension:
        """All of them as one kind."""
        return Dimension("all", ("all",), np.zeros(len(self), np.int64))

    def column(self, name: str) -> NDArray[Any]:
        """Give a column as an array; NULL of a number is NaN."""
        return np.asarray(self.table[name].to_numpy())


def read(
    con: duckdb.DuckDBPyConnection,
    relation: duckdb.DuckDBPyRelation,
    columns: Sequence[str],
    select: SelectConfig,
    by: Sequence[str] = (),
) -> Frames:
    """Read frames, and what parts them: light, camera, vehicle, time of day, tags, the config's quotas, and ``by``.

    Args:
        con: has the views.
        relation: ``sql/compare_frames.sql`` over them, with filters or joins.
        columns: names of columns to read beside.
        select: of the config; its quotas part frames.
        by: what makes the slices, in place of the usual: names of dimensions, or SQL expressions over ``mined``.

    Raises:
        UsageError: a quota or ``by`` is no SQL expression over ``mined``, or ``by`` parts the frames into too many slices.
    """
    candidates.check(con, select)
    parts = _parts(relation, select)
    for text in by:
        if text not in parts:
            candidates.check_expression(con, f"--by {text}", text, select)
            parts[text] = duckdb.SQLExpression(text)
    asked = [expression.cast("VARCHAR").alias(f"part_{i}") for i, expression in enumerate(parts.values())]
    table = relation.select(*columns, "drive_id", *asked).to_arrow_table()
    found = [_dimension(name, table[f"part_{i}"]) for i, name in enumerate(parts)]
    kept = [one for one in found if len(one.values) <= MOST_VALUES or one.name in by]
    drive = _dimension("drive", table["drive_id"])
    slices, named = _slices(
        kept, by, table.num_rows, [*_OF_SLICES, *(name for name in parts if name not in _STANDARD)]
    )
    return Frames(
        table=table,
        drive=drive.of,
        drives=drive.values,
        dimensions=tuple(one for one in kept if one.values),
        slices=slices,
        slices_by=named,
        too_many=tuple(one.name for one in found if one not in kept),
    )


def classes_of(column: pa.ChunkedArray) -> dict[str, NDArray[np.bool_]]:
    """Fleet class -> [F] whether it is in a frame, of ``scores.classes``."""
    texts = _dimension("classes", column)
    seen = [set(filter(None, text.split(","))) for text in texts.values]
    known = texts.of >= 0
    found = {}
    for name in sorted(set().union(*seen)):
        holds = np.array([*(name in classes for classes in seen), False])
        found[name] = known & holds[texts.of]
    return found


def rows_of(value: Any) -> Any:
    """Make JSON values of figures and what holds them."""
    if isinstance(value, Figure):
        return {
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "p_adjusted": value.p_adjusted,
            "told": value.told,
        }
    if isinstance(value, Mapping):
        return {key: rows_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rows_of(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: rows_of(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _parts(relation: duckdb.DuckDBPyRelation, select: SelectConfig) -> dict[str, duckdb.Expression]:
    """Name -> expression, of all that parts frames."""
    parts = {name: duckdb.SQLExpression(text) for name, text in _STANDARD.items()}
    for quota in select.quota:
        text = quota.where or quota.by or ""
        if text in _STANDARD.values() or (select.like and "likeness" in text):
            continue  # there already; or a likeness to examples, which frames have only while a batch is chosen
        if quota.where is None:
            parts[f"quota {quota.title}"] = duckdb.SQLExpression(text)
        else:
            yes, no = duckdb.ConstantExpression(quota.title), duckdb.ConstantExpression("other")
            parts[f"quota {quota.title}"] = duckdb.CaseExpression(
                duckdb.SQLExpression(f"({text})"), yes
            ).otherwise(no)
    keys = relation.select("unnest(map_keys(tags)) AS key").distinct().order("key").fetchall()
    for (key,) in keys:  # a tag's name comes from a vehicle: it is a value here, and never SQL
        tag = duckdb.FunctionExpression(
            "map_extract_value", duckdb.ColumnExpression("tags"), duckdb.ConstantExpression(key)
        )
        parts[f"tag {key}"] = tag
    return parts


def _dimension(name: str, column: pa.ChunkedArray) -> Dimension:
    values = pc.unique(column.drop_null()).sort() if len(column) else pa.array([], pa.string())
    of = pc.fill_null(pc.index_in(column, value_set=values), -1).to_numpy()
    return Dimension(name, tuple(values.to_pylist()), np.asarray(of, np.int64))


def _slices(
    dimensions: Sequence[Dimension], by: Sequence[str], frames: int, usual: Sequence[str]
) -> tuple[Dimension, tuple[str, ...]]:
    """Put dimensions together: those of ``by``, or the usual ones with few values, while the slices do not become too many."""
    of, names = np.zeros(frames, np.int64), [()]
    named: list[str] = []
    for name in by or usual:
        one = next((one for one in dimensions if one.name == name), None)
        if one is None or (not by and not 2 <= len(one.values) + bool((one.of < 0).any()) <= FEW_VALUES):
            continue
        values = (*one.values, "unknown")
        different, joint = np.unique(of * len(values) + one.of % len(values), return_inverse=True)
        if len(different) > MOST_SLICES:
            if by:
                raise UsageError(
                    f"--by {name} parts the frames into {len(different)} slices, at most {MOST_SLICES} can be compared; give a "
                    "coarser expression, such as a CASE"
                )
            continue
        names = [(*names[cell // len(values)], values[cell % len(values)]) for cell in different.tolist()]
        of = joint.reshape(-1).astype(np.int64)
        named.append(name)
    return Dimension("slice", tuple(", ".join(parts) or "all" for parts in names), of), tuple(named)
