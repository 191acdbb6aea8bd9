"""Labelbox: data rows with global keys and predictions (docs.labelbox.com, "Import annotations") out, exports back.

Polygons are read as their enclosing box. A mask is behind a link, which is not followed: unsupported, as are points,
lines and classifications of a whole image.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mining.vendors.delivery import Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Sent
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
from mining.vendors.untrusted import BadLine, read_json_records

_NAMESPACE = uuid.UUID("6f5d4a44-3c0f-4c60-9d57-0f3a52a1f7d1")


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``labelbox_data_rows.json`` (images, to import first) and ``labelbox.ndjson`` (predictions on them).

    The global key is the frame id. A prediction has no room for the members that saw the object, nor for a mark of
    doubt: boxes in doubt are left out.
    """
    rows = [
        {"row_data": image.uri, "global_key": image.frame_id, "media_type": "IMAGE"}
        for image in delivery.images
    ]
    (folder / "labelbox_data_rows.json").write_text(
        json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    with (folder / "labelbox.ndjson").open("w", encoding="utf-8", newline="\n") as file:
        for image in delivery.images:
            for index, box in enumerate(image.boxes):
                if box.in_doubt:
                    continue
                prediction = {
                    "uuid": str(
                        uuid.uuid5(_NAMESPACE, f"{delivery.batch_id}/{image.frame_id}/{index}")
                    ),  # the same each time
                    "dataRow": {"globalKey": image.frame_id},
                    "name": box.class_name,
                    "confidence": box.confidence,
                    "bbox": {
                        "top": box.y1_px,
                        "left": box.x1_px,
                        "height": box.y2_px - box.y1_px,
                        "width": box.x2_px - box.x1_px,
                    },
                    "classifications": [],
                }
                file.write(json.dumps(prediction, ensure_ascii=False, allow_nan=False) + "\n")


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read exports: rows with ``data_row`` and ``projects`` (now), or with ``Label`` (v1); JSON or NDJSON.

    Frames of a video are read as images that the batch does not have: it sends images.
    """
    reading = Reading(sent)
    with opened(files, (".json", ".ndjson")) as found:
        for file in found:
            records = list(read_json_records(file.path))
            rows = [row for _, row in records if isinstance(row, dict)]
            if any("dataRow" in row and "projects" not in row for row in rows):
                raise DeliveryError(
                    f"{file.path}: a Labelbox import body (predictions), not labels; export the project"
                )
            if records and not any("projects" in row or "Label" in row for row in rows):
                raise wrong_format(file.path, "Labelbox export")
            for count, row in records:
                place = f"{file.name}: row {count}"
                if isinstance(row, BadLine):
                    reading.reject(place, row.kind, row.reason)
                elif isinstance(row, dict) and "projects" in row:
                    _read_row(row, place, reading)
                elif isinstance(row, dict) and "Label" in row:
                    _read_v1(row, place, reading)
                else:
                    reading.reject(place, "unreadable", "neither projects nor Label")
    return reading.labels()


def _read_row(row: dict[str, Any], place: str, reading: Reading) -> None:
    data_row, media = may(row, "data_row", dict), may(row, "media_attributes", dict)
    key = may(data_row, "global_key", str)
    about = {
        "file_name": may(data_row, "external_id", str) or may(data_row, "row_data", str),
        "frame_id": key,
        "width_px": size(media)[0],
        "height_px": size(media)[1],
    }
    projects = may(row, "projects", dict)
    if projects is None:
        reading.reject(place, "unreadable", "projects is no object", key)
        return
    labels = [label for project in projects.values() for label in may(project, "labels", list) or []]
    if not labels:
        reading.reject(place, "skipped", "nobody has labelled it", key)
    for count, label in enumerate(labels, start=1):
        where = f"{place}, label {count}"
        annotations = may(label, "annotations", dict)
        annotator = may(may(label, "label_details", dict), "created_by", str)
        if (may(label, "performance_details", dict) or {}).get("skipped") is True:
            reading.reject(where, "skipped", "the labeler skipped it", key)
        elif annotations is None:
            reading.reject(where, "unreadable", "no annotations", key)
        elif isinstance(annotations.get("frames"), dict):
            for number_, frame in annotations["frames"].items():
                tracked = may(frame, "objects", dict) or {}
                _add(
                    reading,
                    f"{where}, frame {number_}",
                    list(tracked.values()),
                    [],
                    annotator,
                    _frame(about, number_),
                )
        else:
            objects, classes = (may(annotations, key_, list) or [] for key_ in ("objects", "classifications"))
            _add(reading, where, objects, classes, annotator, about)


def _read_v1(row: dict[str, Any], place: str, reading: Reading) -> None:
    media, label = may(row, "Media Attributes", dict), row["Label"]
    key = may(row, "Global Key", str)
    about = {
        "file_name": may(row, "External ID", str) or may(row, "Labeled Data", str),
        "frame_id": key,
        "width_px": size(media)[0],
        "height_px": size(media)[1],
    }
    annotator = may(row, "Created By", str)
    if row.get("Skipped") is True or label in ("Skip", None, {}):
        reading.reject(place, "skipped", "the labeler skipped it", key)
    elif isinstance(label, list):
        for frame in label:
            number_ = frame.get("frameNumber") if isinstance(frame, dict) else None
            where = f"{place}, frame {number_}"
            if isinstance(number_, int) and isinstance(frame.get("objects"), list):
                _add(reading, where, frame["objects"], [], annotator, _frame(about, number_))
            else:
                reading.reject(where, "unreadable", "no frameNumber with objects", key)
    elif isinstance(may(label, "objects", list), list):
        classes = may(label, "classifications", list) or []
        _add(reading, place, label["objects"], classes, annotator, about)
    else:
        reading.reject(place, "unreadable", "Label without objects", key)


def _frame(about: dict[str, Any], frame: object) -> dict[str, Any]:
    return {**about, "file_name": f"frame {frame} of a video", "frame_id": None}


def _add(
    reading: Reading,
    place: str,
    objects: list[Any],
    classes: list[Any],
    annotator: str | None,
    about: dict[str, Any],
) -> None:
    places = [(f"{place}, object {count}", entry) for count, entry in enumerate(objects, start=1)]
    reading.take(LabelledImage(place=place, annotator=annotator, **about), boxes_of(places, _object))
    for count, _ in enumerate(classes, start=1):
        where = f"{place}, classification {count}"
        reading.reject(where, "unsupported", "a class of the whole image", about["frame_id"])


def _object(place: str, entry: Any) -> list[LabelledBox]:
    label = may(entry, "name", str) or may(entry, "title", str) or may(entry, "value", str)
    if label is None:
        raise Unreadable("no name")
    box = may(entry, "bounding_box", dict) or may(entry, "bbox", dict)
    if box is not None:
        left, top = number_of(box, "left"), number_of(box, "top")
        corners = (left, top, left + number_of(box, "width"), top + number_of(box, "height"))
    elif "polygon" in entry:
        corners = around(
            [(number_of(point, "x"), number_of(point, "y")) for point in take(entry, "polygon", list)]
        )
    else:
        shape = next((key for key in ("mask", "line", "point", "instanceURI") if key in entry), "this object")
        raise Unsupported(f"{'a mask behind a link' if shape == 'instanceURI' else shape} has no box")
    return [LabelledBox(label, *corners, place=place)]
