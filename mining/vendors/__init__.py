"""Formats of annotation vendors. A new one is one file and one entry in ``VENDORS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mining.vendors import (
    coco,
    csv,
    cvat,
    jsonl,
    kitti,
    label_studio,
    labelbox,
    sagemaker,
    scalabel,
    scale,
    voc,
    yolo,
)
from mining.vendors.delivery import Delivery
from mining.vendors.labels import Labels, Sent


@dataclass(frozen=True, slots=True)
class Vendor:
    """One format, out and back; None where it has no such direction."""

    write_manifest: Callable[[Delivery, Path], None] | None
    """(delivery, its folder): writes the manifest."""
    read_labels: Callable[[Sequence[Path], Sent], Labels] | None
    """(files or folders of a delivery, the batch as it went out): reads it. Raises ``labels.DeliveryError``."""


VENDORS: dict[str, Vendor] = {
    "coco": Vendor(coco.write_manifest, coco.read_labels),
    "csv": Vendor(csv.write_manifest, csv.read_labels),
    "cvat": Vendor(cvat.write_manifest, cvat.read_labels),
    "cvat-task": Vendor(cvat.write_task, cvat.read_labels),
    "jsonl": Vendor(jsonl.write_manifest, jsonl.read_labels),
    "kitti": Vendor(None, kitti.read_labels),
    "label-studio": Vendor(label_studio.write_manifest, label_studio.read_labels),
    "labelbox": Vendor(labelbox.write_manifest, labelbox.read_labels),
    "sagemaker": Vendor(sagemaker.write_manifest, sagemaker.read_labels),
    "scalabel": Vendor(scalabel.write_manifest, scalabel.read_labels),
    "scale": Vendor(scale.write_manifest, scale.read_labels),
    "voc": Vendor(None, voc.read_labels),
    "yolo": Vendor(yolo.write_manifest, yolo.read_labels),
}
"""Format name -> how it is written and read."""
