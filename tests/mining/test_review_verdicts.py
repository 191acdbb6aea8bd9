"""Verdicts: what holds, what comes in for what goes out, that nothing is lost, and that the whole way after them works."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mining import config as configs
from mining import measure_yield, pipeline
from mining.config import Config
from mining.explain import explain
from mining.review.session import NoSuchFrame
from mining.store import Store
from mining.types import MiningError, UsageError
from tests.mining import review_store
from tests.mining.review_store import batch_frames, rows, session


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    conf = review_store.make(folder)
    review_store.select(conf)
    return folder


@pytest.fixture
def conf(template: Path, tmp_path: Path) -> Config:
    """A store of its own with a batch of 20: 16 mined, 4 random. The footage is the template's."""
    return review_store.copied(template, tmp_path)


def arm(conf: Config, name: str) -> list[str]:
    return [row["frame_id"] for row in batch_frames(conf) if row["arm"] == name and row["in_batch"]]


def held(conf: Config) -> list[str]:
    return sorted(row["frame_id"] for row in batch_frames(conf) if row["in_batch"])


def test_a_dropped_frame_is_replaced_by_what_top_k_takes_next(conf: Config) -> None:
    """Against the plain definition: of all frames that keep the gap to the batch and to what was dropped, the hardest."""
    before = batch_frames(conf)
    review = session(conf)
    dropped = [arm(conf, "mined")[i] for i in (0, 7)]
    given = [review.judge(name, "drop", "dull")["replacement"]["frame_id"] for name in dropped]
    every = rows(
        conf, "SELECT frame_id, drive_id, captured_at, hardness FROM mined ORDER BY hardness DESC, frame_id"
    )
    at = {row["frame_id"]: (row["drive_id"], row["captured_at"]) for row in every}
    taken = [row["frame_id"] for row in before]
    wanted = []
    for _ in dropped:
        far = (
            row["frame_id"] for row in every
            if all(at[row["frame_id"]][0] != at[name][0] or abs(at[row["frame_id"]][1] - at[name][1]) >= timedelta(seconds=3) for name in taken)
        )  # fmt: skip
        wanted.append(next(far))
        taken.append(wanted[-1])
    assert given == wanted
    now = batch_frames(conf)
    assert Counter(row["arm"] for row in now if row["in_batch"]) == {"mined": 16, "random": 4}
    assert [row["in_batch"] for row in now if row["frame_id"] in dropped] == [False, False]
    for old, new in zip(dropped, given, strict=True):
        row = next(row for row in now if row["frame_id"] == new)
        assert (row["replaces"], row["place"], row["origin"]) == (old, old, "replacement")
        assert row["rank"] == next(row["rank"] for row in before if row["frame_id"] == old)
        assert row["reason"].startswith(f"in place of {old}, dropped in review; hardness ")
    # The choice itself is as it was.
    assert rows(conf, "SELECT count(*) AS n FROM selections")[0]["n"] == 20


def test_a_frame_of_the_random_arm_is_replaced_by_the_next_of_the_blind_draw(conf: Config) -> None:
    review = session(conf)
    dropped = arm(conf, "random")[0]
    given = review.judge(dropped, "drop", "broken picture")["replacement"]
    draws = rows(conf, "SELECT f.frame_id, f.drive_id, f.captured_at, md5_number_lower(concat(0, '|', frame_id)) AS draw "
                       "FROM frames AS f ORDER BY draw")  # fmt: skip
    at = {row["frame_id"]: (row["drive_id"], row["captured_at"]) for row in draws}
    chosen = [row["frame_id"] for row in batch_frames(conf) if row["origin"] == "chosen"]
    far = [
        row["frame_id"] for row in draws
        if all(at[row["frame_id"]][0] != at[name][0] or abs(at[row["frame_id"]][1] - at[name][1]) >= timedelta(seconds=3) for name in chosen)
    ]  # fmt: skip
    assert (given["frame_id"], given["arm"]) == (far[0], "random")
    assert (
        given["reason"]
        == f"in place of {dropped}, dropped in review; drawn at random from all eligible frames"
    )


def test_the_gap_holds_after_many_drops_and_no_frame_comes_twice(conf: Config) -> None:
    review = session(conf)
    given = []
    for _ in range(2):
        for name in arm(conf, "mined")[:4]:
            answer = review.judge(name, "drop", None)
            given.append(answer["replacement"] and answer["replacement"]["frame_id"])
    assert None not in given
    assert len(set(given)) == len(given)
    everything = batch_frames(conf)
    assert sum(row["in_batch"] for row in everything) == 20
    times: dict[str, list[Any]] = {}
    for row in everything:  # what was dropped too: a frame beside it shows the same
        times.setdefault(row["drive_id"], []).append(row["captured_at"])
    gaps = [b - a for of_drive in times.values() for a, b in pairwise(sorted(of_drive))]
    assert min(gaps) >= timedelta(seconds=3)


def test_where_no_frame_is_left_it_says_so(tmp_path: Path) -> None:
    conf = review_store.make(tmp_path, drives=("d0",), seconds=16)
    conf = conf.model_copy(update={"select": conf.select.model_copy(update={"budget": 3})})
    review_store.select(conf)
    review, answer = session(conf), {"replacement": {"frame_id": arm(conf, "mined")[0]}}
    for _ in range(4):  # 16 s hold six frames that lie 3 s apart, at most
        if answer["replacement"] is not None:
            answer = review.judge(answer["replacement"]["frame_id"], "drop", None)
    assert answer["replacement"] is None
    assert "no other frame may be chosen" in answer["note"]
    assert sum(row["in_batch"] for row in batch_frames(conf)) == 2


def test_the_same_picture_as_a_frame_that_stays_does_not_come_in(template: Path, tmp_path: Path) -> None:
    conf = review_store.make(tmp_path, drives=("d0", "d1"), seconds=12, more="")
    conf = conf.model_copy(
        update={"select": conf.select.model_copy(update={"budget": 2, "random_share": 0.0})}
    )
    review_store.select(conf)
    store = Store(conf.store_path)
    stays, goes = arm(conf, "mined")
    scored = rows(
        conf, "SELECT frame_id, drive_id, captured_at, hardness FROM mined ORDER BY hardness DESC, frame_id"
    )
    at = {row["frame_id"]: row for row in scored}
    far = [
        row["frame_id"] for row in scored
        if all(row["drive_id"] != at[c]["drive_id"] or abs(row["captured_at"] - at[c]["captured_at"]) >= timedelta(seconds=3) for c in (stays, goes))
    ]  # fmt: skip
    # The next best frame is made to show what the frame shows that stays.
    for (night, key), marker in store.markers("detect").items():
        observed = store.read("observations", night, key).to_pylist()
        [picture] = [row for row in rows(conf, "FROM observations") if row["frame_id"] == stays]
        for row in observed:
            if row["frame_id"] == far[0]:
                row.update(embedding=picture["embedding"], perceptual_hash=picture["perceptual_hash"])
        store.commit(
            "detect", night, key,
            {"detections": store.read("detections", night, key), "observations": review_store.table("observations", observed)},
            **{name: value for name, value in marker.items() if name not in {"rows", "sha256"}},
        )  # fmt: skip
    assert session(conf).judge(goes, "drop", None)["replacement"]["frame_id"] == far[1]


def test_a_frame_of_a_slice_is_replaced_from_that_slice(tmp_path: Path) -> None:
    quota = '[[select.quota]]\nname = "one"\nwhere = "drive_id = \'d1\'"\nmin = 6\nmax = 6\n'
    conf = review_store.make(tmp_path, more="")
    (tmp_path / "night.toml").write_text(review_store.CONFIG.replace("[export]", f"{quota}[export]"))
    conf = configs.load(tmp_path / "night.toml")
    review_store.select(conf)
    inside = [row for row in batch_frames(conf) if row["slice"] == "one"]
    outside = [row for row in batch_frames(conf) if row["slice"] is None and row["arm"] == "mined"]
    review = session(conf)
    for row in inside[:2]:
        review.judge(row["frame_id"], "drop", None)
    for row in outside[:3]:
        review.judge(row["frame_id"], "drop", None)
    now = {row["replaces"]: row for row in batch_frames(conf) if row["replaces"]}
    assert [(now[row["frame_id"]]["slice"], now[row["frame_id"]]["drive_id"]) for row in inside[:2]] == [
        ("one", "d1")
    ] * 2
    # The slice is full: a frame of another one is not replaced out of it.
    assert all(now[row["frame_id"]]["drive_id"] != "d1" for row in outside[:3])


def test_what_is_taken_back_comes_back_and_its_replacement_goes_out_and_comes_again(conf: Config) -> None:
    review = session(conf)
    at_first = held(conf)
    name = arm(conf, "mined")[3]
    given = review.judge(name, "drop", "dull")["replacement"]["frame_id"]
    assert given in held(conf)
    assert name not in held(conf)
    assert review.judge(name, None, None)["replacement"] is None
    assert held(conf) == at_first
    assert review.judge(name, "drop", "still dull")["replacement"]["frame_id"] == given
    # The replacement is dropped as well; when it is taken back, it has its place again.
    second = review.judge(given, "drop", None)["replacement"]["frame_id"]
    assert second in held(conf)
    assert given not in held(conf)
    review.judge(given, "keep", None)
    assert given in held(conf)
    assert second not in held(conf)
    assert len(held(conf)) == 20


def test_undo_goes_back_verdict_by_verdict(conf: Config) -> None:
    review, other = session(conf), session(conf, "bo")
    one, two = arm(conf, "mined")[:2]
    for verdict, reason in (("keep", None), ("drop", "dull")):
        review.judge(one, verdict, reason)
    other.judge(one, "keep", None)
    review.judge(two, "more", None)
    undone = [review.undo() for _ in range(4)]
    assert [(answer["frame_id"], answer["verdict"]) for answer in undone] == [
        (two, None), (one, "keep"), (one, None), (None, None),
    ]  # fmt: skip
    said = rows(conf, "SELECT reviewer, verdict FROM verdicts")
    assert said == [{"reviewer": "bo", "verdict": "keep"}]
    assert rows(conf, "SELECT count(*) AS n FROM reviews")[0]["n"] == 7  # nothing is ever taken away
    # An undo that brings a drop back brings its replacement back.
    given = review.judge(one, "drop", None)["replacement"]["frame_id"]
    review.judge(one, "keep", None)
    assert review.undo()["replacement"]["frame_id"] == given


def test_any_reviewers_drop_counts_until_it_is_taken_back(conf: Config) -> None:
    ada, bo = session(conf), session(conf, "bo")
    name = arm(conf, "mined")[0]
    first = ada.judge(name, "drop", "a")["replacement"]["frame_id"]
    assert bo.judge(name, "drop", "b")["replacement"]["frame_id"] == first
    ada.judge(name, "keep", None)
    assert name not in held(conf)
    assert [one["verdict"] for one in ada.verdicts(0)["verdicts"][name]] == ["keep", "drop"]
    bo.judge(name, None, None)
    assert name in held(conf)


def test_a_verdict_that_is_sent_again_counts_once(conf: Config) -> None:
    review = session(conf)
    name = arm(conf, "mined")[0]
    first, again = review.judge(name, "drop", "dull"), review.judge(name, "drop", "dull")
    assert (first["version"], again["version"]) == (1, 1)
    assert first["replacement"]["frame_id"] == again["replacement"]["frame_id"]
    one, two = (
        review.judge(arm(conf, "mined")[1], "more", None),
        review.judge(arm(conf, "mined")[1], "more", None),
    )
    assert two["version"] == 2
    assert [card["frame_id"] for card in one["similar"]] == [card["frame_id"] for card in two["similar"]]


def test_more_like_this_offers_the_nearest_frames_that_may_be_chosen_and_keep_brings_them_in(
    conf: Config,
) -> None:
    review = session(conf)
    name = arm(conf, "mined")[2]
    before = held(conf)
    offered = [card["frame_id"] for card in review.judge(name, "more", None)["similar"]]
    every = {
        row["frame_id"]: row
        for row in rows(conf, "SELECT frame_id, drive_id, captured_at, embedding FROM mined")
    }
    example = np.asarray(every[name]["embedding"])
    taken, wanted = list(before), []
    for row in sorted(
        every.values(), key=lambda row: float(np.linalg.norm(np.asarray(row["embedding"]) - example))
    ):
        if all(
            row["drive_id"] != every[t]["drive_id"]
            or abs(row["captured_at"] - every[t]["captured_at"]) >= timedelta(seconds=3)
            for t in taken
        ):
            wanted.append(row["frame_id"])
            taken.append(row["frame_id"])
    assert offered == wanted[:6]
    assert held(conf) == before  # offered is not taken
    review.judge(offered[0], "keep", None)
    review.judge(offered[1], "drop", None)
    now = {row["frame_id"]: row for row in batch_frames(conf)}
    assert held(conf) == sorted([*before, offered[0]])
    extra = now[offered[0]]
    assert (extra["arm"], extra["origin"], extra["reason"]) == (
        "mined",
        "extra",
        f"reviewer asked for more like {name}",
    )
    ranks = [row["rank"] for row in now.values() if row["in_batch"] and row["arm"] == "mined"]
    assert len(set(ranks)) == len(ranks)
    review.judge(offered[0], None, None)
    assert held(conf) == before


def test_frames_that_are_none_of_the_review_cannot_be_judged(conf: Config) -> None:
    review = session(conf)
    outside = rows(
        conf, "SELECT frame_id FROM frames WHERE frame_id NOT IN (SELECT frame_id FROM selections) LIMIT 1"
    )
    for name in (outside[0]["frame_id"], "nobody", "../../etc/passwd", ""):
        with pytest.raises(NoSuchFrame):
            review.judge(name, "keep", None)
    with pytest.raises(UsageError, match="verdict is 'burn'; known: keep, drop, more"):
        review.judge(arm(conf, "mined")[0], "burn", None)
    assert rows(conf, "FROM reviews") == []


def test_a_second_session_says_the_same_after_any_verdicts(conf: Config) -> None:
    """What a server knows from its own verdicts and from another's is what a new one reads from the store, and the view."""
    rng = random.Random(3)
    sessions = [session(conf), session(conf, "bo")]
    for _ in range(20):
        one = rng.choice(sessions)
        if rng.random() < 0.2:
            one.undo()
        else:
            one.judge(rng.choice(one.frame_ids), rng.choice(["keep", "drop", "drop", "more", None]), None)
    shown = [
        {card["frame_id"]: (card["in_batch"], card["verdict"], card["replaces"], card["like"]) for card in one.frames()["frames"]}
        for one in (*sessions, session(conf, "cy"))
    ]  # fmt: skip
    assert shown[0] == shown[1] == shown[2]
    assert {row["frame_id"]: row["in_batch"] for row in batch_frames(conf)} == {
        name: row[0] for name, row in shown[0].items()
    }
    # Told step by step, it comes to the same.
    told: dict[str, Any] = {}
    version = sessions[0].verdicts(0)["version"]
    for since in range(version):
        told |= sessions[0].verdicts(since)["verdicts"]
    assert {name: said for name, said in told.items() if said} == {
        name: row[1] for name, row in shown[0].items() if row[1]
    }


def test_a_later_batch_takes_nothing_that_a_review_brought_or_dropped(conf: Config) -> None:
    review = session(conf)
    dropped = arm(conf, "mined")[0]
    given = review.judge(dropped, "drop", None)["replacement"]["frame_id"]
    offered = [card["frame_id"] for card in review.judge(arm(conf, "mined")[1], "more", None)["similar"]]
    review.judge(offered[0], "keep", None)
    another = arm(conf, "mined")[2]
    bigger = conf.model_copy(
        update={"select": conf.select.model_copy(update={"budget": 100, "min_gap_s": 0.0})}
    )
    second = review_store.select(bigger)
    chosen = {row["frame_id"] for row in batch_frames(bigger, second)}
    assert chosen
    assert not chosen & {dropped, given, offered[0]}
    # What was only offered may be taken by another batch; then it can not come into this one any more.
    gone = [name for name in offered[1:] if name in chosen]
    assert gone
    with pytest.raises(UsageError, match=f"batch {second} holds it"):
        review.judge(gone[0], "keep", None)
    # And what the other batch holds is no replacement here.
    more = review.judge(another, "drop", None)["replacement"]
    assert more is None or more["frame_id"] not in chosen


def test_explain_tells_what_a_review_did(conf: Config) -> None:
    review = session(conf)
    name = arm(conf, "mined")[0]
    given = review.judge(name, "drop", "dull")["replacement"]["frame_id"]
    store = Store(conf.store_path)
    out, taken = explain(store, conf, name), explain(store, conf, given)
    assert out.verdict[-1] == "no longer in the batch: dropped in review"
    assert f"reviewed for {out.batch_id}: drop by ada (dull)" in out.history
    assert taken.chosen
    assert f"in place of {name}, dropped in review" in taken.verdict[0]


def test_the_whole_way_drop_export_labels_measure(conf: Config) -> None:
    batch_id = batch_frames(conf)[0]["batch_id"]
    first, folder = pipeline.run_export(conf, batch_id)
    assert first.counts["images"] == 20
    review = session(conf)
    mined, blind = arm(conf, "mined"), arm(conf, "random")
    review.judge(mined[5], "keep", None)
    unchanged, _ = pipeline.run_export(conf, batch_id)
    assert unchanged.unchanged == 1  # nothing of the delivery has changed
    given = [
        review.judge(name, "drop", "dull")["replacement"]["frame_id"]
        for name in (mined[0], mined[1], blind[0])
    ]
    offered = review.judge(mined[2], "more", None)["similar"][0]["frame_id"]
    review.judge(offered, "keep", None)
    report, folder = pipeline.run_export(conf, batch_id)
    assert (report.done, report.counts) == (
        1,
        {"images": 21, "failed_images": 0, "dropped": 3, "replaced": 3, "added": 1},
    )
    assert "3 dropped, 3 replaced, 1 added" in pipeline.one_line(report)
    lines = [json.loads(line) for line in (Path(folder) / "frames.jsonl").read_text().splitlines()]
    sent = {line["frame_id"]: line for line in lines}
    assert set(given) | {offered} < set(sent)
    assert not {mined[0], mined[1], blind[0]} & set(sent)
    assert sorted(sent) == held(conf)
    assert {path.stem for path in (Path(folder) / "images").iterdir()} == set(sent)
    assert [sent[name]["arm"] for name in given] == ["mined", "mined", "random"]
    again, _ = pipeline.run_export(conf, batch_id)
    assert again.unchanged == 1
    assert again.counts["dropped"] == 3
    # The vendor had the first delivery already: labels of what was dropped since are left out, and are no fault of theirs.
    early = json.loads((Path(f"{folder}.previous-1") / "coco.json").read_text())
    for box in early["annotations"]:
        box["bbox"] = [box["bbox"][0] + 1, box["bbox"][1] + 1, *box["bbox"][2:]]
    (Path(folder).parent / "early.json").write_text(json.dumps(early))
    _, seen = pipeline.run_import(conf, batch_id, "coco", [Path(folder).parent / "early.json"], dry_run=True)
    assert (seen.frames, seen.rejects, seen.refused) == (17, {"dropped": 3}, [])

    coco = json.loads((Path(folder) / "coco.json").read_text())
    for box in coco["annotations"]:  # a labeler moved every box a little
        box["bbox"] = [box["bbox"][0] + 1, box["bbox"][1] + 1, *box["bbox"][2:]]
    back = Path(folder).parent / "back.json"
    back.write_text(json.dumps(coco))
    imported, found = pipeline.run_import(conf, batch_id, "coco", [back])
    assert (imported.done, found.frames, found.without_labels) == (1, 21, 0)
    measured, summary = pipeline.run_measure(conf, [batch_id])
    assert (measured.counts["frames"], measured.counts["frames_without_labels"]) == (21, 0)
    assert (summary.arms["mined"].frames, summary.arms["random"].frames) == (17, 4)
    assert measured.problems == [
        f"{batch_id}: a review dropped 2 of 16 mined and 1 of 4 random frames; 3 were replaced; 1 frames that a reviewer asked "
        "for count as mined; the random arm stands for frames that reviewers let pass, not for all (docs/review.md)"
    ]
    assert {row["frame_id"] for row in rows(conf, "FROM yields")} == set(sent)
    assert measure_yield.summary(Store(conf.store_path), conf, [batch_id]).frames == 21
    # A verdict after that changes what the next delivery holds.
    review.judge(given[0], "drop", None)
    third, folder = pipeline.run_export(conf, batch_id)
    assert third.done == 1
    assert given[0] not in {
        json.loads(line)["frame_id"] for line in (Path(folder) / "frames.jsonl").read_text().splitlines()
    }


def test_a_damaged_verdict_is_named_and_no_run_is_promised_to_bring_it_back(conf: Config) -> None:
    session(conf).judge(arm(conf, "mined")[0], "keep", None)
    (file,) = (Path(conf.store_path) / "tables" / "reviews").rglob("*.parquet")
    file.write_bytes(b"junk")
    with pytest.raises(
        MiningError, match="bring it back from a copy; what comes from the footage alone"
    ) as told:
        session(conf)
    assert str(file) in str(told.value)
