"""What is written for the annotation tools: read back without loss, and read by panlabel, which was not written here."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mining.types import MiningError
from mining.vendors import VENDORS
from mining.vendors.delivery import Delivery, PreAnnotation
from mining.vendors.labels import Labels
from tests.mining.vendor_deliveries import (
    WRITTEN,
    Boxes,
    as_labelled,
    boxes_of,
    boxes_read,
    deliveries,
    image,
    plain,
    sent_of,
    write,
)

LIMIT_PX = 0.01
PANLABEL = {
    "cvat": "cvat",
    "label-studio": "label-studio",
    "labelbox": "labelbox",
    "sagemaker": "sagemaker",
    "scalabel": "bdd100k",
    "scale": "scale-ai",
}


def _read(vendor: str, path: Path, delivery: Delivery) -> Labels:
    reader = VENDORS[vendor].read_labels
    assert reader is not None
    return reader([path], sent_of(delivery))


def _assert_same(found: Boxes, expected: Boxes) -> None:
    assert {frame: [box[0] for box in boxes] for frame, boxes in found.items()} == {
        frame: [box[0] for box in boxes] for frame, boxes in expected.items()
    }
    for frame, boxes in expected.items():
        for box, other in zip(boxes, found[frame], strict=True):
            assert box[1:] == pytest.approx(other[1:], abs=LIMIT_PX)


@pytest.mark.parametrize("vendor", WRITTEN)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_comes_back_whole(
    vendor: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    delivery = data.draw(deliveries(xml=vendor in {"cvat", "cvat-task", "label-studio"}))
    written = write(vendor, delivery, tmp_path_factory.mktemp("batch"))
    labels = _read(vendor, as_labelled(vendor, written), delivery)
    assert labels.rejects == ()
    _assert_same(boxes_read(labels, sent_of(delivery)), boxes_of(delivery, vendor))


def _panlabel(*arguments: str) -> str:
    program = Path(sys.executable).parent / "panlabel"
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("vendor", PANLABEL)
def test_panlabel_reads_the_same_boxes(vendor: str, tmp_path: Path) -> None:
    delivery = plain(("car", 'say "<x>" & 車'))
    written = write(vendor, delivery, tmp_path)
    # panlabel reads exports of these two, not what is sent to them.
    delivered = as_labelled(vendor, written) if vendor in {"labelbox", "scale"} else written
    if vendor == "labelbox":  # it needs the size, which Labelbox measures when it takes an image in
        lines = [json.loads(line) for line in delivered.read_text(encoding="utf-8").splitlines()]
        for line, one in zip(lines, delivery.images, strict=True):
            line["media_attributes"] = {"width": one.width_px, "height": one.height_px}
        delivered.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    if vendor == "scale":  # it reads lists
        lines = [json.loads(line) for line in delivered.read_text(encoding="utf-8").splitlines()]
        delivered = tmp_path / "scale.json"
        delivered.write_text(json.dumps(lines), encoding="utf-8")
    _panlabel("validate", "--format", PANLABEL[vendor], str(delivered))
    _panlabel(
        "convert", "--from", PANLABEL[vendor], "--to", "ir-json", "--allow-lossy",
        "--input", str(delivered), "--output", str(tmp_path / "ir.json"),
    )  # fmt: skip
    ir = json.loads((tmp_path / "ir.json").read_text(encoding="utf-8"))
    classes = {one["id"]: one["name"] for one in ir["categories"]}
    frames = {one["id"]: Path(one["file_name"]).stem for one in ir["images"]}
    found: Boxes = {frame: [] for frame in frames.values()}
    for one in ir["annotations"]:
        corners = [one["bbox"][key] for key in ("xmin", "ymin", "xmax", "ymax")]
        found[frames[one["image_id"]]].append((classes[one["category_id"]], *corners))
    expected = boxes_of(delivery, vendor)  # panlabel sorts the boxes of some formats
    _assert_same(*({frame: sorted(boxes) for frame, boxes in side.items()} for side in (found, expected)))


@pytest.mark.parametrize("vendor", WRITTEN)
def test_the_same_bytes_each_time(vendor: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write(vendor, plain(), folder)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir() if p.is_file()} for f in "ab")
    assert first == second
    assert WRITTEN[vendor] in first


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_confidence_members_and_doubt_are_carried_as_far_as_each_format_can(tmp_path: Path) -> None:
    delivery = plain()
    seen: dict[str, list[tuple[float, str | None, bool | None]]] = {}
    root = ElementTree.parse(write("cvat", delivery, tmp_path)).getroot()
    attributes = [{a.get("name"): a.text for a in box} for box in root.iter("box")]
    seen["cvat"] = [
        (float(a["confidence"] or 0), a["detectors"], a["in_doubt"] == "true") for a in attributes
    ]
    tasks = json.loads(write("label-studio", delivery, tmp_path).read_text())
    results = [r for task in tasks for p in task["predictions"] for r in p["result"]]
    seen["label-studio"] = [
        (r["score"], r["meta"]["text"][0].removeprefix("seen by "), "in doubt" in r["meta"]["text"])
        for r in results
    ]
    seen["labelbox"] = [
        (one["confidence"], None, None) for one in _lines(write("labelbox", delivery, tmp_path))
    ]
    metadata = [
        one["mining-preannotations-metadata"] for one in _lines(write("sagemaker", delivery, tmp_path))
    ]
    seen["sagemaker"] = [
        (o["confidence"], o["detectors"], o["in_doubt"]) for m in metadata for o in m["objects"]
    ]
    frames = json.loads(write("scalabel", delivery, tmp_path).read_text())["frames"]
    seen["scalabel"] = [
        (one["score"], one["attributes"]["detectors"], one["attributes"]["in_doubt"])
        for f in frames
        for one in f["labels"]
    ]
    seen["scale"] = []
    for task in _lines(write("scale", delivery, tmp_path)):
        about = {one["uuid"]: one for one in task["metadata"]["preannotations"]}
        for one in task["hypothesis"]["annotations"]:
            known = about.pop(one["uuid"])
            seen["scale"].append(
                (known["confidence"], known["detectors"], one["attributes"]["in_doubt"] == "yes")
            )
    expected = [
        (b.confidence, "+".join(b.detectors), b.in_doubt) for one in delivery.images for b in one.boxes
    ]
    assert seen.pop("labelbox") == [
        (confidence, None, None) for confidence, _, in_doubt in expected if not in_doubt
    ]
    assert seen == dict.fromkeys(seen, expected)


def test_nobody_is_asked_about_doubt_where_there_is_none(tmp_path: Path) -> None:
    box = PreAnnotation("car", 0.9, 1, 2, 3, 4, ("a",))
    (task,) = _lines(write("scale", Delivery("b", ("car",), (image(0, "f", (box,)),)), tmp_path))
    assert "annotation_attributes" not in task
    assert "attributes" not in task["hypothesis"]["annotations"][0]


@pytest.mark.parametrize("vendor", ["cvat", "cvat-task", "label-studio"])
@pytest.mark.parametrize("character", ["\0", "\x01", "\x1b", "\r", "\ufffe", "\ud800"])
def test_a_class_that_xml_cannot_hold_is_refused(vendor: str, character: str, tmp_path: Path) -> None:
    with pytest.raises(MiningError, match="XML cannot hold"):
        write(vendor, Delivery("b", (f"a{character}b",), ()), tmp_path)


def test_the_cvat_task_is_a_zip_of_the_images_and_their_annotations(tmp_path: Path) -> None:
    delivery = plain()
    with zipfile.ZipFile(write("cvat-task", delivery, tmp_path)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["annotations.xml", *(one.file_name for one in delivery.images)]
        assert archive.read("annotations.xml") == write("cvat", delivery, tmp_path).read_bytes()


def test_labelbox_predictions_have_the_keys_of_a_real_import_body(tmp_path: Path, shared_data: Path) -> None:
    (real,) = json.loads((shared_data / "fixtures" / "labelbox" / "ndjson_rectangle_import.json").read_text())
    for ours in _lines(write("labelbox", plain(), tmp_path)):
        assert set(ours) - {"confidence"} == set(real)  # confidence: as in ndjson_image_import.json
        assert set(ours["bbox"]) == set(real["bbox"])


def test_the_label_studio_interface_names_what_the_tasks_use(tmp_path: Path) -> None:
    delivery = plain(("car", "a\nb & <c>"))
    tasks = json.loads(write("label-studio", delivery, tmp_path).read_text(encoding="utf-8"))
    view = ElementTree.parse(tmp_path / "label_studio.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == list(delivery.classes)
    (control,), (shown,) = view.iter("RectangleLabels"), view.iter("Image")
    for result in (r for task in tasks for p in task["predictions"] for r in p["result"]):
        assert result["from_name"] == control.get("name")
        assert result["to_name"] == control.get("toName") == shown.get("name")
    assert {(shown.get("value") or "").removeprefix("$")} <= set(tasks[0]["data"])
