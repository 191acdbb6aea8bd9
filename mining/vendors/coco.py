"""``coco.json``: COCO object detection (cocodataset.org/#format-data), pre-annotations as annotations with a score."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mining.vendors.delivery import Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.reading import File, Reading, number, opened, size_px, text_or_none
from mining.vendors.untrusted import read_json


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``coco.json``: ids from 1 in the order of the batch; boxes are x, y, width, height in pixels."""
    category = {name: number for number, name in enumerate(delivery.classes, start=1)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id, image in enumerate(delivery.images, start=1):
        entry: dict[str, object] = {
            "id": image_id,
            "file_name": image.file_name,
            "width": image.width_px,
            "height": image.height_px,
            "date_captured": image.captured_at.isoformat(),
            "frame_id": image.frame_id,
            "sha256": image.sha256,
        }
        if image.uri != image.file_name:
            entry["coco_url"] = image.uri
        images.append(entry)
        for box in image.boxes:
            width, height = box.x2_px - box.x1_px, box.y2_px - box.y1_px
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[box.class_name],
                    "bbox": [box.x1_px, box.y1_px, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box.confidence,
                    "source": "+".join(box.detectors),
                    # Where CVAT and others look for what COCO has no field for.
                    "attributes": {"in_doubt": box.in_doubt},
                }
            )
    document = {
        "info": {"description": f"mining batch {delivery.batch_id}", "version": "1.0"},
        "licenses": [],
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for name, number in category.items()
        ],
        "images": images,
        "annotations": annotations,
    }
    (folder / "coco.json").write_text(
        json.dumps(document, ensure_ascii=False, allow_nan=False), encoding="utf-8"
    )


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read COCO files, or folders and zips of them. An image that is listed without annotations is labelled as empty."""
    reading = Reading(sent)
    with opened(files, (".json",)) as found:
        for file in found:
            _read(file, reading)
    return reading.labels()


def _read(file: File, reading: Reading) -> None:
    document = read_json(file.path)
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in lists):
        raise wrong_format(
            file.path, "COCO file (a JSON object with the lists images, annotations and categories)"
        )
    names = {
        entry["id"]: entry["name"]
        for entry in document["categories"]
        if isinstance(entry, dict) and _is_id(entry.get("id")) and isinstance(entry.get("name"), str)
    }
    images: dict[Any, tuple[str, dict[str, Any]]] = {}
    for position, entry in enumerate(document["images"]):
        place = f"{file.name}: images[{position}]"
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            reading.reject(place, "unreadable", "no object with an `id`")
        elif entry["id"] in images:
            reading.reject(place, "unreadable", f"the id {entry['id']!r} stands twice")
        else:
            images[entry["id"]] = place, entry
    records: dict[Any, list[LabelledBox | Reject]] = defaultdict(list)
    for position, entry in enumerate(document["annotations"]):
        place = f"{file.name}: annotations[{position}]"
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if not _is_id(image_id):
            reading.reject(place, "unreadable", "no object with an `image_id`")
        elif image_id not in images:
            reading.reject(place, "no_frame", f"image_id {image_id!r} is not in the file's list of images")
        else:
            records[image_id].append(_box(entry, names, place))
    for image_id, (place, entry) in images.items():
        image = LabelledImage(
            place=place,
            file_name=text_or_none(entry.get("file_name")),
            frame_id=text_or_none(entry.get("frame_id")),
            sha256=text_or_none(entry.get("sha256")),
            width_px=size_px(entry.get("width")),
            height_px=size_px(entry.get("height")),
        )
        reading.take(image, records[image_id])


def _box(entry: Mapping[str, Any], names: Mapping[Any, str], place: str) -> LabelledBox | Reject:
    category_id, bbox = entry.get("category_id"), entry.get("bbox")
    if not _is_id(category_id) or category_id not in names:
        return Reject(
            place, "unknown_class", f"category_id {category_id!r} is not in the file's list of categories"
        )
    if not isinstance(bbox, list) or len(bbox) != 4:
        return Reject(place, "unreadable", "`bbox` is no list of four numbers")
    x, y, width, height = (None if isinstance(value, str) else number(value) for value in bbox)
    if x is None or y is None or width is None or height is None:
        return Reject(place, "unreadable", "`bbox` is no list of four numbers")
    ignore = bool(entry.get("iscrowd") or entry.get("ignore"))
    return LabelledBox(names[category_id], x, y, x + width, y + height, ignore, place)


def _is_id(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)
