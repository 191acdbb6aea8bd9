"""One review as its page sees it: cards, verdicts, replacements. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Any
from urllib.parse import quote

from mining.committee import committee_of
from mining.config import Config
from mining.report import data
from mining.review.replacements import Finder
from mining.review.verdicts import TAKEN_BACK, VERDICTS, Journal, Standing
from mining.select_batch import batch_of
from mining.store import Store
from mining.types import MiningError, UsageError

REASON_CHARACTERS = 1000


class NoSuchFrame(MiningError):
    """A frame that the batch under review does not hold, and that was not found for it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Which batch is reviewed."""

    batch_id: str
    night: date
    marker: dict[str, Any]


def batch_to_review(store: Store, config: Config, batch_id: str | None) -> Batch:
    """Find the batch, the committee's newest where none is named.

    Raises:
        UsageError: no such batch, or another committee chose it.
    """
    committee = committee_of(config)
    found, marker = batch_of(store, committee, batch_id)
    if found is None:
        raise UsageError(f"{store.root}: this committee has chosen no batch yet; `mining select` chooses one")
    if marker["committee_id"] != committee.committee_id:
        raise UsageError(
            f"batch {found} was chosen by committee {marker['committee_id']}, the config has {committee.committee_id}: "
            "review it with the config that chose it"
        )
    night = next(night for night, key in store.markers("select") if key == found)
    return Batch(found, night, marker)


class Session:
    """What one reviewer does to one batch. Its methods may be called from several threads."""

    def __init__(self, store: Store, config: Config, batch: Batch, reviewer: str) -> None:
        """Collect the page's data, once: in a large store this takes a while."""
        self._store, self._config, self._batch, self._reviewer = store, config, batch, reviewer
        self._journal = Journal(store, batch.night, batch.batch_id)
        self._finder = Finder(store, config, committee_of(config), batch.batch_id, batch.marker)
        self._page = data.collect(store, config, batch_id=batch.batch_id)
        self._cards = {card["frame_id"]: card for card in self._page.pop("frames")}
        self._lock = Lock()
        self._complete(self._journal.standing())

    def prepare(self) -> None:
        """Read what the first replacement needs; without it the first drop waits for that."""
        self._finder.prepare(list(self._journal.standing().frames))

    def end(self) -> None:
        """Let go of what was read."""
        self._finder.end()

    @property
    def frame_ids(self) -> list[str]:
        """Every frame that may be looked at: of the batch, found for it, or dropped from it; in the page's order."""
        return list(self._journal.standing().frames)

    def holds(self, frame_id: str) -> bool:
        """Whether it is one of these."""
        # No frame ever leaves a review; so a page of pictures does not list the store once for each of them.
        return frame_id in self._cards or frame_id in self._journal.standing().frames

    def page(self) -> dict[str, Any]:
        """All that the page shows, as ``mining.report.page.render`` takes it."""
        standing = self._journal.standing()
        return {
            **self._page,
            "mode": "review",
            "reviewer": self._reviewer,
            "version": standing.version,
            "frames": self._shown(standing, list(standing.frames)),
        }

    def frames(self) -> dict[str, Any]:
        """Every card, with the number of verdicts that they stand after."""
        standing = self._journal.standing()
        return {"version": standing.version, "frames": self._shown(standing, list(standing.frames))}

    def verdicts(self, since: int) -> dict[str, Any]:
        """What holds of the frames that were judged after the first ``since`` verdicts."""
        standing = self._journal.standing()
        names, brought = self._journal.changed(since)
        places = {standing.frames[name]["place"] or name for name in names}
        return {
            "version": standing.version,
            "verdicts": {name: standing.verdicts.get(name, []) for name in sorted(names)},
            # A drop lets another frame in, and taking it back sends that one out.
            "in_batch": {
                name: row["in_batch"]
                for name, row in standing.frames.items()
                if (row["place"] or name) in places
            },
            "added": brought,
        }

    def judge(self, frame_id: str, verdict: str | None, reason: str | None) -> dict[str, Any]:
        """Give a verdict, or take one's own back (None). It is on the disk when this returns.

        Returns:
            version; the card that takes the place of a dropped frame, or a note why there is none; cards that are similar.

        Raises:
            NoSuchFrame: the frame is none of this review.
            UsageError: no such verdict.
            TemporaryError: the store cannot be written to now.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise UsageError(f"verdict is {verdict!r}; known: {', '.join(VERDICTS)}, or null to take it back")
        with self._journal.turn() as standing:
            return self._judge(standing, frame_id, verdict or TAKEN_BACK, reason)

    def undo(self) -> dict[str, Any]:
        """Take back this reviewer's last verdict; what they had said of that frame before holds again.

        Returns:
            As ``judge``, with the frame and what holds of it now; None for both where there is nothing to take back.
        """
        with self._journal.turn() as standing:
            found = self._journal.last_of(self._reviewer)
            if found is None:
                return {"version": standing.version, "frame_id": None, "verdict": None}
            last, before, reason = found
            told = self._judge(standing, last["frame_id"], before, reason, undoes=last["review_id"])
            return {**told, "frame_id": last["frame_id"], "verdict": None if before == TAKEN_BACK else before}

    def _judge(
        self, standing: Standing, frame_id: str, verdict: str, reason: str | None, undoes: str | None = None
    ) -> dict[str, Any]:
        row = standing.frames.get(frame_id)
        if row is None:
            raise NoSuchFrame(f"no frame of batch {self._batch.batch_id} is called so")
        additions: list[dict[str, Any]] = []
        note = None
        said = [one for one in standing.verdicts.get(frame_id, []) if one["reviewer"] == self._reviewer]
        before = (said[0]["verdict"], said[0]["reason"]) if said else (TAKEN_BACK, None)
        # A page that did not get the answer sends the same again: that is no second verdict.
        if undoes is not None or (verdict, reason) != before:
            if verdict == "drop":
                additions, note = self._in_its_place(standing, row)
            if verdict == "more" and undoes is None:
                additions = self._finder.similar(standing, frame_id)
                note = None if additions else "no frame that may be chosen looks like it"
            if row["origin"] == "extra" and verdict in {"keep", "more"} and not row["in_batch"]:
                self._check_free(frame_id)
            self._journal.give(frame_id, self._reviewer, verdict, reason, undoes=undoes, additions=additions)
        now = self._journal.standing()
        in_place = None if verdict != "drop" or row["place"] is None else now.in_place(row["place"])
        like = [
            name
            for name, one in now.frames.items()
            if one["like_frame_id"] == frame_id and not one["dropped"]
        ]
        return {
            "version": now.version,
            "replacement": None if in_place is None else self._shown(now, [in_place])[0],
            "similar": self._shown(now, like) if verdict == "more" else None,
            "note": note,
        }

    def _in_its_place(
        self, standing: Standing, row: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Find a frame for the place of one that is being dropped, where none was found for it before; or why there is none."""
        others = [
            other
            for name, other in standing.frames.items()
            if other["place"] == row["place"] and name != row["frame_id"] and not other["dropped"]
        ]
        if others or row["origin"] == "extra":
            return [], None
        found, note = self._finder.replacement(standing, row["frame_id"])
        return ([], note) if found is None else ([found], note)

    def _check_free(self, frame_id: str) -> None:
        taken = self._finder.taken_elsewhere(frame_id)
        if taken is not None:
            raise UsageError(f"it cannot come into this batch any more: {taken}")

    def _complete(self, standing: Standing) -> None:
        """Make the cards of frames that have come since."""
        with self._lock:
            new = [name for name in standing.frames if name not in self._cards]
            if new:
                found = data.cards(self._store, self._config, self._batch.batch_id, new)
                self._cards.update((card["frame_id"], card) for card in found)

    def _shown(self, standing: Standing, names: list[str]) -> list[dict[str, Any]]:
        """Cards as they are now; another server may just have brought a frame."""
        self._complete(standing)
        return [
            {
                **self._cards[name],
                **{key: row[key] for key in ("rank", "arm", "slice", "reason", "origin", "replaces", "in_batch", "dropped")},
                "like": row["like_frame_id"],
                "image": f"image/{quote(name, safe='')}",
                "verdict": standing.verdicts.get(name, []),
            }
            for name in names
            for row in (standing.frames[name],)
        ]  # fmt: skip
