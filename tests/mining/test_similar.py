"""More like this: checked against numpy over all embeddings, and against the detect stage's own embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mining import config as configs
from mining import detect_objects, index_footage, similar
from mining.committee import Committee, committee_of
from mining.config import Config
from mining.store import Store
from mining.types import UsageError, frame_id
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, store_of, table

KNOWN = Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
SETTINGS = Config.model_validate_json(
    json.dumps({"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], "select": {"min_gap_s": 3.0}})
)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "committee_of", lambda _config: KNOWN)


def drives() -> list[Drive]:
    """Three drives (one frame a second); the last holds the first's pictures again."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(40, 8)), rng.normal(size=(40, 8))
    hardness = rng.random(40).round(3).tolist()
    return [
        Drive("r0", hardness, drive_id="d", embeddings=first),
        Drive("r1", hardness, drive_id="d", embeddings=second, start_s=40),  # the same drive goes on
        Drive("r2", hardness, drive_id="e", embeddings=first, start_s=1000),
    ]


def by_hand(
    example: tuple[int, int] | None, embedding: np.ndarray, gap_s: float, count: int, least: float = 0.0
) -> list[tuple[str, float]]:
    """A plain greedy walk over all frames."""
    made = drives()
    rows = []
    for d, drive in enumerate(made):
        e = drive.embeddings / np.linalg.norm(drive.embeddings, axis=1, keepdims=True)
        for i in range(len(e)):
            if drive.hardness[i] >= least:
                distance = float(np.linalg.norm(e[i] - embedding))
                rows.append(
                    (
                        round(distance, 5),
                        frame_id(drive.recording_id, i),
                        drive.drive_id,
                        drive.start_s + i,
                        d,
                        i,
                    )
                )
    rows.sort()
    taken = []
    if example is not None:
        drive = made[example[0]]
        taken = [(drive.drive_id, drive.start_s + example[1])]
    found: list[tuple[str, float]] = []
    for distance, name, drive_id, at_s, d, i in rows:
        if (d, i) == example or any(drive_id == o and abs(at_s - t) < gap_s for o, t in taken):
            continue
        taken.append((drive_id, at_s))
        found.append((name, distance))
    return found[:count]


def pairs(found: Any) -> list[tuple[str, float]]:
    return [(row["frame_id"], round(row["distance"], 5)) for row in found.to_pylist()]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("neighbours", [1, 200])
@pytest.mark.parametrize("gap_s", [0.0, 2.0, 7.5])
def test_answers_equal_a_walk_over_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap_s: float, neighbours: int
) -> None:
    monkeypatch.setattr(similar, "_NEIGHBOURS_PER_ANSWER", neighbours)
    store = store_of(tmp_path, *drives())
    embedding = similar.embeddings_of(store, SETTINGS, KNOWN, [frame_id("r0", 17)])
    found = similar.find(store, SETTINGS, frame_id("r0", 17), count=15, gap_s=gap_s)
    wanted = by_hand((0, 17), embedding[0], gap_s, 15)
    assert [name for name, _ in pairs(found)] == [name for name, _ in wanted]
    assert [d for _, d in pairs(found)] == pytest.approx([d for _, d in wanted], abs=2e-5)
    assert found["rank"].to_pylist() == list(range(1, found.num_rows + 1))
    assert found["frame_id"][0].as_py() == frame_id("r2", 17)  # the same picture in another drive
    assert found["cosine"][0].as_py() == pytest.approx(1.0)
    vectors = similar.embeddings_of(store, SETTINGS, KNOWN, found["frame_id"].to_pylist())
    assert found["cosine"].to_pylist() == pytest.approx((vectors @ embedding[0]).tolist(), abs=1e-5)


@pytest.mark.usefixtures("known")
def test_the_gap_is_that_of_select_where_none_is_given(tmp_path: Path) -> None:
    store = store_of(tmp_path, *drives())
    default = similar.find(store, SETTINGS, frame_id("r1", 0), count=200)
    assert default.equals(similar.find(store, SETTINGS, frame_id("r1", 0), count=200, gap_s=3.0))
    assert (
        default.num_rows
        < similar.find(store, SETTINGS, frame_id("r1", 0), count=200, gap_s=0).num_rows
        == 119
    )


@pytest.mark.usefixtures("known")
def test_a_condition_narrows_and_a_wrong_one_is_one_line(tmp_path: Path) -> None:
    store = store_of(tmp_path, *drives())
    embedding = similar.embeddings_of(store, SETTINGS, KNOWN, [frame_id("r0", 3)])[0]
    found = similar.find(store, SETTINGS, frame_id("r0", 3), count=9, gap_s=4, where="hardness >= 0.5")
    wanted = by_hand((0, 3), embedding, 4, 9, least=0.5)
    assert [name for name, _ in pairs(found)] == [name for name, _ in wanted]
    for where, words in (
        ("hardnes > 0", "hardness"),
        ("true; DROP VIEW mined", "more than one statement"),
        ("(SELECT count(*) FROM read_text('/etc/hostname')) > 0", "disabled by configuration"),
        ("hardness > 7", "has looked at no frame that satisfies"),
    ):
        with pytest.raises(UsageError, match=words) as error:
            similar.find(store, SETTINGS, frame_id("r0", 3), where=where)
        assert "\n" not in str(error.value)


def test_examples_that_are_not_there_say_the_way_out(tmp_path: Path) -> None:
    store = store_of(tmp_path, *drives())
    failed = [{"frame_id": "f", "committee_id": COMMITTEE, "status": "failed", "error": "cut off"}]
    tables = {"observations": table("observations", failed), "detections": table("detections", [])}
    store.commit("detect", NIGHT, "f", tables, digest="x", committee_id=COMMITTEE)
    stranger = Committee("c-11111111", ("c",), ("car",), (0.25,))
    for committee, example, words in (
        (KNOWN, "r0-17", "no frame is called 'r0-17'"),
        (KNOWN, "'; DROP TABLE frames; --", "no frame is called"),
        (KNOWN, "f", "no embedding .cut off."),
        (KNOWN, "gone.jpg", "gone.jpg: cannot be read"),
        (stranger, frame_id("r0", 1), "never shown to committee c-11111111"),
    ):
        with pytest.raises(UsageError, match=words):
            similar.embeddings_of(store, SETTINGS, committee, [example])


def test_several_examples_keep_their_order(tmp_path: Path) -> None:
    store = store_of(tmp_path, *drives())
    ids = [frame_id("r1", 5), frame_id("r0", 9), frame_id("r1", 5)]
    got = similar.embeddings_of(store, SETTINGS, KNOWN, ids)
    made = drives()
    wanted = np.stack([made[1].embeddings[5], made[0].embeddings[9], made[1].embeddings[5]])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert len(similar.embeddings_of(store, SETTINGS, KNOWN, [])) == 0


def test_an_image_file_is_seen_as_the_detect_stage_sees_it(shared_data: Path, tmp_path: Path) -> None:
    photos = sorted((shared_data / "sequences" / "camvid").glob("*/images/*"))[:3]
    folder = tmp_path / "drive"
    folder.mkdir()
    for n, photo in enumerate(photos):
        pixels = cv2.imread(str(photo))
        cv2.imwrite(str(folder / f"{n}.png"), pixels if n else pixels[::2, ::3])
    cv2.imwrite(str(tmp_path / "like.PNG"), cv2.imread(str(folder / "1.png")))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "night.toml").write_text(
        f'[footage]\npaths = ["drive"]\n[[detector]]\nweights = "{shared_data}/weights/FastestDet.onnx"\nhead = "fastestdet"\n'
    )
    config = configs.load(tmp_path / "night.toml")
    store = Store(config.store_path, create=True)
    detect_objects.run(store, config, index_footage.run(store, config)[1])
    with store.connect() as con:
        rows = con.execute("SELECT frame_id, embedding FROM observations ORDER BY frame_id").fetchall()
    files = [str(folder / "0.png"), "drive/1.png", "like.PNG"]  # relative ones: from the config's folder
    got = similar.embeddings_of(store, config, committee_of(config), [*files, rows[2][0]])
    np.testing.assert_allclose(got, [rows[0][1], rows[1][1], rows[1][1], rows[2][1]], atol=1e-5)
    found = similar.find(store, config, "like.PNG", count=2, gap_s=0)
    assert found["frame_id"][0].as_py() == rows[1][0]
    assert found["distance"][0].as_py() == pytest.approx(0, abs=1e-5)
    command = [sys.executable, "-c", "from mining.cli import main; main()", "similar", rows[1][0]]
    command += ["-c", "night.toml", "-n", "5", "--gap-s", "0", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    told = json.loads(done.stdout)
    assert {row["frame_id"] for row in told} == {rows[0][0], rows[2][0]}
    assert "2 of 5 frames: no more are eligible" in done.stderr
    with pytest.raises(UsageError, match=r"text\.jpg: "):
        similar.find(store, config, "text.jpg")
