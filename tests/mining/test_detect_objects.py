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

    def __init__(self, name: str, events: list[str], **fails: int) -> None:
        self.name, self.events, self.fails = name, events, fails

    def begin(self, batch: Any) -> Any:
        number = int(batch.frames[0][0, 0, 0])
        self.note("begin", number)
        return SimpleNamespace(
            result=lambda: self.result(number),
            cancel=lambda: self.events.append(f"{self.name} cancel {number}"),
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


def test_also_where_it_ends_while_an_answer_is_waited_for() -> None:
    events: list[str] = []
    member: Any = Member("a", events)

    def stopped(number: int) -> Any:
        raise KeyboardInterrupt

    member.result = stopped
    with pytest.raises(KeyboardInterrupt):
        next(looked_at([batch(i) for i in range(3)], member))
    assert events == ["a begin 0", "a begin 1", "a cancel 0", "a cancel 1"]
