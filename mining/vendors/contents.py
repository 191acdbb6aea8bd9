"""``delivery.json``: what a delivery holds, for machines. The same delivery gives the same bytes: no times, no paths of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mining.vendors.delivery import Delivery

FILE_NAME = "delivery.json"


def write_contents(
    delivery: Delivery, folder: Path, *, vendors: Sequence[str], settings: Mapping[str, object], tool: str
) -> dict[str, str]:
    """Write ``delivery.json`` over all that lies in ``folder`` now. Returns the sha256 of each file, by name."""
    files = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    boxes = [box for image in delivery.images for box in image.boxes]
    document = {
        "batch_id": delivery.batch_id,
        "tool": tool,
        "vendors": list(vendors),
        "classes": list(delivery.classes),
        "counts": {
            "images": len(delivery.images),
            "context_images": sum(len(image.context) for image in delivery.images),
            "boxes": len(boxes),
            "boxes_in_doubt": sum(box.in_doubt for box in boxes),
        },
        "settings": dict(settings),
        "images": [
            {
                "frame_id": image.frame_id,
                "file_name": image.file_name,
                "uri": image.uri,
                "sha256": image.sha256,
                "context": [
                    {"file_name": near.file_name, "offset_s": near.offset_s, "sha256": near.sha256}
                    for near in image.context
                ],
            }
            for image in delivery.images
        ],
        "files": files,
    }
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
