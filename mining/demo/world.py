"""The demo's world: road users and fixtures of one drive, as arrays over its frames.

Road coordinates: ``s_m`` runs along the road, ``x_m`` to the right of its centre line, ``y_m`` up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.demo.scripts import Road, Script

F64 = NDArray[np.float64]

VIEW_M = 110.0
"""Road users farther away than this are not drawn; they would be lower than six pixels."""
CROSSING_S = 6.0
"""While the ego car waits at a red light: first others cross for so long, ..."""
STILL_S = 6.0
"""... then nothing at all moves for so long."""


@dataclass(frozen=True, slots=True)
class Actor:
    """One road user or obstacle; ``n`` is the number of frames of the drive."""

    kind: str
    """One of ``scripts.CLASSES``."""
    variant: int
    """Chooses shape and colour."""
    s_m: F64
    """[n]"""
    x_m: F64
    """[n]"""
    heading_rad: float
    """0 drives as the ego car does, clockwise."""
    moving: bool
    event: str | None = None
    event_id: str | None = None
    active: NDArray[np.bool_] | None = None
    """[n] frames in which it exists; None for all."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """Something beside the road that does not move."""

    kind: str
    """``building``, ``tree``, ``lamp``, ``pole``, ``sign`` or ``signal``."""
    s_m: float
    x_m: float
    variant: int
    length_m: float = 0.0
    height_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """The truth about one object in one frame."""

    kind: str
    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float
    visible_fraction: float
    """Share of its outline that is inside the image and not behind something else."""
    distance_m: float
    event: str | None
    event_id: str | None


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a camera can see during one drive of ``n`` frames."""

    script: Script
    road: Road
    seed: int
    time_s: F64
    """[n] the world's clock; it stands still at the red light, and so does everything else."""
    s_m: F64
    """[n] where the ego car is."""
    speed_mps: F64
    """[n]"""
    bend_per_m: F64
    """[n] curvature of the road ahead."""
    heading_rad: F64
    """[n]"""
    actors: tuple[Actor, ...]
    fixtures: tuple[Fixture, ...]
    junction_s_m: float | None = None

    @property
    def ego_x_m(self) -> float:
        """Where the ego car drives, across the road."""
        return self.road.lanes_x_m[self.road.ego_lane]

    def signal_colour(self, frame: int) -> str:
        """What the traffic light shows: red until the ego car drives off."""
        assert self.script.red_light_s is not None
        return "red" if self.time_s[frame] < self.script.red_light_s + CROSSING_S else "green"
