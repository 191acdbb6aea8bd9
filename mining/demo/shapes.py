"""What road users look like: vehicles as faces of convex pieces, people and animals as limbs.

Coordinates are the object's own, in metres: x right, y up, z forward, the origin on the ground below its centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Colour = tuple[float, float, float]
"""Red, green, blue, 0..255, as lit by full daylight."""

BODY, DARK, GLASS, BLACK, METAL, HEAD, TAIL, PLATE, PALE = range(9)
_PAINTS: tuple[Colour, ...] = (
    (196, 198, 201), (225, 226, 224), (40, 42, 46), (96, 100, 106), (150, 28, 30), (32, 62, 124),
    (120, 124, 120), (60, 66, 74), (168, 160, 140), (28, 84, 72), (205, 205, 208), (182, 92, 30),
)  # fmt: skip
_TRUCK_PAINTS: tuple[Colour, ...] = (
    (214, 214, 208), (232, 232, 230), (60, 96, 160), (180, 50, 42), (210, 176, 60), (90, 120, 92), (120, 124, 130),
)  # fmt: skip
_BUS_PAINTS: tuple[Colour, ...] = (
    (208, 60, 44),
    (228, 226, 214),
    (52, 110, 90),
    (230, 178, 40),
    (70, 110, 170),
)
_FIXED: dict[int, Colour] = {
    GLASS: (46, 58, 68), BLACK: (24, 25, 27), METAL: (132, 134, 138), HEAD: (236, 236, 226), TAIL: (168, 22, 20),
    PLATE: (222, 222, 206), PALE: (206, 206, 198),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mesh:
    """A vehicle of ``v`` corners and ``f`` faces; all faces have four to fourteen corners."""

    corners: F64
    """[v, 3]"""
    faces: tuple[NDArray[np.intp], ...]
    """[f] indices into ``corners``."""
    normals: F64
    """[f, 3] unit, outward."""
    centres: F64
    """[f, 3]"""
    materials: NDArray[np.intp]
    """[f]"""
    layer: NDArray[np.intp]
    """[f] 0 for hull faces, 1 and 2 for what lies on them; drawn in this order."""
    paints: F64
    """[f, 3] colours by full daylight."""
    lights: tuple[tuple[float, float, float, int], ...]
    """x, y, z, and HEAD or TAIL."""


class _Builder:
    """Collects faces; outward is away from the middle of the piece that a face belongs to."""

    def __init__(self) -> None:
        self.corners: list[tuple[float, float, float]] = []
        self.faces: list[NDArray[np.intp]] = []
        self.normals: list[F64] = []
        self.centres: list[F64] = []
        self.materials: list[int] = []
        self.layer: list[int] = []
        self.lights: list[tuple[float, float, float, int]] = []

    def face(
        self, points: list[tuple[float, float, float]], material: int, middle: F64, layer: int = 0
    ) -> None:
        array = np.asarray(points, np.float64)
        normal = np.cross(array[1] - array[0], array[2] - array[1])
        normal /= np.linalg.norm(normal) + 1e-9
        if normal @ (array.mean(0) - middle) < 0:
            normal = -normal
        self.faces.append(np.arange(len(self.corners), len(self.corners) + len(points)))
        self.corners.extend(points)
        self.normals.append(normal)
        self.centres.append(array.mean(0))
        self.materials.append(material)
        self.layer.append(layer)

    def prism(
        self, profile: list[tuple[float, float]], half_width: Callable[[float], float], material: int
    ) -> F64:
        """Extrude a convex side view, given as (z, y), to both sides; returns the middle of the piece."""
        side = np.asarray(profile)
        middle = np.array([0.0, side[:, 1].mean(), side[:, 0].mean()])
        for sign in (-1, 1):
            self.face([(sign * half_width(y), y, z) for z, y in profile], material, middle)
        for (z0, y0), (z1, y1) in zip(profile, profile[1:] + profile[:1], strict=True):
            w0, w1 = half_width(y0), half_width(y1)
            self.face([(-w0, y0, z0), (w0, y0, z0), (w1, y1, z1), (-w1, y1, z1)], material, middle)
        return middle

    def across(
        self, x0: float, x1: float, y0: float, y1: float, z: float, material: int, layer: int = 1
    ) -> None:
        """A rectangle that faces forward (z > 0) or backward."""
        middle = np.array([0.0, (y0 + y1) / 2, 0.0])
        self.face([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], material, middle, layer)

    def sides(
        self, z0: float, z1: float, y0: float, y1: float, x: float, material: int, layer: int = 1
    ) -> None:
        """The same rectangle on the left and the right side."""
        for sign in (-1, 1):
            points = [(sign * x, y0, z0), (sign * x, y0, z1), (sign * x, y1, z1), (sign * x, y1, z0)]
            self.face(points, material, np.array([0.0, y0, z0]), layer)

    def wheels(self, zs: tuple[float, ...], radius: float, x: float) -> None:
        angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        for z in zs:
            for share, material, layer in ((1.0, BLACK, 1), (0.58, METAL, 2)):
                for sign in (-1, 1):
                    r = radius * share
                    points = [(sign * x, radius + r * np.sin(a), z + r * np.cos(a)) for a in angle]
                    self.face(points, material, np.array([0.0, radius, z]), layer)

    def lamps(self, x: float, y: float, z: float, size: float, wide: float) -> None:
        """Head lights in front, tail lights behind, at both sides."""
        for sign in (-1, 1):
            for end, kind in ((1, HEAD), (-1, TAIL)):
                inner, outer = sorted((sign * (x - wide), sign * x))
                self.across(inner, outer, y, y + size, end * z, kind, 2)
                self.lights.append((sign * (x - wide / 2), y + size / 2, end * z, kind))

    def build(self, colour: Colour) -> Mesh:
        dark = tuple(0.45 * c for c in colour)
        paints = _FIXED | {BODY: colour, DARK: dark}
        return Mesh(
            np.asarray(self.corners), tuple(self.faces), np.asarray(self.normals), np.asarray(self.centres),
            np.asarray(self.materials), np.asarray(self.layer), np.array([paints[m] for m in self.materials]), tuple(self.lights),
        )  # fmt: skip


@cache
def vehicle(kind: str, variant: int) -> Mesh:
    """The mesh of a car, truck, bus, or piece of lost cargo."""
    rng = np.random.default_rng([variant, 1])
    return {"car": _car, "truck": _truck, "bus": _bus, "lost_cargo": _cargo}[kind](rng)


def _car(rng: np.random.Generator) -> Mesh:
    b = _Builder()
    style = rng.choice(["sedan", "hatch", "suv"])
    length = {"sedan": 4.6, "hatch": 4.0, "suv": 4.6}[style] * rng.uniform(0.96, 1.05)
    w, end = 0.9 * rng.uniform(0.97, 1.04), length / 2
    belt, roof = (1.08, 1.72) if style == "suv" else (0.94, 1.46)
    hood = belt - 0.07
    b.prism([(-end, 0.34), (-end, belt - 0.18), (-end + 0.12, belt), (end - 1.1, belt), (end - 0.1, hood - 0.16),
             (end, 0.62), (end, 0.34)], lambda y: w * (1.0 if y < 0.75 else 0.985), BODY)  # fmt: skip
    back = {"sedan": (0.55, 1.15), "hatch": (0.12, 0.5), "suv": (0.05, 0.28)}[style]
    front = (end - 1.15, end - 1.95)
    z0, z1, z2, z3 = -end + back[0], -end + back[1], front[1], front[0]

    def cabin(y: float) -> float:
        return w * (0.93 - 0.2 * (y - belt) / (roof - belt))

    middle = b.prism([(z0, belt), (z1, roof), (z2, roof), (z3, belt)], cabin, BODY)
    low, high = belt + 0.06, roof - 0.09

    def slant(y: float, at_belt: float, at_roof: float) -> float:
        return at_belt + (at_roof - at_belt) * (y - belt) / (roof - belt)

    pillar = (z1 + z2) / 2 - 0.1
    for sign in (-1, 1):
        for a0, a1, c0, c1 in (
            (z0, z1, pillar - 0.05, pillar - 0.05),
            (pillar + 0.05, pillar + 0.05, z3, z2),
        ):
            pane = [(low, slant(low, a0, a1) + 0.1), (low, slant(low, c0, c1) - 0.1),
                    (high, slant(high, c0, c1) - 0.08), (high, slant(high, a0, a1) + 0.08)]  # fmt: skip
            b.face([(sign * (cabin(y) + 0.005), y, z) for y, z in pane], GLASS, middle, 1)
    for at_belt, at_roof in ((z0, z1), (z3, z2)):
        pane3 = [
            (s * (cabin(y) - 0.09), y, slant(y, at_belt, at_roof))
            for s, y in ((-1, low), (1, low), (1, high), (-1, high))
        ]
        b.face(pane3, GLASS, middle, 1)
    b.sides(-end + 0.35, end - 0.35, 0.34, 0.5, w + 0.003, DARK)
    b.wheels((-0.3 * length, 0.3 * length), 0.33, w + 0.01)
    b.across(-w, w, 0.34, 0.52, -end - 0.01, DARK)
    b.across(-w, w, 0.34, 0.46, end + 0.01, DARK)
    b.across(-0.5 * w, 0.5 * w, 0.47, 0.61, end + 0.01, BLACK)
    b.across(-0.27, 0.27, 0.56, 0.67, -end - 0.02, PLATE, 2)
    b.lamps(0.96 * w, belt - 0.34, end + 0.01, 0.15, 0.36)
    return b.build(_PAINTS[rng.integers(len(_PAINTS))])


def _truck(rng: np.random.Generator) -> Mesh:
    b = _Builder()
    long = rng.random() < 0.6
    length, height, w = (rng.uniform(10, 13), 3.9, 1.26) if long else (rng.uniform(6.2, 7.2), 3.1, 1.12)
    end, cab = length / 2, 2.1
    roof = height - (0.7 if long else 0.5)
    b.prism([(-end, 0.55), (-end, 1.0), (end - cab, 1.0), (end - cab, 0.55)], lambda _: w * 0.9, BLACK)
    box = [(-end, 1.0), (-end, height), (end - cab - 0.25, height), (end - cab - 0.25, 1.0)]
    b.prism(box, lambda _: w, PALE if rng.random() < 0.5 else BODY)
    middle = b.prism(
        [(end - cab, 0.45), (end - cab, roof), (end - 0.35, roof), (end, 1.7), (end, 0.45)],
        lambda _: w * 0.97,
        BODY,
    )
    windscreen = [
        (s * 0.86 * w, y, end - 0.35 * (y - 1.7) / (roof - 1.7))
        for s, y in ((-1, 1.75), (1, 1.75), (1, roof - 0.2), (-1, roof - 0.2))
    ]
    b.face(windscreen, GLASS, middle, 1)
    b.sides(end - cab + 0.45, end - 0.5, 1.75, roof - 0.25, 0.98 * w, GLASS)
    b.across(-0.7 * w, 0.7 * w, 0.8, 1.35, end + 0.01, BLACK)
    b.across(-0.02, 0.02, 1.05, height - 0.1, -end - 0.01, BLACK)
    for x in (-0.5, 0.5):
        b.across(x * w - 0.02, x * w + 0.02, 1.1, height - 0.2, -end - 0.01, METAL)
    b.across(-w, w, 0.98, 1.1, -end - 0.01, DARK)
    b.across(-w, w, height - 0.14, height, -end - 0.01, METAL)
    b.across(-w * 0.9, w * 0.9, 0.5, 0.62, -end - 0.01, METAL)
    b.sides(-end + 0.3, end - cab - 0.6, 2.1, 2.6, w + 0.004, BODY)
    zs = (-end + 1.2, -end + 2.4, end - 1.1) if long else (-end + 1.3, end - 1.0)
    b.wheels(zs, 0.5, w + 0.01)
    b.lamps(0.95 * w, 0.68, end + 0.015, 0.2, 0.34)
    return b.build(_TRUCK_PAINTS[rng.integers(len(_TRUCK_PAINTS))])


def _bus(rng: np.random.Generator) -> Mesh:
    b = _Builder()
    length, height, w = rng.uniform(10.8, 12.2), 3.15, 1.27
    end = length / 2
    b.prism([(-end, 0.35), (-end, height), (end - 0.25, height), (end, 1.3), (end, 0.35)], lambda _: w, BODY)
    middle = np.array([0.0, 1.6, 0.0])
    pane = (length - 1.0) / 7
    for i in range(7):
        z = -end + 0.5 + i * pane
        b.sides(z + 0.06, z + pane - 0.06, 1.45, 2.6, w + 0.004, GLASS)
    b.sides(-end + 0.2, end - 0.2, 0.35, 0.62, w + 0.004, DARK)
    b.sides(-end + 0.2, end - 0.2, 1.1, 1.28, w + 0.004, PALE)
    b.face([(s * 0.93 * w, y, end - 0.25 * max(0.0, y - 1.3) / (height - 1.3) + 0.01)
            for s, y in ((-1, 1.1), (1, 1.1), (1, 2.6), (-1, 2.6))], GLASS, middle, 1)  # fmt: skip
    b.across(-0.7 * w, 0.7 * w, 2.72, 3.02, end - 0.2, BLACK)
    b.across(-0.85 * w, 0.85 * w, 1.7, 2.6, -end - 0.01, GLASS)
    b.across(-0.55 * w, 0.55 * w, 0.7, 1.3, -end - 0.01, DARK)
    b.across(-0.3, 0.3, 0.48, 0.6, -end - 0.01, PLATE)
    b.wheels((-end + 2.6, end - 2.5), 0.5, w + 0.01)
    b.lamps(0.96 * w, 0.72, end + 0.02, 0.22, 0.34)
    return b.build(_BUS_PAINTS[rng.integers(len(_BUS_PAINTS))])


def _cargo(rng: np.random.Generator) -> Mesh:
    """A crate, a mattress or a bale that fell from a truck."""
    b = _Builder()
    w, h, d = ((0.55, 0.85, 0.5), (0.95, 0.32, 0.95), (0.6, 0.6, 0.65))[rng.integers(3)]
    tilt = rng.uniform(0, 0.12)
    b.prism([(-d, 0.0), (-d, h), (d, h + tilt), (d, tilt)], lambda _: w, BODY)
    b.sides(-d * 0.9, d * 0.9, h * 0.42, h * 0.55, w + 0.004, DARK)
    for z in (-d - 0.01, d + 0.01):
        b.across(-w, w, h * 0.42, h * 0.55, z, DARK)
        b.across(-0.06, 0.06, 0.02, h, z, PALE)
    colours: tuple[Colour, ...] = ((158, 118, 72), (196, 188, 172), (122, 96, 60))
    return b.build(colours[rng.integers(3)])


@dataclass(frozen=True, slots=True)
class Limb:
    """A tapered rod between two points, or a ball where both are the same."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    start_radius: float
    end_radius: float
    colour: Colour


_SKIN: tuple[Colour, ...] = ((214, 170, 140), (150, 106, 78), (96, 66, 50), (226, 190, 164))
_CLOTHES: tuple[Colour, ...] = (
    (52, 60, 84), (30, 32, 36), (120, 40, 44), (74, 92, 74), (150, 140, 120), (190, 186, 180), (42, 84, 120),
    (176, 130, 52), (96, 92, 96),
)  # fmt: skip


def limbs(kind: str, variant: int, walked_m: float) -> list[Limb]:
    """A pedestrian, cyclist or animal that has come so far; the way sets the phase of its legs."""
    rng = np.random.default_rng([variant, 2])
    return {"pedestrian": _pedestrian, "cyclist": _cyclist, "animal": _deer}[kind](rng, walked_m)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[rng.integers(len(colours))]


def _pedestrian(rng: np.random.Generator, walked_m: float) -> list[Limb]:
    k = rng.uniform(0.86, 1.06)
    skin, top, trousers = _pick(rng, _SKIN), _pick(rng, _CLOTHES), _pick(rng, _CLOTHES)
    hair: Colour = (48, 38, 30)
    swing = 0.26 * np.sin(walked_m * 4.2)
    parts = []
    for side in (-1, 1):
        foot, knee = side * swing, side * swing * 0.7
        x = 0.09 * side * k
        parts.append(Limb((x, 0.86 * k, 0), (x, 0.46 * k, knee), 0.095, 0.075, trousers))
        parts.append(Limb((x, 0.46 * k, knee), (x, 0.07, foot - 0.05), 0.075, 0.055, trousers))
        parts.append(Limb((x, 0.05, foot - 0.07), (x, 0.045, foot + 0.14), 0.05, 0.045, (34, 30, 28)))
    far = Limb((-0.23 * k, 1.38 * k, 0), (-0.27 * k, 0.86 * k, swing), 0.065, 0.05, top)
    near = Limb((0.23 * k, 1.38 * k, 0), (0.27 * k, 0.86 * k, -swing), 0.065, 0.05, top)
    parts += [far, Limb((0, 0.9 * k, 0), (0, 1.36 * k, 0), 0.17, 0.2, top), near]
    if rng.random() < 0.35:  # a rucksack or a bag
        parts.append(Limb((0, 1.0 * k, -0.2), (0, 1.3 * k, -0.2), 0.14, 0.14, _pick(rng, _CLOTHES)))
    parts.append(Limb((0, 1.45 * k, 0), (0, 1.55 * k, 0.02), 0.06, 0.06, skin))
    parts.append(Limb((0, 1.6 * k, 0.02), (0, 1.66 * k, 0.02), 0.105, 0.1, skin))
    parts.append(Limb((0, 1.68 * k, -0.02), (0, 1.71 * k, -0.01), 0.105, 0.09, hair))
    return parts


def _cyclist(rng: np.random.Generator, walked_m: float) -> list[Limb]:
    skin, top, trousers = _pick(rng, _SKIN), _pick(rng, _CLOTHES), _pick(rng, _CLOTHES)
    tyre: Colour = (26, 26, 28)
    frame = _pick(rng, _PAINTS)
    parts = []
    angle = np.linspace(0, 2 * np.pi, 11)
    for hub in (-0.52, 0.52):
        rim = [(0.0, 0.34 + 0.32 * float(np.sin(a)), hub + 0.32 * float(np.cos(a))) for a in angle]
        parts += [Limb(p, q, 0.028, 0.028, tyre) for p, q in pairwise(rim)]
    seat, crank, head = (0.0, 0.95, -0.22), (0.0, 0.34, -0.02), (0.0, 0.9, 0.36)
    for p, q in (
        (seat, crank),
        (crank, head),
        (seat, head),
        (crank, (0, 0.34, -0.52)),
        (head, (0, 0.34, 0.52)),
    ):
        parts.append(Limb(p, q, 0.024, 0.024, frame))
    parts.append(Limb((-0.26, 1.02, 0.38), (0.26, 1.02, 0.38), 0.02, 0.02, tyre))
    turn = walked_m * 1.6
    for side in (-1, 1):
        a = turn + (np.pi if side > 0 else 0.0)
        foot = (0.11 * side, 0.34 + 0.17 * float(np.cos(a)), -0.02 + 0.17 * float(np.sin(a)))
        knee = (0.11 * side, 0.5 * (foot[1] + 0.98) + 0.04, 0.5 * (foot[2] - 0.2) + 0.2)
        parts += [
            Limb((0.1 * side, 0.98, -0.2), knee, 0.095, 0.07, trousers),
            Limb(knee, foot, 0.07, 0.05, trousers),
        ]
        parts.append(Limb((0.2 * side, 1.42, 0.1), (0.24 * side, 1.05, 0.38), 0.06, 0.045, top))
    parts.append(Limb((0, 1.0, -0.2), (0, 1.42, 0.1), 0.17, 0.18, top))
    parts.append(Limb((0, 1.58, 0.2), (0, 1.66, 0.21), 0.1, 0.1, skin))
    helmet: Colour = (200, 200, 196) if rng.random() < 0.6 else (40, 36, 30)
    parts.append(Limb((0, 1.7, 0.14), (0, 1.71, 0.25), 0.1, 0.1, helmet))
    return parts


def _deer(rng: np.random.Generator, walked_m: float) -> list[Limb]:
    coat: Colour = (128, 92, 58)
    under: Colour = (160, 130, 98)
    dark: Colour = (74, 54, 38)
    k = rng.uniform(0.95, 1.12)
    parts = []
    for i, (x, z) in enumerate(((-0.13, 0.45), (0.13, 0.48), (-0.13, -0.5), (0.13, -0.47))):
        swing = 0.22 * float(np.sin(walked_m * 3.0 + i * 2.1))
        parts.append(Limb((x, 0.85 * k, z), (x, 0.45 * k, z + 0.5 * swing), 0.085, 0.045, coat))
        parts.append(Limb((x, 0.45 * k, z + 0.5 * swing), (x, 0.03, z + swing), 0.04, 0.028, dark))
    parts.append(Limb((0, 0.98 * k, -0.5), (0, 1.0 * k, 0.5), 0.25, 0.24, coat))
    parts.append(Limb((0, 0.84 * k, -0.4), (0, 0.86 * k, 0.4), 0.15, 0.15, under))
    parts.append(Limb((0, 1.06 * k, -0.7), (0, 0.92 * k, -0.78), 0.07, 0.04, (226, 218, 204)))
    parts.append(Limb((0, 1.08 * k, 0.55), (0, 1.5 * k, 0.85), 0.15, 0.09, coat))
    parts.append(Limb((0, 1.55 * k, 0.88), (0, 1.46 * k, 1.12), 0.095, 0.05, coat))
    for side in (-1, 1):
        parts.append(Limb((0.07 * side, 1.62 * k, 0.84), (0.2 * side, 1.72 * k, 0.8), 0.045, 0.02, under))
        parts.append(Limb((0.05 * side, 1.64 * k, 0.88), (0.2 * side, 1.98 * k, 0.82), 0.022, 0.014, dark))
        parts.append(Limb((0.14 * side, 1.85 * k, 0.84), (0.18 * side, 2.02 * k, 1.0), 0.016, 0.012, dark))
    return parts


def footprint(kind: str, variant: int) -> tuple[float, float, float]:
    """Half width, half length and height of an object, metres."""
    if kind in {"car", "truck", "bus", "lost_cargo"}:
        corners = vehicle(kind, variant).corners
        return float(corners[:, 0].max()), float(corners[:, 2].max()), float(corners[:, 1].max())
    return {"pedestrian": (0.22, 0.22, 1.75), "cyclist": (0.25, 0.8, 1.75), "animal": (0.3, 0.75, 1.3)}[kind]
