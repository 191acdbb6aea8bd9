"""What one job sees of a store while another one writes to it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from mining import config, detect_objects, index_footage, score_recording
from mining.committee import Committee
from mining.config import Config
from mining.store import Store
from mining.types import TemporaryError

COMMITTEE = Committee("c-0", ("d",), ("car",), (0.25,))


@pytest.fixture
def conf(tmp_path: Path, shared_data: Path) -> Config:
    (tmp_path / "drives").mkdir()
    for name in ("hifza_dashcam.mp4", "udacity_solidWhiteRight.mp4"):
        shutil.copy(shared_data / "video" / name, tmp_path / "drives")
    (tmp_path / "night.toml").write_text(
        'store = "store"\n[footage]\npaths = ["drives"]\n[[detector]]\nweights = "a.pt"\n'
    )
    return config.load(tmp_path / "night.toml")


def test_what_another_job_committed_meanwhile_is_not_committed_again(
    conf: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit's steps the recording would be gone for a third job, with all that was seen in it."""
    store = Store(conf.store_path, create=True)
    _, ids = index_footage.run(store, conf)

    def committed(*_: Any, **__: Any) -> None:
        raise AssertionError("committed again")

    monkeypatch.setattr(index_footage, "_known", lambda _: {})  # as this job saw the store when it began
    monkeypatch.setattr(Store, "commit", committed)
    report, again = index_footage.run(Store(conf.store_path), conf)
    assert (report.done, report.unchanged, again) == (0, 2, ids)


@pytest.mark.parametrize("stage", ["detect", "score"])
def test_a_recording_whose_index_is_written_anew_is_waited_for(
    stage: str, conf: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(conf.store_path, create=True)
    _, ids = index_footage.run(store, conf)

    def look() -> list[str]:
        if stage == "detect":
            return sorted({shard.recording_id for shard in detect_objects.plan(store, conf, COMMITTEE, ids)})
        score_recording.units_of(store, COMMITTEE, ids)
        return ids

    marker = next(path for path in conf.store_path.glob("done/index/*/*.json") if path.stem == ids[0])
    content = marker.read_bytes()
    marker.unlink()
    anew = threading.Timer(1.0, lambda: marker.write_bytes(content))
    anew.start()
    assert look() == ids
    assert marker.exists()
    anew.join()

    marker.unlink()
    monkeypatch.setattr("mining.store._REWRITTEN_WITHIN_S", 0.5)
    with pytest.raises(TemporaryError, match=rf"gone \(recording_id {ids[0]}\); run the same command again"):
        look()


def test_a_commit_that_fails_does_not_wait_for_other_jobs(
    conf: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be waiting for the lease of what could not be committed."""
    first, second = (Store(conf.store_path, create=True) for _ in range(2))
    taken: list[str] = []
    take = first.leases.take

    def second_taken_by_another(name: str) -> bool:
        taken.append(name)
        return take(name) if len(taken) == 1 else second.leases.take(name) and False

    def full(*_: Any, **__: Any) -> None:
        raise TemporaryError("no space left")

    def waits(_: float) -> None:
        raise AssertionError("waits with a lease in its hands")

    monkeypatch.setattr(first.leases, "take", second_taken_by_another)
    monkeypatch.setattr(Store, "commit", full)
    monkeypatch.setattr(index_footage.time, "sleep", waits)
    with second.writing(), pytest.raises(TemporaryError, match="no space left"):
        index_footage.run(first, conf)
