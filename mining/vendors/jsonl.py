"""``frames.jsonl``: one JSON object an image, pre-annotations included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mining.vendors.csv import CORNERS
from mining.vendors.delivery import Delivery, image_row
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.reading import Reading, number, opened, size_px, text_or_none
from mining.vendors.untrusted import BadLine, read_json_lines


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``frames.jsonl``."""
    with (folder / "frames.jsonl").open("w", encoding="utf-8") as file:
        for image in delivery.images:
            row = {**image_row(image), "preannotations": [asdict(box) for box in image.boxes]}
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read lines of one image each: ``frame_id`` or ``image``; ``boxes``, a list of objects with ``class_name``, ``x1_px``,
    ``y1_px``, ``x2_px``, ``y2_px`` and where it is there ``ignore``; and where they are there ``annotator``, ``sha256``,
    ``width_px``, ``height_px``. An empty list says that nothing is to be seen."""
    reading = Reading(sent)
    with opened(files, (".jsonl", ".ndjson")) as found:
        for file in found:
            lines = list(read_json_lines(file.path))
            if not any(
                isinstance(line, dict) and {"boxes", "preannotations"} & set(line) for _, line in lines
            ):
                raise wrong_format(file.path, "file of JSON lines (one object an image)")
            for row, line in lines:
                _read(line, f"{file.name}: line {row}", reading)
    return reading.labels()


def _read(line: Any, place: str, reading: Reading) -> None:
    if isinstance(line, BadLine):
        reading.reject(place, line.kind, line.reason)
        return
    if not isinstance(line, dict):
        reading.reject(place, "unreadable", "no JSON object")
        return
    image = LabelledImage(
        place=place,
        file_name=text_or_none(line.get("image")),
        frame_id=text_or_none(line.get("frame_id")),
        sha256=text_or_none(line.get("sha256")),
        width_px=size_px(line.get("width_px")),
        height_px=size_px(line.get("height_px")),
        annotator=text_or_none(line.get("annotator")),
    )
    if not isinstance(line.get("boxes"), list):
        # What was sent is no label: nobody may have looked at it.
        said = "no list `boxes`; pre-annotations that were corrected go there, and [] says that nothing is to be seen"
        reading.take(image, [Reject(place, "unreadable", said)])
        return
    reading.take(image, _boxes(line["boxes"], place))


def _boxes(boxes: list[Any], place: str) -> Iterator[LabelledBox | Reject]:
    for position, box in enumerate(boxes, start=1):
        where = f"{place}, box {position}"
        name = text_or_none(box.get("class_name")) if isinstance(box, dict) else None
        corners = [box.get(corner) for corner in CORNERS] if name else []
        values = [None if isinstance(value, str) else number(value) for value in corners]
        if name is None or None in values:
            yield Reject(where, "unreadable", f"no object with class_name and {', '.join(CORNERS)}")
        else:
            x1, y1, x2, y2 = (value for value in values if value is not None)
            yield LabelledBox(name, x1, y1, x2, y2, bool(box.get("ignore")), where)
