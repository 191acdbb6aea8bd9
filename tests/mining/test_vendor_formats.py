"""coco, yolo, csv, jsonl, voc, kitti: written and read, against tools and loaders that were not written here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from panlabel import find_panlabel_bin
from pycocotools.coco import COCO

from mining.vendors import VENDORS
from mining.vendors.delivery import Delivery
from mining.vendors.labels import DeliveryError, Labels, Sent, SentImage
from tests.mining.deliveries import assert_same, box, deliveries, delivery, image, paint, sent_of, stem

ROAD = delivery(
    image(0, (box("car", 1.25, 2.5, 100.125, 50.0625), box("pedestrian", 0, 0, 640, 360))),
    image(1),
    image(2, (box("car", 10, 20.123456, 30, 40), box("car", 50, 60, 70, 80, in_doubt=True))),
)


def read(vendor: str, *files: Path, sent: Sent | None = None) -> Labels:
    reader = VENDORS[vendor].read_labels
    assert reader is not None
    return reader(files, sent_of(ROAD) if sent is None else sent)


def write(vendor: str, given: Delivery, folder: Path) -> Path:
    writer = VENDORS[vendor].write_manifest
    assert writer is not None
    writer(given, folder)
    return folder


def counted(labels: Labels) -> tuple[int, int]:
    return len(labels.images), sum(len(each.boxes) for each in labels.images)


def kinds(labels: Labels) -> list[str]:
    return [reject.kind for reject in labels.rejects]


def panlabel(*arguments: object) -> str:
    done = subprocess.run(
        [find_panlabel_bin(), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


# -- round trips -----------------------------------------------------------------------------------------------------


# YAML 1.1 breaks lines at these too, and takes the last for other things than text.
@example(
    delivery(
        image(0, (box("0\x85", 0, 0, 1, 1), box("no", 0, 0, 1, 1))), classes=("0\x85", "\u2028a ", "no", "1")
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(deliveries())
def test_what_goes_out_comes_back(given: Delivery) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for vendor in ("coco", "yolo", "csv", "jsonl"):
            write(vendor, given, folder)
        sent = sent_of(given)
        assert_same(given, read("coco", folder / "coco.json", sent=sent))
        assert_same(given, read("csv", folder / "boxes.csv", sent=sent))
        # YOLO has no mark: boxes in doubt do not go out in it.
        assert_same(given, read("yolo", folder / "data.yaml", folder / "labels", sent=sent), in_doubt=False)
        assert_same(given, read("yolo", folder, sent=sent), in_doubt=False)
        # What was sent is no label until somebody says so.
        (folder / "back.jsonl").write_text(
            (folder / "frames.jsonl").read_text(encoding="utf-8").replace('"preannotations":', '"boxes":'),
            encoding="utf-8",
        )
        assert_same(given, read("jsonl", folder / "back.jsonl", sent=sent))
        assert set(kinds(read("jsonl", folder / "frames.jsonl", sent=sent))) == {"unreadable"}


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    for vendor in ("coco", "yolo", "csv"):
        folder = tmp_path / vendor
        folder.mkdir()
        write(vendor, ROAD, folder)
        packed = Path(shutil.make_archive(str(tmp_path / f"{vendor}-back"), "zip", folder))
        assert_same(ROAD, read(vendor, packed), in_doubt=vendor != "yolo")


# -- tools that were not written here --------------------------------------------------------------------------------


def test_pycocotools_loads_the_same_boxes(tmp_path: Path) -> None:
    coco = COCO(str(write("coco", ROAD, tmp_path) / "coco.json"))
    for number, each in enumerate(ROAD.images, start=1):
        assert coco.imgs[number]["file_name"] == each.file_name
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=number))
        found = [(coco.cats[a["category_id"]]["name"], *a["bbox"]) for a in annotations]
        wanted = [(b.class_name, b.x1_px, b.y1_px, b.x2_px - b.x1_px, b.y2_px - b.y1_px) for b in each.boxes]
        assert found == wanted
        assert [a["attributes"]["in_doubt"] for a in annotations] == [b.in_doubt for b in each.boxes]


def test_panlabel_validates_and_its_conversions_come_back(tmp_path: Path) -> None:
    # KITTI is flat: images without a folder.
    flat = replace(ROAD, images=tuple(replace(i, file_name=Path(i.file_name).name) for i in ROAD.images))
    write("coco", flat, tmp_path)
    assert "no issues" in panlabel("validate", "--format", "coco", "--strict", tmp_path / "coco.json")
    (tmp_path / "yolo").mkdir()
    paint(ROAD, tmp_path / "yolo")
    write("yolo", ROAD, tmp_path / "yolo")
    assert "no issues" in panlabel("validate", "--format", "yolo", "--strict", tmp_path / "yolo")
    for made in ("voc", "kitti", "yolo"):
        to = tmp_path / f"as-{made}"
        panlabel(
            "convert", "--from", "coco", "--to", made, "-i", tmp_path / "coco.json", "-o", to, "--allow-lossy"
        )
        assert_same(ROAD, read(made, to))


def test_ultralytics_trains_on_the_folder_and_counts_its_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    given = delivery(
        *(
            image(i, (box("car", 8 + i, 8, 40, 30), box("pedestrian", 50, 10, 60, 40)), (96, 64))
            for i in range(3)
        ),
        image(3, (), (96, 64)),
        image(4, (box("car", 5, 5, 25, 25), box("car", 30, 30, 50, 50, in_doubt=True)), (96, 64)),
    )
    folder = tmp_path / "batch"
    folder.mkdir()
    paint(given, folder)
    write("yolo", given, folder)
    model = YOLO("yolov8n.yaml")
    model.train(
        data=str(folder / "data.yaml"), epochs=1, imgsz=64, batch=5, workers=0, device="cpu", plots=False,
        project=str(tmp_path / "runs"), amp=False, verbose=False,
    )  # fmt: skip
    loaded = {
        Path(row["im_file"]).name: row["cls"].ravel().tolist()
        for row in model.trainer.train_loader.dataset.labels
    }
    assert loaded == {
        Path(each.file_name).name: [
            float(given.classes.index(b.class_name)) for b in each.boxes if not b.in_doubt
        ]
        for each in given.images
    }
    assert model.trainer.data["names"] == dict(enumerate(given.classes))


# -- real deliveries -------------------------------------------------------------------------------------------------


def test_the_weather_set_reads_as_ultralytics_reads_it(shared_data: Path) -> None:
    from ultralytics.data.utils import img2label_paths, verify_image_label

    root = shared_data / "labelled" / "weather"
    pictures = sorted((root / "images" / "val").iterdir())
    texts = img2label_paths([str(p) for p in pictures])
    wanted = {}
    for picture, text in zip(pictures, texts, strict=True):
        # im_file, labels [n, 5], shape, ...; duplicates are taken out there, so they are compared as sets.
        found = verify_image_label((str(picture), text, "", False, 5, 0, 0, False))
        wanted[picture.stem] = found[1], found[2]
    sent = Sent(
        "weather",
        ("person", "car", "two_wheeler", "bus", "truck"),
        tuple(SentImage(name, f"images/{name}.jpg", name, w, h) for name, (_, (h, w)) in wanted.items()),
    )
    labels = read("yolo", root / "labels" / "val", sent=sent)
    assert labels.rejects == ()
    assert len(labels.images) == len(wanted) == 254
    for each in labels.images:
        rows, (height, width) = wanted[Path(each.file_name or "").stem]
        expected = {
            (sent.classes[int(c)], *np.round([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], 1))
            for c, x, y, w, h in rows.astype(float)
        }  # fmt: skip
        got = {(b.class_name, *np.round([b.x1_px, b.y1_px, b.x2_px, b.y2_px], 1)) for b in each.boxes}
        assert len(got) == len(expected)
        assert {g[0] for g in got} == {e[0] for e in expected}
        ours, theirs = (
            (np.array(sorted(s, key=str), dtype=object)[:, 1:] for s in (got, expected)) if got else ((), ())
        )
        assert not got or np.abs(np.subtract(ours.astype(float), theirs.astype(float))).max() <= 0.11


@pytest.mark.parametrize("name", ["_annotations.coco.json", "_annotations.full_original.coco.json"])
def test_the_peru_set_reads_as_pycocotools_reads_it(shared_data: Path, name: str) -> None:
    path = shared_data / "labelled" / "peru_coco" / name
    coco = COCO(str(path))
    labels = read("coco", path)
    assert labels.rejects == ()
    assert len(labels.images) == len(coco.imgs)
    wanted = {
        entry["file_name"]: [
            (coco.cats[a["category_id"]]["name"], tuple(a["bbox"])) for a in coco.imgToAnns[number]
        ]
        for number, entry in coco.imgs.items()
    }
    for each in labels.images:
        got = [(b.class_name, (b.x1_px, b.y1_px, b.x2_px - b.x1_px, b.y2_px - b.y1_px)) for b in each.boxes]
        assert [g[0] for g in got] == [w[0] for w in wanted[each.file_name or ""]]
        assert np.allclose([g[1] for g in got], [w[1] for w in wanted[each.file_name or ""]], atol=1e-6)
    assert "Peaton" in {b.class_name for each in labels.images for b in each.boxes}


def test_the_voc_set_reads_as_elementtree_reads_it(shared_data: Path) -> None:
    root = shared_data / "labelled" / "trapedesveh_voc"
    files = sorted(root.rglob("*.xml"))
    labels = read("voc", root)
    assert labels.rejects == ()
    assert counted(labels) == (60, 234)
    for path, each in zip(files, labels.images, strict=True):
        tree = ET.parse(path)
        wanted = [
            (
                o.findtext("name"),
                *(float(o.findtext(f"bndbox/{c}") or "") for c in ("xmin", "ymin", "xmax", "ymax")),
            )
            for o in tree.iter("object")
        ]
        assert [(b.class_name, b.x1_px, b.y1_px, b.x2_px, b.y2_px) for b in each.boxes] == wanted
        assert each.width_px == int(tree.findtext("size/width") or 0)


def test_kitti_keeps_flat_boxes_and_classes_as_they_are(shared_data: Path) -> None:
    root = shared_data / "fixtures" / "kitti_object"
    labels = read("kitti", root)
    rows = [line.split() for p in sorted((root / "label_2").iterdir()) for line in p.read_text().splitlines()]
    got = [b for each in labels.images for b in each.boxes]
    assert labels.rejects == ()
    assert [b.class_name for b in got] == [row[0] for row in rows]
    assert [[b.x1_px, b.y1_px, b.x2_px, b.y2_px] for b in got] == [
        [float(v) for v in row[4:8]] for row in rows
    ]
    assert any(b.x1_px == b.x2_px for b in got)


def test_glued_kitti_records_are_each_a_reject(shared_data: Path) -> None:
    root = shared_data / "fixtures" / "bad_delivery_kitti"
    # Independently: a record is a word and what follows it.
    records = {p.stem: len(re.findall(r"[A-Za-z]+", p.read_text())) for p in (root / "label_2").iterdir()}
    labels = read("kitti", root)
    good = {Path(each.file_name or "").stem: len(each.boxes) for each in labels.images}
    assert set(kinds(labels)) == {"glued"}
    # A record that is alone in its file is not glued to anything.
    assert good == {name: 1 for name, count in records.items() if count == 1}
    assert len(labels.rejects) == sum(count for count in records.values() if count > 1) > 500


# -- what is wrong with a delivery -----------------------------------------------------------------------------------

NAME = stem(ROAD.images[0])


def coco_file(folder: Path, **changed: Any) -> Path:
    document = {
        "images": [{"id": 1, "file_name": f"{NAME}.jpg", "width": 640, "height": 360}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [],
        **changed,
    }
    path = folder / "back.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ({"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}, "no_frame"),
        ({"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1]}, "unknown_class"),
        ({"image_id": 1, "category_id": [], "bbox": [0, 0, 1, 1]}, "unknown_class"),
        ({"image_id": 1, "category_id": 3, "bbox": [0, 0, 1]}, "unreadable"),
        ({"image_id": 1, "category_id": 3, "bbox": [0, 0, "1", 1]}, "unreadable"),
        ({"image_id": 1, "category_id": 3, "bbox": [0, 0, True, 1]}, "unreadable"),
        ({"image_id": 1, "category_id": 3}, "unreadable"),
        ({"image_id": {}, "category_id": 3}, "unreadable"),
        (None, "unreadable"),
    ],
)
def test_a_bad_coco_annotation_is_a_reject(tmp_path: Path, annotation: Any, kind: str) -> None:
    labels = read("coco", coco_file(tmp_path, annotations=[annotation]))
    assert kinds(labels) == [kind]
    assert labels.rejects[0].place == "back.json: annotations[0]"
    # What is left of the image would pass for an image on which nothing is to be seen.
    belongs = isinstance(annotation, dict) and annotation["image_id"] == 1
    assert len(labels.images) == (0 if belongs else 1)
    assert labels.rejects[0].frame_id == (ROAD.images[0].frame_id if belongs else None)


def test_coco_hands_on_what_is_for_others_to_judge(tmp_path: Path) -> None:
    boxes = [[float("nan"), 0, 5, 5], [0, 0, 0, 5], [-900, 0, 5, 1e308], [0, 0, -3, 5], [10**400, 0, 1, 1]]
    annotations = [{"image_id": 1, "category_id": 3, "bbox": b, "iscrowd": 0} for b in boxes]
    annotations.append({"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 1})
    labels = read("coco", coco_file(tmp_path, annotations=annotations))
    assert labels.rejects == ()
    assert [b.ignore for b in labels.images[0].boxes] == [False] * 5 + [True]
    assert np.isnan(labels.images[0].boxes[0].x1_px)
    assert labels.images[0].boxes[4].x1_px == np.inf
    assert labels.images[0].boxes[5].x2_px == 4


def test_coco_images_that_are_none_are_rejects(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}, {"file_name": "c"}, 7]
    labels = read("coco", coco_file(tmp_path, images=images))
    assert [each.file_name for each in labels.images] == ["a"]
    assert kinds(labels) == ["unreadable"] * 3


def yolo_file(folder: Path, text: str, name: str = NAME) -> Path:
    path = folder / f"{name}.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 .5 .5 .1 .1", "unknown_class"),
        ("-1 .5 .5 .1 .1", "unreadable"),
        ("car .5 .5 .1 .1", "unreadable"),
        ("0 .5 .5 .1", "unreadable"),
        ("0 .5 .5 .1 ,1", "unreadable"),
        ("0 .5 .5 1_0 .1", "unreadable"),
        ("0 .5 .5 .1 .1 0 .5 .5 .1 .1", "glued"),
    ],
)
def test_a_bad_yolo_line_is_a_reject(tmp_path: Path, line: str, kind: str) -> None:
    labels = read("yolo", yolo_file(tmp_path, f"1 .5 .5 .5 .5\n\n{line}\n"))
    assert kinds(labels) == [kind]
    assert labels.rejects[0].place == f"{NAME}.txt: line 3"
    assert counted(labels) == (1, 1)
    assert read("yolo", yolo_file(tmp_path, line)).images == ()


def test_yolo_polygons_and_scores_are_read_and_glued_lines_beside_boxes_are_not(tmp_path: Path) -> None:
    polygon = "0 .1 .2 .5 .9 .3 .1"
    one = read("yolo", yolo_file(tmp_path, polygon)).images[0].boxes[0]
    assert (one.x1_px, one.y1_px, one.x2_px, one.y2_px) == pytest.approx((64, 36, 320, 324))
    assert counted(read("yolo", yolo_file(tmp_path, "0 .5 .5 .1 .1 0.93"))) == (1, 1)
    glued = "0 .5 .5 .1 .10 .2 .2 .1 .1"  # "...1" and "0 .2 ..." run together: 9 values, as a polygon of four corners has
    assert kinds(read("yolo", yolo_file(tmp_path, f"0 .5 .5 .1 .1\n{glued}"))) == ["glued"]


def test_yolo_labels_need_their_image(tmp_path: Path) -> None:
    labels = read("yolo", yolo_file(tmp_path, "0 .5 .5 .1 .1\n\n0 .2 .2 .1 .1", "elsewhere"))
    assert kinds(labels) == ["no_frame"] * 2  # each box counts towards the share of bad rows
    assert counted(labels) == (0, 0)


def test_yolo_finds_a_renamed_image_by_its_content(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "new.jpg").write_bytes(b"pixels")
    yolo_file(tmp_path / "labels" / "train", "0 .5 .5 .1 .1", "new")
    sent = sent_of(ROAD)
    renamed = replace(sent.images[0], sha256=hashlib.sha256(b"pixels").hexdigest())
    sent = Sent(sent.batch_id, sent.classes, (renamed, *sent.images[1:]))
    labels = read("yolo", tmp_path, sent=sent)
    assert labels.rejects == ()
    assert sent.find(labels.images[0]) == renamed


@pytest.mark.parametrize(
    "text",
    [
        "names: [car, pedestrian]",
        "names:\n  0: car\n  1: pedestrian\n",
        "path: /somewhere/else\ntrain: ../../x\nnc: 2\nnames: {1: pedestrian, 0: car}",
    ],
)
def test_yolo_names_come_from_data_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    yolo_file(tmp_path, "1 .5 .5 .1 .1")
    for files in ([tmp_path], [tmp_path / "data.yaml", tmp_path / f"{NAME}.txt"]):
        assert read("yolo", *files).images[0].boxes[0].class_name == "pedestrian"
    # What is not given is not read: it would be no part of what makes a delivery another one.
    with pytest.raises(DeliveryError, match="give their folder"):
        read("yolo", tmp_path / "data.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "names: !!python/object/apply:os.system ['true']",
        "[" * 100_000,
        "names: 3",
        "names: [[car]]",
        "names: {x: car}",
        "a: &a [x]\nb: &b [*a, *a]\nnames: [*b, *b]",
        "nothing: here",
        "names: [" + "car, " * 100_000 + "car]",
    ],
)
def test_a_hostile_data_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    yolo_file(tmp_path, "1 .5 .5 .1 .1")
    with pytest.raises(DeliveryError, match=r"data\.yaml") as caught:
        read("yolo", tmp_path)
    assert "\n" not in str(caught.value)


def test_two_lists_of_classes_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [car, pedestrian]")
    (tmp_path / "classes.txt").write_text("pedestrian\ncar\n")
    yolo_file(tmp_path, "1 .5 .5 .1 .1")
    with pytest.raises(DeliveryError, match="differently"):
        read("yolo", tmp_path)


def test_kitti_and_voc_marks_become_ignore(tmp_path: Path) -> None:
    line = "{} 0.00 0 -10 10 20 30 40 -1 -1 -1 -1000 -1000 -1000 -10"
    (tmp_path / f"{NAME}.txt").write_text("\n".join(line.format(name) for name in ("DontCare", "Car")))
    assert [b.ignore for b in read("kitti", tmp_path / f"{NAME}.txt").images[0].boxes] == [True, False]
    shape = "<object><name>car</name><difficult>{}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    (tmp_path / f"{NAME}.xml").write_text(
        f"<annotation>{shape.format(1)}{shape.format(0)}<object><name>car</name></object></annotation>"
    )
    labels = read("voc", tmp_path / f"{NAME}.xml")
    assert [b.ignore for b in labels.images[0].boxes] == [True, False]
    assert kinds(labels) == ["unreadable"]


@pytest.mark.parametrize("between", ["", " ", "  "])
def test_kitti_records_that_run_together_are_counted(tmp_path: Path, between: str) -> None:
    record = "Car 0.00 0 -1.57 10.5 20 30 40 1.5 1.6 3.9 1 2 9.25 1.5"
    (tmp_path / f"{NAME}.txt").write_text(between.join([record, record, record]))
    labels = read("kitti", tmp_path / f"{NAME}.txt")
    assert kinds(labels) == ["glued"] * 3
    assert labels.images == ()


CSV_HEAD = "frame_id,class_name,x1_px,y1_px,x2_px,y2_px,annotator,ignore"


def test_csv_has_annotators_ignored_boxes_and_empty_images(tmp_path: Path) -> None:
    (tmp_path / "back.csv").write_text(
        f"{CSV_HEAD}\n{NAME},car,1,2,3,4,ann,\n{NAME},car,nan,2,inf,4,ann,yes\n{NAME},,,,,,bob,\n",
        encoding="utf-16",
    )
    labels = read("csv", tmp_path / "back.csv")
    assert labels.rejects == ()
    assert [(each.annotator, [b.ignore for b in each.boxes]) for each in labels.images] == [
        ("ann", [False, True]),
        ("bob", []),
    ]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (f"{NAME},car,1,2,3", "unreadable"),
        (f'{NAME},car,"1,5",2,3,4,,', "unreadable"),
        (f"{NAME},,1,2,3,4,,", "unreadable"),
        (f"{NAME},car,1,2,3,4,,maybe", "unreadable"),
        (f"{NAME},car,1,2,3,4,,0{NAME},car,1,2,3,4,,0", "glued"),
    ],
)
def test_a_bad_csv_row_is_a_reject(tmp_path: Path, row: str, kind: str) -> None:
    (tmp_path / "back.csv").write_text(f"{CSV_HEAD}\n{row}\n")
    labels = read("csv", tmp_path / "back.csv")
    assert kinds(labels) == [kind]
    assert labels.images == ()


def test_csv_that_contradicts_itself_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "back.csv").write_text(f"{CSV_HEAD}\n{NAME},car,1,2,3,4,,\n{NAME},,,,,,,\n")
    labels = read("csv", tmp_path / "back.csv")
    assert kinds(labels) == ["unreadable"]
    assert counted(labels) == (1, 1)


def test_bad_json_lines_are_rejects(tmp_path: Path) -> None:
    good = json.dumps({"frame_id": NAME, "boxes": [], "annotator": "ann"})
    bad_box = json.dumps({"image": f"{NAME}.jpg", "boxes": [{"class_name": "car", "x1_px": "1"}]})
    (tmp_path / "back.jsonl").write_text(f"{good}\n{bad_box}\n{good}{good}\n{{\n7\n")
    labels = read("jsonl", tmp_path / "back.jsonl")
    assert kinds(labels) == ["unreadable", "glued", "unreadable", "unreadable"]
    assert [(each.frame_id, each.annotator) for each in labels.images] == [(NAME, "ann")]


WRONG: Sequence[tuple[str, str, str]] = (
    ("coco", "a.json", '[{"from_name": "x"}]'),
    ("coco", "a.json", "<annotations/>"),
    ("voc", "a.xml", "<annotations><image/></annotations>"),
    ("voc", "a.xml", "{}"),
    ("kitti", "a.txt", "0 0.5 0.5 0.1 0.1\n"),
    ("yolo", "a.txt", "Car 0 0 0 1 2 3 4 0 0 0 0 0 0 0\n"),
    ("csv", "a.csv", '{"images": []}'),
    ("csv", "a.csv", "frame_id,label\n"),
    ("csv", "a.csv", 'frame_id,class_name,x1_px,y1_px,x2_px,y2_px\n"a'),
    ("jsonl", "a.jsonl", '{"images": []}'),
)


@pytest.mark.parametrize(("vendor", "name", "text"), WRONG)
def test_a_file_of_another_format_is_one_line(tmp_path: Path, vendor: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DeliveryError, match=name) as caught:
        read(vendor, tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vendor", ["coco", "csv", "jsonl", "kitti", "voc", "yolo"])
def test_a_delivery_without_a_file_of_its_kind_is_one_line(tmp_path: Path, vendor: str) -> None:
    with zipfile.ZipFile(tmp_path / "back.zip", "w") as archive:
        archive.writestr("notes.md", "nothing")
    for path in (tmp_path / "back.zip", tmp_path / "none"):
        with pytest.raises(DeliveryError, match=path.name):
            read(vendor, path)
