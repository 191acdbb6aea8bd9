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
from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.records import (
    Found,
    Unreadable,
    Unsupported,
    around,
    delivered_files,
    may,
    number,
    size,
    take,
)
from mining.vendors.untrusted import BadLine, read_json_records, wrong_format

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
    found = Found()
    for name, file in delivered_files(files, {".json", ".ndjson"}):
        records = list(read_json_records(file))
        rows = [row for _, row in records if isinstance(row, dict)]
        if any("dataRow" in row and "projects" not in row for row in rows):
            raise DeliveryError(
                f"{file}: a Labelbox import body (predictions), not labels; export the project"
            )
        if records and not any("projects" in row or "Label" in row for row in rows):
            raise wrong_format(file, "Labelbox export")
        for count, row in records:
            place = f"{name}: row {count}"
            if isinstance(row, BadLine):
                found.reject(place, row.kind, row.reason)
            elif isinstance(row, dict) and "projects" in row:
                _read_row(row, place, found)
            elif isinstance(row, dict) and "Label" in row:
                _read_v1(row, place, found)
            else:
                found.reject(place, "unreadable", "neither projects nor Label")
    return found.labels()


def _read_row(row: dict[str, Any], place: str, found: Found) -> None:
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
        found.reject(place, "unreadable", "projects is no object", key)
        return
    labels = [label for project in projects.values() for label in may(project, "labels", list) or []]
    if not labels:
        found.reject(place, "skipped", "nobody has labelled it", key)
    for count, label in enumerate(labels, start=1):
        where = f"{place}, label {count}"
        annotations = may(label, "annotations", dict)
        annotator = may(may(label, "label_details", dict), "created_by", str)
        if (may(label, "performance_details", dict) or {}).get("skipped") is True:
            found.reject(where, "skipped", "the labeler skipped it", key)
        elif annotations is None:
            found.reject(where, "unreadable", "no annotations", key)
        elif isinstance(annotations.get("frames"), dict):
            for number_, frame in annotations["frames"].items():
                tracked = may(frame, "objects", dict) or {}
                _add(
                    found,
                    f"{where}, frame {number_}",
                    list(tracked.values()),
                    [],
                    annotator,
                    _frame(about, number_),
                )
        else:
            objects, classes = (may(annotations, key_, list) or [] for key_ in ("objects", "classifications"))
            _add(found, where, objects, classes, annotator, about)


def _read_v1(row: dict[str, Any], place: str, found: Found) -> None:
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
        found.reject(place, "skipped", "the labeler skipped it", key)
    elif isinstance(label, list):
        for frame in label:
            number_ = frame.get("frameNumber") if isinstance(frame, dict) else None
            where = f"{place}, frame {number_}"
            if isinstance(number_, int) and isinstance(frame.get("objects"), list):
                _add(found, where, frame["objects"], [], annotator, _frame(about, number_))
            else:
                found.reject(where, "unreadable", "no frameNumber with objects", key)
    elif isinstance(may(label, "objects", list), list):
        classes = may(label, "classifications", list) or []
        _add(found, place, label["objects"], classes, annotator, about)
    else:
        found.reject(place, "unreadable", "Label without objects", key)


def _frame(about: dict[str, Any], frame: object) -> dict[str, Any]:
    return {**about, "file_name": f"frame {frame} of a video", "frame_id": None}


def _add(
    found: Found,
    place: str,
    objects: list[Any],
    classes: list[Any],
    annotator: str | None,
    about: dict[str, Any],
) -> None:
    places = [(f"{place}, object {count}", entry) for count, entry in enumerate(objects, start=1)]
    boxes = found.boxes(places, _object, about["frame_id"])
    found.images.append(LabelledImage(place=place, annotator=annotator, boxes=boxes, **about))
    for count, _ in enumerate(classes, start=1):
        where = f"{place}, classification {count}"
        found.reject(where, "unsupported", "a class of the whole image", about["frame_id"])


def _object(place: str, entry: Any) -> list[LabelledBox]:
    label = may(entry, "name", str) or may(entry, "title", str) or may(entry, "value", str)
    if label is None:
        raise Unreadable("no name")
    box = may(entry, "bounding_box", dict) or may(entry, "bbox", dict)
    if box is not None:
        left, top = number(box, "left"), number(box, "top")
        corners = (left, top, left + number(box, "width"), top + number(box, "height"))
    elif "polygon" in entry:
        corners = around([(number(point, "x"), number(point, "y")) for point in take(entry, "polygon", list)])
    else:
        shape = next((key for key in ("mask", "line", "point", "instanceURI") if key in entry), "this object")
        raise Unsupported(f"{'a mask behind a link' if shape == 'instanceURI' else shape} has no box")
    return [LabelledBox(label, *corners, place=place)]
