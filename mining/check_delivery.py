"""Does a delivery of labels make sense? One check for all formats: what cannot be right is a reject with a reason.

Readers have brought boxes to pixels and corners. Here they meet the batch: does the image belong to it, does the box lie in
it, is the class one of ours; and, over the whole delivery, do the boxes lie where the committee surely sees objects?
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from detectors.classes import ClassMap, normalise
from mining.boxes import overlapping_pairs
from mining.config import LabelsConfig
from mining.types import UsageError
from mining.vendors.labels import NO_FAULT, LabelledImage, Labels, Reject, Sent, SentImage

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SURE = 0.5
"""The committee is sure of an object from this mean confidence on."""
MEETS_IOU = 0.1
"""A label meets an object from this overlap on."""
FITS_IOU = 0.5
"""And fits it from this one on."""

_ROUNDING_PX = 0.01
"""An overhang of less comes from formats that write shares, or left and width; nobody drew it."""
_MET_AT_LEAST = 0.2
_JUDGED_FROM = 10
_Z = 1.96
_SUGGESTED = 20
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Checked:
    """What of a delivery can be taken in: ``n`` boxes and ``v`` views, flat."""

    annotators: tuple[str, ...]
    """Names in order of first appearance; "" where the delivery does not say."""
    view_frame: IntArray
    """[v] position in ``Sent.images``: every image that an annotator labelled, those without a box too; no pair twice."""
    view_annotator: IntArray
    """[v] position in ``annotators``."""
    frame: IntArray
    """[n] position in ``Sent.images``, ascending."""
    annotator: IntArray
    """[n] position in ``annotators``."""
    boxes_px: NDArray[np.float32]
    """[n, 4] within the image."""
    classes: IntArray
    """[n] position in the fleet's class list."""
    vendor_classes: tuple[str, ...]
    """[n] as the vendor wrote it."""
    ignore: BoolArray
    """[n]"""
    clipped: int
    """Boxes that hung over the image's edge by less than the limit."""
    rejects: tuple[Reject, ...]
    """The reader's first."""
    rows: int
    """Boxes, and images without boxes, that the delivery has."""
    bad_rows: int
    """Of these, those that were rejected for a fault; an image counts with its boxes."""

    @property
    def bad_share(self) -> float:
        """Share of bad rows; 0 in an empty delivery."""
        return self.bad_rows / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Names:
    """Which fleet class a vendor's class name stands for."""

    fleet: tuple[str, ...]
    table: Mapping[str, str]
    """Normalised name -> fleet class; "" for what is none of ours."""
    _hints: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, class_map: ClassMap, names: Mapping[str, str]) -> Names:
        """Take the class list, with the names of ``labels.names`` on top. Raises ``DetectorError`` where those contradict it."""
        own = ClassMap.of(class_map.fleet, names, "labels.names")
        return cls(
            class_map.fleet,
            {**class_map.table, **{normalise(name): own.table.get(normalise(name), "") for name in names}},
        )

    def column(self, name: str) -> int:
        """Position of the fleet class in the list; -1 for none of ours, -2 for unknown."""
        fleet = self.table.get(normalise(name))
        return -2 if fleet is None else self.fleet.index(fleet) if fleet else -1

    def hint(self, name: str) -> str:
        """Phrase the nearest known name. Of many unknown names only the first are compared: hostile ones cost time."""
        if name not in self._hints and len(self._hints) < _SUGGESTED:
            near = difflib.get_close_matches(normalise(name)[:_SHOWN], self.table, n=1, cutoff=0.6)
            self._hints[name] = f", did you mean {near[0]!r}?" if near else ""
        return self._hints.get(name, "")


def asked_for(limits: LabelsConfig, fleet: Sequence[str]) -> tuple[str, ...]:
    """List the fleet classes that the labelers were asked for: those of ``labels.classes``, else all of them."""
    unknown = sorted(set(limits.classes) - set(fleet))
    if unknown:
        raise UsageError(f"labels.classes: {unknown[0]!r} is no fleet class; they are {', '.join(fleet)}")
    return tuple(name for name in fleet if name in (limits.classes or fleet))


def check_delivery(
    labels: Labels, sent: Sent, names: Names, limits: LabelsConfig, annotator: str | None = None
) -> Checked:
    """Check every image and box of a delivery.

    Args:
        labels: as the vendor's reader gives it.
        sent: the batch as it went out.
        names: what the vendor's class names stand for.
        limits: ``max_overhang_px`` is used.
        annotator: whose labels these are where the delivery names nobody.
    """
    images = labels.images
    position = {image.frame_id: i for i, image in enumerate(sent.images)}
    found = [sent.find(image) for image in images]
    frame_of = np.array([-1 if it is None else position[it.frame_id] for it in found], np.int64)
    who = [image.annotator or annotator or "" for image in images]
    annotators = tuple(dict.fromkeys(who))
    number = {name: i for i, name in enumerate(annotators)}
    annotator_of = np.array([number[name] for name in who], np.int64)
    rejects: list[Reject] = list(labels.rejects)
    whole = _check_images(images, sent, frame_of, annotator_of, annotators, rejects)

    count = np.array([len(image.boxes) for image in images], np.int64)
    boxes = list(chain.from_iterable(image.boxes for image in images))
    image = np.repeat(np.arange(len(images)), count)
    px = np.array([(b.x1_px, b.y1_px, b.x2_px, b.y2_px) for b in boxes], np.float64).reshape(-1, 4)
    class_names = np.array([b.class_name for b in boxes], object)
    known = {name: names.column(name) for name in dict.fromkeys(class_names.tolist())}
    classes = np.array([known[name] for name in class_names], np.int64)
    ignore = np.array([b.ignore for b in boxes], bool)

    size = np.array([(s.width_px, s.height_px) for s in sent.images], np.float64).reshape(-1, 2)
    edge = np.tile(size[frame_of[image]] if len(size) else np.zeros((len(boxes), 2)), 2)
    with np.errstate(all="ignore"):
        inside = np.clip(px, 0.0, edge).astype(np.float32)
        overhang = np.abs(px - np.clip(px, 0.0, edge)).max(axis=1, initial=0.0)
    open_ = whole[image]
    kind = np.full(len(boxes), "", object)

    def reject(which: NDArray[np.bool_] | np.bool_, name: str) -> None:
        nonlocal open_
        kind[which & open_] = name
        open_ = open_ & ~which

    finite = np.isfinite(px).all(axis=1)
    with np.errstate(invalid="ignore"):
        reject(~finite, "not_finite")
        # Also what the tables' 32 bits leave no area.
        reject(_flat(px) | (_flat(inside) & (overhang == 0)), "no_area")
        reject((overhang > limits.max_overhang_px) | _flat(inside), "outside")
        reject((classes == -1) | ((classes == -2) & ignore), "other_class")
        reject(classes == -2, "unknown_class")
    rows = np.flatnonzero(open_)
    again = np.zeros(len(boxes), bool)
    again[rows[_repeated(frame_of[image[rows]], annotator_of[image[rows]], classes[rows], inside[rows])]] = (
        True
    )
    reject(again, "duplicate")

    for row in np.flatnonzero(kind != ""):
        box = boxes[row]
        rejects.append(
            Reject(
                box.place,
                str(kind[row]),
                _reason(str(kind[row]), box.class_name, px[row], edge[row], names),
                sent.images[frame_of[image[row]]].frame_id,
            )
        )
    faulty = (kind != "") & ~np.isin(kind.astype(str), sorted(NO_FAULT))
    empty_handed = _empty_handed(sent, labels, whole, frame_of, image, open_, faulty)
    views = np.flatnonzero(whole & ~empty_handed)
    kept = np.flatnonzero(open_)
    kept = kept[np.argsort(frame_of[image[kept]], kind="stable")]
    in_reader = sum(reject.kind not in NO_FAULT for reject in labels.rejects)
    rows_of = np.maximum(count, 1)
    return Checked(
        annotators=annotators,
        view_frame=frame_of[views],
        view_annotator=annotator_of[views],
        frame=frame_of[image[kept]],
        annotator=annotator_of[image[kept]],
        boxes_px=inside[kept],
        classes=classes[kept],
        vendor_classes=tuple(class_names[kept].tolist()),
        ignore=ignore[kept],
        clipped=int((overhang[kept] > _ROUNDING_PX).sum()),
        rejects=tuple(rejects),
        rows=int(rows_of.sum()) + in_reader,
        bad_rows=int(rows_of[~whole].sum() + faulty.sum()) + in_reader,
    )


def leave_out_dropped(labels: Labels, sent: Sent, dropped: Sequence[str]) -> Labels:
    """Turn images into rejects that an earlier delivery of the batch held, and that a review has taken out of it since."""
    earlier = Sent(
        sent.batch_id,
        sent.classes,
        tuple(SentImage(name, f"images/{name}", "unknown", 0, 0) for name in dropped),
    )
    known = [None if sent.find(image) is not None else earlier.find(image) for image in labels.images]
    return Labels(
        tuple(image for image, gone in zip(labels.images, known, strict=True) if gone is None),
        (
            *labels.rejects,
            *(
                Reject(image.place, "dropped", "a review has dropped it since it was sent", gone.frame_id)
                for image, gone in zip(labels.images, known, strict=True)
                if gone is not None
            ),
        ),
    )


def _check_images(
    images: Sequence[LabelledImage],
    sent: Sent,
    frame_of: IntArray,
    annotator_of: IntArray,
    annotators: Sequence[str],
    rejects: list[Reject],
) -> BoolArray:
    """[i] True for images that can be taken in; a reject for each of the others."""
    good = np.ones(len(images), bool)
    seen: dict[tuple[int, int], str] = {}
    for i, image in enumerate(images):
        boxes = f" ({len(image.boxes)} boxes)" if image.boxes else ""
        if frame_of[i] < 0:
            name = image.file_name or image.frame_id or image.sha256 or ""
            found = ("no_frame", f"no image of the batch is called {name[:_SHOWN]!r}{boxes}", None)
        else:
            it = sent.images[frame_of[i]]
            key = int(frame_of[i]), int(annotator_of[i])
            sizes = (image.width_px or it.width_px, image.height_px or it.height_px)
            if sizes != (it.width_px, it.height_px):
                words = (
                    f"{sizes[0]} x {sizes[1]} pixels here, {it.width_px} x {it.height_px} were sent{boxes}"
                )
                found = ("wrong_size", words, it.frame_id)
            elif key in seen:
                who = annotators[key[1]]
                by = f" by {who[:_SHOWN]!r}" if who else ""
                # Two who are not named look like one who did it twice.
                way_out = (
                    "" if who else "; two annotators? import each with --annotator, the second with --add"
                )
                found = ("twice", f"labelled{by} already, in {seen[key]}{boxes}{way_out}", it.frame_id)
            else:
                seen[key] = image.place
                continue
        good[i] = False
        rejects.append(Reject(image.place, *found))
    return good


def _flat(boxes: NDArray[np.floating]) -> BoolArray:
    return np.asarray((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))


def _repeated(
    frame: IntArray, annotator: IntArray, classes: IntArray, boxes_px: NDArray[np.float32]
) -> IntArray:
    """Rows that repeat an earlier one: same image, annotator and class, and edges equal to a hundredth of a pixel."""
    keys = np.column_stack(
        [frame, annotator, classes, np.rint(boxes_px.astype(np.float64) * 100).astype(np.int64)]
    )
    order = np.lexsort(keys.T[::-1])  # stable: of equal rows the first stands first
    return order[1:][(keys[order[1:]] == keys[order[:-1]]).all(axis=1)]


def _reason(
    kind: str, class_name: str, px: NDArray[np.float64], edge: NDArray[np.float64], names: Names
) -> str:
    at = ", ".join(f"{v:.6g}" for v in px)
    if kind == "unknown_class":
        shown = class_name[:_SHOWN]
        return f"class {shown!r} is not in the fleet's list{names.hint(class_name)} (labels.names maps it, or leaves it out)"
    if kind == "other_class":
        return f"class {class_name[:_SHOWN]!r} is none of ours"
    if kind == "outside":
        return f"box {at} in an image of {edge[0]:.0f} x {edge[1]:.0f} pixels"
    if kind == "duplicate":
        return f"the same {class_name[:_SHOWN]!r} box {at} again"
    return f"box {at}"


def _empty_handed(
    sent: Sent,
    labels: Labels,
    whole: BoolArray,
    frame_of: IntArray,
    image: IntArray,
    open_: BoolArray,
    faulty: BoolArray,
) -> BoolArray:
    """[i] images of which no box is left, and one was lost to a fault: not labelled as empty, so not labelled."""
    left = np.bincount(image[open_], minlength=len(whole)) > 0
    lost = np.bincount(image[faulty], minlength=len(whole)) > 0
    in_reader = {reject.frame_id for reject in labels.rejects if reject.kind not in NO_FAULT}
    spoilt = np.array([s.frame_id in in_reader for s in sent.images], bool)
    if len(spoilt):
        lost |= spoilt[frame_of] & (frame_of >= 0)
    return ~left & lost


@dataclass(frozen=True, slots=True)
class Fit:
    """How the labels lie beside what the committee surely sees."""

    sure: int
    """Objects that it is sure of, of classes that the labels name, in labelled images."""
    met: int
    """Of these, those that a label overlaps by MEETS_IOU or more."""
    fitted: int
    """And by FITS_IOU or more."""
    judged_by: float
    """Objects that a label should fit: those met, and at least a fifth of the sure ones or of the labels, whichever are
    fewer; labels that meet nothing cannot be right either."""

    def misaligned(self, min_fit: float) -> bool:
        """True where the share of fitted objects is surely below ``min_fit``: its 95 % interval (Wilson 1927) ends below.

        Fewer than ten objects say nothing.
        """
        n = self.judged_by
        if n < _JUDGED_FROM:
            return False
        share = min(self.fitted / n, 1.0)
        half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
        return bool((share + _Z**2 / (2 * n) + half) / (1 + _Z**2 / n) < min_fit)


UNCHANGED_PX = 0.5
"""Nobody draws four edges so near to those that a committee's mean has."""
UNTOUCHED_AT_LEAST = 10
"""So many boxes, and all of them the committee's: the delivery is the batch as it went out. Fewer may be right by chance."""


def measure_fit(
    frame: IntArray,
    boxes_px: NDArray[np.floating],
    classes: IntArray,
    object_frame: IntArray,
    object_boxes_px: NDArray[np.floating],
    object_classes: IntArray,
) -> Fit:
    """Compare the labels of a delivery with the objects that the committee is sure of.

    Neither labels that are missing nor objects that the committee overlooks count: only objects that some label meets. Where
    labels belong to other frames, are shifted or scaled, they meet objects by chance, and hardly ever fit them. Classes
    decide only which objects are looked at: those of a class that some label has.

    Args:
        frame, boxes_px, classes: [n], [n, 4], [n] labels; frames ascending.
        object_frame, object_boxes_px, object_classes: [m], [m, 4], [m] sure objects in the labelled frames; frames ascending.
    """
    of_ours = np.isin(object_classes, classes)
    where, objects = object_frame[of_ours], np.asarray(object_boxes_px, np.float64)[of_ours]
    i, _, overlap = overlapping_pairs(where, objects, frame, np.asarray(boxes_px, np.float64), MEETS_IOU)
    best = np.zeros(len(where))
    np.maximum.at(best, i, overlap)
    met = int((best >= MEETS_IOU).sum())
    at_least = _MET_AT_LEAST * min(len(where), len(frame))
    return Fit(len(where), met, int((best >= FITS_IOU).sum()), max(float(met), at_least))


def unchanged(
    frame: IntArray,
    boxes_px: NDArray[np.floating],
    classes: IntArray,
    object_frame: IntArray,
    object_boxes_px: NDArray[np.floating],
    object_classes: IntArray,
) -> int:
    """How many labels are an object of the committee, of the same class and to UNCHANGED_PX at every edge.

    The arguments are those of ``measure_fit``, with all objects and not the sure ones alone.
    """
    boxes, objects = np.asarray(boxes_px, np.float64), np.asarray(object_boxes_px, np.float64)
    i, j, _ = overlapping_pairs(frame, boxes, object_frame, objects, FITS_IOU)
    same = (classes[i] == object_classes[j]) & (
        np.abs(boxes[i] - objects[j]).max(axis=1, initial=0) <= UNCHANGED_PX
    )
    return len(np.unique(i[same]))


def count_kinds(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by kind, the most frequent first."""
    return dict(Counter(reject.kind for reject in rejects).most_common())
