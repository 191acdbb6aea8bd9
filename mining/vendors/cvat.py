"""CVAT XML 1.1 (docs.cvat.ai, "XML annotation format"): written for images; read for images and for video.

A polygon, mask, ellipse or cuboid is read as its enclosing box, a turned box likewise; points, lines, skeletons and
image tags are reported as unsupported.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mining.types import MiningError
from mining.vendors.delivery import Delivery
from mining.vendors.guess import wrong_format
from mining.vendors.labels import DeliveryError, LabelledBox, LabelledImage, Labels, Sent
from mining.vendors.reading import File, Reading, opened
from mining.vendors.records import (
    Corners,
    Unreadable,
    Unsupported,
    around,
    boxes_of,
    ellipse,
    number_of,
    size,
    turned,
)
from mining.vendors.untrusted import read_xml

LIMIT_TRACKED_BOXES = 2_000_000
"""Of one file: a few tracks stand for a box on every frame."""

_ATTRIBUTES = (("confidence", "text"), ("detectors", "text"), ("in_doubt", "checkbox"))
_NO_SHAPE = frozenset({"attribute"})
_SHAPES = frozenset({"box", "polygon", "mask", "ellipse", "cuboid", "polyline", "points", "skeleton", "tag"})
# What XML 1.0 cannot hold, and carriage returns, which its readers turn into newlines.
_NO_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


def write_manifest(delivery: Delivery, folder: Path) -> None:
    """Write ``cvat.xml``: for "Upload annotations" of a task that has the delivery's images."""
    (folder / "cvat.xml").write_bytes(_xml(delivery))


def write_task(delivery: Delivery, folder: Path) -> None:
    """Write ``cvat_task.zip``: images and annotations.

    CVAT makes a task of its images (it passes the XML by), and the task's "Upload annotations" takes its XML.
    """
    # The same bytes each time: fixed times, and images stored, which are compressed already.
    with zipfile.ZipFile(folder / "cvat_task.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("annotations.xml"), _xml(delivery), zipfile.ZIP_DEFLATED)
        for image in delivery.images:
            archive.writestr(zipfile.ZipInfo(image.file_name), (folder / image.file_name).read_bytes())


def _xml(delivery: Delivery) -> bytes:
    root = ElementTree.Element("annotations")
    _child(root, "version", "1.1")
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for key, value in (
        ("name", delivery.batch_id),
        ("size", str(len(delivery.images))),
        ("mode", "annotation"),
        ("start_frame", "0"),
        ("stop_frame", str(max(len(delivery.images) - 1, 0))),
    ):
        _child(task, key, value)
    labels = ElementTree.SubElement(task, "labels")
    for name in delivery.classes:
        label = ElementTree.SubElement(labels, "label")
        _child(label, "name", name)
        attributes = ElementTree.SubElement(label, "attributes")
        for attribute, kind in _ATTRIBUTES:
            entry = ElementTree.SubElement(attributes, "attribute")
            checkbox = kind == "checkbox"
            for key, value in (
                ("name", attribute),
                ("mutable", "False"),
                ("input_type", kind),
                ("default_value", "false" if checkbox else ""),
                ("values", "false\ntrue" if checkbox else ""),
            ):
                _child(entry, key, value)
    # In the order that CVAT gives a task's images: where it knows none by its name, the number counts.
    for index, image in enumerate(sorted(delivery.images, key=lambda image: image.file_name)):
        entry = ElementTree.SubElement(
            root, "image", id=str(index), name=xml_text(image.file_name),
            width=str(image.width_px), height=str(image.height_px),
        )  # fmt: skip
        for box in image.boxes:
            shape = ElementTree.SubElement(
                entry, "box", label=xml_text(box.class_name), source="auto", occluded="0",
                xtl=repr(box.x1_px), ytl=repr(box.y1_px), xbr=repr(box.x2_px), ybr=repr(box.y2_px), z_order="0",
            )  # fmt: skip
            values = (f"{box.confidence:.4f}", "+".join(box.detectors), str(box.in_doubt).lower())
            for (attribute, _), value in zip(_ATTRIBUTES, values, strict=True):
                ElementTree.SubElement(shape, "attribute", name=attribute).text = xml_text(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _child(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = xml_text(text)


def xml_text(text: str) -> str:
    """Return text that XML can hold; MiningError for a control character, which it cannot."""
    if _NO_XML.search(text):
        raise MiningError(
            f"{text!r} holds a character that XML cannot hold; rename it, or take a JSON format"
        )
    return text


def read_labels(files: Sequence[Path], sent: Sent) -> Labels:
    """Read CVAT for images and CVAT for video, as XML or in the zip that CVAT makes.

    A video's frame is the n-th image by name: a task of images has no other names for them there.
    """
    reading = Reading(sent)
    with opened(files, (".xml",)) as found:
        for file in found:
            root = read_xml(file.path)
            if root.tag != "annotations":
                raise wrong_format(file.path, "CVAT XML")
            tracks, images = root.findall("track"), root.findall("image")
            for count, image in enumerate(images, start=1):
                _read_image(image, f"{file.name}: image {count}", reading)
            if tracks or not images:
                _read_tracks(root, tracks, file, reading)
    return reading.labels()


def _read_image(image: ElementTree.Element, place: str, reading: Reading) -> None:
    shapes = [child for child in image if child.tag not in _NO_SHAPE]
    places = [(f"{place}, {shape.tag} {n}", shape) for n, shape in enumerate(shapes, start=1)]
    width, height = size(image.attrib)
    reading.take(
        LabelledImage(place=place, file_name=image.get("name"), width_px=width, height_px=height),
        boxes_of(places, lambda where, shape: [_box(where, shape, shape.get("label"))]),
    )


def _box(place: str, shape: ElementTree.Element, label: str | None) -> LabelledBox:
    corners = _corners(shape)
    if label is None:
        raise Unreadable("no label")
    return LabelledBox(label, *corners, place=place)


def _corners(shape: ElementTree.Element) -> Corners:
    values = shape.attrib
    degrees = number_of(values, "rotation") if "rotation" in values else 0.0
    match shape.tag:
        case "box":
            x1, y1, x2, y2 = (number_of(values, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            return turned((x1, y1, x2, y2), degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
        case "polygon":
            return around(_points(values.get("points", "")))
        case "mask":
            left, top, width, height = (number_of(values, key) for key in ("left", "top", "width", "height"))
            return left, top, left + width, top + height
        case "ellipse":
            cx, cy, rx, ry = (number_of(values, key) for key in ("cx", "cy", "rx", "ry"))
            if not math.isfinite(degrees):
                raise Unreadable("rotation is no number")
            return ellipse(cx, cy, rx, ry, degrees)
        case "cuboid":
            corners = [f"{side}{face}" for side in ("tl", "bl", "tr", "br") for face in (1, 2)]
            return around([(number_of(values, f"x{key}"), number_of(values, f"y{key}")) for key in corners])
        case tag if tag in _SHAPES:
            raise Unsupported(f"a {tag} has no box")
        case tag:
            raise Unreadable(f"an element that CVAT does not write: {tag[:40]!r}")


def _points(text: str) -> list[tuple[float, float]]:
    points = []
    for pair in text.split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise Unreadable(f"points that are no pairs: {pair[:40]!r}")
        points.append((number_of({"x": x}, "x"), number_of({"y": y}, "y")))
    return points


def _read_tracks(
    root: ElementTree.Element,
    tracks: list[ElementTree.Element],
    file: File,
    reading: Reading,
) -> None:
    """Read tracks; between two shapes of a track CVAT moves linearly, and after the last it stays where it is.

    Source: CVAT's ``TrackManager``. The writer puts down every frame, with keyframe 0 or 1; others only the keyframes.
    """
    # CVAT numbers the images of a task in the order of their names, where nobody asked for another.
    sent = sorted(reading.sent.images, key=lambda image: image.file_name)
    first, step = _task(root, file.path, len(sent))
    frames = len(sent)
    boxes: dict[int, list[LabelledBox]] = {index: [] for index in range(frames)}
    made = 0
    for track_number, track in enumerate(tracks, start=1):
        label = track.get("label")
        shapes: dict[int, tuple[Corners, bool]] = {}
        for shape_number, shape in enumerate(track, start=1):
            place = f"{file.name}: track {track_number}, {shape.tag} {shape_number}"
            if shape.tag == "track":  # a skeleton's parts
                continue
            try:
                frame = number_of(shape.attrib, "frame")
                index = (frame - first) / step
                if not math.isfinite(index) or index != int(index) or not 0 <= index < 2**31:
                    raise Unreadable(
                        f"frame {shape.get('frame')} is none of the task's (start {first}, step {step})"
                    )
                if label is None:
                    raise Unreadable("no label")
                shapes[int(index)] = (_corners(shape), shape.get("outside") == "1")
            except Unreadable as error:
                reading.reject(place, "unreadable", str(error))
            except Unsupported as error:
                reading.reject(place, "unsupported", str(error))
        for index, corners in _positions(shapes, frames):
            made += 1
            if made > LIMIT_TRACKED_BOXES:
                raise DeliveryError(f"{file.path}: more than {LIMIT_TRACKED_BOXES:,} boxes; split the task")
            place = f"{file.name}: track {track_number}, frame {first + index * step}"
            boxes.setdefault(index, []).append(LabelledBox(str(label), *corners, place=place))
    width, height = size(_texts(root, "meta/task/original_size") or _texts(root, "meta/job/original_size"))
    for index, inside in sorted(boxes.items()):
        image = sent[index] if index < frames else None
        reading.take(
            LabelledImage(
                place=f"{file.name}: frame {first + index * step}",
                file_name=image.file_name if image else f"frame {first + index * step}",
                frame_id=image.frame_id if image else None,
                width_px=width,
                height_px=height,
            ),
            inside,
        )


def _positions(shapes: dict[int, tuple[Corners, bool]], frames: int) -> list[tuple[int, Corners]]:
    """Return where a track is, by frame; between its shapes only for frames that were sent."""
    positions: list[tuple[int, Corners]] = []
    listed = sorted(shapes)
    for index, following in zip(listed, [*listed[1:], None], strict=False):
        corners, outside = shapes[index]
        if outside:
            continue
        positions.append((index, corners))
        until = min(frames, frames if following is None else following)
        towards = corners if following is None else shapes[following][0]
        for between in range(index + 1, until):
            share = 0.0 if following is None else (between - index) / (following - index)
            x1, y1, x2, y2 = (a + (b - a) * share for a, b in zip(corners, towards, strict=True))
            positions.append((between, (x1, y1, x2, y2)))
    return positions


def _task(root: ElementTree.Element, file: Path, frames: int) -> tuple[int, int]:
    """Return the number of the first image's frame, and the step from frame to frame."""
    if len(root.findall("meta/project/tasks/task")) > 1:
        raise DeliveryError(
            f"{file}: tracks of several tasks, whose frames have one number; export each task"
        )
    task = _texts(root, "meta/task") or _texts(root, "meta/project/tasks/task")
    meta = task or _texts(root, "meta/job")
    step_text = re.fullmatch(r"\s*step\s*=\s*(\d{1,9})\s*", meta.get("frame_filter") or "")
    step = max(int(step_text[1]), 1) if step_text else 1
    # A job's start is its own, not the task's: our tasks begin at frame 0.
    first = int(task["start_frame"]) if re.fullmatch(r"\d{1,9}", task.get("start_frame") or "") else 0
    if task.get("size", "").isdecimal() and int(task["size"][:12]) != frames:
        raise DeliveryError(
            f"{file}: a task of {task['size'][:12]} frames, but the batch has {frames} images, so which frame is "
            "which image is unknown; export as CVAT for images"
        )
    return first, step


def _texts(root: ElementTree.Element, path: str) -> dict[str, str]:
    parent = root.find(path)
    return {} if parent is None else {child.tag: (child.text or "").strip() for child in parent}
