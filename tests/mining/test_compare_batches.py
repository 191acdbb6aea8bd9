"""Two batches are compared, and a person can read how their settings differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mining import select_batch
from mining.committee import Committee
from mining.compare import batches
from mining.config import Config
from mining.store import Store
from mining.types import UsageError
from tests.mining.synthetic import COMMITTEE, Drive, commit, store_of

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
    monkeypatch.setattr(select_batch, "committee_of", lambda _config: known)


def choose(store: Store, **select: Any) -> str:
    given = {"budget": 4, "random_share": 0.0, "exclude_chosen": False, **select}
    text = json.dumps({"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], "select": given})
    _, batch = select_batch.run(store, Config.model_validate_json(text), ["r0", "r1"])
    assert batch is not None
    return batch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path, Drive("r0", RNG.random(60).tolist()), Drive("r1", RNG.random(60).tolist()))


def test_two_batches_are_compared(store: Store) -> None:
    one, two = choose(store, budget=10), choose(store, budget=12, strategy="top_k")
    found = batches.diff(store, one, two)
    with store.connect() as con:
        rows = con.execute("SELECT batch_id, frame_id FROM selections").fetchall()
    frames = {b: {f for batch, f in rows if batch == b} for b in (one, two)}
    assert found.frames == (10, 12)
    assert found.common == len(frames[one] & frames[two])
    assert set(found.only[0]) == frames[one] - frames[two]
    assert found.settings == {"budget": (10, 12), "strategy": ("k_center", "top_k")}
    assert {m["what"]: (m["first"], m["second"]) for m in found.measures}["arm mined"] == (10, 12)
    assert "  select.budget: 10 -> 12\n" in found.text()
    assert '  select.strategy: "k_center" -> "top_k"\n' in found.text()
    with pytest.raises(UsageError, match="no batch is called 'x'"):
        batches.diff(store, one, "x")


def test_what_settings_hold_is_said_line_by_line(store: Store) -> None:
    night = {"name": "night", "where": "luma_mean < 40"}
    one = choose(
        store,
        quota=[{**night, "min_share": 0.1}, {"by": "vehicle_id", "max": 3}],
        like=[],
        cost={"per_frame": 2},
    )
    two = choose(
        store,
        quota=[{"name": "rain", "where": "tags['weather'] = 'rain'", "min": 2}, {**night, "min_share": 0.25}],
        cost={"limit": 500, "per_frame": 2},
        same_moment_once=False,
    )
    lines = [line.strip() for line in batches.diff(store, one, two).text().splitlines() if "select." in line]
    assert lines == [
        "select.cost.limit: none -> 500",
        "select.quota night.min_share: 0.1 -> 0.25",
        'select.quota vehicle_id: taken out (by = "vehicle_id", max = 3)',
        "select.quota rain: new (where = \"tags['weather'] = 'rain'\", min = 2)",
        "select.same_moment_once: true -> false",
    ]
    assert not any("{" in line for line in lines)


def test_batches_of_two_committees_say_that_hardness_does_not_compare(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = choose(store)
    for drive in ("r0", "r1"):
        commit(store, Drive(drive, RNG.random(60).tolist(), committee_id="new-11111111"))
    known = Committee("new-11111111", ("a", "b"), ("car",), (0.25, 0.25))
    monkeypatch.setattr(select_batch, "committee_of", lambda _config: known)
    found = batches.diff(store, one, choose(store))
    assert found.committees == (COMMITTEE, "new-11111111")
    assert f"see `mining compare {COMMITTEE} new-11111111`" in found.text()


def test_quotas_in_another_order_are_a_difference(store: Store) -> None:
    """Floors are filled in order of what is scarce, and equals in the order of the config."""
    quotas = [{"by": "vehicle_id", "max": 3}, {"by": "camera", "max": 100}]
    one, two = choose(store, budget=50, quota=quotas), choose(store, budget=50, quota=quotas[::-1])
    assert "  select.quota: in another order\n" in batches.diff(store, one, two).text()
