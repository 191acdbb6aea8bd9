"""The demo's pictures and their truth: boxes lie on objects, and everything that was promised is there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mining.demo.layout import build
from mining.demo.render import Renderer
from mining.demo.scripts import CLASSES, EVENTS, SCRIPTS, plan
from mining.demo.truth import RARE_HEIGHT_PX, RARE_VISIBLE
from mining.demo.world import Actor, Box, World

SEED = 7


@cache
def renderer(number: int) -> Renderer:
    return Renderer(build(SCRIPTS[number], SEED))


def number_of(**wanted: str) -> int:
    return next(
        i for i, s in enumerate(SCRIPTS) if all(getattr(s, key) == value for key, value in wanted.items())
    )


def changed(number: int, index: int) -> tuple[np.ndarray, list[Box]]:
    """How much each pixel changes when all that is labelled is left out, and the boxes."""
    with_actors, boxes = renderer(number).frame(index)
    without, none = renderer(number).frame(index, actors=False)
    assert none == []
    return np.abs(with_actors.astype(int) - without).max(axis=2), boxes


@pytest.mark.parametrize("index", [60, 150, 290])
def test_boxes_lie_on_objects_and_objects_in_boxes(index: int) -> None:
    difference, boxes = changed(number_of(camera="left"), index)
    assert boxes
    covered = np.zeros(difference.shape, bool)
    for box in boxes:
        rows, columns = slice(int(box.y1_px), int(box.y2_px) + 2), slice(int(box.x1_px), int(box.x2_px) + 2)
        covered[rows, columns] = True
        if box.visible_fraction > 0.6:
            inside = difference[rows, columns] > 24
            assert inside.mean() > 0.3, box
        if box.visible_fraction > 0.97:
            # A tight box: something of the object touches the outer tenth at each of its four sides.
            inside = difference[rows, columns] > 6
            h, w = inside.shape
            for edge in (
                inside[: 2 + h // 10],
                inside[-2 - h // 10 :],
                inside[:, : 2 + w // 10],
                inside[:, -2 - w // 10 :],
            ):
                assert edge.any(), box
    strongly = difference > 60
    assert strongly.sum() > 500
    assert (strongly & covered).sum() > 0.97 * strongly.sum()


def _two(world: World, near_x: float) -> World:
    """A bus right ahead at 30 m, and a truck before it at 12 m, so far to the side."""
    n = len(world.s_m)

    def still(kind: str, ahead: float, x: float) -> Actor:
        return Actor(kind, 3, world.s_m + ahead, np.full(n, world.ego_x_m + x), 0.0, True)

    return replace(world, actors=(still("bus", 30.0, 0.0), still("truck", 14.0, near_x)))


def test_visible_fraction_is_what_the_pixels_say() -> None:
    world = build(SCRIPTS[number_of(weather="rain", time_of_day="day")], SEED)
    paint = Renderer(world)

    def bus_boxes(near_x: float | None) -> list[Box]:
        both = _two(world, near_x or 0.0)
        paint.painter.world = paint.world = (
            both if near_x is not None else replace(both, actors=both.actors[:1])
        )
        return [box for box in paint.frame(100)[1] if box.kind == "bus"]

    assert [box.visible_fraction for box in bus_boxes(None)] == [pytest.approx(1.0, abs=0.01)]
    assert [box.visible_fraction for box in bus_boxes(6.0)] == [pytest.approx(1.0, abs=0.01)]
    assert bus_boxes(0.0) == [], "wholly hidden"
    (half,) = bus_boxes(1.2)
    # The truck's left side is at 1.2 m - its half width; the share of the bus to the left of it, seen from the camera.
    truck_half = 1.26 if half.visible_fraction < 0.5 else 1.12
    left_of_truck = (1.2 - truck_half) * (30.0 - 5.75) / (14.0 - 6.0)
    assert half.visible_fraction == pytest.approx((left_of_truck + 1.27) / 2.54, abs=0.2)
    assert 0.2 < half.visible_fraction < 0.8


def test_nothing_moves_at_the_red_light_and_the_pictures_are_identical() -> None:
    number = next(i for i, s in enumerate(SCRIPTS) if s.red_light_s is not None)
    world = renderer(number).world
    still = np.flatnonzero(np.diff(world.time_s) == 0)
    assert len(still) >= 40
    assert np.all(world.speed_mps[still] == 0)
    first, boxes = renderer(number).frame(int(still[0]))
    later, later_boxes = renderer(number).frame(int(still[-1]))
    assert np.array_equal(first, later)
    assert boxes == later_boxes
    moving, _ = renderer(number).frame(int(still[0]) - 15)
    assert not np.array_equal(first, moving)


def test_quiet_stretches_are_empty_and_busy_ones_are_not() -> None:
    quiet = [i for i, s in enumerate(SCRIPTS) if s.quiet_s]
    assert len(quiet) >= 2
    for number in quiet:
        start, end = SCRIPTS[number].quiet_s
        for second in np.linspace(start + 0.1, end - 0.1, 4):
            assert renderer(number).frame(int(second * 10))[1] == []
    assert all(renderer(0).frame(index)[1] for index in (30, 120, 250))


def test_every_promised_condition_is_there() -> None:
    assert len({s.vehicle_id for s in SCRIPTS}) >= 3
    assert {s.camera for s in SCRIPTS} == {"front", "rear", "left"}
    assert {(s.weather, s.time_of_day) for s in SCRIPTS} >= {
        ("clear", "day"), ("clear", "night"), ("clear", "dusk"), ("rain", "day"), ("rain", "night"), ("fog", "day"),
    }  # fmt: skip
    assert len({s.stem for s in plan(40)}) == 40
    assert len({s.started_at.date() for s in plan(40)}) == 1


def test_night_is_dark_and_fog_is_pale() -> None:
    luma = {}
    for name, number in {
        "day": 0,
        "night": number_of(time_of_day="night", road="highway"),
        "dusk": number_of(time_of_day="dusk"),
        "fog": number_of(weather="fog"),
    }.items():
        image, _ = renderer(number).frame(80)
        luma[name] = (image.mean(), image[162:172].std())
    assert luma["night"][0] < 45 < luma["dusk"][0] < luma["day"][0]
    assert luma["fog"][0] > luma["night"][0] + 60
    assert luma["fog"][1] < luma["day"][1], "far away, fog leaves little contrast"


def test_every_class_and_event_is_labelled_and_events_are_rare() -> None:
    seen: set[str] = set()
    rare_frames, all_frames = 0, 0
    events: set[str] = set()
    step = 5
    for number, script in enumerate(SCRIPTS):
        all_frames += len(renderer(number).world.s_m)
        samples = set(range(20, 400, 60)) if script.road == "city" else {50}
        for _, at in script.events:
            samples |= set(range(int(at * 10) - 80, int(at * 10) + 20, step))
        for index in sorted(samples):
            boxes = renderer(number).frame(index)[1]
            seen |= {box.kind for box in boxes}
            rare = [b for b in boxes if b.event and b.visible_fraction >= RARE_VISIBLE]
            rare = [b for b in rare if b.y2_px - b.y1_px >= RARE_HEIGHT_PX]
            events |= {b.event for b in rare if b.event}
            rare_frames += step * bool(rare)
    assert seen == set(CLASSES)
    assert events == set(EVENTS)
    assert 0.025 < rare_frames / all_frames < 0.065
