"""``coco.json``: COCO object detection (cocodataset.org/#format-data), pre-annotations as annotations with a score."""

from __future__ import annotations

import json
from pathlib import Path

from mining.vendors.delivery import Delivery


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``coco.json``: ids from 1 in the order of the batch; boxes are x, y, width, height in pixels."""
    category = {name: number for number, name in enumerate(delivery.classes, start=1)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id, image in enumerate(delivery.images, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": image.file_name,
                "width": image.width_px,
                "height": image.height_px,
                "date_captured": image.captured_at.isoformat(),
                "frame_id": image.frame_id,
                "sha256": image.sha256,
            }
        )
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
