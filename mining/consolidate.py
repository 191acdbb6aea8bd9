"""Several annotators on one frame -> one truth, and how well each annotator agrees with it. Pure functions.

Boxes are flat: one row a box, with the number of its frame, annotator and class, each counted from 0. What comes out does
not depend on how annotators are numbered, nor on the order of the rows (but for the order in which rows come back).

Two boxes of different annotators are the same object where they overlap by IoU .5 or more, one to one. Boxes of one class
are matched first; then objects of different classes at one place become one object, unless some annotator drew both: a
rider and a bicycle lie nearly in the same place and are two.

An object is fused as in weighted box fusion (Solovyev, Wang, Gabruseva 2021, Image and Vision Computing 107): its box is
the mean of its boxes, weighted by annotator. Its class has the most weight; of two with the same weight it is the one that
stands first in the class list. It is ``ignore`` where annotators of half of its weight or more say so: what is in doubt
must not count against a detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import iou_pairs, match_committee

IntArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]

MIN_AGREEMENT = 0.5
"""An object is true where at least this share of the frame's annotators drew it: one of two, two of three, two of four.
Labelers overlook an object more often than they invent one, so what half of them drew is kept."""
SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Consolidated:
    """What counts as truth: k objects of all frames, and where each of the n raw boxes went."""

    frame: IntArray
    """[k] ascending. A frame of one annotator has its boxes unchanged, in their order."""
    boxes_px: Float64Array
    """[k, 4]."""
    classes: IntArray
    """[k]."""
    ignore: NDArray[np.bool_]
    """[k]."""
    agreement: Float64Array
    """[k] share of the frame's annotators who drew it, whatever they called it; NaN where the frame had one annotator."""
    is_fused: NDArray[np.bool_]
    """[k] its frame had several annotators."""
    raw: IntArray
    """[k] the raw box that it is, where not ``is_fused``; -1 where it is."""
    part_of: IntArray
    """[n] the object that a raw box went into; -1: too few drew it."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One row for each annotator who shared a frame with another, and each class seen in shared frames: r rows."""

    annotator: IntArray
    """[r] ascending."""
    classes: IntArray
    """[r] ascending for each annotator."""
    frames: IntArray
    """[r] frames that the annotator shared, whatever the class."""
    boxes: IntArray
    """[r] boxes drawn there, of the class."""
    agreed: IntArray
    """[r] of these, boxes that became part of an object of that class."""
    missed: IntArray
    """[r] objects of that class, in those frames, that the annotator did not draw so."""
    mean_iou: Float64Array
    """[r] of the agreed boxes with their objects; NaN where none agreed."""
    agreement: Float64Array
    """[r] agreed / (boxes + missed); NaN where there is nothing."""


def consolidate(
    frame: NDArray[np.integer],
    annotator: NDArray[np.integer],
    boxes_px: NDArray[np.floating],
    classes: NDArray[np.integer],
    ignore: NDArray[np.bool_],
    labelled_frame: NDArray[np.integer],
    labelled_annotator: NDArray[np.integer],
    *,
    min_agreement: float = MIN_AGREEMENT,
    iou_threshold: float = SAME_OBJECT_IOU,
    weights: NDArray[np.floating] | None = None,
) -> Consolidated:
    """Fuse what several annotators drew.

    Args:
        frame, annotator, boxes_px, classes, ignore: [n], [n], [n, 4], [n], [n] the raw boxes, in any order.
        labelled_frame, labelled_annotator: [v] who labelled which frame, each pair once; also those who found it empty.
        min_agreement: share of a frame's annotators, above 0, at most 1.
        iou_threshold: from this overlap on, boxes are the same object.
        weights: [a] above 0, by annotator, for places, classes and ``ignore``; all equal where absent. Agreement counts
            heads.

    Raises:
        ValueError: a pair that stands there twice, a box whose pair is not there, or a number out of range.
    """
    frame, annotator, classes = (np.asarray(a, np.int64) for a in (frame, annotator, classes))
    boxes = np.asarray(boxes_px, np.float64)
    labelled_frame, labelled_annotator = (
        np.asarray(a, np.int64) for a in (labelled_frame, labelled_annotator)
    )
    _check(frame, annotator, labelled_frame, labelled_annotator, min_agreement)
    weight = np.ones(len(frame)) if weights is None else np.asarray(weights, np.float64)[annotator]
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise ValueError("consolidate: a weight is not above 0")
    heads = np.bincount(labelled_frame, minlength=1)
    alone = np.flatnonzero(heads[frame] == 1)
    alone = alone[np.argsort(frame[alone], kind="stable")]
    shared = np.flatnonzero(heads[frame] > 1)
    # In an order that does not hang on the annotators' numbers, to the last bit of every sum.
    shared = shared[np.lexsort((weight[shared], classes[shared], *boxes[shared].T, frame[shared]))]

    object_of = _objects(frame[shared], annotator[shared], boxes[shared], classes[shared], iou_threshold)
    count = int(object_of.max(initial=-1)) + 1
    sum_of = np.bincount(object_of, weight[shared], minlength=count)
    fused_frame = np.zeros(count, np.int64)
    fused_frame[object_of] = frame[shared]
    fused = np.column_stack(
        [
            np.bincount(object_of, weight[shared] * boxes[shared, i], minlength=count) / sum_of
            for i in range(4)
        ]
    )
    fused_class = _vote(object_of, classes[shared], weight[shared], count)
    fused_ignore = 2 * np.bincount(object_of, weight[shared] * ignore[shared], minlength=count) >= sum_of
    agreement = np.bincount(object_of, minlength=count) / heads[fused_frame]
    kept = np.flatnonzero(agreement >= min_agreement - 1e-9)
    # By agreement, then by place: an order that the annotators' numbers do not show in.
    kept = kept[np.lexsort((*fused[kept].T, -agreement[kept], fused_frame[kept]))]

    order = np.argsort(np.r_[frame[alone], fused_frame[kept]], kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    part_of = np.full(len(frame), -1, np.int64)
    part_of[alone] = place[: len(alone)]
    place_of_object = np.full(count, -1, np.int64)
    place_of_object[kept] = place[len(alone) :]
    part_of[shared] = place_of_object[object_of]
    return Consolidated(
        frame=np.r_[frame[alone], fused_frame[kept]][order],
        boxes_px=np.concatenate([boxes[alone], fused[kept]])[order],
        classes=np.r_[classes[alone], fused_class[kept]][order],
        ignore=np.r_[ignore[alone], fused_ignore[kept]][order],
        agreement=np.r_[np.full(len(alone), np.nan), agreement[kept]][order],
        is_fused=np.r_[np.zeros(len(alone), bool), np.ones(len(kept), bool)][order],
        raw=np.r_[alone, np.full(len(kept), -1)][order],
        part_of=part_of,
    )


def annotator_agreement(
    done: Consolidated,
    frame: NDArray[np.integer],
    annotator: NDArray[np.integer],
    boxes_px: NDArray[np.floating],
    classes: NDArray[np.integer],
    labelled_frame: NDArray[np.integer],
    labelled_annotator: NDArray[np.integer],
) -> Agreement:
    """Compare each annotator with the truth that was made of all; arguments as ``consolidate`` had them."""
    heads = np.bincount(labelled_frame, minlength=1)
    several = heads[labelled_frame] > 1
    frames_of = np.bincount(labelled_annotator[several], minlength=1)
    people = np.flatnonzero(frames_of)
    shared = np.flatnonzero(heads[frame] > 1)
    fused = np.flatnonzero(done.is_fused)
    known = np.unique(np.r_[classes[shared], done.classes[fused]])
    size = (len(people), len(known))

    def table(
        of_annotator: NDArray[np.integer], of_class: NDArray[np.integer], values: Float64Array | None = None
    ) -> Float64Array:
        cell = np.searchsorted(people, of_annotator) * size[1] + np.searchsorted(known, of_class)
        return np.bincount(cell, values, minlength=size[0] * size[1]).reshape(size).astype(np.float64)

    boxes = table(annotator[shared], classes[shared])
    right = shared[done.part_of[shared] >= 0]
    right = right[done.classes[done.part_of[right]] == classes[right]]
    agreed = table(annotator[right], classes[right])
    overlap = table(
        annotator[right], classes[right], iou_pairs(boxes_px[right], done.boxes_px[done.part_of[right]])
    )
    # Objects of a class in the frames that an annotator labelled: by frame first, then frames by annotator.
    seen_by = np.searchsorted(people, labelled_annotator[several])
    objects = np.zeros((len(heads), size[1]), np.int64)
    np.add.at(objects, (done.frame[fused], np.searchsorted(known, done.classes[fused])), 1)
    wanted = np.zeros(size, np.int64)
    np.add.at(wanted, seen_by, objects[labelled_frame[several]])
    missed = wanted - agreed
    with np.errstate(invalid="ignore"):
        mean_iou, agreement = overlap / agreed, agreed / (boxes + missed)
    return Agreement(
        annotator=np.repeat(people, size[1]),
        classes=np.tile(known, size[0]),
        frames=np.repeat(frames_of[people], size[1]),
        boxes=boxes.ravel().astype(np.int64),
        agreed=agreed.ravel().astype(np.int64),
        missed=missed.ravel().astype(np.int64),
        mean_iou=mean_iou.ravel(),
        agreement=agreement.ravel(),
    )


def _check(
    frame: IntArray, annotator: IntArray, labelled_frame: IntArray, labelled_annotator: IntArray, share: float
) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"consolidate: min_agreement is {share}; need 0 < min_agreement <= 1")
    if min(a.min(initial=0) for a in (frame, annotator, labelled_frame, labelled_annotator)) < 0:
        raise ValueError("consolidate: frames and annotators are numbered from 0")
    stride = int(max(annotator.max(initial=0), labelled_annotator.max(initial=0))) + 1
    labelled = labelled_frame * stride + labelled_annotator
    if len(np.unique(labelled)) < len(labelled):
        raise ValueError("consolidate: an annotator labelled a frame twice")
    if not np.isin(frame * stride + annotator, labelled).all():
        raise ValueError("consolidate: a box of an annotator who did not label its frame")


def _objects(
    frame: IntArray, annotator: IntArray, boxes: Float64Array, classes: IntArray, iou_threshold: float
) -> IntArray:
    """[n] number of the object that each box is part of, from 0 over all frames."""
    if not len(frame):
        return np.empty(0, np.int64)
    of_class = frame * (int(classes.max()) + 1) + classes
    ones = np.ones(len(frame))
    member = _ranked(of_class, annotator, boxes)
    match_id = match_committee(of_class, member, boxes, ones, iou_threshold=iou_threshold)
    part = _numbered(of_class, match_id)  # [n] object of one class
    count = int(part.max()) + 1

    # Objects of different classes at one place: the classes are the committee now.
    drawn = np.bincount(part, minlength=count)
    mean = np.column_stack([np.bincount(part, boxes[:, i], minlength=count) / drawn for i in range(4)])
    part_frame, part_class = np.zeros((2, count), np.int64)
    part_frame[part], part_class[part] = frame, classes
    place_id = match_committee(part_frame, part_class, mean, np.ones(count), iou_threshold=iou_threshold)
    place = _numbered(part_frame, place_id)  # [count]
    # Who drew two of them meant two: such a place stays as many objects as it has classes.
    drawer = _numbered(place[part], annotator)
    twice = np.bincount(drawer)[drawer] > 1
    apart = np.zeros(int(place.max()) + 1, bool)
    apart[place[part[twice]]] = True
    return _numbered(place[part], np.where(apart[place[part]], part, -1) + 1)


def _ranked(group: IntArray, annotator: IntArray, boxes: Float64Array) -> IntArray:
    """[n] annotators numbered by what they drew in the group, and not by who they are.

    Matching goes from member to member, so its outcome must not hang on names. Those who drew the same are equal.
    """
    drawer = _numbered(group, annotator)
    _, box = np.unique(boxes, axis=0, return_inverse=True)
    order = np.lexsort((box.ravel(), drawer))
    first = np.searchsorted(drawer[order], drawer[order], side="left")
    drawn = np.full((int(drawer.max()) + 1, int(np.bincount(drawer).max())), -1, np.int64)
    drawn[drawer[order], np.arange(len(order)) - first] = box.ravel()[order]
    # Two who drew the very same are still two: the stable sort keeps them apart.
    by_drawing = np.lexsort(drawn.T[::-1])
    rank = np.empty(len(drawn), np.int64)
    rank[by_drawing] = np.arange(len(drawn))
    group_of = np.zeros(len(drawn), np.int64)
    group_of[drawer] = group
    in_group = np.lexsort((rank, group_of))
    number = np.empty(len(drawn), np.int64)
    number[in_group] = np.arange(len(drawn)) - np.searchsorted(
        group_of[in_group], group_of[in_group], side="left"
    )
    return number[drawer]


def _numbered(*columns: NDArray[np.integer]) -> IntArray:
    """[n] equal rows have equal numbers, from 0 in the rows' own order."""
    return np.unique(np.column_stack(columns), axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _vote(object_of: IntArray, classes: IntArray, weight: Float64Array, count: int) -> IntArray:
    """[count] the class with the most weight; the first in the list where two have the same."""
    pairs, votes = np.unique(np.column_stack([object_of, classes]), axis=0, return_inverse=True)
    total = np.bincount(votes.ravel(), weight, minlength=len(pairs))
    best = np.lexsort((pairs[:, 1], -np.round(total, 9), pairs[:, 0]))
    objects, first = np.unique(pairs[best, 0], return_index=True)
    winner = np.zeros(count, np.int64)
    winner[objects] = pairs[best[first], 1]
    return winner
