"""The real errors of a detector, given labels: what every signal is measured against, and what a batch is judged by.

Boxes and objects are matched class by class, one to one, by optimal assignment (``mining.boxes.match_committee``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import COVERED_SHARE, iou_matrix, lies_within, match_committee

IntArray = NDArray[np.int64]

FOUND_IOU = 0.5
"""A box of the right class finds an object from this overlap on."""
MISPLACED_IOU = 0.1
"""Down to this overlap it is that object's box at the wrong place (the lower bound of TIDE, Bolya et al. 2020)."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Counts by frame, each [F]."""

    objects: IntArray
    """Labelled objects of the counted classes."""
    missed: IntArray
    """Objects that no box of their class overlaps by MISPLACED_IOU or more (once each box has one object at most)."""
    false_alarms: IntArray
    """Boxes that overlap no object of their class by MISPLACED_IOU or more (once each object has one box at most)."""
    misplaced: IntArray
    """Pairs of a box and an object of its class with an IoU from MISPLACED_IOU to below FOUND_IOU: one error, not two."""
    wrong_class: IntArray
    """Pairs of a box and an object of another class with an IoU of FOUND_IOU or more, of those that would else be a missed
    object and a false alarm; 0 where ``pair_classes`` is not asked for."""

    @property
    def total(self) -> IntArray:
        """All errors. Without ``pair_classes`` a box of the wrong class is two: a missed object and a false alarm."""
        return self.missed + self.false_alarms + self.misplaced + self.wrong_class

    @property
    def rate(self) -> NDArray[np.float64]:
        """Errors per object: ``total / (objects + 1)``. The one keeps frames of one or no object from being the worst."""
        return self.total / (self.objects + 1)


def count_errors(
    frame: NDArray[np.integer],
    boxes_px: NDArray[np.floating],
    classes: NDArray[np.integer],
    scores: NDArray[np.floating],
    truth_frame: NDArray[np.integer],
    truth_boxes_px: NDArray[np.floating],
    truth_classes: NDArray[np.integer],
    frame_count: int,
    ignore: NDArray[np.bool_] | None = None,
    *,
    pair_classes: bool = False,
) -> Errors:
    """Count the errors of one detector in each frame.

    Args:
        frame, boxes_px, classes, scores: [n], [n, 4], [n], [n] boxes at or above the operating threshold, of the classes
            that are counted: those that the detector can see *and* the labels know.
        truth_frame, truth_boxes_px, truth_classes: [m], [m, 4], [m] labelled objects of those classes.
        frame_count: F.
        ignore: [m] objects (crowds, difficult ones) that count neither as missed nor their boxes as false alarms, nor boxes
            of any class that lie in one by COVERED_SHARE of their area.
        pair_classes: count a box of the wrong class as one error, ``wrong_class``.
    """
    ignore = np.zeros(len(truth_frame), bool) if ignore is None else ignore
    box_left, object_left = np.ones(len(frame), bool), np.ones(len(truth_frame), bool)
    pairs = []
    for iou, which in ((FOUND_IOU, ~ignore), (MISPLACED_IOU, ~ignore), (FOUND_IOU, ignore)):
        b, t = np.flatnonzero(box_left), np.flatnonzero(object_left & which)
        i, j = _match(
            frame[b],
            boxes_px[b],
            classes[b],
            scores[b],
            truth_frame[t],
            truth_boxes_px[t],
            truth_classes[t],
            iou,
        )
        box_left[b[i]], object_left[t[j]] = False, False
        pairs.append(frame[b[i]])
    wrong_class: NDArray[np.integer] = np.empty(0, np.int64)
    if pair_classes:
        b, t = np.flatnonzero(box_left), np.flatnonzero(object_left & ~ignore)
        # As if all were of one class: those of the same class, were there any, are matched already.
        i, j = _match(
            frame[b], boxes_px[b], np.zeros_like(classes[b]), scores[b],
            truth_frame[t], truth_boxes_px[t], np.zeros_like(truth_classes[t]), FOUND_IOU,
        )  # fmt: skip
        box_left[b[i]], object_left[t[j]] = False, False
        wrong_class = frame[b[i]]
    box_left &= ~lies_within(frame, boxes_px, truth_frame[ignore], truth_boxes_px[ignore], COVERED_SHARE)

    def by_frame(of: NDArray[np.integer]) -> IntArray:
        return np.bincount(of, minlength=frame_count).astype(np.int64)

    return Errors(
        objects=by_frame(truth_frame[~ignore]),
        missed=by_frame(truth_frame[object_left & ~ignore]),
        false_alarms=by_frame(frame[box_left]),
        misplaced=by_frame(pairs[1]),
        wrong_class=by_frame(wrong_class),
    )


def _match(
    frame: NDArray[np.integer],
    boxes: NDArray[np.floating],
    classes: NDArray[np.integer],
    scores: NDArray[np.floating],
    truth_frame: NDArray[np.integer],
    truth_boxes: NDArray[np.floating],
    truth_classes: NDArray[np.integer],
    iou: float,
) -> tuple[IntArray, IntArray]:
    """Indices (i of a box, j of an object) of the matched pairs: truth as the first member, the detector as second."""
    n, m = len(frame), len(truth_frame)
    stride = int(max(classes.max(initial=0), truth_classes.max(initial=0))) + 1
    group = np.r_[truth_frame * stride + truth_classes, frame * stride + classes].astype(np.int64)
    member = np.r_[np.zeros(m, np.int64), np.ones(n, np.int64)]
    match_id = match_committee(
        group, member, np.concatenate([truth_boxes, boxes]), np.r_[np.ones(m), scores], iou_threshold=iou
    )
    key = group * (int(match_id.max(initial=0)) + 1) + match_id
    _, j, i = np.intersect1d(key[:m], key[m:], assume_unique=True, return_indices=True)
    return i.astype(np.int64), j.astype(np.int64)


def real_boxes(
    frame: NDArray[np.integer],
    boxes_px: NDArray[np.floating],
    classes: NDArray[np.integer],
    scores: NDArray[np.floating],
    truth_frame: NDArray[np.integer],
    truth_boxes_px: NDArray[np.floating],
    truth_classes: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """[n] True for boxes that are objects: by falling score, each takes the free object of its class it overlaps most.

    From FOUND_IOU on, as COCO's evaluation does. Unlike ``count_errors`` this goes by score: of two candidates on one
    object, the better one is the object, the other a duplicate. Meant for candidates down to the floor, to calibrate scores.
    """
    real = np.zeros(len(frame), bool)
    for f in np.unique(truth_frame):
        mine, theirs = np.flatnonzero(frame == f), np.flatnonzero(truth_frame == f)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        overlap = iou_matrix(boxes_px[mine], truth_boxes_px[theirs])
        overlap[classes[mine][:, None] != truth_classes[theirs][None]] = 0.0
        for i in range(len(mine)):
            best = int(overlap[i].argmax())
            if overlap[i, best] >= FOUND_IOU:
                real[mine[i]] = True
                overlap[:, best] = 0.0
    return real
