"""Draws all that stands on or beside the road, far to near, and measures what of it stays visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining.demo import shapes
from mining.demo.canvas import NEAR_M, Canvas, as_bytes, fixed_point
from mining.demo.light import Light
from mining.demo.roadside import Roadside
from mining.demo.scenery import lerp
from mining.demo.scripts import HEIGHT_PX, WIDTH_PX
from mining.demo.world import Actor, Box, Fixture, World

F64 = NDArray[np.float64]

SMALLEST_PX = 6.0
"""Objects lower than this in the image are drawn but not labelled, as labelers are told to do."""
LEAST_VISIBLE = 0.05
"""Nor are those of which less than this share can be seen."""
GLOW = {shapes.HEAD: np.array([255.0, 244.0, 216.0]), shapes.TAIL: np.array([255.0, 26.0, 14.0])}
_VEHICLES = {"car", "truck", "bus", "lost_cargo"}


class Painter:
    """Paints objects and fixtures of one recording onto its frames."""

    def __init__(self, world: World, light: Light, rng: np.random.Generator) -> None:
        self.world = world
        self.light = light
        self.roadside = Roadside(world, light, rng)
        self.glow = self.roadside.glow

    def draw(
        self,
        canvas: Canvas,
        index: int,
        actors: list[tuple[Actor, float, float]],
        fixtures: list[tuple[Fixture, float, float]],
    ) -> list[Box]:
        """Paint from far to near; actors and fixtures come with x and z relative to the ego car, metres."""
        rail_x = self.world.road.half_width_m + 0.7 if self.world.road.name == "highway" else None
        order: list[tuple[int, float, int, int]] = []
        for i, (fixture, x, z) in enumerate(fixtures):
            middle = z + fixture.length_m / 2
            depth = canvas.depth_of(x, middle)
            order.append((0 if fixture.kind == "building" else 2 if rail_x is None else 1, -depth, 0, i))
        for i, (actor, x, z) in enumerate(actors):
            depth = canvas.depth_of(x, z)
            behind_houses = abs(float(actor.x_m[index])) > self.world.road.half_width_m + 4.5
            oncoming_side = rail_x is not None and float(actor.x_m[index]) < 0
            order.append((-1 if behind_houses else 1 if oncoming_side else 2, -depth, 1, i))
        order.sort()

        owners: dict[int, _Painted] = {}
        rails_due = rail_x is not None
        for layer, minus_depth, is_actor, i in order:
            if rails_due and layer == 2:
                self.roadside.rails(canvas, index)
                rails_due = False
            if is_actor:
                owner = len(owners) + 1
                if owner > 255:
                    break
                actor, x, z = actors[i]
                outline = self._actor(canvas, index, actor, x, z, owner)
                if outline is not None:
                    (left, top), (right, bottom) = outline.min(0), outline.max(0)
                    painted = _Painted(
                        actor, float(left), float(top), float(right), float(bottom), -minus_depth
                    )
                    painted.pixels = painted.count(canvas, owner)
                    owners[owner] = painted
            else:
                self.roadside.draw(canvas, index, *fixtures[i])
        if rails_due:
            self.roadside.rails(canvas, index)
        return [box for owner, painted in owners.items() if (box := painted.box(canvas, owner)) is not None]

    def lights(self, canvas: Canvas, actor: Actor, x: float, z: float) -> list[tuple[F64, int]]:
        """Camera points of the lit lamps of a vehicle that face the camera, and which kind they are."""
        if not self.light.look.lights_on or actor.kind not in _VEHICLES - {"lost_cargo"} or not actor.moving:
            return []
        mesh = shapes.vehicle(actor.kind, actor.variant)
        places = np.array([light[:3] for light in mesh.lights])
        ways = np.stack([np.zeros(len(places)), np.zeros(len(places)), np.sign(places[:, 2])], -1)
        seen = canvas.to_camera(turn(places, actor.heading_rad) + np.array([x, 0.0, z]))
        facing = (
            canvas.to_camera(turn(ways, actor.heading_rad)) * (seen - [0, canvas.camera.height_m, 0])
        ).sum(1) < 0
        return [
            (p, light[3]) for p, f, light in zip(seen, facing, mesh.lights, strict=True) if f and p[2] > 1.5
        ]

    def _actor(self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int) -> F64 | None:
        """Paint one; returns all its outline's pixels, [n, 2], or None where nothing of it is before the camera."""
        if actor.kind in _VEHICLES:
            return self._vehicle(canvas, index, actor, x, z, owner)
        return self._creature(canvas, index, actor, x, z, owner)

    def _vehicle(
        self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int
    ) -> F64 | None:
        mesh = shapes.vehicle(actor.kind, actor.variant)
        place = np.array([x, 0.0, z])
        corners = canvas.to_camera(turn(mesh.corners, actor.heading_rad) + place)
        if corners[:, 2].max() < NEAR_M + 0.2:
            return None
        normals = turn(mesh.normals, actor.heading_rad)
        centres = canvas.to_camera(turn(mesh.centres, actor.heading_rad) + place)
        eye = np.array([0.0, canvas.camera.height_m, 0.0])
        facing = (canvas.to_camera(normals) * (centres - eye)).sum(1) < 0
        distance = float(np.hypot(x, z))
        light = self.light.at(x, 0.8, z, float(actor.s_m[index]))
        colours = self.light.faces(mesh.paints, normals, light, distance)
        if self.light.look.lights_on and actor.moving:
            for kind, colour in ((shapes.HEAD, (255, 252, 238)), (shapes.TAIL, (255, 56, 40))):
                colours[mesh.materials == kind] = lerp(
                    colour, tuple(self.light.haze), self.light.air(distance) * 0.8
                )
        paints = np.rint(colours.clip(0, 255)).astype(int).tolist()
        size_px = canvas.camera.focal_px * 1.5 / max(1.0, distance)
        order = [
            f for f in np.lexsort((-centres[:, 2], mesh.layer)) if facing[f] and size_px > 7 * mesh.layer[f]
        ]
        outlines: dict[int, F64] = {}
        if corners[:, 2].min() >= NEAR_M:
            pixels = canvas.to_pixels(corners)
            points = fixed_point(pixels)
            polygons = {f: points[mesh.faces[f]] for f in order}
            outlines = {f: pixels[mesh.faces[f]] for f in order if mesh.layer[f] == 0}
        else:
            cut = {f: canvas.polygon(corners[mesh.faces[f]]) for f in order}
            polygons = {f: fixed_point(p) for f, p in cut.items() if len(p)}
            outlines = {f: cut[f] for f in polygons if mesh.layer[f] == 0}
        if not outlines:
            return None
        for f in outlines:  # under the smooth edges, so that the road does not shine through the seams
            canvas.fill_points(polygons[f], paints[f], owner, hard=True)
        tint = self._sky_tint(distance)
        for f, corner_points in polygons.items():
            canvas.fill_points(corner_points, paints[f])
            if mesh.materials[f] == shapes.GLASS and size_px > 16 and len(corner_points) == 4:
                canvas.fill_points(_upper_half(corner_points), as_bytes(lerp(tuple(colours[f]), tint, 0.22)))
        for point, kind in self.lights(canvas, actor, x, z):
            self._lamp_glow(canvas, point, kind)
        return np.concatenate(list(outlines.values()))

    def _sky_tint(self, distance: float) -> tuple[float, float, float]:
        sky = np.asarray(self.light.look.sky_horizon) * (0.3 if self.light.look.dark else 0.9)
        r, g, b = lerp(tuple(sky), tuple(self.light.haze), self.light.air(distance))
        return float(r), float(g), float(b)

    def _lamp_glow(self, canvas: Canvas, point: F64, kind: int) -> None:
        u, v = canvas.to_pixels(point)
        head, dark = kind == shapes.HEAD, self.light.look.dark
        distance = float(np.hypot(point[0], point[2]))
        strength = (1.0 if dark else 0.45) * (1 - self.light.air(distance)) ** 0.6
        reach_m, most = (1.1, 46.0) if head else (0.55, 26.0)
        foggy = 1.6 if self.light.look.haze_m < 200 else 1.0
        radius = float(np.clip(foggy * reach_m * canvas.camera.focal_px / distance, 3.0, most)) * (
            1.0 if dark else 0.6
        )
        canvas.add_light(self.glow, u, v, radius, radius, GLOW[kind] * strength)

    def _creature(
        self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int
    ) -> F64 | None:
        place = np.array([x, 0.0, z])
        walked = float(actor.s_m[index]) if abs(np.sin(actor.heading_rad)) < 0.5 else float(actor.x_m[index])
        limbs = shapes.limbs(actor.kind, actor.variant, walked)
        ends = np.array([[limb.start, limb.end] for limb in limbs], np.float64)
        radii = np.array([[limb.start_radius, limb.end_radius] for limb in limbs])
        seen = canvas.to_camera(turn(ends, actor.heading_rad) + place)
        if seen[..., 2].min() < NEAR_M + 0.3:
            return None
        pixels, scale = canvas.to_pixels(seen), canvas.camera.focal_px / seen[..., 2]
        sizes = np.maximum(radii * scale, 0.45)
        outlines = canvas.rods(pixels[:, 0], pixels[:, 1], sizes[:, 0], sizes[:, 1])
        distance = float(np.hypot(x, z))
        light = self.light.at(x, 0.8, z, float(actor.s_m[index]))
        colours = np.array([limb.colour for limb in limbs]) * (light + 0.5 * self.light.look.sun)
        air = self.light.air(distance)
        body, shade = (
            np.rint((c + (self.light.haze - c) * air).clip(0, 255)).astype(int).tolist()
            for c in (colours, 0.8 * colours)
        )
        points = fixed_point(outlines)
        close = np.ptp(outlines[..., 1]) > 34
        if close:  # lit from above left
            inner = fixed_point(canvas.rods(pixels[:, 0] - 0.22 * sizes[:, :1], pixels[:, 1] - 0.22 * sizes[:, 1:],
                                            sizes[:, 0] * 0.66, sizes[:, 1] * 0.66))  # fmt: skip
        for i in np.argsort(-seen[..., 2].mean(1), kind="stable"):
            canvas.fill_points(points[i], shade[i] if close else body[i], owner)
            if close:
                canvas.fill_points(inner[i], body[i])
        if actor.kind == "animal" and self.light.beam:  # eyes shine in head lights
            eyes = canvas.to_pixels(
                canvas.to_camera(turn(np.array([[0.0, 1.58, 0.98]]), actor.heading_rad) + place)
            )
            canvas.add_light(self.glow, eyes[0, 0], eyes[0, 1], 3.0, 3.0, (190, 220, 170))
        return outlines.reshape(-1, 2)


def turn(points: F64, heading_rad: float) -> F64:
    """Object axes -> road axes: turn clockwise seen from above."""
    c, n = np.cos(heading_rad), np.sin(heading_rad)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([c * x + n * z, y, -n * x + c * z], axis=-1)


def _upper_half(pane: NDArray[np.int32]) -> NDArray[np.int32]:
    """The upper half of a four-cornered pane, [4, 2] fixed-point: where it mirrors the sky."""
    order = np.argsort(pane[:, 1], kind="stable")
    top, bottom = pane[np.sort(order[:2])], pane[np.sort(order[2:])]
    straight, crossed = np.abs(top - bottom)[:, 0].sum(), np.abs(top - bottom[::-1])[:, 0].sum()
    if straight > crossed:
        bottom = bottom[::-1]
    middle = top + (bottom - top) * 45 // 100
    return np.concatenate([top, middle[::-1]])


@dataclass(slots=True)
class _Painted:
    """An actor that has been painted, and the rectangle around its outline in pixels, in the image or beyond."""

    actor: Actor
    left: float
    top: float
    right: float
    bottom: float
    depth_m: float
    pixels: int = 0
    """How many pixels were its own before anything was painted over it."""

    def count(self, canvas: Canvas, owner: int) -> int:
        """How many pixels are its own now."""
        rows = slice(max(0, int(self.top) - 1), max(0, int(self.bottom) + 2))
        columns = slice(max(0, int(self.left) - 1), max(0, int(self.right) + 2))
        return int(np.count_nonzero(canvas.mask[rows, columns] == owner))

    def box(self, canvas: Canvas, owner: int) -> Box | None:
        """The truth about it; None where it is too small or hidden."""
        left, right = max(0.0, self.left), min(float(WIDTH_PX), self.right)
        top, bottom = max(0.0, self.top), min(float(HEIGHT_PX), self.bottom)
        if bottom - top < SMALLEST_PX or right - left < 2 or self.pixels == 0:
            return None
        # Right beside the camera an outline has no end: count half a frame beyond the image.
        whole_w = min(1.5 * WIDTH_PX, self.right) - max(-0.5 * WIDTH_PX, self.left)
        whole_h = min(1.5 * HEIGHT_PX, self.bottom) - max(-0.5 * HEIGHT_PX, self.top)
        in_image = (right - left) * (bottom - top) / (whole_w * whole_h)
        visible = in_image * self.count(canvas, owner) / self.pixels
        if visible < LEAST_VISIBLE:
            return None
        actor = self.actor
        return Box(actor.kind, left, top, right, bottom, visible, self.depth_m, actor.event, actor.event_id)
