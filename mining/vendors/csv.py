"""``frames.csv``: one line an image, for spreadsheets and scripts."""

from __future__ import annotations

import csv
from pathlib import Path

from mining.vendors.delivery import Delivery, image_row

# A spreadsheet runs a cell that begins so as a formula (OWASP, CSV injection); an apostrophe makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``frames.csv``."""
    with (folder / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [image_row(image) for image in delivery.images]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["frame_id"])
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _text(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
