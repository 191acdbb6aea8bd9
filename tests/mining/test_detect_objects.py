"""Members are asked about the next batch before they answer for this one, and nothing goes on where the job ends."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mining import detect_objects
from mining.decode_ahead import FrameBatch
from mining.progress import Clock


class Member:
    """Notes what happens to it; the shade of a batch's frame is its number."""

    under_way = True

    def __init__(self, name: str, events: list[str], **fails: int) -> None:
        self.name, self.events, self.fails = name, events, fails

    def begin(self, batch: Any) -> Any:
        number = int(batch.frames[0][0, 0, 0])
        self.note("begin", number)
        return SimpleNamespace(
            result=lambda: self.result(number),
            cancel=lambda: self.events.append(f"{self.name} cancel {number}"),
            under_way=self.under_way,
        )

    def result(self, number: int) -> Any:
        self.note("result", number)
        return SimpleNamespace(number=number, forward_s=1.0, assemble_s=2.0)

    def note(self, what: str, number: int) -> None:
        self.events.append(f"{self.name} {what} {number}")
        if self.fails.get(what) == number:
            raise RuntimeError(f"no {what}\nsecond line")


def batch(number: int) -> FrameBatch:
    frame: Any = SimpleNamespace(frame=SimpleNamespace(rgb=np.full((4, 4, 3), number, np.uint8)))
    return FrameBatch([frame])


def looked_at(batches: list[FrameBatch], *members: Any) -> Any:
    return detect_objects._looked_at(iter(batches), members, Clock())


def test_the_next_batch_is_asked_for_first() -> None:
    events: list[str] = []
    batches = [batch(0), FrameBatch(), batch(1), batch(2)]
    found = list(looked_at(batches, Member("a", events), Member("b", events)))
    assert [one for one, _ in found] == batches
    assert [[one.number for one in seen] for _, seen in found] == [[0, 0], [], [1, 1], [2, 2]]
    assert events == [
        "a begin 0", "b begin 0", "a result 0", "b result 0", "a begin 1", "b begin 1", "a begin 2", "b begin 2",
        "a result 1", "b result 1", "a result 2", "b result 2",
    ]  # fmt: skip


def test_not_where_nothing_works_on_it_by_itself() -> None:
    events: list[str] = []
    member = Member("a", events)
    member.under_way = False
    assert [seen[0].number for _, seen in looked_at([batch(0), batch(1)], member)] == [0, 1]
    assert events == ["a begin 0", "a result 0", "a begin 1", "a result 1"]


def test_a_member_that_fails_early_or_late_does_not_cost_the_others_answers() -> None:
    members = Member("a", [], begin=1), Member("b", []), Member("c", [], result=0)
    (_, first), (_, second) = looked_at([batch(0), batch(1)], *members)
    assert (first[0].number, first[1].number, first[2]) == (0, 0, "c: RuntimeError: no result")
    assert (second[0], second[1].number, second[2].number) == ("a: RuntimeError: no begin", 1, 1)


def test_what_was_asked_is_let_go_where_the_job_ends() -> None:
    events: list[str] = []
    found = looked_at([batch(i) for i in range(3)], Member("a", events))
    with closing(found):
        next(found)
    assert "a cancel 1" in events
    assert "a begin 2" not in events


@pytest.mark.parametrize("where", ["begin", "result"])
def test_also_where_it_ends_while_a_member_is_asked_or_waited_for(where: str) -> None:
    events: list[str] = []

    def stopped(_of: Any) -> Any:
        raise KeyboardInterrupt

    first, second = Member("a", events), Member("b", events)
    setattr(second if where == "begin" else first, where, stopped)
    with pytest.raises(KeyboardInterrupt):
        next(looked_at([batch(i) for i in range(3)], first, second))
    begun = [event for event in events if "begin" in event]
    # What is being waited for lets go of itself.
    assert [event for event in events if "cancel" in event] == [
        event.replace("begin", "cancel") for event in begun if where == "begin" or event != "a begin 0"
    ]
    assert begun == (["a begin 0"] if where == "begin" else [f"{m} begin {n}" for n in (0, 1) for m in "ab"])
