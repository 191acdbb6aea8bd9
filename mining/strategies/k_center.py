"""Hard frames that differ from each other and from all that is taken: greedy k-center, weighted by hardness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mining.strategies.distance import SAME_BELOW
from mining.strategies.types import Candidates, FloatArray, Picks, check_k

_ACTIVE_ROWS = 8192
"""About how many rows are kept up to date after every pick: 4 MiB of embeddings at d = 128, which a cache can hold."""
_ROWS_PER_BLOCK = 8192
_CENTRES_PER_BLOCK = 256
_LEAST_VALUE = float(np.finfo(np.float32).smallest_subnormal)


def k_center(candidates: Candidates, k: int, seed: int) -> Picks:
    """Take, again and again, the frame with the largest hardness x distance to the nearest frame taken or picked.

    Farthest-first traversal (Gonzalez 1985), which is the core-set choice of Sener & Savarese (ICLR 2018), with the
    distance weighted by hardness. Where nothing is taken, the hardest frame is first. Where no frame has any value left,
    those of hardness 0 follow by distance, and at last the repeats (distance 0) by hardness. Equals go by frame_id.

    Greedy and exact: what decides is the distance of the float32 embeddings, summed up in float64, each pair by itself;
    so neither the order of the rows nor the size of a block plays a part. Nor does ``seed``. At most n x (m + k) x d
    multiplications, nearly all in float32 matrix products; 24 bytes a row beside the input.
    """
    check_k(k)
    size = min(k, len(candidates))
    search = _Search(candidates, size)
    if size and not len(candidates.taken):
        search.add_hardest()
    for weight in (candidates.hardness, np.ones_like(candidates.hardness)):
        search.weigh(weight)
        while len(search.picks) < size and search.add_best():
            pass
    picks = np.asarray(search.picks, np.int64)
    distances = np.asarray(search.distances, np.float32)
    if len(picks) < size:
        # The rest are repeats: no pick changes their distance of 0.
        rest = np.setdiff1d(np.arange(len(candidates)), picks)
        order = np.lexsort((candidates.frame_id[rest], -candidates.hardness[rest]))[: size - len(picks)]
        picks = np.concatenate([picks, rest[order]])
        distances = np.concatenate([distances, np.zeros(len(order), np.float32)])
    return Picks(picks, distances)


class _Search:
    """Finds the row with the largest weight x distance to its nearest centre, while picks become centres.

    Distances only shrink, so what a row was worth before the latest picks bounds what it is worth now (Minoux 1978).
    After a pick only the *active* rows are compared with it: those with a bound of ``floor`` or more. When none of them
    is worth ``floor`` any longer, the rows that may be are compared with all centres that they have not met, in matrix
    products. Products in float32 are off by up to ``slack``: they too give bounds, and a row is picked only once its
    value is exact.

    ``near`` is x.c - |c|^2 / 2 for a row x and its nearest centre c, so that distance^2 = |x|^2 - 2 near. It is kept a
    little too low, which makes the distance too large.
    """

    def __init__(self, candidates: Candidates, size: int) -> None:
        n, d = candidates.embeddings.shape
        m = len(candidates.taken)
        self.rows = candidates.embeddings
        self.frame_id = candidates.frame_id
        self.hardness = candidates.hardness
        self.picks: list[int] = []
        self.distances: list[float] = []
        # What is taken, and behind it the picks; the first ``count`` are filled.
        self.centres = np.concatenate([candidates.taken, np.empty((size, d), np.float32)])
        self.half_square = np.empty(m + size)
        self.half_square[:m] = _square(candidates.taken.astype(np.float64)) / 2
        self.count = m
        self.square = _square(self.rows)
        self.near = np.full(n, -2, np.float32)
        # How many centres, from the first, ``near`` takes account of.
        self.met = np.zeros(n, np.int32)
        # A sum of d products is off by d x 2^-24 at most (Higham 2002, 3.1): once in ``near``, and half of it counts in
        # ``square``. The rest is for the few roundings on the way from there to a value.
        self.slack = np.float32((1.6 * d + 32) * 2.0**-24)

    def weigh(self, weight: FloatArray) -> None:
        """Let ``weight`` [n] decide from here on."""
        self.weight = weight.copy()
        self.weight[self.picks] = 0
        # In float64, so that an exact value is its own bound: rounded up, it could be a floor that it never reaches.
        self.bound = (self.weight * _distance(self.square, self.near)).astype(np.float64)
        self._activate(np.empty(0, np.int64), np.inf)

    def add_hardest(self) -> None:
        """Pick the hardest row, the first by name among equals."""
        hardest = np.flatnonzero(self.hardness == self.hardness.max())
        self._add(int(hardest[self.frame_id[hardest].argmin()]), np.nan)

    def add_best(self) -> bool:
        """Pick the row with the largest value, the first by name among equals; False where none has a value above 0."""
        while True:
            best = int(self.active_value.argmax()) if len(self.active) else -1
            if best < 0 or self.active_value[best] < self.floor:
                if not self._refresh():
                    return False
            elif np.isnan(self.active_distance[best]):
                self._measure(best)
            else:
                break
        self._add(int(self.active[best]), self.active_distance[best])
        self.active_weight[best] = 0
        self.active_value[best] = 0
        near = np.vecdot(self.active_rows, self.active_rows[best]) - np.float32(
            self.half_square[self.count - 1]
        )
        self.active_distance[near + self.slack > self.active_near] = np.nan
        np.maximum(self.active_near, near - self.slack, out=self.active_near)
        bound = self.active_weight * _distance(self.active_square, self.active_near)
        np.minimum(self.active_value, bound, out=self.active_value)
        return True

    def _add(self, row: int, distance: float) -> None:
        self.picks.append(row)
        self.distances.append(distance)
        self.centres[self.count] = self.rows[row]
        self.half_square[self.count] = _square(self.rows[row].astype(np.float64)) / 2
        self.count += 1

    def _measure(self, at: int) -> None:
        """Make the distance and the value of an active row exact: in float64, to each centre that may be the nearest."""
        row = self.active_rows[at]
        near = np.vecdot(self.centres[: self.count], row) - self.half_square[: self.count].astype(np.float32)
        those = np.flatnonzero(near >= near.max() - 2 * self.slack)
        row = row.astype(np.float64)
        nearest = (np.vecdot(self.centres[those].astype(np.float64), row) - self.half_square[those]).max()
        distance = _distance(_square(row), nearest)
        self.active_near[at] = nearest - self.slack
        self.active_distance[at] = distance
        self.active_value[at] = self.active_weight[at] * distance

    def _activate(self, active: NDArray[np.int64], floor: float) -> None:
        """Keep these rows up to date from here on; every other row is worth less than ``floor``."""
        self.floor = floor
        # In order of frame_id, so that argmax finds the first by name among equals.
        self.active = active[np.argsort(self.frame_id[active], kind="stable")]
        self.active_rows = self.rows[self.active]
        self.active_square = self.square[self.active]
        self.active_weight = self.weight[self.active].astype(np.float64)
        self.active_near = self.near[self.active]
        self.active_value = self.bound[self.active]
        # NaN until it is measured, and again when a pick may be nearer.
        self.active_distance = np.full(len(active), np.nan)

    def _refresh(self) -> bool:
        """Choose the active rows anew; False where no row has a value above 0."""
        self.near[self.active] = self.active_near
        self.met[self.active] = self.count
        self.weight[self.picks] = 0
        self.bound[self.active] = self.active_value
        n, floor = len(self.bound), _LEAST_VALUE
        if n > _ACTIVE_ROWS:
            # What the most promising rows are worth now says how far down it pays to look.
            top = np.sort(np.argpartition(self.bound, n - _ACTIVE_ROWS)[n - _ACTIVE_ROWS :])
            self._meet(top, floor)
            floor = max(floor, float(np.partition(self.bound[top], -_ACTIVE_ROWS // 4)[-_ACTIVE_ROWS // 4]))
        self._meet(np.flatnonzero(self.bound >= floor), floor)
        active = np.flatnonzero(self.bound >= floor)
        if len(active) > _ACTIVE_ROWS:
            floor = float(np.partition(self.bound[active], -_ACTIVE_ROWS)[-_ACTIVE_ROWS])
            active = active[self.bound[active] >= floor]
        self._activate(active, floor)
        return len(active) > 0

    def _meet(self, rows: NDArray[np.int64], floor: float) -> None:
        """Compare ``rows``, ascending, with centres they have not met, each until its bound falls below ``floor``."""
        met = self.met[rows]
        for since in np.flatnonzero(np.bincount(met)):
            group = rows[met == since]
            for start in range(0, len(group), _ROWS_PER_BLOCK):
                self._meet_from(int(since), group[start : start + _ROWS_PER_BLOCK], floor)

    def _meet_from(self, since: int, rows: NDArray[np.int64], floor: float) -> None:
        first, end = int(rows[0]), int(rows[-1]) + 1
        # Rows that lie in one piece are not copied.
        vectors = self.rows[slice(first, end) if end - first == len(rows) else rows]
        while since < self.count and len(rows):
            until = min(since - since % _CENTRES_PER_BLOCK + _CENTRES_PER_BLOCK, self.count)
            products = self.centres[since:until] @ vectors.T
            products -= self.half_square[since:until, None].astype(np.float32)
            near = np.maximum(self.near[rows], products.max(axis=0) - self.slack)
            bound = np.minimum(self.bound[rows], self.weight[rows] * _distance(self.square[rows], near))
            self.near[rows], self.bound[rows], self.met[rows] = near, bound, until
            matter = bound >= floor
            if matter.mean() < 0.5:  # else the copy would cost more than it saves
                rows, vectors = rows[matter], vectors[matter]
            since = until


def _square(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.vecdot(vectors, vectors)


def _distance(square: NDArray[np.floating], near: NDArray[np.floating]) -> NDArray[np.floating]:
    """Euclidean distance from |x|^2 and ``near``; those below ``SAME_BELOW`` are 0."""
    distance = np.sqrt(np.maximum(square - 2 * near, 0))
    return np.where(distance < SAME_BELOW, 0, distance)
