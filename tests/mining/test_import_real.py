"""True labels of real images pass, in a real format; labels that lie beside the objects are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mining import config, import_labels, pipeline
from mining.config import Config
from mining.import_labels import RefusedDelivery
from mining.import_report import ImportReport
from mining.store import Store
from mining.types import StageReport

CONFIG = """
store = "store"
[footage]
paths = ["images"]
every = 1
[[detector]]
weights = "{weights}"
{more}
[select]
budget = {budget}
min_gap_s = 0.0
random_share = 0.2
max_duplicate_bits = -1
same_moment_once = false
[export]
vendors = ["coco"]
"""


class Night:
    """Images that were mined and exported."""

    def __init__(self, folder: Path, images: list[Path], weights: Path, more: str = "") -> None:
        self.folder = folder
        (folder / "images").mkdir()
        for image in images:
            shutil.copy(image, folder / "images")
        (folder / "c.toml").write_text(CONFIG.format(weights=weights, more=more, budget=len(images)))
        self.config: Config = config.load(folder / "c.toml")
        self.batch = str(pipeline.run_night(self.config).batch_id)
        self.store = Store(self.config.store_path)
        with self.store.connect() as con:
            self.frames = dict(con.execute("SELECT frame_index, frame_id FROM frames").fetchall())
        self.images = sorted(images)

    def take(self, vendor: str, *files: Path, **how: Any) -> tuple[StageReport, ImportReport]:
        return import_labels.run(self.store, self.config, self.batch, vendor, files, **how)


@pytest.fixture(scope="module")
def weather(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    images = sorted((shared_data / "labelled" / "weather" / "images" / "pool").iterdir())[::6]
    return Night(tmp_path_factory.mktemp("weather"), images, shared_data / "weights" / "yolov8n_weather.pt")


NAMES = ("person", "car", "two_wheeler", "bus", "truck")


def truth(night: Night) -> list[tuple[int, int, list[float]]]:
    """Image, class and x, y, width, height in pixels; the images are all 640 x 640."""
    found = []
    for number, image in enumerate(night.images):
        file = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        for line in file.read_text().splitlines() if file.exists() else []:
            kind, cx, cy, width, height = map(float, line.split())
            found.append(
                (number, int(kind), [640 * v for v in (cx - width / 2, cy - height / 2, width, height)])
            )
    return found


def coco(night: Night, path: Path, boxes: list[tuple[int, int, list[float]]]) -> Path:
    document = {
        "images": [
            {"id": i, "file_name": f"{night.frames[i]}.jpg", "width": 640, "height": 640} for i in range(len(night.images))
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": kind, "bbox": box} for n, (i, kind, box) in enumerate(boxes)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def test_true_labels_come_back_and_no_edge_moves(weather: Night, tmp_path: Path) -> None:
    boxes = truth(weather)
    _, found = weather.take("coco", coco(weather, tmp_path / "true.json", boxes))
    assert (found.frames, found.boxes, found.bad_rows, found.refused) == (
        len(weather.images),
        len(boxes),
        0,
        [],
    )
    assert found.without_labels == 0
    with weather.store.connect() as con:
        rows = con.execute(
            'SELECT frame_id, "class", x1_px, y1_px, x2_px, y2_px FROM truth WHERE "class" IS NOT NULL ORDER BY ALL'
        ).fetchall()
        placed = con.execute(
            "SELECT median(location_quality), count(location_quality) FROM truth"
        ).fetchall()[0]
    fleet = {"person": "pedestrian"}
    want = sorted(
        (weather.frames[i], fleet.get(NAMES[kind], NAMES[kind]), x, y, x + w, y + h)
        for i, kind, (x, y, w, h) in boxes
    )
    assert [row[:2] for row in rows] == [row[:2] for row in want]
    np.testing.assert_allclose(
        [row[2:] for row in rows], np.clip([row[2:] for row in want], 0, 640), atol=0.01
    )
    assert placed[0] > 0.7  # the committee sees most of them where they are
    assert placed[1] > 50


def moved(
    boxes: list[tuple[int, int, list[float]]], how: str, images: int
) -> list[tuple[int, int, list[float]]]:
    rng = np.random.default_rng(7)
    place = np.array([box for *_, box in boxes])
    image = np.array([i for i, *_ in boxes])
    keep = np.ones(len(boxes), bool)
    if how == "noisy":
        place = place + rng.normal(0, 0.08, place.shape) * place[:, [2, 3, 2, 3]]
    elif how == "seven of ten missing":
        keep = rng.random(len(boxes)) < 0.3
    elif how == "of the next image":
        image = (image + 1) % images
    elif how == "shuffled":
        image = rng.permutation(images)[image]
    elif how == "a tenth of the image to the right":
        place = place + np.array([64, 0, 0, 0])
    elif how == "scaled":
        place = place * 0.8
    elif how == "corner taken for the centre":
        place = place + place[:, [2, 3, 2, 3]] * [0.5, 0.5, 0, 0]
    inside = (place[:, :2] < 630).all(axis=1) & (place[:, :2] > 0).all(axis=1)
    place[:, 2:] = np.minimum(place[:, 2:], 640 - place[:, :2])
    return [
        (int(i), kind, box.tolist())
        for i, (_, kind, _), box, ok in zip(image, boxes, place, keep & inside, strict=True)
        if ok
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["noisy", "seven of ten missing"])
def test_noisy_and_incomplete_labels_pass(weather: Night, tmp_path: Path, how: str) -> None:
    file = coco(weather, tmp_path / "d.json", moved(truth(weather), how, len(weather.images)))
    assert weather.take("coco", file, dry_run=True)[1].refused == []


@pytest.mark.parametrize(
    "how",
    [
        "of the next image",
        "shuffled",
        "a tenth of the image to the right",
        "scaled",
        "corner taken for the centre",
    ],
)
def test_labels_beside_the_objects_are_refused(weather: Night, tmp_path: Path, how: str) -> None:
    file = coco(weather, tmp_path / "d.json", moved(truth(weather), how, len(weather.images)))
    with pytest.raises(RefusedDelivery, match="lie beside the objects"):
        weather.take("coco", file)


RECORD = re.compile(r"[a-z]+ 0\.00 0 0\.00 (\S+) (\S+) (\S+) (\S+)(?: 0\.00){8}")


def test_the_bad_delivery_is_refused_however_it_is_mended(shared_data: Path, tmp_path: Path) -> None:
    bad = shared_data / "fixtures" / "bad_delivery_kitti"
    weights = shared_data / "weights" / "nanodet_m.onnx"
    night = Night(tmp_path, sorted((bad / "labelled").glob("*.jpg")), weights, 'head = "nanodet"')
    with pytest.raises(RefusedDelivery, match="glued"):
        night.take("kitti", bad / "label_2")

    def mended(name: str, scale: float | None) -> Path:
        """The records under the names that we gave the images, split, in the pixels that they were sent in."""
        folder = tmp_path / name
        folder.mkdir()
        for i, image in enumerate(night.images):
            text = (bad / "label_2" / f"{image.stem}.txt").read_text()
            if scale is not None:
                boxes = [
                    " ".join(str(float(v) * scale) for v in found.groups()) for found in RECORD.finditer(text)
                ]
                text = "".join(f"car 0 0 0 {box} 0 0 0 0 0 0 0\n" for box in boxes)
            (folder / f"{night.frames[i]}.txt").write_text(text)
        return folder

    with pytest.raises(RefusedDelivery, match="glued"):
        night.take("kitti", mended("named", None))
    with pytest.raises(RefusedDelivery, match="outside"):
        night.take("kitti", mended("split", 1.0))
    with pytest.raises(
        RefusedDelivery, match="nothing of this delivery is taken in: its boxes lie beside the objects"
    ):
        night.take("kitti", mended("scaled", 640 / 1600))
    assert not night.store.markers("import")
