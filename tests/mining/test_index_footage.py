"""Files are opened and committed side by side; what is told of them comes in their order, and each keeps its night."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from detectors.types import DetectorSpec
from mining import index_footage
from mining.config import Config, FootageConfig
from mining.decode import Decoder
from mining.store import Store
from mining.types import TemporaryError


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    folder = tmp_path / "drives"
    folder.mkdir()
    return folder


@pytest.fixture
def config(drives: Path, tmp_path: Path) -> Config:
    footage = FootageConfig(paths=[str(drives)])
    return Config(footage=footage, detector=[DetectorSpec("a.pt")], folder=str(tmp_path))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def empty(path: Path, day: int) -> Path:
    path.touch()
    at_s = datetime(2026, 3, day, 12, tzinfo=UTC).timestamp()
    os.utime(path, (at_s, at_s))
    return path


def nights(store: Store) -> list[tuple[str, int]]:
    with store.connect() as con:
        return con.execute("SELECT uri, day(night) FROM recordings ORDER BY uri").fetchall()


def test_equal_broken_files_keep_their_own_nights(store: Store, config: Config, drives: Path) -> None:
    """All empty files have the same content; each is a failure of the night that it came in, also in a later run."""
    wanted = []
    for day, name in enumerate("abc", start=1):
        wanted.append((str(empty(drives / f"{name}.mp4", day)), day))
        report, _ = index_footage.run(store, config)
        assert report.done == 1
        assert nights(store) == wanted


def test_what_is_told_comes_in_the_order_of_the_files(
    store: Store, config: Config, drives: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = shared_data / "video" / "udacity_solidWhiteRight.mp4"
    for i in range(8):
        if i % 3:
            shutil.copy(clip, drives / f"{i}.mp4")
        else:
            empty(drives / f"{i}.mp4", 1)
    together, opened = threading.Barrier(2), list[object]()
    real = Decoder.facts

    def facts(self: Decoder, *more: object) -> object:
        opened.append(self)
        if len(opened) <= 2:
            together.wait(20)  # neither goes on before the other has begun
        return real(self, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "facts", facts)
    report, found = index_footage.run(store, config)
    assert len(set(opened)) == config.detect.decode_workers == 2
    told = [
        (Path(problem.partition(": ")[0]).name, problem.endswith("mined once")) for problem in report.problems
    ]
    assert told == [(f"{i}.mp4", i % 3 > 0) for i in (0, 2, 3, 4, 5, 6, 7)]
    assert (report.done, len(found)) == (4, 4)


def test_a_commit_that_fails_ends_it_and_leaves_no_lease(
    store: Store, config: Config, drives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        empty(drives / f"{i:02}.mp4", 1)
    real, done = Store.commit, list[str]()

    def commit(self: Store, stage: str, night: object, key: str, *more: object, **notes: object) -> None:
        if len(done) >= 3:
            raise TemporaryError("the disk is full")
        real(self, stage, night, key, *more, **notes)  # type: ignore[arg-type]
        done.append(key)

    monkeypatch.setattr(Store, "commit", commit)
    with store.writing(), pytest.raises(TemporaryError, match="the disk is full"):
        index_footage.run(store, config)
    assert not list((store.root / "leases").glob("index-*"))
    monkeypatch.undo()
    report, found = index_footage.run(store, config)
    assert 3 <= len(done) < 3 + index_footage._COMMITS
    assert (report.unchanged, report.done, len(found)) == (len(done), 40 - len(done), 40)
