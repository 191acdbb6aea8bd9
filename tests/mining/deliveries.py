"""Deliveries for tests: made by hand or drawn by hypothesis, hostile names included."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from hypothesis import strategies as st

from mining.vendors.delivery import DeliveredImage, Delivery, PreAnnotation
from mining.vendors.labels import LabelledBox, Labels, Sent, SentImage


def box(class_name: str, *corners: float, in_doubt: bool = False) -> PreAnnotation:
    return PreAnnotation(class_name, 0.75, *corners, ("a", "b"), in_doubt)


def image(
    position: int,
    boxes: tuple[PreAnnotation, ...] = (),
    size_px: tuple[int, int] = (640, 360),
    name: str | None = None,
) -> DeliveredImage:
    frame_id = f"{position:020x}-{position:07d}"
    file_name = f"images/{name or frame_id + '.jpg'}"
    return DeliveredImage(
        frame_id=frame_id,
        file_name=file_name,
        uri=file_name,
        sha256=hashlib.sha256(frame_id.encode()).hexdigest(),
        width_px=size_px[0],
        height_px=size_px[1],
        rank=position + 1,
        arm="mined",
        slice=None,
        reason="hardness 0.90; presence_sum 98 %",
        hardness=0.9,
        estimated_boxes=float(len(boxes)),
        drive_id="drive",
        vehicle_id=None,
        camera="front",
        captured_at=datetime(2026, 3, 14, 20, tzinfo=UTC),
        recording_id=f"{position:020x}",
        frame_index=position,
        pts_ns=position * 10**9,
        boxes=boxes,
    )


def delivery(*images: DeliveredImage, classes: tuple[str, ...] = ("car", "pedestrian")) -> Delivery:
    return Delivery("batch", classes, images)


def sent_of(given: Delivery) -> Sent:
    return Sent(
        given.batch_id,
        given.classes,
        tuple(SentImage(i.frame_id, i.file_name, i.sha256, i.width_px, i.height_px) for i in given.images),
    )


def paint(given: Delivery, folder: Path) -> None:
    """Write an image file for each, grey with its boxes in white."""
    (folder / "images").mkdir()
    for each in given.images:
        pixels = np.full((each.height_px, each.width_px, 3), 90, np.uint8)
        for found in each.boxes:
            corners = [round(v) for v in (found.x1_px, found.y1_px, found.x2_px, found.y2_px)]
            cv2.rectangle(pixels, corners[:2], corners[2:], (255, 255, 255), -1)
        cv2.imwrite(str(folder / each.file_name), pixels)


def corners(found: PreAnnotation | LabelledBox) -> tuple[float, float, float, float]:
    return found.x1_px, found.y1_px, found.x2_px, found.y2_px


def assert_same(given: Delivery, labels: Labels, *, edge_px: float = 0.01, in_doubt: bool = True) -> None:
    """No frame, no box, no class is lost, and no edge has moved by more than ``edge_px``."""
    assert labels.rejects == ()
    sent = sent_of(given)
    found = {}
    for labelled in labels.images:
        match = sent.find(labelled)
        assert match is not None
        assert match.frame_id not in found
        found[match.frame_id] = labelled.boxes
    assert set(found) == {each.frame_id for each in given.images}
    for each in given.images:
        wanted = [b for b in each.boxes if in_doubt or not b.in_doubt]
        assert [b.class_name for b in found[each.frame_id]] == [b.class_name for b in wanted]
        if wanted:
            moved = np.subtract([corners(b) for b in found[each.frame_id]], [corners(b) for b in wanted])
            assert np.abs(moved).max() <= edge_px


# What a file name and a class name may hold at worst; NUL is in neither.
_ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_NAMES = st.text(st.one_of(st.sampled_from("\"'\n\r\t,;=+-@#:{}[]\\ %?&<>é例🚗"), _ANY), max_size=12)


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    """Draw a delivery with any class names, file names, sizes and boxes."""
    classes = draw(st.lists(_NAMES.filter(str.strip), min_size=1, max_size=5, unique=True))
    images = []
    for position in range(draw(st.integers(1, 4))):
        width_px, height_px = draw(st.integers(1, 8000)), draw(st.integers(1, 8000))

        def edges(size_px: int) -> st.SearchStrategy[list[float]]:
            inside = st.floats(0, size_px, allow_nan=False)
            return st.lists(inside, min_size=2, max_size=2, unique=True).map(sorted)

        boxes = []
        for _ in range(draw(st.integers(0, 3))):
            (x1, x2), (y1, y2) = draw(edges(width_px)), draw(edges(height_px))
            boxes.append(box(draw(st.sampled_from(classes)), x1, y1, x2, y2, in_doubt=draw(st.booleans())))
        text = draw(_NAMES).replace("/", "")
        images.append(image(position, tuple(boxes), (width_px, height_px), f"{position}{text}.jpg"))
    return delivery(*images, classes=tuple(classes))


def stem(each: DeliveredImage) -> str:
    return PurePosixPath(each.file_name).stem
