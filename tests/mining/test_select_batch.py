"""A batch keeps its promises: budget, gap in time, no repeated picture, no frame twice, an honest random arm."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mining import candidates, select_batch
from mining.committee import Committee
from mining.config import Config
from mining.store import Store, sql_file
from mining.types import UsageError, frame_id
from tests.mining.synthetic import (
    COMMITTEE,
    DIMENSIONS,
    NIGHT,
    Drive,
    commit,
    footage_of_a_drive,
    store_of,
    table,
)

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def committee(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Committee(COMMITTEE, ("a", "b"), ("car",), (0.25, 0.25))
    monkeypatch.setattr(select_batch, "committee_of", lambda _config: known)


def config(**select: Any) -> Config:
    return Config.model_validate_json(
        json.dumps(
            {
                "footage": {"paths": ["x"]},
                "detector": [{"weights": "a.pt"}],
                "select": {"budget": 10, **select},
            }
        )
    )


def chosen(store: Store, batch_id: str | None) -> list[dict[str, Any]]:
    with store.connect() as con:
        return con.sql(
            "SELECT s.*, f.drive_id, f.camera, f.captured_at FROM selections AS s JOIN frames AS f USING (frame_id) "
            "WHERE batch_id = $b ORDER BY arm, rank",
            params={"b": batch_id},
        ).to_arrow_table().to_pylist()  # fmt: skip


def many(count: int = 4, seconds: int = 120) -> list[Drive]:
    return [Drive(f"r{i}", RNG.random(seconds).round(3).tolist(), drive_id=f"d{i}") for i in range(count)]


def select(store: Store, conf: Config, *ids: str) -> tuple[Any, str | None]:
    return select_batch.run(store, conf, ids or [f"r{i}" for i in range(9)])


def test_the_gap_holds_per_drive_and_camera_over_both_arms(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    # Two recordings of one drive and camera, which overlap in time, share the gap.
    commit(store, Drive("r4", RNG.random(60).tolist(), drive_id="d0", start_s=30.4))
    _, batch = select(store, config(budget=60, min_gap_s=5.0, random_share=0.2))
    rows = chosen(store, batch)
    assert len(rows) == 60
    assert sum(row["arm"] == "random" for row in rows) == 12
    by_camera: dict[Any, list[Any]] = {}
    for row in rows:
        by_camera.setdefault((row["drive_id"], row["camera"]), []).append(row["captured_at"])
    gaps = [b - a for times in by_camera.values() for a, b in pairwise(sorted(times))]
    assert min(gaps) >= timedelta(seconds=5)
    assert len({row["frame_id"] for row in rows}) == 60


def test_the_gap_is_kept_as_by_a_greedy_walk(tmp_path: Path) -> None:
    """Against the plain definition: hardest first, drop what lies too near."""
    hardness = RNG.random(300).round(2)  # with ties
    store = store_of(tmp_path, Drive("r0", hardness.tolist(), drive_id="d0"))
    _, batch = select(
        store,
        config(
            budget=40,
            min_gap_s=4.0,
            random_share=0.0,
            strategy="top_k",
            pool_factor=1.0,
            max_duplicate_bits=-1,
        ),
    )
    taken: list[int] = []
    for i in sorted(range(300), key=lambda i: (-np.float32(hardness[i]), i)):
        if all(abs(i - j) >= 4 for j in taken):
            taken.append(i)
    assert [int(row["frame_id"][-7:]) for row in chosen(store, batch)] == taken[:40]


def test_one_side_of_a_repeated_picture_is_kept(tmp_path: Path) -> None:
    same = RNG.normal(size=DIMENSIONS)
    store = store_of(
        tmp_path,
        Drive("r0", [0.9, 0.1], embeddings=[same, RNG.normal(size=DIMENSIONS)], hashes=[0b1011, 2**60 - 1]),
        Drive(
            "r1",
            [0.8, 0.7],
            embeddings=[same + 1e-3, RNG.normal(size=DIMENSIONS)],
            hashes=[0b1111, 2**50 - 7],
        ),
    )
    report, batch = select(store, config(budget=4, min_gap_s=0.0, random_share=0.0))
    assert {row["frame_id"] for row in chosen(store, batch)} == {"r0-0000000", "r0-0000001", "r1-0000001"}
    assert "3 frames, 1 fewer than its budget of 4" in report.problems[0]
    _, both = select(
        store, config(budget=4, min_gap_s=0.0, random_share=0.0, max_duplicate_bits=-1, exclude_chosen=False)
    )
    assert len(chosen(store, both)) == 4


def uploads(seed: int = 0) -> dict[str, Any]:
    """Embeddings of 60 s of a drive, of its seconds 12 to 47 with another crop, and of another drive."""
    seen, shift = footage_of_a_drive(seed, 60), 0.3 * np.random.default_rng(9).standard_normal(DIMENSIONS)
    return {"r0": seen, "r1": seen[12:48] + shift, "r2": footage_of_a_drive(seed + 100, 60)}


def test_one_side_of_footage_that_was_uploaded_twice_is_kept(tmp_path: Path) -> None:
    frames = uploads()
    hardness = {name: 0.2 + 0.7 * RNG.random(len(seen)) for name, seen in frames.items()}
    store = store_of(
        tmp_path, *(Drive(name, hardness[name].tolist(), embeddings=seen) for name, seen in frames.items())
    )
    conf = config(budget=100, min_gap_s=4.0, pool_factor=10.0, random_share=0.1)
    _, batch = select(store, conf)
    at = {(row["frame_id"][:2], int(row["frame_id"][-7:])) for row in chosen(store, batch)}
    first, again = ({i for name, i in at if name == upload} for upload in ("r0", "r1"))
    # At its ends too little is known of what came before and after.
    assert not [(i, j) for i in first for j in again if abs(i - (j + 12)) <= 1 and 4 <= j < 32]
    assert len({i for name, i in at if name == "r2"}) >= 12  # the other drive loses nothing but to the gap
    assert len(first) + len(again) >= 12
    _, both = select(
        store, conf.model_copy(update={"select": conf.select.model_copy(
            update={"same_moment_once": False, "exclude_chosen": False})})
    )  # fmt: skip
    at = {(row["frame_id"][:2], int(row["frame_id"][-7:])) for row in chosen(store, both)}
    first, again = ({i for name, i in at if name == upload} for upload in ("r0", "r1"))
    assert [(i, j) for i in first for j in again if abs(i - (j + 12)) <= 1]


def test_footage_that_comes_again_another_night_is_in_no_second_batch(tmp_path: Path) -> None:
    frames = uploads(1)
    conf = config(budget=60, min_gap_s=1.0, pool_factor=10.0, random_share=0.0)
    store = store_of(tmp_path, Drive("r0", [0.9] * 60, embeddings=frames["r0"]))
    _, first = select(store, conf, "r0")
    assert len(chosen(store, first)) == 60
    commit(store, Drive("r1", [0.9] * 36, embeddings=frames["r1"], start_s=3600))
    commit(store, Drive("r2", [0.1] * 60, embeddings=frames["r2"], start_s=3600))
    _, second = select(store, conf, "r1", "r2")
    new = [row["frame_id"] for row in chosen(store, second)]
    assert sum(name.startswith("r2") for name in new) == 60
    # At its ends too little is known of what came before and after.
    assert sum(name.startswith("r1") for name in new) <= 4


def test_a_repeat_keeps_no_neighbour_out(tmp_path: Path) -> None:
    """36 s that are in the store already, then 7 s that are not: a repeat is hardest, and lies within the gap of these."""
    again = np.concatenate([uploads()["r1"], footage_of_a_drive(55, 7)])
    hardness = [0.5] * 30 + [0.9] + [0.5] * 5 + [0.3] * 7
    store = store_of(
        tmp_path,
        Drive("r0", [0.95] * 60, embeddings=uploads()["r0"]),
        Drive("r1", hardness, embeddings=again),
    )
    _, batch = select(store, config(budget=60, min_gap_s=14.0, pool_factor=10.0, random_share=0.0))
    new = [row["frame_id"] for row in chosen(store, batch) if row["frame_id"].startswith("r1")]
    assert [name for name in new if int(name[-7:]) >= 33]


def test_what_was_delivered_for_another_sites_batch_is_not_chosen_again(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", RNG.random(30).tolist()))
    sent = [{"batch_id": "there", "frame_id": frame_id("r0", i), "status": "ok"} for i in (3, 17)]
    failed = [{"batch_id": "there", "frame_id": frame_id("r0", 25), "status": "failed"}]
    store.commit("export", NIGHT, "there", {"exports": table("exports", sent + failed)}, digest="x")
    report, batch = select(store, config(budget=30, min_gap_s=2.0, random_share=0.5))
    at = {int(row["frame_id"][-7:]) for row in chosen(store, batch)}
    assert not at & {2, 3, 4, 16, 17, 18}
    assert report.counts["eligible"] == 24


def test_a_priority_that_is_no_number_comes_last(tmp_path: Path) -> None:
    speeds = [{"speed_mps": 1.0}] * 20 + [{"speed_mps": 0.0}] * 20
    store = store_of(tmp_path, Drive("r0", [0.9] * 20 + [0.01] * 20, telemetry=speeds))
    order = "hardness * speed_mps / speed_mps"
    _, batch = select(
        store, config(budget=5, min_gap_s=0.0, order_by=order, pool_factor=1.0, random_share=0.0)
    )
    assert max(int(row["frame_id"][-7:]) for row in chosen(store, batch)) < 20


def test_another_picture_of_the_same_name_is_another_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, picture = store_of(tmp_path, *many(1)), tmp_path / "deer.png"
    conf = config(like=[str(picture)], exclude_chosen=False)
    with pytest.raises(UsageError, match=r"deer\.png"):
        select_batch.check(store, conf)
    monkeypatch.setattr(select_batch, "examples_of", lambda *_: np.eye(DIMENSIONS, dtype=np.float32)[:1])
    batches = []
    for grey in (40, 40, 200):
        cv2.imwrite(str(picture), np.full((32, 32, 3), grey, np.uint8))
        batches.append(select(store, conf)[1])
    assert batches[0] == batches[1] != batches[2]


def test_a_long_standstill_does_not_starve_the_batch(tmp_path: Path) -> None:
    """More identical hard frames than the whole pool has places: the walk goes on to the different, easier ones."""
    still = np.tile(RNG.normal(size=DIMENSIONS), (200, 1))
    store = store_of(
        tmp_path,
        Drive("r0", [0.9] * 200, drive_id="d0", embeddings=still, hashes=[7] * 200),
        Drive("r1", RNG.uniform(0.1, 0.5, 60).tolist(), drive_id="d1"),
    )
    _, batch = select(store, config(budget=20, min_gap_s=0.0, random_share=0.2))
    rows = chosen(store, batch)
    assert len(rows) == 20
    assert sum(row["drive_id"] == "d0" for row in rows) == 1  # over both arms


def test_less_footage_is_no_reason_for_another_batch(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many(3))
    _, batch = select(store, config(budget=10), "r0", "r1", "r2")
    report, same = select(store, config(budget=10), "r0", "r2")
    assert (report.unchanged, same) == (1, batch)


def test_the_same_input_gives_the_same_batch_and_nothing_to_do(tmp_path: Path) -> None:
    drives = many()
    first = store_of(tmp_path / "1", *drives)
    second = store_of(tmp_path / "2", *reversed(drives))
    report, batch = select(first, config(budget=20))
    assert report.done == 1
    again, same_batch = select(first, config(budget=20))
    assert (again.done, again.unchanged, same_batch) == (0, 1, batch)
    _, other = select(second, config(budget=20))
    assert chosen(first, batch) == chosen(second, other)
    _, seeded = select(store_of(tmp_path / "3", *drives), config(budget=20, seed=5, random_share=0.5))
    assert {r["frame_id"] for r in chosen(Store(tmp_path / "3" / "store"), seeded)} != {
        r["frame_id"] for r in chosen(first, batch)
    }


def test_the_next_batch_leaves_out_what_was_chosen_and_what_lies_beside_it(tmp_path: Path) -> None:
    drives = many()
    store = store_of(tmp_path, *drives)
    _, first = select(store, config(budget=20))
    commit(store, Drive("r7", RNG.random(50).tolist(), drive_id="d7"))
    _, second = select(store, config(budget=20))
    assert first != second
    old, new = chosen(store, first), chosen(store, second)
    assert len(new) == 20
    for a in old:
        for b in new:
            apart = abs(a["captured_at"] - b["captured_at"])
            assert a["drive_id"] != b["drive_id"] or apart >= timedelta(seconds=3)


def test_where_is_one_condition_over_every_column(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        Drive("r0", [0.9] * 9, drive_id="d0", tags=(("city", "Oslo"),)),
        Drive("r1", [0.8] * 9, drive_id="d1"),
    )
    _, batch = select(store, config(budget=2, where="tags['city'] = 'Oslo' AND luma_mean > 20"))
    assert {row["drive_id"] for row in chosen(store, batch)} == {"d0"}
    report, none = select(store, config(budget=2, where="hardness > 2"))
    assert none is None
    assert "no frame is eligible" in report.problems[0]
    for wrong in ("hardness >", "true; DROP TABLE frames", "no_such_column > 1", "true) --"):
        with pytest.raises(UsageError, match="where"):
            select(store, config(where=wrong))


def test_reasons_name_the_strongest_signals_and_the_distance(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    _, batch = select(store, config(budget=20, random_share=0.1))
    rows = chosen(store, batch)
    mined = [row for row in rows if row["arm"] == "mined"]
    assert [row["rank"] for row in mined] == list(range(1, 19))
    # Of the signals of `hardness`, the only one that these rows have a percentile of.
    assert "presence_sum 50 %" in mined[5]["reason"]
    assert f"{mined[5]['distance_to_chosen']:.2f} from the nearest frame chosen before" in mined[5]["reason"]
    assert {row["reason"] for row in rows if row["arm"] == "random"} == {
        "drawn at random from all eligible frames"
    }


def slices(store: Store, batch_id: str | None) -> dict[str, dict[str, Any]]:
    with store.connect() as con:
        found = con.sql("SELECT * FROM slices WHERE batch_id = $b", params={"b": batch_id}).to_arrow_table()
    return {row["slice"]: row for row in found.to_pylist()}


def cities() -> list[Drive]:
    """Two easy drives in Oslo, four hard ones in Rome."""
    easy = [Drive(f"r{i}", RNG.uniform(0, 0.2, 60).tolist(), tags=(("city", "Oslo"),)) for i in range(2)]
    hard = [Drive(f"r{i}", RNG.uniform(0.6, 1, 60).tolist(), tags=(("city", "Rome"),)) for i in range(2, 6)]
    return easy + hard


def test_a_floor_brings_easy_frames_and_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path, *cities())
    quota = {"name": "Oslo", "where": "tags['city'] = 'Oslo'", "min": 8}
    _, plain = select(store, config(budget=20, random_share=0.0, exclude_chosen=False))
    assert not any(row["drive_id"] in {"r0", "r1"} for row in chosen(store, plain))
    report, batch = select(store, config(budget=20, random_share=0.0, quota=[quota], exclude_chosen=False))
    rows = chosen(store, batch)
    assert not report.problems
    filled = [row for row in rows if row["slice"] == "Oslo"]
    assert [row["drive_id"] in {"r0", "r1"} for row in rows].count(True) == len(filled) == 8
    assert [row["rank"] for row in filled] == list(range(1, 9))  # floors come first
    assert all(row["reason"].startswith("for the slice Oslo; hardness 0.") for row in filled)
    assert slices(store, batch)["Oslo"] == {
        "batch_id": batch, "slice": "Oslo", "floor": 8, "ceiling": 20, "eligible": 120, "chosen": 8, "lack": None,
        "night": slices(store, batch)["Oslo"]["night"],
    }  # fmt: skip


def test_a_floor_that_cannot_be_met_says_what_lacks_and_why(tmp_path: Path) -> None:
    store = store_of(tmp_path, *cities())
    wanted = [
        {"name": "Oslo", "where": "tags['city'] = 'Oslo'", "min": 50},
        {"name": "Paris", "where": "tags['city'] = 'Paris'", "min": 1},
    ]
    report, batch = select(store, config(budget=60, random_share=0.0, quota=wanted))
    found = slices(store, batch)
    assert len(chosen(store, batch)) == 60
    assert found["Oslo"]["chosen"] < 50
    assert found["Oslo"]["lack"] in report.problems[-2]
    assert "120 frames of it are eligible" in found["Oslo"]["lack"]
    assert "within 3 s of a chosen frame" in found["Oslo"]["lack"]
    assert found["Paris"] | {"night": None} == {
        "batch_id": batch, "slice": "Paris", "floor": 1, "ceiling": 60, "eligible": 0, "chosen": 0,
        "lack": "no frame of it is eligible", "night": None,
    }  # fmt: skip


def test_a_ceiling_for_every_value_holds_and_its_lack_is_said(tmp_path: Path) -> None:
    store = store_of(tmp_path, *cities())
    quota = [{"name": "drive", "by": "drive_id", "max": 3}]
    report, batch = select(store, config(budget=20, random_share=0.0, quota=quota))
    rows = chosen(store, batch)
    by_drive = {d: sum(row["drive_id"] == d for row in rows) for d in {row["drive_id"] for row in rows}}
    assert by_drive == {f"r{i}": 3 for i in range(6)}
    assert "18 frames, 2 fewer than its budget" in report.problems[0]
    assert "slices that are full" in report.problems[0]
    assert set(slices(store, batch)) == {f"drive = r{i}" for i in range(6)}


def test_conditions_may_ask_the_views_and_macros(tmp_path: Path) -> None:
    store = store_of(tmp_path, *cities())
    where = "frame_index IN (SELECT frame_index FROM frames WHERE recording_id = 'r0' AND frame_index > 57)"
    quota = [
        {"name": "seen", "where": "NOT has_class(mined, 'car') OR at_night(mined) IS NULL", "max": 2},
        {"name": "cell", "by": "geo_cell(mined, 500)", "max": 1},
    ]
    _, batch = select(store, config(budget=9, where=where, quota=quota, min_gap_s=0.0, random_share=0.0))
    assert {row["frame_id"][-2:] for row in chosen(store, batch)} <= {"58", "59"}
    assert len(chosen(store, batch)) == 2


def test_one_batch_across_two_sites(tmp_path: Path) -> None:
    """Every frame of both is a candidate, the choice lies in the first store, and the sites' references must agree."""
    drives = cities()
    here = store_of(tmp_path / "here", *drives[:3])
    there = store_of(tmp_path / "there", *drives[3:], drives[0])  # r0 was copied to both
    together = store_of(tmp_path / "together", *drives)
    other = {"other_stores": [str(there.root)]}
    _, batch = select(here, config(budget=30, **other), "r0", "r1", "r2")
    _, same = select(together, config(budget=30))
    rows = [r["frame_id"] for r in chosen(together, same)]
    with here.connect() as con:
        found = con.execute(
            "SELECT frame_id FROM selections WHERE batch_id = ? ORDER BY arm, rank", [batch]
        ).fetchall()
    assert [f for (f,) in found] == rows
    assert not there.markers("select")
    commit(there, Drive("r8", [0.5] * 9), reference_id="another")
    with pytest.raises(UsageError, match="do not compare"):
        select(here, config(budget=30, **other), "r0", "r1", "r2")


def test_contradictory_quotas_are_refused_in_words() -> None:
    for quota, words in (
        ({"where": "true", "min": 5, "max": 4}, "at least 5 and at most 4"),
        ({"where": "true", "min": 11}, "at least 11 and at most 10"),
        ({"where": "true"}, "`min`, `min_share`"),
        ({"where": "true", "max_share": 0.05}, "less than one frame"),
        ({"where": "true", "by": "camera", "min": 1}, "`where` or `by`"),
    ):
        with pytest.raises(ValueError, match=words):
            config(budget=10, quota=[quota])


def test_quotas_and_order_are_checked_as_sql_at_the_start(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many(1))
    for wrong, words in (
        (
            {"quota": [{"where": "luma > 3", "min": 1}]},
            r"select.quota.0.where .*Candidate bindings: .*luma_mean",
        ),
        ({"quota": [{"by": "vehicle", "max": 1}]}, r"select.quota.0.by .*vehicle_id"),
        ({"order_by": "hardness; DROP TABLE frames"}, "select.order_by"),
        ({"stratify_by": "hardness) --"}, "select.stratify_by"),
        ({"quota": [{"by": "unnest(string_split(classes, ','))", "max": 1}]}, "makes 0 values of one frame"),
        ({"stratify_by": "unnest([1, 2])"}, "makes 2 values of one frame"),
        ({"quota": [{"by": "count(*)", "max": 1}]}, "select.quota.0.by .*GROUP BY"),
        ({"where": "camera"}, "of type VARCHAR"),
        (
            {"where": "EXISTS (WITH x AS (COPY (SELECT 1) TO '{file}') FROM x)"},
            "only reading is allowed here, not COPY",
        ),
        (
            {"where": "EXISTS (FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1')))"},
            "only reading is allowed here, not json_execute_serialized_sql",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            select_batch.check(store, config(**wrong))


def test_the_pool_is_the_best_by_order_by(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    _, batch = select(
        store,
        config(
            budget=5, order_by="-hardness", pool_factor=1.0, random_share=0.0, strategy="top_k", min_gap_s=0.0
        ),
    )
    with store.connect() as con:
        least = con.execute("SELECT hardness FROM scores ORDER BY hardness, frame_id LIMIT 5").fetchall()
    assert sorted(row["hardness"] for row in chosen(store, batch)) == pytest.approx([h for (h,) in least])


def test_the_strategy_keeps_away_from_what_earlier_batches_hold(tmp_path: Path) -> None:
    """Of two equally hard places, the one that an earlier batch has not seen comes first."""
    east, west = np.eye(DIMENSIONS)[0], np.eye(DIMENSIONS)[1]
    first = [Drive("r0", [0.9] * 5, embeddings=np.tile(east, (5, 1)) + RNG.normal(0, 0.05, (5, DIMENSIONS)))]
    store = store_of(tmp_path, *first)
    select(store, config(budget=1, random_share=0.0))
    commit(
        store, Drive("r1", [0.8] * 5, embeddings=np.tile(east, (5, 1)) + RNG.normal(0, 0.05, (5, DIMENSIONS)))
    )
    commit(
        store, Drive("r2", [0.6] * 5, embeddings=np.tile(west, (5, 1)) + RNG.normal(0, 0.05, (5, DIMENSIONS)))
    )
    _, batch = select(store, config(budget=1, random_share=0.0, pool_factor=100.0))
    assert [row["drive_id"] for row in chosen(store, batch)] == ["r2"]
    assert chosen(store, batch)[0]["distance_to_chosen"] > 1


def test_a_limit_of_cost_ends_the_batch_and_is_said(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many())
    cost = {"limit": 100.0, "per_frame": 8.0, "per_box": 1.0}  # no boxes in these drives
    report, batch = select(store, config(budget=50, cost=cost, random_share=0.1))
    rows = chosen(store, batch)
    assert len(rows) == 12
    assert sum(row["arm"] == "random" for row in rows) == 2  # 10 of 100, and the frame that passes it
    assert "select.cost.limit = 100" in report.problems[0]


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_the_random_arm_keeps_the_limit_of_cost_too(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "estimated_boxes", lambda _con, _c, names: np.full(len(names), 20.0))
    store = store_of(tmp_path, *many())
    _, batch = select(store, config(budget=20, random_share=share, cost={"limit": 110}))
    assert len(chosen(store, batch)) == 5
    report, none = select(store, config(budget=20, random_share=share, cost={"limit": 5}))
    assert none is None
    assert "the next one would cost more than the 5 left" in report.problems[0]


def test_the_random_arm_does_not_look_at_hardness(tmp_path: Path) -> None:
    """Over many seeds the random arm's mean hardness is that of all frames; the mined arm's is far above."""
    store = store_of(tmp_path, *many(count=3, seconds=200))
    with store.connect() as con:
        overall = con.execute("SELECT avg(hardness) FROM scores").fetchall()[0][0]
    random_mean, mined_mean = [], []
    for seed in range(8):
        _, batch = select(store, config(budget=40, seed=seed, random_share=0.5, exclude_chosen=False))
        rows = chosen(store, batch)
        random_mean.append(np.mean([row["hardness"] for row in rows if row["arm"] == "random"]))
        mined_mean.append(np.mean([row["hardness"] for row in rows if row["arm"] == "mined"]))
    # 8 x 20 draws of a uniform value: the standard error is 0.29 / sqrt(160) = 0.023.
    assert abs(np.mean(random_mean) - overall) < 0.08
    assert np.mean(mined_mean) > overall + 0.25


def test_the_random_arm_has_its_share_of_a_batch_that_falls_short(tmp_path: Path) -> None:
    store = store_of(tmp_path, *many(2, 60))
    report, batch = select(store, config(budget=5000, min_gap_s=3.0, random_share=0.1))
    arms = [row["arm"] for row in chosen(store, batch)]
    assert 30 <= len(arms) <= 40
    assert arms.count("random") in {3, 4}
    assert "fewer than its budget of 5000" in report.problems[0]


def test_status_counts_a_frame_of_two_batches_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.5] * 4))
    for seed in (0, 1):
        _, batch = select(store, config(budget=4, min_gap_s=0.0, exclude_chosen=False, seed=seed))
        assert len(chosen(store, batch)) == 4
    with store.connect() as con:
        [night] = con.sql(sql_file("status")).to_arrow_table().to_pylist()
    assert (night["frames"], night["chosen"], night["failed_frames"]) == (4, 4, 0)


def test_an_unknown_strategy_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="k_center"):
        select(store_of(tmp_path, *many(1)), config(strategy="best"))


def test_an_unscored_store_is_said_plainly(tmp_path: Path) -> None:
    report, batch = select(Store(tmp_path / "s", create=True), config())
    assert batch is None
    assert "nothing is scored" in report.problems[0]


def label(store: Store, import_id: str, *names: str) -> None:
    """Commit labels that came from anywhere: no batch of this store need have asked for them."""
    at = datetime(2026, 3, 20, tzinfo=UTC)
    rows = [
        {"batch_id": "other", "frame_id": n, "import_id": import_id, "is_truth": True, "imported_at": at}
        for n in names
    ]
    tables = {
        name: table(name, rows if name == "labels" else [])
        for name in ("labels", "overlooked", "label_rejects", "annotators")
    }
    store.commit("import", NIGHT, import_id, tables, digest="x", delivery="x", imported_at=at.isoformat())


def test_a_labelled_frame_is_not_chosen_nor_its_neighbours(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.9, 0.8, 0.5, 0.4, 0.3]))
    label(store, "i1", "r0-0000000", "r0-0000004")
    conf = config(budget=9, min_gap_s=2.0, random_share=0.0)
    _, batch = select(store, conf)
    assert [row["frame_id"] for row in chosen(store, batch)] == ["r0-0000002"]
    assert [marker["labelled"] for marker in store.markers("select").values()] == [["i1"]]
    # Labels alone are no reason for another batch.
    label(store, "i2", "r0-0000003")
    assert select(store, conf)[0].unchanged == 1
    close = {"budget": 9, "min_gap_s": 0.0, "random_share": 0.0, "exclude_chosen": False}
    _, batch = select(store, config(**close))
    assert {row["frame_id"] for row in chosen(store, batch)} == {"r0-0000001", "r0-0000002"}
    _, batch = select(store, config(**close, exclude_labelled=False))
    assert len(chosen(store, batch)) == 5
    with store.connect() as con:
        [night] = con.sql(sql_file("status")).to_arrow_table().to_pylist()
    assert (night["frames"], night["labelled"]) == (5, 3)


def test_the_strategy_keeps_away_from_labelled_frames(tmp_path: Path) -> None:
    """Of two equally hard frames the one farther from what is labelled comes first."""
    axis = np.eye(DIMENSIONS)
    near, far = axis[0] + 0.2 * axis[1], axis[2]
    store = store_of(tmp_path, Drive("r0", [0.1]), Drive("r1", [0.6, 0.6], embeddings=[near, far]))
    commit(store, Drive("r0", [0.9], embeddings=[axis[0]]))
    label(store, "i1", "r0-0000000")
    _, batch = select(store, config(budget=1, min_gap_s=0.0, random_share=0.0))
    (row,) = chosen(store, batch)
    assert row["frame_id"] == "r1-0000001"
    assert row["distance_to_chosen"] == pytest.approx(2**0.5, abs=1e-3)
