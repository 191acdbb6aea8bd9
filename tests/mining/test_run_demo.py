"""``mining demo``, whole: what `make demo` runs."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from mining.run_demo import run_demo
from mining.types import UsageError


@pytest.mark.slow
def test_the_demo_makes_a_batch_that_beats_a_random_one(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    first = run_demo(folder, seed=7)
    assert first.batch_frames == 60
    assert sum(first.planted.values()) >= 3
    # The claim that the demo prints; the drives are the same every time, so this is no matter of luck.
    assert sum(first.caught.values()) >= first.events_expected_at_random
    assert first.frames_caught > first.frames_expected_at_random
    batch = Path(first.night.batch_folder or "")
    assert len(list((batch / "images").iterdir())) == 60
    assert len((batch / "frames.jsonl").read_text().splitlines()) == 60
    assert "mining sql" in first.text()
    assert json.dumps(first.as_dict(), default=str)

    # The tables are plain Parquet: another DuckDB reads them without mining.
    glob = str(first.store_path / "tables" / "scores" / "*" / "*.parquet")
    assert (
        duckdb.sql(f"SELECT count(*) FROM read_parquet('{glob}', hive_partitioning = true)").fetchall()[0][0]
        > 500
    )

    again = run_demo(folder, seed=7)
    assert again.night.nothing_to_do
    assert (again.night.batch_id, again.caught) == (first.night.batch_id, first.caught)


@pytest.mark.parametrize("name", ["thesis.txt", "drives/precious.mp4"])
def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    precious = tmp_path / name
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("years of work")
    with pytest.raises(UsageError, match="not empty and not a demo"):
        run_demo(tmp_path, seed=7)
    assert precious.read_text() == "years of work"
