"""SageMaker Ground Truth bounding boxes (docs.aws.amazon.com/sagemaker, "Labeling job output data"): out and back.

An output manifest has each line of the input with the job's label beside it, so what was sent comes back: the frame id,
the digest, and the pre-annotations under a label attribute of their own, which are not taken for labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mining.vendors.delivery import DeliveredImage, Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.reading import Reading, opened
from mining.vendors.records import boxes_of, may, number_of, size, take
from mining.vendors.untrusted import BadLine, parse_json, read_json_records

_OURS = "mining-preannotations"
"""Label attribute and job name of the pre-annotations. A job that adjusts them puts its own name there."""


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``sagemaker.manifest``: an augmented manifest whose labels an adjustment job starts from.

    Ground Truth takes images from S3: set ``export.image_uri``.
    """
    class_id = {name: index for index, name in enumerate(delivery.classes)}
    with (folder / "sagemaker.manifest").open("w", encoding="utf-8", newline="\n") as file:
        for image in delivery.images:
            line = _line(image, class_id)
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def _line(image: DeliveredImage, class_id: dict[str, int]) -> dict[str, object]:
    return {
        "source-ref": image.uri,
        "frame_id": image.frame_id,
        "sha256": image.sha256,
        _OURS: {
            "image_size": [{"width": image.width_px, "height": image.height_px, "depth": 3}],
            "annotations": [
                {
                    "class_id": class_id[box.class_name],
                    "left": box.x1_px,
                    "top": box.y1_px,
                    "width": box.x2_px - box.x1_px,
                    "height": box.y2_px - box.y1_px,
                }
                for box in image.boxes
            ],
        },
        f"{_OURS}-metadata": {
            "objects": [
                {
                    "confidence": box.confidence,
                    "detectors": "+".join(box.detectors),
                    "in_doubt": box.in_doubt,
                }
                for box in image.boxes
            ],
            "class-map": {str(index): name for name, index in class_id.items()},
            "type": "groundtruth/object-detection",
            "human-annotated": "no",
            # The image's time: an export that is made again has the same bytes.
            "creation-date": image.captured_at.isoformat(),
            "job-name": _OURS,
        },
    }


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read output manifests, and consolidation requests, which have each worker's boxes apart."""
    reading = Reading(sent)
    with opened(files, (".manifest", ".json", ".jsonl")) as found:
        for file in found:
            records = list(read_json_records(file.path))
            if records and not any(_is_line(line) or _is_request(line) for _, line in records):
                raise wrong_format(file.path, "SageMaker manifest (lines with source-ref)")
            for count, line in records:
                place = f"{file.name}: line {count}"
                if isinstance(line, BadLine):
                    reading.reject(place, line.kind, line.reason)
                elif _is_line(line):
                    _read_line(line, place, reading)
                elif _is_request(line):
                    _read_request(line, place, sent, reading)
                else:
                    reading.reject(place, "unreadable", "no source-ref")
    return reading.labels()


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("source-ref"), str)


def _is_request(line: Any) -> bool:
    return isinstance(line, dict) and "datasetObjectId" in line and isinstance(line.get("annotations"), list)


def _read_line(line: dict[str, Any], place: str, reading: Reading) -> None:
    frame_id = may(line, "frame_id", str)
    chosen: tuple[str, dict[str, Any], dict[str, Any]] | None = None
    for key, label in line.items():
        metadata = may(line, f"{key}-metadata", dict)
        if metadata is None or may(metadata, "job-name", str) == _OURS or "failure-reason" in metadata:
            continue
        # Chained jobs leave one label each: the newest counts, and of two of one time the later one.
        created = may(metadata, "creation-date", str) or ""
        if isinstance(may(label, "annotations", list), list) and (chosen is None or created >= chosen[0]):
            chosen = created, label, metadata
    if chosen is None:
        reasons = [may(value, "failure-reason", str) for value in line.values()]
        reason = next((text for text in reasons if text), "nobody has labelled it")
        reading.reject(place, "skipped", reason, frame_id)
        return
    _, label, metadata = chosen
    classes = may(metadata, "class-map", dict) or {}

    def box(where: str, entry: Any) -> list[LabelledBox]:
        class_id = str(take(entry, "class_id", int))
        return [_box(where, entry, may(classes, class_id, str) or class_id)]

    sizes = may(label, "image_size", list) or [None]
    _add(reading, place, line, sizes[0], [*enumerate(label["annotations"], start=1)], box, None)


def _read_request(request: dict[str, Any], place: str, sent: Sent, reading: Reading) -> None:
    """Read one object of a consolidation request: an annotation a worker, whose content is JSON as text."""
    # Objects are numbered from 0 in the order of the input manifest.
    index = str(request["datasetObjectId"])
    image = (
        sent.images[int(index)]
        if index.isdecimal() and len(index) < 10 and int(index) < len(sent.images)
        else None
    )
    about = {
        "source-ref": may(may(request, "dataObject", dict), "s3Uri", str) or f"object {index}",
        "frame_id": image.frame_id if image else None,
    }
    for count, annotation in enumerate(request["annotations"], start=1):
        where = f"{place}, worker {count}"
        text = may(may(annotation, "annotationData", dict), "content", str)
        content = parse_json(text) if text is not None else BadLine("unreadable", "no content")
        answers = [content, *content.values()] if isinstance(content, dict) else []
        answer = next(
            (value for value in answers if isinstance(may(value, "boundingBoxes", list), list)), None
        )
        if answer is None:
            reason = content.reason if isinstance(content, BadLine) else "no boundingBoxes"
            reading.reject(where, "unreadable", reason, about["frame_id"])
            continue

        def box(box_place: str, entry: Any) -> list[LabelledBox]:
            return [_box(box_place, entry, take(entry, "label", str))]

        entries = [*enumerate(answer["boundingBoxes"], start=1)]
        worker = may(annotation, "workerId", str)
        _add(reading, where, about, may(answer, "inputImageProperties", dict), entries, box, worker)


def _add(
    reading: Reading,
    place: str,
    line: dict[str, Any],
    image_size: Any,
    entries: Any,
    box: Any,
    worker: str | None,
) -> None:
    frame_id = may(line, "frame_id", str)
    width, height = size(image_size)
    reading.take(
        LabelledImage(
            place=place,
            file_name=line["source-ref"],
            frame_id=frame_id,
            sha256=may(line, "sha256", str),
            width_px=width,
            height_px=height,
            annotator=worker,
        ),
        boxes_of([(f"{place}, box {n}", entry) for n, entry in entries], box),
    )


def _box(place: str, entry: Any, class_name: str) -> LabelledBox:
    left, top = number_of(entry, "left"), number_of(entry, "top")
    corners = (left, top, left + number_of(entry, "width"), top + number_of(entry, "height"))
    return LabelledBox(class_name, *corners, place=place)
