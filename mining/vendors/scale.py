"""Scale AI image annotation (scale.com/docs, "Image annotation"): tasks with a hypothesis out, responses back.

Polygons are read as their enclosing box, a turned box as that of its vertices; other geometries are unsupported.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mining.vendors.delivery import DeliveredImage, Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.reading import Reading, opened
from mining.vendors.records import (
    Unsupported,
    around,
    boxes_of,
    may,
    number_of,
    size,
    take,
)
from mining.vendors.untrusted import BadLine, read_json_records


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``scale.jsonl``: one line a task, the body of a request for an ``imageannotation`` task.

    The marks of doubt are an attribute for the labeler; confidence and detectors lie in the metadata, by uuid.
    ``unique_id`` is batch and frame id, so that a task that is sent twice is made once; add your project.
    """
    in_doubt = any(box.in_doubt for image in delivery.images for box in image.boxes)
    with (folder / "scale.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for image in delivery.images:
            annotations = [
                {
                    "type": "box",
                    "label": box.class_name,
                    "left": box.x1_px,
                    "top": box.y1_px,
                    "width": box.x2_px - box.x1_px,
                    "height": box.y2_px - box.y1_px,
                    "uuid": _uuid(image, index),
                    **({"attributes": {"in_doubt": "yes" if box.in_doubt else "no"}} if in_doubt else {}),
                }
                for index, box in enumerate(image.boxes)
            ]
            task = {
                "batch": delivery.batch_id,
                "unique_id": f"{delivery.batch_id}/{image.frame_id}",
                "attachment": image.uri,
                "geometries": {"box": {"objects_to_annotate": list(delivery.classes)}},
                **({"annotation_attributes": {"in_doubt": _IN_DOUBT}} if in_doubt else {}),
                "metadata": {
                    "frame_id": image.frame_id,
                    "sha256": image.sha256,
                    "width": image.width_px,
                    "height": image.height_px,
                    "reason": image.reason,
                    "preannotations": [
                        {
                            "uuid": _uuid(image, index),
                            "confidence": box.confidence,
                            "detectors": "+".join(box.detectors),
                        }
                        for index, box in enumerate(image.boxes)
                    ],
                },
                "hypothesis": {"annotations": annotations},
            }
            file.write(json.dumps(task, ensure_ascii=False, allow_nan=False) + "\n")


_IN_DOUBT = {"type": "category", "description": "The detectors did not agree", "choices": ["yes", "no"]}
_NAMESPACE = uuid.UUID("2f6c1f5e-8f6b-4d53-9a0b-7a4f6f3f5a0e")


def _uuid(image: DeliveredImage, index: int) -> str:
    """Name a pre-annotation: the same each time."""
    return str(uuid.uuid5(_NAMESPACE, f"{image.frame_id}/{index}"))


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read tasks or callbacks with a response: JSON, a list of it, or JSON lines."""
    reading = Reading(sent)
    with opened(files, (".json", ".jsonl", ".ndjson")) as found:
        for file in found:
            records = list(read_json_records(file.path))
            if records and not any(_is_task(record) for _, record in records):
                raise wrong_format(file.path, "Scale task with a response")
            for count, record in records:
                place = f"{file.name}: task {count}"
                if isinstance(record, BadLine):
                    reading.reject(place, record.kind, record.reason)
                elif _is_task(record):
                    _read_task(record, place, reading)
                else:
                    reading.reject(place, "unreadable", "no task_id")
    return reading.labels()


def _is_task(record: Any) -> bool:
    return isinstance(record, dict) and ("task_id" in record or "response" in record)


def _read_task(record: dict[str, Any], place: str, reading: Reading) -> None:
    # A callback has the task inside; the API's answer is the task.
    task = may(record, "task", dict) or record
    params = may(task, "params", dict)
    metadata = may(task, "metadata", dict) or may(params, "metadata", dict)
    unique_id = may(task, "unique_id", str)
    frame_id = may(metadata, "frame_id", str) or (unique_id.rpartition("/")[2] if unique_id else None)
    annotations = may(may(record, "response", dict) or may(task, "response", dict), "annotations", list)
    status = may(record, "status", str) or may(task, "status", str) or "completed"
    if status != "completed" or (annotations is None and "response" not in record):
        reading.reject(place, "skipped", f"the task is {status}, without a response", frame_id)
        return
    if annotations is None:
        reading.reject(place, "unreadable", "a response without a list of annotations", frame_id)
        return
    places = [(f"{place}, annotation {count}", entry) for count, entry in enumerate(annotations, start=1)]
    width, height = size(metadata)
    reading.take(
        LabelledImage(
            place=place,
            file_name=may(params, "attachment", str) or may(task, "attachment", str),
            frame_id=frame_id,
            sha256=may(metadata, "sha256", str),
            width_px=width,
            height_px=height,
            annotator=may(record, "worker_id", str),
        ),
        boxes_of(places, _annotation),
    )


def _annotation(place: str, entry: Any) -> list[LabelledBox]:
    label = take(entry, "label", str)
    kind = may(entry, "type", str) or may(entry, "geometry", str) or "box"
    if kind not in {"box", "polygon"}:
        raise Unsupported(f"{kind[:40]} has no box")
    if kind == "polygon" or isinstance(entry.get("vertices"), list):
        points = take(entry, "vertices", list)
        corners = around([(number_of(point, "x"), number_of(point, "y")) for point in points])
    else:
        left, top = number_of(entry, "left"), number_of(entry, "top")
        corners = (left, top, left + number_of(entry, "width"), top + number_of(entry, "height"))
    return [LabelledBox(label, *corners, place=place)]
