"""Selections -> images and vendor manifests: each chosen frame is decoded again from its recording."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.committee import Committee, committee_of, committee_sees
from mining.config import Config, ExportConfig
from mining.footage import Defaults, FootageError, Source, frame_times, read, stat_signature
from mining.progress import progress
from mining.schemas import EXPORTS
from mining.store import Store, digest, sql_file
from mining.types import Frame, MiningError, StageReport, UsageError
from mining.vendors import VENDORS
from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation

EXPORT_VERSION = 1
"""Raise when a delivery's bytes change for the same input."""

_KNOWS = pa.schema([("detector", pa.string()), ("class", pa.string()), ("class_index", pa.int32())])


def check(config: Config) -> None:
    """Refuse, before hours of work, settings that this stage would refuse after them."""
    known = sorted(name for name, vendor in VENDORS.items() if vendor.write_manifest)
    unknown = sorted(set(config.export.vendors) - set(known))
    if unknown:
        raise UsageError(f"export.vendors: unknown {unknown[0]!r}; known: {', '.join(known)}")


def run(
    store: Store, config: Config, batch_id: str, chosen_in: Store | None = None
) -> tuple[StageReport, Path]:
    """Write the batch's folder. Returns where it lies; a folder that is there unchanged is left alone.

    Frames of a batch that was chosen across sites are exported where their footage is: each site writes its own, and
    ``chosen_in`` is the store that holds the choice where it is not ``store``.

    A delivery that is there is never thrown away: another one of the same batch takes its place only when every image
    could be had, and the old one stays beside it as ``BATCH.previous-N``.
    """
    report = StageReport("export")
    check(config)
    folder = config.path(config.export.to) / batch_id
    batches = (chosen_in or store).markers("select")
    chosen = [(where, marker) for where, marker in batches.items() if where[1] == batch_id]
    if not chosen:
        known = ", ".join(sorted(key for _, key in batches)[-5:]) or "none yet"
        raise UsageError(f"no batch is called {batch_id!r}; the latest: {known}")
    (night, _), selected = chosen[0]
    committee = committee_of(config)
    if selected["committee_id"] != committee.committee_id:
        raise UsageError(
            f"batch {batch_id} was chosen by committee {selected['committee_id']}, the config has "
            f"{committee.committee_id}: export with the config that chose it"
        )
    rows = _batch_rows(store, chosen_in or store, batch_id)
    if chosen_in is not None or selected.get("select", {}).get("other_stores"):
        elsewhere = sum(row["uri"] is None for row in rows)
        rows = [row for row in rows if row["uri"] is not None]
        if elsewhere:
            report.problems.append(
                f"{elsewhere} frames of the batch are of other sites: run `mining export --batch {batch_id} "
                "--chosen-in STORE` there"
            )
    content = digest(_delivered(rows), config.export.model_dump(), str(folder), EXPORT_VERSION)
    exported = store.markers("export").get((night, batch_id), {})
    if exported.get("digest") == content and not exported["failed"] and folder.is_dir():
        report.unchanged = 1
        report.counts = {"images": exported["images"]}
        return report, folder
    # Written beside its place and renamed: a vendor's upload script never sees half a delivery.
    partial = folder.parent / f".{batch_id}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "images").mkdir(parents=True)
        images, errors = _write_images(rows, partial, config)
        boxes = _preannotations(store, committee, rows, config.export.preannotation_confidence)
        delivery = Delivery(
            batch_id=batch_id,
            classes=committee.classes,
            images=tuple(
                _image(row, images[row["frame_id"]], boxes, config.export)
                for row in rows
                if row["frame_id"] in images
            ),
        )
        for vendor in config.export.vendors:
            write_manifest = VENDORS[vendor].write_manifest
            assert write_manifest is not None  # `check` has seen to that
            write_manifest(delivery, partial)
        report.problems += [f"{name}: not delivered: {reason}" for name, reason in sorted(errors.items())]
        if errors and folder.exists():
            shutil.rmtree(partial)
            report.problems.append(
                f"{folder}: left as it was, because {len(errors)} images could not be had now"
            )
            return report, folder
        if folder.exists():
            earlier = next(
                p for n in itertools.count(1) if not (p := Path(f"{folder}.previous-{n}")).exists()
            )
            os.replace(folder, earlier)
        os.replace(partial, folder)
    except OSError as error:
        raise MiningError(
            f"{error.filename or folder}: cannot write the delivery: {error.strerror}"
        ) from None
    table = _exports(batch_id, rows, images, errors, folder, config.export)
    store.commit(
        "export", night, batch_id, {"exports": table}, digest=content, folder=str(folder), images=len(images),
        failed=len(errors),
    )  # fmt: skip
    report.done = 1
    report.add(images=len(images), failed_images=len(errors))
    return report, folder


@dataclass(frozen=True, slots=True)
class _Written:
    """An image as it lies in the delivery."""

    sha256: str
    width_px: int
    height_px: int


def _batch_rows(store: Store, chosen_in: Store, batch_id: str) -> list[dict[str, Any]]:
    with chosen_in.connect() as con:
        batch = con.sql(
            "FROM selections WHERE batch_id = $batch_id", params={"batch_id": batch_id}
        ).to_arrow_table()
    with store.connect() as con:
        con.register("batch", batch)
        return con.sql(sql_file("batch")).to_arrow_table().to_pylist()


def _delivered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of the rows shows in a delivery; where the footage lies does not."""
    return [{k: v for k, v in row.items() if k not in {"uri", "size_bytes", "modified_ns"}} for row in rows]


def _write_images(
    rows: list[dict[str, Any]], folder: Path, config: Config
) -> tuple[dict[str, _Written], dict[str, str]]:
    """Write every image. Returns what was written by frame_id, and the reasons for those that could not be had."""
    images: dict[str, _Written] = {}
    errors = {
        row[
            "frame_id"
        ]: "its recording was indexed otherwise since (other content at its place, or another sampling)"
        for row in rows
        if row["uri"] is None
    }
    ordered = sorted(
        (row for row in rows if row["uri"]), key=lambda row: (row["recording_id"], row["frame_index"])
    )
    with progress("export", len(rows), "images") as shown:
        for _, group in itertools.groupby(ordered, key=lambda row: row["recording_id"]):
            frames = list(group)
            try:
                for row, frame in zip(frames, _decode(frames, config), strict=True):
                    shown.advance()
                    if frame.rgb is None or frame.pts_ns != row["pts_ns"]:
                        errors[row["frame_id"]] = (
                            frame.error or "the footage has changed since it was indexed"
                        )
                        continue
                    content = encode(frame.rgb, config.export)
                    (folder / _file_name(row["frame_id"], config.export)).write_bytes(content)
                    height, width = frame.rgb.shape[:2]
                    images[row["frame_id"]] = _Written(hashlib.sha256(content).hexdigest(), width, height)
            except FootageError as error:
                errors |= {row["frame_id"]: str(error) for row in frames if row["frame_id"] not in images}
    return images, errors


def _decode(rows: list[dict[str, Any]], config: Config) -> Iterator[Frame]:
    """Decode chosen frames of one recording, after making sure that it is still the one that was indexed."""
    first = rows[0]
    source = Source(first["uri"], first["kind"])
    if stat_signature(source) != (first["size_bytes"], first["modified_ns"]):
        raise FootageError(f"{source.path}: gone, or changed since it was indexed; run `mining index`")
    times = frame_times(source, Defaults(image_rate_hz=config.footage.image_rate_hz))
    return read(source, times, [row["frame_index"] for row in rows], (first["width_px"], first["height_px"]))


def encode(rgb: NDArray[np.uint8], export: ExportConfig) -> bytes:
    """Encode one image [height, width, 3] as the config says."""
    if export.image_format == "png":
        ok, content = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, export.jpeg_quality]
        ok, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise MiningError(
            f"OpenCV could not encode a {rgb.shape[1]}x{rgb.shape[0]} image as {export.image_format}"
        )
    return content.tobytes()


def _file_name(frame_id: str, export: ExportConfig) -> str:
    return f"images/{frame_id}.{'png' if export.image_format == 'png' else 'jpg'}"


def _preannotations(
    store: Store, committee: Committee, rows: list[dict[str, Any]], confidence: float
) -> dict[str, list[PreAnnotation]]:
    """Read the objects that the committee agrees on, by frame."""
    knows = [
        {"detector": name, "class": committee.classes[i], "class_index": i + 1}  # SQL counts from 1
        for name, seen in committee_sees(store, committee).items()
        for i in np.flatnonzero(seen).tolist()
    ]
    boxes: dict[str, list[PreAnnotation]] = defaultdict(list)
    with store.connect() as con:
        con.register("chosen", pa.table({"frame_id": [row["frame_id"] for row in rows]}))
        con.register("knows", pa.Table.from_pylist(knows, _KNOWS))
        parameters = {"committee_id": committee.committee_id, "confidence": confidence}
        found = con.execute(sql_file("preannotations"), parameters).fetchall()
    for name, class_name, score, x1, y1, x2, y2, detectors in found:
        boxes[name].append(PreAnnotation(class_name, score, x1, y1, x2, y2, tuple(detectors)))
    return boxes


def _image(
    row: dict[str, Any], written: _Written, boxes: dict[str, list[PreAnnotation]], export: ExportConfig
) -> DeliveredImage:
    columns = (
        "frame_id", "rank", "arm", "slice", "reason", "hardness", "estimated_boxes",
        "drive_id", "vehicle_id", "camera", "captured_at", "recording_id", "frame_index", "pts_ns",
    )  # fmt: skip
    return DeliveredImage(
        **{name: row[name] for name in columns},
        file_name=_file_name(row["frame_id"], export),
        uri=_file_name(row["frame_id"], export),
        sha256=written.sha256,
        width_px=written.width_px,
        height_px=written.height_px,
        boxes=tuple(boxes.get(row["frame_id"], ())),
    )


def _exports(
    batch_id: str,
    rows: list[dict[str, Any]],
    images: dict[str, _Written],
    errors: dict[str, str],
    folder: Path,
    export: ExportConfig,
) -> pa.Table:
    lines = []
    for vendor, row in itertools.product(export.vendors, rows):
        name = row["frame_id"]
        written = images.get(name)
        lines.append(
            {
                "batch_id": batch_id,
                "frame_id": name,
                "vendor": vendor,
                "image_uri": str(folder / _file_name(name, export)) if written else None,
                "sha256": written.sha256 if written else None,
                "status": "ok" if written else "failed",
                "error": errors.get(name),
            }
        )
    return pa.Table.from_pylist(lines, EXPORTS)
