"""Selections -> a delivery for the labelers: images decoded again, manifests, `delivery.json`, one page of instructions."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

import mining
from mining.blur import Blur
from mining.check_delivery import asked_for
from mining.committee import committee_of, weights_digest
from mining.config import Config, ExportConfig
from mining.delivery_place import DeliveryPlace, check_place, place_of
from mining.export_images import WrittenImages, pack_images, write_images
from mining.preannotate import preannotations
from mining.schemas import EXPORTS
from mining.store import Store, digest, sql_file
from mining.types import MiningError, StageReport, TemporaryError, UsageError, may_pass
from mining.vendors import VENDORS
from mining.vendors.contents import write_contents
from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation
from mining.vendors.instructions import write_instructions

EXPORT_VERSION = 2
"""Raise when a delivery's bytes change for the same input."""


def check(config: Config) -> None:
    """Refuse, before hours of work, settings that this stage would refuse after them."""
    known = sorted(name for name, vendor in VENDORS.items() if vendor.write_manifest)
    unknown = sorted(set(config.export.vendors) - set(known))
    if unknown:
        raise UsageError(f"export.vendors: unknown {unknown[0]!r}; known: {', '.join(known)}")
    twice = [name for name, count in Counter(config.export.vendors).items() if count > 1]
    if twice:
        raise UsageError(f"export.vendors: {twice[0]!r} is there twice; once is enough")
    check_place(config.export.to)
    if config.export.blur is not None:
        Blur(config)


def run(
    store: Store, config: Config, batch_id: str, chosen_in: Store | None = None
) -> tuple[StageReport, Path | str]:
    """Deliver a batch. Returns where it lies, folder or URI; a delivery that is there unchanged is left alone.

    Frames of a batch that was chosen across sites are exported where their footage is: each site writes its own, and
    ``chosen_in`` is the store that holds the choice where it is not ``store``.

    A delivery that is there is never thrown away: another one of the same batch takes its place only when every image
    could be had, and the old one stays beside it as ``BATCH.previous-N``.
    """
    report = StageReport("export")
    check(config)
    export = config.export
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
    rows, reviewed = _batch_rows(store, chosen_in or store, batch_id)
    report.add(**reviewed)
    if chosen_in is not None or selected.get("select", {}).get("other_stores"):
        elsewhere = sum(row["uri"] is None for row in rows)
        rows = [row for row in rows if row["uri"] is not None]
        if elsewhere:
            report.problems.append(
                f"{elsewhere} frames of the batch are of other sites: run `mining export --batch {batch_id} "
                "--chosen-in STORE` there"
            )
    place = place_of(store, config, batch_id)
    where = place.name if "://" in place.name else Path(place.name)
    asked = asked_for(config.labels, committee.classes)
    settings = {**_settings(config), "asked_for": list(asked)}
    content = digest(_delivered(rows), export.vendors, settings, place.name, EXPORT_VERSION)
    exported = store.markers("export").get((night, batch_id), {})
    if exported.get("digest") == content and not exported["failed"] and place.is_there():
        report.unchanged = 1
        report.add(images=exported["images"])
        return report, where
    folder = place.workspace
    try:
        shutil.rmtree(folder, ignore_errors=True)
        written = write_images(rows, folder, config)
        drawn = preannotations(store, committee, [row["frame_id"] for row in rows], export)
        boxes = {name: [box for box in found if box.class_name in asked] for name, found in drawn.items()}
        delivery = Delivery(
            batch_id=batch_id,
            classes=committee.classes,
            images=tuple(
                _image(batch_id, row, written, boxes, export)
                for row in rows
                if row["frame_id"] in written.images
            ),
        )
        files = _write_manifests(delivery, folder, export, settings)
        report.problems += [
            f"{name}: not delivered: {reason}" for name, reason in sorted(written.errors.items())
        ]
        if written.lost_context:
            report.problems.append(f"{written.lost_context} context images could not be had")
        if written.errors and place.is_there():
            report.problems.append(
                f"{place.name}: left as it was, because {len(written.errors)} images could not be had now"
            )
            return report, where
        place.put()
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        kind = TemporaryError if may_pass(error) else MiningError
        raise kind(f"{error.filename or place.name}: cannot write the delivery: {reason}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # What comes back unchanged, now or after another export of the batch, nobody has labelled.
    manifests = {sha256 for name, sha256 in files.items() if not name.startswith(("images/", "context/"))}
    manifests |= set(exported.get("manifests", ()))
    table = _exports(delivery, rows, written, place, export)
    store.commit(
        "export", night, batch_id, {"exports": table}, digest=content, folder=place.name, images=len(written.images),
        failed=len(written.errors), manifests=sorted(manifests),
    )  # fmt: skip
    report.done = 1
    report.add(images=len(written.images), failed_images=len(written.errors))
    return report, where


def _batch_rows(store: Store, chosen_in: Store, batch_id: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Read the batch as it stands after its review, and count what a review has changed, where one has."""
    asked = {"batch_id": batch_id}
    with chosen_in.connect() as con:
        batch = con.sql(
            "FROM batch_frames WHERE batch_id = $batch_id AND in_batch", params=asked
        ).to_arrow_table()
        [counts] = con.sql(sql_file("reviewed"), params=asked).to_arrow_table().to_pylist()
    with store.connect() as con:
        con.register("batch", batch)
        rows = con.sql(sql_file("batch")).to_arrow_table().to_pylist()
    changed = {name: counts[name] for name in ("dropped", "replaced", "added")}
    return rows, changed if any(changed.values()) else {}


def _delivered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of the rows shows in a delivery; where the footage lies does not."""
    return [{k: v for k, v in row.items() if k not in {"uri", "size_bytes", "modified_ns"}} for row in rows]


def _settings(config: Config) -> dict[str, Any]:
    """What of the config shows in a delivery: no paths of this machine."""
    export = config.export
    settings = export.model_dump(mode="json", exclude={"to", "vendors", "blur"})
    if export.blur is not None:
        settings["blur"] = {
            "detector": export.blur.detector.table_name,
            "digest": weights_digest(config, export.blur.detector),
            **export.blur.model_dump(mode="json", exclude={"detector"}),
        }
    return settings


def _write_manifests(
    delivery: Delivery, folder: Path, export: ExportConfig, settings: dict[str, Any]
) -> dict[str, str]:
    """Write all but the images. Returns the sha256 of each file of the delivery, by name."""
    for vendor in export.vendors:
        write_manifest = VENDORS[vendor].write_manifest
        assert write_manifest is not None  # `check` has seen to that
        write_manifest(delivery, folder)
    write_instructions(delivery, folder, export, settings["asked_for"])
    pack_images(folder, export.images)
    return write_contents(
        delivery,
        folder,
        vendors=export.vendors,
        settings=settings,
        tool=f"mining {mining.__version__}",
    )


def _image(
    batch_id: str,
    row: dict[str, Any],
    written: WrittenImages,
    boxes: dict[str, list[PreAnnotation]],
    export: ExportConfig,
) -> DeliveredImage:
    columns = (
        "frame_id", "rank", "arm", "slice", "reason", "hardness", "estimated_boxes",
        "drive_id", "vehicle_id", "camera", "captured_at", "recording_id", "frame_index", "pts_ns",
    )  # fmt: skip
    name = row["frame_id"]
    image = written.images[name]
    return DeliveredImage(
        **{column: row[column] for column in columns},
        file_name=image.file_name,
        uri=_uri(batch_id, row, image.file_name, export),
        sha256=image.sha256,
        width_px=image.width_px,
        height_px=image.height_px,
        boxes=tuple(boxes.get(name, ())),
        context=tuple(written.context.get(name, ())),
    )


def _uri(batch_id: str, row: dict[str, Any], file_name: str, export: ExportConfig) -> str:
    if export.image_uri is None:
        return file_name
    named = {"batch_id": batch_id, "file_name": file_name}
    named |= {name: row[name] for name in ("frame_id", "recording_id", "drive_id", "camera")}
    if export.image_uri.startswith(("http://", "https://")):
        # Names come from vehicles; a key of a bucket takes them as they are.
        named = {name: quote(value) for name, value in named.items()}
    return export.image_uri.format_map(named)


def _exports(
    delivery: Delivery,
    rows: list[dict[str, Any]],
    written: WrittenImages,
    place: DeliveryPlace,
    export: ExportConfig,
) -> pa.Table:
    delivered = {
        image.frame_id: {
            "position": position,
            "file_name": image.file_name,
            "width_px": image.width_px,
            "height_px": image.height_px,
            "image_uri": {
                "files": place.uri(image.file_name),
                "zip": place.uri(f"images.zip!/{image.file_name}"),
                "none": image.uri,
            }[export.images],
            "sha256": image.sha256,
            "status": "ok",
        }
        for position, image in enumerate(delivery.images)
    }
    lines = [
        {
            "batch_id": delivery.batch_id,
            "frame_id": row["frame_id"],
            "vendor": vendor,
            **delivered.get(
                row["frame_id"], {"status": "failed", "error": written.errors.get(row["frame_id"])}
            ),
        }
        for vendor, row in itertools.product(export.vendors, rows)
    ]
    return pa.Table.from_pylist(lines, EXPORTS)
