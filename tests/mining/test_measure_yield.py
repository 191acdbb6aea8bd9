"""Yields of a store filled by hand, each counted by hand, and a summary that is honest about what it cannot know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from mining import measure_text, measure_yield
from mining.cli import cli
from mining.config import Config
from mining.store import STAGE_TABLES, Store
from mining.types import MiningError, UsageError
from mining.yield_summary import KINDS, Measured, summarise
from tests.mining.synthetic import COMMITTEE, NIGHT, Drive, store_of, table

BATCH = "2026-03-14-aaaaaa"
BOX, OTHER, FAR = (0, 0, 100, 100), (300, 0, 400, 100), (600, 0, 700, 100)
PRIMARY = {"detector": "a", "threshold": 0.5, "classes": ["car", "truck"]}


def config(**labels: Any) -> Config:
    content = {"footage": {"paths": ["x"]}, "detector": [{"weights": "a.pt"}], "labels": labels}
    return Config.model_validate_json(json.dumps({**content, "score": {"hardness": {"entropy_max": 1.0}}}))


def seen(
    frame: str, class_name: str, box: tuple[int, ...], confidence: float = 0.9, detector: str = "a"
) -> dict[str, Any]:
    edges = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), map(float, box), strict=True))
    return {"frame_id": frame, "committee_id": COMMITTEE, "detector": detector, "box_index": 0, "class": class_name,
            "confidence": confidence, "match_id": 0, **edges}  # fmt: skip


def label(
    frame: str, class_name: str | None = None, box: tuple[int, ...] | None = None, **more: Any
) -> dict[str, Any]:
    edges = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), map(float, box), strict=True)) if box else {}
    return {"batch_id": BATCH, "frame_id": frame, "vendor": "coco", "class": class_name, "is_truth": True,
            "is_fused": False, "ignore": False, **edges, **more}  # fmt: skip


def fill(
    store: Store,
    detections: list[dict[str, Any]],
    arms: dict[str, str],
    primary: Any = PRIMARY,
    drive: str = "r0",
) -> None:
    """Commit detections, observations that say that the detector looked, and a batch."""
    ids = [f"{drive}-{i:07d}" for i in range(8)]
    looked = [
        {
            "frame_id": f,
            "committee_id": COMMITTEE,
            "recording_id": drive,
            "status": "ok",
            "box_count": [("a", 1), ("b", 1)],
        }
        for f in ids
    ]
    notes = {"recording_id": drive, "committee_id": COMMITTEE, "sees": {}}
    tables = {"detections": table("detections", detections), "observations": table("observations", looked)}
    store.commit("detect", NIGHT, drive, tables, digest="y", **notes)
    rows = [
        {"batch_id": BATCH, "frame_id": f, "committee_id": COMMITTEE, "rank": i, "arm": arm, "slice": None}
        for i, (f, arm) in enumerate(arms.items())
    ]
    store.commit(
        "select", NIGHT, BATCH, {"selections": table("selections", rows), "slices": table("slices", [])}, digest="z",
        committee_id=COMMITTEE, settings="s", scored=[], **({} if primary is None else {"primary": primary}),
    )  # fmt: skip


def deliver(
    store: Store,
    rows: list[dict[str, Any]],
    name: str = "i1",
    minute: int = 0,
    rejects: Sequence[dict[str, Any]] = (),
) -> None:
    at = datetime(2026, 3, 20, tzinfo=UTC) + timedelta(minutes=minute)
    labels = [{**row, "import_id": name, "imported_at": at} for row in rows]
    rows_of = {"labels": labels, "label_rejects": list(rejects)}
    tables = {t: table(t, rows_of.get(t, [])) for t in STAGE_TABLES["import"]}
    store.commit("import", NIGHT, name, tables, digest=name)


def yields(store: Store) -> dict[str, dict[str, Any]]:
    with store.connect() as con:
        return {r["frame_id"]: r for r in con.sql("FROM yields").to_arrow_table().to_pylist()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path, Drive("r0", [i / 8 for i in range(8)]))


F = [f"r0-{i:07d}" for i in range(8)]


def test_each_kind_of_error_is_counted_once(store: Store) -> None:
    detections = [
        seen(F[0], "car", BOX), seen(F[0], "car", OTHER),  # the second: a false alarm
        seen(F[1], "truck", BOX),  # wrong class
        seen(F[2], "car", (60, 0, 160, 100)),  # misplaced: IoU .25
        seen(F[3], "car", BOX, 0.49),  # below the threshold that the batch was chosen with: missed
        seen(F[3], "car", BOX, 0.9, detector="b"),  # not the primary
        seen(F[4], "bus", BOX),  # a class that labels and primary do not share
        seen(F[5], "car", (10, 10, 50, 50)),  # in a crowd
        seen(F[6], "car", (10, 10, 50, 50)),  # in a crowd of what the primary cannot see
    ]  # fmt: skip
    fill(store, detections, dict.fromkeys(F, "mined"))
    deliver(store, [
        label(F[0], "car", BOX), label(F[1], "car", BOX), label(F[2], "car", BOX), label(F[3], "car", BOX),
        label(F[4], "bus", OTHER), label(F[5], "car", BOX, ignore=True), label(F[6], "animal", BOX, ignore=True), label(F[7], None),
    ])  # fmt: skip
    report = measure_yield.run(store, config(), [BATCH])
    assert (report.done, report.counts["frames"], report.problems) == (1, 8, [])
    got = yields(store)
    columns = ("objects", "boxes", *KINDS, "errors")
    assert {f: tuple(row[c] for c in columns) for f, row in got.items()} == {
        F[0]: (1, 2, 0, 1, 0, 0, 1),
        F[1]: (1, 1, 0, 0, 0, 1, 1),
        F[2]: (1, 1, 0, 0, 1, 0, 1),
        F[3]: (1, 0, 1, 0, 0, 0, 1),
        F[4]: (0, 0, 0, 0, 0, 0, 0),
        F[5]: (0, 1, 0, 0, 0, 0, 0),
        F[6]: (0, 1, 0, 0, 0, 0, 0),
        F[7]: (0, 0, 0, 0, 0, 0, 0),
    }
    assert {(r["detector"], r["committee_id"], r["import_id"], r["arm"]) for r in got.values()} == {
        ("a", COMMITTEE, "i1", "mined")
    }


def test_frames_without_labels_are_not_measured_and_said(store: Store) -> None:
    fill(store, [], dict.fromkeys(F[:3], "random"))
    deliver(store, [label(F[0], "car", BOX)])
    report = measure_yield.run(store, config(), [])
    assert report.counts == {
        "frames": 1,
        "frames_without_labels": 2,
        "frames_not_seen": 0,
        "frames_with_lost_boxes": 0,
    }
    assert list(yields(store)) == [F[0]]


def test_a_frame_whose_labels_lost_boxes_is_not_measured(store: Store) -> None:
    """Its bad boxes were not taken in: what the detector saw there would be false alarms."""
    fill(store, [seen(F[i], "car", BOX) for i in range(3)], dict.fromkeys(F[:3], "mined"))
    rejects = [
        {"import_id": "i1", "frame_id": F[0], "kind": "no_area"},
        {"import_id": "i1", "frame_id": F[1], "kind": "duplicate"},  # nothing is lost by that
        {"import_id": "another", "frame_id": F[2], "kind": "no_area"},
    ]
    deliver(store, [label(F[i], "car", BOX) for i in range(3)], rejects=rejects)
    report = measure_yield.run(store, config(), [])
    assert set(yields(store)) == {F[1], F[2]}
    assert report.counts["frames_with_lost_boxes"] == 1
    assert "1 labelled frames are not measured: boxes of theirs were bad" in report.problems[0]
    # A better delivery of it is.
    deliver(store, [label(F[0], "car", BOX)], "i2", minute=1)
    measure_yield.run(store, config(), [])
    assert set(yields(store)) == set(F[:3])


def test_a_frame_that_the_primary_did_not_look_at_is_not_all_missed(store: Store) -> None:
    fill(store, [], {F[0]: "mined", "elsewhere-0000001": "mined"})
    deliver(store, [label(F[0], "car", BOX), label("elsewhere-0000001", "car", BOX)])
    report = measure_yield.run(store, config(), [])
    assert list(yields(store)) == [F[0]]
    assert report.counts["frames_not_seen"] == 1
    assert "1 labelled frames are not measured" in report.problems[0]


def test_newer_labels_replace_the_rows_and_the_same_labels_do_nothing(store: Store) -> None:
    fill(store, [seen(F[0], "car", BOX)], {F[0]: "mined"})
    deliver(store, [label(F[0], "car", BOX), label(F[0], "car", OTHER)])
    measure_yield.run(store, config(), [BATCH])
    assert yields(store)[F[0]]["missed"] == 1
    again = measure_yield.run(store, config(), [BATCH])
    assert (again.done, again.unchanged) == (0, 1)
    deliver(store, [label(F[0], "car", BOX)], "i2", minute=5)
    assert measure_yield.run(store, config(), [BATCH]).done == 1
    row = yields(store)[F[0]]
    assert (row["missed"], row["import_id"]) == (0, "i2")


def test_classes_that_labelers_were_not_asked_for_count_against_nobody(store: Store) -> None:
    fill(store, [seen(F[0], "truck", OTHER)], {F[0]: "mined"})
    deliver(store, [label(F[0], "car", BOX), label(F[0], "truck", FAR)])
    measure_yield.run(store, config(classes=["car"]), [BATCH])
    assert (yields(store)[F[0]]["false_alarms"], yields(store)[F[0]]["missed"]) == (0, 1)
    measure_yield.run(store, config(), [BATCH])
    assert (yields(store)[F[0]]["false_alarms"], yields(store)[F[0]]["missed"]) == (1, 2)


def test_what_cannot_be_measured_is_refused_in_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [], {F[0]: "mined"}, primary=None)
    with pytest.raises(UsageError, match=r"no batch is called 'x'; the latest: 2026-03-14-aaaaaa"):
        measure_yield.run(store, config(), ["x"])
    with pytest.raises(MiningError, match=r"none of its frames has labels yet; `mining import-labels`"):
        measure_yield.run(store, config(), [BATCH])
    with pytest.raises(UsageError, match=r"labels.classes: 'tank' is no fleet class"):
        measure_yield.run(store, config(classes=["tank"]), [])
    with pytest.raises(MiningError, match=r"nothing is measured yet"):
        measure_yield.summary(store, config(), [])
    deliver(store, [label(F[0], "car", BOX)])

    class Another:
        committee_id = "other-1"

    monkeypatch.setattr(measure_yield, "committee_of", lambda _config: Another())
    with pytest.raises(
        UsageError, match=r"chosen by committee a\+b-00000000, before thresholds were kept.*others.*--batch"
    ):
        measure_yield.run(store, config(), [BATCH])


def test_the_threshold_of_the_config_stands_in_where_none_was_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [seen(F[0], "car", BOX, 0.4)], {F[0]: "mined"}, primary=None)
    deliver(store, [label(F[0], "car", BOX)])

    class Same:
        committee_id = COMMITTEE

    monkeypatch.setattr(measure_yield, "committee_of", lambda _config: Same())
    monkeypatch.setattr(measure_yield, "primary_of", lambda *_: {**PRIMARY, "threshold": 0.3})
    measure_yield.run(store, config(), [BATCH])
    assert yields(store)[F[0]]["missed"] == 0


def test_the_summary_joins_what_selection_knew(store: Store) -> None:
    fill(store, [], {F[0]: "random", F[6]: "mined", F[7]: "mined"})
    deliver(store, [label(F[0], "car", BOX), *(label(F[i], "car", b) for i in (6, 7) for b in (BOX, OTHER))])
    measure_yield.run(store, config(), [])
    got = measure_yield.summary(store, config(), [BATCH])
    assert (got.frames, got.drives, got.drawn) == (3, 1, "frames")
    assert (got.arms["mined"].missed, got.arms["random"].missed) == (4, 1)
    assert got.lift_per_frame.value == 2.0
    assert got.lift_per_frame.low is None  # one random frame: no interval, and no made-up one
    assert [group.name for group in got.by_signal] == ["entropy_max"]
    assert got.hardness.value is None
    assert "ranks need 10 frames" in (got.hardness.note or "")
    page = measure_text.text(got)
    assert "lift, errors per frame (mined / random): 2.00, no interval" in page
    assert "hardness with errors, all measured frames: not computable" in page
    assert json.loads(json.dumps(measure_text.as_dict(got)))["arms"]["mined"]["per_frame"] == 2.0


def test_second_look_lists_what_the_committee_contradicts_in_labels_that_stand(store: Store) -> None:
    poor = {"location_quality": 0.2, "class_quality": 1.0, "label_index": 0}
    swapped = {"class_quality": 0.1, "seen_class": "truck", "label_index": 1}
    fine = {"location_quality": 0.9, "class_quality": 1.0, "label_index": 2}
    missing = {
        "batch_id": BATCH,
        "frame_id": F[0],
        "class": "bus",
        "overlooked_quality": 0.15,
        "detectors": ["a", "b"],
    }
    old = {**missing, "overlooked_quality": 0.01}
    at = datetime(2026, 3, 20, tzinfo=UTC)
    for minute, name, labels, lacking in (
        (0, "i1", [label(F[0], "car", BOX, location_quality=0.0)], [old]),
        (1, "i2", [label(F[0], "car", BOX, **poor), label(F[0], "car", OTHER, **swapped), label(F[0], "car", FAR, **fine)],
         [missing, {**missing, "overlooked_quality": 0.9}]),
    ):  # fmt: skip
        tables = {t: table(t, []) for t in STAGE_TABLES["import"]}
        stamp = {"import_id": name, "imported_at": at + timedelta(minutes=minute)}
        tables["labels"] = table("labels", [{**row, **stamp} for row in labels])
        tables["overlooked"] = table("overlooked", [{**row, "import_id": name} for row in lacking])
        store.commit("import", NIGHT, name, tables, digest=name)
    with store.connect() as con:
        rows = con.execute(
            "SELECT kind, round(quality, 2), class, seen_class, label_index FROM second_look"
        ).fetchall()
    assert rows == [
        ("swapped", pytest.approx(0.1), "car", "truck", 1),
        ("overlooked", pytest.approx(0.15), None, "bus", None),
        ("badly_placed", pytest.approx(0.2), "car", None, 0),
    ]


def test_the_command_measures_prints_and_counts(store: Store, tmp_path: Path) -> None:
    fill(store, [seen(F[0], "car", BOX)], {F[0]: "mined", F[1]: "random"})
    deliver(store, [label(F[0], "car", OTHER), label(F[1], None)])
    file = tmp_path / "night.toml"
    # The weights are gone: what labels are measured against stands with the batch.
    file.write_text(
        'store = "store"\n[footage]\npaths = ["x"]\n[[detector]]\nweights = "gone.pt"\n'
        "[score]\nhardness = { entropy_max = 1.0 }\n"
    )
    done = CliRunner().invoke(cli, ["measure", "--config", str(file), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["done"], found["counts"]["frames"]) == (1, 2)
    assert (found["summary"]["arms"]["mined"]["errors"], found["summary"]["arms"]["random"]["errors"]) == (
        2,
        0,
    )
    again = CliRunner().invoke(cli, ["measure", "--config", str(file), "--batch", BATCH])
    assert again.stdout.startswith("measure: nothing to do, 1 unchanged")
    assert (
        "lift, errors per frame (mined / random): not computable (the frames of the random arm hold no error"
        in again.stdout
    )


def measured(
    arm: list[str],
    missed: Any,
    drive: list[str] | None = None,
    signals: dict[str, Any] | None = None,
    objects: Any = None,
    batch: list[str] | None = None,
) -> Measured:
    n = len(arm)
    zero = np.zeros(n, np.int64)
    return Measured(
        batch=batch or ["b"] * n, arm=arm, slice=[None] * n, drive=drive or ["d"] * n,
        objects=np.full(n, 4) if objects is None else np.asarray(objects),
        errors={**dict.fromkeys(KINDS, zero), "missed": np.asarray(missed, np.int64)},
        percentiles={k: np.asarray(v, float) for k, v in (signals or {"s": np.full(n, 0.5)}).items()},
        weights=dict.fromkeys(signals or {"s": 0}, 1.0),
    )  # fmt: skip


def test_the_interval_is_that_of_scipys_bootstrap_where_frames_are_drawn() -> None:
    rng = np.random.default_rng(4)
    mined, random = rng.poisson(6, 60), rng.poisson(3, 40)
    got = summarise(
        measured(["mined"] * 60 + ["random"] * 40, np.r_[mined, random]), resamples=2000
    ).lift_per_frame
    want = stats.bootstrap(
        (mined, random), lambda a, b: a.mean() / b.mean(), vectorized=False, paired=False, n_resamples=2000,
        method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    assert got.value == pytest.approx(mined.mean() / random.mean())
    assert (got.low, got.high) == (pytest.approx(want.low, abs=0.08), pytest.approx(want.high, abs=0.08))
    assert got.note is None


def test_drives_are_drawn_whole() -> None:
    # Each drive has its own level of errors, the same in all its frames: frames as units would see far too much evidence.
    rng = np.random.default_rng(5)
    level = rng.poisson(6, 12) + 1
    drive = [f"d{i:02d}" for i in range(12) for _ in range(20)]
    arm = ["mined", "random"] * 120
    missed = np.repeat(level, 20) * np.where(np.array(arm) == "mined", 2, 1)
    whole = summarise(measured(arm, missed, drive), resamples=800)
    frames = summarise(measured(arm, missed), resamples=800)
    assert (whole.drives, whole.drawn, frames.drawn) == (12, "drives", "frames")
    width = [s.errors_per_frame["mined"].high - s.errors_per_frame["mined"].low for s in (whole, frames)]
    assert width[0] > 2 * width[1]
    # Both arms share their drives, so that the lift is exact: every resample says 2.
    assert whole.lift_per_frame.value == pytest.approx(2.0)
    se = np.std(2 * level) / np.sqrt(12)
    assert width[0] == pytest.approx(2 * 1.96 * se, rel=0.25)


@pytest.mark.parametrize(
    ("arm", "missed", "why"),
    [
        (["mined"] * 5, [1] * 5, "no frame of the random arm is measured"),
        (["mined"] * 5 + ["random"] * 3, [1] * 5 + [0] * 3, "hold no error"),
    ],
)
def test_a_lift_without_a_random_arm_is_not_a_number(arm: list[str], missed: list[int], why: str) -> None:
    got = summarise(measured(arm, missed))
    assert got.lift_per_frame.value is got.lift_per_frame.low is None
    assert why in (got.lift_per_frame.note or "")
    assert got.errors_per_frame["mined"].value == 1.0


def test_batches_that_differ_in_hardness_and_random_share_make_no_lift_of_their_own() -> None:
    rng = np.random.default_rng(3)
    # Mining is as good as chance in both batches; a hard night with 3 random frames of 60, an easy one with 30 of 60.
    arm = ["mined"] * 57 + ["random"] * 3 + ["mined", "random"] * 30
    errors = np.r_[rng.poisson(10, 60), rng.poisson(1, 60)]
    rows = measured(arm, errors, [f"d{i % 20}" for i in range(120)], batch=["hard"] * 60 + ["easy"] * 60)
    got = summarise(rows, resamples=300).lift_per_frame
    random = errors[57:60].mean(), errors[60:][1::2].mean()
    mined = errors[:57].sum() + errors[60:][::2].sum()
    assert got.value == pytest.approx(mined / (57 * random[0] + 30 * random[1]))
    assert got.low < 1 < got.high
    apart = summarise(measured(["mined"] * 9 + ["random"] * 9, [1] * 18, batch=["x"] * 9 + ["y"] * 9))
    assert apart.lift_per_frame.value is None
    assert "no batch has measured frames of both arms" in (apart.lift_per_frame.note or "")


def test_false_alarms_in_empty_frames_have_no_rate_by_box() -> None:
    got = summarise(measured(["mined", "random"] * 10, [2] * 20, objects=[0] * 20), resamples=50)
    assert got.errors_per_frame["mined"].value == 2.0
    assert got.errors_per_object["mined"].value is got.lift_per_object.value is None


def test_few_frames_have_a_doubtful_interval_and_very_few_none() -> None:
    rng = np.random.default_rng(6)

    def lift_of(random: Any) -> Any:
        arm = ["mined"] * 50 + ["random"] * len(random)
        return summarise(measured(arm, np.r_[rng.poisson(4, 50), random]), resamples=200)

    some = lift_of(rng.poisson(4, 12) + 1)
    assert some.lift_per_frame.low is not None
    assert "only 12 frames of the random arm: the interval is a rough guide" in (
        some.lift_per_frame.note or ""
    )
    assert some.errors_per_frame["mined"].note is None
    alike = lift_of([3, 3, 3])  # every resample says the same: no reason to trust it
    assert alike.lift_per_frame.value is not None
    assert alike.lift_per_frame.low is alike.errors_per_frame["random"].low is None
    assert "only 3 frames of the random arm: too few for an interval" in (alike.lift_per_frame.note or "")
    rare = lift_of([1] + [0] * 9)
    assert rare.lift_per_frame.high is None  # a third of the resamples have nothing to divide by
    assert "many resamples have no such figure" in (rare.lift_per_frame.note or "")


def test_few_drives_carry_no_interval() -> None:
    rng = np.random.default_rng(9)
    for drives, shown in ((3, False), (7, True)):
        rows = measured(["mined", "random"] * 60, rng.poisson(4, 120), [f"d{i % drives}" for i in range(120)])
        # Arms and drives alternate: each drive holds both, for drives is odd.
        got = summarise(rows, resamples=100)
        assert (got.lift_per_frame.low is not None) == shown
        assert f"only {drives} drives" in (got.lift_per_frame.note or "")


def test_signals_are_judged_by_rank_and_by_what_the_blend_loses_without_them() -> None:
    rng = np.random.default_rng(7)
    errors = rng.poisson(5, 300)
    good, noise = errors + rng.normal(0, 1, 300), rng.random(300)
    broken = np.where(rng.random(300) < 0.5, np.nan, 0.5)
    got = summarise(
        measured(["mined"] * 300, errors, signals={"good": good, "noise": noise, "broken": broken}),
        resamples=300,
    )
    worth = {s.signal: s for s in got.signals}
    assert worth["good"].correlation.value == pytest.approx(stats.spearmanr(good, errors).statistic)
    filled = np.nan_to_num(broken, nan=0.5)
    whole = stats.spearmanr(good + noise + filled, errors).statistic
    assert got.hardness.value == pytest.approx(whole)
    assert worth["good"].blend_gain.value == pytest.approx(
        whole - stats.spearmanr(noise + filled, errors).statistic
    )
    assert worth["good"].blend_gain.low > 0
    assert worth["noise"].blend_gain.high < 0.05
    assert worth["broken"].correlation.value is None  # it never varies
    assert sum(group.frames for group in got.by_signal) == 300


def test_two_runs_say_the_same() -> None:
    rng = np.random.default_rng(8)
    rows = measured(["mined", "random"] * 30, rng.poisson(3, 60), [f"d{i % 7}" for i in range(60)])
    assert summarise(rows, resamples=100) == summarise(rows, resamples=100)
