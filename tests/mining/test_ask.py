"""Queries from people read the store, and nothing but the store."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mining import ask
from mining.store import Store
from mining.types import UsageError
from tests.mining.synthetic import Drive, store_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path, Drive("r1", [0.1, 0.9], tags=(("city", "=cmd()"),)), Drive("r2", [0.5]))


def test_answers_over_the_views(store: Store) -> None:
    table = ask.query(
        store.root, "SELECT frame_id, hardness FROM mined WHERE tags['city'] IS NOT NULL ORDER BY hardness"
    )
    assert table["frame_id"].to_pylist() == ["r1-0000000", "r1-0000001"]
    assert ask.query(store.root, "EXPLAIN SELECT 1").num_rows == 1
    assert "hardness" in ask.query(store.root, "DESCRIBE mined")["column_name"].to_pylist()


@pytest.mark.parametrize(
    "text",
    [
        "DROP VIEW mined",
        "CREATE TABLE x (i INT)",
        "COPY (SELECT 1) TO '{store}/tables/x.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "ATTACH 'x.db'",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM text",
        "",
        "SELEKT 1",
        "SELECT no_such_column FROM mined",
    ],
)
def test_whatever_writes_or_leaves_the_store_is_refused_in_words(
    store: Store, tmp_path: Path, text: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    with pytest.raises(UsageError) as caught:
        ask.query(store.root, text.format(store=store.root, secret=secret))
    assert "hunter2" not in str(caught.value)
    assert not (store.root / "tables" / "x.csv").exists()


def test_every_format_gives_the_same_rows(store: Store, tmp_path: Path) -> None:
    table = ask.query(store.root, "SELECT frame_id, hardness, tags, captured_at FROM mined ORDER BY frame_id")
    for output_format in ("csv", "json", "parquet", "table"):
        ask.write(table, output_format, tmp_path / output_format)
    rows = json.loads((tmp_path / "json").read_text())
    assert [row["frame_id"] for row in rows] == table["frame_id"].to_pylist()
    assert rows[0]["tags"] == {"city": "=cmd()"}
    assert rows[2]["tags"] == {}
    read = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert [float(row["hardness"]) for row in read] == pytest.approx(table["hardness"].to_pylist())
    assert pq.read_table(tmp_path / "parquet").equals(table)
    assert "r1-0000001" in (tmp_path / "table").read_text()


def test_the_screen_gets_no_escape_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1], camera="\x1b[31mred"))
    ask.write(ask.query(store.root, "SELECT camera FROM mined"), "table", None)
    shown = capsys.readouterr().out
    assert "red" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("output_format", ["csv", "json", "parquet"])
def test_spans_of_time_are_written_as_text(store: Store, tmp_path: Path, output_format: str) -> None:
    table = ask.query(store.root, "SELECT max(captured_at) - min(captured_at) AS span FROM mined")
    ask.write(table, output_format, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size > 0
