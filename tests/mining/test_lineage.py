"""Each run leaves a row that says what it was and how it ended, and a file that Prometheus reads."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mining import cli, config, detect_objects, pipeline
from mining.store import Store
from mining.types import Terminated

CONFIG = """
store = "store"
[footage]
paths = ["drives"]
sample_hz = 1.0
[[detector]]
weights = "{weights}/nanodet_m.onnx"
head = "nanodet"
[select]
budget = 4
[run]
metrics = "metrics/mining.prom"
max_failed_share = 0.5
"""


@pytest.fixture
def loaded(tmp_path: Path, shared_data: Path) -> config.Config:
    (tmp_path / "drives").mkdir()
    shutil.copy(shared_data / "video" / "hifza_dashcam.mp4", tmp_path / "drives")
    (tmp_path / "night.toml").write_text(CONFIG.format(weights=shared_data / "weights"))
    return config.load(tmp_path / "night.toml")


def runs(loaded: config.Config) -> list[dict[str, Any]]:
    with Store(loaded.store_path).connect() as con:
        return con.sql("SELECT * FROM runs ORDER BY began_at").to_arrow_table().to_pylist()


def metrics(loaded: config.Config) -> dict[str, float]:
    text = loaded.path(loaded.run.metrics or "").read_text()
    names = re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)
    assert len(names) == len(set(names))
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name.split("{")[0] in names
            found[name] = float(value)
    return found


def test_a_run_is_written_down_with_all_that_decides_what_came_out(loaded: config.Config) -> None:
    night = pipeline.run_night(loaded)
    again = pipeline.run_night(loaded)
    first, second = runs(loaded)
    assert (first["run_id"], second["run_id"]) == (night.run_id, again.run_id)
    assert first["state"] == second["state"] == "done"
    assert first["ended_at"] > first["began_at"]
    assert (first["recordings"], first["failed_recordings"], first["frames"], first["failed_frames"]) == (
        1,
        0,
        4,
        0,
    )
    assert first["batch_id"] == second["batch_id"] == night.batch_id
    assert first["config_digest"] == second["config_digest"]
    assert dict(first["versions"]).keys() >= {"mining", "duckdb", "torch", "av"}
    assert dict(first["detectors"]).keys() == {"nanodet_m"}
    assert dict(first["seconds"])["detect"] > dict(second["seconds"])["detect"]
    found = metrics(loaded)
    assert found["mining_run_ok"] == 1
    assert found["mining_run_frames"] == 4
    assert found['mining_store_recordings{status="ok"}'] == 1
    assert found['mining_run_stage_seconds{stage="detect"}'] >= 0
    assert "mining_yield_lift" not in found  # nothing is measured yet
    assert "prom" not in str(first)  # nor any path


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (RuntimeError("no\nGPU"), "failed", "no GPU"),
        (Terminated(), "stopped", None),
        (KeyboardInterrupt(), "stopped", None),
    ],
)
def test_a_run_that_does_not_end_well_says_so(
    loaded: config.Config, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str, said: str | None
) -> None:
    def fail(*_: object) -> None:
        assert runs(loaded)[0]["state"] == "running"
        raise error

    monkeypatch.setattr(detect_objects, "run", fail)
    with pytest.raises(type(error)):
        pipeline.run_night(loaded)
    (row,) = runs(loaded)
    assert (row["state"], row["error"], row["frames"]) == (state, said, None)
    assert metrics(loaded)["mining_run_ok"] == 0


def test_what_failed_is_tried_again_when_asked_for(loaded: config.Config) -> None:
    drives = loaded.path("drives")
    whole = (drives / "hifza_dashcam.mp4").read_bytes()
    (drives / "hifza_dashcam.mp4").write_bytes(whole[: len(whole) // 2])
    pipeline.run_night(loaded)
    before = {stage.stage: stage.done for stage in pipeline.run_night(loaded).stages}
    assert before["index"] == before["detect"] == 0
    after = {stage.stage: stage.done for stage in pipeline.run_night(loaded, retry_failed=True).stages}
    assert after["index"] == after["detect"] == 1
    with Store(loaded.store_path).connect() as con:
        assert con.execute("SELECT count(*), count(DISTINCT frame_id) FROM observations").fetchall()[0] in {
            (2, 2),
            (3, 3),
        }


def test_json_logs_name_the_run(loaded: config.Config) -> None:
    night = pipeline.run_night(loaded)
    record = logging.LogRecord("mining", logging.INFO, "x", 1, "said", None, None)
    assert json.loads(cli.base._JsonLines().format(record))["run_id"] == night.run_id
