"""A store in a bucket holds what a store in a folder holds, while a share of all requests fails."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mining import ask, buckets, compact, doctor, housekeeping, lease, views
from mining.bucket_leases import BucketBoard
from mining.cli import cli
from mining.lease import LASTS_S, Leases
from mining.places import BucketPath, opened, place, sha256_of
from mining.schemas import SLICES, TABLES
from mining.store import Store
from mining.types import QueryError, TemporaryError, UsageError
from tests.mining.flaky_s3 import FlakyS3
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, commit, table

DRIVES = (
    Drive("r1", [0.1, 0.9, 0.3]),
    Drive("r2", [0.5]),
    Drive("r3", [0.2, 0.4], tags=(("weather", "rain'; DROP TABLE x; --"),)),
    Drive("r4", [0.6, 0.7]),
)
RATE = 0.05
MINING = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mining.cli import main; main()",
]


ROOT = BucketPath("s3://fleet/nights/store 1")


def filled(root: Path | BucketPath, drives: tuple[Drive, ...] = DRIVES) -> Store:
    store = Store(root, create=True)
    with store.writing():
        for drive in drives:
            commit(store, drive)
        row = {
            "batch_id": "b1",
            "frame_id": "r1-0000001",
            "committee_id": COMMITTEE,
            "status": "ok",
            "arm": "mined",
        }
        batch = {"selections": table("selections", [row]), "slices": SLICES.empty_table()}
        store.commit("select", NIGHT, "b1", batch, digest="d", committee_id=COMMITTEE)
    return store


def rows_of(store: Store) -> dict[str, list[Any]]:
    with views.connect([store], locked=True) as con:
        return {
            name: con.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table().to_pylist()
            for name in (*TABLES, "mined")
        }


def objects(below: str) -> list[str]:
    return [found.uri.removeprefix(f"{ROOT}/") for found in buckets.listed(f"{ROOT}/{below}")]


def without_locks(store: Store) -> list[str]:
    return [uri for uri in objects("") if not uri.startswith("leases/.")]


# -- the store ---------------------------------------------------------------------------------------------------------


def test_it_holds_the_rows_of_a_store_in_a_folder_while_requests_fail(s3: FlakyS3, tmp_path: Path) -> None:
    here = filled(tmp_path / "store")
    s3.rate = RATE
    there = filled(ROOT)
    assert rows_of(there) == rows_of(here)
    with there.writing():
        there.retract("score", NIGHT, "r1")
        commit(there, Drive("r2", [0.25, 0.75]))
    with here.writing():
        here.retract("score", NIGHT, "r1")
        commit(here, Drive("r2", [0.25, 0.75]))
    assert rows_of(there) == rows_of(here)
    shards, damaged = housekeeping.verify(there)
    assert (shards, damaged) == (housekeeping.verify(here)[0], [])
    assert there.keys("score", NIGHT) == here.keys("score", NIGHT) == ["r2", "r3", "r4"]
    assert there.read("scores", NIGHT, "r2").equals(here.read("scores", NIGHT, "r2"))
    assert there.marker_of("score", NIGHT, "r1") is None
    assert not [uri for uri in objects("leases") if not uri.endswith(".clock")]
    assert not list(there.tmp.iterdir())
    assert s3.failed.total() > 0


def test_small_files_are_packed_and_what_is_left_over_goes_when_it_is_old(
    s3: FlakyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = filled(tmp_path / "store"), filled(ROOT)
    before = rows_of(here)
    s3.rate = RATE
    monkeypatch.setattr(compact, "GROUP_ROWS", 3)
    for store in (here, there):
        assert compact.run(store, min_files=2).shards == 12
        assert rows_of(store) == before
        assert store.read("scores", NIGHT, "r3").num_rows == 2
    with there.writing():
        commit(there, Drive("r3", [0.8]))  # leaves its pack
    with here.writing():
        commit(here, Drive("r3", [0.8]))
    assert rows_of(there) == rows_of(here)
    assert housekeeping.verify(there)[1] == []
    with there.alone():
        assert housekeeping.garbage(there, (), 24.0).files == []  # a job that slept may still commit it
        housekeeping.collect(there, found := housekeeping.garbage(there, (), 0.0))
    assert len(found.files) > 12
    assert rows_of(there) == rows_of(here)
    assert housekeeping.verify(there)[1] == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_listing_that_lacks_what_is_committed_costs_nothing(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    store = filled(ROOT)
    if packed:
        compact.run(store, min_files=2)
        with store.alone():
            housekeeping.collect(store, housekeeping.garbage(store, (), 0.0))
    before = rows_of(store)
    real = buckets.names
    with monkeypatch.context() as patched, store.alone():
        # As where a page of somebody's in between is taken for the answer.
        patched.setattr(buckets, "names", lambda uri: ([], []) if uri.endswith("/done/score") else real(uri))
        with pytest.raises(TemporaryError, match=r"is committed, and the listing of commits lacks it"):
            housekeeping.garbage(store, (), 0.0)
    assert rows_of(store) == before


def test_damage_is_found_and_taken_back(s3: FlakyS3) -> None:
    store = filled(ROOT)
    file = store.table_file("scores", NIGHT, "r1")
    assert isinstance(file, BucketPath)
    buckets.put(file.uri, file.read_bytes()[:-10])
    store.table_file("frames", NIGHT, "r2").unlink()
    answer = CliRunner().invoke(cli, ["verify", str(ROOT), "--retract", "--json"])
    found = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert sorted(one["stage"] for one in found["damaged"]) == ["index", "score"]
    assert (NIGHT, "r1") not in store.markers("score")


@pytest.mark.parametrize("crash_at", range(1, 9))
def test_a_job_killed_at_any_write_shows_old_rows_or_none_never_a_mixture(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    store = filled(ROOT, DRIVES[:1])
    new = Drive("r1", [0.5, 0.6])
    left = crash_at

    class Killed(BaseException):
        pass

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed  # and whatever would come after is not done either
            return call(*values)

        return wrapped

    with monkeypatch.context() as patched:
        for name in ("put", "create", "replace", "delete"):
            patched.setattr(buckets, name, counted(getattr(buckets, name)))
        with pytest.raises(Killed):
            commit(store, new)
    for name in ("frames", "observations", "scores"):
        with store.connect() as con:
            found = con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
        assert found in (0, 2, 3)
    commit(store, new)
    assert [row["hardness"] for row in rows_of(store)["scores"]] == pytest.approx([0.5, 0.6])
    assert housekeeping.verify(store)[1] == []


def test_a_query_over_a_file_that_is_written_anew_says_so_and_never_mixes(s3: FlakyS3) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"x": np.random.default_rng(1).random(4_000_000)}), content, compression="none")
    buckets.put(f"{ROOT}/big.parquet", content.getvalue())
    file = opened(f"{ROOT}/big.parquet")
    assert file.read(4) == b"PAR1"
    buckets.put(f"{ROOT}/big.parquet", bytes(len(content.getvalue())))
    file.seek(20_000_000)
    with pytest.raises(buckets.Changed, match="written anew"):
        file.read(4)


def test_reading_in_parts_gives_the_bytes_that_are_there(s3: FlakyS3) -> None:
    content = np.random.default_rng(2).integers(0, 256, 20_000_000, dtype=np.uint8).tobytes()
    buckets.put(f"{ROOT}/x", content)
    s3.rate = RATE
    file = opened(f"{ROOT}/x")
    for at, size in ((0, 10), (19_999_990, 100), (5_000_000, 3_000_000), (7, 1), (20_000_000, 5)):
        file.seek(at)
        assert file.read(size) == content[at : at + size]
    assert sha256_of(BucketPath(f"{ROOT}/x")) == hashlib.sha256(content).hexdigest()


def test_threads_of_duckdb_that_share_a_file_read_their_own_parts(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB seeks and then reads, from several threads by one Python file."""
    monkeypatch.setattr("mining.places._WHOLE_BYTES", 1000)
    rng = np.random.default_rng(3)
    values = {f"c{n}": rng.random(200_000) for n in range(6)}
    content = io.BytesIO()
    pq.write_table(pa.table(values), content, row_group_size=20_000)
    store = filled(ROOT, ())
    buckets.put(f"{ROOT}/x.parquet", content.getvalue())
    with store.connect() as con:
        con.execute("SET threads = 6")
        for _ in range(5):
            found = con.execute(
                f"SELECT {', '.join(f'sum({name})' for name in values)} FROM read_parquet('{ROOT}/x.parquet')"
            ).fetchall()[0]
            assert found == pytest.approx([column.sum() for column in values.values()])


def test_queries_from_people_open_nothing_but_the_store(s3: FlakyS3) -> None:
    filled(ROOT)
    buckets.put("s3://fleet/secret.parquet", b"x")
    answer = CliRunner().invoke(
        cli, ["sql", "SELECT count(*) AS n FROM mined", "--store", str(ROOT), "--format", "json"]
    )
    assert json.loads(answer.stdout) == [{"n": 8}]
    with (
        Store(ROOT).connect(locked=True) as con,
        pytest.raises(duckdb.Error, match=r"[Pp]ermission|disabled"),
    ):
        con.execute("SELECT * FROM read_blob('s3://fleet/secret.parquet')").fetchall()


def test_nothing_of_credentials_is_told(s3: FlakyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 1.0)
    for uri in ("s3://AKIAKEY:hunter2@fleet/x", "s3://fleet/x?secret_key=hunter2", "gs://fleet/x"):
        with pytest.raises(UsageError) as told:
            place(uri)
        assert "hunter2" not in str(told.value)
        assert "AKIAKEY" not in str(told.value)
    with pytest.raises(UsageError, match=r"s3://nobucket/x: no such bucket"):
        Store(BucketPath("s3://nobucket/x"), create=True)
    with pytest.raises(UsageError, match=r"nights/none: no store here yet"):
        Store(BucketPath("s3://fleet/nights/none"))
    buckets.put("s3://fleet/other/file.txt", b"x")
    with pytest.raises(UsageError, match="not a store, and not empty"):
        Store(BucketPath("s3://fleet/other"), create=True)
    s3.rate, s3.faults = 1.0, ("503",)
    with pytest.raises(TemporaryError, match=r"503 .*try again later") as gone:
        Store(ROOT)
    assert "hunter2" not in str(gone.value)
    answer = CliRunner().invoke(cli, ["verify", str(ROOT)])
    assert isinstance(answer.exception, TemporaryError)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    "command", [["status"], ["verify"], ["sql", "SELECT count(*) FROM mined", "--store"]]
)
def test_a_job_that_waits_for_a_silent_service_can_be_stopped(
    s3: FlakyS3, command: list[str], number: int, code: int
) -> None:
    filled(ROOT, DRIVES[:1])
    s3.rate, s3.faults, before = 1.0, ("hang",), s3.requests.total()
    # Once in the first request, once in DuckDB's hands.
    s3.only = lambda _, path: command[0] == "status" or path.endswith(".parquet")
    job = subprocess.Popen([*MINING, *command, str(ROOT)], stderr=subprocess.PIPE, text=True)
    while not s3.failed["hang"]:
        assert job.poll() is None
        time.sleep(0.1)
    job.send_signal(number)
    _, said = job.communicate(timeout=25)  # it would wait for a minute
    assert (job.returncode, "Traceback" in said) == (code, False), said
    assert s3.requests.total() > before


def test_a_query_that_waits_for_a_silent_service_ends_when_its_time_is_over(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 1e9)
    monkeypatch.setattr(buckets, "_SILENT_FOR_S", 1e5)
    filled(ROOT)
    # The view opens the first file, the query all of them.
    s3.rate, s3.faults, s3.only = (
        1.0,
        ("hang",),
        lambda _, path: path.endswith("/scores/night=2026-03-14/r4.parquet"),
    )
    with pytest.raises(QueryError, match="stopped after 1 s"):
        ask.query([ROOT], "SELECT sum(hardness) FROM scores", timeout_s=1)
    assert s3.failed["hang"]


def test_a_query_whose_service_goes_says_that_in_one_line(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 1.0)
    monkeypatch.setattr(buckets, "RETRIES", 1)
    store = filled(ROOT)
    with store.connect() as con:
        s3.rate, s3.faults = 1.0, ("503",)
        with pytest.raises(duckdb.Error) as raised:
            con.execute("SELECT sum(hardness) FROM scores").fetchall()
        told = views.unreadable(raised.value)
        assert isinstance(told, TemporaryError)
        assert str(told).startswith(f"{ROOT}/tables/scores/")
        assert "503" in str(told)
        assert "Traceback" not in str(told)
        s3.rate = 0.0
        store.table_file("scores", NIGHT, "r2").unlink()
        with pytest.raises(duckdb.Error) as raised:
            con.execute("SELECT sum(hardness) FROM scores").fetchall()
        assert "r2.parquet: committed, but missing" in str(views.unreadable(raised.value))


@pytest.mark.parametrize(
    "uri",
    ["s3://[x/y", "s3://fleet//x", "s3://fleet/a/../b", "s3://fleet/./x", "s3://fleet/a\nb", "s3://fleet/\x1b[31m"],
)  # fmt: skip
def test_a_place_that_no_object_can_have_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        place(uri)


@pytest.mark.parametrize("prefix", ["100% #1+2&=é ~$'()", "[a]*?{b}", "x" * 200, ".hidden/-dash", 'a"b\\c'])
def test_a_store_may_bear_odd_names(s3: FlakyS3, prefix: str) -> None:
    root = BucketPath(f"s3://fleet/{prefix}".replace("=", ""))
    store = filled(root, DRIVES[:1])
    assert [row["hardness"] for row in rows_of(store)["scores"]] == pytest.approx([0.1, 0.9, 0.3])
    assert housekeeping.verify(store)[1] == []


def test_what_no_further_try_mends_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "RETRY_FOR_S", 1e9)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")

    class Service(http.server.BaseHTTPRequestHandler):
        status, body = 301, b""

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        buckets._client.cache_clear()
        with pytest.raises(UsageError, match=r"another region.*AWS_REGION"):
            buckets.read("s3://fleet/x")
        Service.status, Service.body = 400, b"<Error><Code>ExpiredToken</Code></Error>"
        with pytest.raises(UsageError, match="ExpiredToken"):
            buckets.read("s3://fleet/x")
        server.shutdown()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage:hunter2@nonsense")
    buckets._client.cache_clear()
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL: give a URL") as told:
        buckets.read("s3://fleet/x")
    assert "hunter2" not in str(told.value)
    buckets._client.cache_clear()
    of_role = (
        "Error performing PUT http://169.254.169.254/latest/api/token - non-2xx status code: 403 Forbidden"
    )
    assert buckets._said(Exception(of_role)).startswith("no credentials: set AWS_ACCESS_KEY_ID")


def test_two_jobs_may_make_the_store_at_once(s3: FlakyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(ROOT, create=True)
    monkeypatch.setattr(BucketPath, "exists", lambda _: False)  # as the other job saw it before
    Store(ROOT, create=True)


def test_doctor_finds_a_service_that_does_not_heed_conditions(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Config:
        store_path = ROOT

    config: Any = Config()
    assert doctor._store(config) == f"{ROOT} is writable"
    monkeypatch.setattr(buckets, "_put_if", lambda uri, content, _: (buckets.put(uri, content), True)[1])
    with pytest.raises(RuntimeError, match="does not heed conditional writes"):
        doctor._store(config)
    assert objects("leases") == []


# -- conditional writes ------------------------------------------------------------------------------------------------


def test_a_write_whose_answer_is_lost_is_known_as_ones_own(s3: FlakyS3) -> None:
    s3.faults, s3.rate, s3.only = ("lost",), 0.5, lambda method, _: method == "PUT"
    for n in range(12):
        uri = f"{ROOT}/x{n}"
        assert buckets.create(uri, b"mine")
        assert not buckets.create(uri, b"another's")
        assert buckets.replace(uri, b"newer", buckets.read(uri)[1])
        assert buckets.read(uri)[0] == b"newer"
    assert s3.failed["lost"] > 5


def test_of_two_jobs_that_take_shards_out_of_one_list_of_packs_none_is_forgotten(s3: FlakyS3) -> None:
    store = filled(ROOT)
    compact.run(store, min_files=2)
    s3.rate = RATE
    begin = threading.Barrier(4)
    failed: list[BaseException] = []

    def job(recording: str) -> None:
        try:
            mine = Store(ROOT)
            begin.wait()
            with mine.writing():
                commit(mine, Drive(recording, [0.3]))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=job, args=(f"r{n}",)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [row["hardness"] for row in rows_of(store)["scores"]] == pytest.approx([0.3] * 4)
    assert housekeeping.verify(store)[1] == []


# -- leases ------------------------------------------------------------------------------------------------------------


def leases() -> Leases:
    return Leases(BucketBoard(ROOT))


def test_one_job_holds_a_lease_until_it_drops_it(s3: FlakyS3) -> None:
    one, other = leases(), leases()
    assert one.take("detect-a")
    assert not other.take("detect-a")
    assert not one.take("detect-a")
    assert other.take("detect-b")
    assert "process" in (other.holder("detect-a") or "")
    other.drop("detect-a")  # not its own
    assert not other.take("detect-a")
    one.drop_all()
    assert other.take("detect-a")
    other.drop_all()
    assert [uri for uri in objects("leases") if not uri.endswith(".clock")] == []


def written_by_another_host(name: str) -> None:
    buckets.put(f"{ROOT}/leases/{name}.json", json.dumps({"job": "x", "host": "another", "pid": 1}).encode())


def test_of_many_that_grasp_at_a_lapsed_one_one_gets_it(s3: FlakyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.rate = RATE
    monkeypatch.setattr(BucketBoard, "_age_s", lambda self, uri: LASTS_S + 1)
    for n in range(5):
        written_by_another_host(f"x{n}")
        got: list[bool] = []
        begin = threading.Barrier(6)
        grown: list[Leases] = []

        def grasp(
            name: str = f"x{n}",
            got: list[bool] = got,
            begin: threading.Barrier = begin,
            grown: list[Leases] = grown,
        ) -> None:
            mine = leases()
            grown.append(mine)
            begin.wait()
            # What the first has taken has not lapsed.
            got.append(mine._board.claim(name, mine._me) if not any(got) else False)

        threads = [threading.Thread(target=grasp) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = json.loads(buckets.read(f"{ROOT}/leases/x{n}.json")[0])["job"]
        assert held in {mine._me["job"] for mine in grown}
        assert sum(got) >= 1


def test_a_lease_of_another_host_lapses_by_the_clock_of_the_service(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = buckets.described
    behind_s = [0.0]

    def described(uri: str) -> buckets.Object:
        found = real(uri)
        return (
            found
            if uri.endswith(".clock")
            else dataclasses.replace(found, modified_s=found.modified_s - behind_s[0])
        )

    monkeypatch.setattr(buckets, "described", described)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this host's is wrong
    written_by_another_host("scenes")
    mine = leases()
    assert not mine.take("scenes")
    behind_s[0] = LASTS_S - 20
    assert not mine.take("scenes")
    assert mine.holder("scenes") is not None
    behind_s[0] = LASTS_S + 2
    assert mine.take("scenes")


def test_a_lease_is_kept_as_long_as_the_job_lives_and_not_after_it(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LASTS_S", 2.0)
    mine, other = leases(), leases()
    other._me["host"] = mine._me["host"] = "another"  # so that nobody looks for the process
    assert mine.take("a")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert not other.take("a")
        time.sleep(0.5)
    mine._ended.set()
    for _ in itertools.count():
        if other.take("a"):
            break
        time.sleep(0.3)
    with pytest.raises(OSError, match="taken it over"):
        mine._board.keep("a", mine._me)


def test_a_lease_given_back_twice_is_not_taken_from_who_has_it_now(s3: FlakyS3) -> None:
    """The answer to the first deletion is lost, and another job takes the lease before the second try."""
    one, other = leases(), leases()
    assert one.take("scenes")
    s3.rate, s3.faults, s3.only = 1.0, ("lost",), lambda method, _: method == "POST" and not s3.failed
    grasping = threading.Thread(target=lambda: [None for _ in iter(lambda: other.take("scenes"), True)])
    grasping.start()
    one.drop("scenes")
    grasping.join()
    assert s3.failed["lost"] == 1
    assert json.loads(buckets.read(f"{ROOT}/leases/scenes.json")[0])["job"] == other._me["job"]


def test_a_job_that_slept_commits_only_where_nobody_had_the_store_meanwhile(
    s3: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(ROOT, DRIVES[:1])
    awake = time.time
    with store.writing():
        monkeypatch.setattr(time, "time", lambda: awake() + 3600)
        commit(store, DRIVES[1])
        monkeypatch.setattr(time, "time", lambda: awake() + 7200)
        (held,) = [uri for uri in objects("leases") if uri.startswith("leases/job-")]
        buckets.delete(f"{ROOT}/{held}")  # as a job does that has it alone
        with pytest.raises(TemporaryError, match="this job slept"):
            commit(store, DRIVES[2])
        with pytest.raises(TemporaryError, match="this job slept"):
            store.retract("score", NIGHT, "r1")
    assert store.keys("score", NIGHT) == ["r1", "r2"]


def test_writers_share_a_store_and_who_tidies_it_has_it_alone(s3: FlakyS3) -> None:
    store = filled(ROOT, ())
    with (
        store.writing(),
        Store(ROOT).writing(),
        pytest.raises(TemporaryError, match="another mining job is writing"),
        Store(ROOT).alone(),
    ):
        pass
    with store.alone():
        with pytest.raises(TemporaryError, match="being tidied up"), Store(ROOT).writing():
            pass
        with pytest.raises(TemporaryError, match="being tidied up"), Store(ROOT).alone():
            pass
    with store.writing():
        pass
    written_by_another_host("job-dead")
    with pytest.raises(TemporaryError, match="another mining job is writing"), store.alone():
        pass


def test_sql_reads_a_bucket_and_a_folder_as_one(s3: FlakyS3, tmp_path: Path) -> None:
    filled(tmp_path / "store", DRIVES[:2])
    filled(ROOT, DRIVES[1:])
    with views.connect([Store(tmp_path / "store"), Store(ROOT)]) as con:
        found = con.execute("SELECT recording_id, count(*) FROM scores GROUP BY ALL ORDER BY ALL").fetchall()
    assert found == [("r1", 3), ("r2", 1), ("r3", 2), ("r4", 2)]
