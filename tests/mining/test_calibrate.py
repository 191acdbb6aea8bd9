"""Calibrating, scoring and following over time, on a store whose detections are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mining import calibrate, score_frames
from mining.committee import Committee
from mining.config import Config, FootageConfig
from mining.store import Store
from mining.types import MiningError, UsageError
from tests.mining.detected import FIRST, KNOWN, SECOND, add_drive, steady


@pytest.fixture(autouse=True)
def known_committee(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calibrate, score_frames):
        monkeypatch.setattr(module, "committee_of", lambda _config: KNOWN)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    from detectors.types import DetectorSpec

    return Config(
        footage=FootageConfig(paths=["drives"]), detector=[DetectorSpec("a.pt")], folder=str(tmp_path)
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", create=True)
    add_drive(store, "quiet", FIRST, steady([0, 1, 1, 2, 1, 0]))
    add_drive(store, "busy", SECOND, steady([5, 6, 7, 8, 9]))
    return store


def rows(store: Store, sql: str) -> list[Any]:
    with store.connect() as con:
        return con.execute(sql).fetchall()


def test_percentiles_are_taken_against_the_chosen_drives(store: Store, config: Config) -> None:
    score_frames.run(store, config, ["quiet", "busy"])
    (first,) = {r[0] for r in rows(store, "SELECT DISTINCT reference_id FROM scores")}
    report = calibrate.run(store, config, nights="2026-03-02")
    assert (report.replaced, report.due) == (first, 2)
    assert (report.recordings, report.drives, report.frames, report.nights) == (
        1, 1, 5, ("2026-03-02", "2026-03-02"),
    )  # fmt: skip
    moved = next(c for c in report.changes if c.signal == "box_count")
    assert (moved.median_before, moved.median_after) == (np.median([0, 1, 1, 2, 1, 0, 5, 6, 7, 8, 9]), 7.0)
    assert f"It replaces {first}" in report.text()
    assert "2 recordings are due to be scored again" in report.text()
    assert [line.split()[0] for line in report.text().splitlines()[3:-2]] == [
        c.signal for c in report.changes if c.signal in config.score.hardness
    ]

    again = score_frames.run(store, config, ["quiet", "busy"])
    assert (again.done, again.unchanged) == (2, 0)
    scored = rows(store, "SELECT recording_id, box_count, box_count_pct, reference_id FROM scores")
    assert {r[3] for r in scored} == {report.reference_id} != {first}
    reference = np.array([5, 6, 7, 8, 9])
    for _, count, percentile, _ in scored:
        expected = ((reference < count).sum() + (reference <= count).sum()) / 10
        assert percentile == pytest.approx(expected)
    assert score_frames.run(store, config, ["quiet", "busy"]).done == 0


def test_the_same_choice_changes_nothing(store: Store, config: Config) -> None:
    calibrate.run(store, config, drives=["drive-quiet"])
    score_frames.run(store, config, ["quiet", "busy"])
    report = calibrate.run(store, config, nights="2026-02-01..2026-03-01")
    assert report.replaced == report.reference_id
    assert report.due == 0
    assert "nothing changes" in report.text()
    assert score_frames.run(store, config, ["quiet", "busy"]).done == 0


@pytest.mark.parametrize(
    ("nights", "drives", "message"),
    [
        ("last week", (), r"--nights last week: write it as 2026-03-01 or 2026-03-01\.\.2026-03-14"),
        ("2026-02-30", (), "--nights 2026-02-30: write it as"),
        ("2026-03-02..2026-03-01", (), "ends before it begins"),
        ("2025-01-01", (), "holds no recording of these nights and drives"),
        (None, ("drive-quite",), "--drive drive-quite: no such drive"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_one_line(
    store: Store, config: Config, nights: str | None, drives: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        calibrate.run(store, config, nights, drives)
    assert "\n" not in str(caught.value)


def test_a_committee_that_has_not_run_is_said(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Committee("c-11111111", ("a", "b"), ("car", "bus"), (0.25, 0.25))
    monkeypatch.setattr(calibrate, "committee_of", lambda _config: other)
    with pytest.raises(UsageError, match="c-11111111 has not run on any of these 2 recordings"):
        calibrate.run(store, config)


def test_drives_that_say_nothing_of_hardness_are_no_reference(store: Store, config: Config) -> None:
    add_drive(store, "torn", SECOND, steady([0, 0]), pictures=[None, None])
    kept = calibrate.run(store, config, drives=["drive-quiet"])
    with pytest.raises(UsageError, match=r"^none of the 2 frames has a value of committee_errors") as caught:
        calibrate.run(store, config, drives=["drive-torn"])
    assert "\n" not in str(caught.value)
    assert calibrate.run(store, config, drives=["drive-quiet"]).replaced == kept.reference_id


def test_what_is_due_is_said_again_until_it_is_scored(store: Store, config: Config) -> None:
    score_frames.run(store, config, ["quiet", "busy"])
    calibrate.run(store, config, nights="2026-03-02")
    again = calibrate.run(store, config, nights="2026-03-02")
    assert again.replaced == again.reference_id
    assert again.text().endswith("2 recordings are due to be scored again: `mining score` does it.")


def test_a_committee_that_shares_no_class_has_a_reference_all_the_same(
    tmp_path: Path, config: Config
) -> None:
    store = Store(tmp_path / "s", create=True)
    boxes = {"a": steady([1, 2, 3])["a"], "b": steady([0, 0, 0])["b"]}
    add_drive(store, "r", FIRST, boxes, sees={"a": [True, False], "b": [False, True]})
    assert score_frames.run(store, config, ["r"]).problems == []
    assert rows(store, "SELECT DISTINCT presence_sum, class_disagreement_sum FROM scores") == [(None, None)]
    assert score_frames.run(store, config, ["r"]).done == 0
    calibrate.run(store, config)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def change_a_number(file: Path) -> None:
    table = pq.read_table(file, partitioning=None)
    numbers = pa.array([[9.0, None, 1.0]], table.schema.field("box_count").type)
    pq.write_table(table.set_column(0, table.schema.field("box_count"), numbers), file)


def lose_a_signal(file: Path) -> None:
    table = pq.read_table(file, partitioning=None)
    numbers = pa.array([None], table.schema.field("box_count").type)
    pq.write_table(table.set_column(0, table.schema.field("box_count"), numbers), file)


@pytest.mark.parametrize("damage", [shorten, change_a_number, lose_a_signal])
def test_a_damaged_reference_names_the_cure_and_is_cured_by_it(
    store: Store, config: Config, damage: Callable[[Path], None]
) -> None:
    score_frames.run(store, config, ["quiet", "busy"])
    (file,) = (store.root / "reference").iterdir()
    damage(file)
    with pytest.raises(MiningError, match="make it anew with `mining calibrate --config"):
        score_frames.run(store, config, ["quiet", "busy"])
    assert calibrate.run(store, config).replaced is None
    assert score_frames.run(store, config, ["quiet", "busy"]).problems == []


# -- what queries ask of scores first ----------------------------------------------------------------------------------


def test_classes_are_those_that_any_member_sees_at_its_threshold(tmp_path: Path, config: Config) -> None:
    store = Store(tmp_path / "s", create=True)
    boxes = {
        "a": [[], [(0.0, 0.9, "car"), (90.0, 0.2, "bus")], [(0.0, 0.25, "bus")], [], []],
        "b": [[(0.0, 0.24, "car")], [(0.0, 0.8, "car")], [(0.0, 0.3, "car"), (90.0, 0.3, "car")], [], []],
    }
    add_drive(store, "r", FIRST, boxes, pictures=[1, 2, 4, 8, None])
    score_frames.run(store, config, ["r"])
    found = rows(store, "SELECT classes, drive_id FROM scores ORDER BY frame_id")
    assert [f[0] for f in found] == ["", "car", "bus,car", "", None]
    assert {f[1] for f in found} == {"drive-r"}


def test_night_is_told_by_the_sun_and_by_luma_only_without_a_position(tmp_path: Path, config: Config) -> None:
    store = Store(tmp_path / "s", create=True)
    noon, midnight = (datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in (11, 23))
    for name, start, position, luma in (
        ("tunnel", noon, (59.9, 10.7), 10.0),
        ("lamps", midnight, (59.9, 10.7), 120.0),
        ("dark", noon, None, 10.0),
        ("light", midnight, None, 120.0),
    ):
        add_drive(store, name, FIRST, steady([1]), start=start, position_deg=position, luma=luma)
    add_drive(store, "torn", FIRST, steady([0]), pictures=[None])
    names = ["tunnel", "lamps", "dark", "light", "torn"]
    score_frames.run(store, config, names)
    found = {r[0]: r[1:] for r in rows(store, "SELECT recording_id, is_night, sun_elevation_deg FROM scores")}
    assert {name: night for name, (night, _) in found.items()} == {
        "tunnel": False, "lamps": True, "dark": True, "light": False, "torn": None,
    }  # fmt: skip
    # By astral 3.2, without refraction.
    assert [found[name][1] for name in names] == [
        pytest.approx(22.355, abs=0.03), pytest.approx(-37.105, abs=0.03), None, None, None,
    ]  # fmt: skip

    # A corrected clock is a new row in the index, and the scores follow.
    add_drive(store, "tunnel", FIRST, steady([1]), start=midnight, position_deg=(59.9, 10.7), luma=10.0)
    assert score_frames.run(store, config, names).done == 1
    assert rows(store, "SELECT is_night FROM scores WHERE recording_id = 'tunnel'") == [(True,)]


# -- over time, through the tables -------------------------------------------------------------------------------------


def test_tracks_and_signals_of_time_reach_the_tables(tmp_path: Path, config: Config) -> None:
    """A car that a misses in frame 4; b sees it all along, and a bus from frame 6 on."""
    store = Store(tmp_path / "s", create=True)
    car = [[(100.0 + 3 * t, 0.8, "car")] for t in range(9)]
    bus = [[(400.0, 0.7, "bus")] if t >= 6 else [] for t in range(9)]
    add_drive(
        store,
        "r",
        FIRST,
        {"a": [*car[:4], [], *car[5:]], "b": [c + b for c, b in zip(car, bus, strict=True)]},
    )
    score_frames.run(store, config, ["r"])
    flicker = rows(store, "SELECT flicker, dips FROM scores ORDER BY frame_id")
    assert [f for f, _ in flicker] == [None, 0, 0, 0, 1, 0, 0, 0, None]
    assert [d for _, d in flicker] == [None, 0, 0, 0, 0, 0, 0, 0, None]
    tracks = rows(
        store,
        "SELECT detector, class, count(*), count(DISTINCT track_id), any_value(track_id) FROM tracks "
        "JOIN detections USING (frame_id, committee_id, detector, box_index) GROUP BY ALL ORDER BY ALL",
    )
    assert [t[:4] for t in tracks] == [("a", "car", 8, 1), ("b", "bus", 3, 1), ("b", "car", 9, 1)]
    assert len({t[4] for t in tracks}) == 3  # no number stands for two objects, of whatever detector


def test_frames_of_one_time_are_scored_and_only_the_first_is_followed(tmp_path: Path, config: Config) -> None:
    """Thirty frames a second on a clock of tenths: three frames have one time."""
    store = Store(tmp_path / "s", create=True)
    car = [[(100.0, 0.8, "car")] for _ in range(15)]
    add_drive(store, "r", FIRST, {"a": [*car[:6], [], *car[7:]], "b": car}, rate_hz=30, tick_ns=10**8)
    score_frames.run(store, config, ["r"])
    found = rows(store, "SELECT flicker, box_count FROM scores ORDER BY frame_id")
    assert [f[0] for f in found[::3]] == [None, 0, 1, 0, None]
    assert {f[0] for i, f in enumerate(found) if i % 3} == {None}
    assert [f[1] for f in found] == [1] * 6 + [0] + [1] * 8
    tracked = rows(store, "SELECT count(*), count(DISTINCT track_id) FROM tracks WHERE detector = 'b'")
    assert tracked == [(5, 1)]


def test_at_two_frames_a_second_flicker_is_unknown(tmp_path: Path, config: Config) -> None:
    store = Store(tmp_path / "s", create=True)
    car = [[(100.0, 0.8, "car")] for _ in range(9)]
    add_drive(store, "r", FIRST, {"a": [*car[:4], [], *car[5:]], "b": car}, rate_hz=2.0)
    score_frames.run(store, config, ["r"])
    found = rows(store, "SELECT flicker, dips, flicker_pct, count_change FROM scores ORDER BY frame_id")
    assert {f[:3] for f in found} == {(None, None, None)}
    assert [f[3] for f in found[3:6]] == pytest.approx([0, 1 / np.sqrt(2), 0])


def test_repeats_take_the_value_of_what_they_repeat_and_cuts_part_neighbours(
    tmp_path: Path, config: Config
) -> None:
    store = Store(tmp_path / "s", create=True)
    other = (1 << 40) - 1  # 40 bits, another histogram bin: a cut
    pictures = [0, 0, 16, 48, None, 112, other, other ^ 16]
    counts = [1, 1, 4, 1, 0, 1, 2, 2]
    add_drive(store, "r", FIRST, steady(counts), pictures=pictures)
    score_frames.run(store, config, ["r"])
    found = rows(
        store, "SELECT repeats_previous, scene_cut, count_change, status FROM scores ORDER BY frame_id"
    )
    assert [f[0] for f in found] == [False, True, False, False, None, False, False, False]
    assert [f[1] for f in found] == [False, False, False, False, None, False, True, False]
    # Looked at: 0, 2, 3, 5 | 6, 7. Frame 2 stands between 0 and 3, 5; frame 3 between 0, 2 and 5.
    expected = [None, None, 3 / np.sqrt(2), 0, None, None, None, None]
    for got, wanted in zip([f[2] for f in found], expected, strict=True):
        assert got == (None if wanted is None else pytest.approx(wanted))
    untracked = rows(
        store,
        "SELECT DISTINCT frame_index FROM detections JOIN frames USING (frame_id) "
        "ANTI JOIN tracks USING (frame_id, detector, box_index) ORDER BY ALL",
    )
    assert [r[0] for r in untracked] == [1]
