"""Image folders as recordings: the images in natural order, one frame each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging
from numpy.typing import NDArray

from mining.footage.container import MAX_PIXELS
from mining.footage.image_header import image_size
from mining.footage.names import IMAGE_ENDINGS, ending, shown
from mining.footage.source import Facts, FootageError
from mining.footage.timeline import NS_PER_S, even_times
from mining.types import Frame, FrameTimes

# Failures come back as error frames; OpenCV's own lines on stderr would drown them.
cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)

_MAX_BYTES = 200_000_000
_DIGITS = re.compile(r"(\d+)")
_TIMESTAMP = re.compile(r"(?<!\d)(\d{12,19})$", re.ASCII)
_NS_PER_UNIT = (1, 1_000, 1_000_000)
"""Nanoseconds, microseconds, milliseconds since 1970."""
_EARLIEST_NS, _LATEST_NS = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) * 10**9 for y in (2000, 2100))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one folder, in the order of their frames."""

    names: tuple[str, ...]
    timestamps_ns: tuple[int, ...] | None
    """Nanoseconds since 1970 from the file names; None unless every name ends in a timestamp of one unit."""


def image_names(folder: str) -> list[str]:
    """Names of the images that lie directly in a folder, hidden ones left out, in no particular order."""
    with os.scandir(folder) as scan:
        return [
            e.name
            for e in scan
            if not e.name.startswith(".") and ending(e.name) in IMAGE_ENDINGS and e.is_file()
        ]


def list_images(folder: str) -> ImageFolder:
    """Put a folder's images in order: by timestamp where all names end in one, else by natural order of the names.

    Natural: ``frame10`` comes after ``frame9``. Raises FootageError where the folder cannot be read.
    """
    try:
        names = sorted(image_names(folder), key=_natural)
    except OSError as error:
        raise FootageError(f"cannot be read: {error.strerror}") from None
    stamps = _timestamps_ns(names)
    if stamps is None:
        return ImageFolder(tuple(names), None)
    order = sorted(range(len(names)), key=lambda i: stamps[i])
    return ImageFolder(tuple(names[i] for i in order), tuple(stamps[i] for i in order))


def read_images(folder: str, times: FrameTimes, indices: Sequence[int]) -> Iterator[Frame]:
    """Yield one Frame for each index. Images may differ in size; each is delivered at its own.

    Raises FootageError where the folder no longer holds as many images as the index says.
    """
    names = list_images(folder).names
    if len(names) != len(times):
        raise FootageError(
            f"{shown(folder)} holds {len(names)} images, the index {len(times)}: index it again"
        )
    for index in indices:
        pts_ns = int(times.pts_ns[index])
        try:
            yield Frame(index, pts_ns, read_image(os.path.join(folder, names[index])))
        except FootageError as error:
            yield Frame(index, pts_ns, None, str(error))


def probe_images(folder: str, rate_hz: float) -> Facts:
    """List a folder's frames; decode images only until one gives the size.

    Frame n lies at n / rate, unless the names hold timestamps. Raises FootageError where no image decodes.
    """
    images = list_images(folder)
    size_px, faults = None, []
    for name in images.names:
        try:
            height, width = read_image(os.path.join(folder, name)).shape[:2]
        except FootageError as error:
            faults.append(str(error))
            continue
        size_px = (width, height)
        break
    if size_px is None:
        raise FootageError(
            f"none of its {len(faults)} images can be read: {faults[0]}" if faults else "no image in it"
        )
    if images.timestamps_ns is None:
        times, created_at = even_times(len(images.names), Fraction(str(rate_hz))), None
    else:
        times = FrameTimes(np.array(images.timestamps_ns, dtype=np.int64))
        created_at = datetime.fromtimestamp(images.timestamps_ns[0] / NS_PER_S, UTC)
    return Facts(times, "images", size_px, None, created_at, faults)


def read_image(path: str) -> NDArray[np.uint8]:
    """Decode an image file to [height, width, 3] RGB, turned as its EXIF orientation asks.

    Grey becomes RGB, 16 bits become 8, transparency is dropped. Raises FootageError with the file's name.
    """
    name = shown(os.path.basename(path))
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise FootageError(f"{name}: larger than {_MAX_BYTES // 10**6} MB")
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        width, height = image_size(data)
        if not 0 < width * height <= MAX_PIXELS:
            raise FootageError(
                f"{name}: {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels"
            )
        rgb = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except OSError as error:
        raise FootageError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FootageError(f"{name}: {error}") from None
    except cv2.error as error:
        raise FootageError(f"{name}: does not decode ({' '.join(str(error.err).split())})") from None
    if rgb is None:
        raise FootageError(f"{name}: does not decode")
    return np.asarray(rgb, dtype=np.uint8)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key: runs of digits count as numbers; the name itself settles ties (007 and 7)."""
    parts = _DIGITS.split(name)
    return [(int(p), "") if p.isascii() and p.isdigit() else (-1, p) for p in parts], name


def _timestamps_ns(names: list[str]) -> list[int] | None:
    """Timestamps at the end of the names, if every name has one and one unit makes all of them plausible."""
    matches = [_TIMESTAMP.search(os.path.splitext(name)[0]) for name in names]
    values = [int(match[1]) for match in matches if match]
    if not values or len(values) < len(names):
        return None
    for ns_per_unit in _NS_PER_UNIT:
        if min(values) * ns_per_unit >= _EARLIEST_NS and max(values) * ns_per_unit < _LATEST_NS:
            return [value * ns_per_unit for value in values]
    return None
