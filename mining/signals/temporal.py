"""What one frame cannot show: objects that vanish and come back, change class, shake, or come and go all at once.

Entropy is blind to a confident miss: where a detector sees nothing, there is nothing to be unsure about. Its own frames
before and after are not. Everything here works on one detector's boxes over the sampled frames of one recording, in time
order, its boxes flat.

**Neighbours.** Two frames are neighbours where none lies between them and they belong together: at most some time apart,
and no scene cut. A frame that the detector did not look at is left out, and so is one that repeats the picture before it
(it gets that frame's values). Where the neighbours that a signal needs are missing, it is NaN, never 0.

**Links.** A box at or above the operating threshold is linked to at most one of the next frame, by optimal one-to-one
assignment: first by overlap; what is left, if sure and of one class and a like size, by distance; what is left then, across
gaps, by overlap within a class. The links of one pair of frames do not depend on another pair, so many pairs are assigned at
once; trackers with a state (SORT, ByteTrack) must go frame by frame. A track is a chain of links.

**Sure** is a link whose two scores have a mean of 5/3 of the threshold or more, where ``disagreement.votes`` gives a full
vote: 0.42 for a threshold of 0.25. Weaker detectors see false alarms flicker more often than objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.boxes import area, best_assignment, iou_pairs, overlapping_pairs, same_frame_pairs
from mining.signals.uncertainty import aggregate, sum_by

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LINK_IOU = 0.3
"""Boxes of neighbouring frames that overlap this much may be one object; so may a candidate and a vanished object."""
LINK_DISTANCE = 0.7
"""So may those whose centres lie less than this apart, in units of the square root of their mean area ..."""
LINK_SIZE_RATIO = 1.6
"""... where neither area is more than this many times the other."""
MAX_GAP_FRAMES = 5
"""Frames that a vanished object may be away, at most."""
HIDDEN_SHARE = 0.5
"""A kept box that covers this share of the place of a vanished object may hide it."""
_COMMON_SHIFT_BOXES = 3
"""From so many boxes on, what they shift in common is taken for the camera's shaking, not theirs."""
_LINKED_AT_ONCE = 1 << 11
"""Boxes, about: a long recording's pairs of boxes are more than memory may hold."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """What one detector saw in ``F`` frames of one recording: ``n`` candidates, flat."""

    time_s: Float64Array
    """[F] ascending."""
    continues: BoolArray
    """[F] True where the frame is a neighbour of the one before it; False for the first."""
    frame: IntArray
    """[n] in 0..F-1, ascending."""
    boxes_px: Float64Array
    """[n, 4] x1, y1, x2, y2."""
    scores: Float64Array
    """[n] confidence in 0..1."""
    classes: IntArray
    """[n] class of the highest score."""
    threshold: float
    """Operating threshold."""
    max_gap_s: float
    """Longest time from an object's last box to its next. Who is away longer has gone, or is another."""

    def __post_init__(self) -> None:
        """Check the shapes and the order."""
        n, f = len(self.frame), len(self.time_s)
        expected = {
            "continues": (self.continues.shape, (f,)),
            "boxes_px": (self.boxes_px.shape, (n, 4)),
            "scores": (self.scores.shape, (n,)),
            "classes": (self.classes.shape, (n,)),
        }
        for what, (got, wanted) in expected.items():
            if got != wanted:
                raise ValueError(f"Sequence.{what} has shape {got}, not {wanted}")
        if (np.diff(self.time_s) <= 0).any():
            raise ValueError("Sequence.time_s must ascend")
        if n and ((np.diff(self.frame) < 0).any() or not 0 <= self.frame[0] <= self.frame[-1] < f):
            raise ValueError(f"Sequence.frame must ascend within 0..{f - 1}")
        if f and self.continues[0]:
            raise ValueError("Sequence.continues: the first frame has none before it")

    @property
    def kept(self) -> BoolArray:
        """[n] at or above the threshold."""
        return self.scores >= self.threshold

    def sure(self, a: IntArray, b: IntArray) -> BoolArray:
        """[k] True where rows ``a`` and ``b`` have a mean score worth a full vote (above 0.43: half way to 1)."""
        full = min(self.threshold * 5 / 3, (self.threshold + 1) / 2)
        return (self.scores[a] + self.scores[b]) / 2 >= full

    @property
    def before(self) -> BoolArray:
        """[F] the frame has a neighbour before it."""
        return self.continues

    @property
    def after(self) -> BoolArray:
        """[F] the frame has a neighbour after it."""
        return np.append(self.continues[1:], np.zeros(min(len(self.continues), 1), np.bool_))


@dataclass(frozen=True, slots=True)
class Links:
    """Which boxes are the same object over time. Each array is [n]; boxes under the threshold have no link."""

    before: IntArray
    """Row of the object's box in the last frame that shows it, -1 where there is none."""
    after: IntArray
    """Row of the object's box in the next frame that shows it, -1 where there is none."""
    track: IntArray
    """Number of the track, from 0 in the order of its first box; -1 for boxes under the threshold."""


def sequence_of(
    time_s: NDArray[np.floating], look: NDArray[np.bool_], cut: NDArray[np.bool_], max_step_s: float
) -> tuple[IntArray, BoolArray]:
    """Pick the frames to go through, and which continue the one before: ([f] frame numbers, [f] ``continues``).

    Args:
        time_s: [F] of all sampled frames of a recording, ascending; of frames of one time (a container with a coarse clock)
            the first is picked.
        look: [F] False for frames to leave out: not looked at, or a repeat of the frame before.
        cut: [F] True where another scene begins.
        max_step_s: frames further apart are no neighbours.
    """
    picked = np.flatnonzero(look)
    picked = picked[np.diff(np.asarray(time_s, np.float64)[picked], prepend=-np.inf) > 0]
    scene = np.cumsum(cut)[picked]
    near = np.diff(np.asarray(time_s, np.float64)[picked]) <= max_step_s
    return picked, np.append(np.zeros(min(len(picked), 1), np.bool_), near & (np.diff(scene) == 0))


def spread(
    values: NDArray[np.floating], picked: NDArray[np.integer], repeats: NDArray[np.bool_]
) -> Float64Array:
    """Give every frame its value: [f] of the picked frames -> [F]; a repeat gets that of the frame it repeats, else NaN."""
    full = np.full(len(repeats), np.nan)
    full[picked] = values
    original = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(repeats))))
    return full[original] if len(full) else full


def link(s: Sequence) -> Links:
    """Link the kept boxes over time; see the module's text. Deterministic; many frames at once."""
    n = len(s.frame)
    before, after = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    kept = s.kept
    scene = np.cumsum(~s.continues)[s.frame]
    size = area(s.boxes_px)

    def free(which: BoolArray, step: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Rows of some frames that have no next box yet, and those ``step`` frames on that have none before."""
        a, b = np.flatnonzero(which & (after < 0)), np.flatnonzero(which & (before < 0))
        start = 0
        while start < len(a):
            last = s.frame[a[min(start + _LINKED_AT_ONCE, len(a)) - 1]]
            stop = int(np.searchsorted(s.frame[a], last, side="right"))
            first, end = np.searchsorted(s.frame[b], [s.frame[a[start]] + step, last + step + 1])
            yield a[start:stop], b[first:end]
            start = stop

    def overlapping(a: IntArray, b: IntArray, step: int) -> tuple[IntArray, IntArray, Float64Array]:
        i, j, overlap = overlapping_pairs(
            s.frame[a] + step, s.boxes_px[a], s.frame[b], s.boxes_px[b], LINK_IOU
        )
        return a[i], b[j], overlap

    def assign(a: IntArray, b: IntArray, weight: Float64Array) -> None:
        same_scene = scene[a] == scene[b]
        a, b, weight = a[same_scene], b[same_scene], weight[same_scene]
        chosen = best_assignment(a, b, weight)
        after[a[chosen]], before[b[chosen]] = b[chosen], a[chosen]

    for a, b in free(kept, 1):
        assign(*overlapping(a, b, 1))

    for a, b in free(kept & (size > 0), 1):
        pairs = [np.empty((2, 0), np.int64)]
        for i, j in same_frame_pairs(s.frame[a] + 1, s.frame[b]):
            one, two = a[i], b[j]
            alike = (s.classes[one] == s.classes[two]) & s.sure(one, two)
            pairs.append(np.stack([one[alike], two[alike]]))
        one, two = np.concatenate(pairs, axis=1)
        centre_one, centre_two = ((s.boxes_px[r, :2] + s.boxes_px[r, 2:]) / 2 for r in (one, two))
        distance = np.hypot(*(centre_one - centre_two).T) / np.sqrt((size[one] + size[two]) / 2)
        ratio = size[one] / size[two]
        near = (distance < LINK_DISTANCE) & (np.maximum(ratio, 1 / ratio) <= LINK_SIZE_RATIO)
        assign(one[near], two[near], LINK_DISTANCE - distance[near])

    for step in range(2, MAX_GAP_FRAMES + 2):
        if (s.time_s[step:] - s.time_s[:-step] > s.max_gap_s).all():
            break  # frames so many steps apart are all too far apart, and more so those beyond
        for a, b in free(kept, step):
            one, two, overlap = overlapping(a, b, step)
            soon = s.time_s[s.frame[two]] - s.time_s[s.frame[one]] <= s.max_gap_s
            same = soon & (s.classes[one] == s.classes[two])
            assign(one[same], two[same], overlap[same])

    first = np.where(before >= 0, before, np.arange(n))
    # Each turn doubles the reach: as many turns as a track's length has bits.
    while (first != first[first]).any():
        first = first[first]
    track = np.full(n, -1, np.int64)
    track[kept] = np.unique(first[kept], return_inverse=True)[1]
    return Links(before, after, track)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Objects that a frame does not show as kept boxes though frames before and after do: ``k``, one an object and frame."""

    frame: IntArray
    """[k] ascending."""
    place_px: Float64Array
    """[k, 4] where it should be: between its boxes before and after, by time."""
    score: Float64Array
    """[k] mean of the scores before and after."""
    trace: Float64Array
    """[k] best score of a candidate that overlaps the place by LINK_IOU; 0 where there is none down to the floor."""
    vanished: BoolArray
    """[k] True where the link is sure and there is no trace."""
    dipped: BoolArray
    """[k] True where the trace is a candidate under the threshold: seen, but not reported."""
    before: IntArray
    """[k] row of its box before."""
    after: IntArray
    """[k] row of its box after."""


def find_gaps(s: Sequence, links: Links) -> Gaps:
    """Look where the links over gaps (MAX_GAP_FRAMES) lead through: what is left of the object in each frame between?

    A place of which a kept box covers HIDDEN_SHARE is left out: the object may be hidden.
    """
    linked = np.flatnonzero(links.after >= 0)
    away = s.frame[links.after[linked]] - s.frame[linked] - 1
    before = np.repeat(linked, away)
    after = links.after[before]
    frame = s.frame[before] + 1 + np.arange(len(before)) - np.repeat(np.cumsum(away) - away, away)
    order = np.argsort(frame, kind="stable")
    before, after, frame = before[order], after[order], frame[order]
    start, stop = s.time_s[s.frame[before]], s.time_s[s.frame[after]]
    share = ((s.time_s[frame] - start) / (stop - start))[:, None]
    place = s.boxes_px[before] * (1 - share) + s.boxes_px[after] * share

    trace, open_to_view = np.zeros(len(frame)), np.ones(len(frame), np.bool_)
    for i, j in same_frame_pairs(frame, s.frame):
        near = iou_pairs(place[i], s.boxes_px[j]) >= LINK_IOU
        np.maximum.at(trace, i[near], s.scores[j[near]])
        hides = s.kept[j] & (_covered(place[i], s.boxes_px[j]) >= HIDDEN_SHARE)
        open_to_view[i[hides]] = False
    found = Gaps(
        frame=frame,
        place_px=place,
        score=(s.scores[before] + s.scores[after]) / 2,
        trace=trace,
        vanished=s.sure(before, after) & (trace == 0),
        dipped=(trace > 0) & (trace < s.threshold),
        before=before,
        after=after,
    )
    return Gaps(**{field: getattr(found, field)[open_to_view] for field in Gaps.__dataclass_fields__})


def _covered(place: Float64Array, by: Float64Array) -> Float64Array:
    """[k] share of each place that the box beside it covers."""
    shared = np.concatenate(
        [np.maximum(place[:, :2], by[:, :2]), np.minimum(place[:, 2:], by[:, 2:])], axis=1
    )
    return area(shared) / np.maximum(area(place), 1e-9)


@dataclass(frozen=True, slots=True)
class TimeSignals:
    """One value a frame, each [F]; NaN where the neighbours it needs are missing."""

    flicker: Float64Array
    """Objects that vanish here without a trace and come back: ``Gaps.vanished``. NaN also where the frames before and
    after lie more than ``max_gap_s`` apart: no gap could show."""
    dips: Float64Array
    """Objects whose score falls under the threshold here and rises again: ``Gaps.dipped``. NaN where ``flicker`` is."""
    class_flips: Float64Array
    """Boxes whose class differs from that of their object one frame before or after, over a sure link."""
    box_jitter_max: Float64Array
    """Largest ``box_jitter``; NaN also where no object is seen in three frames running."""
    box_jitter_mean: Float64Array
    """Mean of the same."""
    count_change: Float64Array
    """See ``count_change``."""


def measure_time(s: Sequence, links: Links) -> TimeSignals:
    """Every signal of time, for each frame of the sequence."""
    frames = len(s.time_s)
    both, either = s.before & s.after, s.before | s.after
    span_s = np.append(s.time_s[1:], np.inf) - np.append(-np.inf, s.time_s[:-1]) if frames else s.time_s
    close = both & (span_s <= s.max_gap_s)
    gaps = find_gaps(s, links)
    jitter = aggregate(box_jitter(s, links), s.frame, frames)
    flips = sum_by(class_flipped(s, links).astype(np.float64), s.frame, frames)
    count = np.bincount(s.frame[s.kept], minlength=frames)
    return TimeSignals(
        flicker=np.where(close, np.bincount(gaps.frame[gaps.vanished], minlength=frames), np.nan),
        dips=np.where(close, np.bincount(gaps.frame[gaps.dipped], minlength=frames), np.nan),
        class_flips=np.where(either, flips, np.nan),
        box_jitter_max=np.where(both, jitter.max, np.nan),
        box_jitter_mean=np.where(both, jitter.mean, np.nan),
        count_change=count_change(count, s.continues),
    )


def class_flipped(s: Sequence, links: Links) -> BoolArray:
    """[n] True for both boxes of a sure link between neighbouring frames whose classes differ: either may be wrong."""
    flipped = np.zeros(len(s.frame), np.bool_)
    a = np.flatnonzero(links.after >= 0)
    b = links.after[a]
    differ = s.sure(a, b) & (s.classes[a] != s.classes[b]) & (s.frame[b] == s.frame[a] + 1)
    flipped[a[differ]] = flipped[b[differ]] = True
    return flipped


def box_jitter(s: Sequence, links: Links) -> Float64Array:
    """How far each box stands off the even motion of its object: [n], a share of the box's size; NaN where not linked.

    With the edges e before and after (one frame each way), r = e(t) - e interpolated to t: a second difference, 0 for any
    even motion and any even growth. Jitter is the root mean square of r over the four edges, over the square root of the
    box's area. What the boxes of a frame shift in common (the median of r across and down, of three boxes or more) is the
    camera's shaking, and taken off first. TrackEval and the like need truth for this; here the track is its own.
    """
    jitter = np.full(len(s.frame), np.nan)
    size = area(s.boxes_px)
    t = np.flatnonzero((links.before >= 0) & (links.after >= 0) & (size > 0))
    p, q = links.before[t], links.after[t]
    direct = (s.frame[q] - s.frame[p]) == 2
    t, p, q = t[direct], p[direct], q[direct]
    if not len(t):
        return jitter
    time = s.time_s[s.frame]
    share = ((time[t] - time[p]) / (time[q] - time[p]))[:, None]
    off = s.boxes_px[t] - (s.boxes_px[p] * (1 - share) + s.boxes_px[q] * share)
    off -= np.tile(_common_shift((off[:, :2] + off[:, 2:]) / 2, s.frame[t]), 2)
    jitter[t] = np.sqrt((off**2).mean(axis=1) / size[t])
    return jitter


def _common_shift(shift: Float64Array, frame: IntArray) -> Float64Array:
    """[m, 2] the median shift of each row's frame, 0 where it has too few rows; ``frame`` ascends."""
    first = np.searchsorted(frame, frame, side="left")
    count = np.searchsorted(frame, frame, side="right") - first
    common = np.zeros_like(shift)
    enough = count >= _COMMON_SHIFT_BOXES
    for axis in (0, 1):
        inside = shift[np.lexsort((shift[:, axis], frame)), axis]  # ascending within each frame
        median = (inside[first + (count - 1) // 2] + inside[first + count // 2]) / 2
        common[enough, axis] = median[enough]
    return common


def count_change(count: NDArray[np.integer], continues: NDArray[np.bool_]) -> Float64Array:
    """How unlike its neighbours a frame's number of kept boxes is: [F] and [F] -> [F], 0 or above.

    ``|count - m| / sqrt(m + 1)``, with m the median count of the two frames before and the two after (as far as they are
    neighbours): about how many standard deviations of a Poisson count. NaN without a neighbour on each side.
    """
    frames = len(count)
    around = np.full((frames, 4), np.nan)
    scene = np.cumsum(~continues)
    for column, step in enumerate((-2, -1, 1, 2)):
        here = np.arange(max(0, -step), min(frames, frames - step))
        here = here[scene[here] == scene[here + step]]
        around[here, column] = count[here + step]
    sides = ~np.isnan(around[:, 1]) & ~np.isnan(around[:, 2])
    known = around[sides]
    known.sort(axis=1)  # NaN last
    n = (~np.isnan(known)).sum(axis=1)
    row = np.arange(len(known))
    median = (known[row, (n - 1) // 2] + known[row, n // 2]) / 2
    change = np.full(frames, np.nan)
    change[sides] = np.abs(count[sides] - median) / np.sqrt(median + 1)
    return change
