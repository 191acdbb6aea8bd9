"""What the demo's recordings show: cameras, roads, and one script a recording."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

FRAME_RATE_HZ = 10
WIDTH_PX, HEIGHT_PX = 640, 384
CLASSES = ("car", "truck", "bus", "pedestrian", "cyclist", "animal", "lost_cargo")
EVENTS = ("animal", "lost_cargo", "pedestrian_on_highway")


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera on the car, level, over a flat road."""

    name: str
    yaw_rad: float
    """Clockwise from the direction of travel."""
    focal_px: float
    horizon_px: float = 158.0
    height_m: float = 1.45


CAMERAS = {
    "front": Camera("front", 0.0, 430.0),
    "rear": Camera("rear", np.pi, 400.0),
    "left": Camera("left", -np.pi / 3, 330.0),
}


@dataclass(frozen=True, slots=True)
class Road:
    """Cross-section of a road; the ego car and all traffic keep to these places."""

    name: str
    lane_m: float
    lanes_x_m: tuple[float, ...]
    """Centres of the lanes in the direction of travel, from the left."""
    ego_lane: int
    oncoming_x_m: tuple[float, ...]
    half_width_m: float
    """Centre line to the edge of the asphalt."""
    speed_mps: float
    bend_per_m: float
    """Largest curvature, 1/m."""


ROADS = {
    "city": Road("city", 3.4, (1.7,), 0, (-1.7,), 5.9, 10.0, 0.0),
    "rural": Road("rural", 3.4, (1.7,), 0, (-1.7,), 3.8, 17.0, 0.0028),
    "highway": Road("highway", 3.6, (3.3, 6.9, 10.5), 1, (-3.3, -6.9, -10.5), 14.2, 27.0, 0.0008),
}


@dataclass(frozen=True, slots=True)
class Script:
    """What one recording of the demo shows. Times are seconds from its first frame."""

    drive_id: str
    vehicle_id: str
    camera: str
    road: str
    city: str
    weather: str
    time_of_day: str
    started_at: datetime
    seconds: float
    traffic: float
    """Vehicles that meet the ego car per second, roughly."""
    world: int
    """Recordings with the same number are cameras of one and the same world."""
    events: tuple[tuple[str, float], ...] = ()
    """(event, when the ego car is next to it)."""
    red_light_s: float | None = None
    """When the ego car has come to a stop at a red light."""
    quiet_s: tuple[float, float] | None = None
    """A stretch in which nothing is on the road."""
    latitude_deg: float = 0.0
    longitude_deg: float = 0.0

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.drive_id}_{self.camera}"


def _at(hour: int, minute: int) -> datetime:
    return datetime(2026, 3, 14, hour, minute, tzinfo=UTC)


# One night of the fleet (UTC). America drives by day while Europe drives by night.
SCRIPTS = (
    Script(
        drive_id="v1-seattle-1830",
        vehicle_id="vehicle-1",
        camera="front",
        road="city",
        city="seattle",
        weather="clear",
        time_of_day="day",
        started_at=_at(18, 30),
        seconds=46,
        traffic=0.55,
        world=0,
        red_light_s=21,
        latitude_deg=47.61,
        longitude_deg=-122.33,
    ),
    Script(
        drive_id="v2-hamburg-2110",
        vehicle_id="vehicle-2",
        camera="front",
        road="highway",
        city="hamburg",
        weather="clear",
        time_of_day="night",
        started_at=_at(21, 10),
        seconds=44,
        traffic=0.3,
        world=1,
        events=(("pedestrian_on_highway", 34.0),),
        quiet_s=(6, 16),
        latitude_deg=53.55,
        longitude_deg=9.99,
    ),
    Script(
        drive_id="v3-graz-1735",
        vehicle_id="vehicle-3",
        camera="front",
        road="rural",
        city="graz",
        weather="clear",
        time_of_day="dusk",
        started_at=_at(17, 35),
        seconds=42,
        traffic=0.3,
        world=2,
        events=(("animal", 27.0),),
        quiet_s=(31, 40),
        latitude_deg=47.07,
        longitude_deg=15.44,
    ),
    Script(
        drive_id="v4-denver-1905",
        vehicle_id="vehicle-4",
        camera="front",
        road="highway",
        city="denver",
        weather="rain",
        time_of_day="day",
        started_at=_at(19, 5),
        seconds=42,
        traffic=0.6,
        world=3,
        events=(("lost_cargo", 31.0),),
        latitude_deg=39.74,
        longitude_deg=-104.99,
    ),
    Script(
        drive_id="v1-seattle-1830",
        vehicle_id="vehicle-1",
        camera="rear",
        road="city",
        city="seattle",
        weather="clear",
        time_of_day="day",
        started_at=_at(18, 30),
        seconds=46,
        traffic=0.55,
        world=0,
        red_light_s=21,
        latitude_deg=47.61,
        longitude_deg=-122.33,
    ),
    Script(
        drive_id="v3-graz-1620",
        vehicle_id="vehicle-3",
        camera="front",
        road="rural",
        city="graz",
        weather="fog",
        time_of_day="day",
        started_at=_at(16, 20),
        seconds=42,
        traffic=0.35,
        world=4,
        events=(("animal", 21.0),),
        quiet_s=(27, 38),
        latitude_deg=47.1,
        longitude_deg=15.4,
    ),
    Script(
        drive_id="v2-hamburg-2015",
        vehicle_id="vehicle-2",
        camera="front",
        road="city",
        city="hamburg",
        weather="rain",
        time_of_day="night",
        started_at=_at(20, 15),
        seconds=40,
        traffic=0.55,
        world=5,
        events=(("lost_cargo", 31.0),),
        latitude_deg=53.56,
        longitude_deg=10.01,
    ),
    Script(
        drive_id="v4-denver-1720",
        vehicle_id="vehicle-4",
        camera="left",
        road="city",
        city="denver",
        weather="overcast",
        time_of_day="day",
        started_at=_at(17, 20),
        seconds=40,
        traffic=0.6,
        world=6,
        latitude_deg=39.75,
        longitude_deg=-104.98,
    ),
)


def plan(drives: int) -> list[Script]:
    """The recordings of a demo; past the eighth the scripts repeat, with other vehicles and in new worlds."""
    scripts = []
    for i in range(drives):
        script, lap = SCRIPTS[i % len(SCRIPTS)], i // len(SCRIPTS)
        if lap:
            script = replace(
                script,
                drive_id=f"{script.drive_id}-{lap}",
                vehicle_id=f"{script.vehicle_id}-{lap}",
                started_at=script.started_at + timedelta(minutes=7 * (lap % 15)),
                world=script.world + 100 * lap,
            )
        scripts.append(script)
    return scripts
