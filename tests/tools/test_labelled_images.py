"""Label files of three formats, on the real sets and on hostile ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from detectors.classes import ClassMap
from mining.config import shipped
from mining.types import UsageError
from tools.labelled_images import load


@pytest.fixture(scope="module")
def fleet() -> ClassMap:
    return ClassMap.load(shipped("classes.toml"))


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((50, 100, 3), np.uint8))
    return path


def yolo(folder: Path, lines: str, yaml: str = "names: [car, person, sofa]\nval: images/val\n") -> Path:
    picture(folder / "images/val/a.jpg")
    picture(folder / "images/val/empty.jpg")
    (folder / "labels/val").mkdir(parents=True)
    (folder / "labels/val/a.txt").write_text(lines)
    (folder / "data.yaml").write_text(yaml)
    return folder


def test_yolo_by_hand(tmp_path, fleet):
    got = load(
        yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.3 0.2 0.3 0.6\n2 .5 .5 .1 .1\n"),
        [],
        fleet,
        split="val",
    )
    assert [p.name for p in got.paths] == ["a.jpg", "empty.jpg"]
    np.testing.assert_allclose(
        got.boxes_px(np.array([[100, 50], [100, 50]])), [[40, 15, 60, 35], [10, 10, 30, 30]]
    )
    assert [fleet.fleet[c] for c in got.classes] == ["car", "pedestrian"]
    assert got.unmapped == {"sofa": 1}
    assert got.known.sum() == 2


def test_weather_holds_every_line_of_its_files(shared_data, fleet):
    weather = shared_data / "labelled/weather"
    got = load(weather, [weather / "images/val"], fleet)
    lines = sum(
        len(p.read_text().split("\n")) - p.read_text().endswith("\n")
        for p in (weather / "labels/val").glob("*.txt")
    )
    assert len(got.paths) == 254
    assert len(got.boxes) == lines
    assert {fleet.fleet[i] for i in np.flatnonzero(got.known)} == {
        "car",
        "truck",
        "bus",
        "two_wheeler",
        "pedestrian",
    }


def test_coco_equals_pycocotools_and_foreign_names_are_mapped(shared_data, fleet, capsys):
    folder = shared_data / "labelled/peru_coco"
    file = folder / "_annotations.coco.json"
    with pytest.raises(UsageError, match="--map NAME=FLEET_CLASS"):
        load(file, [folder], fleet)
    known = ClassMap(fleet.fleet, {**fleet.table, "vehiculo": "car", "peaton": "pedestrian"})
    got = load(file, [folder], known)
    coco = COCO(str(file))
    ids = [c for c, category in coco.cats.items() if category["name"] in {"Vehiculo", "Peaton"}]
    assert len(got.paths) == len(coco.imgs) == 120
    assert len(got.boxes) == len(coco.getAnnIds(catIds=ids))
    wanted = sum(a["bbox"][2] * a["bbox"][3] for a in coco.loadAnns(coco.getAnnIds(catIds=ids)))
    area = ((got.boxes[:, 2] - got.boxes[:, 0]) * (got.boxes[:, 3] - got.boxes[:, 1])).sum()
    assert area == pytest.approx(wanted)


def test_voc_keeps_files_of_one_name_in_two_folders_apart(shared_data, fleet):
    folder = shared_data / "labelled/trapedesveh_voc"
    got = load(folder, [folder], fleet)
    assert len(got.paths) == 60
    assert got.unlabelled == 0
    assert len({p.name for p in got.paths}) < 60  # train and test share names
    texts = [p.with_suffix(".xml").read_text() for p in got.paths]
    assert len(got.boxes) + sum(got.unmapped.values()) == sum(t.count("<object>") for t in texts)


@pytest.mark.parametrize(
    ("lines", "yaml", "message"),
    [
        ("0 0.5 0.5 0.2\n", None, "3 numbers after the class"),
        ("9 0.5 0.5 0.2 0.4\n", None, "is no 'class cx cy width height'"),
        ("0 nan 0.5 0.2 0.4\n", None, "not a number"),
        ("car 0.5 0.5 0.2 0.4\n", None, "is no 'class cx cy"),
        ("", "names: 3\nval: images/val\n", "needs 'names'"),
        ("", "names: [a\n", "not valid YAML"),
        ("", "names: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("", "names: [car]\ntrain: x\n", "has no split 'val'; it has train"),
    ],
)
def test_bad_yolo_is_refused_in_one_line(tmp_path, fleet, lines, yaml, message):
    folder = yolo(tmp_path, lines) if yaml is None else yolo(tmp_path, lines, yaml)
    with pytest.raises(UsageError, match=message) as error:
        load(folder, [], fleet, split="val")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not COCO"),
        (json.dumps({"images": [], "categories": [], "annotations": [{"bbox": [1, 2]}]}), "not COCO"),
    ],
)
def test_bad_coco_is_refused(tmp_path, fleet, text, message):
    picture(tmp_path / "a.jpg")
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "labels.json", [tmp_path], fleet)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_voc_with_entities_is_refused(tmp_path, fleet, encoding):
    picture(tmp_path / "a.jpg")
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "car">]><annotation>&b;</annotation>'
    (tmp_path / "a.xml").write_text(bomb, encoding=encoding)
    with pytest.raises(UsageError, match="document type"):
        load(tmp_path, [tmp_path], fleet)


def test_what_does_not_belong_together_is_said(tmp_path, fleet):
    picture(tmp_path / "images/a.jpg")
    (tmp_path / "l.json").write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    for labels, images, message in (
        (tmp_path / "nothing", [tmp_path], "no such file or folder"),
        (tmp_path / "l.json", [tmp_path / "nothing"], "no such folder"),
        (tmp_path / "l.json", [tmp_path / "images"], "none of the 1 images has labels"),
        (tmp_path / "images", [tmp_path / "images"], "neither data.yaml nor VOC"),
        (tmp_path / "l.json", [], "no image in no folder"),
    ):
        with pytest.raises(UsageError, match=message):
            load(labels, images, fleet)
