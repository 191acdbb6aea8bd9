"""Draws all that stands on or beside the road, far to near, and measures what of it stays visible."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo import scenery, shapes
from mining.demo.canvas import NEAR_M, Canvas, as_bytes, fixed_point
from mining.demo.light import Light
from mining.demo.scenery import lerp, to_image
from mining.demo.world import HEIGHT_PX, WIDTH_PX, Actor, Box, Fixture, World

F64 = NDArray[np.float64]

SMALLEST_PX = 6.0
"""Objects lower than this in the image are drawn but not labelled, as labelers are told to do."""
LEAST_VISIBLE = 0.05
"""Nor are those of which less than this share can be seen."""
FAR_M = 150.0
"""Houses, trees and posts are drawn as far as this."""
GLOW = {shapes.HEAD: np.array([255.0, 244.0, 216.0]), shapes.TAIL: np.array([255.0, 26.0, 14.0])}
_SIGNAL_COLOURS = {"red": (255, 44, 30), "green": (60, 255, 130)}
_VEHICLES = {"car", "truck", "bus", "lost_cargo"}


class Painter:
    """Paints objects and fixtures of one recording onto its frames."""

    def __init__(self, world: World, light: Light, rng: np.random.Generator) -> None:
        self.world = world
        self.light = light
        self.facades = scenery.facades(rng, light.look)
        self.trees = scenery.trees(rng, light.look)
        self.glow = scenery.glow_sprite()

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

        owners: dict[int, tuple[Actor, F64, int, float]] = {}
        rails_due = rail_x is not None
        for layer, minus_depth, is_actor, i in order:
            if rails_due and layer == 2:
                self._rails(canvas, index)
                rails_due = False
            if is_actor:
                owner = len(owners) + 1
                if owner > 255:
                    break
                actor, x, z = actors[i]
                outline = self._actor(canvas, index, actor, x, z, owner)
                if outline is not None:
                    painted = int(np.count_nonzero(_cut(canvas, outline) == owner))
                    owners[owner] = (actor, outline, painted, -minus_depth)
            else:
                self._fixture(canvas, index, *fixtures[i])
        if rails_due:
            self._rails(canvas, index)
        return [box for owner, found in owners.items() if (box := _box(canvas, owner, *found)) is not None]

    def lights(self, canvas: Canvas, actor: Actor, x: float, z: float) -> list[tuple[F64, int]]:
        """Camera points of the lit lamps of a vehicle that face the camera, and which kind they are."""
        if not self.light.look.lights_on or actor.kind not in _VEHICLES - {"lost_cargo"} or not actor.moving:
            return []
        mesh = shapes.vehicle(actor.kind, actor.variant)
        places = np.array([light[:3] for light in mesh.lights])
        ways = np.stack([np.zeros(len(places)), np.zeros(len(places)), np.sign(places[:, 2])], -1)
        seen = canvas.to_camera(_turn(places, actor.heading_rad) + [x, 0.0, z])
        facing = (canvas.to_camera(_turn(ways, actor.heading_rad)) * (seen - [0, canvas.camera.height_m, 0])).sum(1) < 0
        return [(p, light[3]) for p, f, light in zip(seen, facing, mesh.lights, strict=True) if f and p[2] > 1.5]

    # ---- road users ----

    def _actor(self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int) -> F64 | None:
        """Paint one; returns all its outline's pixels, [n, 2], or None where nothing of it is before the camera."""
        if actor.kind in _VEHICLES:
            return self._vehicle(canvas, index, actor, x, z, owner)
        return self._creature(canvas, index, actor, x, z, owner)

    def _vehicle(self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int) -> F64 | None:
        mesh = shapes.vehicle(actor.kind, actor.variant)
        place = np.array([x, 0.0, z])
        corners = canvas.to_camera(_turn(mesh.corners, actor.heading_rad) + place)
        if corners[:, 2].max() < NEAR_M + 0.2:
            return None
        normals = _turn(mesh.normals, actor.heading_rad)
        centres = canvas.to_camera(_turn(mesh.centres, actor.heading_rad) + place)
        eye = np.array([0.0, canvas.camera.height_m, 0.0])
        facing = (canvas.to_camera(normals) * (centres - eye)).sum(1) < 0
        distance = float(np.hypot(x, z))
        light = self.light.at(x, 0.8, z, float(actor.s_m[index]))
        colours = self.light.faces(mesh.paints, normals, light, distance)
        if self.light.look.lights_on and actor.moving:
            for kind, colour in ((shapes.HEAD, (255, 252, 238)), (shapes.TAIL, (255, 56, 40))):
                colours[mesh.materials == kind] = lerp(colour, tuple(self.light.haze), self.light.air(distance) * 0.8)
        paints = np.rint(colours.clip(0, 255)).astype(int).tolist()
        size_px = canvas.camera.focal_px * 1.5 / max(1.0, distance)
        order = [f for f in np.lexsort((-centres[:, 2], mesh.layer)) if facing[f] and size_px > 7 * mesh.layer[f]]
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
        radius = float(np.clip(foggy * reach_m * canvas.camera.focal_px / distance, 3.0, most)) * (1.0 if dark else 0.6)
        canvas.add_light(self.glow, u, v, radius, radius, GLOW[kind] * strength)

    def _creature(self, canvas: Canvas, index: int, actor: Actor, x: float, z: float, owner: int) -> F64 | None:
        walked = float(actor.s_m[index]) if abs(np.sin(actor.heading_rad)) < 0.5 else float(actor.x_m[index])
        limbs = shapes.limbs(actor.kind, actor.variant, walked)
        ends = np.array([[limb.start, limb.end] for limb in limbs], np.float64)
        radii = np.array([[limb.start_radius, limb.end_radius] for limb in limbs])
        seen = canvas.to_camera(_turn(ends, actor.heading_rad) + [x, 0.0, z])
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
            np.rint((c + (self.light.haze - c) * air).clip(0, 255)).astype(int).tolist() for c in (colours, 0.8 * colours)
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
            eyes = canvas.to_pixels(canvas.to_camera(_turn(np.array([[0.0, 1.58, 0.98]]), actor.heading_rad) + [x, 0.0, z]))
            canvas.add_light(self.glow, eyes[0, 0], eyes[0, 1], 3.0, 3.0, (190, 220, 170))
        return outlines.reshape(-1, 2)

    # ---- what does not move ----

    def _fixture(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        depth = canvas.depth_of(x, z)
        if fixture.kind == "building":
            self._building(canvas, fixture, x, z)
        elif fixture.kind == "tree":
            if 2.5 < depth < FAR_M:
                self._tree(canvas, fixture, x, z, depth)
        elif 1.5 < depth < FAR_M:
            {"lamp": self._lamp, "pole": self._pole, "sign": self._sign, "signal": self._signal}[fixture.kind](
                canvas, index, fixture, x, z
            )

    def _plain(self, colour: tuple[float, float, float], x: float, z: float, s: float, y: float = 1.0) -> F64:
        lit = colour * (self.light.at(x, y, z, s) + 0.6 * self.light.look.sun)
        return lit + (self.light.haze - lit) * self.light.air(float(np.hypot(x, z)))

    def _building(self, canvas: Canvas, fixture: Fixture, x: float, z: float) -> None:
        """A textured front along the road, and the wall towards the camera."""
        length, height = fixture.length_m, fixture.height_m
        base = canvas.to_camera(np.array([[x, 0.0, z], [x, 0.0, z + length]]))
        if base[:, 2].max() < 1.0 or base[:, 2].min() > FAR_M:
            return
        share = np.array([0.0, 1.0])
        for i in (0, 1):
            if base[i, 2] < 1.0:
                share[i] = (1.0 - base[0, 2]) / (base[1, 2] - base[0, 2])
        ends = base[0] + share[:, None] * (base[1] - base[0])
        low = canvas.to_pixels(ends)
        high = canvas.to_pixels(ends + np.array([0.0, height, 0.0]))
        if max(low[:, 0].max(), high[:, 0].max()) < 0 or min(low[:, 0].min(), high[:, 0].min()) > WIDTH_PX:
            return
        wall_z = z if z > 0 else z + length
        corner = canvas.to_camera(np.array([[x, 0, wall_z], [x + np.sign(x) * 9, 0, wall_z]]))
        if corner[:, 2].min() > 1.0:
            quad = np.array([corner[0], corner[1], corner[1] + [0, height, 0], corner[0] + [0, height, 0]])
            rng = np.random.default_rng(fixture.variant)
            wall = np.array([118.0, 108.0, 98.0]) * rng.uniform(0.7, 1.1)
            colour = wall * (self.light.ambient + 0.2 * self.light.look.sun)
            colour = colour + (self.light.haze - colour) * self.light.air(float(corner[0, 2]))
            canvas.fill(canvas.to_pixels(quad), colour, 0)
        sizes = self.facades[fixture.variant % len(self.facades)]
        width_px, height_px = abs(low[1, 0] - low[0, 0]), max(low[0, 1] - high[0, 1], low[1, 1] - high[1, 1])
        level = 0 if max(width_px, height_px / 2) > 120 else 1 if width_px > 40 else 2
        texture = sizes[level]
        far = self.light.air(float(np.hypot(x, z + length / 2)))
        if far > 0.02:
            texture = to_image(lerp(texture.astype(np.float32), tuple(self.light.haze), far))
        n = texture.shape[0] - 1
        source = np.array([[share[0] * n, n], [share[1] * n, n], [share[1] * n, 0], [share[0] * n, 0]], np.float32)
        target = np.array([low[0], low[1], high[1], high[0]], np.float32)
        left, top = np.floor(np.maximum(target.min(0), 0)).astype(int)
        right, bottom = np.ceil(np.minimum(target.max(0), [WIDTH_PX, HEIGHT_PX])).astype(int)
        if right - left < 1 or bottom - top < 1 or width_px < 0.7:
            return
        matrix = cv2.getPerspectiveTransform(source, target - np.array([left, top], np.float32))
        region = np.ascontiguousarray(canvas.image[top:bottom, left:right])
        cv2.warpPerspective(texture, matrix, (int(right - left), int(bottom - top)), dst=region,
                            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)  # fmt: skip
        canvas.image[top:bottom, left:right] = region
        cv2.fillConvexPoly(canvas.mask, fixed_point(target.astype(np.float64)), 0, cv2.LINE_8, 4)

    def _tree(self, canvas: Canvas, fixture: Fixture, x: float, z: float, depth: float) -> None:
        light, cover = self.trees[fixture.variant % len(self.trees)]
        u, v = canvas.pixel_of(x, 0.0, z)
        h = round(fixture.height_m * canvas.camera.focal_px / depth)
        w = round(h * light.shape[1] / light.shape[0])
        if self.light.look.dark and (self.light.beam or self.light.lamps):
            gain = float(self.light.at(x, 2.0, z, fixture.s_m)[1] / max(1e-3, self.light.ambient[1]))
            light = cv2.multiply(light, (min(gain, 7.0),) * 4)  # type: ignore[assignment]
        if h > 3:
            canvas.paste(light, cover, u, v, max(2, w), h, self.light.look.haze, self.light.air(float(np.hypot(x, z))))

    def _lamp(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        colour = self._plain((98, 102, 104), x, z, fixture.s_m)
        canvas.post(x, z, 0.0, fixture.height_m, 0.16, colour)
        reach = x - np.sign(fixture.x_m) * 1.7
        top = fixture.height_m
        arm = canvas.to_camera(np.array([[x, top, z], [reach, top + 0.25, z]]))
        canvas.line(arm, colour, 1 if arm[0, 2] > 22 else 2)
        if self.light.look.dark and arm[1, 2] > 1.5:
            u, v = canvas.to_pixels(arm[1])
            radius = float(np.clip(2.6 * canvas.camera.focal_px / arm[1, 2], 4, 60))
            canvas.add_light(self.glow, u, v, radius, radius, np.array([255, 196, 120]) * (1 - self.light.air(float(arm[1, 2]))))

    def _pole(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        colour = self._plain((84, 70, 56), x, z, fixture.s_m)
        canvas.post(x, z, 0.0, fixture.height_m, 0.26, colour)
        bar = canvas.to_camera(np.array([[x - 0.8, 6.5, z], [x + 0.8, 6.5, z]]))
        canvas.line(bar, colour, 1 if bar[0, 2] > 25 else 2)
        along = np.linspace(0, 42.0, 9)
        bend = 0.5 * self.world.bend_per_m[index]
        drift = bend * (np.clip(z + along, -150, 150) ** 2 - z**2)
        for off in (-0.7, 0.0, 0.7):
            sag = 6.5 - 0.9 * (1 - (2 * along / 42.0 - 1) ** 2)
            wire = canvas.to_camera(np.stack([x + off + drift, sag, z + along], -1))
            for a in (0, 3, 6):
                canvas.line(wire[a : a + 4] if a < 6 else wire[a:], self._plain((52, 48, 46), x, z + along[a + 1], fixture.s_m))

    def _sign(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        canvas.post(x, z, 0.0, fixture.height_m, 0.09, self._plain((120, 122, 124), x, z, fixture.s_m))
        if z < 0 and canvas.camera.name != "rear":
            return
        shine = 1.5 if self.light.beam else 1.0  # signs reflect
        big = fixture.height_m > 4
        centre = fixture.height_m - (0.9 if big else 0.3)
        style = fixture.variant
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        if big:
            outline = np.array([[-1.5, -0.9], [1.5, -0.9], [1.5, 0.9], [-1.5, 0.9]])
            colours, inner = ((30, 84, 168), (30, 120, 70))[style % 2], (226, 228, 230)
        elif style % 3 == 0:
            outline = 0.38 * np.stack([np.cos(angle), np.sin(angle)], -1)
            colours, inner = (186, 30, 34), (232, 232, 226)
        elif style % 3 == 1:
            outline = np.array([[-0.42, -0.34], [0.42, -0.34], [0.0, 0.42]])
            colours, inner = (186, 30, 34), (236, 226, 190)
        else:
            outline = np.array([[-0.36, -0.36], [0.36, -0.36], [0.36, 0.36], [-0.36, 0.36]])
            colours, inner = (34, 80, 170), (224, 228, 234)
        if canvas.camera.name == "rear":
            colours = inner = (122, 124, 126)

        def panel(scale_x: float, scale_y: float, lift: float) -> F64:
            flat = np.stack([x + outline[:, 0] * scale_x, centre + lift + outline[:, 1] * scale_y, np.full(len(outline), z)], -1)
            return canvas.polygon(canvas.to_camera(flat))

        canvas.fill(panel(1, 1, 0), np.minimum(255, shine * self._plain(colours, x, z, fixture.s_m)), 0)
        if big:
            for lift in (-0.35, 0.3):
                canvas.fill(panel(0.7, 0.13, lift), np.minimum(255, shine * self._plain(inner, x, z, fixture.s_m)))
        else:
            canvas.fill(panel(0.7, 0.7, 0), np.minimum(255, shine * self._plain(inner, x, z, fixture.s_m)))

    def _signal(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        canvas.post(x, z, 0.0, fixture.height_m, 0.14, self._plain((70, 74, 76), x, z, fixture.s_m))
        height = fixture.height_m
        canvas.post(x, z, height - 1.1, height, 0.42, self._plain((28, 30, 30), x, z, fixture.s_m))
        shown = self.world.signal_colour(index)
        towards = (z > 0) == (fixture.x_m > 0)
        for name, y in (("red", height - 0.2), ("green", height - 0.9)):
            u, v = canvas.pixel_of(x, y, z - 0.05)
            radius = max(1.2, 0.13 * canvas.camera.focal_px / max(2.0, abs(z)))
            lit = name == shown and towards
            angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            disc = np.stack([u + radius * np.cos(angle), v + radius * np.sin(angle)], -1)
            canvas.fill(disc, _SIGNAL_COLOURS[name] if lit else (44, 40, 38))
            if lit:
                canvas.add_light(self.glow, u, v, 3.2 * radius, 3.2 * radius, np.asarray(_SIGNAL_COLOURS[name]) * 0.6)

    def _rails(self, canvas: Canvas, index: int) -> None:
        """Guard rails at both edges and in the middle of a highway."""
        edge, ego_x = self.world.road.half_width_m + 0.7, self.world.ego_x_m
        s, bend = float(self.world.s_m[index]), 0.5 * float(self.world.bend_per_m[index])
        along = np.concatenate([-np.geomspace(150, 1, 14), [0.0], np.geomspace(1, 150, 14)])
        posts = np.arange(np.ceil((s - 60) / 4) * 4, s + 60, 4.0) - s
        for side in (-edge, edge, 0.0):
            for z in posts[np.argsort(-np.abs(posts))]:
                x = side - ego_x + bend * z * z
                canvas.post(float(x), float(z), 0.0, 0.7, 0.12, self._plain((92, 94, 96), float(x), float(z), 0.0))
            for low, high, grey in ((0.45, 0.78, 148), (0.58, 0.65, 104)):
                for a, b in ((0, 11), (10, 19), (18, 24), (23, 29)):  # in pieces, since light and air change with distance
                    z_part = along[a:b]
                    x_part = side - ego_x + bend * z_part**2
                    middle = (b - a) // 2
                    colour = self._plain((grey, grey + 2, grey + 5), float(x_part[middle]), float(z_part[middle]), 0.0, 0.8)
                    upper = canvas.to_camera(np.stack([x_part, np.full(len(z_part), high), z_part], -1))
                    canvas.strip(upper, upper + np.array([0.0, low - high, 0.0]), colour)


def _turn(points: F64, heading_rad: float) -> F64:
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


def _cut(canvas: Canvas, outline: F64) -> NDArray[np.uint8]:
    """The part of the mask that holds an outline."""
    left, top = np.floor(np.clip(outline.min(0), 0, [WIDTH_PX, HEIGHT_PX])).astype(int)
    right, bottom = np.ceil(np.clip(outline.max(0) + 1, 0, [WIDTH_PX, HEIGHT_PX])).astype(int)
    return canvas.mask[top:bottom, left:right]


def _box(canvas: Canvas, owner: int, actor: Actor, outline: F64, painted: int, depth: float) -> Box | None:
    """The truth about one painted actor; None where it is too small, too far or hidden."""
    left, top = np.clip(outline.min(0), 0, [WIDTH_PX, HEIGHT_PX])
    right, bottom = np.clip(outline.max(0), 0, [WIDTH_PX, HEIGHT_PX])
    if bottom - top < SMALLEST_PX or right - left < 2 or painted == 0:
        return None
    frame = np.array([WIDTH_PX, HEIGHT_PX])  # right beside the camera an outline has no end: count half a frame beyond
    whole = float(np.prod(np.ptp(np.clip(outline, -0.5 * frame, 1.5 * frame), axis=0)))
    in_image = (right - left) * (bottom - top) / max(whole, 1e-6)
    left_over = int(np.count_nonzero(_cut(canvas, outline) == owner))
    visible = min(1.0, in_image) * left_over / painted
    if visible < LEAST_VISIBLE:
        return None
    return Box(actor.kind, float(left), float(top), float(right), float(bottom), float(visible), depth, actor.event, actor.event_id)
