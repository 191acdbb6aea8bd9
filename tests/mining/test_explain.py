"""Every frame has a story, and it is the true one: what it asks for, when given, brings the frame in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mining import explain, select_batch
from mining.committee import Committee
from mining.config import Config
from mining.store import Store
from mining.types import UsageError, frame_id
from tests.mining.synthetic import (
    COMMITTEE,
    DIMENSIONS,
    NIGHT,
    Drive,
    commit,
    footage_of_a_drive,
    store_of,
    table,
)

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
    for module in (select_batch, explain):
        monkeypatch.setattr(module, "committee_of", lambda _config: known)


def config(**select: Any) -> Config:
    return Config.model_validate_json(
        json.dumps(
            {
                "footage": {"paths": ["x"]},
                "detector": [{"weights": "a.pt"}],
                "select": {"budget": 4, "random_share": 0.0, **select},
            }
        )
    )


def choose(store: Store, conf: Config, *recordings: str) -> str:
    _, batch = select_batch.run(store, conf, recordings or [f"r{i}" for i in range(9)])
    assert batch is not None
    return batch


def told(store: Store, conf: Config, recording: str, index: int, batch: str | None = None) -> str:
    return explain.explain(store, conf, frame_id(recording, index), batch).text()


def test_a_chosen_frame_tells_rank_and_reason(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.1, 0.95, 0.1], tags=(("city", "Oslo"),)))
    batch = choose(store, config(budget=1))
    story = explain.explain(store, config(), frame_id("r0", 1))
    assert story.chosen
    assert story.batch_id == batch
    text = story.text()
    for words in ("/r0.mp4", "city: Oslo", "2026-03-14 00:00:01", "rank 1 of the mined arm", "hardness 0.95",
                  "presence_sum", "50 %", f"chosen for {batch}"):  # fmt: skip
        assert words in text
    assert json.loads(json.dumps(story.as_dict(), default=str))["signals"][0]["signal"] == "committee_errors"


def test_each_thing_that_keeps_a_frame_out_is_named(tmp_path: Path) -> None:
    same = RNG.normal(size=DIMENSIONS)
    store = store_of(
        tmp_path,
        Drive("r0", [0.9, 0.8, *[0.1] * 8], tags=(("city", "Oslo"),), hashes=[7, *range(100, 109)],
              embeddings=[same, *RNG.normal(size=(9, DIMENSIONS))]),
        Drive("r1", [0.7, *[0.2] * 9], hashes=[7, *range(2**40, 2**40 + 9)],
              embeddings=[same, *RNG.normal(size=(9, DIMENSIONS))]),
        Drive("r2", [0.6, *[0.6] * 9], drive_id="r2"),
    )  # fmt: skip
    conf = config(
        budget=3, where="hardness > 0.15 AND frame_index < 9", strategy="top_k", pool_factor=1.0,
        quota=[{"name": "drive", "by": "drive_id", "max": 2}],
    )  # fmt: skip
    choose(store, conf)
    assert "1.00 s from the chosen frame r0-0000000" in told(store, conf, "r0", 1)
    assert "at most 1" in told(store, conf, "r0", 1)
    assert "does not fulfil select.where" in told(store, conf, "r0", 5)
    assert "same picture as the chosen frame r0-0000000" in told(store, conf, "r1", 0)
    assert "the slice drive = r2 was full with 2 frames" in told(store, conf, "r2", 7)
    assert "hardness is 0.2, below the pool" in told(store, conf, "r1", 8)
    with pytest.raises(UsageError, match="no frame is called 'nope'"):
        explain.explain(store, conf, "nope")
    with pytest.raises(UsageError, match="no batch is called"):
        explain.explain(store, conf, frame_id("r0", 0), "2026-01-01-abcdef")


def test_footage_that_was_uploaded_twice_is_named(tmp_path: Path) -> None:
    seen = footage_of_a_drive(5, 60)
    store = store_of(
        tmp_path,
        Drive("r0", [0.9] * 60, embeddings=seen),
        Drive("r1", [0.8] * 60, embeddings=seen + 0.3 * RNG.standard_normal(DIMENSIONS)),
    )
    conf = config(budget=60, min_gap_s=1.0, pool_factor=10.0)
    choose(store, conf, "r0", "r1")
    assert "shows the same moment as the chosen frame r0-00000" in told(store, conf, "r1", 30)
    commit(store, Drive("r2", [0.8] * 60, embeddings=seen - 0.3 * RNG.standard_normal(DIMENSIONS)))
    commit(store, Drive("r3", [0.1] * 60, embeddings=footage_of_a_drive(6, 60)))
    choose(store, conf, "r2", "r3")
    assert "an earlier batch holds its moment" in told(store, conf, "r2", 30)


def test_a_frame_beside_one_that_is_less_hard_is_not_told_to_be_harder(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.1, 0.9] * 15))
    conf = config(budget=1, min_gap_s=2.0, random_share=1.0)
    batch = choose(store, conf)
    with store.connect() as con:
        [(name,)] = con.execute("SELECT frame_id FROM selections").fetchall()
    beside = int(name[-7:]) + (1 if name[-7:] == "0000000" else -1)
    text = told(store, conf, "r0", beside, batch)
    assert "drawn at random): it would have needed select.min_gap_s of at most 1" in text
    assert "the random arm used up the budget" in told(store, conf, "r0", (int(name[-7:]) + 10) % 30, batch)
    floor = config(budget=2, min_gap_s=2.0, quota=[{"name": "easy", "where": "hardness < 0.5", "min": 2}],
                   exclude_chosen=False)  # fmt: skip
    batch = choose(store, floor)
    with store.connect() as con:
        found = con.execute("SELECT frame_id FROM selections WHERE batch_id = ?", [batch]).fetchall()
    easy = int(found[0][0][-7:])
    assert "chosen for the slice easy" in told(store, floor, "r0", easy + (1 if easy == 0 else -1), batch)


def test_the_limit_of_cost_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", RNG.random(40).tolist()))
    conf = config(budget=9, min_gap_s=0.0, cost={"limit": 5, "per_frame": 2.0})
    batch = choose(store, conf)
    with store.connect() as con:
        chosen = {name for (name,) in con.execute("SELECT frame_id FROM selections").fetchall()}
    left = next(i for i in range(40) if frame_id("r0", i) not in chosen)
    assert "ended at select.cost.limit = 5" in told(store, conf, "r0", left, batch)


def test_a_frame_that_the_first_detector_did_not_see_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.9] * 5))
    file = store.table_file("observations", NIGHT, "r0")
    rows = pq.read_table(file, partitioning=None).to_pylist()
    rows[3].update(embedding=None, perceptual_hash=None, status="failed", error="a: out of memory")
    pq.write_table(table("observations", rows), file)
    batch = choose(store, config(budget=1))
    assert "first detector, a, did not see it: a: out of memory" in told(store, config(), "r0", 3, batch)


def test_a_batch_over_two_stores_is_explained_without_naming_them_again(tmp_path: Path) -> None:
    here = store_of(tmp_path / "here", Drive("r0", [0.2] * 5))
    there = store_of(tmp_path / "there", Drive("r1", [0.9] * 5))
    batch = choose(here, config(budget=1, other_stores=[str(there.root)]), "r0")
    assert "rank 1 of the mined arm" in told(here, config(), "r1", 0, batch) + told(
        here, config(), "r1", 1, batch
    )


def test_what_a_frame_would_have_needed_brings_it_in(tmp_path: Path) -> None:
    """Take the gap, then the pool, that the story names: the frame is chosen."""
    store = store_of(tmp_path, Drive("r0", [0.9, 0.1, 0.8, *[0.05] * 5]), Drive("r1", [0.5] * 8))
    first = config(budget=2, strategy="top_k", pool_factor=1.0, exclude_chosen=False)
    choose(store, first)
    assert "select.min_gap_s of at most 2" in told(store, first, "r0", 2)
    wider = config(budget=2, strategy="top_k", pool_factor=1.0, exclude_chosen=False, min_gap_s=2.0)
    choose(store, wider)
    assert "rank 2 of the mined arm" in told(store, wider, "r0", 2)


def test_k_center_says_the_value_that_was_missing(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", RNG.uniform(0.5, 1, 40).tolist()))
    conf = config(budget=5, min_gap_s=0.0, pool_factor=100.0)
    batch = choose(store, conf)
    with store.connect() as con:
        chosen = {f for (f,) in con.execute("SELECT frame_id FROM selections").fetchall()}
    left = next(i for i in range(40) if frame_id("r0", i) not in chosen)
    text = told(store, conf, "r0", left, batch)
    assert "hardness x distance is" in text
    value, last = (
        float(text.split(words)[1].split()[0].rstrip(";:")) for words in ("x distance is ", "last pick had ")
    )
    assert value <= last


def test_an_earlier_batch_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.9, 0.8, *[0.1] * 8]))
    first = choose(store, config(budget=1))
    commit(store, Drive("r1", [0.5] * 5))
    second = choose(store, config(budget=1))
    assert f"lies 1.00 s from frame r0-0000000 of the earlier batch {first}" in told(
        store, config(), "r0", 1, second
    )
    assert f"it is frame r0-0000000 of the earlier batch {first}" in told(store, config(), "r0", 0, second)
    assert "was not among those" in told(store, config(), "r1", 2, first)


def test_a_labelled_frame_says_so_and_so_does_its_neighbour(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.5]))
    at = datetime(2026, 3, 20, 8, 30, tzinfo=UTC)
    rows = [{"batch_id": "b", "frame_id": frame_id("r0", 0), "import_id": "i1", "is_truth": True, "imported_at": at,
             "label_index": n, "class": "car"} for n in range(2)]  # fmt: skip
    names = ("labels", "overlooked", "label_rejects", "annotators")
    tables = {name: table(name, rows if name == "labels" else []) for name in names}
    store.commit("import", NIGHT, "i1", tables, digest="x", delivery="x", imported_at=at.isoformat())
    choose(store, config())
    itself, neighbour = told(store, config(), "r0", 0), told(store, config(), "r0", 1)
    assert "labelled in b: 2 boxes (import i1, 2026-03-20 08:30)" in itself
    assert "it is labelled (batch b; select.exclude_labelled)" in itself
    assert f"it lies 1.00 s from frame {frame_id('r0', 0)}, which is labelled (batch b" in neighbour
    # Labels of after the choice did not keep a frame out of it.
    rows[0]["frame_id"] = frame_id("r0", 5)
    store.commit("import", NIGHT, "i2", {**tables, "labels": table("labels", [{**rows[0], "import_id": "i2"}])},
                 digest="x", delivery="x", imported_at=at.isoformat())  # fmt: skip
    assert "exclude_labelled" not in told(store, config(), "r0", 5)
