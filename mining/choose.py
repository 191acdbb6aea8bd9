"""From eligible frames to a batch: gap in time, repeated pictures, floors, ceilings, cost; a strategy picks within them.

The random arm is drawn first and blindly. Then every slice that has a floor is filled, the scarcest first, then the rest of
the budget. Each of these steps is the same: the best open frames that keep the gap are the pool, the strategy ranks them, and
its picks are taken until one would break a ceiling; the slice of that ceiling is closed, and the step goes on without it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mining.candidates import Eligible, reach_us
from mining.config import SelectConfig
from mining.same_moment import first_of_each
from mining.signals.quality import hamming
from mining.strategies import STRATEGIES, Candidates
from mining.types import FloatArray

Rows = NDArray[np.int64]


class Reader:
    """What is read of a few frames only, when it is needed, and read once."""

    def __init__(
        self,
        embeddings: Callable[[Rows], FloatArray],
        boxes: Callable[[Rows], NDArray[np.float64]],
        same_moment: Callable[[Rows], Mapping[int, set[int]]],
    ) -> None:
        """Read through functions of [m] rows of ``Eligible``.

        Args:
            embeddings: rows -> [m, d].
            boxes: rows -> [m] objects that a labeler will draw.
            same_moment: rows -> for each that has any, the rows asked for so far, these included, that show its moment of
                footage (``mining.same_moment``); -1 among them where an earlier batch shows it.
        """
        self.embeddings, self.boxes = _Once(embeddings), _Once(boxes)
        self.same_moment = same_moment


class _Once:
    """Values of rows, each read once."""

    def __init__(self, read: Callable[[Rows], NDArray[Any]]) -> None:
        self._read = read
        self._slot: dict[int, int] = {}
        self._values: NDArray[Any] | None = None

    def __call__(self, rows: Rows) -> NDArray[Any]:
        missing = [row for row in dict.fromkeys(rows.tolist()) if row not in self._slot]
        if missing or self._values is None:
            found = self._read(np.asarray(missing, np.int64))
            self._slot.update(
                zip(missing, range(len(self._slot), len(self._slot) + len(missing)), strict=True)
            )
            self._values = found if self._values is None else np.concatenate([self._values, found])
        return self._values[[self._slot[row] for row in rows.tolist()]]


@dataclass(frozen=True, slots=True)
class Step:
    """One round of choosing, for those who ask why a frame is not in the batch."""

    slice: str | None
    """The floor that it fills; None for the rest of the budget."""
    wanted: int
    pool: int
    """Frames that the strategy could pick from."""
    least_priority: float | None
    """Of the pool's frames; None where ``order_by`` gives no numbers."""
    least_value: float | None
    """Hardness x distance of its last pick; None without a pick or a frame to be distant from."""
    picked: int


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How a slice came out."""

    name: str
    floor: int
    ceiling: int
    eligible: int
    chosen: int
    lack: str | None
    """Why it holds fewer frames than its floor, or more than its ceiling; None where it does not."""


@dataclass(slots=True)
class Chosen:
    """A batch: rows of ``Eligible`` in the order of choice, with how each came in."""

    rows: list[int] = field(default_factory=list)
    arm: list[str] = field(default_factory=list)
    slice: list[str | None] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    """To the nearest frame taken before; NaN for none, and for the random arm."""
    boxes: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    slices: list[SliceReport] = field(default_factory=list)
    cost: float = 0.0
    stopped_by_cost: bool = False


class Choice:
    """The state of one choice: what is taken, and what that leaves open."""

    def __init__(self, frames: Eligible, select: SelectConfig, taken: FloatArray, read: Reader) -> None:
        self.frames, self.select, self.read = frames, select, read
        self.taken = taken
        self.chosen = Chosen()
        self.avoided: list[int] = []
        """Frames that are not in the batch, and that nothing in it may be near to or repeat."""
        self.counts: Counter[tuple[int, int]] = Counter()
        """(quota, slice) -> frames of the batch in it."""
        n = len(frames)
        order = np.lexsort((frames.at_us, frames.camera))
        self.place = np.empty(n, np.int64)
        """[n] position in order of camera and time."""
        self.place[order] = np.arange(n)
        self.first, self.last = _within_reach(
            frames.camera[order], frames.at_us[order], reach_us(select.min_gap_s)
        )
        """[n] by place: places from ``first`` up to, not including, ``last`` lie within the gap."""
        self.blocked = bytearray(n)
        """[n] by place: within the gap of a frame of the batch."""
        self.lacks: dict[tuple[int, int], str] = {}
        """Why a slice is short of its floor."""
        self.repeats = np.zeros(n, bool)
        """[n] known to show the same picture as a frame of the batch."""

    # -- one step --------------------------------------------------------------------------------------------------

    def fill(self, wanted: int, slice_of: tuple[int, int] | None, pool_size: int | None = None) -> None:
        """Choose ``wanted`` frames, of one slice or of all, as far as there are any, from ``pool_factor`` times as many."""
        select, chosen = self.select, self.chosen
        while wanted > 0 and not chosen.stopped_by_cost:
            size = pool_size or math.ceil(wanted * select.pool_factor)
            pool = self.walk(np.flatnonzero(self.open(slice_of)), size)
            if not len(pool):
                return
            embeddings = self.read.embeddings(pool)
            picks = STRATEGIES[select.strategy](
                Candidates(
                    frame_id=self.frames.names(pool),
                    hardness=self.frames.hardness[pool],
                    embeddings=embeddings,
                    taken=self.taken,
                    stratum=self.frames.stratum[pool].astype(np.str_),
                ),
                wanted,
                select.seed,
            )
            rows = pool[picks.index]
            boxes = self.read.boxes(pool)[picks.index]
            name = None if slice_of is None else self.name(slice_of)
            fits = self.fitting(rows, boxes)
            for i in range(fits):
                self.take(int(rows[i]), "mined", name, float(picks.distance_to_nearest[i]), float(boxes[i]))
            self.taken = np.concatenate([self.taken, embeddings[picks.index[:fits]]])
            value = self.frames.hardness[rows[fits - 1]] * chosen.distance[-1] if fits else math.nan
            chosen.steps.append(
                Step(
                    slice=name,
                    wanted=wanted,
                    pool=len(pool),
                    least_priority=_number(self.frames.priority[pool].min()),
                    least_value=_number(value),
                    picked=fits,
                )
            )
            wanted -= fits

    def draw(self, wanted: int) -> None:
        """Draw the random arm: blindly, from all eligible frames; only gap and repeated pictures are looked at."""
        cost = self.select.cost
        rows = self.walk(np.argsort(self.frames.draw, kind="stable"), wanted)
        boxes = self.read.boxes(rows)
        taken = []
        for row, expected in zip(rows.tolist(), boxes.tolist(), strict=True):
            # The frame that passes the arm's share is in: to leave it out would favour frames of few boxes.
            if cost.limit is not None and self.chosen.cost >= cost.limit * self.select.random_share:
                break
            if not self.fits(self.chosen.cost + self.cost_of(expected)):
                self.chosen.stopped_by_cost = True
                break
            self.take(row, "random", None, math.nan, expected)
            taken.append(row)
        self.taken = np.concatenate([self.taken, self.read.embeddings(np.asarray(taken, np.int64))])

    def walk(self, order: Rows, count: int) -> Rows:
        """Walk down ``order`` and keep frames that keep the gap to the batch and to each other, until there are ``count``.

        Repeats are passed over: frames that show a picture or a moment of the batch, or of one that was kept before.
        """
        blocked, passed = bytearray(self.blocked), self.repeats.copy()
        kept = np.empty(0, np.int64)
        position = 0
        while len(kept) < count and position < len(order):
            found: list[int] = []
            positions: list[int] = []
            while len(found) < count - len(kept) and position < len(order):
                row = int(order[position])
                if not (blocked[self.place[row]] or passed[row]):
                    self.block(blocked, row)
                    found.append(row)
                    positions.append(position)
                position += 1
            rows = np.asarray(found, np.int64)
            good = self.distinct(rows, kept)
            kept = np.concatenate([kept, rows[good]])
            if not good.all():
                # What is passed over keeps no neighbour out: those that it hid are looked at again.
                passed[rows[~good]] = True
                blocked = bytearray(self.blocked)
                for row in kept.tolist():
                    self.block(blocked, row)
                position = positions[int(good.argmin())]
        return kept

    def block(self, blocked: bytearray, row: int) -> None:
        """Mark all frames within the gap of this one, itself included."""
        first, last = int(self.first[self.place[row]]), int(self.last[self.place[row]])
        blocked[first:last] = b"\1" * (last - first)

    def distinct(self, rows: Rows, kept: Rows) -> NDArray[np.bool_]:
        """[m] which rows show no picture and no moment of the batch, of what it avoids, of ``kept``, or of a row before them."""
        batch = np.asarray(self.chosen.rows + self.avoided, np.int64)
        before = len(batch) + len(kept)
        everything = np.concatenate([batch, kept, rows])
        good = np.ones(len(everything), bool)
        bits, apart = self.select.max_duplicate_bits, self.select.max_duplicate_distance
        if bits >= 0:
            hashes = self.frames.perceptual_hash[everything]
            alike = np.zeros(len(everything), bool)
            for i in range(before, len(everything)):  # each step is one vectorised comparison
                near = hamming(hashes[:i], hashes[i]) <= bits
                alike[:i] |= near
                alike[i] |= near.any()
            # Embeddings are read of those alone whose hashes are alike: mostly few.
            vectors = self.read.embeddings(everything[alike])
            slot = np.cumsum(alike) - 1
            for i in (np.flatnonzero(alike[before:]) + before).tolist():
                earlier = np.flatnonzero(good[:i] & alike[:i] & (hamming(hashes[:i], hashes[i]) <= bits))
                same = earlier[np.linalg.norm(vectors[slot[earlier]] - vectors[slot[i]], axis=1) <= apart]
                good[i] = not len(same)
                self.repeats[everything[i]] = bool((same < len(batch)).any())
        good = good[before:]
        if self.select.same_moment_once and good.any():
            moments = self.read.same_moment(rows[good])
            given_out = {-1, *batch.tolist()}
            for row, others in moments.items():
                self.repeats[row] |= bool(others & given_out)
            good[good] = first_of_each(rows[good].tolist(), moments, given_out | set(kept.tolist()))
        return good

    # -- quotas ----------------------------------------------------------------------------------------------------

    def open(self, slice_of: tuple[int, int] | None) -> NDArray[np.bool_]:
        """[n] frames of the slice that are in no slice whose ceiling is reached."""
        is_open = np.ones(len(self.frames), bool)
        if slice_of is not None:
            is_open = self.frames.slices[:, slice_of[0]] == slice_of[1]
        for q, quota in enumerate(self.select.quota):
            ceiling = quota.ceiling(self.select.budget)
            full = [s for s in range(len(self.frames.slice_names[q])) if self.counts[q, s] >= ceiling]
            if full:
                is_open &= ~np.isin(self.frames.slices[:, q], full)
        return is_open

    def fitting(self, rows: Rows, boxes: NDArray[np.float64]) -> int:
        """How many of the first rows can be taken before one breaks a ceiling or the limit of cost."""
        counts, cost = self.counts.copy(), self.chosen.cost
        ceilings = [quota.ceiling(self.select.budget) for quota in self.select.quota]
        for i, row in enumerate(rows.tolist()):
            cost += self.cost_of(float(boxes[i]))
            if not self.fits(cost):
                self.chosen.stopped_by_cost = True
                return i
            for q, s in enumerate(self.frames.slices[row].tolist()):
                counts[q, s] += 1
                if s >= 0 and counts[q, s] > ceilings[q]:
                    return i
        return len(rows)

    def floors(self) -> list[tuple[int, int]]:
        """Slices that lack frames, the scarcest first: the fewest eligible frames for each that is wanted."""
        lacking = []
        for q, quota in enumerate(self.select.quota):
            floor = quota.floor(self.select.budget)
            for s in range(len(self.frames.slice_names[q])):
                if self.counts[q, s] < floor:
                    lacking.append((int((self.frames.slices[:, q] == s).sum()) / floor, q, s))
        return [(q, s) for _, q, s in sorted(lacking)]

    def report(self) -> list[SliceReport]:
        """Say how each slice came out, and why it lacks what it lacks."""
        budget, found = self.select.budget, []
        for q, quota in enumerate(self.select.quota):
            floor, ceiling = quota.floor(budget), quota.ceiling(budget)
            for s in range(len(self.frames.slice_names[q])):
                chosen = self.counts[q, s]
                lack = self.lacks.get((q, s)) if chosen < floor else None
                if chosen > ceiling:
                    lack = f"the random arm, which no quota touches, drew {chosen}"
                eligible = int((self.frames.slices[:, q] == s).sum())
                found.append(SliceReport(self.name((q, s)), floor, ceiling, eligible, chosen, lack))
            if (
                quota.where is not None and not self.frames.slice_names[q]
            ):  # a condition that no frame fulfils
                lack = "no frame of it is eligible" if floor else None
                found.append(SliceReport(quota.title, floor, ceiling, 0, 0, lack))
        return found

    def lack(self, slice_of: tuple[int, int], floor: int) -> str:
        """Why a slice is short of its floor, when no more can be done for it."""
        inside = self.frames.slices[:, slice_of[0]] == slice_of[1]
        inside[np.asarray(self.chosen.rows, np.int64)] = False
        eligible = int(inside.sum()) + self.counts[slice_of]
        if eligible < floor:
            return f"only {eligible} frames of it are eligible"
        if self.chosen.stopped_by_cost:
            return "the limit of cost was reached"
        if len(self.chosen.rows) >= self.select.budget:
            return "the budget was used up: the floors ask for more than it holds"
        near = int(np.frombuffer(self.blocked, np.uint8)[self.place[inside]].sum())
        closed = int((inside & ~self.open(None)).sum())
        parts = [
            f"{eligible} frames of it are eligible",
            f"{near} within {self.select.min_gap_s:g} s of a chosen frame" if near else "",
            f"{closed} in slices that are full (raise their max)" if closed else "",
            f"{int(inside.sum()) - near - closed} show the same picture or moment as a chosen frame"
            if int(inside.sum()) > near + closed
            else "",
        ]
        return ", ".join(part for part in parts if part)

    def name(self, slice_of: tuple[int, int]) -> str:
        """What a slice is called: the quota's title, with the value where it has many slices."""
        q, s = slice_of
        quota, value = self.select.quota[q], self.frames.slice_names[q][s]
        return quota.title if quota.where is not None else f"{quota.title} = {value}"

    # -- taking ----------------------------------------------------------------------------------------------------

    def fits(self, cost: float) -> bool:
        """Whether a batch may cost so much."""
        return self.select.cost.limit is None or cost <= self.select.cost.limit + 1e-9

    def cost_of(self, boxes: float) -> float:
        """What labeling a frame of so many boxes costs."""
        return self.select.cost.per_frame + self.select.cost.per_box * boxes

    def avoid(self, row: int) -> None:
        """Keep the batch away from a frame as if it held it."""
        self.avoided.append(row)
        self.block(self.blocked, row)

    def take(self, row: int, arm: str, slice_name: str | None, distance: float, boxes: float) -> None:
        """Put a frame into the batch."""
        chosen = self.chosen
        chosen.rows.append(row)
        chosen.arm.append(arm)
        chosen.slice.append(slice_name)
        chosen.distance.append(distance)
        chosen.boxes.append(boxes)
        chosen.cost += self.cost_of(boxes)
        self.block(self.blocked, row)
        for q, s in enumerate(self.frames.slices[row].tolist()):
            if s >= 0:
                self.counts[q, s] += 1


def choose(frames: Eligible, select: SelectConfig, taken: FloatArray, read: Reader) -> Chosen:
    """Choose a batch.

    Args:
        frames: that may be chosen.
        select: budget, gap, quotas, cost, strategy.
        taken: [m, d] embeddings of frames that earlier batches hold; the strategy keeps away from them.
        read: embeddings and boxes of some frames.
    """
    blind = round(select.budget * select.random_share)
    chosen = _chosen(frames, select, taken, read, blind)
    short = len(chosen.rows) < select.budget and not chosen.stopped_by_cost
    if short and chosen.arm.count("random") > (share := round(len(chosen.rows) * select.random_share)):
        # There are not enough frames for the budget: the random arm has its share of the batch that can be had, not of one
        # that cannot.
        chosen = _chosen(frames, select, taken, read, share)
    return chosen


def _chosen(frames: Eligible, select: SelectConfig, taken: FloatArray, read: Reader, blind: int) -> Chosen:
    """Choose with a random arm of so many frames."""
    choice = Choice(frames, select, taken, read)
    choice.draw(blind)
    for slice_of in choice.floors():
        floor = select.quota[slice_of[0]].floor(select.budget)
        # Frames of other slices may have come into this one meanwhile.
        lacking = floor - choice.counts[slice_of]
        choice.fill(min(lacking, select.budget - len(choice.chosen.rows)), slice_of)
        if choice.counts[slice_of] < floor:
            choice.lacks[slice_of] = choice.lack(slice_of, floor)
    choice.fill(select.budget - len(choice.chosen.rows), None)
    choice.chosen.slices = choice.report()
    return choice.chosen


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _within_reach(
    camera: NDArray[np.int32], at_us: NDArray[np.int64], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n] first and one past the last position of the same camera at most ``reach`` away; input in order of both."""
    first = np.empty(len(camera), np.int64)
    last = np.empty(len(camera), np.int64)
    borders = np.flatnonzero(np.diff(camera, prepend=-1, append=-1))
    for a, b in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        times = at_us[a:b]
        first[a:b] = a + np.searchsorted(times, times - reach, side="left")
        last[a:b] = a + np.searchsorted(times, times + reach, side="right")
    return first, last
