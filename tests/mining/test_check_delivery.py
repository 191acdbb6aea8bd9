"""What cannot be right in a delivery is rejected with the right words; what can, is taken as it is."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path

import numpy as np
import pytest

from detectors.classes import ClassMap
from detectors.types import DetectorError
from mining.boxes import iou_matrix
from mining.check_delivery import Checked, Fit, Names, check_delivery, measure_fit
from mining.config import LabelsConfig
from mining.vendors.labels import KINDS, NO_FAULT, LabelledBox, LabelledImage, Labels, Reject, Sent, SentImage

FLEET = ClassMap.of(["car", "pedestrian", "two_wheeler"], {"person": "pedestrian"})
SENT = Sent(
    "b", FLEET.fleet, tuple(SentImage(f"f{i}", f"images/f{i}.jpg", f"sha{i}", 640, 480) for i in range(4))
)
NAMES = Names.of(FLEET, {"Peaton": "pedestrian", "Pista": ""})
CAR = (100.0, 100.0, 200.0, 180.0)


def box(*edges: float, kind: str = "car", ignore: bool = False) -> LabelledBox:
    return LabelledBox(kind, *edges, ignore=ignore, place="here")


def image(frame: int, *boxes: LabelledBox, **more: object) -> LabelledImage:
    return LabelledImage("there", f"f{frame}.jpg", boxes=boxes, **more)  # type: ignore[arg-type]


def check(*images: LabelledImage, rejects: tuple[Reject, ...] = (), annotator: str | None = None) -> Checked:
    return check_delivery(Labels(images, rejects), SENT, NAMES, LabelsConfig(), annotator)


def kinds(checked: Checked) -> list[str]:
    assert {reject.kind for reject in checked.rejects} <= set(KINDS)
    return [reject.kind for reject in checked.rejects]


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (box(math.nan, 1, 5, 5), "not_finite", "nan"),
        (box(1, 1, math.inf, 5), "not_finite", "inf"),
        (box(50, 50, 50, 90), "no_area", "50, 50, 50, 90"),
        (box(90, 50, 50, 90), "no_area", "90, 50"),
        (box(100, 100, 100.0000001, 200), "no_area", "100"),  # nothing is left of it in the table's 32 bits
        (box(640, 10, 700, 90), "outside", "640 x 480"),
        (box(-90, 10, -50, 90), "outside", "-90"),
        (box(10, 10, 646, 90), "outside", "646"),
        (box(1e300, 1e300, 2e300, 2e300), "outside", "e+300"),
        (box(*CAR, kind="pedestrain"), "unknown_class", "did you mean 'pedestrian'?"),
        (box(*CAR, kind="pista"), "other_class", "none of ours"),
        (box(*CAR, kind="DontCare", ignore=True), "other_class", "DontCare"),
    ],
)
def test_a_box_that_cannot_be_right_is_rejected_alone(bad: LabelledBox, kind: str, words: str) -> None:
    checked = check(image(0, bad, box(1, 2, 30, 40, kind="Person")))
    assert kinds(checked) == [kind]
    assert words in checked.rejects[0].reason
    assert (checked.rejects[0].place, checked.rejects[0].frame_id) == ("here", "f0")
    assert checked.boxes_px.tolist() == [[1, 2, 30, 40]]
    assert (checked.classes.tolist(), checked.vendor_classes) == ([1], ("Person",))
    assert (checked.rows, checked.bad_rows) == (2, 0 if kind == "other_class" else 1)


def test_a_box_that_hangs_over_the_edge_a_little_is_clipped_and_counted() -> None:
    checked = check(image(0, box(-4.9, -1, 50, 60), box(600, 400, 645, 484), box(0, 0, 640, 480)))
    assert checked.boxes_px.tolist() == [[0, 0, 50, 60], [600, 400, 640, 480], [0, 0, 640, 480]]
    assert (checked.clipped, checked.rejects) == (2, ())
    # A share of 9 digits, or left and width, leaves a trace that nobody drew.
    assert check(image(0, box(10, 10, 640.0000003, 60))).clipped == 0
    beyond = check(image(0, box(-4, 10, -1, 50)))
    assert kinds(beyond) == ["outside"]  # hangs over by less than the limit, and nothing of it lies within


def test_the_same_box_twice_is_taken_once_and_of_each_annotator() -> None:
    again = box(100.001, 100, 200, 180)
    checked = check(
        image(0, box(*CAR), again, box(*CAR, kind="person"), annotator="ann"),
        image(0, box(*CAR), annotator="bob"),
        image(1, box(*CAR), annotator="ann"),
    )
    assert kinds(checked) == ["duplicate"]
    assert len(checked.frame) == 4
    assert checked.frame.tolist() == [0, 0, 0, 1]


def test_an_image_that_cannot_be_right_is_rejected_with_its_boxes() -> None:
    two = (box(*CAR), box(1, 1, 9, 9))
    checked = check(
        image(0, *two),
        image(0, box(5, 5, 9, 9)),
        image(9, *two),
        image(1, *two, width_px=1280, height_px=960),
        image(2, *two, height_px=480),
        LabelledImage("p", None, "f3", None, 640, 480, None, ()),
    )
    assert kinds(checked) == ["twice", "no_frame", "wrong_size"]
    assert [r.frame_id for r in checked.rejects] == ["f0", None, "f1"]
    assert "each with --annotator, the second with --add" in checked.rejects[0].reason
    assert "1280 x 960 pixels here, 640 x 480 were sent (2 boxes)" in checked.rejects[2].reason
    assert checked.frame.tolist() == [0, 0, 2, 2]
    assert checked.view_frame.tolist() == [0, 2, 3]
    assert (checked.rows, checked.bad_rows) == (10, 5)
    assert checked.bad_share == 0.5


def test_frames_are_found_by_key_digest_and_name() -> None:
    checked = check(
        LabelledImage("", None, "f2"),
        LabelledImage("", "elsewhere.png", None, "sha1"),
        LabelledImage("", r"C:\data\f3.PNG", None),
        LabelledImage("", "https://x/y/f0.jpg?sig=1", None),
    )
    assert checked.view_frame.tolist() == [2, 1, 3, 0]


def test_a_name_or_digest_that_several_images_share_finds_none_of_them() -> None:
    shared = [SentImage(f"f{i}", "front.jpg", "same", 640, 480) for i in range(3)]
    sent = Sent("b", FLEET.fleet, (*shared, SentImage("f3", "other.jpg", "own", 640, 480)))
    assert sent.named("front.jpg") is None
    assert sent.find(LabelledImage("", "s3://bucket/f1/front.jpg", None, "same")) == shared[1]
    assert sent.find(LabelledImage("", r"C:\back\f2\front.xml", None)) == shared[2]
    assert sent.find(LabelledImage("", "https://x/image?key=f1", None)) == shared[1]
    assert sent.find(LabelledImage("", "front.png", None, "same")) is None
    assert sent.find(LabelledImage("", "renamed.jpg", None, "own")) == sent.images[3]


def test_annotators_are_told_apart_and_a_name_fills_in_where_none_is() -> None:
    checked = check(image(0, annotator="ann"), image(0), image(1, annotator=""), annotator="bob")
    assert checked.annotators == ("ann", "bob")
    assert checked.view_annotator.tolist() == [0, 1, 1]
    assert check(image(0)).annotators == ("",)


def test_an_image_that_lost_all_its_boxes_to_faults_is_not_labelled_as_empty() -> None:
    checked = check(
        image(0, box(*CAR, kind="unheard of")),
        image(1, box(*CAR, kind="pista")),
        image(2),
        image(3),
        rejects=(Reject("x", "unreadable", "", "f3"), Reject("y", "skipped", "", "f2")),
    )
    assert checked.view_frame.tolist() == [1, 2]
    assert (checked.rows, checked.bad_rows) == (5, 2)


def test_rejects_of_the_reader_come_first_and_count_where_they_are_faults() -> None:
    given = (Reject("x", "glued", "g"), Reject("y", "skipped", "s"), Reject("z", "unsupported", "u"))
    checked = check(image(0, box(*CAR)), rejects=given)
    assert checked.rejects == given
    assert (checked.rows, checked.bad_rows) == (2, 1)


def test_an_empty_delivery_is_nothing() -> None:
    checked = check()
    assert (len(checked.frame), len(checked.view_frame), checked.rows, checked.bad_share) == (0, 0, 0, 0.0)


def test_names_that_contradict_the_class_list_are_refused() -> None:
    with pytest.raises(DetectorError, match=r"labels.names: 'moto' maps to 'two_weeler'.*two_wheeler"):
        Names.of(FLEET, {"moto": "two_weeler"})
    assert NAMES.column("PEATON") == 1
    assert Names.of(FLEET, {"car": ""}).column("car") == -1


def test_of_many_hostile_class_names_few_are_compared_with_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    checked = check(image(0, *(box(*CAR, kind=f"\x1b[31m{i}" * 500) for i in range(3000))))
    assert kinds(checked) == ["unknown_class"] * 3000
    assert max(len(reject.reason) for reject in checked.rejects) < 500
    assert len(compared) <= 20
    assert max(map(len, compared)) <= 80


def some_labels(count: int, seed: int, frames: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 500, (count, 2)), rng.uniform(20, 140, (count, 2))
    return (
        np.sort(rng.integers(0, frames, count)),
        np.concatenate([corner, corner + size], axis=1),
        rng.integers(0, 2, count),
    )


def test_fit_counts_as_a_plain_loop_does() -> None:
    frame, boxes, classes = some_labels(300, 1)
    where, objects, kinds_ = some_labels(200, 2)
    kinds_[:40] = 7  # a class that no label has
    met = fitted = 0
    for f, thing, kind in zip(where, objects, kinds_, strict=True):
        if kind == 7:
            continue
        best = iou_matrix(thing[None], boxes[frame == f]).max(initial=0.0)
        met, fitted = met + (best >= 0.1), fitted + (best >= 0.5)
    fit = measure_fit(frame, boxes, classes, where, objects, kinds_)
    assert (fit.sure, fit.met, fit.fitted) == (160, met, fitted)
    assert fit.judged_by == max(met, 0.2 * 160)


def test_labels_in_place_pass_and_labels_beside_the_objects_do_not() -> None:
    rng = np.random.default_rng(5)
    where, objects, kinds_ = some_labels(400, 3)
    noise = rng.normal(0, 4, objects.shape)

    def refused(frame: np.ndarray, boxes: np.ndarray, keep: np.ndarray | None = None) -> bool:
        order = np.argsort(frame, kind="stable")
        order = order if keep is None else order[keep[order]]
        return measure_fit(frame[order], boxes[order], kinds_[order], where, objects, kinds_).misaligned(0.5)

    assert not refused(where, objects + noise)
    assert not refused(where, objects + noise, rng.random(400) < 0.1)  # nine of ten objects are not labelled
    assert refused((where + 1) % 50, objects + noise)
    assert refused(where, objects + noise + 60)
    assert refused(where, objects * 0.4)
    assert refused(where, objects * 2.5)
    assert refused(where, np.tile([630.0, 470.0, 640.0, 480.0], (400, 1)))  # meets nothing at all


def test_few_objects_say_nothing() -> None:
    assert not Fit(9, 9, 0, 9).misaligned(0.5)
    assert Fit(10, 10, 0, 10).misaligned(0.5)
    assert not Fit(20, 20, 8, 20).misaligned(0.5)  # may be half
    assert not Fit(20, 20, 0, 20).misaligned(0.0)


def test_every_kind_of_reject_is_in_the_docs_as_fault_or_not() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "labels.md").read_text()
    told = dict(re.findall(r"^\| (\w+) \| .* \| (yes|no) \|$", page, re.MULTILINE))
    assert told == {kind: "no" if kind in NO_FAULT else "yes" for kind in KINDS}
