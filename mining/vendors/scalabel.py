"""Scalabel (doc.scalabel.ai/format.html), the format of BDD100K: frames with labels, out and back.

A polygon without a box is read as its enclosing box; open polylines, 3D boxes, masks, graphs and what
is said of a group of frames are unsupported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mining.vendors.delivery import Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.reading import Reading, opened
from mining.vendors.records import (
    Unreadable,
    Unsupported,
    around,
    boxes_of,
    may,
    number_of,
    size,
    take,
)
from mining.vendors.untrusted import read_json


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``scalabel.json``: frames in the order of the batch, and the classes as its config."""
    frames = [
        {
            "name": image.file_name,
            "url": image.uri,
            # Of a recording: a drive has several cameras, whose frames have the same numbers.
            "videoName": image.recording_id,
            "frameIndex": image.frame_index,
            "timestamp": int(image.captured_at.timestamp() * 1000),
            "size": {"width": image.width_px, "height": image.height_px},
            "attributes": {"frame_id": image.frame_id, "sha256": image.sha256, "reason": image.reason},
            "labels": [
                {
                    "id": str(index),
                    "category": box.class_name,
                    "score": box.confidence,
                    "manualShape": False,
                    "manualAttributes": False,
                    "attributes": {"detectors": "+".join(box.detectors), "in_doubt": box.in_doubt},
                    "box2d": {"x1": box.x1_px, "y1": box.y1_px, "x2": box.x2_px, "y2": box.y2_px},
                }
                for index, box in enumerate(image.boxes)
            ],
        }
        for image in delivery.images
    ]
    document = {"frames": frames, "config": {"categories": [{"name": name} for name in delivery.classes]}}
    (folder / "scalabel.json").write_text(
        json.dumps(document, ensure_ascii=False, allow_nan=False), encoding="utf-8"
    )


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read a list of frames, or ``{"frames": [...]}``. A frame without ``labels`` has nothing on it, as in BDD100K."""
    reading = Reading(sent)
    with opened(files, (".json",)) as found:
        for file in found:
            document = read_json(file.path)
            frames = document.get("frames") if isinstance(document, dict) else document
            if not isinstance(frames, list) or (frames and not any(_is_frame(frame) for frame in frames)):
                raise wrong_format(file.path, "Scalabel JSON (frames with a name and labels)")
            for count, frame in enumerate(frames, start=1):
                place = f"{file.name}: frame {count}"
                if _is_frame(frame):
                    _read_frame(frame, place, reading)
                else:
                    reading.reject(place, "unreadable", "no name, or labels that are no list")
            for count, group in enumerate(may(document, "groups", list) or [], start=1):
                for index, _ in enumerate(may(group, "labels", list) or [], start=1):
                    place = f"{file.name}: group {count}, label {index}"
                    reading.reject(place, "unsupported", "a label of a group of frames is of no image")
    return reading.labels()


_FRAME = {"labels", "videoName", "frameIndex", "timestamp", "size", "attributes"}


def _is_frame(frame: Any) -> bool:
    return (
        isinstance(frame, dict)
        and isinstance(frame.get("name"), str)
        and not _FRAME.isdisjoint(frame)
        and isinstance(frame.get("labels"), list | None)
    )


def _read_frame(frame: dict[str, Any], place: str, reading: Reading) -> None:
    attributes = may(frame, "attributes", dict)
    frame_id = may(attributes, "frame_id", str)
    labels = may(frame, "labels", list) or []
    places = [(f"{place}, label {count}", label) for count, label in enumerate(labels, start=1)]
    width, height = size(may(frame, "size", dict))
    reading.take(
        LabelledImage(
            place=place,
            file_name=frame["name"],
            frame_id=frame_id,
            sha256=may(attributes, "sha256", str),
            width_px=width,
            height_px=height,
        ),
        boxes_of(places, _label),
    )


def _label(place: str, label: Any) -> list[LabelledBox]:
    category = take(label, "category", str)
    box, polygons = may(label, "box2d", dict), may(label, "poly2d", list)
    if box is not None:
        corners = tuple(number_of(box, key) for key in ("x1", "y1", "x2", "y2"))
    elif polygons:
        corners = around([point for polygon in polygons for point in _vertices(polygon)])
    else:
        shape = next((key for key in ("box3d", "rle", "graph", "box2d", "poly2d") if label.get(key)), None)
        raise Unsupported(f"{shape} has no box") if shape else Unreadable("no shape")
    x1, y1, x2, y2 = corners
    crowd = (may(label, "attributes", dict) or {}).get("crowd") is True
    return [LabelledBox(category, x1, y1, x2, y2, ignore=crowd, place=place)]


def _vertices(polygon: Any) -> list[tuple[float, float]]:
    points = take(polygon, "vertices", list)
    if polygon.get("closed") is False:
        raise Unsupported("an open line has no box")
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise Unreadable("vertices that are no pairs")
    return [(number_of({"x": x}, "x"), number_of({"y": y}, "y")) for x, y in points]
