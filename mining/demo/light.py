"""How bright it is at a place, and how much air lies before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mining.demo.scenery import look_for
from mining.demo.world import World

F64 = NDArray[np.float64]
LAMP_SPACING_M = 28.0
LAMP_START_M = -170.0
BEAM_TINT = np.array([1.0, 0.97, 0.88])
LAMP_TINT = np.array([1.0, 0.79, 0.51])


class Light:
    """The light of one recording, as its camera sees it."""

    def __init__(self, world: World) -> None:
        self.look = look_for(world.script)
        self.ambient = np.asarray(self.look.ambient, np.float64)
        self.haze = np.asarray(self.look.haze, np.float64)
        self.sun = np.array([0.55, 0.7, -0.45]) / np.linalg.norm([0.55, 0.7, -0.45])
        self.beam = self.look.dark and world.script.camera == "front"
        """Whether the camera looks where the ego car's head lights shine."""
        self.lamps = self.look.dark and world.road.name == "city"

    def air(self, distance_m: float) -> float:
        """Share of the haze's colour in what is seen at a distance."""
        return float(1.0 - np.exp(-max(0.0, distance_m) / self.look.haze_m))

    def at(self, x: float, y: float, z: float, s: float) -> F64:
        """[3] light on something upright at a place relative to the ego car; ``s`` is its place along the road."""
        light = self.ambient.copy()
        if self.beam and z > 0:
            beam = 1.4 * np.exp(-((x / (1.4 + 0.26 * z)) ** 2)) / (1 + (z / 30.0) ** 2)
            light += beam * (0.7 if y > 1.2 else 1.0) * BEAM_TINT
        if self.lamps:
            off = (s - LAMP_START_M) % LAMP_SPACING_M
            off = min(off, LAMP_SPACING_M - off)
            light += 0.26 * np.exp(-((off / 9.0) ** 2)) * LAMP_TINT
        return light

    def faces(self, colours: F64, normals: F64, light: F64, distance_m: float) -> F64:
        """[n, 3] colours of faces with these normals (road axes) under this light, seen through the air."""
        sky = 0.86 + 0.14 * normals[:, 1]
        direct = self.look.sun * np.maximum(0.0, normals @ self.sun)
        lit = colours * (light * sky[:, None] + direct[:, None])
        return lit + (self.haze - lit) * self.air(distance_m)
