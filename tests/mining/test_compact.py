"""``mining compact`` puts small files together: the rows stay, readers notice nothing, and it may be killed at any point."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mining import compact, config, housekeeping, migrate, packs, pipeline, views
from mining.cli import cli
from mining.schemas import SLICES, TABLES
from mining.store import STAGE_TABLES, Store, sha256_of
from mining.types import MiningError, TemporaryError, UsageError
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, commit, store_of, table

LATER = NIGHT + timedelta(days=1)
DRIVES = (
    Drive("r1", [0.1, 0.9, 0.3]),
    Drive("r2", [0.5]),
    Drive("r3", [0.2, 0.4]),
    Drive("r4", [0.6, 0.7, 0.8, 0.9]),
    Drive("r5", [0.5], night=LATER),
    Drive("r6", [0.1, 0.2], night=LATER),
)


def cut(store: Store, recording: str, *at: int, night: Any = NIGHT) -> None:
    """Commit what was detected of a recording as several shards that end at these frames, with boxes."""
    rows = store.read("observations", night, recording)
    store.retract("detect", night, recording)
    for n, (start, end) in enumerate(itertools.pairwise((0, *at, rows.num_rows))):
        of_shard = rows.slice(start, end - start)
        boxes = [
            {"frame_id": frame, "committee_id": COMMITTEE, "box_index": i}
            for frame in of_shard["frame_id"].to_pylist()
            for i in range(3)
        ]
        store.commit(
            "detect", night, f"{recording}-{COMMITTEE}-{n:04d}",
            {"observations": of_shard, "detections": table("detections", boxes)},
            digest="x", recording_id=recording, committee_id=COMMITTEE,
        )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = store_of(tmp_path_factory.mktemp("made"), *DRIVES)
    cut(store, "r1", 1)
    cut(store, "r4", 2, 3)
    for key, arm in (("b1", "mined"), ("b2", "random")):
        row = {
            "batch_id": key,
            "frame_id": "r1-0000001",
            "committee_id": COMMITTEE,
            "status": "ok",
            "arm": arm,
        }
        batch = {"selections": table("selections", [row]), "slices": SLICES.empty_table()}
        store.commit("select", NIGHT, key, batch, digest="d", committee_id=COMMITTEE)
    collect(store)
    return store.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    shutil.copytree(made, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups a pack, and several packs a table."""
    monkeypatch.setattr(compact, "GROUP_ROWS", 3)
    monkeypatch.setattr(compact, "PACK_BYTES", 5_000)


def packed(store: Store) -> compact.Compaction:
    return compact.run(store, min_files=2)


def rows_of(stores: Sequence[Store], names: Sequence[str] = (*TABLES, "mined")) -> dict[str, list[Any]]:
    with views.connect(stores, locked=True) as con:
        return read_all(con, names)


def read_all(con: Any, names: Sequence[str] = (*TABLES, "mined")) -> dict[str, list[Any]]:
    return {
        name: con.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table().to_pylist() for name in names
    }


def collect(store: Store, grace_h: float = 0.0) -> housekeeping.Garbage:
    with store.alone():
        found = housekeeping.garbage(store, (), grace_h)
        housekeeping.collect(store, found)
    return found


def on_disk(store: Store) -> set[Path]:
    return {*(store.root / "tables").glob("*/*/*"), *(store.root / "tmp").iterdir()}


def listed(store: Store) -> set[Path]:
    return {file for name in TABLES for file in store.committed_files(name)}


def markers(store: Store) -> dict[Path, bytes]:
    return {
        file: file.read_bytes()
        for file in (store.root / "done").glob("*/*/*.json")
        if file.name != packs.FILE
    }


def packs_of(store: Store, name: str) -> list[Path]:
    return [file for file, shards in store.committed_files(name).items() if shards]


# -- the rows stay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", ["large", "small"])
def test_rows_and_markers_are_the_same_and_a_second_time_there_is_nothing_to_do(
    store: Store, sizes: str, request: pytest.FixtureRequest
) -> None:
    if sizes == "small":
        request.getfixturevalue("small")
    before, said, files = rows_of([store]), markers(store), listed(store)
    assert len(before["detections"]) == 3 * 7
    report = packed(store)
    assert report.problems == []
    assert (report.nights, report.shards) == (6, 21)
    assert report.files_before == 42
    assert report.files_after == sum(len(packs_of(store, name)) for name in TABLES)
    assert report.files_after == 12 if sizes == "large" else report.files_after > 12
    assert rows_of([store]) == before
    assert markers(store) == said
    assert len(listed(store)) == len(files) - 42 + report.files_after
    collect(store)
    assert on_disk(store) == listed(store)
    assert rows_of([store]) == before
    assert housekeeping.verify(store) == (23, [])
    times = {file: file.stat().st_mtime_ns for file in store.root.rglob("*")}
    again = packed(store)
    assert (again.nights, again.files_before, again.files_after) == (0, 0, 0)
    assert again.text() == "Nothing to do."
    assert {file: file.stat().st_mtime_ns for file in store.root.rglob("*")} == times
    for name in ("frames", "detections", "scores"):
        for night in (NIGHT, LATER):
            for key in store.keys({t: s for s, ts in STAGE_TABLES.items() for t in ts}[name], night):
                found = store.read(name, night, key, ["frame_id"])["frame_id"].to_pylist()
                recording = key.split("-")[0]
                assert all(frame.startswith(recording) for frame in found)
                assert found or name == "detections"


def test_what_is_read_of_a_packed_shard_is_what_was_committed(store: Store, small: None) -> None:
    keys = [
        (name, night, key)
        for stage in compact.STAGES
        for night in store.nights(stage)
        for key in store.keys(stage, night)
        for name in STAGE_TABLES[stage]
    ]
    before = {where: store.read(*where) for where in keys}
    packed(store)
    collect(store)
    for where, rows in before.items():
        assert store.read(*where).equals(rows), where
        columns = ["frame_id"] if "frame_id" in rows.column_names else ["recording_id"]
        assert store.read(*where, columns).equals(rows.select(columns)), where


def test_a_row_group_holds_whole_recordings_so_that_conditions_skip_the_others(
    store: Store, small: None
) -> None:
    packed(store)
    ranges = []
    for file in packs_of(store, "scores"):
        with pq.ParquetFile(file) as parquet:
            at = parquet.schema_arrow.names.index("recording_id")
            for group in range(parquet.num_row_groups):
                column = parquet.metadata.row_group(group).column(at).statistics
                ranges.append((file.parent.name, column.min, column.max))
    assert ranges == sorted(ranges)
    assert len(ranges) > 3
    assert all(one[2] < other[1] for one, other in itertools.pairwise(ranges) if one[0] == other[0])


def test_later_shards_are_put_with_those_that_are_there(store: Store) -> None:
    packed(store)
    (first,) = (file for file in packs_of(store, "frames") if str(NIGHT) in str(file))
    commit(store, Drive("r0", [0.3]))
    commit(store, Drive("r7", [0.3]))
    before = rows_of([store])
    assert len(listed(store)) == 12 + 2 + 2 + 12  # 12 packs, two batches of two files, two recordings of six
    report = packed(store)
    assert (report.shards, report.files_before, report.files_after) == (6, 12 + 6, 6)
    assert rows_of([store]) == before
    (second,) = (file for file in packs_of(store, "frames") if str(NIGHT) in str(file))
    assert second != first
    assert pq.ParquetFile(second).read()["recording_id"].unique().to_pylist() == [
        "r0",
        "r1",
        "r2",
        "r3",
        "r4",
        "r7",
    ]
    assert housekeeping.verify(store)[1] == []


def test_few_files_and_other_nights_are_left_alone(store: Store) -> None:
    assert compact.run(store, min_files=8).nights == 0
    assert compact.run(store, (LATER, LATER), min_files=2).nights == 3
    assert {file.parent.name for name in TABLES for file in packs_of(store, name)} == {f"night={LATER}"}
    assert compact.run(store, min_files=5).nights == 1  # detections alone: seven shards
    assert not packs_of(store, "selections")


# -- several stores ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)])
def test_two_stores_that_share_recordings_give_the_rows_that_they_give_without_packs(
    store: Store, tmp_path: Path, which: tuple[bool, bool], small: None
) -> None:
    other = store_of(
        tmp_path / "other",
        *(Drive(name, [0.3, 0.4, 0.5]) for name in ("r0", "r1", "r3", "r9")),
        Drive("r2", [0.5]),
        Drive("r4", [0.6, 0.7, 0.8, 0.9]),
        Drive("r6", [0.8, 0.9], night=LATER),
    )
    cut(other, "r4", 1)  # a site that cuts otherwise
    cut(other, "r0", 1, 2)
    for stores in ([store, other], [other, store]):
        before = rows_of(stores)
        names = {row["recording_id"] for row in before["mined"]}
        assert names == {"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r9"}
        copies = []
        for n, (one, pack) in enumerate(zip((store, other), which, strict=True)):
            copy = tmp_path / f"copy{n}"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(one.root, copy)
            copies.append(Store(copy))
            if pack:
                packed(copies[-1])
                collect(copies[-1])
        again = copies if stores[0] is store else copies[::-1]
        assert rows_of(again) == before
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute(views.script(again))
            assert read_all(con) == before


def test_a_store_and_its_copy_are_one(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "copy")
    before = rows_of([store])
    packed(store)
    copy = Store(tmp_path / "copy")
    assert rows_of([store, copy]) == rows_of([copy, store]) == before
    packed(copy)
    assert rows_of([store, copy]) == before


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_that_was_there_before_reads_on(store: Store, small: None) -> None:
    before = rows_of([store])
    with store.connect(locked=True) as first:
        packed(store)
        with store.connect(locked=True) as second:
            commit(store, Drive("r7", [0.3]))
            commit(store, Drive("r8", [0.3]))
            packed(store)  # replaces packs as well
            found = collect(store, grace_h=24)
            assert found.files == []
            assert found.waiting > 42
            assert read_all(first) == before
            assert read_all(second) == before
        assert len(rows_of([store])["recordings"]) == 8


def test_readers_beside_it_see_every_row_once(store: Store) -> None:
    """Of a shard that is committed again meanwhile, its rows or none."""
    again = {name: store.read(name, NIGHT, "r2") for name in ("scores", "tracks")}
    all_of_it = {"r1": 3, "r2": 1, "r3": 2, "r4": 4, "r5": 1, "r6": 2}
    done = threading.Event()
    seen: list[dict[str, int]] = []

    def read() -> None:
        while not done.is_set():
            with Store(store.root).connect() as con:
                sql = "SELECT recording_id, count(*) FROM scores GROUP BY ALL"
                seen.append(dict(con.execute(sql).fetchall()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(10):
            packed(store)
            collect(store, grace_h=24)
            store.commit("score", NIGHT, "r2", again, digest="y", committee_id=COMMITTEE)
    finally:
        done.set()
        reader.join()
    assert len(seen) > 3
    assert all(counts.get("r2", 1) == 1 and {**counts, "r2": 1} == all_of_it for counts in seen)


def test_gc_takes_what_was_replaced_when_it_is_old_enough(store: Store) -> None:
    before, files = rows_of([store]), listed(store)
    packed(store)
    replaced = files - listed(store)
    assert len(replaced) == 42
    for manifest in store.root.glob(f"done/*/*/{packs.FILE}"):
        then = manifest.stat().st_mtime - 23.9 * 3600
        os.utime(manifest, (then, then))
    (store.root / "tmp" / "killed.parquet").write_bytes(b"half")
    assert gc(store) == {"files": 1, "shards": 0, "size_bytes": 4, "waiting": 42, "dry_run": False}
    assert all(file.exists() for file in replaced)
    for manifest in store.root.glob(f"done/*/night={NIGHT}/{packs.FILE}"):
        then = manifest.stat().st_mtime - 0.2 * 3600
        os.utime(manifest, (then, then))
    found = gc(store)
    assert (found["files"], found["waiting"]) == (30, 12)
    assert gc(store, "--grace-h", "0")["files"] == 12
    assert not any(file.exists() for file in replaced)
    assert on_disk(store) == listed(store)
    assert rows_of([store]) == before


def gc(store: Store, *words: str) -> dict[str, Any]:
    return run("gc", str(store.root), *words)[1]


def run(*words: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(cli, [*words, "--json"], standalone_mode=False)
    code = getattr(result.exception, "exit_code", result.exit_code)
    return result.return_value or code, json.loads(result.stdout)


def test_gc_of_a_committee_and_the_next_compaction_leave_nothing_of_it(store: Store) -> None:
    other = {"recording_id": "r1", "committee_id": "other-1"}
    rows = {"scores": table("scores", [{**other, "frame_id": "r1-0000000"}]), "tracks": table("tracks", [])}
    store.commit("score", NIGHT, "r1-other-1", rows, digest="x", **other)
    before = rows_of([store])
    packed(store)
    assert gc(store, "--committee", COMMITTEE, "--grace-h", "0")["shards"] == 15
    assert rows_of([store])["scores"] == [row for row in before["scores"] if row["committee_id"] == "other-1"]
    packed(store)
    collect(store)
    assert on_disk(store) == listed(store)
    (file,) = listed(store) & set((store.root / "tables" / "scores").glob("*/*"))
    assert pq.ParquetFile(file).metadata.num_rows == 1
    assert not packs_of(store, "observations")
    assert housekeeping.verify(store)[1] == []


# -- committed again, taken back ---------------------------------------------------------------------------------------


def test_a_packed_shard_that_is_committed_again_has_its_new_rows(store: Store, small: None) -> None:
    packed(store)
    collect(store)
    before = rows_of([store])
    commit(store, Drive("r3", [0.7, 0.6, 0.5]))
    after = rows_of([store])
    for name in ("recordings", "frames", "observations", "scores", "mined"):
        others = [row for row in before[name] if row["recording_id"] != "r3"]
        assert [row for row in after[name] if row["recording_id"] != "r3"] == others, name
    assert sorted(row["hardness"] for row in after["mined"] if row["recording_id"] == "r3") == pytest.approx(
        [0.5, 0.6, 0.7]
    )
    assert store.read("scores", NIGHT, "r3").num_rows == 3
    assert housekeeping.verify(store)[1] == []
    report = compact.run(
        store, min_files=50
    )  # packs whose rows no longer all count are due, few files or not
    assert report.nights == 3
    assert rows_of([store]) == after
    collect(store)
    assert on_disk(store) == listed(store)
    assert rows_of([store]) == after
    assert packed(store).nights == 0


def test_a_packed_shard_that_is_taken_back_is_not_seen_and_can_come_again(store: Store) -> None:
    packed(store)
    before = rows_of([store])
    store.retract("score", NIGHT, "r1")
    assert {row["recording_id"] for row in rows_of([store])["scores"]} == {"r2", "r3", "r4", "r5", "r6"}
    for key in ("r2", "r3", "r4"):
        store.retract("score", NIGHT, key)
    assert {row["recording_id"] for row in rows_of([store])["scores"]} == {"r5", "r6"}
    for drive in DRIVES[:4]:
        rows = {
            "scores": table(
                "scores", [row for row in before["scores"] if row["recording_id"] == drive.recording_id]
            ),
            "tracks": table("tracks", []),
        }
        store.commit("score", NIGHT, drive.recording_id, rows, digest="y", committee_id=COMMITTEE)
    assert rows_of([store]) == before
    assert len(packs_of(store, "scores")) == 1  # of the later night


def test_jobs_that_commit_shards_of_one_pack_at_once_lose_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(store)
    collect(store)
    real = Store.write_packs

    def slow(self: Store, *what: Any) -> None:
        time.sleep(0.05)
        real(self, *what)

    monkeypatch.setattr(Store, "write_packs", slow)
    begin = threading.Barrier(4)

    def job(recording: str) -> None:
        mine = Store(store.root)
        begin.wait()
        with mine.writing():
            commit(mine, Drive(recording, [0.3]))

    threads = [threading.Thread(target=job, args=(f"r{n}",)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.connect() as con:
        found = con.execute(
            "SELECT recording_id, hardness FROM scores WHERE night = ? ORDER BY ALL", [NIGHT]
        ).fetchall()
    assert found == [(f"r{n}", pytest.approx(0.3)) for n in range(1, 5)]


def test_compaction_waits_for_nobody_who_writes(store: Store) -> None:
    with store.writing(), pytest.raises(TemporaryError, match="another mining job is writing"):
        packed(Store(store.root))


# -- killed ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def killed_at(point: int, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run work in a process that dies before the n-th change to the disk: nothing that comes after is done either."""
    left = point
    with monkeypatch.context() as patch:

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*values: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return real(*values, **named)

            return call

        for name in ("replace", "unlink", "fsync"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


def test_killed_at_any_point_every_row_is_there_once_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "STAGES", ("index",))
    store = store_of(tmp_path, *DRIVES[:3])
    packed(store)
    commit(store, Drive("r2", [0.4]))  # a pack with rows that no longer count
    commit(store, Drive("r9", [0.2]))
    names = ("recordings", "frames")
    before = rows_of([store], names)
    orphans = 0
    for point in itertools.count():
        copy = Store(shutil.copytree(store.root, tmp_path / f"copy{point}"))
        was_killed = killed_at(point, lambda copy=copy: packed(copy), monkeypatch)
        assert rows_of([copy], names) == before, point
        orphans += any(copy.root.glob("tmp/*"))
        if was_killed:
            packed(copy)
        assert (
            len(listed(copy)) == 2 + 16
        )  # the other stages were left as they are: four shards of four tables
        assert housekeeping.verify(copy)[1] == [], point
        if killed_at(point % 7, lambda copy=copy: collect(copy), monkeypatch):
            collect(copy)
        assert on_disk(copy) == listed(copy), point
        assert rows_of([copy], names) == before, point
        shutil.rmtree(copy.root)
        if not was_killed:
            break
    assert point > 10
    assert orphans > 4


def test_killed_while_a_packed_shard_is_committed_again_it_has_old_rows_none_or_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, *DRIVES[:3])
    packed(store)
    collect(store)
    fresh = store_of(tmp_path / "other", Drive("r2", [0.4, 0.3, 0.2]))
    new = {name: fresh.read(name, NIGHT, "r2") for name in ("scores", "tracks")}
    seen = set()
    for point in itertools.count():
        copy = Store(shutil.copytree(store.root, tmp_path / f"copy{point}"))

        def again(copy: Store = copy) -> None:
            copy.commit("score", NIGHT, "r2", new, digest="y", committee_id=COMMITTEE)

        was_killed = killed_at(point, again, monkeypatch)
        with copy.connect() as con:
            rows = dict(con.execute("SELECT recording_id, count(*) FROM scores GROUP BY ALL").fetchall())
        seen.add(rows.pop("r2", 0))
        assert rows == {"r1": 3, "r3": 2}, point
        if was_killed:
            again()
        found = rows_of([copy], ("scores",))["scores"]
        assert [row["hardness"] for row in found] == pytest.approx([0.1, 0.9, 0.3, 0.4, 0.3, 0.2, 0.2, 0.4])
        assert housekeeping.verify(copy)[1] == []
        shutil.rmtree(copy.root)
        if not was_killed:
            break
    assert seen == {0, 1, 3}
    assert point > 10


@pytest.mark.parametrize("word", ["replace", "fsync"])
def test_a_full_disk_is_said(store: Store, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    before = rows_of([store])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, word, full)
        with pytest.raises(TemporaryError, match="No space left on device; every row is where it was"):
            packed(store)
    assert not list((store.root / "tmp").iterdir())
    assert rows_of([store]) == before


# -- damage ------------------------------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_damaged_pack_is_found_taken_back_and_made_again(
    store: Store, harm: Callable[[Path], None]
) -> None:
    before = rows_of([store])
    packed(store)
    collect(store)
    (file,) = (file for file in packs_of(store, "scores") if str(NIGHT) in str(file))
    harm(file)
    code, found = run("verify", str(store.root))
    assert code == 1
    assert [(one["stage"], one["key"]) for one in found["damaged"]] == [
        ("score", f"r{n}") for n in range(1, 5)
    ]
    assert all(str(file) in one["reason"] for one in found["damaged"])
    report = packed(store)  # neither hides it nor stumbles over it
    assert report.nights == 0
    code, found = run("verify", str(store.root), "--retract")
    assert found["retracted"] == 4
    assert {row["recording_id"] for row in rows_of([store])["scores"]} == {"r5", "r6"}
    for drive in DRIVES[:4]:
        rows = {
            "scores": table(
                "scores", [row for row in before["scores"] if row["recording_id"] == drive.recording_id]
            ),
            "tracks": table("tracks", []),
        }
        store.commit("score", NIGHT, drive.recording_id, rows, digest="y", committee_id=COMMITTEE)
    assert rows_of([store]) == before
    assert packed(store).problems == []
    assert run("verify", str(store.root))[0] == 0
    collect(store)
    assert on_disk(store) == listed(store)


def test_a_query_over_a_missing_pack_names_it(store: Store) -> None:
    packed(store)
    (file,) = (file for file in packs_of(store, "scores") if str(LATER) in str(file))
    file.unlink()
    with pytest.raises(
        MiningError, match=f"{file}: committed, but missing or damaged; .*`mining verify STORE --retract`"
    ):
        views.save_database([store], store.root.parent / "x.duckdb")


def test_damage_is_not_put_into_a_pack(store: Store) -> None:
    file = store.table_file("scores", NIGHT, "r2")
    flip(file)
    code, found = run("compact", str(store.root), "--min-files", "2")
    assert code == 1
    assert found["shards"] == 20
    assert [problem.split(": ")[0] for problem in found["problems"]] == [str(file)]
    assert store.located("scores", NIGHT, "r2")[0] == file
    assert store.located("tracks", NIGHT, "r2")[0] == store.table_file("tracks", NIGHT, "r2")
    assert store.located("scores", NIGHT, "r1")[2] == 3
    assert [damage.key for damage in housekeeping.verify(store)[1]] == ["r2"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tables": {"scores": [{}]}}'])
def test_a_damaged_list_of_packs_is_named(store: Store, content: bytes) -> None:
    packed(store)
    manifest = store.root / "done" / "score" / f"night={NIGHT}" / packs.FILE
    manifest.write_bytes(content)
    for work in (store.connect, lambda: housekeeping.verify(store)):
        with pytest.raises(
            MiningError, match=f"^{manifest}: damaged; .* delete it: `mining verify {store.root} --retract`"
        ):
            work()
    manifest.unlink()  # what it replaced is still there
    assert housekeeping.verify(store)[1] == []
    assert len(rows_of([store])["scores"]) == 13


def test_rows_that_differ_from_the_marker_s_are_found(store: Store) -> None:
    packed(store)
    marker = store.root / "done" / "score" / f"night={NIGHT}" / "r1.json"
    said = json.loads(marker.read_text())
    marker.write_text(json.dumps({**said, "rows": {**said["rows"], "scores": 7}}))
    (damage,) = housekeeping.verify(store)[1]
    assert damage.key == "r1"
    assert "7 rows were committed" in damage.reason


# -- beside the rest ---------------------------------------------------------------------------------------------------


def test_an_older_store_is_migrated_with_its_packs(store: Store) -> None:
    packed(store)
    collect(store)
    before = rows_of([store])
    for name, column in (("frames", "heading_deg"), ("observations", "luma_histogram")):
        for file in packs_of(store, name):
            if str(NIGHT) in str(file):
                pq.write_table(pq.ParquetFile(file).read().drop_columns([column]), file)
                manifest = (
                    store.root
                    / "done"
                    / {"frames": "index"}.get(name, "detect")
                    / file.parent.name
                    / packs.FILE
                )
                content = json.loads(manifest.read_text())
                content["tables"][name][0]["sha256"] = sha256_of(file)
                manifest.write_text(json.dumps(content))
    (store.root / "mining-store.json").write_text('{"store_version": 1}')
    report = migrate.run(store.root)
    assert report.rewritten == {"index": 4}
    assert report.due_again == {"detect": 7}
    after = rows_of([store])
    assert after["frames"] == before["frames"]
    assert {row["recording_id"] for row in after["observations"]} == {"r5", "r6"}
    assert after["scores"] == before["scores"]
    assert housekeeping.verify(store)[1] == []
    packed(store)
    assert rows_of([store]) == after
    assert housekeeping.verify(store)[1] == []


def test_the_command_says_what_it_did(store: Store) -> None:
    before = listed(store)
    code, found = run("compact", str(store.root), "--min-files", "2", "--dry-run")
    assert (code, found["files_before"], found["files_after"], found["dry_run"]) == (0, 42, 0, True)
    assert listed(store) == before
    words = ["compact", str(store.root), "--min-files", "2", "--nights", str(LATER)]
    said = CliRunner().invoke(cli, words).stdout
    assert said.startswith("Put together 12 files of 6 shards, in 3 nights of a stage, as 6 files.")
    assert CliRunner().invoke(cli, words).stdout == "Nothing to do.\n"
    with pytest.raises(UsageError, match="--nights"):
        CliRunner().invoke(cli, ["compact", str(store.root), "--nights", "x"], catch_exceptions=False)


CONFIG = """
store = "store"
[footage]
paths = ["drives"]
sample_hz = 5.0
[[detector]]
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
[detect]
shard_minutes = 0.01
[select]
budget = 4
min_gap_s = 0.1
"""


@pytest.mark.slow
def test_a_night_goes_on_over_packs_as_it_does_without(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "drives").mkdir()
    shutil.copy(shared_data / "video" / "hifza_dashcam.mp4", tmp_path / "drives")
    (tmp_path / "night.toml").write_text(CONFIG.format(weights=shared_data / "weights"))
    loaded = config.load(tmp_path / "night.toml")
    pipeline.run_night(loaded)
    store = Store(loaded.store_path)
    plain = Store(shutil.copytree(store.root, tmp_path / "plain"))
    report = packed(store)
    assert report.shards >= 3
    collect(store)
    assert pipeline.run_night(loaded).nothing_to_do
    changed = ("score.max_gap_s=0.3", "select.budget=5")
    pipeline.run_night(config.load(tmp_path / "night.toml", changed))
    pipeline.run_night(config.load(tmp_path / "night.toml", (*changed, f"store={plain.root}")))
    names = ("frames", "detections", "observations", "tracks", "scores", "scenes", "selections")
    assert rows_of([store], names) == rows_of([plain], names)
    assert housekeeping.verify(store)[1] == []


def test_rows_are_read_across_row_groups(tmp_path: Path) -> None:
    numbers = pa.table({"n": range(10), "m": range(10)})
    file = tmp_path / "x.parquet"
    pq.write_table(numbers, file, row_group_size=3)
    for first in range(11):
        for count in range(11 - first):
            found = packs.read_rows(file, first, count)
            assert found["n"].to_pylist() == list(range(first, first + count))
    assert packs.read_rows(file, 4, 3, ["m"]).column_names == ["m"]
