"""Manifests for annotation vendors. A new vendor is one file and one entry in ``VENDORS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mining.vendors import coco, csv, jsonl
from mining.vendors.delivery import Delivery

VENDORS: dict[str, Callable[[Delivery, Path], None]] = {
    "coco": coco.write_manifest,
    "csv": csv.write_manifest,
    "jsonl": jsonl.write_manifest,
}
"""Format name -> writer of its manifest into the delivery's folder."""
