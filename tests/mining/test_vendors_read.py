"""What annotation tools deliver: real files, each tool's quirks, other formats, and bytes that somebody broke."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.vendors import VENDORS
from mining.vendors.delivery import Delivery
from mining.vendors.labels import KINDS, DeliveryError, LabelledImage, Labels, Sent, SentImage
from tests.mining.vendor_deliveries import WRITTEN, as_labelled, plain, sent_of, write
from tests.mining.vendor_deliveries import image as delivered

SENT = Sent(
    "b", ("car",), tuple(SentImage(f"f{n}", f"images/f{n}.jpg", f"{n:064x}", 100, 50) for n in range(4))
)
READERS = sorted(WRITTEN)


def _read(vendor: str, *paths: Path, sent: Sent = SENT) -> Labels:
    reader = VENDORS[vendor].read_labels
    assert reader is not None
    return reader(paths, sent)


def _given(vendor: str, folder: Path, content: Any, sent: Sent = SENT) -> Labels:
    """Read a document (made JSON where it is no text)."""
    text = content if isinstance(content, str) else json.dumps(content)
    path = folder / f"labels{Path(WRITTEN[vendor]).suffix}"
    path.write_text(text, encoding="utf-8")
    return _read(vendor, path, sent=sent)


def _one(labels: Labels) -> LabelledImage:
    assert labels.rejects == ()
    (image,) = labels.images
    return image


def _corners(labels: Labels) -> list[tuple[float, float, float, float]]:
    return [(b.x1_px, b.y1_px, b.x2_px, b.y2_px) for b in _one(labels).boxes]


def _kinds(labels: Labels) -> list[str]:
    return [reject.kind for reject in labels.rejects]


# ---- real files --------------------------------------------------------------------------------------------------


def _has_all(entry: Any, *keys: str) -> bool:
    return isinstance(entry, dict) and all(entry.get(key) is not None for key in keys)


def _count_json(entry: Any, is_box: Callable[[Any], bool]) -> int:
    """Count the objects of a document, wherever they are, that ``is_box`` says are one."""
    children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []
    return is_box(entry) + sum(_count_json(child, is_box) for child in children)


FIXTURES = [
    ("label-studio", "label_studio/export_boxes_data.json", lambda e: _has_all(e, "rectanglelabels")),
    ("label-studio", "label_studio/export_polygons_data.json", lambda e: _has_all(e, "polygonlabels")),
    *(
        ("labelbox", f"labelbox/v1_{name}.json", lambda e: _has_all(e, "bbox") or _has_all(e, "polygon"))
        for name in ("image_export", "highly_nested_image", "video_export")
    ),
    *(
        ("scalabel", f"bdd_scalabel/{name}.json", lambda e: _has_all(e, "box2d") or _has_all(e, "poly2d"))
        for name in (
            "bdd100k_example_annotation", "scalabel_image_list_with_auto_labels", "scalabel_kitti_detection",
            "scalabel_kitti_tracking", "scalabel_scalabel_box_track", "scalabel_scalabel_det", "scalabel_waymo_cam_anns",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("vendor", "name", "is_box"), FIXTURES, ids=[name for _, name, _ in FIXTURES])
def test_real_json_is_read_to_the_last_box(
    vendor: str, name: str, is_box: Callable[[Any], bool], shared_data: Path
) -> None:
    path = shared_data / "fixtures" / name
    labels = _read(vendor, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    groups = document.pop("groups", []) if isinstance(document, dict) else []  # of a lidar, not of an image
    expected = _count_json(document, is_box)
    assert expected > 0
    assert sum(": group " in reject.place for reject in labels.rejects) == sum(
        len(one["labels"]) for one in groups
    )
    assert sum(len(image.boxes) for image in labels.images) == expected
    assert set(_kinds(labels)) <= {"unsupported"}
    for box in (box for image in labels.images for box in image.boxes):
        assert box.class_name
        assert box.x1_px < box.x2_px
        assert box.y1_px < box.y2_px


def test_real_cvat_for_images_is_read_to_the_last_shape(shared_data: Path) -> None:
    path = shared_data / "fixtures" / "cvat" / "cvat_for_images.xml"
    labels = _read("cvat", path)
    shapes = Counter(
        shape.tag for image in ElementTree.parse(path).getroot().iter("image") for shape in image
    )
    assert [(image.file_name, image.width_px, image.height_px) for image in labels.images] == [
        ("img0.jpg", 8, 8), ("img1.jpg", 10, 10),
    ]  # fmt: skip
    assert sum(len(image.boxes) for image in labels.images) == shapes["box"] + shapes["polygon"]
    assert _kinds(labels) == ["unsupported"] * (shapes["polyline"] + shapes["points"] + shapes["skeleton"])
    (box,), (polygon,) = (image.boxes for image in labels.images)
    assert (box.class_name, box.x1_px, box.y1_px, box.x2_px, box.y2_px) == ("label1", 0, 2, 4, 4)
    assert (polygon.class_name, polygon.x1_px, polygon.y1_px, polygon.x2_px, polygon.y2_px) == (
        "",
        1,
        2,
        6,
        5,
    )


def test_real_cvat_for_video_is_read_by_start_frame_and_step(shared_data: Path) -> None:
    path = shared_data / "fixtures" / "cvat" / "cvat_for_video.xml"
    labels = _read("cvat", path)  # frames 10, 13, 16, 19 are the four images that were sent
    assert [image.frame_id for image in labels.images] == ["f0", "f1", "f2", "f3"]
    inside = [
        (int(box.get("frame", "")), float(box.get("xtl", "")))
        for box in ElementTree.parse(path).getroot().iter("box")
        if box.get("outside") == "0"
    ]
    assert inside == [(10, 3.0)]
    assert [len(image.boxes) for image in labels.images] == [1, 0, 0, 0]
    assert [(b.class_name, b.x1_px, b.y1_px, b.x2_px, b.y2_px) for b in labels.images[0].boxes] == [
        ("II", 3, 4, 10, 5)
    ]
    assert set(_kinds(labels)) == {"unsupported"}
    few = Sent("b", ("car",), SENT.images[:3])
    with pytest.raises(DeliveryError, match="task of 4 frames, but the batch has 3 images"):
        _read("cvat", path, sent=few)


@pytest.mark.parametrize("name", ["ndjson_image_import", "ndjson_rectangle_import", "ndjson_video_import"])
def test_labelbox_import_bodies_are_refused(name: str, shared_data: Path) -> None:
    with pytest.raises(DeliveryError, match="import body"):
        _read("labelbox", shared_data / "fixtures" / "labelbox" / f"{name}.json")


# ---- quirks ------------------------------------------------------------------------------------------------------


def _video(tracks: str, meta: str = "<size>4</size>") -> str:
    return f"<annotations><meta><task>{meta}</task></meta>{tracks}</annotations>"


def _track(*shapes: tuple[int, float, int]) -> str:
    boxes = "".join(
        f'<box frame="{frame}" outside="{outside}" keyframe="1" xtl="{x}" ytl="{x}" xbr="{x + 10}" ybr="{x + 10}"/>'
        for frame, x, outside in shapes
    )
    return f'<track id="0" label="car">{boxes}</track>'


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(0, 0, 0), (3, 30, 0)], [0, 10, 20, 30]),  # linear between
        ([(0, 0, 0)], [0, 0, 0, 0]),  # stays
        ([(1, 5, 0), (3, 5, 1)], [None, 5, 5, None]),  # until it is outside
        ([(0, 0, 0), (1, 0, 1), (2, 8, 0)], [0, None, 8, 8]),  # comes back
        ([(3, 9, 1), (0, 3, 0)], [3, 5, 7, None]),  # in any order
        ([(0, 1, 1)], [None] * 4),
    ],
)
def test_cvat_tracks_move_as_in_cvat(
    shapes: list[tuple[int, float, int]], expected: list[float | None], tmp_path: Path
) -> None:
    labels = _given("cvat", tmp_path, _video(_track(*shapes)))
    assert labels.rejects == ()
    assert [image.frame_id for image in labels.images] == ["f0", "f1", "f2", "f3"]
    assert [image.boxes[0].x1_px if image.boxes else None for image in labels.images] == pytest.approx(
        expected
    )


def test_cvat_frames_that_the_task_does_not_have_are_reported(tmp_path: Path) -> None:
    meta = "<size>4</size><start_frame>10</start_frame><frame_filter>step=3</frame_filter>"
    labels = _given(
        "cvat", tmp_path, _video(_track((10, 0, 0), (11, 0, 0), (7, 0, 0), (22, 0, 0), (22, 0, 1)), meta)
    )
    assert _kinds(labels) == ["unreadable", "unreadable"]
    assert "frame 11" in labels.rejects[0].reason
    beyond = _given("cvat", tmp_path, _video(_track((2_000_000_000, 0, 0))))
    assert beyond.images[-1].file_name == "frame 2000000000"
    assert SENT.find(beyond.images[-1]) is None


def test_a_cvat_job_counts_frames_as_its_task(tmp_path: Path) -> None:
    text = "<annotations><meta><job><size>2</size><start_frame>2</start_frame></job></meta>"
    labels = _given("cvat", tmp_path, text + _track((2, 7, 0), (3, 7, 1)) + "</annotations>")
    assert [(image.frame_id, len(image.boxes)) for image in labels.images] == [
        ("f0", 0), ("f1", 0), ("f2", 1), ("f3", 0),
    ]  # fmt: skip


def test_cvat_tracks_that_stand_for_very_many_boxes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mining.vendors.cvat.LIMIT_TRACKED_BOXES", 100)
    assert len(_given("cvat", tmp_path, _video(_track((0, 0, 0)) * 25)).images[0].boxes) == 25
    with pytest.raises(DeliveryError, match="split the task"):
        _given("cvat", tmp_path, _video(_track((0, 0, 0)) * 26))


def test_cvat_tracks_of_several_tasks_are_refused(tmp_path: Path) -> None:
    text = "<annotations><meta><project><tasks><task/><task/></tasks></project></meta>"
    with pytest.raises(DeliveryError, match="several tasks"):
        _given("cvat", tmp_path, text + _track((0, 1, 0)) + "</annotations>")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<box label="car" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>', (15, 5, 25, 25)),
        ('<polygon label="car" points="1,2;3,-4;0.5,6"/>', (0.5, -4, 3, 6)),
        ('<mask label="car" rle="1" left="2" top="3" width="4" height="5"/>', (2, 3, 6, 8)),
        ('<ellipse label="car" cx="10" cy="20" rx="3" ry="5"/>', (7, 15, 13, 25)),
        ('<ellipse label="car" cx="10" cy="20" rx="3" ry="5" rotation="90"/>', (5, 17, 15, 23)),
    ],
)
def test_cvat_shapes_are_read_as_enclosing_boxes(
    shape: str, expected: tuple[float, ...], tmp_path: Path
) -> None:
    text = f'<annotations><image id="0" name="f1.jpg" width="100" height="50">{shape}</image></annotations>'
    (found,) = _corners(_given("cvat", tmp_path, text))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ('<points label="car" points="1,2"/>', "unsupported"),
        ('<tag label="night"/>', "unsupported"),
        ('<box label="car" xtl="a" ytl="1" xbr="2" ybr="2"/>', "unreadable"),
        ('<box label="car" ytl="1" xbr="2" ybr="2"/>', "unreadable"),
        ('<box xtl="1" ytl="1" xbr="2" ybr="2"/>', "unreadable"),
        ('<polygon label="car" points="1,2;3"/>', "unreadable"),
        ('<polygon label="car" points=""/>', "unreadable"),
        ('<hexagon label="car"/>', "unreadable"),
    ],
)
def test_cvat_shapes_without_a_box_are_reported(shape: str, kind: str, tmp_path: Path) -> None:
    text = f'<annotations><image id="0" name="f1.jpg" width="100" height="50">{shape}</image></annotations>'
    labels = _given("cvat", tmp_path, text)
    assert _kinds(labels) == [kind]
    # What is at fault may have been an object: then the image does not pass for an empty one.
    assert [image.boxes for image in labels.images] == [()] * (kind == "unsupported")


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("vendor", ["label-studio", "labelbox", "sagemaker", "scalabel", "scale"])
def test_an_image_of_which_only_rejects_are_left_is_not_taken_for_empty(
    vendor: str, keys: bool, tmp_path: Path
) -> None:
    ours = {"frame_id": "f1"} if keys else {}
    region = _region({**RECT, "x": "left"})
    content: dict[str, Any] = {
        "label-studio": [{"data": {"image": "f1.jpg", **ours}, "annotations": [{"result": [region]}]}],
        "labelbox": {
            "data_row": {"external_id": "f1.jpg", "global_key": "f1" if keys else "theirs"},
            "projects": {"p": {"labels": [{"annotations": {"objects": [{"name": "car", "bounding_box": {"left": "?"}}]}}]}},
        },
        "sagemaker": {
            "source-ref": "s3://b/f1.jpg", **ours,
            "job": {"annotations": [{"class_id": 0, "left": None}]}, "job-metadata": {"class-map": {"0": "car"}},
        },
        "scalabel": [{"name": "f1.jpg", "attributes": ours, "labels": [{"category": "car", "box2d": {"x1": "?"}}]}],
        "scale": {
            "task_id": "t", "status": "completed", "params": {"attachment": "f1.jpg", "metadata": ours},
            "response": {"annotations": [{"label": "car", "left": "?"}]},
        },
    }  # fmt: skip
    labels = _given(vendor, tmp_path, content[vendor])
    assert [(reject.kind, reject.frame_id) for reject in labels.rejects] == [("unreadable", "f1")]
    assert labels.images == ()


def test_cvat_numbers_images_by_name_and_not_by_rank(tmp_path: Path) -> None:
    """CVAT sorts the images of a task by name (``SortingMethod.LEXICOGRAPHICAL`` is its default)."""
    ranked = Delivery(
        "b", ("car",), tuple(delivered(n, name, ()) for n, name in enumerate(("f2", "f0", "f1")))
    )
    root = ElementTree.parse(write("cvat", ranked, tmp_path)).getroot()
    assert [(one.get("id"), one.get("name")) for one in root.iter("image")] == [
        (str(n), f"images/f{n}.jpg") for n in range(3)
    ]
    track = '<track id="0" label="car">' + "".join(
        f'<box frame="{n}" outside="{n - 1}" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"/>' for n in (1, 2)
    )
    video = tmp_path / "video.xml"
    video.write_text(f"<annotations>{track}</track></annotations>", encoding="utf-8")
    labels = _read("cvat", video, sent=sent_of(ranked))
    assert {one.frame_id: len(one.boxes) for one in labels.images} == {"f0": 0, "f1": 1, "f2": 0}


def _region(value: dict[str, Any], kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    return {
        "id": "r", "type": kind, "original_width": 200, "original_height": 100, "image_rotation": 0,
        "value": {kind: ["car"], **value}, **more,
    }  # fmt: skip


def _task(*annotations: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": 1,
            "data": {"image": "s3://b/f1.jpg", "frame_id": "f1"},
            "annotations": list(annotations),
            **more,
        }
    ]


RECT = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (_region(RECT), (20, 20, 80, 60)),
        (_region(RECT, image_rotation=90), (20, 20, 80, 60)),  # the view only
        (_region({**RECT, "rotation": 90}), (-20, 20, 20, 80)),  # about the first corner, clockwise
        (_region({"points": [[0, 0], [50, 10], [25, 100]]}, "polygonlabels"), (0, 0, 100, 100)),
        (_region({"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}, "ellipselabels"), (80, 30, 120, 70)),
    ],
)
def test_label_studio_regions_are_of_the_image_as_it_is(
    region: dict[str, Any], expected: tuple[float, ...], tmp_path: Path
) -> None:
    labels = _given("label-studio", tmp_path, _task({"result": [region], "completed_by": 3}))
    assert _corners(labels) == [pytest.approx(expected)]
    image = _one(labels)
    assert (image.frame_id, image.annotator, image.width_px, image.height_px) == ("f1", "3", 200, 100)


def test_label_studio_annotators_are_kept_apart_and_skips_reported(tmp_path: Path) -> None:
    tasks = _task(
        {"result": [_region(RECT)], "completed_by": {"id": 4, "email": "a@b.example"}},
        {"result": [], "completed_by": 5},
        {"result": [_region(RECT)], "completed_by": 6, "was_cancelled": True},
        {"completed_by": 7},
        drafts=[{"result": [_region(RECT)]}],
        predictions=[{"result": [_region(RECT), _region(RECT)]}],
    )
    tasks += [
        {"data": {"image": "f2.jpg"}, "annotations": [], "predictions": [{"result": [_region(RECT)]}]},
        7,
    ]  # type: ignore[list-item]
    labels = _given("label-studio", tmp_path, tasks)
    assert [(image.annotator, len(image.boxes)) for image in labels.images] == [("a@b.example", 1), ("5", 0)]
    assert _kinds(labels) == ["skipped", "unreadable", "skipped", "unreadable"]
    assert labels.rejects[0].frame_id == "f1"


def test_label_studio_shapes_and_labels_apart_are_one_region(tmp_path: Path) -> None:
    shape = {**_region(RECT, "rectangle"), "value": RECT}
    both = [shape, _region(RECT, "labels"), {"id": "r", "type": "choices", "value": {"choices": ["dusk"]}}]
    labels = _given("label-studio", tmp_path, _task({"result": both}))
    assert [b.class_name for b in labels.images[0].boxes] == ["car"]
    assert _kinds(labels) == ["unsupported"]
    alone = _given("label-studio", tmp_path, _task({"result": [shape]}))
    assert _kinds(alone) == ["unreadable"]
    brush = _region({"format": "rle", "rle": [1, 2]}, "brushlabels")
    dots = _region({"x": 1, "y": 2, "width": 0.3}, "keypointlabels")
    assert _kinds(_given("label-studio", tmp_path, _task({"result": [brush, dots]}))) == ["unsupported"] * 2


def test_label_studio_json_min_is_read(tmp_path: Path) -> None:
    region = {**RECT, "rectanglelabels": ["car"], "original_width": 200, "original_height": 100}
    about = {"id": 1, "annotator": 9, "annotation_id": 2, "lead_time": 1.5}
    labels = _given(
        "label-studio", tmp_path,
        [{"image": "/data/upload/1/0a1b2c3d-f1.jpg", "label": [region], **about}, {"image": "f2.jpg", **about}],
    )  # fmt: skip
    assert [(image.annotator, len(image.boxes)) for image in labels.images] == [("9", 1), ("9", 0)]
    assert [found.frame_id for image in labels.images if (found := SENT.find(image))] == ["f1", "f2"]


def _labelbox(*labels: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "data_row": {"id": "d", "global_key": "f1", "row_data": "s3://b/f1.jpg"},
        "media_attributes": {"width": 100, "height": 50},
        "projects": {"p": {"labels": list(labels)}}, **more,
    }  # fmt: skip


BBOX = {"name": "car", "bounding_box": {"top": 1, "left": 2, "width": 3, "height": 4}}


def test_labelbox_labels_of_several_people_and_skips(tmp_path: Path) -> None:
    rows = [
        _labelbox(
            {"label_details": {"created_by": "a"}, "annotations": {"objects": [BBOX]}},
            {"label_details": {"created_by": "b"}, "annotations": {"objects": [], "classifications": [{}]}},
            {"performance_details": {"skipped": True}, "annotations": {"objects": []}},
            {"annotations": 3},
        ),
        _labelbox(),
    ]
    text = "\n".join(map(json.dumps, rows))
    for content in (text, json.dumps(rows)):
        labels = _given("labelbox", tmp_path, content)
        assert [(i.annotator, i.frame_id, len(i.boxes)) for i in labels.images] == [
            ("a", "f1", 1),
            ("b", "f1", 0),
        ]
        assert _kinds(labels) == ["unsupported", "skipped", "unreadable", "skipped"]
        (box,) = labels.images[0].boxes
        assert (box.x1_px, box.y1_px, box.x2_px, box.y2_px) == (2, 1, 5, 5)


def test_labelbox_video_frames_are_no_image_of_the_batch(tmp_path: Path) -> None:
    frames = {"1": {"objects": {"a": BBOX}}, "2": {"objects": {"a": BBOX, "b": BBOX}}}
    labels = _given("labelbox", tmp_path, _labelbox({"annotations": {"frames": frames}}))
    assert [len(image.boxes) for image in labels.images] == [1, 2]
    assert [SENT.find(image) for image in labels.images] == [None, None]


def test_labelbox_v1_skips(tmp_path: Path) -> None:
    rows = [
        {"Label": {}, "Skipped": True, "ID": "1"},
        {"Label": "Skip", "ID": "2"},
        {"Label": {"objects": 3}},
    ]
    assert _kinds(_given("labelbox", tmp_path, rows)) == ["skipped", "skipped", "unreadable"]


def test_glued_lines_are_reported_as_glued(tmp_path: Path) -> None:
    row = json.dumps(_labelbox({"annotations": {"objects": [BBOX]}}))
    labels = _given("labelbox", tmp_path, f"{row}\n{row}{row}\n")
    assert len(labels.images) == 1
    assert _kinds(labels) == ["glued"]


SCALE_BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4}


@pytest.mark.parametrize(
    "record",
    [
        {
            "task_id": "t",
            "unique_id": "b/f1",
            "status": "completed",
            "response": {"annotations": [SCALE_BOX]},
        },
        {"task_id": "t", "params": {"attachment": "s3://b/f1.jpg"}, "response": {"annotations": [SCALE_BOX]}},
        {"task_id": "t", "task": {"metadata": {"frame_id": "f1"}}, "response": {"annotations": [SCALE_BOX]}},
    ],
)
def test_scale_tasks_and_callbacks_are_read(record: dict[str, Any], tmp_path: Path) -> None:
    labels = _given("scale", tmp_path, record)
    assert _corners(labels) == [(1, 2, 4, 6)]
    found = SENT.find(_one(labels))
    assert found is not None
    assert found.frame_id == "f1"


def test_scale_geometries_and_unfinished_tasks(tmp_path: Path) -> None:
    turned = {
        **SCALE_BOX,
        "rotation": 0.5,
        "vertices": [{"x": 5, "y": 1}, {"x": 9, "y": 2}, {"x": 7, "y": 8}],
    }
    record = {
        "task_id": "t",
        "response": {"annotations": [turned, {"type": "line", "label": "car"}, {"left": 1}]},
    }
    labels = _given("scale", tmp_path, [record, {"task_id": "u", "status": "canceled"}, {"task_id": "v"}, 1])
    (box,) = labels.images[0].boxes
    assert (box.x1_px, box.y1_px, box.x2_px, box.y2_px) == (5, 1, 9, 8)
    assert _kinds(labels) == ["unsupported", "unreadable", "skipped", "skipped", "unreadable"]


def test_scalabel_shapes(tmp_path: Path) -> None:
    square = {"vertices": [[1, 2], [5, 2], [5, 9]], "types": "LLL", "closed": True}
    labels = [
        {"category": "car", "poly2d": [square, {**square, "vertices": [[0, 0], [1, 1], [0, 1]]}]},
        {"category": "car", "box2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}, "attributes": {"crowd": True}},
        {"category": "lane", "poly2d": [{**square, "closed": False}]},
        {"category": "car", "box3d": {"alpha": 0}},
        {"category": "car"},
    ]
    read = _given(
        "scalabel", tmp_path, [{"name": "f1.jpg", "labels": labels}, {"name": "f2.jpg", "labels": None}]
    )
    assert [[(b.x1_px, b.y1_px, b.x2_px, b.y2_px, b.ignore) for b in i.boxes] for i in read.images] == [
        [(0, 0, 5, 9, False), (1, 2, 3, 4, True)], [],
    ]  # fmt: skip
    assert _kinds(read) == ["unsupported", "unsupported", "unreadable"]


def _manifest(attribute: str, left: float, created: str, **metadata: Any) -> dict[str, Any]:
    box = {"class_id": 0, "left": left, "top": 2, "width": 3, "height": 4}
    return {
        attribute: {"image_size": [{"width": 100, "height": 50, "depth": 3}], "annotations": [box]},
        f"{attribute}-metadata": {"class-map": {"0": "car"}, "creation-date": created, "job-name": attribute, **metadata},
    }  # fmt: skip


def test_sagemaker_takes_the_newest_label_and_never_the_pre_annotations(tmp_path: Path) -> None:
    ours = _manifest("mining-preannotations", 99, "2030-01-01")
    line = {
        "source-ref": "s3://b/f1.jpg",
        **_manifest("new", 2, "2026-02-02"),
        **_manifest("old", 1, "2026-01-01"),
    }
    assert _corners(_given("sagemaker", tmp_path, {**line, **ours})) == [(2, 2, 5, 6)]
    adjusted = {
        **ours,
        "mining-preannotations-metadata": {"job-name": "labeling-job/adjust", "class-map": {}},
    }
    (box,) = _one(_given("sagemaker", tmp_path, {"source-ref": "f1.jpg", **adjusted})).boxes
    assert box.class_name == "0"  # not in the class map: the number is all there is
    failed = {"source-ref": "f1.jpg", "job-metadata": {"failure-reason": "the worker gave up"}}
    labels = _given(
        "sagemaker", tmp_path, f"{json.dumps({'source-ref': 'f1.jpg', **ours})}\n{json.dumps(failed)}\n"
    )
    assert [(r.kind, r.reason) for r in labels.rejects] == [
        ("skipped", "nobody has labelled it"), ("skipped", "the worker gave up"),
    ]  # fmt: skip


def test_sagemaker_workers_are_kept_apart(tmp_path: Path) -> None:
    def content(left: float) -> dict[str, Any]:
        boxes = [{"label": "car", "left": left, "top": 2, "width": 3, "height": 4}]
        return {
            "annotatedResult": {"boundingBoxes": boxes, "inputImageProperties": {"width": 100, "height": 50}}
        }

    answers = [{"workerId": f"w{n}", "annotationData": {"content": json.dumps(content(n))}} for n in (1, 2)]
    answers.append({"workerId": "w3", "annotationData": {"content": "{" * 100_000}})
    request = [{"datasetObjectId": "1", "dataObject": {"s3Uri": "s3://b/f1.jpg"}, "annotations": answers}]
    labels = _given("sagemaker", tmp_path, request)
    assert [(i.annotator, i.frame_id, i.width_px, i.boxes[0].x1_px) for i in labels.images] == [
        ("w1", "f1", 100, 1), ("w2", "f1", 100, 2),
    ]  # fmt: skip
    assert _kinds(labels) == ["unreadable"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_coordinates_that_are_no_number_are_handed_on(value: float, tmp_path: Path) -> None:
    def boxes(vendor: str, content: Any) -> list[tuple[float, ...]]:
        return [
            box for box in _corners(_given(vendor, tmp_path, content)) if not all(map(math.isfinite, box))
        ]

    rows = [
        _labelbox(
            {
                "annotations": {
                    "objects": [{"name": "car", "bounding_box": {**BBOX["bounding_box"], "left": value}}]
                }
            }
        )
    ]  # type: ignore[dict-item]
    assert len(boxes("labelbox", rows)) == 1
    polygon = {"vertices": [[1, 2], [value, 2], [5, 9]]}
    assert (
        len(boxes("scalabel", [{"name": "f1.jpg", "labels": [{"category": "car", "poly2d": [polygon]}]}]))
        == 1
    )
    task = _task({"result": [_region({**RECT, "x": value, "rotation": 5})]})
    assert len(boxes("label-studio", task)) == 1
    xml = (
        f'<annotations><image name="f1"><polygon label="c" points="1,1;{value},2;3,3"/></image></annotations>'
    )
    assert len(boxes("cvat", xml)) == 1


# ---- what is not what it claims to be ----------------------------------------------------------------------------

COCO = json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}]})


@pytest.mark.parametrize("vendor", READERS)
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (COCO.encode(), "COCO JSON"),
        (b"<annotation><object/></annotation>", "Pascal VOC XML"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image"),
        (b"0 0.5 0.5 0.1 0.1\n", "YOLO text"),
        (b"a,b\n1,2\n", "CSV"),
        (b"<!doctype html><html></html>", ""),
        (b"", ""),
    ],
)
def test_another_format_is_named(vendor: str, content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / f"labels{Path(WRITTEN[vendor]).suffix}"
    path.write_bytes(content)
    with pytest.raises(DeliveryError) as caught:
        _read(vendor, path)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vendor", READERS)
def test_each_format_refuses_the_others(vendor: str, tmp_path: Path) -> None:
    for other in READERS:
        if {vendor, other} in ({"cvat", "cvat-task"}, {vendor}):
            continue
        folder = tmp_path / other
        folder.mkdir()
        for path in (write(other, plain(), folder), as_labelled(other, folder / WRITTEN[other])):
            with pytest.raises(DeliveryError):
                _read(vendor, path)


def test_a_folder_and_a_zip_without_labels_are_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    (tmp_path / "folder").mkdir()
    for vendor in READERS:
        for path in (tmp_path / "empty.zip", tmp_path / "folder", tmp_path / "missing"):
            with pytest.raises(DeliveryError, match=re.escape(path.name)):
                _read(vendor, path)


# ---- bytes that somebody broke -----------------------------------------------------------------------------------


def _seeds(vendor: str, folder: Path) -> list[bytes]:
    delivery = plain()
    seeds = [as_labelled(vendor, write(vendor, delivery, folder)).read_bytes()]
    if vendor == "cvat":
        seeds.append(_video(_track((0, 1, 0), (2, 5, 0))).encode())
    if vendor == "label-studio":
        seeds.append(
            json.dumps(
                _task(
                    {
                        "result": [
                            _region(RECT),
                            _region({"points": [[1, 2], [3, 4], [5, 6]]}, "polygonlabels"),
                        ]
                    }
                )
            ).encode()
        )
    if vendor == "labelbox":
        seeds.append(
            json.dumps({"Label": {"objects": [{"title": "car", "bbox": BBOX["bounding_box"]}]}}).encode()
        )
    if vendor == "scalabel":
        seeds.append(
            json.dumps(
                [
                    {
                        "name": "a",
                        "labels": [{"category": "c", "poly2d": [{"vertices": [[1, 2], [3, 4], [5, 6]]}]}],
                    }
                ]
            ).encode()
        )
    return seeds


def _checked(read: Callable[[], Labels]) -> None:
    """Labels or DeliveryError may come out, and labels that the stage can work with."""
    try:
        labels = read()
    except DeliveryError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it need not be raised
        return
    for reject in labels.rejects:
        assert reject.kind in KINDS
        assert reject.reason
    for image in labels.images:
        assert isinstance(image.file_name, str | None)
        assert isinstance(image.frame_id, str | None)
        for box in image.boxes:
            assert isinstance(box.class_name, str)
            assert all(
                isinstance(value, float | int) for value in (box.x1_px, box.y1_px, box.x2_px, box.y2_px)
            )
        SENT.find(image)


@pytest.mark.parametrize("vendor", READERS)
@given(data=st.data())
def test_broken_bytes_are_read_or_refused(vendor: str, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(_seeds(vendor, tmp_path))))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = min(len(content), start + data.draw(st.integers(0, 30)))
        content[start:stop] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"null", b"[]", b"{}", b'"x"', b"1e999", b"-1"])
        )
    path = tmp_path / f"broken{Path(WRITTEN[vendor]).suffix}"
    path.write_bytes(
        bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    )
    _checked(lambda: _read(vendor, path))


_VALUES: Any = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([[], {}, [[]], [{}], "car", 10**400, "f1", "nan", {"": None}])
)  # fmt: skip


def _changed(entry: Any, data: st.DataObject) -> Any:
    """Put something else in the place of one value, somewhere in a document."""
    children = (
        list(entry.items() if isinstance(entry, dict) else enumerate(entry))
        if isinstance(entry, dict | list)
        else []
    )
    if not children or data.draw(st.integers(0, 5)) == 0:
        return data.draw(_VALUES)
    key, child = data.draw(st.sampled_from(children))
    if isinstance(entry, dict):
        if data.draw(st.integers(0, 9)) == 0:
            return {k: v for k, v in entry.items() if k != key}
        return {**entry, key: _changed(child, data)}
    return [_changed(child, data) if index == key else other for index, other in enumerate(entry)]


@pytest.mark.parametrize("vendor", [one for one in READERS if not one.startswith("cvat")])
@given(data=st.data())
def test_values_of_other_types_are_read_or_refused(vendor: str, data: st.DataObject, tmp_path: Path) -> None:
    text = data.draw(st.sampled_from(_seeds(vendor, tmp_path))).decode()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = [json.loads(line) for line in text.splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        document = _changed(document, data)
    _checked(lambda: _given(vendor, tmp_path, document))


@pytest.mark.parametrize("vendor", [one for one in READERS if not one.startswith("cvat")])
@given(document=st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["data", "annotations", "projects", "Label", "labels", "name", "source-ref", "task_id", "response"])
    , inner, max_size=3), max_leaves=12))  # fmt: skip
def test_any_json_is_read_or_refused(vendor: str, document: Any, tmp_path: Path) -> None:
    _checked(lambda: _given(vendor, tmp_path, document))


@pytest.mark.parametrize("vendor", READERS)
def test_what_was_sent_is_not_what_is_delivered(vendor: str, tmp_path: Path) -> None:
    """The manifest of a tool that keeps predictions apart holds no labels: nothing of it is taken in."""
    if vendor in {"cvat", "cvat-task", "scalabel"}:
        return
    delivery = plain()
    try:
        labels = _read(vendor, write(vendor, delivery, tmp_path), sent=sent_of(delivery))
    except DeliveryError:
        return
    assert labels.images == ()
    assert set(_kinds(labels)) == {"skipped"}
