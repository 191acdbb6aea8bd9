"""Draws what stands beside the road and does not move: houses, trees, lamps, poles, signs, signals, guard rails."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo import sprites
from mining.demo.canvas import Canvas, fixed_point
from mining.demo.light import Light
from mining.demo.scenery import lerp, scaled, to_image
from mining.demo.scripts import HEIGHT_PX, WIDTH_PX
from mining.demo.world import Fixture, World

F64 = NDArray[np.float64]

FAR_M = 150.0
"""Houses, trees and posts are drawn as far as this."""
_SIGNAL_COLOURS = {"red": (255, 44, 30), "green": (60, 255, 130)}


class Roadside:
    """Paints the fixtures of one recording onto its frames."""

    def __init__(self, world: World, light: Light, rng: np.random.Generator) -> None:
        self.world = world
        self.light = light
        self.facades = sprites.facades(rng, light.look)
        self.trees = sprites.trees(rng, light.look)
        self.glow = sprites.glow_sprite()

    def draw(self, canvas: Canvas, index: int, fixture: Fixture, x: float, z: float) -> None:
        """Paint one fixture; x and z are relative to the ego car, metres."""
        depth = canvas.depth_of(x, z)
        if fixture.kind == "building":
            self._building(canvas, fixture, x, z)
        elif fixture.kind == "tree":
            if 2.5 < depth < FAR_M:
                self._tree(canvas, fixture, x, z, depth)
        elif 1.5 < depth < FAR_M:
            {"lamp": self._lamp, "pole": self._pole, "sign": self._sign, "signal": self._signal}[
                fixture.kind
            ](canvas, index, fixture, x, z)

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
        source = np.array(
            [[share[0] * n, n], [share[1] * n, n], [share[1] * n, 0], [share[0] * n, 0]], np.float32
        )
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
            light = scaled(light, min(gain, 7.0))
        if h > 3:
            canvas.paste(
                light, cover, u, v, max(2, w), h, self.light.look.haze, self.light.air(float(np.hypot(x, z)))
            )

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
            canvas.add_light(
                self.glow,
                u,
                v,
                radius,
                radius,
                np.array([255, 196, 120]) * (1 - self.light.air(float(arm[1, 2]))),
            )

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
                canvas.line(
                    wire[a : a + 4] if a < 6 else wire[a:],
                    self._plain((52, 48, 46), x, z + along[a + 1], fixture.s_m),
                )

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
            flat = np.stack(
                [
                    x + outline[:, 0] * scale_x,
                    centre + lift + outline[:, 1] * scale_y,
                    np.full(len(outline), z),
                ],
                -1,
            )
            return canvas.polygon(canvas.to_camera(flat))

        canvas.fill(panel(1, 1, 0), np.minimum(255, shine * self._plain(colours, x, z, fixture.s_m)), 0)
        if big:
            for lift in (-0.35, 0.3):
                canvas.fill(
                    panel(0.7, 0.13, lift), np.minimum(255, shine * self._plain(inner, x, z, fixture.s_m))
                )
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
                canvas.add_light(
                    self.glow, u, v, 3.2 * radius, 3.2 * radius, np.asarray(_SIGNAL_COLOURS[name]) * 0.6
                )

    def rails(self, canvas: Canvas, index: int) -> None:
        """Guard rails at both edges and in the middle of a highway."""
        edge, ego_x = self.world.road.half_width_m + 0.7, self.world.ego_x_m
        s, bend = float(self.world.s_m[index]), 0.5 * float(self.world.bend_per_m[index])
        along = np.concatenate([-np.geomspace(150, 1, 14), [0.0], np.geomspace(1, 150, 14)])
        posts = np.arange(np.ceil((s - 60) / 4) * 4, s + 60, 4.0) - s
        for side in (-edge, edge, 0.0):
            for z in posts[np.argsort(-np.abs(posts))]:
                x = side - ego_x + bend * z * z
                canvas.post(
                    float(x), float(z), 0.0, 0.7, 0.12, self._plain((92, 94, 96), float(x), float(z), 0.0)
                )
            for low, high, grey in ((0.45, 0.78, 148), (0.58, 0.65, 104)):
                for a, b in (
                    (0, 11),
                    (10, 19),
                    (18, 24),
                    (23, 29),
                ):  # in pieces, since light and air change with distance
                    z_part = along[a:b]
                    x_part = side - ego_x + bend * z_part**2
                    middle = (b - a) // 2
                    colour = self._plain(
                        (grey, grey + 2, grey + 5), float(x_part[middle]), float(z_part[middle]), 0.0, 0.8
                    )
                    upper = canvas.to_camera(np.stack([x_part, np.full(len(z_part), high), z_part], -1))
                    canvas.strip(upper, upper + np.array([0.0, low - high, 0.0]), colour)
