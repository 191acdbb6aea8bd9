"""KITTI object labels: one text file an image (the development kit's readme.txt of cvlibs.net/datasets/kitti). Read alone.

A line is: type, truncated, occluded, alpha, x1, y1, x2, y2 (pixels from 0), three dimensions, three of location, rotation,
and in results a score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mining.vendors.guess import looks_like, wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.reading import File, Reading, digest_beside, number, opened
from mining.vendors.untrusted import read_lines

_COLUMNS = {15, 16}
_DONT_CARE = "dontcare"
_TYPE = re.compile(r"[^\W\d]{2}\w*")
"""A record's first word, also where it sticks to the number before it."""
_MOST_GLUED = 1000
"""Records of one line that are counted."""


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read label files, or folders and zips of them; of a data set folder, what lies in ``label_2``."""
    reading = Reading(sent)
    with opened(files, (".txt",)) as found:
        in_labels = [
            file
            for file in found
            if any(part.startswith("label") for part in PurePosixPath(file.name).parts[:-1])
        ]
        for file in in_labels or found:
            if looks_like(file.path) not in {"KITTI text", "plain text", "an empty file"}:
                raise wrong_format(file.path, "KITTI label file (lines of: type and 14 numbers)")
            digest = None if sent.named(file.path.name) else digest_beside(file)
            reading.take(LabelledImage(file.name, file.path.name, sha256=digest), _boxes(file))
    return reading.labels()


def _boxes(file: File) -> Iterator[LabelledBox | Reject]:
    for row, line in enumerate(read_lines(file.path, " \t").splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{file.name}: line {row}"
        values = line.split()
        if len(values) in _COLUMNS:
            yield _box(values, place)
            continue
        types = [word for word in _TYPE.findall(line) if word.lower() not in {"nan", "inf", "infinity"}]
        if len(types) < 2:
            yield Reject(place, "unreadable", f"{len(values)} columns, not 15 or 16")
            continue
        for position in range(1, min(len(types), _MOST_GLUED) + 1):
            said = f"record {position} of {len(types)} that run together on one line without a break"
            yield Reject(place, "glued", said)


def _box(values: list[str], place: str) -> LabelledBox | Reject:
    numbers = [number(value) for value in values[1:]]
    x1, y1, x2, y2 = numbers[3:7]
    if None in numbers or x1 is None or y1 is None or x2 is None or y2 is None:
        return Reject(place, "unreadable", "a column that is no number")
    # Regions that nobody labelled: what a detector sees there is neither right nor wrong.
    return LabelledBox(values[0], x1, y1, x2, y2, values[0].lower() == _DONT_CARE, place)
