"""``frames.jsonl``: one JSON object an image, pre-annotations included."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mining.vendors.delivery import Delivery, image_row


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``frames.jsonl``."""
    with (folder / "frames.jsonl").open("w", encoding="utf-8") as file:
        for image in delivery.images:
            row = {**image_row(image), "preannotations": [asdict(box) for box in image.boxes]}
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
