"""``frames.csv`` (one line an image) and ``boxes.csv`` (one line a box): for spreadsheets, scripts and in-house tools."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mining.vendors.delivery import Delivery, image_row
from mining.vendors.guess import looks_like, wrong_format
from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Reject, Sent
from mining.vendors.reading import File, Reading, number, opened, size_px
from mining.vendors.untrusted import read_lines

CORNERS = ("x1_px", "y1_px", "x2_px", "y2_px")
_BOX_COLUMNS = ("frame_id", "image", "class_name", *CORNERS, "confidence", "detectors", "in_doubt")
_YES, _NO = {"1", "true", "yes"}, {"", "0", "false", "no"}

# A spreadsheet runs a cell that begins so as a formula (OWASP, CSV injection); an apostrophe makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``frames.csv``, and ``boxes.csv`` as ``read_labels`` takes it back: a line without a class for an image
    without a box."""
    rows = [
        {**image_row(i), "context": ";".join(near.file_name for near in i.context)} for i in delivery.images
    ]
    _write(folder / "frames.csv", list(rows[0]) if rows else ["frame_id"], rows)
    boxes: list[dict[str, object]] = []
    for image in delivery.images:
        named = {"frame_id": image.frame_id, "image": image.file_name}
        boxes += [
            {
                **named,
                "class_name": box.class_name,
                **{corner: getattr(box, corner) for corner in CORNERS},
                "confidence": box.confidence,
                "detectors": "+".join(box.detectors),
                "in_doubt": int(box.in_doubt),
            }
            for box in image.boxes
        ] or [{**named}]
    _write(folder / "boxes.csv", _BOX_COLUMNS, boxes)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _text(value: object) -> object:
    # Also before what begins with apostrophes of its own, so that one can be taken off again.
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA) else value


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read tables of one box a line: ``frame_id`` or ``image``, ``class_name``, ``x1_px``, ``y1_px``, ``x2_px``, ``y2_px``; and
    where they are there ``annotator``, ``ignore``, ``width_px``, ``height_px``. A line without class and corners says that
    nothing is to be seen on the image. Other columns are ours, or nobody's."""
    reading = Reading(sent)
    with opened(files, (".csv",)) as found:
        # Of a delivery's own folder: that one lists images.
        for file in [file for file in found if file.path.name != "frames.csv"] or found:
            _read(file, reading)
    return reading.labels()


def _read(file: File, reading: Reading) -> None:
    table = csv.DictReader(io.StringIO(read_lines(file.path, ","), newline=""), strict=True)
    images: dict[tuple[str, str, str], LabelledImage] = {}
    records: dict[tuple[str, str, str], list[LabelledBox | Reject]] = defaultdict(list)
    said_empty: dict[tuple[str, str, str], str] = {}
    try:
        columns = table.fieldnames or []
        lacking = [name for name in ("class_name", *CORNERS) if name not in columns]
        if lacking and looks_like(file.path) not in {"CSV", "plain text", "an empty file"}:
            raise wrong_format(
                file.path, f"CSV of boxes (columns frame_id, class_name, {', '.join(CORNERS)})"
            )
        if lacking or not {"frame_id", "image"} & set(columns):
            raise DeliveryError(
                f"{file.name}: has no column {lacking[0] if lacking else 'frame_id or image'!r}; columns are "
                f"{', '.join(columns)[:200] or 'none'}"
            )
        for row in table:
            place = f"{file.name}: line {table.line_num}"
            more = row.pop(None, None)
            if more is not None or None in row.values():
                kind = "glued" if more is not None and len(more) >= len(columns) - 1 else "unreadable"
                reading.reject(place, kind, f"not {len(columns)} columns, as the first line has")
                continue
            cells = {name: _plain(cell) for name, cell in row.items()}
            key = (cells.get("frame_id", ""), cells.get("image", ""), cells.get("annotator", ""))
            if key not in images:
                images[key] = LabelledImage(
                    place,
                    file_name=key[1] or None,
                    frame_id=key[0] or None,
                    width_px=size_px(cells.get("width_px")),
                    height_px=size_px(cells.get("height_px")),
                    annotator=key[2] or None,
                )
            if any(cells[name] for name in ("class_name", *CORNERS)):
                records[key].append(_box(cells, place))
            else:
                said_empty[key] = place
    except csv.Error as error:
        raise DeliveryError(
            f"{file.name}: no CSV (line {table.line_num}: {error}); save it as CSV with commas"
        ) from None
    for key, image in images.items():
        if key in said_empty and records[key]:
            said = "says that nothing is to be seen, and other lines have boxes of the image"
            records[key].append(Reject(said_empty[key], "unreadable", said))
        reading.take(image, records[key])


def _box(cells: Mapping[str, str], place: str) -> LabelledBox | Reject:
    x1, y1, x2, y2 = (number(cells[name]) for name in CORNERS)
    ignore = cells.get("ignore", "").strip().lower()
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return Reject(place, "unreadable", f"a corner that is no number such as 12.5 ({', '.join(CORNERS)})")
    if not cells["class_name"]:
        return Reject(place, "unreadable", "a box without class_name")
    if ignore not in _YES | _NO:
        return Reject(place, "unreadable", f"ignore is {ignore[:20]!r}, neither 1 nor 0")
    return LabelledBox(cells["class_name"], x1, y1, x2, y2, ignore in _YES, place)
