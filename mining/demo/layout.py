"""Lays out a world from (seed, script): the same seed gives the same drives, and all cameras of a drive one world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mining.demo.scripts import FRAME_RATE_HZ, ROADS, Road, Script
from mining.demo.world import CROSSING_S, STILL_S, VIEW_M, Actor, Fixture, World

F64 = NDArray[np.float64]


def build(script: Script, seed: int, seconds: float | None = None) -> World:
    """Lay out the world of one recording. ``seconds`` cuts it short; what is left is the same."""
    rng = np.random.default_rng([seed, script.world])
    road = ROADS[script.road]
    n = round(script.seconds * FRAME_RATE_HZ)
    clock = np.arange(n) / FRAME_RATE_HZ
    time = clock.copy()
    if script.red_light_s is not None:
        still = script.red_light_s + CROSSING_S
        time = np.where(clock < still, clock, np.maximum(still, clock - STILL_S))
        time = np.round(time, 6)
    speed = _speed(script, road, time, rng)
    speed[np.diff(time, prepend=-1.0) == 0] = 0.0
    s = np.concatenate([[0.0], np.cumsum(speed[:-1] * np.diff(time))])
    phase = rng.uniform(0, 2 * np.pi)
    bend = road.bend_per_m * np.sin(s / 260.0 + phase)
    heading = rng.uniform(0, 2 * np.pi) + np.concatenate(
        [[0.0], np.cumsum((bend * speed)[:-1] * np.diff(time))]
    )
    junction = None
    if script.red_light_s is not None:
        junction = float(np.interp(script.red_light_s, time, s)) + 6.0

    layout = _Layout(script, road, rng, time, s, speed, junction)
    layout.add_traffic()
    layout.add_people()
    layout.add_quiet()
    layout.add_events()
    layout.add_fixtures()
    keep = n if seconds is None else min(n, round(seconds * FRAME_RATE_HZ))
    return World(
        script, road, seed, time[:keep], s[:keep], speed[:keep], bend[:keep], heading[:keep],
        tuple(layout.actors), tuple(layout.fixtures), junction,
    )  # fmt: skip


def _speed(script: Script, road: Road, time: F64, rng: np.random.Generator) -> F64:
    """The ego car's speed: roughly constant, slower near events, zero at the red light."""
    speed = road.speed_mps * (1 + 0.06 * np.sin(time / 7.0 + rng.uniform(0, 6)))
    if script.weather in {"rain", "fog"}:
        speed *= 0.85
    for event, at in script.events:
        slow = 6.0 if event == "animal" else 11.0
        nearness = np.exp(-(((time - at + 1.0) / 3.2) ** 2))
        speed = speed * (1 - nearness) + np.minimum(speed, slow) * nearness
    if script.red_light_s is not None:
        stop, go = script.red_light_s, script.red_light_s + CROSSING_S
        brake = np.clip((stop - time) / 6.0, 0, 1)
        accelerate = np.clip((time - go) / 6.0, 0, 1)
        speed *= np.sqrt(np.where(time < (stop + go) / 2, brake, accelerate))
    return speed


@dataclass
class _Layout:
    """Places actors and fixtures, in a fixed order so that the draws of ``rng`` are reproducible."""

    script: Script
    road: Road
    rng: np.random.Generator
    time: F64
    s: F64
    speed: F64
    junction: float | None
    actors: list[Actor] = field(default_factory=list)
    fixtures: list[Fixture] = field(default_factory=list)

    def add(
        self, kind: str, s: F64, x: F64 | float, heading: float = 0.0, moving: bool = True, **more: object
    ) -> None:
        """Append an actor whose place across the road may be constant."""
        x = np.broadcast_to(np.asarray(x, np.float64), self.s.shape)
        self.actors.append(Actor(kind, int(self.rng.integers(1 << 16)), s, x, heading, moving, **more))  # type: ignore[arg-type]

    def vehicle(self) -> str:
        """Draw a class of vehicle as it is common on this road."""
        shares = {"city": (0.78, 0.10, 0.12), "rural": (0.80, 0.15, 0.05), "highway": (0.66, 0.27, 0.07)}
        return str(self.rng.choice(["car", "truck", "bus"], p=shares[self.script.road]))

    def meetings(self, per_second: float, least_s: float) -> list[float]:
        """Random times, at least ``least_s`` apart, at which something passes; none while the ego car waits."""
        times, t = [], self.rng.exponential(1 / per_second)
        end = float(self.time[-1]) + 8.0
        red = self.script.red_light_s
        while t < end:
            if red is None or not red - 4.0 < t < red + CROSSING_S + 3.0:
                times.append(t)
            t += least_s + self.rng.exponential(1 / per_second)
        return times

    def ego_s(self, t: float) -> float:
        """The ego car's place at a time, also after the end of the drive."""
        late = max(0.0, t - float(self.time[-1]))
        return float(np.interp(t, self.time, self.s)) + late * float(self.speed[-1])

    def add_traffic(self) -> None:
        """Oncoming vehicles, vehicles that overtake or are overtaken, a vehicle ahead, parked ones, cross traffic."""
        rng, road, rate = self.rng, self.road, self.script.traffic
        for lane_x in road.oncoming_x_m:
            oncoming = road.speed_mps * rng.uniform(0.85, 1.05)
            for t in self.meetings(rate / len(road.oncoming_x_m), 1.6 if road.name == "highway" else 2.2):
                self.add(
                    self.vehicle(),
                    self.ego_s(t) - oncoming * (self.time - t),
                    lane_x + rng.normal(0, 0.1),
                    np.pi,
                )
        for lane, lane_x in enumerate(road.lanes_x_m):
            if lane == road.ego_lane:
                continue
            faster = (6.0 if lane < road.ego_lane else -5.5) * rng.uniform(0.8, 1.2)
            for t in self.meetings(rate / 3, 22.0 / abs(faster)):
                kind = self.vehicle() if faster < 0 else "car"
                self.add(kind, self.s + faster * (self.time - t), lane_x + rng.normal(0, 0.12))
        t = rng.uniform(0, 6)
        while t < self.time[-1]:  # vehicles ahead, one after the other
            stay = rng.uniform(9, 18)
            near = rng.uniform(11, 30)
            phase = np.clip((self.time - t) / stay, 0, 1)
            gap = near + 120 * (2 * np.abs(phase - 0.5)) ** 3
            red = self.script.red_light_s
            if red is not None:  # the one ahead waits beyond the junction, or there is none
                gap = gap + 60 * np.exp(-(((self.time - red - 3) / 7.0) ** 4))
            active = (phase > 0) & (phase < 1)
            self.add(
                self.vehicle(),
                self.s + gap,
                road.lanes_x_m[road.ego_lane] + rng.normal(0, 0.1),
                active=active,
            )
            t += stay + rng.uniform(1, 10)
        t = rng.uniform(4, 12)
        while t < self.time[-1]:  # vehicles behind, for the rear camera
            stay = rng.uniform(9, 16)
            phase = np.clip((self.time - t) / stay, 0, 1)
            gap = rng.uniform(9, 16) + 90 * (2 * np.abs(phase - 0.5)) ** 3
            active = (phase > 0) & (phase < 1)
            self.add(
                self.vehicle(),
                self.s - gap,
                road.lanes_x_m[road.ego_lane] + rng.normal(0, 0.1),
                active=active,
            )
            t += stay + rng.uniform(2, 8)
        if road.name == "city":
            for side in (1, -1):
                s = -40.0
                while s < self.s[-1] + 150:
                    s += rng.uniform(5.6, 7.5) if rng.random() < 0.62 else rng.uniform(10, 40)
                    if self.junction is None or not self.junction - 16 < s < self.junction + 24:
                        kind = "car" if rng.random() < 0.94 else "truck"
                        if kind == "truck":
                            s += 5.0
                        heading = 0.0 if side > 0 else np.pi
                        self.add(kind, np.full_like(self.s, s), side * 4.75, heading, moving=False)
                        if kind == "truck":
                            s += 4.5
        if self.junction is not None and self.script.red_light_s is not None:
            for i in range(3):
                t = self.script.red_light_s + 0.4 + 1.7 * i + rng.uniform(0, 0.5)
                way = 1 if i % 2 else -1
                x = way * 9.0 * (self.time - t)
                s_cross = self.junction + 7.0 - 1.7 * way
                kind = ("car", "bus", "car")[i]
                self.add(kind, np.full_like(self.s, s_cross), x, np.pi / 2 * way, active=np.abs(x) < 34)

    def add_people(self) -> None:
        """Pedestrians on pavements and crossings, cyclists at the edge of the road."""
        rng, road = self.rng, self.road
        if road.name == "highway":
            return
        city = road.name == "city"
        edge = road.half_width_m
        for t in self.meetings(1.1 if city else 0.07, 0.3):
            way = rng.choice([-1.0, 1.0])
            side = rng.choice([-1.0, 1.0])
            walk = way * rng.uniform(0.9, 1.6)
            x = side * (edge + rng.uniform(0.7, 2.6) if city else edge + rng.uniform(0.4, 1.0))
            for _ in range(1 + int(rng.random() < 0.25)):
                s = self.ego_s(t) + walk * (self.time - t) + rng.normal(0, 0.5)
                self.add("pedestrian", s, x + rng.normal(0, 0.35), 0.0 if way > 0 else np.pi)
        for t in self.meetings(0.13 if city else 0.07, 2.0):
            ride = rng.uniform(4.0, 6.0)
            s0 = self.ego_s(t)
            if rng.random() < 0.65:
                x = 3.35 if city else 2.95
                self.add("cyclist", s0 + ride * (self.time - t), x + rng.normal(0, 0.15), 0.0)
            else:
                x = -3.4 if city else -2.9
                self.add("cyclist", s0 - ride * (self.time - t), x + rng.normal(0, 0.15), np.pi)
        if city:
            for t in self.meetings(0.09, 5.0):  # someone crosses well ahead of the ego car
                way = rng.choice([-1.0, 1.0])
                x = way * 1.5 * (self.time - t + rng.uniform(1.5, 3.5))
                s = self.ego_s(t) + rng.uniform(6, 14)
                self.add(
                    "pedestrian", np.full_like(self.s, s), x, np.pi / 2 * way, active=np.abs(x) < edge + 2.0
                )
        if self.junction is not None and self.script.red_light_s is not None:
            for i in range(4):
                way = 1.0 if i % 2 else -1.0
                x = way * (-7.5 + 1.9 * np.clip(self.time - self.script.red_light_s + 0.3 * i, 0, 99))
                s = np.full_like(self.s, self.junction - 2.6 + 0.6 * i)
                self.add("pedestrian", s, x, np.pi / 2 * way, active=np.abs(x) < 8.2)

    def add_quiet(self) -> None:
        """Take away all traffic that would show in the quiet stretch."""
        if self.script.quiet_s is None:
            return
        start, end = self.script.quiet_s
        frames = (self.time >= start) & (self.time < end)
        self.actors = [a for a in self.actors if not _shows(a, frames, self.s)]

    def add_events(self) -> None:
        """Plant the rare events; nothing else stands where they are."""
        rng, road = self.rng, self.road
        ego_x = road.lanes_x_m[road.ego_lane]
        for i, (event, at) in enumerate(self.script.events):
            event_id = f"{self.script.drive_id}/{event}-{i}"
            near = (self.time > at - 6) & (self.time < at + 3)
            self.actors = [a for a in self.actors if not self._in_the_way(a, near)]
            still = np.zeros_like(self.s)
            if event == "animal":
                way = float(rng.choice([-1.0, 1.0]))
                x = ego_x + way * np.clip((self.time - at + 1.4) * 2.6, -7.5, 11.0)
                s = self.ego_s(at) + 4.0 + still
                active = (self.time > at - 3.6) & (np.abs(x - ego_x) < 10.5)
                self.add("animal", s, x, np.pi / 2 * way, event=event, event_id=event_id, active=active)
            elif event == "lost_cargo":
                s0, active = self.ego_s(at), self.time < at + 0.6
                for k in range(3):
                    aside = 1.5 * (k - 0.3) + rng.normal(0, 0.2) if k else -0.5
                    s = s0 + still + 2.6 * k
                    self.add(
                        "lost_cargo",
                        s,
                        ego_x + aside,
                        rng.uniform(0, 3),
                        False,
                        event=event,
                        event_id=event_id,
                        active=active,
                    )
            else:
                x = ego_x + 2.1 + 0.25 * np.sin(self.time)
                s = self.ego_s(at) - 1.3 * (self.time - at)
                self.add("pedestrian", s, x, np.pi, event=event, event_id=event_id)

    def _in_the_way(self, actor: Actor, near: NDArray[np.bool_]) -> bool:
        same_way = abs(float(np.mean(actor.x_m)) - self.road.lanes_x_m[self.road.ego_lane]) < 4.0
        return same_way and actor.moving and _shows(actor, near, self.s, reach_m=60.0)

    def add_fixtures(self) -> None:
        """Houses, trees, street lights, poles and signs along the whole way."""
        rng, name, edge = self.rng, self.road.name, self.road.half_width_m
        end = float(self.s[-1]) + 220.0
        for side in (-1, 1):
            s = -180.0
            while s < end:
                if name == "city":
                    length = rng.uniform(9, 20)
                    inside = self.junction is not None and self.junction - length - 1 < s < self.junction + 14
                    if not inside and rng.random() < 0.88:
                        height = rng.uniform(6, 17)
                        x = side * (edge + 3.6 + rng.uniform(0, 2.5))
                        self.fixtures.append(
                            Fixture("building", s, x, int(rng.integers(1 << 16)), length, height)
                        )
                    s += length + (0.0 if rng.random() < 0.7 else rng.uniform(2, 8))
                else:
                    x = side * (edge + rng.uniform(3.5, 30) ** 1.0)
                    height = rng.uniform(4.5, 12)
                    self.fixtures.append(Fixture("tree", s, x, int(rng.integers(1 << 16)), 0, height))
                    s += rng.uniform(1.5, 12) if np.sin(s / 90 + side) > -0.3 else rng.uniform(15, 60)
            spacing = {"city": 28.0, "rural": 42.0, "highway": 45.0}[name]
            for s_post in np.arange(-170.0 + (14 if side > 0 else 0), end, spacing):
                if name == "city":
                    self.fixtures.append(Fixture("lamp", float(s_post), side * (edge + 0.5), 0, 0, 7.5))
                    if rng.random() < 0.6:
                        tree_s = float(s_post) + rng.uniform(8, 20)
                        if self.junction is None or not self.junction - 6 < tree_s < self.junction + 20:
                            variant = int(rng.integers(1 << 16))
                            self.fixtures.append(
                                Fixture("tree", tree_s, side * (edge + 0.8), variant, 0, rng.uniform(4, 7))
                            )
                elif name == "rural" and side > 0:
                    self.fixtures.append(Fixture("pole", float(s_post), edge + 4.5, 0, 0, 7.0))
                elif side > 0 and rng.random() < 0.35:
                    self.fixtures.append(
                        Fixture("sign", float(s_post), edge + 1.6, int(rng.integers(8)), 0, 4.6)
                    )
                if name == "rural" and rng.random() < 0.2:
                    self.fixtures.append(
                        Fixture("sign", float(s_post) + 9, side * (edge + 0.9), int(rng.integers(8)), 0, 2.6)
                    )
        if self.junction is not None:
            self.fixtures.append(Fixture("signal", self.junction - 1.0, edge + 0.4, 0, 0, 3.6))
            self.fixtures.append(Fixture("signal", self.junction + 15.0, -edge - 0.4, 0, 0, 3.6))


def _shows(actor: Actor, frames: NDArray[np.bool_], ego_s: F64, reach_m: float = VIEW_M) -> bool:
    """Whether the actor is within reach of the cameras in any of the frames."""
    ahead = actor.s_m - ego_s
    seen = frames & (np.abs(ahead) < reach_m)
    if actor.active is not None:
        seen &= actor.active
    return bool(seen.any())
