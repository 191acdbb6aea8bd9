"""Which planted events a batch caught."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mining.demo import caught, rare_events
from mining.demo.truth import SCHEMA
from mining.types import UsageError


def write(folder: Path, stem: str, rows: list[tuple[int, str | None, str | None, float, float]]) -> None:
    table = [
        {"frame_index": i, "class": "animal" if event else "car", "x1_px": 5, "y1_px": 10, "x2_px": 50, "y2_px": 10 + height,
         "visible_fraction": visible, "distance_m": 20, "event": event, "event_id": event_id}
        for i, event, event_id, height, visible in rows
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), folder / f"{stem}.truth.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    deer, crate = ("animal", "d1/animal-0"), ("lost_cargo", "d2/lost_cargo-0")
    write(tmp_path, "d1_front", [
        (3, None, None, 90, 1.0), (4, *deer, 60, 1.0), (4, None, None, 60, 1.0), (5, *deer, 60, 0.9),
        (6, *deer, 5, 1.0), (7, *deer, 60, 0.1),
    ])  # fmt: skip
    write(tmp_path, "d2_rear", [(4, *crate, 30, 0.8), (4, *crate, 30, 0.8), (9, *crate, 30, 0.8)])
    write(tmp_path, "d3_empty", [])
    return tmp_path


def test_rare_events_are_frames_in_which_enough_of_them_shows(folder: Path) -> None:
    assert rare_events(folder) == {
        ("d1_front", 4): "animal",
        ("d1_front", 5): "animal",
        ("d2_rear", 4): "lost_cargo",
        ("d2_rear", 9): "lost_cargo",
    }


def test_caught_names_each_event_with_its_frames(folder: Path) -> None:
    chosen = [
        ("d1_front", 5),
        ("d1_front", 3),
        ("d1_front", 6),
        ("d1_front", 4),
        ("d1_front", 4),
        ("unknown", 4),
    ]
    assert caught(folder, chosen) == {"d1/animal-0": [("d1_front", 4), ("d1_front", 5)]}
    assert caught(folder, []) == {}
    assert set(caught(folder, rare_events(folder))) == {"d1/animal-0", "d2/lost_cargo-0"}


def test_a_folder_without_truth_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"make_drives") as refused:
        rare_events(tmp_path)
    assert "\n" not in str(refused.value)
