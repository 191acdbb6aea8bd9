"""Arithmetic on boxes: area, overlap, and which boxes of a committee are the same object.

A box is x1, y1, x2, y2 in pixels. A box without area (zero or negative width or height, or a coordinate that is not
finite) overlaps nothing: its IoU with any box is 0, never NaN. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Float64Array = NDArray[np.float64]

COVERED_SHARE = 0.5
"""A box is part of an ``ignore`` region where this share of its area lies in it (COCO's evaluation has .5 for crowds)."""

_PAIRS_PER_CHUNK = 1 << 15
"""Pairs of boxes compared at a time: small enough to stay in the processor's cache."""


def area(boxes: NDArray[np.floating]) -> Float64Array:
    """Area of each box in square pixels: [..., 4] -> [...]. 0 for a box without area."""
    b = np.asarray(boxes, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        width, height = b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]
        size = width * height
        return np.where((width > 0) & (height > 0) & np.isfinite(size), size, 0.0)


def iou_pairs(a: NDArray[np.floating], b: NDArray[np.floating]) -> Float64Array:
    """Overlap of ``a[i]`` with ``b[i]``: intersection over union, [n, 4] and [n, 4] -> [n] in 0..1.

    Leading axes broadcast as in numpy.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    area_a, area_b = area(a), area(b)
    real = (area_a > 0) & (area_b > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
        height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
        shared = np.where(real & (width > 0) & (height > 0), width * height, 0.0)
    union = np.where(real, area_a + area_b - shared, 1.0)
    return shared / union


def iou_matrix(a: NDArray[np.floating], b: NDArray[np.floating]) -> Float64Array:
    """Overlap of every box of ``a`` with every box of ``b``: [..., n, 4] and [..., m, 4] -> [..., n, m] in 0..1."""
    return iou_pairs(np.asarray(a)[..., :, None, :], np.asarray(b)[..., None, :, :])


def match_committee(
    frame: NDArray[np.integer],
    member: NDArray[np.integer],
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    iou_threshold: float = 0.5,
) -> NDArray[np.int32]:
    """Group the boxes of a committee into objects: in each frame at most one box of each member an object.

    The boxes of the lowest member number are the first objects. Each further member, in ascending order, is assigned to
    the objects so far, one to one, so that the sum of IoU is the largest there is over pairs with
    IoU >= ``iou_threshold`` (optimal assignment, Kuhn 1955; not first come, first served). A box is compared with the
    mean of the boxes that the object holds already. Boxes left over become new objects. Classes play no part: what a
    member calls an object is measured apart from whether it saw it.

    The order of rows does not change the grouping. Within a frame and member, boxes stand by falling score, then by
    coordinates; where two assignments have exactly the same sum, that order decides.

    Args:
        frame: [n] which frame holds the box; any order.
        member: [n] which member saw it, 0 or above.
        boxes: [n, 4] pixels.
        scores: [n] confidence, finite.
        iou_threshold: above 0, at most 1.

    Returns:
        [n] ``match_id``: equal numbers in one frame are one object; numbered from 0 in each frame, the object with the
        highest score of any of its boxes first.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, or a threshold out of range.
    """
    frame, member, boxes, scores = _checked(frame, member, boxes, scores, iou_threshold)
    n = len(frame)
    if n == 0:
        return np.empty(0, dtype=np.int32)
    order = _canonical_order(frame, member, boxes, scores)
    frame, member, boxes, scores = frame[order], member[order], boxes[order], scores[order]

    # An object is known by its founder, the first box in it. Rows are sorted by frame, and so are the founders.
    founder = np.arange(n)
    box_sum = boxes.copy()
    box_count = np.ones(n)
    for m in np.unique(member)[1:]:
        objects = np.flatnonzero((founder == np.arange(n)) & (member < m))
        newcomers = np.flatnonzero(member == m)
        i, j, overlap = overlapping_pairs(
            frame[objects],
            box_sum[objects] / box_count[objects, None],
            frame[newcomers],
            boxes[newcomers],
            iou_threshold,
        )
        chosen = best_assignment(i, j, overlap)
        owner, box = objects[i[chosen]], newcomers[j[chosen]]
        founder[box] = owner
        box_sum[owner] += boxes[box]  # owners are distinct: one box a member
        box_count[owner] += 1

    match_id = np.empty(n, dtype=np.int32)
    match_id[order] = _rank_objects(frame, scores, founder)
    return match_id


def _checked(
    frame: NDArray[np.integer],
    member: NDArray[np.integer],
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    iou_threshold: float,
) -> tuple[IntArray, IntArray, Float64Array, Float64Array]:
    """Bring the arguments of ``match_committee`` into one precision, or say what is wrong with them."""
    n = len(frame)
    if member.shape != (n,) or boxes.shape != (n, 4) or scores.shape != (n,):
        raise ValueError(
            f"match_committee: frame [{n}] needs member [{n}], boxes [{n}, 4] and scores [{n}]; "
            f"got {member.shape}, {boxes.shape} and {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"match_committee: {int((~np.isfinite(scores)).sum())} of {n} scores are not finite")
    if not 0.0 < iou_threshold <= 1.0:
        raise ValueError(f"match_committee: iou_threshold is {iou_threshold}; need 0 < iou_threshold <= 1")
    return (
        frame.astype(np.int64),
        member.astype(np.int64),
        boxes.astype(np.float64),
        scores.astype(np.float64),
    )


def _canonical_order(
    frame: IntArray, member: IntArray, boxes: Float64Array, scores: Float64Array
) -> IntArray:
    """Rows by frame, member, falling score, then coordinates (which are looked at only where scores are equal)."""
    order = np.lexsort((-scores, member, frame))
    keys = np.stack([frame, member, scores])[:, order]
    same_as_next = (keys[:, 1:] == keys[:, :-1]).all(axis=0)
    tied = np.append(same_as_next, False) | np.append(False, same_as_next)
    rows = order[tied]
    by_coordinates = np.lexsort((*boxes[rows].T[::-1], -scores[rows], member[rows], frame[rows]))
    order[tied] = rows[by_coordinates]
    return order


def overlapping_pairs(
    frame_a: IntArray, boxes_a: Float64Array, frame_b: IntArray, boxes_b: Float64Array, iou_threshold: float
) -> tuple[IntArray, IntArray, Float64Array]:
    """All pairs (i, j) of the same frame with IoU at or above the threshold, and that IoU; frames are ascending."""
    rows, cols, overlaps = [], [], []
    for i, j in same_frame_pairs(frame_a, frame_b):
        # Most pairs lie side by side: one axis tells, and spares the rest of the arithmetic.
        touching = (boxes_a[i, 0] < boxes_b[j, 2]) & (boxes_b[j, 0] < boxes_a[i, 2])
        i, j = i[touching], j[touching]  # noqa: PLW2901
        overlap = iou_pairs(boxes_a[i], boxes_b[j])
        near = overlap >= iou_threshold
        rows.append(i[near])
        cols.append(j[near])
        overlaps.append(overlap[near])
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return np.concatenate(rows), np.concatenate(cols), np.concatenate(overlaps)


def same_frame_pairs(frame_a: IntArray, frame_b: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield index pairs (i, j) with ``frame_a[i] == frame_b[j]``, some thousands at a time; frames are ascending."""
    first = np.searchsorted(frame_b, frame_a, side="left")
    count = np.searchsorted(frame_b, frame_a, side="right") - first
    pairs_until = np.cumsum(count)
    start = 0
    while start < len(frame_a):
        done = pairs_until[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(pairs_until, done + _PAIRS_PER_CHUNK, side="right")))
        c = count[start:stop]
        i = np.repeat(np.arange(start, stop), c)
        # j runs through first[i], first[i] + 1, ...: the running number less the number at which row i began
        j = np.arange(len(i)) + np.repeat(first[start:stop] - (np.cumsum(c) - c), c)
        yield i, j
        start = stop


def lies_within(
    frame: NDArray[np.integer],
    boxes: NDArray[np.floating],
    region_frame: NDArray[np.integer],
    regions: NDArray[np.floating],
    share: float,
) -> NDArray[np.bool_]:
    """[n] boxes of which ``share`` of the area or more lies in one region of their frame; any order."""
    inside = np.zeros(len(frame), bool)
    frames, of_regions = np.asarray(frame, np.int64), np.asarray(region_frame, np.int64)
    order, by_frame = np.argsort(frames, kind="stable"), np.argsort(of_regions, kind="stable")
    boxes, regions = np.asarray(boxes, np.float64), np.asarray(regions, np.float64)
    size = area(boxes)
    for i, j in same_frame_pairs(of_regions[by_frame], frames[order]):
        region, box = regions[by_frame[i]], boxes[order[j]]
        shared = area(
            np.column_stack([np.maximum(region[:, :2], box[:, :2]), np.minimum(region[:, 2:], box[:, 2:])])
        )
        inside[order[j[(shared >= share * size[order[j]]) & (shared > 0)]]] = True
    return inside


def best_assignment(i: IntArray, j: IntArray, weight: Float64Array) -> IntArray:
    """Indices of the pairs (i, j) of the one-to-one assignment with the largest sum of ``weight`` (all > 0).

    Pairs that touch no other pair are in it. The others fall into connected components, each of which is solved alone,
    which is the same as solving all at once: no pair leads from one to the next. In a star (all pairs share one box)
    the heaviest pair wins; what remains goes through scipy.
    """
    if not len(i):
        return np.empty(0, np.int64)
    contested = (np.bincount(i)[i] > 1) | (np.bincount(j)[j] > 1)
    chosen = [np.flatnonzero(~contested)]

    pairs = np.flatnonzero(contested)
    if len(pairs):
        rows, row = np.unique(i[pairs], return_inverse=True)
        cols, col = np.unique(j[pairs], return_inverse=True)
        size = len(rows) + len(cols)
        # Imported here: it takes a second, and most runs of most commands never meet contested boxes.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        graph = coo_array((np.ones(len(pairs), dtype=bool), (row, len(rows) + col)), shape=(size, size))
        component_of_node = connected_components(graph, directed=False)[1].astype(np.int64)
        component = component_of_node[row]
        n_components = int(component_of_node.max()) + 1
        n_rows = np.bincount(component_of_node[: len(rows)], minlength=n_components)
        n_cols = np.bincount(component_of_node[len(rows) :], minlength=n_components)

        in_star = ((n_rows == 1) | (n_cols == 1))[component]
        star = pairs[in_star]
        by_weight = np.lexsort((j[star], i[star], -weight[star], component[in_star]))
        _, first = np.unique(component[in_star][by_weight], return_index=True)
        chosen.append(star[by_weight[first]])

        web = np.flatnonzero(~in_star)
        web = web[np.argsort(component[web], kind="stable")]
        row_in_part = _number_within(component_of_node[: len(rows)])[row[web]]
        col_in_part = _number_within(component_of_node[len(rows) :])[col[web]]
        bounds = np.flatnonzero(np.diff(component[web], prepend=-1, append=n_components))
        for start, stop in pairwise(bounds.tolist()):
            part = slice(start, stop)
            solved = _solve(row_in_part[part], col_in_part[part], weight[pairs[web[part]]])
            chosen.append(pairs[web[start + solved]])
    return np.concatenate(chosen)


def _number_within(group: IntArray) -> IntArray:
    """[n] for each element how many before it are of the same group."""
    order = np.argsort(group, kind="stable")
    in_order = group[order]
    number = np.empty(len(group), dtype=np.int64)
    number[order] = np.arange(len(group)) - np.searchsorted(in_order, in_order, side="left")
    return number


def _solve(row: IntArray, col: IntArray, weight: Float64Array) -> IntArray:
    """Solve one component, its rows and columns numbered from 0, by scipy; returns which of its pairs are assigned."""
    weights = np.zeros((int(row.max()) + 1, int(col.max()) + 1))
    weights[row, col] = weight
    pair_at = np.full(weights.shape, -1, dtype=np.int64)
    pair_at[row, col] = np.arange(len(row))
    from scipy.optimize import linear_sum_assignment

    pair = pair_at[linear_sum_assignment(weights, maximize=True)]
    return pair[pair >= 0]  # a place of weight 0 is no pair: scipy fills every row


def _rank_objects(frame: IntArray, scores: Float64Array, founder: IntArray) -> IntArray:
    """[n] number of each box's object in its frame, by the object's highest score; rows are in canonical order."""
    by_score = np.lexsort((-scores, frame))  # stable: among equal scores the lower member stands first
    objects, best = np.unique(founder[by_score], return_index=True)  # position of each object's best box
    objects = objects[np.argsort(best)]  # frame by frame, best object first
    first_in_frame = np.searchsorted(frame[objects], frame[objects], side="left")
    number = np.empty(len(frame), dtype=np.int64)
    number[objects] = np.arange(len(objects)) - first_in_frame
    return number[founder]
