"""Pieces that the readers of JSON and XML formats share: taking fields out of records, and boxes around shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Reject
from mining.vendors.untrusted import files_of, opened_zip

_T = TypeVar("_T")

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


class Unreadable(Exception):
    """A record lacks what it must have; the message says what."""


class Unsupported(Exception):
    """A shape that no box can stand for; the message names it."""


@dataclass(slots=True)
class Found:
    """What a reader has found so far."""

    images: list[LabelledImage] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def reject(self, place: str, kind: str, reason: str, frame_id: str | None = None) -> None:
        """Put down something that is not taken in."""
        self.rejects.append(Reject(place, kind, reason, frame_id))

    def boxes(
        self,
        places: Iterable[tuple[str, Any]],
        read: Callable[[str, Any], list[LabelledBox]],
        frame_id: str | None,
    ) -> tuple[LabelledBox, ...]:
        """Read each (place, record) with ``read(place, record)``; what it cannot read is put down as a reject."""
        boxes: list[LabelledBox] = []
        for place, record in places:
            try:
                boxes += read(place, record)
            except Unreadable as error:
                self.reject(place, "unreadable", str(error), frame_id)
            except Unsupported as error:
                self.reject(place, "unsupported", str(error), frame_id)
        return tuple(boxes)

    def labels(self) -> Labels:
        """Return what was found."""
        return Labels(tuple(self.images), tuple(self.rejects))


def delivered_files(paths: Sequence[Path], endings: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Yield (name for messages, file) of files, folders and zips; a zip's files are there until the next is asked for."""
    for path in paths:
        with opened_zip(path) as opened:
            files = files_of(opened, endings)
            if not files:
                raise DeliveryError(
                    f"{path}: holds no {' or '.join(sorted(endings))} file; give the label file"
                )
            for file in files:
                yield (path.name if file == path else file.relative_to(opened).as_posix()), file


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


def number(record: Any, key: str) -> float:
    """Take a number; a text that is one counts. NaN and infinity pass: the checks after reading count them."""
    value = record.get(key) if isinstance(record, dict) else None
    if value is None:
        raise Unreadable(f"no {key}")
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        raise Unreadable(f"{key} is no number: {str(value)[:40]!r}") from None


def size(record: Any, width_key: str = "width", height_key: str = "height") -> tuple[int | None, int | None]:
    """Take an image's size in pixels; None where it is not a whole number."""
    width, height = (_whole(record, key) for key in (width_key, height_key))
    return width, height


def _whole(record: Any, key: str) -> int | None:
    try:
        value = number(record, key)
    except Unreadable:
        return None
    return int(value) if math.isfinite(value) and value == int(value) and 0 < value < 2**31 else None


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
