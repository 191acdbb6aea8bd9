"""Deliveries: what is in the folder, that it comes out the same again, and where it can go."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyarrow import fs

from mining import blur, buckets, config, delivery_place, export_batch, pipeline
from mining.blur import blurred
from mining.committee import committee_of
from mining.config import Config
from mining.footage import Defaults, Source, frame_times
from mining.footage import read as read_frames
from mining.import_labels import RefusedDelivery, sent_batch
from mining.schemas import SIGNALS
from mining.store import Store
from mining.types import MiningError, TemporaryError, UsageError
from mining.vendors import VENDORS
from mining.vendors.instructions import plain_words
from mining.vendors.labels import Sent, SentImage
from tests.mining.flaky_s3 import FlakyS3
from tests.mining.lethal import run_with_lethal_decoder
from tests.mining.synthetic import table

CLIP = "udacity_vd_test_video.mp4"  # 38 frames of 1280x720, 25 a second; three cars
CHOSEN = (2, 20)
ROOT = Path(__file__).resolve().parents[2]
BATCH = "2026-03-14-abc"
CONFIG = """
store = "store"
[footage]
paths = ["drives"]
every = 1
[[detector]]
name = "a"
weights = "{weights}/yolo11n_weather.pt"
threshold = 0.3
[[detector]]
name = "b"
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
threshold = 0.4
"""
# Object -> (member, class, score of that class): what the committee is made to have seen on every chosen frame.
OBJECTS = {
    "agreed": (("a", "car", 0.9), ("b", "car", 0.8)),
    "one only": (("a", "car", 0.95),),
    "two names": (("a", "car", 0.9), ("b", "truck", 0.8)),
    "under b's threshold": (("a", "car", 0.9), ("b", "car", 0.39)),
    "nobody else knows it": (("b", "animal", 0.9),),
    "seen surely by none": (("a", "car", 0.2), ("b", "car", 0.3)),
}


def make_batch(folder: Path, shared_data: Path) -> Config:
    """A store with a real clip and a batch of two of its frames; detections are made up."""
    (folder / "drives").mkdir(parents=True)
    shutil.copy(shared_data / "video" / CLIP, folder / "drives")
    (folder / "night.toml").write_text(CONFIG.format(weights=shared_data / "weights"))
    conf = config.load(folder / "night.toml")
    pipeline.run_stage("index", conf)
    store = Store(conf.store_path)
    committee = committee_of(conf)
    ids = committee.classes.index
    with store.connect() as con:
        [(night, recording_id)] = con.sql("SELECT night, recording_id FROM recordings").fetchall()
        frames = dict(con.sql("SELECT frame_index, frame_id FROM frames").fetchall())
    chosen = [frames[index] for index in CHOSEN]
    detections = []
    for name in chosen:
        for match_id, votes in enumerate(OBJECTS.values()):
            for detector, class_name, score in votes:
                scores = [None if detector == "a" and c == "animal" else 0.01 for c in committee.classes]
                scores[ids(class_name)] = score
                left = 100.0 * match_id
                detections.append(
                    {
                        "committee_id": committee.committee_id, "recording_id": recording_id, "frame_id": name,
                        "detector": detector, "box_index": match_id, "class": class_name, "confidence": score,
                        "x1_px": left, "y1_px": 10.0, "x2_px": left + 50, "y2_px": 60.0, "class_scores": scores,
                        "match_id": match_id,
                    }
                )  # fmt: skip
    sees = {"a": [c != "animal" for c in committee.classes], "b": [True] * len(committee.classes)}
    store.commit(
        "detect", night, f"{recording_id}-x", {"detections": table("detections", detections), "observations": table("observations", [])},
        digest="x", committee_id=committee.committee_id, sees=sees,
    )  # fmt: skip
    rows = [
        {
            "batch_id": BATCH, "frame_id": name, "committee_id": committee.committee_id, "rank": 1, "arm": arm,
            "slice": part, "reason": reason, "hardness": 0.9, "estimated_boxes": 2.0,
        }
        for name, arm, part, reason in zip(
            chosen, ("mined", "random"), ("night *all*", None),
            ("for the slice night; hardness 0.90; presence_sum 98 %, committee_errors 91 %", "drawn at random"), strict=True,
        )
    ]  # fmt: skip
    store.commit(
        "select", night, BATCH, {"slices": table("slices", []), "selections": table("selections", rows)},
        digest="x", committee_id=committee.committee_id, chosen_at="2026-03-15",
    )  # fmt: skip
    return conf


@pytest.fixture(scope="module")
def batch(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_batch(tmp_path_factory.mktemp("batch"), shared_data)


def export(conf: Config, to: Path | str, **settings: Any) -> Path:
    changed = conf.export.model_dump() | settings | {"to": str(to)}
    conf = conf.model_copy(update={"export": config.ExportConfig.model_validate_json(json.dumps(changed))})
    _, where = pipeline.run_export(conf, BATCH)
    return Path(where) if "://" not in str(where) else Path("/nowhere")


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def exports(conf: Config) -> list[dict[str, Any]]:
    with Store(conf.store_path).connect() as con:
        return con.sql("SELECT * FROM exports ORDER BY ALL").to_arrow_table().to_pylist()


def pixels(conf: Config, index: int) -> Any:
    source = Source(str(conf.path("drives") / CLIP), "video")
    times = frame_times(source, Defaults(image_rate_hz=1.0))
    return next(iter(read_frames(source, times, [index]))).rgb


WRITERS = sorted(name for name, vendor in VENDORS.items() if vendor.write_manifest)
EVERYTHING: dict[str, Any] = {
    "vendors": WRITERS,
    "preannotate": "all",
    "context_frames": 2,
    "context_step_s": 0.2,
    "image_uri": "s3://bucket/{batch_id}/{file_name}",
}


@pytest.mark.parametrize("images", ["files", "zip"])
def test_exporting_again_gives_the_same_bytes(
    batch: Config, shared_data: Path, tmp_path: Path, images: str
) -> None:
    # Another store, in another place, made at another time; and another place to go to.
    again = make_batch(tmp_path / "elsewhere", shared_data)
    one = files_of(export(batch, tmp_path / "one", images=images, **EVERYTHING))
    two = files_of(export(again, tmp_path / "deep" / "two", images=images, **EVERYTHING))
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []
    assert not [name for name in one if str(tmp_path).encode() in one[name]]


def test_contents_say_what_lies_there(batch: Config, tmp_path: Path) -> None:
    folder = export(batch, tmp_path, **EVERYTHING)
    contents = json.loads((folder / "delivery.json").read_text())
    there = files_of(folder)
    assert contents["files"] == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in there.items()
        if name != "delivery.json"
    }
    assert contents["batch_id"] == BATCH
    assert contents["classes"] == list(committee_of(batch).classes)
    assert contents["counts"] == {"images": 2, "context_images": 6, "boxes": 10, "boxes_in_doubt": 6}
    assert [i["uri"] for i in contents["images"]] == [
        f"s3://bucket/{BATCH}/{i['file_name']}" for i in contents["images"]
    ]
    assert all(there.keys() >= {near["file_name"] for near in i["context"]} for i in contents["images"])
    assert "to" not in contents["settings"]


@pytest.mark.parametrize(
    ("preannotate", "confidence", "wanted"),
    [
        ("agreed", 0.5, {"agreed": False, "nobody else knows it": False}),
        ("agreed", 0.87, {"nobody else knows it": False}),
        (
            "all",
            0.5,
            {
                "agreed": False, "nobody else knows it": False,
                "one only": True, "two names": True, "under b's threshold": True,
            },
        ),
        ("none", 0.5, {}),
    ],
)  # fmt: skip
def test_only_what_all_see_is_drawn_and_the_rest_is_marked(
    batch: Config, tmp_path: Path, preannotate: str, confidence: float, wanted: dict[str, bool]
) -> None:
    folder = export(batch, tmp_path, preannotate=preannotate, preannotation_confidence=confidence)
    names = list(OBJECTS)
    for line in (folder / "frames.jsonl").read_text().splitlines():
        boxes = json.loads(line)["preannotations"]
        assert {names[round(b["x1_px"] / 100)]: b["in_doubt"] for b in boxes} == wanted
        for b in boxes:
            votes = {m: s for m, c, s in OBJECTS[names[round(b["x1_px"] / 100)]] if c == b["class_name"]}
            if set(votes) == {"a", "b"}:
                assert b["confidence"] == pytest.approx(sum(votes.values()) / 2)
    coco = json.loads((folder / "coco.json").read_text())
    assert len(coco["annotations"]) == 2 * len(wanted)
    assert [a["attributes"]["in_doubt"] for a in coco["annotations"]].count(True) == 2 * sum(wanted.values())


def test_context_is_the_footage_around_and_never_labelled(batch: Config, tmp_path: Path) -> None:
    folder = export(
        batch,
        tmp_path,
        image_format="png",
        context_frames=3,
        context_step_s=0.2,
        vendors=["coco", "yolo", "jsonl"],
    )
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    contents = json.loads((folder / "delivery.json").read_text())
    # 25 frames a second: 0.2 s are 5 frames. Frame 2 has none so far before it, and 20 + 15 is still there.
    wanted = {CHOSEN[0]: [7, 12, 17], CHOSEN[1]: [5, 10, 15, 25, 30, 35]}
    for line, entry in zip(lines, contents["images"], strict=True):
        names = line["context"]
        assert [near["file_name"] for near in entry["context"]] == names
        indices = wanted[line["frame_index"]]
        assert [near["offset_s"] for near in entry["context"]] == pytest.approx(
            [(index - line["frame_index"]) / 25 for index in indices]
        )
        for name, index in zip(names, indices, strict=True):
            assert np.array_equal(cv2.imread(str(folder / name))[:, :, ::-1], pixels(batch, index))
    assert len(json.loads((folder / "coco.json").read_text())["images"]) == 2
    assert len(list((folder / "images").iterdir())) == len(list((folder / "labels").iterdir())) == 2


def test_frames_have_a_name_and_number_of_their_own_and_no_drive_is_named(
    batch: Config, tmp_path: Path
) -> None:
    folder = export(batch, tmp_path, vendors=WRITERS)
    frames = json.loads((folder / "scalabel.json").read_text())["frames"]
    assert len({(frame["videoName"], frame["frameIndex"]) for frame in frames}) == len(frames)
    drive = b"udacity"
    named = {name for name, content in files_of(folder).items() if drive in content}
    assert named == {"frames.csv", "frames.jsonl"}


@pytest.mark.parametrize("images", ["zip", "none"])
def test_a_cvat_task_has_its_images_wherever_the_others_are(
    batch: Config, tmp_path: Path, images: str
) -> None:
    where = {"image_uri": "https://h/{frame_id}.jpg"} if images == "none" else {}
    folder = export(batch, tmp_path, vendors=["cvat-task"], images=images, **where)
    with zipfile.ZipFile(folder / "cvat_task.zip") as archive:
        assert [hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()[1:]] == [
            image["sha256"] for image in json.loads((folder / "delivery.json").read_text())["images"]
        ]


@pytest.mark.parametrize(
    ("vendor", "files"),
    [
        ("coco", ["coco.json"]), ("csv", ["boxes.csv"]), ("csv", ["."]), ("cvat", ["cvat.xml"]), ("cvat-task", ["cvat_task.zip"]),
        ("scalabel", ["scalabel.json"]), ("yolo", ["data.yaml", "labels"]), ("yolo", ["."]),
    ],
)  # fmt: skip
def test_what_went_out_is_no_label(batch: Config, tmp_path: Path, vendor: str, files: list[str]) -> None:
    folder = export(batch, tmp_path / "out", vendors=WRITERS)
    export(batch, tmp_path / "out", vendors=["jsonl"])  # the batch went out so, whatever went out later
    folder = Path(f"{folder}.previous-1")
    given = [folder / name for name in files]
    with pytest.raises(RefusedDelivery, match="what went out, unchanged: nobody has labelled it"):
        pipeline.run_import(batch, BATCH, vendor, given)
    path = folder / "labels" / f"{exports(batch)[0]['frame_id']}.txt"
    if vendor == "yolo":
        path.write_text(path.read_text() + "0 0.5 0.5 0.1 0.1\n")
        _, found = pipeline.run_import(batch, BATCH, vendor, given, dry_run=True)
        assert found.frames == 2


def test_a_delivery_is_on_the_disk_before_it_has_its_name(
    batch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()
    named: dict[Path, set[tuple[int, int]]] = {}

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.add((found.st_ino, found.st_size))

    def replace(source: str | Path, target: str | Path, real: Callable[..., None] = os.replace) -> None:
        real(source, target)
        named[Path(target)] = set(synced)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    folder = export(batch, tmp_path / "out", vendors=["coco", "yolo"])
    inside = [folder, *folder.rglob("*")]
    assert len([path for path in inside if path.suffix == ".jpg"]) == 2
    assert {(path.stat().st_ino, path.stat().st_size) for path in inside} <= named[folder]
    assert folder.parent.stat().st_ino in {inode for inode, _ in synced}


def test_a_zip_holds_what_the_table_says(batch: Config, tmp_path: Path) -> None:
    folder = export(batch, tmp_path, images="zip", vendors=["coco"])
    assert sorted(p.name for p in folder.iterdir()) == [
        "coco.json",
        "delivery.json",
        "images.zip",
        "instructions.md",
    ]
    rows = exports(batch)
    assert len(rows) == 2
    with zipfile.ZipFile(folder / "images.zip") as archive:
        assert archive.testzip() is None
        for row in rows:
            outer, inner = row["image_uri"].split("!/")
            assert outer == str(folder / "images.zip")
            assert hashlib.sha256(archive.read(inner)).hexdigest() == row["sha256"]
            assert inner.rpartition("/")[2] == f"{row['frame_id']}.jpg"


def test_without_images_the_manifests_point_elsewhere(batch: Config, tmp_path: Path) -> None:
    with_images = {row["sha256"] for row in (export(batch, tmp_path / "with"), exports(batch))[1]}
    folder = export(
        batch, tmp_path / "without", images="none", image_uri="https://h/x y/{drive_id}/{frame_id}.jpg?v=1"
    )
    assert not list(folder.rglob("*.jpg"))
    rows = exports(batch)
    assert {row["sha256"] for row in rows} == with_images
    coco = json.loads((folder / "coco.json").read_text())["images"]
    assert {i["coco_url"] for i in coco} == {row["image_uri"] for row in rows}
    assert all("/drives/udacity_vd_test_video/" in i["coco_url"] for i in coco)
    sent = Sent(
        BATCH, (), tuple(SentImage(i["frame_id"], i["file_name"], i["sha256"], 1280, 720) for i in coco)
    )
    assert [sent.named(i["coco_url"]) for i in coco] == list(sent.images)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_labels_are_read_against_what_went_out(shared_data: Path, tmp_path: Path, elsewhere: bool) -> None:
    """Images of many sizes, whose addresses all end alike, in the order of the manifests: also of a batch from elsewhere."""
    (tmp_path / "drives" / "walk").mkdir(parents=True)
    sizes = [(64, 48), (80, 48), (64, 100)]
    for n, (width_px, height_px) in enumerate(sizes):
        cv2.imwrite(
            str(tmp_path / "drives" / "walk" / f"{n}.png"), np.full((height_px, width_px, 3), 90, np.uint8)
        )
    (tmp_path / "night.toml").write_text(CONFIG.format(weights=shared_data / "weights"))
    conf = config.load(tmp_path / "night.toml")
    pipeline.run_stage("index", conf)
    store = Store(conf.store_path)
    chosen_in = Store(tmp_path / "other", create=True) if elsewhere else store
    committee = committee_of(conf)
    with store.connect() as con:
        [(night,)] = con.sql("SELECT night FROM recordings").fetchall()
        frames = dict(con.sql("SELECT frame_index, frame_id FROM frames").fetchall())
    ranked = [2, 0, 1]
    chosen = [
        {"batch_id": BATCH, "frame_id": frames[n], "committee_id": committee.committee_id, "rank": rank, "arm": "mined",
         "reason": "", "hardness": 0.9, "estimated_boxes": 2.0}
        for rank, n in enumerate(ranked, start=1)
    ]  # fmt: skip
    chosen_in.commit(
        "select", night, BATCH, {"slices": table("slices", []), "selections": table("selections", chosen)},
        digest="x", committee_id=committee.committee_id, chosen_at="2026-03-15",
    )  # fmt: skip
    settings = {
        "to": str(tmp_path / "out"),
        "images": "none",
        "image_uri": "https://h/{frame_id}/full.jpg?size=1",
        "preannotate": "none",
    }
    conf = conf.model_copy(
        update={"export": config.ExportConfig.model_validate(conf.export.model_dump() | settings)}
    )
    _, folder = pipeline.run_export(conf, BATCH, chosen_in if elsewhere else None)
    with store.connect() as con:
        sent, *_ = sent_batch(store, con, committee.classes, BATCH, "coco")
    coco = json.loads((Path(folder) / "coco.json").read_text())
    assert [(i.file_name, i.width_px, i.height_px) for i in sent.images] == [
        (i["file_name"], i["width"], i["height"]) for i in coco["images"]
    ]
    assert [(i.frame_id, i.width_px, i.height_px) for i in sent.images] == [
        (frames[n], *sizes[n]) for n in ranked
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('image_uri = "s3://b/{frame}"', "known are"),
        ('image_uri = "s3://b/{frame_id.__class__}"', "not known"),
        ('image_uri = "s3://b/{frame_id!r}"', "not known"),
        ('image_uri = "s3://b/{frame_id"', "image_uri"),
        ('image_uri = "s3://b/one.jpg"', "one URI an image"),
        ('images = "none"', "needs `image_uri`"),
        ('blur = { detector = { weights = "w.pt" }, classes = [] }', "export.blur.classes"),
        ('blur = { detector = { weigths = "w.pt" }, classes = ["a"] }', "did you mean 'weights'"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, settings: str, words: str) -> None:
    path = tmp_path / "night.toml"
    path.write_text(f'[footage]\npaths = ["x"]\n[[detector]]\nweights = "a.pt"\n[export]\n{settings}\n')
    with pytest.raises(UsageError, match=words) as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "to",
    [
        "s3://bucket/x?endpoint_override=localhost",
        "ftp://host/x",
        "s3://key:hunter2@bucket/x",
        "s3://bucket/x?access_key=k&secret_key=hunter2",
        "s3://",
    ],
)
def test_a_place_that_cannot_be_is_refused_without_showing_secrets(batch: Config, to: str) -> None:
    with pytest.raises(UsageError, match=r"export\.to") as caught:
        export(batch, to)
    assert "hunter2" not in str(caught.value)


def test_a_night_that_could_not_be_delivered_is_refused_at_its_start(
    batch: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(to: str) -> None:
        export_batch.check(batch.model_copy(update={"export": batch.export.model_copy(update={"to": to})}))

    check("s3://bucket/x")
    with pytest.raises(UsageError, match=r"export\.to s3://bucket/x: nothing can follow"):
        check("s3://bucket/x?scheme=http")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"pip install 'mining\[s3\]'"):
        check("s3://bucket/x")
    check("folder")


def test_instructions_say_in_plain_words_why(batch: Config, tmp_path: Path) -> None:
    text = (export(batch, tmp_path, **EVERYTHING) / "instructions.md").read_text()
    for words in (
        "- pedestrian", "- two\\_wheeler", "some detectors see an object where others see none: 1 image",
        "wanted for “night \\*all\\*”: 1 image", "drawn by lot, to compare with: 1 image",
        "4 boxes on which all our detectors agree", "6 more boxes are marked `in_doubt`", "Never label them",
    ):  # fmt: skip
        assert words in text
    assert all(plain_words(name) for name, _ in SIGNALS)


def test_labelers_are_asked_for_the_classes_of_the_config(batch: Config, tmp_path: Path) -> None:
    asked = batch.model_copy(update={"labels": config.LabelsConfig(classes=["animal"])})
    folder = export(asked, tmp_path, vendors=["coco"])
    text = (folder / "instructions.md").read_text()
    assert "- animal\n" in text
    assert "- car" not in text
    coco = json.loads((folder / "coco.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    assert list(names.values()) == list(committee_of(batch).classes)  # numbers stay what they are
    assert {names[a["category_id"]] for a in coco["annotations"]} == {"animal"}


# -- blurring --------------------------------------------------------------------------------------------------------


def test_blur_hides_the_class_and_touches_nothing_else(
    batch: Config, shared_data: Path, tmp_path: Path
) -> None:
    import detectors
    from detectors.preprocess import Batch

    weights = str(shared_data / "weights" / "yolo11n_weather.pt")
    settings = {
        "detector": {"weights": weights, "threshold": 0.3},
        "classes": ["car"],
        "cells": 3,
        "margin": 0.0,
    }
    plain = export(batch, tmp_path / "plain", image_format="png")
    hidden = export(batch, tmp_path / "hidden", image_format="png", context_frames=1, blur=settings)
    detector = detectors.load(weights, threshold=0.3)
    car = detector.classes.index("car")
    found = 0
    for path in sorted((plain / "images").iterdir()):
        before, after = cv2.imread(str(path)), cv2.imread(str(hidden / "images" / path.name))
        seen = detector.predict(Batch([np.ascontiguousarray(before[:, :, ::-1])]))
        outside = np.ones(before.shape[:2], bool)
        for scores, (x1, y1, x2, y2) in zip(seen.class_scores, seen.boxes_px, strict=True):
            if scores[car] < 0.3:
                continue
            found += 1
            area = np.s_[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))]
            outside[area] = False
            # Texture is gone: almost nothing is left of the steps between neighbours.
            steps = [np.abs(np.diff(p[area].astype(float), axis=1)).mean() for p in (before, after)]
            assert steps[1] < steps[0] / 2
        assert np.array_equal(before[outside], after[outside])
    assert found >= 2
    contents = json.loads((hidden / "delivery.json").read_text())
    for index, entry in zip(CHOSEN, contents["images"], strict=True):
        for near in entry["context"]:
            shown = cv2.imread(str(hidden / near["file_name"]))[:, :, ::-1]
            assert not np.array_equal(shown, pixels(batch, index + round(25 * near["offset_s"])))
    assert "Blurred on purpose: car" in (hidden / "instructions.md").read_text()
    assert weights not in (hidden / "delivery.json").read_text()


def test_an_image_that_could_not_be_blurred_does_not_go_out(
    batch: Config, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        name, classes = "faces", ("face",)

        def predict(self, _batch: Any) -> Any:
            raise RuntimeError("out of luck\nsecond line")

    monkeypatch.setattr(blur, "load_alone", lambda *_: Broken())
    settings = {
        "detector": {"weights": str(shared_data / "weights" / "yolo11n_weather.pt")},
        "classes": ["face"],
    }
    folder = export(batch, tmp_path, blur=settings, vendors=["coco"], context_frames=1)
    assert not list(folder.rglob("*.jpg"))
    assert {(row["status"], row["error"]) for row in exports(batch)} == {
        ("failed", "not blurred: faces: RuntimeError: out of luck")
    }
    with pytest.raises(UsageError, match=r"no class 'plate'; it has face"):
        export(batch, tmp_path, blur=settings | {"classes": ["plate"]})


def test_blurred_patches_are_means() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes_px = np.array([[10, 10, 50, 50], [70.5, 50.2, 90, 70], [5, 5, 5, 9]], np.float32)
    one = blurred(rgb, boxes_px, cells=1, margin=0.0)
    assert np.abs(one[10:50, 10:50].reshape(-1, 3) - rgb[10:50, 10:50].reshape(-1, 3).mean(0)).max() <= 1
    assert np.ptp(one[50:60, 70:80].reshape(-1, 3), axis=0).max() == 0
    assert np.array_equal(one[:10], rgb[:10])
    grown = blurred(rgb, boxes_px[:1], cells=1, margin=0.1)
    assert np.ptp(grown[6:54, 6:54].reshape(-1, 3), axis=0).max() == 0
    assert np.array_equal(grown[:6], rgb[:6])


def test_a_delivery_that_cannot_be_written_leaves_nothing_beside_its_place(
    batch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(export(batch, tmp_path, vendors=["coco"]))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    def stopped(*_args: object) -> None:
        raise KeyboardInterrupt

    for stops in (full, stopped):
        monkeypatch.setattr("mining.export_batch.write_instructions", stops)
        with pytest.raises((MiningError, KeyboardInterrupt)):
            export(batch, tmp_path, vendors=["csv"])
        assert [path.name for path in tmp_path.iterdir()] == [BATCH]
        assert files_of(tmp_path / BATCH) == before


def test_a_format_that_is_named_twice_is_refused(batch: Config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'yolo' is there twice"):
        export(batch, tmp_path, vendors=["yolo", "coco", "yolo"])


@pytest.mark.parametrize("ends", ["crash_at", "hang_at"])
def test_a_decoder_that_crashes_or_hangs_costs_its_image(batch: Config, tmp_path: Path, ends: str) -> None:
    done = run_with_lethal_decoder(
        ["export", "-c", str(Path(batch.folder) / "night.toml"), "--batch", BATCH, "--to", "here", "--json",
         "--set", "detect.decode_timeout_s=4"],
        tmp_path, **{ends: [CHOSEN[0]]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["counts"]["images"], told["counts"]["failed_images"]) == (1, 1)
    rows = {row["frame_id"]: row for row in exports(batch) if row["vendor"] == "coco"}
    lost, kept = sorted(rows, key=lambda name: rows[name]["status"])
    reason = {"crash_at": "the decoder crashed (SIGSEGV)", "hang_at": "the decoder gave no answer for 4 s"}
    assert (rows[lost]["status"], rows[lost]["error"]) == ("failed", reason[ends])
    content = (tmp_path / "here" / BATCH / rows[kept]["file_name"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == rows[kept]["sha256"]


# -- buckets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: FlakyS3) -> fs.FileSystem:
    """What lies in a local S3, by an independent reader."""
    s3.make_bucket("labels")
    return fs.FileSystem.from_uri("s3://labels")[0]


def listed(files: fs.FileSystem, path: str) -> dict[str, bytes]:
    found = files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return {
        info.path.removeprefix(f"{path}/"): files.open_input_stream(info.path).read()
        for info in found
        if info.is_file
    }


def test_a_bucket_gets_what_a_folder_gets(batch: Config, tmp_path: Path, bucket: fs.FileSystem) -> None:
    local = files_of(export(batch, tmp_path, context_frames=1))
    export(batch, "s3://labels/out/", context_frames=1)
    assert listed(bucket, f"labels/out/{BATCH}") == local
    rows = exports(batch)
    for row in rows:
        with bucket.open_input_stream(row["image_uri"].removeprefix("s3://")) as file:
            assert hashlib.sha256(file.read()).hexdigest() == row["sha256"]
    assert not list((batch.store_path / "tmp").iterdir())

    # Unchanged: nothing is written. Changed: what lay there moves aside.
    report, where = pipeline.run_export(
        batch.model_copy(update={"export": batch.export.model_copy(update={"to": "s3://labels/out/", "context_frames": 1})}), BATCH
    )  # fmt: skip
    assert (report.unchanged, where) == (1, f"s3://labels/out/{BATCH}")
    export(batch, "s3://labels/out", context_frames=0)
    assert listed(bucket, f"labels/out/{BATCH}.previous-1") == local
    assert not [name for name in listed(bucket, f"labels/out/{BATCH}") if name.startswith("context/")]


def test_a_delivery_for_which_the_disk_has_no_room_is_tried_again_later(
    batch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("mining.delivery_place._Folder.put", full)
        with pytest.raises(TemporaryError, match="cannot write the delivery: No space left on device"):
            export(batch, str(tmp_path / "full"))
    export(batch, str(tmp_path / "full"))


def test_an_upload_that_breaks_leaves_nothing_that_looks_whole(
    batch: Config, bucket: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exports(batch)
    put = buckets.put
    sent: list[int] = []

    def breaks(uri: str, content: Any) -> None:
        sent.append(1)
        if len(sent) > 3:
            raise TemporaryError("connection lost")
        put(uri, content)

    monkeypatch.setattr(buckets, "put", breaks)
    with pytest.raises(TemporaryError, match="connection lost"):
        export(batch, "s3://labels/half")
    there = listed(bucket, f"labels/half/{BATCH}")
    assert len(there) >= 3
    assert "delivery.json" not in there
    assert exports(batch) == before
    monkeypatch.undo()


def test_a_delivery_that_is_moved_aside_is_whole_at_neither_place_until_it_is_at_one(
    batch: Config, bucket: fs.FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(batch, "s3://labels/aside", context_frames=1)
    old = listed(bucket, f"labels/aside/{BATCH}")
    moved: list[str] = []
    move = delivery_place.move

    def seen(source: str, target: str) -> None:
        move(source, target)
        moved.append(target)
        for place in (BATCH, f"{BATCH}.previous-1"):
            there = listed(bucket, f"labels/aside/{place}")
            assert "delivery.json" not in there or there == old

    monkeypatch.setattr(delivery_place, "move", seen)
    export(batch, "s3://labels/aside")
    assert len(moved) == len(old) + 1
    assert listed(bucket, f"labels/aside/{BATCH}.previous-1") == old


def test_uploads_outlive_a_service_that_fails_now_and_then(
    batch: Config, tmp_path: Path, bucket: fs.FileSystem, s3: FlakyS3
) -> None:
    local = files_of(export(batch, tmp_path))
    s3.rate = 0.2
    export(batch, "s3://labels/flaky")
    export(batch, "s3://labels/flaky", context_frames=1)
    s3.rate = 0.0
    assert s3.failed.total() > 5
    assert listed(bucket, f"labels/flaky/{BATCH}.previous-1") == local


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_export_to_a_silent_service_can_be_stopped(
    batch: Config, bucket: fs.FileSystem, s3: FlakyS3, number: int, code: int
) -> None:
    s3.rate, s3.faults = 1.0, ("hang",)
    s3.only = lambda method, _: method == "PUT"
    # Where tests run in the background, a shell has switched Ctrl-C off for their children.
    main = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mining.cli import main; main()"
    job = subprocess.Popen(
        [sys.executable, "-c", main, "export", "--config", str(Path(batch.folder) / "night.toml"), "--batch", BATCH,
         "--to", "s3://labels/silent"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not s3.failed["hang"]:
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    job.send_signal(number)
    _, said = job.communicate(timeout=25)  # it would wait for a minute
    assert (job.returncode, "Traceback" in said) == (code, False), said


def test_a_bucket_that_is_not_there_is_one_line(
    batch: Config, bucket: fs.FileSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MiningError, match="nobucket") as caught:
        export(batch, "s3://nobucket/x")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value) + "".join(capfd.readouterr())


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_names_vendors_and_place(batch: Config, tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        # From elsewhere: a relative --to starts where the user stands, not at the config file.
        return subprocess.run(
            [sys.executable, "-c", "from mining.cli import main; main()", "export",
             "--config", str(Path(batch.folder) / "night.toml"), "--batch", BATCH, "--to", "here", *more],
            capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    done = run("--vendor", "yolo", "--vendor", "csv", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "here" / BATCH)
    assert sorted(p.name for p in (tmp_path / "here" / BATCH).iterdir()) == [
        "boxes.csv", "data.yaml", "delivery.json", "frames.csv", "images", "instructions.md", "labels",
    ]  # fmt: skip
    wrong = run("--vendor", "voc")
    assert wrong.returncode == 2
    assert "unknown 'voc'; known: coco, csv" in wrong.stderr
