"""A job that is stopped, or whose disk is full, says so with its exit code, loses nothing, and goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mining import pipeline
from mining.store import Store
from mining.types import TemporaryError
from tests.mining.synthetic import Drive, commit, store_of

# Where tests run in the background, a shell has switched Ctrl-C off for their children.
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mining.cli import main; main()"
CONFIG = """
store = "store"
[footage]
paths = ["drives"]
sample_hz = 30.0
[[detector]]
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
[detect]
batch_size = 2
shard_minutes = 0.01
skip_repeats = false
[select]
budget = 6
min_gap_s = 0.1
"""


def mining(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def contents(root: Path) -> dict[str, Any]:
    with Store(root).connect() as con:
        return {
            name: con.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table().to_pylist()
            for name in ("frames", "detections", "observations", "scores", "selections")
        }


@pytest.fixture
def folder(tmp_path: Path, shared_data: Path) -> Path:
    (tmp_path / "drives").mkdir()
    shutil.copy(shared_data / "video" / "hifza_dashcam.mp4", tmp_path / "drives")
    (tmp_path / "night.toml").write_text(CONFIG.format(weights=shared_data / "weights"))
    return tmp_path


def test_stopped_by_a_signal_the_exit_code_says_so_and_the_next_run_ends_with_the_same_rows(
    folder: Path,
) -> None:
    config = str(folder / "night.toml")
    store = folder / "store"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = len(list(store.glob("done/detect/*/*.json")))
        job = mining("run", config)
        deadline = time.monotonic() + 120
        while len(list(store.glob("done/detect/*/*.json"))) < before + 2:
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        job.send_signal(number)
        _, said = job.communicate(timeout=60)
        assert job.returncode == code, said
        assert "what was committed stays" in said
        assert "Traceback" not in said
    shards = len(list(store.glob("done/detect/*/*.json")))
    assert shards >= 4
    job = mining("run", config)
    _, said = job.communicate(timeout=300)
    assert job.returncode == 0, said
    assert f"{shards} unchanged" in said
    resumed = contents(store)
    shutil.rmtree(store)
    job = mining("run", config)
    assert job.wait(timeout=300) == 0
    undisturbed = contents(store)
    for name, rows in undisturbed.items():
        assert rows == resumed[name], name


# Python imports this at its start, in every process that a job starts too.
HANGING = """
import time
from pathlib import Path
import mining.footage.recordings as recordings

def hanging(*_):
    Path("hangs").touch()
    time.sleep(3600)
    yield

recordings.{function} = hanging if "{function}" == "read_video" else lambda *more: next(hanging(*more))
"""


@pytest.mark.parametrize("function", ["probe_video", "read_video"])
def test_stopped_while_a_decoder_hangs(function: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While recordings are listed, and while they are decoded: long before the hanging one's time is up."""
    (folder / "sitecustomize.py").write_text(HANGING.format(function=function))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(__file__).parents[2]}")
    monkeypatch.chdir(folder)
    job = mining("run", "night.toml", "--set", "detect.decode_timeout_s=600")
    deadline = time.monotonic() + 120
    while not (folder / "hangs").exists():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    try:
        _, said = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 143, said
    assert "Traceback" not in said


def test_two_jobs_share_the_work_and_a_killed_one_s_is_taken_over(folder: Path) -> None:
    config = str(folder / "night.toml")
    store = folder / "store"
    first = mining("run", config)
    deadline = time.monotonic() + 120
    while not list(store.glob("done/detect/*/*.json")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    jobs = [mining("run", config, "--json") for _ in range(2)]
    time.sleep(1)
    first.kill()  # with leases in its hands
    first.communicate()
    done = len(list(store.glob("done/detect/*/*.json")))
    shared = 0
    for job in jobs:
        out, said = job.communicate(timeout=300)
        assert job.returncode == 0, said
        stages = {stage["stage"]: stage for stage in json.loads(out)["stages"]}
        shared += stages["detect"]["done"]
    shards = len(list(store.glob("done/detect/*/*.json")))
    assert shared <= shards
    assert shards - shared <= done  # each shard by one job, but for those that the first had done
    assert not list((store / "leases").glob("*.json"))
    together = contents(store)
    shutil.rmtree(store)
    job = mining("run", config)
    assert job.wait(timeout=300) == 0
    assert contents(store) == together


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_disk_at_any_write_is_said_and_leaves_old_rows_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.2]))
    real = {"replace": os.replace, "fsync": os.fsync}
    said: list[str] = []
    for at in range(200):
        left = at

        def failing(name: str) -> Any:
            def call(*values: Any) -> Any:
                nonlocal left
                left -= 1
                if left == -1:
                    raise OSError(error, os.strerror(error), str(tmp_path))
                return real[name](*values)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, failing(name))
            try:
                commit(store, Drive("r2", [0.3, 0.4, 0.5]))
                break
            except TemporaryError as reason:
                said.append(str(reason))
        with Store(store.root).connect() as con:
            for name in ("frames", "scores"):
                rows = con.execute(f"SELECT recording_id, count(*) FROM {name} GROUP BY ALL").fetchall()
                assert dict(rows) in ({"r1": 2}, {"r1": 2, "r2": 3})
        assert not list((store.root / "tmp").iterdir())
    assert len(said) > 20
    assert all(os.strerror(error) in words and "\n" not in words for words in said)
    with Store(store.root).connect() as con:
        assert con.execute("SELECT count(*) FROM scores").fetchall() == [(5,)]


def test_a_full_disk_while_rows_are_written_ends_with_75(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mining import cli

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    monkeypatch.setattr(sys, "argv", ["mining", "run", str(folder / "night.toml")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 75
    assert "No space left on device; what was committed stays" in capsys.readouterr().err


def test_a_night_that_the_disk_cannot_hold_is_not_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mining import config

    monkeypatch.setattr(pipeline, "_SPARE_BYTES", shutil.disk_usage(folder).total)
    with pytest.raises(TemporaryError, match=r"MB are free, and 89 frames need about"):
        pipeline.run_night(config.load(folder / "night.toml"))
    assert not list((folder / "store").glob("done/detect/*/*"))


def test_a_store_that_is_gone_is_not_made_anew_beside_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1]))
    shutil.rmtree(store.root)
    with pytest.raises(TemporaryError, match="the store is gone"):
        commit(store, Drive("r2", [0.2]))
    assert not store.root.exists()


def test_too_many_failed_ends_with_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", "b.mp4"):
        (folder / "drives" / name).write_text("this is no video")
    job = mining("run", str(folder / "night.toml"))
    _, said = job.communicate(timeout=300)
    assert job.returncode == 3
    assert "too many failed: 2 of 3 recordings, 0 of 89 frames" in said
    job = mining("run", str(folder / "night.toml"), "--set", "run.max_failed_share=0.7")
    assert job.wait(timeout=300) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_query_is_no_error_of_the_query(number: int, code: int) -> None:
    """DuckDB makes a RuntimeError of its own of what the handler raises."""
    script = f"""
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:] = {sys.path!r}
import duckdb
from mining import cli, config, pipeline, stop
def asks(*_, **__):
    threading.Timer(0.5, lambda: os.kill(os.getpid(), {int(number)})).start()
    con = duckdb.connect()
    stop.interruptible(con, lambda: None)
    con.execute("SELECT count(*) FROM range(100000000000) t(i) WHERE hash(i) % 7 = 3").fetchall()
pipeline.run_night, config.load = asks, lambda *_: None
sys.argv = ["mining", "run", "x.toml"]
cli.main()
"""
    job = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert job.returncode == code, job.stderr
    assert "Traceback" not in job.stderr
