"""The night, end to end, on real clips and real detectors."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO

from mining import config, pipeline, score_recording
from mining.calibration import Calibration
from mining.committee import committee_of
from mining.pipeline import NightReport
from mining.signals.calibration import ScoreCalibration
from mining.store import Store
from mining.types import TemporaryError, UsageError

CLIPS = ("hifza_dashcam.mp4", "udacity_vd_test_video.mp4")
CONFIG = """
store = "store"
[footage]
paths = ["drives"]
sample_hz = 4.0
[[detector]]
weights = "{weights}/yolo11n_weather.pt"
[[detector]]
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
image_size_px = 416
[select]
budget = 6
min_gap_s = 0.5
random_share = 0.34
[export]
image_format = "png"
"""


def write_config(folder: Path, shared_data: Path, text: str = CONFIG) -> Path:
    path = folder / "night.toml"
    path.write_text(text.format(weights=shared_data / "weights"))
    return path


@pytest.fixture(scope="module")
def night(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NightReport]:
    """A night over two good clips and every kind of broken footage, run once."""
    folder = tmp_path_factory.mktemp("night")
    drives = folder / "drives"
    drives.mkdir()
    for clip in CLIPS:
        shutil.copy(shared_data / "video" / clip, drives)
    shutil.copy(shared_data / "video" / CLIPS[0], drives / "twice.mp4")
    (drives / "hifza_dashcam.toml").write_text(
        'drive_id = "crash"\nvehicle_id = "bus-1"\ncamera = "front"\nstarted_at = 2026-03-14T20:00:00Z\n[tags]\ncity = "X"\n'
    )
    (drives / "hifza_dashcam.csv").write_text(
        "time_s,speed_mps,latitude_deg,longitude_deg,brake\n0,10,59.9,10.7,0\n4,2,59.8,10.7,1\n"
    )
    (drives / "text.mp4").write_text("this is not a video")
    (drives / "zero.mp4").touch()
    (drives / "zero2.mp4").touch()
    good = (shared_data / "video" / "udacity_solidWhiteRight.mp4").read_bytes()
    (drives / "cut.mp4").write_bytes(good[: len(good) // 2])
    images = drives / "images"
    images.mkdir()
    cv2.imwrite(str(images / "1.png"), np.full((90, 160, 3), 90, np.uint8))
    (images / "2.png").write_bytes(b"\x89PNG broken")
    cv2.imwrite(str(images / "3.png"), np.full((90, 160, 3), 120, np.uint8))
    return folder, pipeline.run_night(config.load(write_config(folder, shared_data)))


def rows(folder: Path, text: str, **parameters: Any) -> list[dict[str, Any]]:
    with Store(folder / "store").connect() as con:
        return con.sql(text, params=parameters).to_arrow_table().to_pylist()


def test_broken_footage_has_a_row_with_a_reason_and_the_night_goes_on(
    night: tuple[Path, NightReport],
) -> None:
    folder, report = night
    state = {
        Path(r["uri"]).name: r for r in rows(folder, "SELECT uri, status, error, frame_count FROM recordings")
    }
    assert {state[name]["status"] for name in ("text.mp4", "zero.mp4", "zero2.mp4")} == {"unreadable"}
    assert state["cut.mp4"]["status"] in {"partial", "unreadable"}
    assert all(state[name]["error"] for name in ("text.mp4", "zero.mp4", "cut.mp4"))
    assert "hifza_dashcam.mp4" in state
    assert "twice.mp4" not in state  # one content, one recording: the first by path
    failed = rows(
        folder,
        "SELECT frame_index, status, error, hardness FROM mined WHERE status <> 'ok' AND kind = 'images'",
    )
    assert [(f["frame_index"], f["status"], f["hardness"]) for f in failed] == [(1, "failed", None)]
    assert "2.png" in failed[0]["error"]
    assert report.batch_id is not None
    assert any("same content" in problem for problem in report.problems)


def test_every_sampled_frame_has_observation_and_score(night: tuple[Path, NightReport]) -> None:
    folder, _ = night
    counts = rows(
        folder,
        "SELECT (SELECT count(*) FROM frames) AS frames, (SELECT count(*) FROM observations) AS observed, "
        "(SELECT count(*) FROM scores) AS scored, (SELECT count(DISTINCT frame_id) FROM observations) AS distinct_frames",
    )[0]
    assert counts["frames"] == counts["observed"] == counts["scored"] == counts["distinct_frames"] > 15
    empty = rows(
        folder,
        "SELECT s.box_count, s.presence_sum FROM scores AS s JOIN observations AS o USING (frame_id) "
        "WHERE o.status = 'ok' AND o.box_count['yolo11n_weather'] = 0",
    )
    assert all(
        row["box_count"] == 0 and row["presence_sum"] is not None for row in empty
    )  # seen nothing, not NULL


def test_profile_tells_the_network_from_what_follows_it(night: tuple[Path, NightReport]) -> None:
    detect = next(stage for stage in night[1].stages if stage.stage == "detect")
    told = pipeline.where_time_went(detect)
    for member in ("yolo11n_weather", "nanodet_m"):
        assert min(detect.profile[f"{what}: {member}"] for what in ("forward pass", "suppression")) > 0
        assert f"forward pass: {member} " in told
    assert {"decode", "wait for frames", "wait for the detectors", "rows", "write"} <= set(detect.profile)
    busy = re.search(r"detectors busy for ([0-9.]+)%", told)
    assert busy is not None
    assert 1 < float(busy[1]) < 100


class Cut:
    """A store whose recordings come in other shards: the rows of ``count`` runs of frames each."""

    def __init__(self, store: Store, unit: score_recording.Unit, count: int, *, edges: bool = True) -> None:
        self.store, self.unit, self.edges = store, unit, edges
        ids = self._whole("observations")["frame_id"].to_pylist()
        self.frames = {str(i): set(part) for i, part in enumerate(np.array_split(ids, count))}

    def _whole(self, table: str) -> pa.Table:
        return pa.concat_tables(self.store.read(table, self.unit.night, key) for key in self.unit.shards)

    def read(self, table: str, night: Any, key: str, columns: Any = None) -> pa.Table:
        if table == "frames":
            return self.store.read(table, night, key, columns)
        rows = self._whole(table)
        rows = rows.filter(pa.array([one in self.frames[key] for one in rows["frame_id"].to_pylist()]))
        if table == "detections" and not self.edges:
            rows = rows.set_column(
                rows.column_names.index("box_std_px"),
                "box_std_px",
                pa.nulls(len(rows), pa.list_(pa.float32())),
            )
            if key == "1":
                rows = rows[:0]
        return rows if columns is None else rows.select(list(columns))


def test_scores_do_not_depend_on_where_shards_end(night: tuple[Path, NightReport]) -> None:
    conf = config.load(night[0] / "night.toml")
    store, committee = Store(conf.store_path), committee_of(conf)
    indexed = [marker["recording_id"] for marker in store.markers("index").values()]
    units = score_recording.units_of(store, committee, indexed)
    unit = max(units, key=lambda unit: len(store.read("observations", unit.night, unit.shards[0])))

    def scored(count: int, **more: Any) -> score_recording.Scored:
        cut: Any = Cut(store, unit, count, **more)
        return score_recording.score_unit(
            cut, committee, replace(unit, shards=tuple(cut.frames)), conf.score, score_recording.Learned()
        )

    whole, many = scored(1), scored(5)
    assert len(whole.frames) > 10
    assert whole.frames.equals(many.frames)
    assert whole.tracks.equals(many.tracks)
    assert whole.track_count == many.track_count > 0
    for name, values in whole.signals.items():
        np.testing.assert_array_equal(values, many.signals[name], err_msg=name)
    # A shard without a box cannot tell that the detector gives no edge distributions; the recording can.
    assert np.isnan(scored(5, edges=False).signals["box_std_px_sum"]).all()
    assert not np.isnan(many.signals["box_std_px_sum"]).all()


def test_sidecar_and_telemetry_reach_the_frames(night: tuple[Path, NightReport]) -> None:
    folder, _ = night
    found = rows(
        folder,
        "SELECT speed_mps, telemetry['brake'] AS brake, captured_at, tags['city'] AS city, pts_ns FROM mined "
        "WHERE drive_id = 'crash' ORDER BY pts_ns",
    )
    seconds = found[4]["pts_ns"] / 1e9
    assert found[4]["speed_mps"] == pytest.approx(10 - 2 * seconds)
    assert found[4]["brake"] == pytest.approx(seconds / 4)
    assert found[0]["city"] == "X"
    assert found[0]["captured_at"].isoformat() == "2026-03-14T20:00:00+00:00"


def test_detections_are_consistent(night: tuple[Path, NightReport]) -> None:
    folder, _ = night
    found = rows(
        folder,
        "SELECT d.*, r.width_px, r.height_px FROM detections AS d JOIN frames USING (frame_id) JOIN recordings AS r USING (recording_id)",
    )
    assert {row["detector"] for row in found} == {"yolo11n_weather", "nanodet_m"}
    for row in found:
        assert 0 <= row["x1_px"] <= row["x2_px"] <= row["width_px"]
        assert 0 <= row["y1_px"] <= row["y2_px"] <= row["height_px"]
        assert row["confidence"] == pytest.approx(max(s for s in row["class_scores"] if s is not None))
        assert len(row["box_std_px"]) == 4
    # The weather detector never learned trains: NULL, not 0.
    weather = next(row for row in found if row["detector"] == "yolo11n_weather")
    assert None in weather["class_scores"]
    twice = rows(
        folder, "SELECT frame_id FROM detections GROUP BY frame_id, detector, match_id HAVING count(*) > 1"
    )
    assert not twice  # one box a member and object


def test_exported_pixels_are_the_footage(night: tuple[Path, NightReport]) -> None:
    folder, report = night
    found = rows(
        folder,
        "SELECT e.image_uri, e.sha256, f.frame_index, r.uri, r.kind, f.frame_id FROM exports AS e "
        "JOIN frames AS f USING (frame_id) JOIN recordings AS r USING (recording_id) WHERE e.vendor = 'coco'",
    )
    assert len(found) == 6
    for row in found:
        path = Path(row["image_uri"])
        assert row["frame_id"] in path.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        if row["kind"] == "video":
            with av.open(row["uri"]) as container:
                wanted = next(f for i, f in enumerate(container.decode(video=0)) if i == row["frame_index"])
            exported = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            assert np.array_equal(exported, wanted.to_ndarray(format="rgb24"))
    assert report.batch_folder is not None
    assert not list(Path(report.batch_folder).parent.glob(".*"))


def test_manifests_agree_with_each_other_and_with_pycocotools(night: tuple[Path, NightReport]) -> None:
    _folder, report = night
    batch = Path(report.batch_folder or "")
    lines = [json.loads(line) for line in (batch / "frames.jsonl").read_text().splitlines()]
    with (batch / "frames.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    coco = COCO(str(batch / "coco.json"))
    images = coco.loadImgs(coco.getImgIds())
    names = [line["image"] for line in lines]
    assert names == [cell["image"] for cell in cells] == [image["file_name"] for image in images]
    assert all((batch / name).exists() for name in names)
    assert sum(line["arm"] == "random" for line in lines) == 2
    for line, image in zip(lines, images, strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(line["preannotations"])
        for annotation, box in zip(annotations, line["preannotations"], strict=True):
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(
                [box[f"{e}_px"] for e in ("x1", "y1", "x2", "y2")]
            )
            assert coco.cats[annotation["category_id"]]["name"] == box["class_name"]
            assert 0.5 <= annotation["score"] <= 1
        picture = cv2.imread(str(batch / image["file_name"]))
        assert picture.shape[:2] == (image["height"], image["width"])


def test_a_second_run_has_nothing_to_do_and_does_not_import_torch(
    night: tuple[Path, NightReport], shared_data: Path
) -> None:
    folder, first = night
    code = (
        "import sys, json\nfrom mining import config, pipeline\n"
        f"n = pipeline.run_night(config.load({str(folder / 'night.toml')!r}))\n"
        "print(json.dumps([n.nothing_to_do, n.batch_id, [m for m in ('torch', 'ultralytics', 'onnxruntime') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, first.batch_id, []]


def test_moved_footage_is_not_mined_again(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "drives").mkdir()
    clip = tmp_path / "drives" / "a.mp4"
    shutil.copy(shared_data / "video" / CLIPS[1], clip)
    path = write_config(tmp_path, shared_data)
    pipeline.run_night(config.load(path))
    # Scores name the drive, which without a sidecar is the folder and name: they follow the move, the rest stays.
    scores = "SELECT * EXCLUDE (drive_id) FROM scores ORDER BY frame_id"
    before = rows(tmp_path, scores)
    (tmp_path / "drives" / "deep").mkdir()
    clip.rename(tmp_path / "drives" / "deep" / "b.mp4")
    report = pipeline.run_night(config.load(path))
    done = {stage.stage: stage.done for stage in report.stages}
    assert (done["index"], done["detect"]) == (1, 0)
    assert rows(tmp_path, scores) == before
    drives = rows(
        tmp_path,
        "SELECT DISTINCT s.drive_id = f.drive_id AS same FROM scores s JOIN frames f USING (frame_id)",
    )
    assert drives == [{"same": True}]
    assert [r["uri"] for r in rows(tmp_path, "SELECT uri FROM recordings")] == [
        str(tmp_path / "drives/deep/b.mp4")
    ]


def test_a_member_that_fails_does_not_cost_the_others_boxes(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mining import detect_objects

    (tmp_path / "drives").mkdir()
    shutil.copy(shared_data / "video" / CLIPS[1], tmp_path / "drives")
    real = detect_objects.load_members

    def failing(conf: Any) -> Any:
        members = real(conf)

        def broken(_batch: Any) -> Any:
            raise RuntimeError("out of luck\nsecond line")

        members[1].predict = broken
        return members

    monkeypatch.setattr(detect_objects, "load_members", failing)
    report = pipeline.run_night(config.load(write_config(tmp_path, shared_data)))
    observed = rows(tmp_path, "SELECT status, error, box_count FROM observations")
    assert {row["status"] for row in observed} == {"partial"}
    assert all(row["error"] == "nanodet_m: RuntimeError: out of luck" for row in observed)
    assert {r["detector"] for r in rows(tmp_path, "SELECT DISTINCT detector FROM detections")} == {
        "yolo11n_weather"
    }
    scored = rows(tmp_path, "SELECT presence_sum, expected_missed, hardness FROM scores")
    assert all(row["presence_sum"] is None and row["expected_missed"] is not None for row in scored)
    assert report.batch_id is not None
    assert any("hold for this run only" in problem for problem in report.problems)

    # The failure was the detector's, not the footage's: a healthy run tries again, and takes a reference that lasts.
    monkeypatch.undo()
    healthy = pipeline.run_night(config.load(write_config(tmp_path, shared_data)))
    assert {stage.stage: stage.done for stage in healthy.stages}["detect"] == 1
    assert {row["status"] for row in rows(tmp_path, "SELECT status FROM observations")} == {"ok"}
    assert all(
        r["presence_sum_pct"] is not None for r in rows(tmp_path, "SELECT presence_sum_pct FROM scores")
    )
    assert len(list((tmp_path / "store" / "reference").iterdir())) == 1


def test_repeats_take_over_what_was_seen_and_say_so(shared_data: Path, tmp_path: Path) -> None:
    """Over half the frames of this clip are doubled; of its first 30, 16 are by their mean pixel difference."""
    (tmp_path / "drives").mkdir()
    with (
        av.open(str(shared_data / "video" / CLIPS[0])) as clip,
        av.open(str(tmp_path / "drives" / "doubled.mp4"), "w") as out,
    ):
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in itertools.islice(clip.demux(video=0), 30):
            packet.stream = stream
            out.mux(packet)
    seen, boxes = [], []
    quick = CONFIG.replace(
        '"{weights}/yolo11n_weather.pt"', '"{weights}/FastestDet.onnx"\nhead = "fastestdet"'
    )
    for skip in ("true", "false"):
        conf = config.load(
            write_config(tmp_path, shared_data, quick),
            ["footage.sample_hz=100", f"detect.skip_repeats={skip}", f"store='store-{skip}'"],
        )
        for stage in ("index", "detect"):
            report = pipeline.run_stage(stage, conf)
        seen.append(report.counts)
        with Store(conf.store_path).connect() as con:
            boxes.append(con.sql(
                "SELECT o.repeat_of, o.embedding, o.luma_mean, f.frame_index, list({d: d.detector, c: d.class, x: d.x1_px, y: d.y1_px} "
                "ORDER BY d.detector, d.box_index) AS boxes FROM observations AS o JOIN frames AS f USING (frame_id) "
                "LEFT JOIN detections AS d USING (frame_id) GROUP BY ALL ORDER BY f.frame_index"
            ).to_arrow_table().to_pylist())  # fmt: skip
            [(matches,)] = con.execute(
                "SELECT count(*) FROM detections GROUP BY frame_id, detector, box_index HAVING count(*) > 1 "
                "UNION ALL SELECT 0"
            ).fetchall()
            assert matches == 0
    with_repeats, without = boxes
    repeats = [row for row in with_repeats if row["repeat_of"]]
    assert 10 <= len(repeats) == seen[0]["repeats"] <= 16
    assert not [row for row in without if row["repeat_of"]]
    by_index = {row["frame_index"]: row for row in with_repeats}
    for row in repeats:
        original = by_index[int(row["repeat_of"][-7:])]
        assert original["repeat_of"] is None
        assert (row["boxes"], row["embedding"]) == (original["boxes"], original["embedding"])
    # What would have been seen is nearly the same, and each picture was measured by itself.
    for row, other in zip(with_repeats, without, strict=True):
        assert np.linalg.norm(np.subtract(row["embedding"], other["embedding"])) < 0.05
        assert row["luma_mean"] == other["luma_mean"]


def test_a_frame_in_which_nothing_was_seen_is_eligible(shared_data: Path, tmp_path: Path) -> None:
    """A mean over no boxes is NULL, but the frame was looked at: it has a hardness, and the random arm can draw it."""
    images = tmp_path / "drives" / "images"
    images.mkdir(parents=True)
    shutil.copy(
        shared_data / "sequences" / "camvid" / "0001TP" / "images" / "0001TP_009570.jpg", images / "1.jpg"
    )
    cv2.imwrite(str(images / "2.png"), np.full((90, 160, 3), 90, np.uint8))
    (images / "3.png").write_bytes(b"\x89PNG broken")
    conf = config.load(
        write_config(tmp_path, shared_data),
        ["score.hardness={ presence_mean = 1.0, entropy_mean = 1.0 }", "select.random_share=1.0"],
    )
    report = pipeline.run_night(conf)
    found = rows(tmp_path, "SELECT status, hardness, entropy_mean FROM mined ORDER BY frame_index")
    assert [row["status"] for row in found] == ["ok", "ok", "failed"]
    assert found[0]["entropy_mean"] is not None
    assert found[1]["entropy_mean"] is None
    assert found[1]["hardness"] == 0.5
    assert found[2]["hardness"] is None
    chosen = rows(tmp_path, "SELECT frame_id FROM selections WHERE batch_id = $b", b=report.batch_id)
    assert len(chosen) == 2


def test_each_site_exports_its_own_frames_of_one_batch(shared_data: Path, tmp_path: Path) -> None:
    sites = []
    for name, clip in zip("ab", CLIPS, strict=True):
        (tmp_path / name / "drives").mkdir(parents=True)
        shutil.copy(shared_data / "video" / clip, tmp_path / name / "drives")
        overrides = ["footage.sample_hz=1.0", "select.random_share=0.0"]
        if name == "a":
            overrides.append(f"select.other_stores=[{json.dumps(str(tmp_path / 'b' / 'store'))}]")
        path = write_config(tmp_path / name, shared_data)
        if name == "b":  # percentiles compare where the reference is the same
            shutil.copytree(tmp_path / "a" / "store" / "reference", tmp_path / "b" / "store" / "reference")
            (tmp_path / "b" / "store" / "mining-store.json").write_bytes(
                (tmp_path / "a" / "store" / "mining-store.json").read_bytes()
            )
        for stage in ("index", "detect", "score"):
            # Site a's own stages do not look at the other store, which is not there yet.
            pipeline.run_stage(stage, config.load(path, overrides[:2]))
        sites.append(config.load(path, overrides))
    here, there = sites
    pipeline.run_stage("select", here)
    mine, here_folder = pipeline.run_export(here, None)
    batch = here_folder.name
    theirs, there_folder = pipeline.run_export(there, batch, Store(here.store_path))
    chosen = {row["frame_id"] for row in rows(tmp_path / "a", "SELECT frame_id FROM selections")}
    images = [{path.stem for path in (folder / "images").iterdir()} for folder in (here_folder, there_folder)]
    assert images[0] | images[1] == chosen
    assert all(images)
    assert not images[0] & images[1]
    assert f"{len(images[1])} frames of the batch are of other sites" in mine.problems[0]
    assert f"{len(images[0])} frames of the batch are of other sites" in theirs.problems[0]


def test_a_delivery_survives_footage_that_is_gone(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "drives").mkdir()
    clip = tmp_path / "drives" / "a.mp4"
    shutil.copy(shared_data / "video" / CLIPS[0], clip)
    path = write_config(tmp_path, shared_data)
    first = pipeline.run_night(config.load(path))
    batch = Path(first.batch_folder or "")
    before = sorted(p.name for p in (batch / "images").iterdir())
    (batch / "notes.txt").write_text("a labeler's")
    clip.rename(tmp_path / "elsewhere.mp4")
    report, folder = pipeline.run_export(config.load(path, ("export.image_format=jpeg",)), first.batch_id)
    assert folder == batch
    assert any("left as it was" in problem for problem in report.problems)
    assert sorted(p.name for p in (batch / "images").iterdir()) == before
    (tmp_path / "elsewhere.mp4").rename(clip)
    again, _ = pipeline.run_export(config.load(path, ("export.image_format=jpeg",)), first.batch_id)
    assert again.counts["images"] == len(before)
    assert all(p.suffix == ".jpg" for p in (batch / "images").iterdir())
    assert (Path(f"{batch}.previous-1") / "notes.txt").exists()  # nothing that lay there is thrown away


def test_names_that_move_down_by_one_keep_every_recording(shared_data: Path, tmp_path: Path) -> None:
    """A ring buffer: the oldest is deleted, the others take its neighbour's name."""
    drives = tmp_path / "drives"
    drives.mkdir()
    for i, clip in enumerate(
        ("hifza_dashcam.mp4", "udacity_vd_test_video.mp4", "udacity_solidWhiteRight.mp4")
    ):
        shutil.copy(shared_data / "video" / clip, drives / f"seg{i}.mp4")
    loaded = config.load(write_config(tmp_path, shared_data), ("footage.sample_hz=1.0",))
    pipeline.run_night(loaded)
    before = rows(tmp_path, "SELECT recording_id, count(*) AS n FROM observations GROUP BY 1 ORDER BY 1")
    for i in (1, 2):
        (drives / f"seg{i}.mp4").rename(drives / f"seg{i - 1}.mp4")
    report = pipeline.run_night(loaded)
    assert {stage.stage: stage.done for stage in report.stages}["detect"] == 0
    assert (
        rows(tmp_path, "SELECT recording_id, count(*) AS n FROM observations GROUP BY 1 ORDER BY 1") == before
    )
    assert len(rows(tmp_path, "SELECT * FROM recordings")) == 3


def test_no_job_writes_while_the_store_is_tidied_up_and_the_other_way_round(
    shared_data: Path, tmp_path: Path
) -> None:
    loaded = config.load(write_config(tmp_path, shared_data))
    (tmp_path / "drives").mkdir()
    store = Store(loaded.store_path, create=True)
    with store.alone(), pytest.raises(TemporaryError, match="is being tidied up or migrated by another job"):
        pipeline.run_night(loaded)
    with store.writing(), pytest.raises(TemporaryError, match="another mining job is writing to it"):
        store.alone().__enter__()
    with store.writing(), Store(store.root).writing():
        pass


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("select.strategy=kcenter", "k_center"),
        ("score.hardness={ entropie_max = 1.0 }", "entropy_max"),
        ('export.vendors=["cooc"]', "coco"),
        ("select.where=no_such_column > 1", "no_such_column"),
        ("select.where=true; DROP TABLE frames", "one SQL condition"),
    ],
)
def test_a_late_stage_s_settings_are_checked_first(
    shared_data: Path, tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        pipeline.run_night(config.load(write_config(tmp_path, shared_data), (override,)))


def test_a_calibration_of_other_detectors_is_refused_before_anything_runs(
    shared_data: Path, tmp_path: Path
) -> None:
    Calibration({"0" * 64: ScoreCalibration(1.0, 0.0)}, {}, "other weights").save(tmp_path / "c.json")
    loaded = config.load(write_config(tmp_path, shared_data), ("score.calibration=c.json",))
    with pytest.raises(UsageError, match="calibration does not know"):
        pipeline.run_night(loaded)
    assert not Store(loaded.store_path).markers("detect")


def test_shards_give_the_same_rows_as_one_piece(shared_data: Path, tmp_path: Path) -> None:
    """Cut anywhere, committed piece by piece: the same detections."""
    results = []
    for minutes in (5.0, 0.01):
        folder = tmp_path / str(minutes)
        (folder / "drives").mkdir(parents=True)
        shutil.copy(shared_data / "video" / CLIPS[0], folder / "drives")
        loaded = config.load(
            write_config(folder, shared_data), (f"detect.shard_minutes={minutes}", "detect.batch_size=3")
        )
        pipeline.run_night(loaded)
        results.append(
            rows(
                folder,
                "SELECT * EXCLUDE (confidence, class_scores, x1_px, y1_px, x2_px, y2_px, box_std_px), round(confidence, 3) AS c, round(x1_px) AS x FROM detections ORDER BY ALL",
            )
        )
    assert len(results[0]) > 20
    assert results[0] == results[1]
    assert len(Store(tmp_path / "0.01" / "store").markers("detect")) > 3


def test_preannotations_are_means_over_the_members_that_know_the_class(tmp_path: Path) -> None:
    """Mixed class lists: 'a' knows car and truck, 'b' only truck; an object that a calls car and b calls truck."""
    import duckdb

    from mining.store import sql_file

    con = duckdb.connect()
    con.execute(
        "CREATE TABLE detections AS SELECT * FROM (VALUES "
        "('f', 'c', 'a', 'car',   0.9, 0.0, 0.0, 10.0, 10.0, [0.9, 0.3],  0),"
        "('f', 'c', 'b', 'truck', 0.8, 0.0, 0.0, 10.0, 12.0, [NULL, 0.8], 0),"
        "('f', 'c', 'a', 'truck', 0.7, 50.0, 0.0, 60.0, 10.0, [0.1, 0.7], 1),"
        "('f', 'c', 'b', 'truck', 0.9, 80.0, 0.0, 90.0, 10.0, [NULL, 0.9], 2)"
        ") AS t(frame_id, committee_id, detector, class, confidence, x1_px, y1_px, x2_px, y2_px, class_scores, match_id)"
    )
    con.execute("CREATE TABLE chosen AS SELECT 'f' AS frame_id")
    con.execute(
        "CREATE TABLE knows AS SELECT * FROM (VALUES ('a', 'car', 1), ('a', 'truck', 2), ('b', 'truck', 2)) "
        "AS t(detector, class, class_index)"
    )
    found = con.execute(sql_file("preannotations"), {"committee_id": "c", "confidence": 0.1}).fetchall()
    # Car: only a knows it. Truck of a alone: (0.7 + 0) / 2. Truck of b alone: (0 + 0.9) / 2.
    assert [(row[1], round(float(row[2]), 3)) for row in found] == [
        ("car", 0.9),
        ("truck", 0.45),
        ("truck", 0.35),
    ]
