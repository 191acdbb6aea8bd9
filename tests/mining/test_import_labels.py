"""Labels come back all or nothing, in place of what stood or beside it, and nothing of them is ever lost."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mining import cli, import_labels
from mining.import_labels import RefusedDelivery
from mining.import_report import ImportReport
from mining.store import Store
from mining.types import StageReport, UsageError
from mining.vendors.labels import DeliveryError
from tests.mining.label_batches import (
    BATCH,
    Box,
    commit_batch,
    commit_seen,
    config,
    done,
    drawn,
    exported,
    image,
    labels_of,
    name,
    plain,
    write,
)
from tests.mining.synthetic import NIGHT, Drive, store_of

pytestmark = pytest.mark.usefixtures("plain")
_ = plain

CAR: Box = ("car", 100, 100, 200, 180)
MAN: Box = ("Person", 300, 100, 340, 220)


def take(store: Store, *files: Path, **how: Any) -> tuple[StageReport, ImportReport]:
    conf = how.pop("conf", None) or config()
    return import_labels.run(store, conf, how.pop("batch", BATCH), how.pop("vendor", "plain"), files, **how)


def boxes(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (r["frame_id"], r["class"], r["annotator"], r["x1_px"], r["is_truth"], r["is_fused"]) for r in rows
    ]


def test_every_label_finds_its_frame(tmp_path: Path) -> None:
    store = exported(tmp_path)
    file = write(tmp_path / "d", image(0, CAR, MAN), image(1), image(2, CAR, ignore=True, annotator="ann"))
    report, found = take(store, file)
    assert done(report) == (1, 0)
    rows = labels_of(store)
    assert boxes(rows) == [
        (name(0), "car", None, 100, True, False),
        (name(0), "pedestrian", None, 300, True, False),
        (name(1), None, None, None, True, False),
        (name(2), "car", "ann", 100, True, False),
    ]
    assert [r["label_index"] for r in rows] == [0, 1, None, 0]
    assert [r["vendor_class"] for r in rows] == ["car", "Person", None, "car"]
    assert [r["ignore"] for r in rows] == [False, False, False, True]
    assert {(r["batch_id"], r["import_id"], r["vendor"]) for r in rows} == {(BATCH, found.import_id, "plain")}
    assert (found.frames, found.boxes, found.empty_frames, found.without_labels) == (3, 3, 1, 3)
    # In the order of the batch: the mined arm first.
    assert found.without_labels_named == [name(3), name(4), name(5)]
    assert "3 of 6 frames still without labels: " + name(3) in found.text()
    assert labels_of(store, "truth") == rows
    with store.connect() as con:
        assert con.execute("SELECT count(*) FROM mined WHERE labelled").fetchall() == [(3,)]


def test_the_same_delivery_again_is_nothing_to_do(tmp_path: Path) -> None:
    store = exported(tmp_path)
    file = write(tmp_path / "d", image(0, CAR))
    _, first = take(store, file)
    before = labels_of(store)
    report, again = take(store, file)
    assert (done(report), again.unchanged, again.import_id) == ((0, 1), True, first.import_id)
    assert "nothing to do" in again.text()
    assert labels_of(store) == before
    # Read otherwise, it is another one.
    assert done(take(store, file, annotator="ann")[0]) == (1, 0)
    assert done(take(store, file, conf=config(labels={"names": {"car": "bus"}}))[0]) == (1, 0)
    assert labels_of(store, "truth")[0]["class"] == "bus"


def test_a_newer_delivery_replaces_the_older_frame_by_frame_and_history_stays(tmp_path: Path) -> None:
    store = exported(tmp_path)
    one = write(tmp_path / "one", image(0, CAR), image(1, CAR, MAN))
    two = write(tmp_path / "two", image(1, MAN), image(2))
    old, new = take(store, one)[1], take(store, two)[1]
    standing = labels_of(store, "truth")
    assert {r["frame_id"]: r["import_id"] for r in standing} == {
        name(0): old.import_id, name(1): new.import_id, name(2): new.import_id
    }  # fmt: skip
    assert len(standing) == 3
    assert len(labels_of(store)) == 5
    # The older one again, on purpose: it stands again, as an import of its own.
    report, again = take(store, one)
    assert done(report) == (1, 0)
    assert again.import_id not in {old.import_id, new.import_id}
    assert {r["import_id"] for r in labels_of(store, "truth")} == {again.import_id, new.import_id}
    assert done(take(store, one)[0]) == (0, 1)
    assert len(labels_of(store)) == 8


def test_time_goes_forward_when_the_clock_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        times = iter(
            [
                datetime(2026, 3, 20, tzinfo=UTC),
                datetime(2026, 3, 20, tzinfo=UTC),
                datetime(2020, 1, 1, tzinfo=UTC),
            ]
        )

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return next(cls.times)

    store = exported(tmp_path)
    monkeypatch.setattr(import_labels, "datetime", Clock)
    for n, kind in enumerate(["car", "bus", "truck"]):
        take(store, write(tmp_path / f"d{n}", image(0, (kind, *CAR[1:]))))
        assert [r["class"] for r in labels_of(store, "truth")] == [kind]
    times = [r["imported_at"] for r in labels_of(store)]
    assert times == sorted(set(times))


def test_several_annotators_become_one_truth_and_their_boxes_stay(tmp_path: Path) -> None:
    store = exported(tmp_path)
    near: Box = ("car", 104, 100, 204, 180)
    file = write(
        tmp_path / "d",
        image(0, CAR, MAN, annotator="ann"), image(0, near, annotator="bob"), image(0, near, annotator="eve"),
        image(1, annotator="ann"), image(1, annotator="bob"),
        image(2, CAR, annotator="ann"), image(2, annotator="bob"), image(2, annotator="eve"),
        image(3, CAR, annotator="ann"),
    )  # fmt: skip
    _, found = take(store, file)
    rows = labels_of(store)
    truth = [r for r in rows if r["is_truth"]]
    assert boxes(truth) == [
        (name(0), "car", None, pytest.approx(308 / 3, abs=1e-3), True, True),
        (name(1), None, None, None, True, True),
        (name(2), None, None, None, True, True),  # one of three drew it
        (name(3), "car", "ann", 100, True, False),
    ]
    assert [r["agreement"] for r in truth] == [1, None, None, None]
    assert boxes([r for r in rows if not r["is_truth"] and r["frame_id"] == name(2)]) == [
        (name(2), "car", "ann", 100, False, False), (name(2), None, "bob", None, False, False), (name(2), None, "eve", None, False, False),
    ]  # fmt: skip
    assert sorted(r["annotator"] for r in rows if not r["is_truth"] and r["frame_id"] == name(1)) == [
        "ann",
        "bob",
    ]
    for frame in range(3):
        numbers = [r["label_index"] for r in rows if r["frame_id"] == name(frame) and r["class"]]
        assert numbers == list(range(len(numbers)))
    assert [a["annotator"] for a in found.annotators] == ["ann", "bob", "eve"]
    assert (found.frames, found.boxes, found.empty_frames) == (4, 6, 1)
    assert "bob" in found.text()
    with store.connect() as con:
        agreed = con.execute(
            "SELECT annotator, frames, boxes, agreed, missed FROM annotators WHERE class = 'car' ORDER BY annotator"
        ).fetchall()
    assert agreed == [("ann", 3, 2, 1, 0), ("bob", 3, 1, 1, 0), ("eve", 2, 1, 1, 0)]


def test_add_puts_a_second_annotator_beside_the_first(tmp_path: Path) -> None:
    store = exported(tmp_path)
    take(store, write(tmp_path / "a", image(0, CAR, MAN), image(1), image(2, CAR)), annotator="ann")
    second = write(tmp_path / "b", image(0, ("car", 110, 100, 210, 180)), image(1), image(3, MAN))
    _, found = take(store, second, annotator="bob", add=True)
    rows = [r for r in labels_of(store) if r["import_id"] == found.import_id]
    assert boxes([r for r in rows if r["frame_id"] == name(0)]) == [
        (name(0), "car", None, 105, True, True),
        (name(0), "pedestrian", None, 300, True, True),  # one of two: labelers overlook more than they invent
        (name(0), "car", "bob", 110, False, False),
        (name(0), "car", "ann", 100, False, False),
        (name(0), "pedestrian", "ann", 300, False, False),
    ]
    assert [r["vendor_class"] for r in rows][3:5] == ["car", "Person"]
    assert {r["annotator"] for r in rows if r["frame_id"] == name(1)} == {None, "ann", "bob"}
    assert boxes([r for r in rows if r["frame_id"] == name(3)]) == [
        (name(3), "pedestrian", "bob", 300, True, False)
    ]
    # The frame that bob did not label stands as it did.
    assert {r["frame_id"] for r in labels_of(store, "truth")} == {name(i) for i in range(4)}
    assert done(take(store, second, annotator="bob", add=True)[0]) == (0, 1)

    # What bob draws now takes the place of what bob drew before; ann's boxes stay.
    third = write(tmp_path / "c", image(0, ("car", 120, 100, 220, 180)))
    _, newer = take(store, third, annotator="bob", add=True)
    drawn = {
        (r["annotator"], r["x1_px"])
        for r in labels_of(store)
        if r["import_id"] == newer.import_id and not r["is_truth"]
    }
    assert drawn == {("ann", 100), ("ann", 300), ("bob", 120)}
    # Without --add the newest stands alone.
    take(store, third, annotator="bob")
    assert boxes([r for r in labels_of(store, "truth") if r["frame_id"] == name(0)]) == [
        (name(0), "car", "bob", 120, True, False)
    ]


def test_add_needs_a_name_to_tell_two_apart(tmp_path: Path) -> None:
    store = exported(tmp_path)
    take(store, write(tmp_path / "a", image(0, CAR), image(1)))
    with pytest.raises(
        UsageError, match=r"labels of 1 frames that stand name no annotator.*--annotator NAME"
    ):
        take(store, write(tmp_path / "b", image(1, CAR), image(2)), add=True)
    _, found = take(store, tmp_path / "b", add=True, annotator="bob")
    assert (found.boxes, len({r["import_id"] for r in labels_of(store)})) == (1, 2)


def bad_delivery(folder: Path) -> Path:
    return write(
        folder / "bad",
        image(0, *[("car", 10 * i, 10, 10 * i + 9, 40) for i in range(1, 9)]),
        image(1, ("carr", *CAR[1:]), ("car", 700, 0, 800, 50)),
        {"reject": "skipped", "reason": "the labeler passed"},
    )


def test_too_many_bad_rows_refuse_the_whole_delivery(tmp_path: Path) -> None:
    store = exported(tmp_path)
    before = set(store.root.rglob("*"))
    with pytest.raises(
        RefusedDelivery,
        match=r"nothing.*2 of 10 rows are bad \(20.0%.*allows 0\): 1 unknown_class, 1 outside; --accept-bad",
    ) as refused:
        take(store, bad_delivery(tmp_path))
    assert set(store.root.rglob("*")) == before
    assert labels_of(store) == []
    assert refused.value.report.rejects == {"skipped": 1, "unknown_class": 1, "outside": 1}
    assert "did you mean 'car'?" in "\n".join(refused.value.report.reject_lines())
    # Just at the limit it is taken.
    assert done(take(store, tmp_path / "bad", conf=config(labels={"max_bad_share": 0.2}))[0]) == (1, 0)


def test_accept_bad_takes_the_good_rows_and_says_so(tmp_path: Path) -> None:
    store = exported(tmp_path)
    report, found = take(store, bad_delivery(tmp_path), accept_bad=True)
    assert done(report) == (1, 0)
    assert "--accept-bad, although 2 of 10 rows are bad" in report.problems[0]
    assert {r["frame_id"] for r in labels_of(store)} == {name(0)}  # frame 1 lost all it had: it is not empty
    assert found.without_labels == 5
    with store.connect() as con:
        kept = con.execute("SELECT kind, place, frame_id FROM label_rejects ORDER BY place").fetchall()
    assert kept == [
        ("unknown_class", "bad: line 2, box 1", name(1)), ("outside", "bad: line 2, box 2", name(1)), ("skipped", "bad: line 3", None),
    ]  # fmt: skip


SEEN: dict[int, list[Box]] = {
    i: [("car", 20 + 60 * n + 7 * i, 40 * i, 70 + 60 * n + 7 * i, 40 * i + 60) for n in range(4)]
    for i in range(6)
}


def test_boxes_beside_what_the_committee_sees_refuse_the_delivery(tmp_path: Path) -> None:
    store = exported(tmp_path, seen=SEEN)
    right = [image(i, *drawn(seen[:3])) for i, seen in SEEN.items()]  # a quarter is not labelled
    beside = [
        image(i, *((kind, x1 + 30, y1, x2 + 30, y2) for kind, x1, y1, x2, y2 in seen))
        for i, seen in SEEN.items()
    ]
    file = write(tmp_path / "beside", *beside)
    with pytest.raises(
        RefusedDelivery, match=r"lie beside the objects: of 24 objects .* meet 24 and fit 0.*--accept-bad"
    ):
        take(store, file)
    assert labels_of(store) == []
    assert done(take(store, file, conf=config(labels={"min_fit": 0}), dry_run=True)[0]) == (0, 0)
    report, _ = take(store, file, accept_bad=True)
    assert "although its boxes lie beside" in report.problems[0]
    report, found = take(store, write(tmp_path / "right", *right))
    assert (report.problems, found.fit) == ([], {"sure": 24, "met": 18, "fitted": 18})
    assert "of 24 objects that the committee surely sees, labels meet 18 and fit 18" in found.text()
    # Classes that no label has are not asked about.
    animals = [image(i, ("animal", 500, 300, 560, 400)) for i in SEEN]
    assert take(store, write(tmp_path / "animals", *animals))[1].fit == {"sure": 0, "met": 0, "fitted": 0}


def test_a_batch_that_comes_back_as_it_went_out_is_refused(tmp_path: Path) -> None:
    """Else the detector would be measured against itself, and never be wrong."""
    store = exported(tmp_path, seen=SEEN)
    untouched = [image(i, *seen) for i, seen in SEEN.items()]
    with pytest.raises(RefusedDelivery, match="all of its 24 boxes are the committee's own, unchanged"):
        take(store, write(tmp_path / "untouched", *untouched))
    assert labels_of(store) == []
    # One box drawn by somebody: it was looked at, and most was right.
    corrected = [image(0, *SEEN[0][:3], *drawn(SEEN[0][3:])), *untouched[1:]]
    report, found = take(store, write(tmp_path / "corrected", *corrected))
    assert report.problems == ["23 of 24 boxes are the committee's, unchanged"]
    assert found.boxes == 24
    # Too few to tell.
    take(store, write(tmp_path / "few", image(1, *SEEN[1])))


def test_what_the_committee_contradicts_is_listed(tmp_path: Path) -> None:
    store = exported(tmp_path, seen=SEEN)
    first, second, third, _ = SEEN[0]
    file = write(
        tmp_path / "d",
        image(0, ("truck", *first[1:]), second, third),
        *(image(i, *SEEN[i]) for i in range(1, 6)),
    )
    _, found = take(store, file)
    with store.connect() as con:
        looks = con.execute("SELECT kind, seen_class, frame_id FROM second_look ORDER BY kind").fetchall()
        over = con.execute('SELECT frame_id, "class", confidence, detectors FROM overlooked').fetchall()
    assert looks == [("overlooked", "car", name(0))]  # no member knows trucks: nothing is said of that label
    assert over == [(name(0), "car", pytest.approx(0.9), ["a", "b"])]
    assert found.second_look == 1
    assert f"{name(0)}: car at 200, 0, 250, 60 is overlooked" in found.text()
    # Of classes that the labelers were not asked for, none is overlooked.
    assert take(store, file, conf=config(labels={"classes": ["truck"]}))[1].second_look == 0
    with pytest.raises(UsageError, match=r"labels.classes: 'lorry' is no fleet class"):
        take(store, file, conf=config(labels={"classes": ["lorry"]}))


def test_without_a_committee_labels_are_taken_and_that_is_said(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.5] * 3))  # its detect stage says of no member what it sees
    commit_batch(store, BATCH, range(3))
    report, found = take(store, write(tmp_path / "d", image(0, CAR)))
    assert (done(report), found.second_look) == ((1, 0), 0)
    assert labels_of(store)[0]["location_quality"] is None


def test_another_class_list_than_the_committee_had_is_refused(tmp_path: Path) -> None:
    store = exported(tmp_path, seen=SEEN)
    (tmp_path / "classes.toml").write_text('fleet = ["truck", "car", "bus", "train", "two_wheeler", "pedestrian", "animal", '
                                           '"traffic_light", "stop_sign"]')  # fmt: skip
    with pytest.raises(UsageError, match="another class list"):
        take(store, write(tmp_path / "d", image(0, CAR)), conf=config(classes=str(tmp_path / "classes.toml")))
    (tmp_path / "classes.toml").write_text('fleet = ["car"]')
    with pytest.raises(UsageError, match="another class list"):
        take(store, tmp_path / "d", conf=config(classes=str(tmp_path / "classes.toml")))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"batch": "2026-03-14-zz"}, r"no batch is called '2026-03-14-zz'; the latest: .*2026-03-14-b"),
        ({"batch": "2026-03-14-new"}, r"2026-03-14-new was never exported.*mining export --config"),
        ({"vendor": "acme"}, r"--vendor acme: is not known; can be read: .*plain"),
    ],
)
def test_wrong_use_says_what_to_do(tmp_path: Path, how: dict[str, str], words: str) -> None:
    store = exported(tmp_path)
    commit_batch(store, "2026-03-14-new", range(6, 8), export=False)
    with pytest.raises(UsageError, match=words):
        take(store, write(tmp_path / "d", image(0, CAR)), **how)
    with pytest.raises(UsageError, match="no such file or folder"):
        take(store, tmp_path / "none")


def test_a_delivery_of_another_batch_is_refused_even_when_bad_is_accepted(tmp_path: Path) -> None:
    store = exported(tmp_path)
    file = write(tmp_path / "d", image("other.jpg", CAR))
    for accept in (False, True):
        with pytest.raises(DeliveryError, match="nothing of this delivery is taken in") as refused:
            take(store, file, accept_bad=accept)
        assert "--accept-bad" not in str(refused.value)
    assert labels_of(store) == []


def test_a_dry_run_checks_and_takes_nothing_in(tmp_path: Path) -> None:
    store = exported(tmp_path)
    report, found = take(store, write(tmp_path / "d", image(0, CAR)), dry_run=True)
    assert (done(report), found.import_id, found.boxes) == ((0, 0), None, 1)
    assert labels_of(store) == []


def test_stopped_at_any_file_an_import_is_there_wholly_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = exported(tmp_path)
    take(store, write(tmp_path / "a", image(0, CAR), image(1, CAR)))
    old = labels_of(store)
    file = write(tmp_path / "b", image(0, MAN, ("car", 0, 0, 0, 0)), image(1, annotator="x"))
    real, at = os.replace, 0
    while True:
        left = at

        def stopping(source: str, target: str) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping)
            try:
                take(store, file, accept_bad=True)
                break
            except KeyboardInterrupt:
                pass
        assert labels_of(store) == old
        assert labels_of(store, "truth") == old
        with store.connect() as con:
            assert con.execute(
                "SELECT (SELECT count(*) FROM label_rejects) + (SELECT count(*) FROM annotators)"
            ).fetchall() == [(0,)]
        at += 1
    assert at == 5  # four tables and the marker
    assert [r["class"] for r in labels_of(store, "truth")] == ["pedestrian", None]


def test_the_command_reports_refuses_and_shows_hostile_names_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = exported(tmp_path)
    (tmp_path / "c.toml").write_text('[footage]\npaths = ["x"]\n[[detector]]\nweights = "gone.pt"\n')

    def command(*arguments: object) -> tuple[int, str, str]:
        start = [
            "mining",
            "import-labels",
            "--config",
            tmp_path / "c.toml",
            "--batch",
            BATCH,
            "--vendor",
            "plain",
        ]
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*start, *arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        assert not any(c for c in out + err if not c.isprintable() and c not in "\n\t")
        return int(left.value.code or 0), out, err

    evil = "\x1b[2J\x07evil\u202e"
    file = write(
        tmp_path / "d",
        *(image(0, CAR, annotator=who) for who in (evil, "ann")),
        image(1, (evil, *CAR[1:]), CAR), image(f"{evil}\n.jpg", CAR),
    )  # fmt: skip
    code, out, err = command(file)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(
        "mining: error: nothing of this delivery is taken in: 2 of 5 rows are bad (40.0%"
    )
    assert any("unknown_class" in line and "line 3, box 1" in line for line in err.splitlines()[:-1])
    code, out, err = command(file, "--accept-bad", "--dry-run")
    assert code == 0
    assert out.endswith("nothing was taken in: --dry-run\n")
    assert "mining: import: dry run, 1 would be done, 1 problems - 2 frames, 3 boxes" in err
    assert "nothing to do" not in err
    assert "evil" in out
    assert labels_of(store) == []
    code, out, _ = command(file, "--accept-bad", "--json")
    report = json.loads(out)
    assert (report["done"], report["boxes"], report["rejects"]) == (1, 3, {"no_frame": 1, "unknown_class": 1})
    assert {r["annotator"] for r in labels_of(store)} == {None, evil, "ann"}  # data stays as it came
    code, out, _ = command(write(tmp_path / "e", image("no", CAR)), "--json")
    assert (code, json.loads(out)["refused"][0][:19]) == (1, "1 of 1 rows are bad")
    assert json.loads(out)["without_labels"] == 4  # refused as it is, it tells what stands
    code, out, _ = command(file, "--json")
    assert code == 0
    assert '"unchanged": 1,' in out


def test_frames_whose_images_changed_size_are_told_by_their_size(tmp_path: Path) -> None:
    store = exported(tmp_path)
    with pytest.raises(RefusedDelivery) as refused:
        take(store, write(tmp_path / "d", image(0, CAR, width=1280, height=960)))
    assert "1280 x 960 pixels here, 640 x 480 were sent" in refused.value.report.examples["wrong_size"]


def test_a_frame_that_is_not_in_the_store_any_more_cannot_be_labelled(tmp_path: Path) -> None:
    store = exported(tmp_path)
    commit_seen(store, {}, 8)
    commit_batch(store, "2026-03-14-c", [0, 1, 99])
    file = write(tmp_path / "d", image(0, CAR))
    report, found = take(store, file, batch="2026-03-14-c")
    assert found.batch_frames == 2
    assert report.problems == [
        "1 frames of the batch are not in the store any more: their labels cannot be taken in"
    ]


def test_a_batch_that_another_site_chose_is_known_by_what_was_exported_here(tmp_path: Path) -> None:
    store = exported(tmp_path, seen=SEEN)
    store.retract("select", NIGHT, BATCH)
    # By the digest of the image as this vendor got it.
    file = write(tmp_path / "d", *(image("unnamed", *drawn(SEEN[i]), sha256=f"plain-{i}") for i in SEEN))
    report, found = take(store, file)
    assert (report.problems, found.frames, found.fit) == ([], 6, {"sure": 24, "met": 24, "fitted": 24})
    assert labels_of(store)[0]["location_quality"] > 0.9
