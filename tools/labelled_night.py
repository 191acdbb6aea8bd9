"""A night over labelled images: the real pipeline on copies of them, and deliveries written from their true labels.

Each image is an independent photo, so there are no drives: all of them are one recording, and no gap in time is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors import ClassMap
from mining import config, import_labels, pipeline
from mining.config import Config
from mining.footage.images import list_images, read_image
from mining.store import Store
from mining.types import MiningError, UsageError
from mining.vendors import VENDORS
from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation
from tools import labelled_images


@dataclass(frozen=True, slots=True)
class Night:
    """What was mined, and what is true of it. ``n`` objects, flat, by frame of the recording."""

    config: Config
    store: Store
    batch_id: str
    classes: tuple[str, ...]
    known: NDArray[np.bool_]
    """[c] fleet classes that the labels name."""
    frame_index: NDArray[np.int64]
    """[n] frame of the recording, counted from 0; ``frames`` has its frame_id."""
    boxes_px: NDArray[np.float64]
    """[n, 4] clipped to the image."""
    of_class: NDArray[np.int64]
    """[n] position in ``classes``."""
    frames: int


def run(
    folder: Path,
    labels: Path,
    images: Sequence[Path],
    detectors: Sequence[Path],
    *,
    classes: Path | None,
    budget: int | None,
    random_share: float,
    strategy: str,
) -> Night:
    """Copy the images to ``folder``, run a night over them there, and read their labels.

    A second run in the same folder takes over what is committed there. ``budget`` None chooses every frame.

    Raises:
        UsageError: labels and images that do not go together, or two images of one name.
    """
    class_map = ClassMap.load(classes or config.shipped("classes.toml"))
    truth = labelled_images.load(labels, list(images), class_map)
    pictures = folder / "images" / "labelled"
    pictures.mkdir(parents=True, exist_ok=True)
    names = [path.name for path in truth.paths]
    if len(set(names)) < len(names):
        raise UsageError("two of the images have one name: give them folder by folder")
    for path in truth.paths:
        if not (pictures / path.name).exists():
            shutil.copy2(path, pictures / path.name)
    if left_over := {p.name for p in pictures.iterdir()} - set(names):
        raise UsageError(
            f"{pictures}: holds {sorted(left_over)[0]}, which is none of the images; name a new folder"
        )
    sizes = np.array([read_image(str(path)).shape[1::-1] for path in truth.paths])
    boxes = truth.boxes_px(sizes)
    limit = np.tile(sizes[truth.frame], 2).astype(np.float64)
    position = {name: i for i, name in enumerate(list_images(str(pictures)).names)}
    of_path = np.array([position[name] for name in names])

    file = folder / "night.toml"
    file.write_text(
        "\n".join(
            [
                *([f"classes = {json.dumps(str(classes.resolve()))}"] if classes else []),
                "[footage]", 'paths = ["images"]', "every = 1",
                *(f"[[detector]]\nweights = {json.dumps(str(path.resolve()))}" for path in detectors),
                # Photos repeat nothing, and each must be looked at for itself.
                "[detect]", "skip_repeats = false",
                "[select]", f"budget = {len(names) if budget is None else budget}", "min_gap_s = 0.0",
                f"random_share = {random_share}", f"strategy = {json.dumps(strategy)}",
                "max_duplicate_bits = -1" if budget is None else "", "same_moment_once = false",
                "exclude_chosen = false", "exclude_labelled = false",
                "[labels]", f"classes = {json.dumps([c for c, k in zip(class_map.fleet, truth.known, strict=True) if k])}",
            ]
        ),
        encoding="utf-8",
    )  # fmt: skip
    night = config.load(file)
    report = pipeline.run_night(night)
    if report.batch_id is None:
        raise MiningError(f"no frame could be chosen: {'; '.join(report.problems)}")
    return Night(
        config=night, store=Store(night.store_path), batch_id=report.batch_id, classes=class_map.fleet, known=truth.known,
        frame_index=of_path[truth.frame], boxes_px=np.clip(boxes, 0, limit), of_class=truth.classes, frames=len(names),
    )  # fmt: skip


def deliver(
    night: Night, vendor: str, folder: Path, boxes_px: NDArray[np.float64], of_class: NDArray[np.int64],
    frame_index: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write a batch as the vendor would send it back: its own writer, these boxes in place of pre-annotations."""
    write_manifest = VENDORS[vendor].write_manifest
    if write_manifest is None or VENDORS[vendor].read_labels is None:
        raise UsageError(f"{vendor}: needs a format that can be written and read")
    with night.store.connect() as con:
        rows = con.execute(
            "SELECT s.frame_id, s.rank, s.arm, e.image_uri, e.sha256, f.frame_index, f.recording_id, f.drive_id, f.camera, "
            "f.pts_ns, r.width_px, r.height_px FROM selections AS s JOIN exports AS e USING (batch_id, frame_id) "
            "JOIN frames AS f USING (frame_id) JOIN recordings AS r ON r.recording_id = f.recording_id "
            "WHERE s.batch_id = $b AND e.vendor = 'coco' ORDER BY s.arm, s.rank",
            {"b": night.batch_id},
        ).fetchall()
    images = []
    for (
        frame_id,
        rank,
        arm,
        uri,
        sha256,
        index,
        recording_id,
        drive_id,
        camera,
        pts_ns,
        width,
        height,
    ) in rows:
        drawn = tuple(
            PreAnnotation(night.classes[of_class[i]], 1.0, *boxes_px[i].tolist(), detectors=("labeler",))
            for i in np.flatnonzero(frame_index == index).tolist()
        )
        name = f"images/{Path(uri).name}"
        image = DeliveredImage(
            frame_id, name, name, sha256, width, height, rank, arm, None, "", 0.0, 0.0, drive_id, None, camera,
            datetime(2026, 1, 1, tzinfo=UTC), recording_id, index, pts_ns, drawn,
        )  # fmt: skip
        images.append(image)
    folder.mkdir(parents=True)
    write_manifest(Delivery(night.batch_id, night.classes, tuple(images)), folder)


def take_in(night: Night, vendor: str, folder: Path) -> import_labels.ImportReport:
    """Import a delivery, as `mining import-labels` does."""
    return pipeline.run_import(night.config, night.batch_id, vendor, [folder])[1]
