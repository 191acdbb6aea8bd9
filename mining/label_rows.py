"""Labels as they were drawn -> the rows of an import: consolidated, compared with the committee, ready to commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.check_delivery import BoolArray, Checked, IntArray
from mining.consolidate import Consolidated, annotator_agreement, consolidate
from mining.label_checks import check_labels
from mining.schemas import ANNOTATORS, LABEL_REJECTS, LABELS, OVERLOOKED
from mining.types import UsageError
from mining.vendors.labels import Reject, Sent

_FAR = 2_000
"""Longest text of a delivery that a row of ``label_rejects`` holds."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What annotators drew: ``n`` boxes and ``v`` views (an annotator's look at a frame), flat, with numbers of frames."""

    annotators: tuple[str, ...]
    view_frame: IntArray
    view_annotator: IntArray
    frame: IntArray
    annotator: IntArray
    boxes_px: NDArray[np.float32]
    classes: IntArray
    ignore: BoolArray
    vendor_classes: NDArray[np.object_]
    vendors: NDArray[np.object_]
    """[n] the format that each box came in."""

    @classmethod
    def of(cls, checked: Checked, vendor: str) -> Drawn:
        """Take what of a delivery is in order."""
        return cls(
            checked.annotators, checked.view_frame, checked.view_annotator, checked.frame, checked.annotator,
            checked.boxes_px, checked.classes, checked.ignore,
            np.array(checked.vendor_classes, object), np.full(len(checked.frame), vendor, object),
        )  # fmt: skip

    def joined(self, standing: pa.Table, position: Mapping[str, int], fleet: Sequence[str]) -> Drawn:
        """Put this beside the labels that stand for the same frames (``sql/standing_labels.sql``).

        What an annotator draws now takes the place of what the same annotator drew before.

        Raises:
            UsageError: nobody is named before nor now, so that one cannot be told from the other; or a class is gone.
        """
        names = tuple(dict.fromkeys([*self.annotators, *standing["annotator"].to_pylist()]))
        number = {name: i for i, name in enumerate(names)}
        frame = np.array([position[name] for name in standing["frame_id"].to_pylist()], np.int64)
        annotator = np.array([number[name] for name in standing["annotator"].to_pylist()], np.int64)
        mine = self.view_frame * len(names) + self.view_annotator
        theirs = frame * len(names) + annotator
        again = np.isin(theirs, mine)
        nobody = len(np.unique(frame[again & (annotator == number.get("", -1))]))
        if nobody:
            raise UsageError(
                f"--add: the labels of {nobody} frames that stand name no annotator, and this delivery names none either: "
                "say whose it is with --annotator NAME"
            )
        rows = standing.filter(pa.array(~again))
        frame, annotator, theirs = frame[~again], annotator[~again], theirs[~again]
        views = np.unique(theirs)
        box = np.flatnonzero(rows["class"].is_valid().to_numpy())
        known = {name: i for i, name in enumerate(fleet)}
        classes = rows["class"].to_pylist()
        gone = next((classes[i] for i in box if classes[i] not in known), None)
        if gone is not None:
            raise UsageError(f"--add: labels that stand are of class {gone!r}, which the config's list lacks")
        boxes_px = np.column_stack(
            [rows[edge].to_numpy().astype(np.float32) for edge in ("x1_px", "y1_px", "x2_px", "y2_px")]
        )
        return Drawn(
            names,
            np.r_[self.view_frame, views // len(names)],
            np.r_[self.view_annotator, views % len(names)],
            np.r_[self.frame, frame[box]],
            np.r_[self.annotator, annotator[box]],
            np.concatenate([self.boxes_px, boxes_px[box]]),
            np.r_[self.classes, np.array([known[classes[i]] for i in box], np.int64)],
            np.r_[self.ignore, rows["ignore"].to_numpy(zero_copy_only=False)[box].astype(bool)],
            np.r_[self.vendor_classes, rows["vendor_class"].to_numpy(zero_copy_only=False)[box]],
            np.r_[self.vendors, rows["vendor"].to_numpy(zero_copy_only=False)[box]],
        )


@dataclass(frozen=True, slots=True)
class Objects:
    """What the committee sees in the batch: ``m`` objects, frames ascending (``sql/preannotations.sql``)."""

    frame: IntArray
    boxes_px: NDArray[np.float64]
    classes: IntArray
    confidence: NDArray[np.float64]
    detectors: NDArray[np.object_]
    known_classes: BoolArray
    """[c] fleet classes that a member can see; none where no committee has looked at the batch."""


@dataclass(frozen=True, slots=True)
class Import:
    """The name of an import, as all its rows bear it."""

    batch_id: str
    import_id: str
    vendor: str
    imported_at: datetime


def tables_of(
    which: Import, drawn: Drawn, objects: Objects, rejects: Sequence[Reject], sent: Sent
) -> dict[str, pa.Table]:
    """Build every table of an import: labels, overlooked, label_rejects, annotators."""
    frame, annotator, boxes_px, classes = drawn.frame, drawn.annotator, drawn.boxes_px, drawn.classes
    views = drawn.view_frame, drawn.view_annotator
    true = consolidate(frame, annotator, boxes_px, classes, drawn.ignore, *views)
    agreement = annotator_agreement(true, frame, annotator, boxes_px, classes, *views)
    looked = np.isin(objects.frame, drawn.view_frame)  # an unlabelled frame overlooks nothing
    checks = check_labels(
        true.frame, true.boxes_px, true.classes, true.ignore,
        objects.frame[looked], objects.boxes_px[looked], objects.classes[looked], objects.confidence[looked],
        objects.known_classes,
    )  # fmt: skip
    ids = np.array([image.frame_id for image in sent.images], object)
    fleet = np.array(sent.classes, object)
    return {
        "labels": _labels(which, drawn, true, checks.location_quality, checks.class_quality, checks.seen_class, ids, fleet),
        "overlooked": _overlooked(which, objects, np.flatnonzero(looked), checks.overlooked_quality, ids, fleet),
        "label_rejects": _table(
            LABEL_REJECTS, which, len(rejects),
            place=[reject.place[:_FAR] for reject in rejects],
            kind=[reject.kind for reject in rejects],
            reason=[reject.reason[:_FAR] for reject in rejects],
            frame_id=[reject.frame_id for reject in rejects],
        ),
        "annotators": _table(
            ANNOTATORS, which, len(agreement.annotator),
            **{
                "annotator": np.array(drawn.annotators, object)[agreement.annotator],
                "class": fleet[agreement.classes],
                "frames": agreement.frames, "boxes": agreement.boxes, "agreed": agreement.agreed,
                "missed": agreement.missed, "mean_iou": agreement.mean_iou, "agreement": agreement.agreement,
            },
        ),
    }  # fmt: skip


def _labels(
    which: Import,
    drawn: Drawn,
    true: Consolidated,
    location_quality: NDArray[np.float64],
    class_quality: NDArray[np.float64],
    seen_class: IntArray,
    ids: NDArray[np.object_],
    fleet: NDArray[np.object_],
) -> pa.Table:
    """Rows of ``labels``: the truth, what each annotator drew where several did, and a row for each empty view of a frame."""
    heads = np.bincount(drawn.view_frame, minlength=len(ids))
    # Four parts, one after another: truth, raw boxes of shared frames, empty views, shared frames that are empty in truth.
    raw = np.flatnonzero(heads[drawn.frame] > 1)
    stride = len(drawn.annotators)
    drew = np.isin(drawn.view_frame * stride + drawn.view_annotator, drawn.frame * stride + drawn.annotator)
    empty = np.flatnonzero(~drew)
    bare = np.setdiff1d(np.flatnonzero(heads > 1), true.frame)
    names = _and(np.array([name or None for name in drawn.annotators], object), None)
    sizes = len(true.frame), len(raw), len(empty), len(bare)
    one = np.append(drawn.annotator, stride)  # of a fused box (raw is -1): nobody
    frame = np.r_[true.frame, drawn.frame[raw], drawn.view_frame[empty], bare]
    has_box = np.repeat([True, True, False, False], sizes)
    boxes = np.concatenate([true.boxes_px, drawn.boxes_px[raw], np.full((sizes[2] + sizes[3], 4), np.nan)])
    number = np.r_[true.classes, drawn.classes[raw], np.full(sizes[2] + sizes[3], -1)]

    def rest(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.r_[values, np.full(sum(sizes[1:]), np.nan)]

    def text(of_box: NDArray[np.object_], else_: str | None) -> NDArray[np.object_]:
        of_true = _and(of_box, else_)[true.raw]
        return np.r_[of_true, of_box[raw], np.full(sizes[2] + sizes[3], else_, object)]

    columns = {
        "frame_id": ids[frame],
        "annotator": names[
            np.r_[one[true.raw], drawn.annotator[raw], drawn.view_annotator[empty], np.full(sizes[3], stride)]
        ],
        "label_index": pa.array(_count_up(frame), pa.int32(), mask=~has_box),
        "class": _and(fleet, None)[number],
        "vendor_class": text(drawn.vendor_classes, None),
        "vendor": text(drawn.vendors, which.vendor),
        **{f"{edge}_px": boxes[:, i] for i, edge in enumerate(("x1", "y1", "x2", "y2"))},
        "ignore": np.r_[true.ignore, drawn.ignore[raw], np.zeros(sizes[2] + sizes[3], bool)],
        "is_fused": np.r_[true.is_fused, np.zeros(sizes[1] + sizes[2], bool), np.ones(sizes[3], bool)],
        "is_truth": np.r_[
            np.ones(sizes[0], bool), np.zeros(sizes[1], bool), heads[drawn.view_frame[empty]] == 1,
            np.ones(sizes[3], bool),
        ],
        "agreement": rest(true.agreement),
        "location_quality": rest(location_quality),
        "class_quality": rest(class_quality),
        "seen_class": _and(fleet, None)[np.r_[seen_class, np.full(sum(sizes[1:]), -1)]],
        "imported_at": [which.imported_at] * len(frame),
    }  # fmt: skip
    order = np.argsort(frame, kind="stable")
    return _table(LABELS, which, len(frame), **columns).take(pa.array(order))


def _overlooked(
    which: Import,
    objects: Objects,
    looked: IntArray,
    quality: NDArray[np.float64],
    ids: NDArray[np.object_],
    fleet: NDArray[np.object_],
) -> pa.Table:
    rows = looked[np.isfinite(quality)]
    return _table(
        OVERLOOKED, which, len(rows),
        **{
            "frame_id": ids[objects.frame[rows]],
            "class": fleet[objects.classes[rows]],
            "confidence": objects.confidence[rows],
            **{f"{edge}_px": objects.boxes_px[rows, i] for i, edge in enumerate(("x1", "y1", "x2", "y2"))},
            "detectors": list(objects.detectors[rows]),
            "overlooked_quality": quality[np.isfinite(quality)],
        },
    )  # fmt: skip


def _and(values: NDArray[np.object_], last: str | None) -> NDArray[np.object_]:
    """Put one more at the end, where -1 finds it."""
    longer = np.empty(len(values) + 1, object)
    longer[:-1], longer[-1] = values, last
    return longer


def _count_up(group: IntArray) -> IntArray:
    """[n] for each element how many of its group stand before it."""
    order = np.argsort(group, kind="stable")
    in_order = group[order]
    number = np.empty(len(group), np.int64)
    number[order] = np.arange(len(group)) - np.searchsorted(in_order, in_order, side="left")
    return number


def _table(schema: pa.Schema, which: Import, rows: int, /, **columns: object) -> pa.Table:
    """Build a table: ``which`` fills the columns of that name that are not given; NaN is NULL."""
    arrays = []
    for field in schema:
        values = columns[field.name] if field.name in columns else [getattr(which, field.name)] * rows
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            values = pa.array(values, from_pandas=True)
        elif not isinstance(values, pa.Array):
            values = pa.array(
                values, None if isinstance(values, np.ndarray) and values.dtype != object else field.type
            )
        arrays.append(values.cast(field.type))
    return pa.table(arrays, schema=schema)
