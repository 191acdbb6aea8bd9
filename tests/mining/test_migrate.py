"""A store of an older version is refused with the command that migrates it, and that command works."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mining import housekeeping, migrate
from mining.schemas import SLICES, STORE_VERSION, TABLES
from mining.store import STAGE_TABLES, Store
from mining.types import MiningError
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, store_of, table

# Of each version: digest of every table's columns. Files of one version have the same columns: views read them as one.
COLUMNS = {2: "4a233b017aca"}


def test_columns_do_not_change_within_a_version() -> None:
    text = json.dumps({name: [(f.name, str(f.type)) for f in schema] for name, schema in TABLES.items()})
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert COLUMNS.get(STORE_VERSION) == digest, (
        f"the columns of schemas.TABLES have changed (now {digest}): raise STORE_VERSION and add a line to COLUMNS; as "
        "long as no release has written stores of this version, renewing its line will do"
    )


def rewrite(store: Store, name: str, key: str, *, drop: str | None = None) -> None:
    """Make a file one of an older version."""
    file = store.table_file(name, NIGHT, key)
    old = pq.read_table(file, partitioning=None)
    old = old.append_column("gone", [["x"] * len(old)]) if drop is None else old.drop_columns([drop])
    pq.write_table(old, file)


def notes(store: Store, stage: str) -> dict[Any, dict[str, Any]]:
    """What the markers say, but for the digests of files, which are written anew."""
    return {where: {**marker, "sha256": None} for where, marker in store.markers(stage).items()}


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A store of version 1: observations without luma_histogram, detections with a column too many."""
    store = store_of(
        tmp_path,
        Drive("r1", [0.1, 0.9], tags=(("city", "X"),)),
        Drive("r2", [0.5], night=NIGHT + timedelta(days=1)),
    )
    rows = [
        {
            "batch_id": "b",
            "frame_id": "r1-0000001",
            "committee_id": COMMITTEE,
            "rank": 1,
            "arm": "mined",
            "reason": "w",
        }
    ]
    store.commit(
        "select",
        NIGHT,
        "b",
        {"selections": table("selections", rows), "slices": SLICES.empty_table()},
        digest="d",
        settings="s",
        scored=["x"],
    )
    rewrite(store, "observations", "r1", drop="luma_histogram")
    rewrite(store, "detections", "r1")
    rewrite(store, "frames", "r1", drop="heading_deg")
    rewrite(store, "selections", "b", drop="slice")
    store.table_file("tracks", NIGHT, "r1").unlink()
    store.table_file("slices", NIGHT, "b").unlink()
    (store.root / "mining-store.json").write_text('{"store_version": 1}')
    return store


def test_what_can_be_made_again_is_due_and_what_people_acted_upon_stays(old: Store) -> None:
    with pytest.raises(MiningError, match=r"version 1, this mining reads version .*`mining migrate"):
        Store(old.root)
    report = migrate.run(old.root)
    assert report.before == 1
    assert report.due_again == {"detect": 1, "score": 1}
    assert report.rewritten == {"index": 1, "select": 1}
    assert report.kept == {"index": 1, "detect": 1, "score": 1}
    assert "detect: 1 as they are, 1 due again" in report.text()
    assert "makes what is due again" in report.text()

    store = Store(old.root)
    with store.connect() as con:
        assert con.execute("SELECT count(*), count(heading_deg) FROM frames").fetchall() == [(3, 0)]
        assert con.execute("SELECT tags['city'] FROM recordings ORDER BY ALL").fetchall() == [("X",), (None,)]
        assert con.execute("SELECT count(*) FROM observations").fetchall() == [(1,)]
        assert con.execute("SELECT count(*) FROM scores").fetchall() == [(1,)]
        assert con.execute("SELECT frame_id, reason, slice FROM selections").fetchall() == [
            ("r1-0000001", "w", None)
        ]
        assert con.execute("SELECT count(*) FROM slices").fetchall() == [(0,)]
    marker = store.markers("select")[(NIGHT, "b")]
    assert (marker["settings"], marker["scored"], marker["digest"]) == ("s", ["x"], "d")


def test_labels_and_measures_are_kept_whatever_columns_have_changed(tmp_path: Path) -> None:
    """People paid for them: no stage can make them again."""
    store = store_of(tmp_path, Drive("r1", [0.1]))
    for stage, rows in (("import", 2), ("measure", 1)):
        tables = {
            name: table(name, [{"frame_id": "r1-0000000", "import_id": "i"}] * rows)
            for name in STAGE_TABLES[stage]
        }
        store.commit(
            stage, NIGHT, "i", tables, digest="d", delivery="v", imported_at="2026-03-20T00:00:00+00:00"
        )
        for name in STAGE_TABLES[stage]:
            rewrite(store, name, "i", drop="import_id" if name == "yields" else None)
    before = {stage: notes(store, stage) for stage in ("import", "measure")}
    (store.root / "mining-store.json").write_text('{"store_version": 1}')
    report = migrate.run(store.root)
    assert report.rewritten == {"import": 1, "measure": 1}
    assert not report.due_again
    assert {stage: notes(store, stage) for stage in before} == before
    damaged = [damage.stage for damage in housekeeping.verify(Store(store.root))[1]]
    assert not {"import", "measure"} & set(damaged)
    with Store(store.root).connect() as con:
        for name in STAGE_TABLES["import"]:
            assert con.execute(f"SELECT count(import_id) FROM {name}").fetchall() == [(2,)]
        assert con.execute("SELECT frame_id, import_id FROM yields").fetchall() == [("r1-0000000", None)]


def test_stopped_half_way_it_goes_on(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_notes: object) -> None:
        raise MiningError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "conform", full)
        with pytest.raises(MiningError, match="no space"):
            migrate.run(old.root)
    with pytest.raises(MiningError, match="mining migrate"):
        Store(old.root)
    migrate.run(old.root)
    with Store(old.root).connect() as con:
        assert con.execute("SELECT count(*) FROM selections").fetchall() == [(1,)]


def test_stopped_at_any_file_nothing_is_lost(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, at, stopped_at = os.replace, 0, []
    kept = {stage: set(old.markers(stage)) for stage in ("index", "select")}
    while True:
        left = at

        def stopping(source: str, target: str) -> None:
            nonlocal left
            if left == 0:
                stopped_at.append(str(target))
                raise KeyboardInterrupt
            left -= 1
            real(source, target)

        copy = old.root.with_name(f"copy{at}")
        shutil.copytree(old.root, copy)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping)
            try:
                migrate.run(copy)
                break
            except KeyboardInterrupt:
                pass
        migrate.run(copy)
        store = Store(copy)
        assert {stage: set(store.markers(stage)) for stage in kept} == kept
        with store.connect() as con:
            assert con.execute("SELECT frame_id FROM selections").fetchall() == [("r1-0000001",)]
            assert con.execute("SELECT count(*), count(DISTINCT frame_id) FROM frames").fetchall() == [(3, 3)]
        marker = store.markers("select")[(NIGHT, "b")]
        assert (marker["settings"], marker["rows"]) == ("s", {"slices": 0, "selections": 1})
        at += 1
    assert any("/tables/" in target for target in stopped_at)
    assert any("/done/" in target for target in stopped_at)


def test_a_store_of_today_is_left_alone_and_a_newer_one_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]))
    before = {p: p.stat().st_mtime_ns for p in store.root.rglob("*")}
    assert "nothing to do" in migrate.run(store.root).text()
    assert {p: p.stat().st_mtime_ns for p in store.root.rglob("*")} == before
    (store.root / "mining-store.json").write_text(json.dumps({"store_version": STORE_VERSION + 1}))
    with pytest.raises(MiningError, match="or a newer one"):
        migrate.run(store.root)
