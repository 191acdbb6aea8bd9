"""Which labels deserve a second look, from the committee's view: badly placed, of another class, overlooked. Pure functions.

The idea is ObjectLab's (Tkachenko, Thyagarajan, Mueller 2023, "ObjectLab: Automated Diagnosis of Mislabeled Images in Object
Detection Data"): a label that a sure prediction contradicts is the likelier wrong, the surer the prediction. Where objects lie
apart, it contradicts the same labels as cleanlab's ObjectLab (the tests compare). Three things are done otherwise:

- Labels and objects of a frame are matched one to one (optimal assignment by IoU, classes playing no part). ObjectLab takes
  the most similar prediction of all, so that in a queue of cars the neighbour contradicts a label, or covers up that one lacks.
- The prediction is the committee's object, with the mean confidence of all members that know its class: a member that did
  not see it counts as 0. ObjectLab's limits (.5 and .95) are for one calibrated model; few committees reach them.
- Where the committee says nothing, the answer is NaN and not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import COVERED_SHARE, best_assignment, lies_within, overlapping_pairs

IntArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]

OBJECT_CONFIDENCE = 0.25
"""Objects of the committee below this mean confidence say nothing."""
ABOUT_IOU = 0.2
"""From this overlap on, an object can be what a label is about."""


@dataclass(frozen=True, slots=True)
class LabelChecks:
    """Qualities in 0..1, low: look again."""

    location_quality: Float64Array
    """[n] IoU of the label with the committee's object of its class; NaN where the committee has no such object."""
    class_quality: Float64Array
    """[n] 1 where the committee sees the label's class there; ``1 - confidence * IoU`` where it sees another; NaN where it
    sees nothing, or where no member knows the label's class."""
    seen_class: IntArray
    """[n] class of the committee's object that the label is about; -1 where there is none."""
    overlooked_quality: Float64Array
    """[m] of objects that no label is about: ``1 - confidence * (1 - IoU with the nearest label)``; NaN for the others,
    for objects below OBJECT_CONFIDENCE, and in ``ignore`` regions."""


def check_labels(
    frame: NDArray[np.integer],
    boxes_px: NDArray[np.floating],
    classes: NDArray[np.integer],
    ignore: NDArray[np.bool_],
    object_frame: NDArray[np.integer],
    object_boxes_px: NDArray[np.floating],
    object_classes: NDArray[np.integer],
    object_confidence: NDArray[np.floating],
    known_classes: NDArray[np.bool_],
) -> LabelChecks:
    """Compare labels with what the committee sees.

    Args:
        frame, boxes_px, classes, ignore: [n], [n, 4], [n], [n] labels that count as truth, in any order. ``ignore`` labels
            get no quality, and objects in them are not overlooked.
        object_frame, object_boxes_px, object_classes, object_confidence: [m], [m, 4], [m], [m] the committee's objects in
            labelled frames, in any order (``sql/preannotations.sql``).
        known_classes: [c] fleet classes that any member knows.
    """
    n, m = len(frame), len(object_frame)
    labels = np.flatnonzero(~np.asarray(ignore, bool))
    labels = labels[np.argsort(frame[labels], kind="stable")]
    objects = np.flatnonzero(np.asarray(object_confidence) >= OBJECT_CONFIDENCE)
    objects = objects[np.argsort(object_frame[objects], kind="stable")]
    places = np.asarray(boxes_px, np.float64), np.asarray(object_boxes_px, np.float64)

    # Any overlap counts for how near the nearest label is; only ABOUT_IOU for what a label is about.
    i, j, iou = overlapping_pairs(
        np.asarray(frame[labels], np.int64), places[0][labels],
        np.asarray(object_frame[objects], np.int64), places[1][objects], np.finfo(float).tiny,
    )  # fmt: skip
    nearest = np.zeros(m)
    np.maximum.at(nearest, objects[j], iou)
    about = np.flatnonzero(iou >= ABOUT_IOU)
    about = about[best_assignment(i[about], j[about], iou[about])]
    label, thing, overlap = labels[i[about]], objects[j[about]], iou[about]

    location_quality, class_quality = np.full(n, np.nan), np.full(n, np.nan)
    seen_class = np.full(n, -1, np.int64)
    seen_class[label] = object_classes[thing]
    same = classes[label] == object_classes[thing]
    location_quality[label[same]] = overlap[same]
    class_quality[label[same]] = 1.0
    other = ~same & known_classes[classes[label]]
    class_quality[label[other]] = 1.0 - object_confidence[thing[other]] * overlap[other]

    left = np.zeros(m, bool)
    left[objects] = True
    left[thing] = False
    crowds = np.flatnonzero(ignore)
    left &= ~lies_within(object_frame, places[1], frame[crowds], places[0][crowds], COVERED_SHARE)
    overlooked = np.where(left, 1.0 - object_confidence * (1.0 - nearest), np.nan)
    return LabelChecks(location_quality, class_quality, seen_class, overlooked)
