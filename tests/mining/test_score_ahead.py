"""Recordings that are scored side by side, in processes, give what one after another gives, in their order."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from mining import score_ahead
from mining.config import ScoreConfig
from mining.isolated import Worker
from mining.score_recording import Learned, Scored, Unit, units_of
from mining.store import Store
from tests.mining.detected import FIRST, KNOWN, SECOND, add_drive, steady

NAMES = [f"drive-{i}" for i in range(7)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store", create=True)
    for i, name in enumerate(NAMES):
        add_drive(store, name, FIRST if i < 4 else SECOND, steady([i, 3, 1, 5 - i % 5]))
    return store


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_ahead, "_WORTH_IT_BOXES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})


def scored(store: Store, units: list[Unit]) -> list[Scored]:
    with score_ahead.scored(store, KNOWN, units, ScoreConfig(), Learned()) as ones:
        return list(ones)


def children() -> int:
    return len(psutil.Process().children())


def assert_same(found: list[Scored], wanted: list[Scored]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.frames.equals(other.frames)
        assert one.tracks.equals(other.tracks)
        assert one.track_count == other.track_count
        np.testing.assert_array_equal(one.looked, other.looked)
        assert one.signals.keys() == other.signals.keys()
        for name, values in one.signals.items():
            np.testing.assert_array_equal(values, other.signals[name], err_msg=name)


def test_few_boxes_are_scored_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(self: Worker) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Worker, "__init__", no_process)
    units = units_of(store, KNOWN, NAMES)
    assert [unit.boxes for unit in units] == [2 * (i + 4 + 5 - i % 5) for i in range(7)]
    assert len(scored(store, units)) == 7


def test_many_are_scored_side_by_side(store: Store, request: pytest.FixtureRequest) -> None:
    units = units_of(store, KNOWN, NAMES)
    wanted = scored(store, units)
    request.getfixturevalue("side_by_side")
    before = children()
    with score_ahead.scored(store, KNOWN, units, ScoreConfig(), Learned()) as ones:
        found = [next(ones)]
        assert children() == before + 3
        found += ones
    assert children() == before
    assert_same(found, wanted)


def test_what_a_crashed_process_had_is_done_here(
    store: Store,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    units = units_of(store, KNOWN, NAMES)
    wanted = scored(store, units)
    request.getfixturevalue("side_by_side")
    real, done = Worker.call, list[int]()

    def call(self: Worker, function: Any, *arguments: Any, timeout_s: float) -> Any:
        done.append(1)
        if len(done) == 3:
            function, arguments = os._exit, (9,)
        return real(self, function, *arguments, timeout_s=timeout_s)

    monkeypatch.setattr(Worker, "call", call)
    assert_same(scored(store, units), wanted)
    [message] = [text for text in caplog.messages if text.startswith("score: ")]
    assert "crashed (exit code 9); once more, here" in message


@pytest.mark.usefixtures("side_by_side")
def test_what_cannot_be_read_is_raised_in_its_turn(store: Store) -> None:
    units = units_of(store, KNOWN, NAMES)
    store.table_file("detections", units[2].night, units[2].shards[0]).unlink()

    found, before = list[Scored](), children()
    with (
        pytest.raises(FileNotFoundError, match=units[2].shards[0]),
        score_ahead.scored(store, KNOWN, units, ScoreConfig(), Learned()) as ones,
    ):
        found += ones
    assert len(found) == 2
    assert children() == before


def test_of_a_part_of_a_table_no_more_is_sent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mining compact` puts shards together; pyarrow would send all that lies beside one."""
    [unit] = units_of(store, KNOWN, NAMES[1:2])
    real = Store.read

    def part(self: Store, table: str, *where: Any) -> pa.Table:
        rows = real(self, table, *where)
        return pa.concat_tables([rows] * 10_000).combine_chunks().slice(len(rows), len(rows))

    one = score_ahead._score(str(store.root), KNOWN, unit, ScoreConfig(), Learned())
    monkeypatch.setattr(Store, "read", part)
    again = score_ahead._score(str(store.root), KNOWN, unit, ScoreConfig(), Learned())
    assert_same([again], [one])
    assert len(pickle.dumps(again, 5)) < 1.1 * len(pickle.dumps(one, 5)) < 50_000
