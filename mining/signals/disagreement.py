"""Where the members of a committee contradict each other, by object, in three separate ways.

Who saw it (presence), what they called it (class), where they put it (box). Members are 2 to 8 detectors; each has its own
class list and its own operating threshold. Boxes come matched into objects by ``mining.boxes.match_committee``.

**Votes.** Scores of different detectors do not compare, so a box votes relative to its own detector's operating threshold
t: 0 up to t/3, a half at t, 1 from 5t/3 on, linear between::

    vote(s) = clip((s - t/3) / (4t/3), 0, 1)

A member without a box in the object votes 0. A box that votes 0 takes no part in anything below. As every detector keeps
candidates down to t/3 at least, nothing here depends on how far below that its floor lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import iou_pairs
from mining.signals.uncertainty import binary_entropy, entropy, sum_by

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CommitteeBoxes:
    """What ``M`` members saw in ``F`` frames: ``n`` boxes, flat, in any order, over ``c`` fleet classes."""

    frame: NDArray[np.integer]
    """[n] in 0..F-1."""
    member: NDArray[np.integer]
    """[n] in 0..M-1."""
    match_id: NDArray[np.integer]
    """[n] 0 or above; equal numbers in a frame are one object, which has at most one box of each member."""
    boxes_px: NDArray[np.floating]
    """[n, 4] x1, y1, x2, y2."""
    scores: NDArray[np.floating]
    """[n] confidence in 0..1."""
    class_scores: NDArray[np.floating]
    """[n, c] in 0..1, NaN where the member cannot see the class."""
    thresholds: NDArray[np.floating]
    """[M] operating threshold of each member."""
    seen: NDArray[np.bool_]
    """[M, c] True where the member can see the class."""
    ran: NDArray[np.bool_]
    """[F, M] True where the member looked at the frame; one that failed there has no vote."""
    box_std_px: NDArray[np.floating] | None = None
    """[n, 4] standard deviation of left, top, right and bottom edge; NaN where the head has none, None where no head has."""

    def __post_init__(self) -> None:
        """Check the shapes and numbers against each other."""
        n, members, frames, classes = len(self.frame), len(self.thresholds), len(self.ran), self.seen.shape[1]
        expected = {
            "member": (self.member.shape, (n,)),
            "match_id": (self.match_id.shape, (n,)),
            "boxes_px": (self.boxes_px.shape, (n, 4)),
            "scores": (self.scores.shape, (n,)),
            "class_scores": (self.class_scores.shape, (n, classes)),
            "seen": (self.seen.shape, (members, classes)),
            "ran": (self.ran.shape, (frames, members)),
        }
        if self.box_std_px is not None:
            expected["box_std_px"] = (self.box_std_px.shape, (n, 4))
        for what, (got, wanted) in expected.items():
            if got != wanted:
                raise ValueError(f"CommitteeBoxes.{what} has shape {got}, not {wanted}")
        for what, values, limit in (("frame", self.frame, frames), ("member", self.member, members)):
            if n and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise ValueError(
                    f"CommitteeBoxes.{what} runs from {values.min()} to {values.max()}, not in 0..{limit - 1}"
                )
        if n and int(self.match_id.min()) < 0:
            raise ValueError(f"CommitteeBoxes.match_id is {self.match_id.min()}; need 0 or above")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("CommitteeBoxes.scores must lie in 0..1")
        if not ((self.thresholds > 0) & (self.thresholds < 1)).all():
            raise ValueError(
                f"CommitteeBoxes.thresholds are {self.thresholds.tolist()}; need 0 < threshold < 1"
            )


@dataclass(frozen=True, slots=True)
class ObjectDisagreement:
    """One value an object, for the ``k`` objects with any vote, by frame and then match_id. Each array is [k].

    Gather by frame with ``uncertainty.aggregate(values, objects.frame, F)``, which leaves NaN out.
    """

    frame: IntArray
    match_id: IntArray
    presence_entropy: Float64Array
    """Nats, 0..ln 2; NaN where fewer than two members can know the object."""
    class_divergence: Float64Array
    """Nats, 0..ln(boxes); NaN where it cannot be measured (see ``jensen_shannon``)."""
    box_disagreement: Float64Array
    """1 - mean IoU, 0..1; NaN for an object with one box."""
    edge_deviation_px: Float64Array
    """Pixels; NaN for an object with one box."""


def measure_disagreement(committee: CommitteeBoxes) -> ObjectDisagreement:
    """Measure every object of every frame at once.

    Raises:
        ValueError: an object holds two boxes of one member.
    """
    vote = votes(committee.scores, committee.thresholds[committee.member])
    voting = np.flatnonzero(vote > 0)
    vote, frame, member = vote[voting], committee.frame[voting].astype(np.int64), committee.member[voting]
    match_id = committee.match_id[voting].astype(np.int64)
    ids_per_frame = int(match_id.max(initial=0)) + 1
    key, object_of_box = np.unique(frame * ids_per_frame + match_id, return_inverse=True)
    object_frame, object_match_id = np.divmod(key, ids_per_frame)
    k, members = len(key), len(committee.thresholds)

    boxes_of_member = np.bincount(object_of_box * members + member, minlength=k * members).reshape(k, members)
    if (boxes_of_member > 1).any():
        o, m = np.argwhere(boxes_of_member > 1)[0]
        raise ValueError(
            f"member {m} has more than one box in object {object_match_id[o]} of frame {object_frame[o]}"
        )

    class_scores = committee.class_scores[voting]
    by_score = np.lexsort((member, -committee.scores[voting], object_of_box))
    best_box = by_score[np.searchsorted(object_of_box[by_score], np.arange(k))]
    object_class = np.nan_to_num(class_scores[best_box], nan=-1.0).argmax(axis=1)
    can_vote = (committee.seen[:, object_class].T & committee.ran[object_frame]) | (boxes_of_member > 0)

    box_disagreement, edge_deviation_px = box_spread(committee.boxes_px[voting], object_of_box, k)
    return ObjectDisagreement(
        frame=object_frame,
        match_id=object_match_id,
        presence_entropy=presence_entropy(sum_by(vote, object_of_box, k), can_vote.sum(axis=1)),
        class_divergence=jensen_shannon(class_scores, object_of_box, k),
        box_disagreement=box_disagreement,
        edge_deviation_px=edge_deviation_px,
    )


def votes(scores: NDArray[np.floating], thresholds: NDArray[np.floating]) -> Float64Array:
    """How far each box counts as "seen": 0 up to a third of its detector's threshold, a half at it, 1 from 5/3 on; [n]."""
    s, t = np.asarray(scores, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    return np.clip((s - t / 3) / (4 * t / 3), 0.0, 1.0)


def presence_entropy(vote_sum: NDArray[np.floating], voters: NDArray[np.integer]) -> Float64Array:
    """Entropy of "there is an object" over the members' votes, in nats: [k] and [k] -> [k] in 0..ln 2.

    Vote entropy (Dagan & Engelson, "Committee-Based Sampling", 1995) of a yes-or-no question: the binary entropy of the
    mean vote. With votes of 0 and 1 it is theirs exactly; graded votes rank real errors better (a box just above the
    threshold is no full vote, one just below not none). A member that does not know the object's class (the class of
    its best box), or did not look at the frame, is no voter. NaN where there are fewer than two voters.
    """
    share: Float64Array = np.asarray(vote_sum, dtype=np.float64) / np.maximum(voters, 1)
    return np.where(voters >= 2, binary_entropy(np.minimum(share, 1.0)), np.nan)


def jensen_shannon(
    class_scores: NDArray[np.floating], object_of_box: IntArray, object_count: int
) -> Float64Array:
    """Jensen-Shannon divergence of the class vectors in each object, in nats: [n, c] -> [k] in 0..ln(boxes).

    Entropy of the mean less mean entropy (Lin, "Divergence Measures Based on the Shannon Entropy", 1991, with equal
    weights); the same number is the mutual information between the class and which member is asked (BALD, Houlsby et al.
    2011) and the mean KL divergence from the consensus (McCallum & Nigam 1998). Vectors are divided by their sum over the
    classes that *every* member of the object can see: what one cannot see is not held against it. NaN for one box, for
    fewer than two common classes, or where a member's scores are all 0 on them.

    Args:
        class_scores: [n, c] in 0..1, NaN where unseen.
        object_of_box: [n] in 0..object_count - 1.
        object_count: k.
    """
    result = np.full(object_count, np.nan)
    rows, starts, sizes = _shared_objects(object_of_box, object_count)
    if not len(rows):
        return result
    p = np.asarray(class_scores, dtype=np.float64)[rows]
    common = np.logical_and.reduceat(~np.isnan(p), starts)
    p = np.where(np.repeat(common, sizes, axis=0), p, 0.0)
    total = p.sum(axis=1)
    measurable = (common.sum(axis=1) >= 2) & (np.minimum.reduceat(total, starts) > 0)
    q = p / np.where(total > 0, total, 1.0)[:, None]
    mean = np.add.reduceat(q, starts) / sizes[:, None]
    divergence = entropy(mean) - np.add.reduceat(entropy(q), starts) / sizes
    result[object_of_box[rows[starts]]] = np.where(measurable, np.maximum(divergence, 0.0), np.nan)
    return result


def box_spread(
    boxes_px: NDArray[np.floating], object_of_box: IntArray, object_count: int
) -> tuple[Float64Array, Float64Array]:
    """How far apart the boxes of each object lie: ([k] 1 - mean pairwise IoU, [k] edge deviation in pixels).

    The edge deviation is the root mean square, over the object's boxes and their four edges, of the distance from the
    mean box. NaN for an object with one box.

    Args:
        boxes_px: [n, 4].
        object_of_box: [n] in 0..object_count - 1.
        object_count: k.
    """
    one_minus_iou, deviation = np.full(object_count, np.nan), np.full(object_count, np.nan)
    rows, starts, sizes = _shared_objects(object_of_box, object_count)
    for size in np.unique(sizes):  # at most 7 turns: an object has 2 to 8 boxes
        group = rows[starts[sizes == size][:, None] + np.arange(size)]
        boxes = np.asarray(boxes_px, dtype=np.float64)[group]
        first, second = np.triu_indices(size, k=1)
        objects = object_of_box[group[:, 0]]
        one_minus_iou[objects] = 1.0 - iou_pairs(boxes[:, first], boxes[:, second]).mean(axis=1)
        deviation[objects] = np.sqrt(((boxes - boxes.mean(axis=1, keepdims=True)) ** 2).mean(axis=(1, 2)))
    return one_minus_iou, deviation


def _shared_objects(object_of_box: IntArray, object_count: int) -> tuple[IntArray, IntArray, IntArray]:
    """Boxes of objects with two or more, object by object: (rows, where each object starts in them, its size)."""
    size_of_object = np.bincount(object_of_box, minlength=object_count)
    rows = np.flatnonzero(size_of_object[object_of_box] >= 2)
    rows = rows[np.argsort(object_of_box[rows], kind="stable")]
    sizes = size_of_object[size_of_object >= 2]
    return rows, np.cumsum(sizes) - sizes, sizes
