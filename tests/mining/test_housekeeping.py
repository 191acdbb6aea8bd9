"""``mining verify`` finds what is not as committed; ``mining gc`` takes away what nobody reads, and nothing else."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mining.cli import cli
from mining.schemas import SLICES
from mining.store import Store
from mining.types import UsageError
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, commit, store_of, table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = store_of(
        tmp_path,
        Drive("r1", [0.1, 0.9]),
        Drive("r2", [0.5], night=NIGHT + timedelta(days=1)),
        Drive("r3", [0.2]),
    )
    chosen = [
        {"batch_id": "b", "frame_id": "r1-0000001", "committee_id": COMMITTEE, "rank": 1, "arm": "mined"}
    ]
    rows = {"selections": table("selections", chosen), "slices": SLICES.empty_table()}
    store.commit("select", NIGHT, "b", rows, digest="d", committee_id=COMMITTEE)
    return store


def run(*words: object) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli, [str(word) for word in words] + ["--json"], standalone_mode=False)
    code = getattr(result.exception, "exit_code", result.exit_code)
    return result.return_value or code, json.loads(result.stdout)


def counts(store: Store) -> dict[str, int]:
    with store.connect() as con:
        return {
            name: con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
            for name in ("frames", "observations", "scores", "selections")
        }


def test_a_sound_store_verifies(store: Store) -> None:
    code, found = run("verify", store.root)
    assert (code, found) == (0, {"shards": 10, "damaged": [], "retracted": 0})


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def other_rows(file: Path) -> None:
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(rows.slice(0, 1), file)


@pytest.mark.parametrize(
    ("damage", "by_digest"),
    [(flip, True), (cut, True), (other_rows, True), (Path.unlink, True), (cut, False), (other_rows, False)],
)
def test_damage_is_named_taken_back_and_made_again(store: Store, damage: object, by_digest: bool) -> None:
    file = store.table_file("scores", NIGHT, "r1")
    if not by_digest:  # as an older mining committed it
        marker = store.root / "done" / "score" / f"night={NIGHT}" / "r1.json"
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "sha256": {}}))
    damage(file)  # type: ignore[operator]
    code, found = run("verify", store.root)
    assert code == 1
    assert [one["stage"] for one in found["damaged"]] == ["score"]  # type: ignore[attr-defined, index]
    assert str(file) in str(found["damaged"])
    assert found["retracted"] == 0
    code, found = run("verify", store.root, "--retract")
    assert found["retracted"] == 1
    assert (NIGHT, "r1") not in store.markers("score")
    commit(store, Drive("r1", [0.1, 0.9]))
    assert run("verify", store.root)[0] == 0


def test_what_no_run_can_make_again_is_not_taken_back(store: Store) -> None:
    flip(store.table_file("selections", NIGHT, "b"))
    code, found = run("verify", store.root, "--retract")
    assert (code, found["retracted"], len(store.markers("select"))) == (1, 0, 1)


def test_gc_takes_what_has_no_commit_and_leaves_the_rest(store: Store) -> None:
    before = counts(store)
    assert run("gc", store.root)[1]["files"] == 0
    (store.root / "tmp" / "killed.parquet").write_bytes(b"half")
    store.retract("score", NIGHT, "r3")
    after_retract = counts(store)
    assert after_retract != before
    found = run("gc", store.root, "--dry-run")[1]
    assert found["files"] == 3  # scores, tracks, and what a killed job left
    assert store.table_file("scores", NIGHT, "r3").exists()
    assert run("gc", store.root)[1]["files"] == 3
    assert not store.table_file("scores", NIGHT, "r3").exists()
    assert not list((store.root / "tmp").iterdir())
    assert counts(store) == after_retract
    assert run("verify", store.root)[0] == 0


def test_gc_takes_a_committee_on_request_and_keeps_its_batches(store: Store) -> None:
    reference = store.root / "reference"
    reference.mkdir()
    (reference / f"{COMMITTEE}-12345678.parquet").write_bytes(b"x")
    (reference / "other-12345678.parquet").write_bytes(b"x")
    with pytest.raises(UsageError, match=f"nothing of committee 'nobody'; it holds: {re.escape(COMMITTEE)}"):
        CliRunner().invoke(cli, ["gc", str(store.root), "--committee", "nobody"], catch_exceptions=False)
    found = run("gc", store.root, "--committee", COMMITTEE)[1]
    assert found["shards"] == 6
    assert counts(store) == {"frames": 4, "observations": 0, "scores": 0, "selections": 1}
    assert [file.name for file in reference.iterdir()] == ["other-12345678.parquet"]
    assert run("verify", store.root)[0] == 0
    assert run("gc", store.root)[1]["files"] == 0
