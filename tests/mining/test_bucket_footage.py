"""Footage in a bucket gives what the same files in a folder give; what fails for a moment costs nothing, and nothing is doubled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from mining import buckets, config, detect_objects, export_clip, housekeeping, index_footage, pipeline
from mining.committee import Committee
from mining.config import Config
from mining.decode_ahead import batches
from mining.footage import bucket as in_bucket
from mining.footage import cache, discover
from mining.footage.source import FootageError, OutOfReach, Source
from mining.progress import Clock
from mining.store import Store
from mining.types import MiningError, TemporaryError, UsageError
from tests.mining.flaky_s3 import FlakyS3, flaky_s3
from tests.mining.footage_clips import encode

SIDECAR = 'drive_id = "d-{name}"\nstarted_at = 2026-03-14T20:0{minute}:00Z\n'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FlakyS3]:
    """An S3 that works until a test says otherwise; what is fetched lies in the test's own folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 2.0)
    monkeypatch.setattr(buckets, "RETRIES", 2)
    with flaky_s3() as s3:
        s3.make_bucket("fleet")
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        buckets._client.cache_clear()
        in_bucket._known.clear()
        yield s3
        cache.clear()
        in_bucket._known.clear()
        buckets._client.cache_clear()


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """A folder of two videos and an image folder, with sidecars and telemetry."""
    folder = tmp_path / "drives"
    (folder / "photos").mkdir(parents=True)
    for minute, name in enumerate(("a", "b")):
        encode(folder / f"{name}.mp4", ticks=range(50), metadata={"title": name})
        (folder / f"{name}.toml").write_text(SIDECAR.format(name=name, minute=minute))
    (folder / "a.csv").write_text("time_s,speed\n0,10\n1,20\n2,30\n")
    for n in range(4):
        cv2.imwrite(str(folder / "photos" / f"{n}.png"), np.full((64, 96, 3), 20 + 50 * n, np.uint8))
    (folder / "photos.toml").write_text(SIDECAR.format(name="photos", minute=5) + "frame_rate_hz = 2.0\n")
    return folder


def upload(folder: Path, uri: str = "s3://fleet/night") -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            buckets.put(f"{uri}/{path.relative_to(folder).as_posix()}", path)
    return uri


def conf(folder: Path, *paths: str, weights: str = "a.pt", **footage: Any) -> Config:
    folder.mkdir(exist_ok=True)
    more = "".join(f"{key} = {value}\n" for key, value in footage.items())
    text = f"[footage]\npaths = [{', '.join(repr(path) for path in paths)}]\nsample_hz = 5.0\n{more}"
    (folder / "night.toml").write_text(f'{text}[[detector]]\nweights = "{weights}"\n')
    return config.load(folder / "night.toml")


def index(conf: Config) -> tuple[Any, list[str]]:
    return index_footage.run(Store(conf.store_path, create=True), conf)


def rows(conf: Config, table: str, leave_out: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    with Store(conf.store_path).connect() as con:
        found: pa.Table = con.sql(f"FROM {table}").to_arrow_table()
    kept = [name for name in found.column_names if name not in leave_out]
    return sorted(found.select(kept).to_pylist(), key=repr)


WHERE = ("uri", "modified_ns")


def found(*paths: str) -> list[str]:
    sources, problems = discover(list(paths))
    assert problems == []
    return [source.path.removeprefix("s3://fleet/") for source in sources]


# Finding


def test_folders_objects_patterns_and_lists_name_the_same_as_on_disk(s3: FlakyS3, tmp_path: Path) -> None:
    names = [
        "2026/car 1/front.mp4", "2026/car 1/rear.MP4", "2026/car 1/front.toml", "2026/ü/ä+%20.mkv", "2026/ü/seq/10.jpg",
        "2026/ü/seq/9.jpg", "2026/ü/seq/masks/9.png", "2026/.hidden/x.mp4", "2026/.x.mp4", "2026/notes.txt", "2027/z.mp4",
    ]  # fmt: skip
    local = tmp_path / "local"
    for name in names:
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(b"x")
    upload(local, "s3://fleet")
    (local / "2026" / "notes.txt").write_text("# drives\ncar 1\n\n@more.lst\n")
    (local / "2026" / "more.lst").write_text("ü/seq\n../2027/z.mp4\n")
    for name in ("notes.txt", "more.lst"):
        buckets.put(f"s3://fleet/2026/{name}", local / "2026" / name)
    for pattern in (
        "2026", "2026/", "2026/car 1/front.mp4", "2026/ü/seq", "2026/*/*.mp4", "2026/**/*.mp4", "**/*.jpg", "*/car*", "2026/**",
        "20??/[a-z]*.mp4", "**/ü", "2026/ü/seq/*", "2026/notes.txt", "@2026/notes.txt", "**/**/front*",
    ):  # fmt: skip
        at, name = ("@", pattern[1:]) if pattern.startswith("@") else ("", pattern)
        sources, _ = discover([f"{at}{local}/{name}"])
        expected = [os.path.relpath(source.path, local) for source in sources]
        assert found(f"{at}s3://fleet/{name}") == expected != [], pattern
    (tmp_path / "mixed.lst").write_text(f"s3://fleet/2027\n{local}/2026/ü/seq\n@s3://fleet/2026/more.lst\n")
    assert found(f"@{tmp_path}/mixed.lst") == [f"{local}/2026/ü/seq", "2026/ü/seq", "2027/z.mp4"]


def test_what_gives_no_footage_is_one_line_each(s3: FlakyS3, tmp_path: Path) -> None:
    buckets.put("s3://fleet/a/notes.md", b"x")
    buckets.put("s3://fleet/a/one.jpg", b"x")
    buckets.put("s3://fleet/list.lst", b"/etc\n../../none\n")
    for path, reason in (
        ("s3://fleet/none", "no such object or folder"),
        ("s3://fleet/none.mp4", "no such object or folder"),
        ("s3://fleet/a/notes.md", "unknown ending"),
        ("s3://fleet/a/one.jpg", "a single image"),
        ("s3://fleet/a/*.mp4", "matches no video"),
        ("s3://fl*/a", "can be no pattern"),
        ("@s3://fleet/none.lst", "no such list file"),
        ("@s3://fleet/list.lst", "no such object or folder"),  # and not /etc of this machine
    ):
        sources, problems = discover([path])
        assert sources == []
        assert all(reason in problem.reason for problem in problems), problems
        assert problems


def test_a_wrong_bucket_and_secrets_in_a_config_are_refused(s3: FlakyS3, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such bucket"):
        discover(["s3://nobucket/x"])
    for uri in ("s3://KEY:hunter2@fleet/x", "s3://fleet/x?secret_key=hunter2"):
        with pytest.raises(UsageError, match="credentials do not belong here") as caught:
            discover([uri])
        assert "hunter2" not in str(caught.value)


# The same as on disk


def test_an_index_of_a_bucket_is_that_of_the_folder(s3: FlakyS3, drives: Path, tmp_path: Path) -> None:
    local, remote = conf(tmp_path / "l", str(drives)), conf(tmp_path / "r", upload(drives))
    index(local)
    report, ids = index(remote)
    assert len(ids) == 3
    assert report.problems == []
    for table in ("recordings", "frames"):
        assert rows(remote, table, WHERE) == rows(local, table, WHERE) != []
    assert {row["uri"] for row in rows(remote, "recordings")} == {
        "s3://fleet/night/a.mp4", "s3://fleet/night/b.mp4", "s3://fleet/night/photos"
    }  # fmt: skip
    assert any(row["speed_mps"] for row in rows(remote, "frames"))
    # Unchanged: nothing is fetched, and one listing tells it.
    cache.clear()
    s3.requests.clear()
    s3.bytes_out.clear()
    report, again = index(remote)
    assert (report.done, report.unchanged, again) == (0, 3, ids)
    assert s3.requests == {"GET": 1}
    # Moved to the bucket: the same recordings, and nothing of them is mined again.
    assert index(conf(tmp_path / "l", "s3://fleet/night"))[1] == ids
    assert len(rows(local, "recordings")) == 3


def test_a_changed_sidecar_or_object_is_seen(s3: FlakyS3, drives: Path, tmp_path: Path) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    _, before = index(remote)
    buckets.put("s3://fleet/night/a.toml", SIDECAR.format(name="other", minute=3).encode())
    report, ids = index(remote)
    assert (report.done, ids) == (1, before)
    assert "d-other" in {row["drive_id"] for row in rows(remote, "recordings")}
    encode(drives / "b.mp4", ticks=range(30), metadata={"title": "anew"})
    buckets.put("s3://fleet/night/b.mp4", drives / "b.mp4")
    report, ids = index(remote)
    assert report.done == 1
    assert len(set(ids) - set(before)) == 1


@pytest.mark.slow
def test_a_night_from_a_bucket_gives_the_tables_of_the_folder(
    s3: FlakyS3, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "drives"
    folder.mkdir()
    shutil.copy(shared_data / "video" / "udacity_vd_test_video.mp4", folder)
    (folder / "udacity_vd_test_video.toml").write_text(SIDECAR.format(name="udacity", minute=1))
    (folder / "seq").mkdir()
    for image in sorted((shared_data / "sequences" / "camvid" / "0001TP" / "images").iterdir())[:6]:
        shutil.copy(image, folder / "seq")
    (folder / "seq.toml").write_text(SIDECAR.format(name="seq", minute=7))
    weights = str(ROOT / "detectors" / "demo_weights" / "demo_yolov8.pt")
    nights = []
    upload(folder)
    s3.bytes_out.clear()
    for name, path in (("l", str(folder)), ("r", "s3://fleet/night")):
        made = conf(tmp_path / name, path, weights=weights)
        made = made.model_copy(
            update={"select": made.select.model_copy(update={"budget": 6, "min_gap_s": 0.2})}
        )
        s3.rate = 0.05
        night = pipeline.run_night(made)
        s3.rate = 0.0
        assert night.failed_recordings == night.failed_frames == 0
        nights.append((made, night))
    (local, first), (remote, second) = nights
    assert first.batch_id is not None
    different = (*WHERE, "batch_id", "image_uri", "run_id", "started_at", "made_at", "seconds")
    for table in (
        "recordings",
        "frames",
        "detections",
        "observations",
        "tracks",
        "scores",
        "scenes",
        "selections",
        "exports",
    ):
        assert rows(remote, table, different) == rows(local, table, different), table
    assert rows(remote, "exports")
    # What was fetched for the index served the other stages.
    for path, size in s3.bytes_out.items():
        if path.endswith(".mp4"):
            assert size == (folder / Path(path).name).stat().st_size
    assert second.batch_id is not None
    assert second.recordings == 2


# Fetching


def test_the_cache_keeps_its_limit_and_what_the_next_stage_needs_first(
    s3: FlakyS3, drives: Path, tmp_path: Path
) -> None:
    for n in range(6):
        buckets.put(f"s3://fleet/many/{n}.mp4", bytes(1_000_000))
    sources, _ = discover(["s3://fleet/many"])
    for _ in range(2):  # two stages, one order
        for source in sources:
            with cache.at_hand(source, 0.0035) as here:
                assert os.path.getsize(here.path) == 1_000_000
                assert sum(path.stat().st_size for path in (tmp_path / "tmp").rglob("*.mp4")) <= 3_500_000
    assert s3.bytes_out["/fleet/many/0.mp4"] == s3.bytes_out["/fleet/many/1.mp4"] == 1_000_000
    with cache.at_hand(sources[0], 1e-6):  # larger than the limit: it is had all the same
        pass
    cache.clear()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_threads_that_want_one_recording_fetch_it_once(s3: FlakyS3) -> None:
    from concurrent.futures import ThreadPoolExecutor

    buckets.put("s3://fleet/x/a.mp4", bytes(500_000))
    (source,), _ = discover(["s3://fleet/x"])

    def size(_: int) -> int:
        with cache.at_hand(source, 1.0) as here:
            return os.path.getsize(here.path)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(size, range(40))) == {500_000}
    assert s3.bytes_out["/fleet/x/a.mp4"] == 500_000


def test_a_disk_without_room_ends_the_job_with_try_again_later(
    s3: FlakyS3, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_SPARE_BYTES", 10**18)
        with pytest.raises(TemporaryError, match=r"MB are free, and s3://fleet/night/a\.mp4 takes .* TMPDIR"):
            index(remote)
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(buckets, "fetch", full)
        with pytest.raises(TemporaryError, match="MB are free"):
            index(remote)
    assert len(index(remote)[1]) == 3


def test_what_a_killed_job_left_is_taken_away_and_a_living_ones_is_not(
    s3: FlakyS3, drives: Path, tmp_path: Path
) -> None:
    upload(drives)
    code = (
        "import sys, tempfile, time; tempfile.tempdir = sys.argv[1]\n"
        "from mining.footage import discover, at_hand\n"
        "with at_hand(discover(['s3://fleet/night/a.mp4'])[0][0], 1.0) as here:\n"
        "    print(here.path, flush=True); time.sleep(3600)\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "tmp")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert job.stdout is not None
    left = Path(job.stdout.readline().strip())
    assert left.exists()
    assert cache.sweep() == 0
    assert left.exists()
    job.kill()
    job.communicate()
    found = housekeeping.Garbage()
    housekeeping.collect(Store(tmp_path / "store", create=True), found)  # `mining gc`
    assert found.size_bytes >= (drives / "a.mp4").stat().st_size
    assert list((tmp_path / "tmp").iterdir()) == []


# Failures


def test_an_object_that_cannot_be_fetched_is_tried_again_by_the_next_run(
    s3: FlakyS3, drives: Path, tmp_path: Path
) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    s3.only = lambda method, path: path == "/fleet/night/a.mp4" and method == "GET"
    s3.rate = 1.0
    report, ids = index(remote)
    assert len(ids) == 3
    assert ["night/a.mp4: unreadable" in problem for problem in report.problems] == [True]
    (bad,) = [row for row in rows(remote, "recordings") if row["status"] != "ok"]
    assert (bad["uri"], bad["status"], bad["frame_count"]) == ("s3://fleet/night/a.mp4", "unreadable", 0)
    assert "hunter2" not in bad["error"]
    report, _ = index(remote)  # still out of reach: tried, and still one row
    assert report.done == 1
    assert len(rows(remote, "recordings")) == 3
    s3.rate = 0.0
    report, _ = index(remote)
    assert (report.done, report.unchanged, report.problems) == (1, 2, [])
    assert [row["status"] for row in rows(remote, "recordings")] == ["ok"] * 3


@pytest.mark.parametrize("fault", ["cut", "reset", "503"])
def test_a_download_that_breaks_off_is_tried_again_at_once(
    s3: FlakyS3, drives: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 20.0)
    remote = conf(tmp_path / "r", upload(drives))
    failures = iter([True, True])
    s3.faults = (fault,)
    s3.only = lambda method, path: method == "GET" and path.endswith(".mp4") and next(failures, False)
    s3.rate = 1.0
    report, ids = index(remote)
    assert (len(ids), report.problems, s3.failed[fault]) == (3, [], 2)
    assert [row["status"] for row in rows(remote, "recordings")] == ["ok"] * 3


def test_a_service_that_gives_nothing_any_more_ends_the_job(
    s3: FlakyS3, drives: Path, tmp_path: Path
) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    s3.only = lambda method, path: path.startswith("/fleet/night/")  # listings still work
    s3.rate = 1.0
    with pytest.raises(TemporaryError, match=r"s3://fleet/night/photos.*try again later"):
        index(remote)
    s3.only = lambda method, path: True
    with pytest.raises(TemporaryError, match="try again later"):
        index(remote)


def test_an_object_that_changes_or_goes_while_it_is_mined(s3: FlakyS3, drives: Path, tmp_path: Path) -> None:
    upload(drives)
    (a, b, photos), _ = discover(["s3://fleet/night"])
    buckets.put(a.path, b"other bytes")
    with cache.at_hand(a, 1.0) as here:  # another than was listed: the new one, whole
        assert Path(here.path).read_bytes() == b"other bytes"
    buckets.delete(b.path)
    with pytest.raises(FootageError, match=r"b\.mp4: gone"), cache.at_hand(b, 1.0):
        pass
    buckets.delete(f"{photos.path}/2.png")
    with cache.at_hand(photos, 1.0) as here:
        assert sorted(os.listdir(here.path)) == ["0.png", "1.png", "3.png"]
    with (
        pytest.raises(FootageError, match="gone"),
        cache.at_hand(Source("s3://fleet/night/c.mp4", "video"), 1.0),
    ):
        pass


def decoded(conf: Config, ids: list[str]) -> dict[str, set[str | None]]:
    """Decode what detect would: name of the file -> errors of its frames, None for those without."""
    shards = detect_objects.plan(Store(conf.store_path), conf, Committee("c", ("a",), ("car",), (0.3,)), ids)
    errors: dict[str, set[str | None]] = {}
    with batches(shards, conf, Clock()) as found:
        for one in (one for batch in found for one in (*batch.look_at, *batch.others)):
            errors.setdefault(Path(one.shard.source.path).name, set()).add(one.frame.error)
            assert one.frame.error is None or not one.frame.opened  # which the next run tries again
    return errors


def test_a_recording_that_changed_since_it_was_indexed_fails_and_is_tried_again(
    s3: FlakyS3, drives: Path, tmp_path: Path
) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    _, ids = index(remote)
    cache.clear()
    in_bucket._known.clear()
    encode(drives / "b.mp4", ticks=range(50), metadata={"title": "anew"})
    buckets.put("s3://fleet/night/b.mp4", drives / "b.mp4")
    buckets.delete("s3://fleet/night/photos/3.png")
    changed = "gone, or changed since it was indexed; run `mining index`"
    assert decoded(remote, ids) == {
        "a.mp4": {None},
        "b.mp4": {f"s3://fleet/night/b.mp4: {changed}"},
        "photos": {f"s3://fleet/night/photos: {changed}"},
    }
    _, ids = index(remote)
    assert decoded(remote, ids) == {"a.mp4": {None}, "b.mp4": {None}, "photos": {None}}


def test_a_local_file_that_changed_since_it_was_indexed_fails_too(drives: Path, tmp_path: Path) -> None:
    local = conf(tmp_path / "l", str(drives))
    _, ids = index(local)
    encode(drives / "b.mp4", ticks=range(55), metadata={"title": "anew"})
    errors = decoded(local, ids)
    assert errors["a.mp4"] == {None}
    assert ["changed since it was indexed" in str(error) for error in errors["b.mp4"]] == [True]


def test_a_clip_comes_out_of_a_bucket(s3: FlakyS3, drives: Path, tmp_path: Path) -> None:
    remote = conf(tmp_path / "r", upload(drives))
    index(remote)
    store = Store(remote.store_path)
    scene = {
        "drive_id": "d-a",
        "camera": "front",
        "start_ns": 0,
        "end_ns": 2**62,
        "scene_id": "x",
        "committee_id": "c",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_clip, "_scene", lambda _store, _id: scene)
        (clip,) = export_clip.run(store, remote, ["x"], tmp_path / "x.mp4")
        assert (clip.error, clip.frames, clip.lost) == (None, 50, 0)
        cache.clear()
        in_bucket._known.clear()
        buckets.delete("s3://fleet/night/a.mp4")
        (clip,) = export_clip.run(store, remote, ["x"], tmp_path / "y.mp4")
        assert clip.error == "s3://fleet/night/a.mp4: gone"


def test_a_local_file_that_could_not_be_read_has_one_row_when_it_can(drives: Path, tmp_path: Path) -> None:
    """Of a file that cannot be opened nothing is known but its path; once it can be, that row must not stay."""
    local = conf(tmp_path / "l", str(drives))
    with pytest.MonkeyPatch.context() as patch:

        def refuse(_source: Source) -> str:
            raise FootageError("cannot be read: Input/output error")

        patch.setattr("mining.footage.recordings.content_digest", refuse)
        index(local)
    assert [row["status"] for row in rows(local, "recordings")] == ["unreadable"] * 3
    for path in drives.rglob("*.*"):
        os.utime(path)
    index(local)
    assert [row["status"] for row in rows(local, "recordings")] == ["ok"] * 3


def test_out_of_reach_is_a_failure_of_the_footage_and_never_shows_a_secret() -> None:
    assert issubclass(OutOfReach, FootageError)
    assert issubclass(FootageError, MiningError)
