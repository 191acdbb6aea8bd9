"""What a file seems to be, for messages: from its beginning, and not to be relied upon."""

from __future__ import annotations

import re
from pathlib import Path

from mining.vendors.labels import DeliveryError

_MAGIC = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"PK\x03\x04", "a zip"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a SQLite database"),
)

# First match wins; each is looked for in the first 64 KiB.
_TEXT = (
    (r"<annotations\b", "CVAT XML"),
    (r"<annotation\b", "Pascal VOC XML"),
    (r"(?i)\A\s*<(!doctype )?html\b", "a web page"),
    (r"\A\s*<", "XML"),
    (r'"source-ref"\s*:', "a SageMaker manifest"),
    (r'"(was_cancelled|to_name|rectanglelabels|from_name)"\s*:', "Label Studio JSON"),
    (r'"(data_row|dataRow|DataRow ID|globalKey)"\s*:', "Labelbox JSON"),
    (r'"(box2d|poly2d|videoName|box3d)"\s*:', "Scalabel / BDD100K JSON"),
    (r'"(categories|category_id|iscrowd)"\s*:', "COCO JSON"),
    (r'"(task_id|hypothesis|callback_url)"\s*:', "Scale JSON"),
    (r"\A\s*[\[{]", "other JSON"),
    (r"\A\s*\d+( -?[\d.e-]+){4}\s", "YOLO text"),
    (r"\A\s*[A-Za-z_]+( -?[\d.e-]+){14}", "KITTI text"),
    (r"\A[^\n,]+(,[^\n,]*)+\n", "CSV"),
)


def looks_like(path: Path) -> str:
    """Name in a few words what a file seems to be, from its beginning; for messages only."""
    try:
        with path.open("rb") as file:
            return _looks_like(file.read(65_536))
    except (OSError, ValueError):
        return "nothing that can be read"


def wrong_format(path: Path, expected: str) -> DeliveryError:
    """Make the error for a file that is another format than was asked for."""
    return DeliveryError(
        f"{path}: no {expected}: it looks like {looks_like(path)}; check the file and --vendor"
    )


def magic(content: bytes) -> str | None:
    """Name what a file's first bytes say that it is; None for what may be text."""
    return next((what for beginning, what in _MAGIC if content.startswith(beginning)), None)


def _looks_like(content: bytes) -> str:
    if (what := magic(content)) is not None:
        return what
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return looks_like_text(content.decode("utf-16", errors="replace"))
    if b"\0" in content[:1000]:
        return "a binary file"
    try:
        content[:65_000].decode()
    except UnicodeDecodeError as error:
        if error.end < min(len(content), 65_000) - 4:  # not just a character cut in two
            return "text in another encoding, or a binary file"
    return looks_like_text(content.decode(errors="replace"))


def looks_like_text(text: str) -> str:
    """Name what a text seems to be."""
    head = text[:65_536].lstrip("\ufeff")
    if not head.strip():
        return "an empty file"
    return next((what for pattern, what in _TEXT if re.search(pattern, head)), "plain text")
