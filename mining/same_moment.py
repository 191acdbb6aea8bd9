"""Finds frames of two recordings that show the same moment: one piece of footage, uploaded twice, cut or cropped otherwise.

One picture cannot tell: a crop moves its embedding further than a minute of driving does. How the pictures *change* can. A
crop, another encoder and another brightness shift all embeddings of a recording by about the same vector; what is left when
each is taken relative to the mean of its surroundings is alike in both uploads, frame after frame. docs/selection.md has the
evidence for the numbers below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from mining.types import FloatArray

SAME_S = 2.0
"""Frames of the same footage at most this far apart show the same moment."""

SLOT_S, REACH_S = 0.5, 4.0
"""A moment is described by the frames up to REACH_S before and after it, one every SLOT_S."""

SURROUNDINGS_S = 8.0
"""An embedding is taken relative to the mean of those of its recording at most this far away in time."""

AROUND_S = SURROUNDINGS_S + REACH_S + SAME_S
"""What must be known around a frame to compare it."""

MIN_CHANGE = 0.01
"""A frame whose embedding lies nearer than this to that mean says nothing: the picture stands still."""

WIDTH, RIDGE = 64, 0.05
"""Principal components of the changes that are kept, each scaled to equal spread; RIDGE (a share of the mean variance) keeps
the weak ones from being scaled up to noise."""

MIN_ROWS = 4 * 16
"""Fewer frames in all tell too little about how pictures usually change: nothing is found among them."""

MIN_SLOTS, MIN_SIMILARITY, MIN_EVIDENCE = 6, 0.30, 1.1
"""Same moment: over n >= MIN_SLOTS frames, the mean cosine is at least MIN_SIMILARITY and MIN_EVIDENCE / sqrt(n)."""

OWN_S, OWN_SIMILARITY = 8.0, 0.6
"""Within one recording (edited footage shows a scene again) frames nearer than this are not compared, and the mean cosine
must be higher: a monotonous road goes on looking like itself."""

REPLAY_S = 3.0
"""Within one recording, frames that show the same place of another upload are a scene shown again where the time between them
differs by this much from the time between those places; played on, it would be the same."""

_SHIFT_SLOTS = round(SAME_S / SLOT_S)
_REACH_SLOTS = round(REACH_S / SLOT_S)
_SPAN = 2 * _REACH_SLOTS + 1
_SLOTS = np.arange(-_REACH_SLOTS - _SHIFT_SLOTS, _REACH_SLOTS + _SHIFT_SLOTS + 1)
# The screen looks at every fourth slot, at every second shift.
_SCREEN_EVERY, _SCREEN_SIMILARITY = 4, 0.20
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Footage:
    """The frames that were looked at, of every recording that matters: rows in the order of (recording, time)."""

    recording: NDArray[np.int64]
    """[F] a number for each recording."""
    time_s: NDArray[np.float64]
    """[F] since any moment of the recording's own."""
    embedding: InitVar[NDArray[np.floating]]
    """[F, d] as in ``observations``, float16 or more; no NaN. Not kept."""
    change: NDArray[np.float16] = field(init=False)
    """[F, WIDTH or less] how each embedding differs from its surroundings."""

    def __post_init__(self, embedding: NDArray[np.floating]) -> None:
        """Check what the comparison relies on, and make ``change``."""
        n = len(self.recording)
        if self.time_s.shape != (n,) or embedding.ndim != 2 or len(embedding) != n:
            raise ValueError(
                f"Footage needs time_s [{n}] and embedding [{n}, d], "
                f"got {list(self.time_s.shape)} and {list(embedding.shape)}"
            )
        step = np.diff(self.recording)
        if (step < 0).any() or (np.diff(self.time_s)[step == 0] < 0).any():
            raise ValueError("Footage needs rows in the order of recording and time")
        # Too few frames tell nothing of how pictures change, and are never compared.
        few = n < MIN_ROWS
        change = np.zeros((n, 1), np.float16) if few else _changes(self.recording, self.time_s, embedding)
        object.__setattr__(self, "change", change)

    @classmethod
    def none(cls) -> Footage:
        """No footage."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty((0, 1), np.float32))

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self.recording)


class SameMoments:
    """Which frames show the same moment, remembered: two frames are compared once, however often they are asked for."""

    def __init__(self, footage: Footage, given_out: NDArray[np.int64]) -> None:
        """Start with rows that others are compared with, but not with each other.

        ``footage`` must hold AROUND_S around each frame that is given here or will be asked for.
        """
        self.footage = footage
        self._known = given_out
        self._moments = _moments(footage, given_out)
        self._same: dict[int, set[int]] = {}
        # (recording, another that shares footage with it) -> its rows known so far, and those that the other shows, with when.
        self._looked: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._shown: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}

    def of(self, rows: NDArray[np.int64]) -> dict[int, set[int]]:
        """For each of these rows of the footage that has any: the rows given or asked for so far that show its moment."""
        new = np.setdiff1d(rows, self._known)
        moments = _moments(self.footage, new)
        self._known = np.concatenate([self._known, new])
        self._moments = np.concatenate([self._moments, moments])
        i, j, _ = _pairs(self.footage, new, moments, self._known, self._moments)
        self._remember(new[i], self._known[j])
        self._look_closer(new[i], self._known[j])
        return {row: self._same[row] for row in rows.tolist() if row in self._same}

    def _remember(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            self._same.setdefault(one, set()).add(other)
            self._same.setdefault(other, set()).add(one)

    def _look_closer(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Find when each of two recordings that share footage shows the known rows of the other; pair rows by that.

        Two frames beside a cut or an end have few pictures to compare, fewer still where they lie 2 s apart. But each has a
        best counterpart among *all* frames of the other recording, and its time tells which frames are near.
        """
        recording, time_s = self.footage.recording, self.footage.time_s
        none = np.zeros(0, np.int64), np.zeros(0)
        for a, b in {*zip(recording[ones].tolist(), recording[others].tolist(), strict=True)}:
            if a != b:
                self._looked.setdefault((a, b), none[0])
                self._looked.setdefault((b, a), none[0])
        known_of = recording[self._known]
        for (a, b), looked in self._looked.items():
            known, known_there = self._known[known_of == a], self._known[known_of == b]
            new = np.setdiff1d(known, looked)
            i, shown_s = _shown_at(self.footage, new, np.arange(*np.searchsorted(recording, [b, b + 1])))
            before, before_s = self._shown.get((a, b), none)
            row, at_s = np.concatenate([before, new[i]]), np.concatenate([before_s, shown_s])
            self._looked[a, b], self._shown[a, b] = known, (row, at_s)
            x, y = np.nonzero(np.abs(at_s[:, None] - time_s[known_there]) <= SAME_S)
            self._remember(row[x], known_there[y])
            # Of one recording: the other shows both at once, and yet they are further apart.
            between_s, shown_between_s = (np.abs(t[:, None] - t) for t in (time_s[row], at_s))
            x, y = np.nonzero((shown_between_s <= SAME_S) & (between_s - shown_between_s >= REPLAY_S))
            self._remember(row[x], row[y])


def first_of_each(rows: Sequence[int], same: Mapping[int, set[int]], taken: set[int]) -> NDArray[np.bool_]:
    """[n] whether each of ``rows`` is kept: no row of its moment is in ``taken`` or was kept before it."""
    seen, kept = set(taken), np.zeros(len(rows), np.bool_)
    for i, row in enumerate(rows):
        kept[i] = not (same.get(row, set()) & seen)
        if kept[i]:
            seen.add(row)
    return kept


def same_moment_pairs(
    footage: Footage, frames: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of ``frames`` show the same moment as which of ``others``: ([p], [p]) positions in these, sorted.

    A blocked product of all with all screens with a quarter of the slots; what passes is compared in full. The work grows with
    len(frames) * len(others) * WIDTH, the memory with len(frames) + len(others) and with the footage.

    Args:
        footage: the recordings of all these frames, at least AROUND_S around each of them.
        frames: [n] rows of the footage.
        others: [m] rows of the footage; may hold the same ones. A frame is no pair with its own recording nearby.
    """
    i, j, _ = _pairs(footage, frames, _moments(footage, frames), others, _moments(footage, others))
    return i, j


def _shown_at(
    footage: Footage, frames: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """When another recording shows a frame: ([p] positions in ``frames``, [p] seconds), several where it does so again."""
    moments = _moments(footage, frames)
    found = [(np.zeros(0, np.int64), np.zeros(0))]
    for first in range(0, len(others) if len(frames) else 0, _BLOCK):
        there = others[first : first + _BLOCK]
        i, j, shift_s = _pairs(footage, frames, moments, there, _moments(footage, there))
        # At the largest shift the best one may lie further on: then a frame nearer to it tells.
        inner = np.abs(shift_s) < SAME_S
        found.append((i[inner], footage.time_s[there[j[inner]]] - shift_s[inner]))
    rows, at_s = (np.concatenate(side) for side in zip(*found, strict=True))
    return rows, at_s


def _pairs(
    footage: Footage,
    frames: NDArray[np.int64],
    moments: FloatArray,
    others: NDArray[np.int64],
    other_moments: FloatArray,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """``same_moment_pairs``, given ``_moments`` of both; and [p] the shift of each pair at which it is most alike, seconds.

    A frame shows what the other recording shows ``shift`` earlier than at the other frame.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    if len(footage) < MIN_ROWS:
        return found[0]
    screened = _SHIFT_SLOTS + np.arange(0, _SPAN, _SCREEN_EVERY)
    for first in range(0, len(others), _BLOCK):
        theirs = others[first : first + _BLOCK]
        moments_there = other_moments[first : first + _BLOCK]
        target = _flat(moments_there[:, screened])
        for start in range(0, len(frames), _BLOCK):
            mine = frames[start : start + _BLOCK]
            moments_here = moments[start : start + _BLOCK]
            near = np.zeros((len(mine), len(theirs)), np.bool_)
            for shift in range(-_SHIFT_SLOTS, _SHIFT_SLOTS + 1, 2):
                near |= _flat(moments_here[:, screened + shift]) @ target.T >= _SCREEN_SIMILARITY
            i, j = np.nonzero(near)
            own = footage.recording[mine[i]] == footage.recording[theirs[j]]
            apart = ~own | (np.abs(footage.time_s[mine[i]] - footage.time_s[theirs[j]]) >= OWN_S)
            i, j, own = i[apart], j[apart], own[apart]
            least = np.where(own, OWN_SIMILARITY, MIN_SIMILARITY)
            same, shift_s = _change_alike(moments_here, i, moments_there, j, least)
            found.append((i[same] + start, j[same] + first, shift_s[same]))
    i, j, shift_s = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.lexsort((j, i))
    return i[order], j[order], shift_s[order]


def _changes(
    recording: NDArray[np.int64], time_s: NDArray[np.float64], embedding: NDArray[np.floating]
) -> NDArray[np.float16]:
    """[F, WIDTH or less] unit vectors: how each embedding differs from its surroundings; zeros where the picture stands still."""
    n, d = embedding.shape
    starts = np.flatnonzero(np.diff(recording, prepend=recording[0] - 1))
    parts = [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n], strict=True)]
    # Recording by recording, twice: all changes at once, in full precision, would be the largest thing in memory.
    scatter = np.zeros((d, d))
    for part in parts:
        change = _relative(time_s[part], embedding[part])
        scatter += change.T @ change
    # Pictures change mostly in a few ways (brighter, busier) that all drives share: unscaled, these alone would agree.
    variance, component = np.linalg.eigh(scatter / n)
    keep = np.arange(d)[::-1][: min(WIDTH, n // 4)]
    spread = np.sqrt(np.maximum(variance[keep], 0) + RIDGE * max(variance.mean(), 1e-12))
    scaled = (component[:, keep] / spread).astype(np.float32)
    changes = np.empty((n, len(keep)), np.float16)
    for part in parts:
        change = _relative(time_s[part], embedding[part])
        stands = np.linalg.norm(change, axis=1) < MIN_CHANGE
        change = change @ scaled
        change /= np.maximum(np.linalg.norm(change, axis=1, keepdims=True), 1e-12)
        change[stands] = 0
        changes[part] = change
    return changes


def _relative(time_s: NDArray[np.float64], embedding: NDArray[np.floating]) -> FloatArray:
    """[f, d] embeddings of one recording, each less the mean of its surroundings."""
    first = np.searchsorted(time_s, time_s - SURROUNDINGS_S - 1e-6)
    last = np.searchsorted(time_s, time_s + SURROUNDINGS_S + 1e-6)
    total = np.zeros((len(embedding) + 1, embedding.shape[1]))
    np.cumsum(embedding, axis=0, dtype=np.float64, out=total[1:])
    mean = (total[last] - total[first]) / (last - first)[:, None]
    return np.asarray(embedding - mean, np.float32)


def _moments(footage: Footage, rows: NDArray[np.int64]) -> FloatArray:
    """[n, slots, width] the changes around each of these rows; zeros in slots without a frame."""
    wanted_s = footage.time_s[rows][:, None] + _SLOTS * SLOT_S
    moments = np.zeros((*wanted_s.shape, footage.change.shape[1]), np.float32)
    recording = footage.recording[rows]
    for number in np.unique(recording):
        mine = np.flatnonzero(recording == number)
        start, stop = np.searchsorted(footage.recording, [number, number + 1])
        time = footage.time_s[start:stop]
        right = np.minimum(np.searchsorted(time, wanted_s[mine]), len(time) - 1)
        left = np.maximum(right - 1, 0)
        nearest = np.where(
            np.abs(wanted_s[mine] - time[left]) <= np.abs(time[right] - wanted_s[mine]), left, right
        )
        there = np.abs(time[nearest] - wanted_s[mine]) <= SLOT_S / 2 + 1e-6
        moments[mine] = np.where(there[:, :, None], footage.change[start + nearest], 0)
    return moments


def _flat(moments: FloatArray) -> FloatArray:
    """[n, slots, width] -> [n, slots * width]; a product of two rows is the mean cosine where both have the same slots."""
    present = (moments != 0).any(axis=2).sum(axis=1)
    flat = moments.reshape(len(moments), -1) / np.sqrt(np.maximum(present, 1))[:, None]
    return np.asarray(flat, np.float32)


def _change_alike(
    a: FloatArray,
    i: NDArray[np.int64],
    b: FloatArray,
    j: NDArray[np.int64],
    least: NDArray[np.floating],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether rows i of a and j of b change alike, by a mean cosine of ``least``, at any shift of up to SAME_S: [p].

    And the shift at which they do so most, in seconds: [p].
    """
    most, shift_s = np.zeros(len(i)), np.zeros(len(i))
    for start in range(0, len(i), _BLOCK):
        part = slice(start, start + _BLOCK)
        mine, theirs = a[i[part]], b[j[part], _SHIFT_SLOTS : _SHIFT_SLOTS + _SPAN]
        mine_there, theirs_there = np.any(mine != 0, axis=2), np.any(theirs != 0, axis=2)
        for shift in range(2 * _SHIFT_SLOTS + 1):
            window = slice(shift, shift + _SPAN)
            cosine = np.einsum("psw,psw->ps", mine[:, window], theirs)
            both = mine_there[:, window] & theirs_there
            # Around the frame, up to it, and from it on: edited footage may be cut right beside it.
            for side in (slice(None), slice(0, _REACH_SLOTS + 1), slice(_REACH_SLOTS, None)):
                n = both[:, side].sum(axis=1)
                mean = cosine[:, side].sum(axis=1) / np.maximum(n, 1)
                bar = np.maximum(least[part], MIN_EVIDENCE / np.sqrt(np.maximum(n, 1)))
                evidence = np.where((n >= MIN_SLOTS) & (mean >= bar), mean * np.sqrt(n), 0)
                better = evidence > most[part]
                most[part] = np.where(better, evidence, most[part])
                shift_s[part] = np.where(better, (shift - _SHIFT_SLOTS) * SLOT_S, shift_s[part])
    return most > 0, shift_s
