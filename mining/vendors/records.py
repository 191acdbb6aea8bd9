"""Pieces that the readers of JSON and XML formats share: taking fields out of records, and boxes around shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from mining.vendors.labels import LabelledBox, Reject
from mining.vendors.reading import number, size_px

_T = TypeVar("_T")

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


class Unreadable(Exception):
    """A record lacks what it must have; the message says what."""


class Unsupported(Exception):
    """A shape that no box can stand for; the message names it."""


def boxes_of(
    places: Iterable[tuple[str, Any]], read: Callable[[str, Any], list[LabelledBox]]
) -> Iterator[LabelledBox | Reject]:
    """Read each (place, record) with ``read(place, record)``; what it cannot read comes out as a reject."""
    for place, record in places:
        try:
            yield from read(place, record)
        except Unreadable as error:
            yield Reject(place, "unreadable", str(error))
        except Unsupported as error:
            yield Reject(place, "unsupported", str(error))


def take(record: Any, key: str, kind: type[_T]) -> _T:
    """Take what must be there: raises ``Unreadable`` where it is not, or is of another type."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise Unreadable(f"no {key}" if value is None else f"{key} is a {type(value).__name__}")
    return value


def may(record: Any, key: str, kind: type[_T]) -> _T | None:
    """Take what may be there: None where it is not, or is of another type."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, kind) else None


def number_of(record: Any, key: str) -> float:
    """Take a number; a text that is one counts. NaN and infinity pass: the checks after reading count them."""
    value = record.get(key) if isinstance(record, dict) else None
    if value is None:
        raise Unreadable(f"no {key}")
    found = number(value)
    if found is None:
        raise Unreadable(f"{key} is no number: {str(value)[:40]!r}")
    return found


def size(record: Any, width_key: str = "width", height_key: str = "height") -> tuple[int | None, int | None]:
    """Take an image's size in pixels; None where it is not a whole number."""
    fields = record if isinstance(record, dict) else {}
    return size_px(fields.get(width_key)), size_px(fields.get(height_key))


def text_of(value: Any) -> str | None:
    """Make an annotator's name or number text."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("email", "username", "id") if value.get(key) is not None), None)
    return (
        str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
    )


def around(points: Sequence[tuple[float, float]], least: int = 3) -> Corners:
    """Return the enclosing box of a polygon."""
    if len(points) < least:
        raise Unreadable(f"a polygon of {len(points)} points")
    if not all(math.isfinite(value) for point in points for value in point):
        return math.nan, math.nan, math.nan, math.nan  # min and max would pass a NaN by
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(corners: Corners, degrees: float, pivot: tuple[float, float]) -> Corners:
    """Return the enclosing box of a box that is turned clockwise (y points down) about a pivot."""
    x1, y1, x2, y2 = corners
    if degrees == 0 or not math.isfinite(degrees):
        return corners if degrees == 0 else (math.nan, math.nan, math.nan, math.nan)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    px, py = pivot
    return around(
        [
            (px + (x - px) * cos - (y - py) * sin, py + (x - px) * sin + (y - py) * cos)
            for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
        ]
    )


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float) -> Corners:
    """Return the enclosing box of an ellipse about (x, y), turned clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width, half_height = (
        math.hypot(radius_x * cos, radius_y * sin),
        math.hypot(radius_x * sin, radius_y * cos),
    )
    return x - half_width, y - half_height, x + half_width, y + half_height
