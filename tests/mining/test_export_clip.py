"""Clips: every frame of the scene, at its own time and upright; read back with PyAV's plain loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mining import config as configs
from mining import export_clip, find_scenes, index_footage
from mining.committee import Committee
from mining.config import Config
from mining.store import Store
from mining.types import MiningError, UsageError
from tests.mining.footage_clips import HEIGHT_PX, WIDTH_PX, encode, picture
from tests.mining.lethal import run_with_lethal_decoder
from tests.mining.synthetic import table

START = datetime(2026, 3, 14, 20, 0, tzinfo=UTC)
KNOWN = Committee("a+b-00000000", ("a", "b"), ("car",), (0.25, 0.25))
RATE_HZ = 25


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (find_scenes, export_clip):
        monkeypatch.setattr(module, "committee_of", lambda _config: KNOWN)


class Night:
    """A folder of drives, indexed, whose frames between two moments are hard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drives = folder / "drives"
        self.drives.mkdir()
        (folder / "night.toml").write_text(
            '[footage]\npaths = ["drives"]\nsample_hz = 5.0\n[[detector]]\nweights = "a.pt"\n'
        )

    def add(self, name: str, start_s: float = 0.0, drive: str = "d", **how: Any) -> Path:
        # All but lossless: the clip is a second generation, whose numbers are to be read.
        how = {"ticks": range(50), "metadata": {"title": name}, "options": {"crf": "4"}, **how}
        path = encode(self.drives / f"{name}.mp4", **how)
        self.sidecar(name, start_s, drive)
        return path

    def sidecar(self, name: str, start_s: float, drive: str) -> None:
        start = (START + timedelta(seconds=start_s)).isoformat()
        (self.drives / f"{name}.toml").write_text(f'drive_id = "{drive}"\nstarted_at = {start}\n')

    @property
    def config(self) -> Config:
        return configs.load(self.folder / "night.toml")

    @property
    def store(self) -> Store:
        return Store(self.config.store_path, create=True)

    def mine(self, hard_s: tuple[float, float], boxes: Sequence[dict[str, Any]] = ()) -> list[str]:
        """Index, call frames hard by their time since START, find scenes; boxes are drawn into every third sample."""
        store, config = self.store, self.config
        ids = index_footage.run(store, config)[1]
        with store.connect() as con:
            frames = con.execute(
                "SELECT frame_id, recording_id, captured_at::VARCHAR FROM frames ORDER BY 1"
            ).fetchall()
        since = {f: (datetime.fromisoformat(at) - START).total_seconds() for f, _, at in frames}
        for recording_id in ids:
            mine = [f for f, r, _ in frames if r == recording_id]
            base = {"committee_id": KNOWN.committee_id, "recording_id": recording_id, "status": "ok"}
            scores = [
                {**base, "frame_id": f, "hardness": 0.9 if hard_s[0] <= since[f] <= hard_s[1] else 0.1}
                for f in mine
            ]
            seen = [
                {**base, "frame_id": f, "box_index": 0, "class": "car", **b} for f in mine[::3] for b in boxes
            ]
            notes = {"digest": "x", "recording_id": recording_id, "committee_id": KNOWN.committee_id}
            key, night = recording_id, START.date()
            observed = {"observations": table("observations", []), "detections": table("detections", seen)}
            store.commit("detect", night, key, observed, failed_to_run=0, sees={}, **notes)
            scored = {"scores": table("scores", scores), "tracks": table("tracks", [])}
            store.commit("score", night, key, scored, **notes)
        find_scenes.run(store, config, ids)
        with store.connect() as con:
            return [
                row[0]
                for row in con.sql("SELECT scene_id FROM scenes ORDER BY drive_id, start_ns").fetchall()
            ]

    def clip(self, scene_ids: list[str], to: str = "clips", **how: Any) -> list[export_clip.Clip]:
        return export_clip.run(self.store, self.config, scene_ids, self.folder / to, **how)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def watch(path: str | Path) -> tuple[list[float], list[np.ndarray]]:
    """Seconds and RGB of every frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.time_base is not None
        frames = list(container.decode(stream))
        return [float(f.pts * stream.time_base) for f in frames], [
            f.to_ndarray(format="rgb24") for f in frames
        ]


def number(rgb: np.ndarray) -> float:
    """What picture(n) writes into its corner: n * 37 % 256."""
    return float(rgb[1:7, 1:7].mean())


def test_a_scene_over_two_files_is_one_clip_joined_in_time(night: Night) -> None:
    night.add("b", start_s=2.5)  # half a second after the end of `a`
    night.add("a")
    night.add("rear", drive="another")
    _, scene = night.mine((1.0, 3.0))
    (done,) = night.clip([scene], margin_s=0.5)
    assert done.error is None
    times, pictures = watch(done.path)
    wanted = [(n / RATE_HZ, n) for n in range(50)] + [(2.5 + n / RATE_HZ, n) for n in range(50)]
    wanted = [(s, n) for s, n in wanted if 0.5 <= s <= 3.4 + 1e-9]
    assert times == pytest.approx([s - wanted[0][0] for s, _ in wanted], abs=1e-6)
    assert (done.frames, done.lost) == (len(wanted), 0)
    assert done.seconds == pytest.approx(times[-1])
    for (_, n), rgb in zip(wanted, pictures, strict=True):
        assert number(rgb) == pytest.approx(n * 37 % 256, abs=9)
        assert np.abs(rgb.astype(int) - picture(n)).mean() < 6


def test_where_recordings_overlap_the_earlier_one_is_shown_to_its_end(night: Night) -> None:
    night.add("a")
    night.add("b", start_s=1.01)  # from 1.01 s to 2.97 s, over the last second of `a`
    (scene,) = night.mine((0.0, 3.0))
    (done,) = night.clip([scene])
    times, pictures = watch(done.path)
    later = [(1.01 + n / RATE_HZ, n) for n in range(50) if 1.01 + n / RATE_HZ > 49 / RATE_HZ]
    wanted = [(n / RATE_HZ, n) for n in range(50)] + later
    assert times == pytest.approx([s for s, _ in wanted], abs=1e-6)
    assert [number(rgb) for rgb in pictures] == pytest.approx([n * 37 % 256 for _, n in wanted], abs=9)


def test_irregular_frames_keep_their_own_times_and_a_margin_ends_with_the_footage(night: Night) -> None:
    ticks = [0, 1, 2, 7, 8, 20, 21, 22, 23, 40, 41, 44]
    night.add("a", ticks=ticks, tick_s=Fraction(1, 30))
    (scene,) = night.mine((0.0, 2.0))
    (done,) = night.clip([scene], margin_s=60.0)
    times, pictures = watch(done.path)
    assert times == pytest.approx([t / 30 for t in ticks], abs=1e-6)
    assert [number(rgb) for rgb in pictures] == pytest.approx([n * 37 % 256 for n in range(12)], abs=9)


def test_without_a_margin_a_clip_runs_from_the_first_to_the_last_hard_frame(night: Night) -> None:
    night.add("a", tick_s=Fraction(1001, 30000))  # times that microseconds cannot hold exactly
    (scene,) = night.mine((0.3, 1.3))
    with night.store.connect() as con:
        ((duration_s, first, last),) = con.execute(
            "SELECT s.duration_s, min(f.frame_index), max(f.frame_index) FROM scenes AS s, mined AS f "
            "WHERE f.hardness > 0.5 GROUP BY ALL"
        ).fetchall()
    (done,) = night.clip([scene], margin_s=0.0)
    times, pictures = watch(done.path)
    assert times[-1] == pytest.approx(duration_s, abs=2e-6)
    assert [number(rgb) for rgb in pictures] == pytest.approx(
        [n * 37 % 256 for n in range(first, last + 1)], abs=9
    )


def test_a_turned_recording_comes_upright(night: Night) -> None:
    path = night.add("a", rotation_deg=90, ticks=range(25))
    (scene,) = night.mine((0.0, 1.0))
    (done,) = night.clip([scene])
    _, pictures = watch(done.path)
    capture = cv2.VideoCapture(str(path))  # OpenCV turns frames upright as well: an independent opinion
    _, bgr = capture.read()
    capture.release()
    assert pictures[0].shape == bgr.shape == (WIDTH_PX, HEIGHT_PX, 3)
    assert np.abs(pictures[0].astype(int) - bgr[..., ::-1]).mean() < 6


def test_an_image_folder_at_its_own_rate_odd_sizes_and_a_broken_image(night: Night) -> None:
    folder = night.drives / "photos"
    folder.mkdir()
    tones = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)]
    for n, tone in enumerate(tones):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((91, 161, 3), tone[::-1], np.uint8))
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    night.sidecar("photos", 0.0, "d")
    (scene,) = night.mine((0.0, 9.0))
    (done,) = night.clip([scene], margin_s=0)
    times, pictures = watch(done.path)
    assert (done.frames, done.lost) == (3, 1)
    assert times == pytest.approx([0, 1, 3], abs=1e-6)
    for rgb, tone in zip(pictures, (tones[0], tones[1], tones[3]), strict=True):
        assert rgb.shape == (92, 162, 3)
        # The whole picture, its added row and column included, has the colour, read with the colour space that it states.
        assert np.abs(rgb.astype(int) - tone).max() < 8


def test_boxes_stand_until_the_next_sampled_frame_each_member_in_its_colour(night: Night) -> None:
    night.add("a", options={"crf": "1"})
    boxes = [
        {"detector": "a", "confidence": 0.9, "x1_px": 60.0, "y1_px": 40.0, "x2_px": 100.0, "y2_px": 80.0},
        {"detector": "b", "confidence": 0.9, "x1_px": 30.0, "y1_px": 40.0, "x2_px": 50.0, "y2_px": 60.0},
        {"detector": "b", "confidence": 0.2, "x1_px": 110.0, "y1_px": 30.0, "x2_px": 150.0, "y2_px": 90.0},
    ]
    (scene,) = night.mine((0.0, 2.0), boxes)  # samples at 0, 5, 10, ...; boxes in 0, 15, 30, 45
    plain = watch(night.clip([scene], "plain.mp4", crf=1)[0].path)[1]
    drawn = watch(night.clip([scene], "drawn.mp4", crf=1, boxes=True)[0].path)[1]
    assert len(plain) == len(drawn) == 50
    for n, (before, after) in enumerate(zip(plain, drawn, strict=True)):
        changed = np.abs(before.astype(int) - after).max(axis=-1) > 25
        left_a, left_b, weak = changed[45:75, 59:62], changed[45:55, 29:32], changed[35:85, 109:112]
        for edge in (left_a, left_b):
            assert edge.mean() > 0.2 if n % 15 < 5 else edge.mean() < 0.02, n
        assert weak.mean() < 0.02
    edges = drawn[0][45:75, 60].mean(axis=0), drawn[0][45:55, 30].mean(axis=0)
    for edge, colour in zip(edges, export_clip._COLOURS, strict=False):
        others = [c for c in export_clip._COLOURS[:2] if c != colour]
        assert np.abs(edge - colour).sum() < np.abs(edge - others[0]).sum()


def test_boxes_of_another_committee_are_refused(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.add("a")
    (scene,) = night.mine((0.0, 1.0))
    stranger = Committee("c-11111111", ("c",), ("car",), (0.25,))
    monkeypatch.setattr(export_clip, "committee_of", lambda _config: stranger)
    with pytest.raises(UsageError, match="was found by committee a\\+b-00000000, the config has c-11111111"):
        night.clip([scene], boxes=True)
    assert night.clip([scene])[0].error is None  # the footage is the same whoever looks at it


def test_the_same_bytes_again_and_nothing_else_in_the_folder(night: Night) -> None:
    night.add("a")
    (scene,) = night.mine((0.0, 1.0))
    (first,), (second,) = night.clip([scene], "one/x.mp4"), night.clip([scene], "two")
    assert second.path.endswith(f"two/{scene}.mp4")
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert len(list((night.folder / "one").iterdir())) == len(list((night.folder / "two").iterdir())) == 1


def test_footage_that_changed_or_went_away_gives_no_clip_and_the_others_go_on(night: Night) -> None:
    changed = night.add("a", drive="d1")
    gone = night.add("b", drive="d2")
    night.add("c", drive="d3", start_s=0.2)
    scenes = night.mine((0.0, 1.0))
    os.utime(changed, ns=(1, 1))
    gone.unlink()
    one, two, three = night.clip(scenes)
    assert "a.mp4: gone, or changed since it was indexed" in str(one.error)
    assert "b.mp4: gone, or changed since it was indexed" in str(two.error)
    assert three.error is None
    assert [p.name for p in (night.folder / "clips").iterdir()] == [f"{scenes[2]}.mp4"]


def test_a_decoder_that_crashes_or_hangs_costs_its_frames(night: Night) -> None:
    night.add("a")
    (scene,) = night.mine((0.0, 2.0))
    done = run_with_lethal_decoder(
        ["clip", scene, "-c", "night.toml", "--json", "--set", "detect.decode_timeout_s=4"],
        night.folder, crash_at=[10], hang_at=[20],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["frames"], told["lost"], told["error"]) == (48, 2, None)
    times, _ = watch(night.folder / told["path"])
    assert times == pytest.approx([n / RATE_HZ for n in range(50) if n not in {10, 20}], abs=1e-6)


def test_images_whose_rate_was_changed_since_are_refused(night: Night) -> None:
    folder = night.drives / "photos"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((90, 160, 3), 50 * n, np.uint8))
    night.sidecar("photos", 0.0, "d")
    (scene,) = night.mine((0.0, 9.0))
    text = (night.drives / "photos.toml").read_text()
    (night.drives / "photos.toml").write_text(text + "frame_rate_hz = 4.0\n")
    (done,) = night.clip([scene])
    assert "times of its frames have changed" in str(done.error)
    assert not (night.folder / "clips" / f"{scene}.mp4").exists()


def test_files_of_two_sizes_make_no_one_clip(night: Night) -> None:
    night.add("a")
    night.add("b", start_s=2.0, size=(96, 160))
    (scene,) = night.mine((1.0, 3.0))
    (done,) = night.clip([scene])
    assert "160x96 and 96x160" in str(done.error)
    assert list((night.folder / "clips").iterdir()) == []


def test_wrong_use_is_one_line(night: Night) -> None:
    night.add("a")
    with pytest.raises(UsageError, match="holds no scenes yet"):
        night.clip(["x"])
    (scene,) = night.mine((0.0, 1.0))
    (night.folder / "file").write_text("x")
    for scene_ids, to, words in (
        ([scene[:-1]], "x.mp4", f"did you mean {scene}"),
        (["'; DROP TABLE scenes; --"], "x.mp4", f"the latest: {scene}"),
        ([scene], "file", "is a file, and not called .mp4"),
        ([scene], "crash.avi", "clips are MP4"),
    ):
        with pytest.raises(UsageError, match=words):
            night.clip(scene_ids, to)
    with pytest.raises(MiningError, match="cannot be made"):
        night.clip([scene], "file/x.mp4")
    assert export_clip.run(night.store, night.config, [scene, scene], night.folder / "once.mp4")[0].frames


def test_the_command_says_what_it_wrote_and_ends_in_1_where_footage_is_gone(night: Night) -> None:
    path = night.add("a")
    (scene,) = night.mine((0.0, 1.0))
    command = [
        sys.executable,
        "-c",
        "from mining.cli import main; main()",
        "clip",
        scene,
        "-c",
        "night.toml",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=night.folder, check=False)
    (told,) = json.loads(done.stdout)
    assert (done.returncode, told["frames"], told["error"]) == (0, 50, None)
    assert len(watch(night.folder / told["path"])[0]) == 50
    path.unlink()
    done = subprocess.run(command, capture_output=True, text=True, cwd=night.folder, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a.mp4: gone" in done.stderr
