"""Label Studio (labelstud.io/guide/task_format, .../export): tasks with predictions out, annotations back.

Coordinates are per cent of the image; a turned rectangle, polygon or ellipse is read as its enclosing box. Predictions
and drafts are never taken for labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mining.vendors.cvat import xml_text
from mining.vendors.delivery import DeliveredImage, Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.reading import Reading, opened
from mining.vendors.records import (
    Corners,
    Unreadable,
    Unsupported,
    around,
    boxes_of,
    ellipse,
    may,
    number_of,
    size,
    take,
    text_of,
    turned,
)
from mining.vendors.untrusted import read_json

_SHAPES = ("rectangle", "polygon", "ellipse")


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``label_studio.json`` (tasks to import) and ``label_studio.xml`` (the project's labeling interface)."""
    tasks = [_task(delivery, image) for image in delivery.images]
    (folder / "label_studio.json").write_text(
        json.dumps(tasks, ensure_ascii=False, allow_nan=False), encoding="utf-8"
    )
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in delivery.classes:
        ElementTree.SubElement(labels, "Label", value=xml_text(name))
    ElementTree.indent(view)
    (folder / "label_studio.xml").write_bytes(ElementTree.tostring(view, encoding="utf-8") + b"\n")


def _task(delivery: Delivery, image: DeliveredImage) -> dict[str, object]:
    results = []
    for index, box in enumerate(image.boxes):
        seen = [f"seen by {'+'.join(box.detectors)}", *(["in doubt"] if box.in_doubt else [])]
        results.append(
            {
                "id": f"box{index}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": image.width_px,
                "original_height": image.height_px,
                "image_rotation": 0,
                "score": box.confidence,
                "meta": {"text": seen},
                "value": {
                    "x": 100 * box.x1_px / image.width_px,
                    "y": 100 * box.y1_px / image.height_px,
                    "width": 100 * (box.x2_px - box.x1_px) / image.width_px,
                    "height": 100 * (box.y2_px - box.y1_px) / image.height_px,
                    "rotation": 0,
                    "rectanglelabels": [box.class_name],
                },
            }
        )
    score = sum(box.confidence for box in image.boxes) / max(len(image.boxes), 1)
    data = {
        "image": image.uri,
        "frame_id": image.frame_id,
        "sha256": image.sha256,
        "width": image.width_px,
        "height": image.height_px,
        "batch_id": delivery.batch_id,
        "reason": image.reason,
    }
    prediction = {"model_version": f"mining {delivery.batch_id}", "score": score, "result": results}
    return {"data": data, "predictions": [prediction] if results else []}


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read exports of kind JSON and JSON-MIN. Each annotation of a task is one annotator's view of the image."""
    reading = Reading(sent)
    with opened(files, (".json",)) as found:
        for file in found:
            tasks = read_json(file.path)
            if not isinstance(tasks, list) or (tasks and not any(_is_task(task) for task in tasks)):
                raise wrong_format(file.path, "Label Studio export (a list of tasks)")
            for count, task in enumerate(tasks, start=1):
                place = f"{file.name}: task {count}"
                if not _is_task(task):
                    reading.reject(
                        place, "unreadable", "no task: neither data with annotations nor annotation_id"
                    )
                elif "data" in task:
                    _read_task(task, place, reading)
                else:
                    _read_min(task, place, reading)
    return reading.labels()


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict):
        return False
    whole = isinstance(task.get("data"), dict) and any(
        isinstance(task.get(key), list) for key in ("annotations", "completions", "predictions")
    )
    return whole or ("annotation_id" in task and "data" not in task)


def _read_task(task: dict[str, Any], place: str, reading: Reading) -> None:
    data = task["data"]
    annotations = may(task, "annotations", list) or may(task, "completions", list) or []
    if not annotations:
        reading.reject(place, "skipped", "nobody has labelled it", may(data, "frame_id", str))
    for count, annotation in enumerate(annotations, start=1):
        where = f"{place}, annotation {count}"
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            reading.reject(where, "unreadable", "no result", may(data, "frame_id", str))
        elif annotation.get("was_cancelled") or annotation.get("skipped"):
            reading.reject(where, "skipped", "the annotator skipped it", may(data, "frame_id", str))
        else:
            _read_results(annotation["result"], data, annotation.get("completed_by"), where, reading)


def _read_min(task: dict[str, Any], place: str, reading: Reading) -> None:
    """Read a task of JSON-MIN: each control's regions under its name, and the data beside them."""
    results = []
    for value in task.values():
        for region in value if isinstance(value, list) else []:
            kinds = [key for key in region if key.endswith("labels")] if isinstance(region, dict) else []
            results += [{**region, "type": kind, "value": region} for kind in kinds[:1]]
    _read_results(results, task, task.get("annotator"), place, reading)


def _read_results(
    results: list[Any], data: dict[str, Any], annotator: Any, place: str, reading: Reading
) -> None:
    frame_id = may(data, "frame_id", str)
    # With <Rectangle> and <Labels> apart, a region comes twice: its shape alone, and with its labels.
    labelled = {
        may(result, "id", str) for result in results if str(may(result, "type", str)).endswith("labels")
    } - {None}
    regions = [
        (f"{place}, region {count}", result)
        for count, result in enumerate(results, start=1)
        if may(result, "type", str) not in _SHAPES or may(result, "id", str) not in labelled
    ]
    sizes = [size(result, "original_width", "original_height") for result in results]
    width, height = next((known for known in sizes if None not in known), (None, None))
    names = (data.get("image"), *data.values())
    reading.take(
        LabelledImage(
            place=place,
            file_name=next((name for name in names if isinstance(name, str) and name != frame_id), None),
            frame_id=frame_id,
            sha256=may(data, "sha256", str),
            width_px=width,
            height_px=height,
            annotator=text_of(annotator),
        ),
        boxes_of(regions, _region),
    )


def _region(place: str, result: Any) -> list[LabelledBox]:
    kind = take(result, "type", str)
    value = take(result, "value", dict)
    corners = _corners(kind, value, result)
    names = take(value, kind, list) if kind.endswith("labels") else []
    if not names or not all(isinstance(name, str) for name in names):
        raise Unreadable("a region without a label")
    return [LabelledBox(name, *corners, place=place) for name in names]


def _corners(kind: str, value: dict[str, Any], result: dict[str, Any]) -> Corners:
    """Bring a region to pixels. ``image_rotation`` is the view only: coordinates are of the image as it is."""
    known = ("points", "radiusX", "height")
    shape = next((key for key in known if key in value), None)
    if kind not in {"labels", "rectanglelabels", "polygonlabels", "ellipselabels", *_SHAPES}:
        raise Unsupported(f"{kind} has no box")
    if shape is None:
        raise Unreadable(f"none of {', '.join(known)}")
    width, height = size(result, "original_width", "original_height")
    if width is None or height is None:
        raise Unreadable("no original_width and original_height")
    if shape == "points":
        points = take(value, "points", list)
        if not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise Unreadable("points that are no pairs")
        pairs = [dict(zip("xy", point, strict=True)) for point in points]
        return around([(number_of(p, "x") * width / 100, number_of(p, "y") * height / 100) for p in pairs])
    x, y = number_of(value, "x") * width / 100, number_of(value, "y") * height / 100
    degrees = number_of(value, "rotation") if value.get("rotation") is not None else 0.0
    if not math.isfinite(degrees):
        raise Unreadable("rotation is no number")
    if shape == "radiusX":
        radius_x, radius_y = (
            number_of(value, "radiusX") * width / 100,
            number_of(value, "radiusY") * height / 100,
        )
        return ellipse(x, y, radius_x, radius_y, degrees)
    far = (x + number_of(value, "width") * width / 100, y + number_of(value, "height") * height / 100)
    return turned((x, y, *far), degrees, (x, y))  # a rectangle turns about its first corner
