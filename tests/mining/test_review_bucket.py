"""A review and a report over a store in a bucket, of which a share of all requests fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from mining import compact, pipeline
from mining.config import Config
from mining.report import write
from mining.store import Store
from tests.mining import review_store
from tests.mining.flaky_s3 import FlakyS3
from tests.mining.review_store import batch_frames, rows, session


@pytest.fixture
def conf(s3: FlakyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(
        review_store, "CONFIG", review_store.CONFIG.replace('store = "store"', 'store = "s3://fleet/night"')
    )
    made = review_store.make(tmp_path, drives=("d0", "d1"), seconds=60, more='to = "out"\n')
    review_store.select(made)
    return made


def test_verdicts_are_kept_in_a_bucket_and_the_delivery_follows_them(conf: Config, s3: FlakyS3) -> None:
    s3.rate = 0.03
    ada, bob = session(conf, "ada"), session(conf, "bob")
    names = [row["frame_id"] for row in batch_frames(conf) if row["arm"] == "mined"]
    came = ada.judge(names[0], "drop", "dull")["replacement"]["frame_id"]
    bob.judge(names[0], "keep", None)  # they contradict each other: it stays out
    other = bob.judge(names[1], "drop", "dark")["replacement"]["frame_id"]
    assert other != came
    asked = s3.requests.total()
    assert all(ada.holds(name) for name in [*names, came])
    assert s3.requests.total() == asked  # a page of pictures does not list the bucket for each of them
    store = Store(conf.store_path)
    compact.run(store, min_files=2)
    assert [one["verdict"] for one in session(conf, "eve").verdicts(0)["verdicts"][names[0]]] == [
        "drop",
        "keep",
    ]
    held = {row["frame_id"] for row in batch_frames(conf) if row["in_batch"]}
    assert held >= {came, other}
    assert not held & set(names[:2])
    report, _ = pipeline.run_export(conf, batch_frames(conf)[0]["batch_id"])
    assert (report.counts["dropped"], report.counts["replaced"]) == (2, 2)
    assert {row["frame_id"] for row in rows(conf, "FROM exports WHERE status = 'ok'")} >= held
    written = write.run(store, conf, Path(conf.folder) / "page.html")
    assert (written.frames, written.without_picture) == (len(held), 0)
