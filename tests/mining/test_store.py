"""What is committed is seen, wholly; what is not committed is not seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mining.schemas import TABLES
from mining.store import STAGE_TABLES, Store, how_to_write, sql_file
from mining.types import MiningError, UsageError
from tests.mining.synthetic import NIGHT, Drive, commit, store_of, table


def count(store: Store, name: str) -> int:
    with store.connect() as con:
        row = con.execute(f'SELECT count(*) FROM "{name}"').fetchone()
        return row[0] if row else -1


def test_an_empty_store_answers_every_view_with_its_columns(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    with store.connect() as con:
        for name, schema in TABLES.items():
            result = con.sql(f'SELECT * FROM "{name}"').to_arrow_table()
            assert result.num_rows == 0
            assert result.column_names == [*schema.names, "night"]
        assert con.execute("SELECT count(*) FROM mined").fetchone() == (0,)


def test_committed_rows_are_seen_with_their_night(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]), Drive("r2", [0.3]))
    assert count(store, "frames") == 3
    with store.connect() as con:
        assert con.execute("SELECT DISTINCT night FROM mined").fetchall() == [(NIGHT,)]
        assert con.execute("SELECT count(*) FROM mined WHERE hardness > 0.15").fetchone() == (2,)


def test_a_file_without_its_marker_is_not_seen(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]), Drive("r2", [0.3]))
    store.retract("score", NIGHT, "r1")
    assert store.table_file("scores", NIGHT, "r1").exists()
    assert count(store, "scores") == 1


def test_committing_again_replaces_the_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]))
    commit(store, Drive("r1", [0.5, 0.6, 0.7]))
    assert count(store, "scores") == count(store, "frames") == 3
    assert not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize("crash_at", range(1, 6))
def test_a_crash_at_any_rename_shows_old_rows_or_none_never_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]))
    real, calls = os.replace, []

    def failing(*args: object) -> None:
        calls.append(args)
        if len(calls) == crash_at:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", failing)
    new = Drive("r1", [0.5, 0.6, 0.7])
    with pytest.raises(KeyboardInterrupt):
        commit(store, new)
    monkeypatch.undo()
    assert (count(store, "frames"), count(store, "recordings")) in {(0, 0), (2, 1), (3, 1)}
    assert count(store, "observations") in {0, 2, 3}
    assert not list((store.root / "tmp").iterdir())
    commit(store, new)
    assert count(store, "frames") == count(store, "observations") == count(store, "scores") == 3


def test_a_stage_must_commit_all_its_tables(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    with pytest.raises(ValueError, match="commits"):
        store.commit("detect", NIGHT, "k", {"detections": table("detections", [])}, digest="x")


@pytest.mark.parametrize("key", ["../x", "a/b", "", ".hidden", "a\x00b", "x" * 300, "a..b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    store = Store(tmp_path / "s", create=True)
    with pytest.raises(ValueError, match="not a shard key"):
        store.commit(
            "score", NIGHT, key, {"scores": table("scores", []), "tracks": table("tracks", [])}, digest="x"
        )


def test_folders_that_are_no_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store here yet, there is no such folder"):
        Store(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no store here yet, it lacks mining-store\.json"):
        Store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a store"):
        Store(tmp_path, create=True)
    store = Store(tmp_path / "s", create=True)
    (store.root / "mining-store.json").write_text('{"store_version": 99}')
    with pytest.raises(MiningError, match="version 99"):
        Store(store.root)
    (store.root / "mining-store.json").write_text('{"store_version": 1}')
    with pytest.raises(MiningError, match=f"`mining migrate {store.root}`"):
        Store(store.root)
    (store.root / "mining-store.json").write_text("{")
    with pytest.raises(MiningError, match="cannot be read"):
        Store(store.root)


def test_paths_that_would_mislead_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must not hold '='"):
        Store(tmp_path / "camera=x" / "s", create=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        Store(tmp_path / "file", create=True)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    name = "a'b\";DROP TABLE x;--\n\x1b[31m<b>"
    store = store_of(tmp_path / "it's", Drive("r1", [0.1], camera=name))
    with store.connect() as con:
        assert con.execute("SELECT camera FROM mined").fetchall() == [(name,)]


def test_every_table_belongs_to_one_stage() -> None:
    listed = [name for names in STAGE_TABLES.values() for name in names]
    assert sorted(listed) == sorted(TABLES)


def test_status_counts_every_night(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]), Drive("r2", [0.3]))
    with store.connect() as con:
        row = con.sql(sql_file("status")).to_arrow_table().to_pylist()[0]
    assert (row["recordings"], row["frames"], row["detected"], row["scored"], row["chosen"]) == (
        2,
        3,
        3,
        3,
        0,
    )


@pytest.mark.parametrize("crash_at", ["fsync", "replace"])
def test_a_job_killed_while_it_made_the_store_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, crash_at, killed)
        # SIGKILL would leave the file that is being written, too.
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path / "s", create=True)
    assert list((tmp_path / "s").rglob("*"))
    commit(Store(tmp_path / "s", create=True), Drive("r1", [0.1]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="not a store, and not empty"):
        Store(tmp_path / "other", create=True)


def test_what_repeats_has_dictionaries_and_fractions_have_none(tmp_path: Path) -> None:
    """Of nested columns too: pyarrow passes over a column that it does not know."""
    table = "observations"
    values = {pa.string(): "x", pa.float32(): 0.5, pa.float64(): 0.5}

    def value(kind: pa.DataType) -> Any:
        if pa.types.is_map(kind):
            return [(value(kind.key_type), value(kind.item_type))]
        return [value(kind.value_type)] * 2 if pa.types.is_list(kind) else values.get(kind, 1)

    schema = TABLES[table]
    rows = pa.table([pa.array([value(f.type)] * 50, f.type) for f in schema], schema=schema)
    pq.write_table(rows, tmp_path / "x.parquet", **how_to_write(table))
    group = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    fractions = {c.path_in_schema for c in columns if c.physical_type in {"FLOAT", "DOUBLE"}}
    assert {"luma_mean", "embedding.list.element"} <= fractions
    assert {c.path_in_schema for c in columns if not c.has_dictionary_page} == fractions
    assert "box_count.key_value.key" in {c.path_in_schema for c in columns} - fractions
    assert {c.compression for c in columns} == {"ZSTD"}
    assert pq.read_table(tmp_path / "x.parquet").equals(rows)
