"""Selections -> images and vendor manifests: each chosen frame is decoded again from its recording."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.committee import Committee, committee_of, committee_sees
from mining.config import Config, ExportConfig
from mining.footage import Defaults, FootageError, Source, frame_times, read
from mining.progress import progress
from mining.schemas import EXPORTS
from mining.store import Store, digest, sql_file
from mining.types import MiningError, StageReport, UsageError
from mining.vendors import VENDORS
from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation

EXPORT_VERSION = 1
"""Raise when a delivery's bytes change for the same input."""


def run(store: Store, config: Config, batch_id: str) -> tuple[StageReport, Path]:
    """Write the batch's folder. Returns where it lies; a folder that is there unchanged is left alone."""
    report = StageReport("export")
    unknown = sorted(set(config.export.vendors) - set(VENDORS))
    if unknown:
        raise UsageError(f"export.vendors: unknown {unknown[0]!r}; known: {', '.join(sorted(VENDORS))}")
    folder = config.path(config.export.to) / batch_id
    chosen = [(where, marker) for where, marker in store.markers("select").items() if where[1] == batch_id]
    if not chosen:
        known = ", ".join(sorted(key for _, key in store.markers("select"))[-5:]) or "none yet"
        raise UsageError(f"no batch is called {batch_id!r}; the latest: {known}")
    (night, _), selected = chosen[0]
    committee = committee_of(config)
    if selected["committee_id"] != committee.committee_id:
        raise UsageError(
            f"batch {batch_id} was chosen by committee {selected['committee_id']}, the config has "
            f"{committee.committee_id}: export with the config that chose it"
        )
    content = digest(selected["digest"], config.export.model_dump(), str(folder), EXPORT_VERSION)
    exported = store.markers("export").get((night, batch_id), {})
    if exported.get("digest") == content and folder.is_dir():
        report.unchanged = 1
        report.counts = {"images": exported["rows"]["exports"] // len(config.export.vendors)}
        return report, folder
    rows = _batch_rows(store, batch_id)
    # Written beside its place and renamed: a vendor's upload script never sees half a delivery.
    parent = folder.parent
    partial = parent / f".{batch_id}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "images").mkdir(parents=True)
        hashes, errors = _write_images(rows, partial, config)
        boxes = _preannotations(store, committee, rows, config.export.preannotation_confidence)
        delivery = Delivery(
            batch_id=batch_id,
            classes=committee.classes,
            images=tuple(
                _image(row, hashes, boxes, config.export) for row in rows if row["frame_id"] in hashes
            ),
        )
        for vendor in config.export.vendors:
            VENDORS[vendor](delivery, partial)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as error:
        raise MiningError(
            f"{error.filename or folder}: cannot write the delivery: {error.strerror}"
        ) from None
    table = _exports(batch_id, rows, hashes, errors, folder, config.export)
    store.commit("export", night, batch_id, {"exports": table}, digest=content, folder=str(folder))
    report.done = 1
    report.add(images=len(hashes), failed_images=len(errors))
    report.problems += [f"{name}: not delivered: {reason}" for name, reason in sorted(errors.items())]
    return report, folder


def _batch_rows(store: Store, batch_id: str) -> list[dict[str, Any]]:
    with store.connect() as con:
        return con.sql(sql_file("batch"), params={"batch_id": batch_id}).to_arrow_table().to_pylist()


def _write_images(
    rows: list[dict[str, Any]], folder: Path, config: Config
) -> tuple[dict[str, str], dict[str, str]]:
    """Write every image. Returns frame_id -> sha256, and frame_id -> reason for those that could not be had."""
    export, defaults = config.export, Defaults(image_rate_hz=config.footage.image_rate_hz)
    hashes: dict[str, str] = {}
    errors: dict[str, str] = {}
    ordered = sorted(rows, key=lambda row: (row["recording_id"], row["frame_index"]))
    with progress("export", len(rows), "images") as shown:
        for _, group in itertools.groupby(ordered, key=lambda row: row["recording_id"]):
            frames = list(group)
            source = Source(frames[0]["uri"], frames[0]["kind"])
            size = (frames[0]["width_px"], frames[0]["height_px"])
            try:
                times = frame_times(source, defaults)
                decoded = list(
                    zip(frames, read(source, times, [f["frame_index"] for f in frames], size), strict=True)
                )
            except (FootageError, OSError) as error:
                errors |= {row["frame_id"]: str(error) for row in frames}
                continue
            for row, frame in decoded:
                if frame.rgb is None or frame.pts_ns != row["pts_ns"]:
                    errors[row["frame_id"]] = frame.error or "the footage has changed since it was indexed"
                else:
                    content = encode(frame.rgb, export)
                    (folder / _file_name(row["frame_id"], export)).write_bytes(content)
                    hashes[row["frame_id"]] = hashlib.sha256(content).hexdigest()
                shown.advance()
    return hashes, errors


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
        {"detector": name, "class": class_name}
        for name, seen in committee_sees(store, committee).items()
        for class_name, can_see in zip(committee.classes, seen, strict=True)
        if can_see
    ]
    boxes: dict[str, list[PreAnnotation]] = defaultdict(list)
    with store.connect() as con:
        con.register("chosen", pa.table({"frame_id": [row["frame_id"] for row in rows]}))
        con.register(
            "knows",
            pa.Table.from_pylist(knows, pa.schema([("detector", pa.string()), ("class", pa.string())])),
        )
        parameters = {"committee_id": committee.committee_id, "confidence": confidence}
        found = con.execute(sql_file("preannotations"), parameters).fetchall()
    for name, class_name, score, x1, y1, x2, y2, detectors in found:
        boxes[name].append(PreAnnotation(class_name, score, x1, y1, x2, y2, tuple(detectors)))
    return boxes


def _image(
    row: dict[str, Any], hashes: dict[str, str], boxes: dict[str, list[PreAnnotation]], export: ExportConfig
) -> DeliveredImage:
    columns = (
        "frame_id", "width_px", "height_px", "rank", "arm", "slice", "reason", "hardness", "estimated_boxes",
        "drive_id", "vehicle_id", "camera", "captured_at", "recording_id", "frame_index", "pts_ns",
    )  # fmt: skip
    return DeliveredImage(
        **{name: row[name] for name in columns},
        file_name=_file_name(row["frame_id"], export),
        sha256=hashes[row["frame_id"]],
        boxes=tuple(boxes.get(row["frame_id"], ())),
    )


def _exports(
    batch_id: str,
    rows: list[dict[str, Any]],
    hashes: dict[str, str],
    errors: dict[str, str],
    folder: Path,
    export: ExportConfig,
) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "batch_id": batch_id,
                "frame_id": row["frame_id"],
                "vendor": vendor,
                "image_uri": str(folder / _file_name(row["frame_id"], export))
                if row["frame_id"] in hashes
                else None,
                "sha256": hashes.get(row["frame_id"]),
                "status": "ok" if row["frame_id"] in hashes else "failed",
                "error": errors.get(row["frame_id"]),
            }
            for vendor in export.vendors
            for row in rows
        ],
        EXPORTS,
    )
