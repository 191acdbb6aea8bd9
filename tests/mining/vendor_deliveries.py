"""Deliveries to write, and what each vendor makes of them: for tests of the vendor formats."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mining.vendors import VENDORS
from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation
from mining.vendors.labels import Labels, Sent, SentImage

Boxes = dict[str, list[tuple[str, float, float, float, float]]]
"""Boxes by frame: class, x1, y1, x2, y2, in the order of the delivery."""

WRITTEN = {
    "cvat": "cvat.xml",
    "cvat-task": "cvat_task.zip",
    "label-studio": "label_studio.json",
    "labelbox": "labelbox.ndjson",
    "sagemaker": "sagemaker.manifest",
    "scalabel": "scalabel.json",
    "scale": "scale.jsonl",
}


def image(
    index: int, frame_id: str, boxes: tuple[PreAnnotation, ...], size: tuple[int, int] = (1920, 1080)
) -> DeliveredImage:
    return DeliveredImage(
        frame_id=frame_id, file_name=f"images/{frame_id}.jpg", uri=f"s3://bucket/b/images/{frame_id}.jpg",
        sha256=f"{index:064x}", width_px=size[0], height_px=size[1], rank=index + 1, arm="mined", slice=None,
        reason='uncertain: "x" < y & z', hardness=0.5, estimated_boxes=float(len(boxes)), drive_id="drive",
        vehicle_id=None, camera="front", captured_at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=index),
        recording_id="r", frame_index=index, pts_ns=index * 10**9, boxes=boxes,
    )  # fmt: skip


def plain(classes: tuple[str, ...] = ("car", "pedestrian")) -> Delivery:
    """Three images: two boxes (one in doubt), none, one box on the edge."""
    first = PreAnnotation(classes[0], 0.9, 10.123456, 20.5, 110.25, 220.75, ("yolo", "nanodet"))
    second = PreAnnotation(classes[1], 0.4, 0.0, 0.0, 1920.0, 1080.0, ("yolo",), in_doubt=True)
    third = PreAnnotation(classes[0], 0.75, 1.0 / 3, 2.0 / 3, 640.0 / 7, 99.9999, ("yolo", "nanodet"))
    return Delivery(
        "batch-1",
        classes,
        (
            image(0, "0a-0000001", (first, second)),
            image(1, "0b-0000002", ()),
            image(2, "0c-0000003", (third,), (640, 480)),
        ),
    )


def sent_of(delivery: Delivery) -> Sent:
    return Sent(
        delivery.batch_id,
        delivery.classes,
        tuple(
            SentImage(one.frame_id, one.file_name, one.sha256, one.width_px, one.height_px)
            for one in delivery.images
        ),
    )


def boxes_of(delivery: Delivery, vendor: str) -> Boxes:
    return {
        one.frame_id: [
            (b.class_name, b.x1_px, b.y1_px, b.x2_px, b.y2_px)
            for b in one.boxes
            if not (b.in_doubt and vendor == "labelbox")  # which cannot mark it
        ]
        for one in delivery.images
    }


def boxes_read(labels: Labels, sent: Sent) -> Boxes:
    boxes: Boxes = defaultdict(list)
    for one in labels.images:
        found = sent.find(one)
        assert found is not None, one
        assert (one.width_px, one.height_px) in {(None, None), (found.width_px, found.height_px)}
        boxes[found.frame_id] += [(b.class_name, b.x1_px, b.y1_px, b.x2_px, b.y2_px) for b in one.boxes]
    return dict(boxes)


def write(vendor: str, delivery: Delivery, folder: Path) -> Path:
    writer = VENDORS[vendor].write_manifest
    assert writer is not None
    for one in delivery.images if vendor == "cvat-task" else ():
        (folder / one.file_name).parent.mkdir(parents=True, exist_ok=True)
        (folder / one.file_name).write_bytes(b"a JPEG of " + one.frame_id.encode())
    writer(delivery, folder)
    return folder / WRITTEN[vendor]


def as_labelled(vendor: str, written: Path) -> Path:
    """Do what the vendor does where a labeler accepts every pre-annotation: the file that it then delivers."""
    if vendor in {"cvat", "cvat-task", "scalabel"}:
        return written
    text = written.read_text(encoding="utf-8")
    lines = (
        [json.loads(line) for line in text.split("\n") if line]
        if vendor != "label-studio"
        else json.loads(text)
    )
    delivered = written.with_suffix(".labelled" + written.suffix)
    if vendor == "label-studio":
        for task in lines:
            results = [result for prediction in task["predictions"] for result in prediction["result"]]
            task["annotations"] = [{"completed_by": 7, "was_cancelled": False, "result": results}]
        delivered.write_text(json.dumps(lines), encoding="utf-8")
        return delivered
    if vendor == "labelbox":
        rows = json.loads((written.parent / "labelbox_data_rows.json").read_text(encoding="utf-8"))
        lines = [_labelbox_row(row, lines) for row in rows]
    elif vendor == "scale":
        lines = [
            {
                "task_id": f"t{index}", "type": "imageannotation", "status": "completed",
                "params": {"attachment": task["attachment"], "geometries": task["geometries"]},
                "metadata": task["metadata"], "unique_id": task["unique_id"], "response": task["hypothesis"],
            }
            for index, task in enumerate(lines)
        ]  # fmt: skip
    else:
        for line in lines:
            line["job"] = line["mining-preannotations"]
            line["job-metadata"] = {
                **line["mining-preannotations-metadata"], "job-name": "labeling-job/job", "human-annotated": "yes"
            }  # fmt: skip
    delivered.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return delivered


def _labelbox_row(row: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    objects = [
        {"name": one["name"], "annotation_kind": "ImageBoundingBox", "bounding_box": one["bbox"]}
        for one in predictions
        if one["dataRow"]["globalKey"] == row["global_key"]
    ]
    return {
        "data_row": {"id": "d", "global_key": row["global_key"], "row_data": row["row_data"]},
        "media_attributes": {},
        "projects": {
            "p": {
                "labels": [
                    {"label_details": {"created_by": "a@b.example"}, "annotations": {"objects": objects}}
                ]
            }
        },
    }


_SIDES = st.floats(0, 4000, allow_nan=False, width=64)


@st.composite
def deliveries(draw: st.DrawFn, xml: bool) -> Delivery:
    """Any delivery whose frames are named apart: hostile class names, boxes anywhere, images without boxes."""
    alphabet: Any = st.characters(
        exclude_categories=["Cs", "Cc"] if xml else ["Cs"], exclude_characters="\ufffe\uffff"
    )
    names = st.text(alphabet, min_size=1, max_size=12) | st.sampled_from(
        ["a\nb", 'say "x"', "<box/>", "&amp;", "a\tb", "]]>", "it's", "車両", "🚗", "0", "null", " "]
    )
    classes = tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True)))
    frame_ids = draw(
        st.lists(
            st.text("0123abc-_'\"&<>é車\n ", min_size=3, max_size=12),
            min_size=1,
            max_size=5,
            unique_by=str.strip,
        )
    )
    images = []
    for index, frame_id in enumerate(frame_ids):
        boxes = []
        for _ in range(draw(st.integers(0, 4))):
            (x1, x2), (y1, y2) = (sorted((draw(_SIDES), draw(_SIDES))) for _ in "xy")
            boxes.append(
                PreAnnotation(
                    draw(st.sampled_from(classes)),
                    draw(st.floats(0, 1)),
                    x1,
                    y1,
                    x2,
                    y2,
                    ("a", "b"),
                    draw(st.booleans()),
                )
            )
        images.append(image(index, f"{frame_id}#{index}".replace("#", "-"), tuple(boxes), (4000, 3000)))
    return Delivery("b", classes, tuple(images))
