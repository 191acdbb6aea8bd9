"""The numbers of a page are those of the store, counted here another way; its pictures are those of the footage."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mining.report import data, page, pictures, write
from mining.types import UsageError
from tests.mining.footage_clips import HEIGHT_PX, WIDTH_PX, picture
from tests.mining.report_night import (
    BATCH,
    COMMITTEE,
    DRIVES,
    HOSTILE,
    NIGHT,
    SLICE,
    VIDEO_HZ,
    Night,
    box_px,
    config_at,
    know_committee,
    make,
    name,
    objects,
    threshold,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """One store for all tests that only read it."""
    return make(tmp_path_factory.mktemp("night"))


@pytest.fixture
def night(made: Night, monkeypatch: pytest.MonkeyPatch) -> Night:
    know_committee(monkeypatch)
    return made


def told(night: Night, frame: str) -> dict[str, Any]:
    return next(one for one in night.frames if one["frame_id"] == frame)


def test_cards_are_the_batch_in_its_order(night: Night) -> None:
    page_data = data.collect(night.store, night.config, batch_id=BATCH)
    cards = page_data["frames"]
    assert [card["frame_id"] for card in cards] == night.chosen
    assert [card["arm"] for card in cards] == ["mined"] * 7 + ["random"] * 2
    assert [card["slice"] for card in cards] == [SLICE if i % 3 == 0 else None for i in range(9)]
    for card in cards:
        known = told(night, card["frame_id"])
        assert card["drive_id"] == known["drive_id"]
        assert card["hardness"] == pytest.approx(known["hardness"], abs=1e-3)
        assert card["classes"] == known["classes"]
        assert card["captured_at"] == known["captured_at"].isoformat(timespec="milliseconds").replace(
            "+00:00", "Z"
        )
        assert card["tags"] == {"city": HOSTILE}
        assert card["percentiles"]["entropy_max"] == pytest.approx(known["entropy_max_pct"], abs=1e-3)
        assert card["signals"]["margin_max"] is None
    assert json.loads(json.dumps(page_data, allow_nan=False)) == page_data


def test_boxes_are_those_at_the_threshold_and_disputed_ones_are_marked(night: Night) -> None:
    for card in data.collect(night.store, night.config, batch_id=BATCH)["frames"]:
        known = told(night, card["frame_id"])
        place = known["drive"], known["second"]
        expected = {
            (detector, match): (kind, disputed, box_px(*place, match, detector))
            for match, detector, kind, confidence, disputed in objects(*place)
            if confidence >= threshold(detector)
        }
        found = {
            (box["detector"], box["match_id"]): (box["class"], box["disagrees"], box["box"])
            for box in card["boxes"]
        }
        assert found == expected
        assert card["disagreements"] == len(
            {match for (_, match), (_, disputed, _) in expected.items() if disputed}
        )


def test_neighbours_are_the_nearest_of_the_drive(night: Night) -> None:
    card = data.collect(night.store, night.config, batch_id=BATCH)["frames"][0]
    assert card["frame_id"] == name(0, 2)
    seconds = [0, 1, 3, 4, 5, 6]  # four on each side, as far as there are
    assert [near["frame_id"] for near in card["neighbours"]] == [name(0, second) for second in seconds]
    assert [near["dt_s"] for near in card["neighbours"]] == [second - 2 for second in seconds]
    assert [near["hardness"] for near in card["neighbours"]] == pytest.approx(
        [told(night, name(0, second))["hardness"] for second in seconds], abs=1e-3
    )


def test_charts_count_the_pool_and_the_batch(night: Night) -> None:
    charts = data.collect(night.store, night.config, batch_id=BATCH)["charts"]
    hardness = np.array([frame["hardness"] for frame in night.frames])
    mined = np.array([told(night, frame)["hardness"] for frame in night.chosen[:7]])
    assert charts["hardness"]["pool"] == np.histogram(hardness, 25, (0, 1))[0].tolist()
    assert charts["hardness"]["mined"] == np.histogram(mined, 25, (0, 1))[0].tolist()
    assert sum(charts["hardness"]["random"]) == 2
    entropy = next(signal for signal in charts["signals"] if signal["name"] == "entropy_max")
    percentiles = np.array([frame["entropy_max_pct"] for frame in night.frames])
    assert entropy["pool"] == np.histogram(percentiles, 20, (0, 1))[0].tolist()
    assert [signal["name"] for signal in charts["signals"]] == [
        "committee_errors",
        "entropy_max",
    ]  # blended ones first
    assert sum(charts["hours"]["pool"]) == 24
    assert charts["hours"]["pool"][22] == 24
    for row in charts["classes"]:
        assert row["pool"] == sum(row["class"] in frame["classes"] for frame in night.frames)
        assert row["batch"] == sum(row["class"] in told(night, frame)["classes"] for frame in night.chosen)
    assert [row["slice"] for row in charts["slices"]] == ["rain", SLICE]
    assert len(charts["map"]["pool"]) == charts["map"]["pool_frames"] == 24
    assert [point[2] for point in charts["map"]["chosen"]] == list(range(9))
    assert {drive["drive_id"] for drive in charts["drives"]} == set(DRIVES)
    first = next(drive for drive in charts["drives"] if drive["drive_id"] == DRIVES[0])
    assert first["at_s"] == list(range(12))
    assert first["hardness"] == pytest.approx([frame["hardness"] for frame in night.frames[:12]], abs=1e-3)


def test_the_embedding_plane_is_the_one_of_svd(night: Night) -> None:
    points = data.collect(night.store, night.config, batch_id=BATCH)["charts"]["embedding"]
    vectors = np.array([frame["embedding"] for frame in night.frames])
    centred = vectors - vectors.mean(axis=0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ directions[:2].T
    order = {frame["frame_id"]: i for i, frame in enumerate(night.frames)}
    for x, y, position in points["chosen"]:
        assert np.abs([x, y]) == pytest.approx(np.abs(plane[order[night.chosen[position]]]), abs=2e-3)
    assert points["explained"] == pytest.approx((spread**2 / (spread**2).sum())[:2], abs=1e-3)


def test_the_summary_says_what_was_recorded_mined_and_failed(night: Night) -> None:
    summary = data.collect(night.store, night.config, batch_id=BATCH)["summary"]
    assert (
        summary["recordings"],
        summary["unreadable"],
        summary["drives"],
        summary["frames"],
        summary["scored"],
    ) == (3, 1, 3, 24, 24)
    assert summary["duration_s"] == 24.0
    assert [(row["status"], row["error"]) for row in summary["failures"]] == [
        ("unreadable", f"broken: {HOSTILE}")
    ]
    assert (summary["batch"]["mined"], summary["batch"]["random"], summary["batch"]["whole"]) == (7, 2, 9)
    assert summary["hardness_mean"]["pool"] == pytest.approx(
        np.mean([f["hardness"] for f in night.frames]), abs=1e-3
    )


def test_a_night_shows_its_part_of_the_batch(night: Night) -> None:
    page_data = data.collect(night.store, night.config, night=NIGHT)
    assert (page_data["night"], page_data["batch_id"]) == (NIGHT.isoformat(), BATCH)
    assert [card["frame_id"] for card in page_data["frames"]] == night.chosen


def test_a_night_without_a_batch_shows_its_hardest_frames_a_moment_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_committee(monkeypatch)
    night = make(tmp_path, batch=False)
    page_data = data.collect(night.store, night.config, night=NIGHT)
    assert (page_data["frames_are"], page_data["batch_id"], page_data["summary"]["batch"]) == (
        "hardest",
        None,
        None,
    )
    shown = [told(night, card["frame_id"]) for card in page_data["frames"]]
    assert [frame["hardness"] for frame in shown] == sorted((f["hardness"] for f in shown), reverse=True)
    hardest = max(night.frames, key=lambda frame: frame["hardness"])
    assert shown[0]["frame_id"] == hardest["frame_id"]
    assert len(shown) == 8  # two drives of 12 s, one frame of each 3 s
    assert "No batch holds a frame of this night" in page.render(page_data)


def test_cards_of_frames_outside_the_batch(night: Night) -> None:
    asked = [name(1, 0), night.chosen[2]]
    found = data.cards(night.store, night.config, BATCH, asked)
    assert [card["frame_id"] for card in found] == asked
    assert (found[0]["arm"], found[0]["rank"], found[0]["reason"]) == (None, None, None)
    assert (found[1]["arm"], found[1]["rank"]) == ("mined", 3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"night": date(2020, 1, 1)}, "holds nothing of the night 2020-01-01; the latest: 2026-03-14"),
        ({"batch_id": "nope"}, "no batch is called 'nope'"),
        ({"night": NIGHT, "batch_id": BATCH}, "not both"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(night: Night, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        data.collect(night.store, night.config, **asked)


def test_a_batch_of_another_committee_is_refused(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    other = type(COMMITTEE)("other-1", COMMITTEE.names, COMMITTEE.classes, COMMITTEE.thresholds)
    monkeypatch.setattr("mining.report.scope.committee_of", lambda _config: other)
    with pytest.raises(UsageError, match="was chosen by committee"):
        data.collect(night.store, night.config, batch_id=BATCH)


# Pictures.


def decoded(webp: bytes | None) -> np.ndarray:
    assert webp is not None
    return np.asarray(cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR_RGB))


def test_pictures_are_those_of_the_footage(night: Night) -> None:
    found = list(pictures.encoded(night.store, night.config, night.chosen, width_px=WIDTH_PX, quality=95))
    assert sorted(frame for frame, _, _ in found) == sorted(night.chosen)
    for frame, webp, error in found:
        assert error is None
        n = told(night, frame)["second"] * VIDEO_HZ
        rgb = decoded(webp)
        off = [np.abs(rgb.astype(int) - picture(m)).mean() for m in (n - 1, n, n + 1)]
        assert off[1] == min(off)
        assert off[1] < 9


def test_pictures_fit_their_width_and_budget(night: Night) -> None:
    for _, webp, _ in pictures.encoded(night.store, night.config, night.chosen[:2], width_px=80):
        assert decoded(webp).shape == (HEIGHT_PX * 80 // WIDTH_PX, 80, 3)
    for _, webp, _ in pictures.encoded(
        night.store, night.config, night.chosen[:2], width_px=WIDTH_PX, budget_bytes=1500
    ):
        assert webp is not None
        assert len(webp) <= 1500


def test_pictures_are_blurred_as_deliveries_are(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Black:
        def __init__(self, _config: Any) -> None: ...

        def hidden(self, rgb: np.ndarray) -> np.ndarray:
            return np.zeros_like(rgb)

    monkeypatch.setattr(pictures, "Blur", Black)
    config = config_at(tmp_path, export={"blur": {"detector": {"weights": "faces.pt"}, "classes": ["face"]}})
    for _, webp, _ in pictures.encoded(night.store, config, night.chosen[:2], width_px=WIDTH_PX):
        assert decoded(webp).max() < 10


def test_footage_that_is_gone_is_an_error_on_the_card_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_committee(monkeypatch)
    night = make(tmp_path, footage=False)
    written = write.run(night.store, night.config, tmp_path / "x.html", batch_id=BATCH)
    assert (written.frames, written.without_picture) == (9, 9)
    assert "gone, or changed since it was indexed" in (tmp_path / "x.html").read_text()


def test_the_page_has_room_for_what_is_promised(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "PAGE_BYTES", 360_000)  # Chart.js and all else take 300 kB
    written = write.run(night.store, night.config, tmp_path / "x.html", batch_id=BATCH)
    assert (tmp_path / "x.html").stat().st_size == written.size_bytes <= 360_000
    assert written.without_picture == 0


def test_a_place_that_cannot_be_written_is_refused_before_the_work(night: Night, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its folder does not exist"):
        write.run(night.store, night.config, tmp_path / "no" / "x.html", batch_id=BATCH)
    with pytest.raises(UsageError, match="is a folder"):
        write.run(night.store, night.config, tmp_path, batch_id=BATCH)
