"""From a world and a frame number to an image and its truth: paints back to front, nearest last."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo import scenery, shapes, sprites
from mining.demo.canvas import Canvas, fixed_point
from mining.demo.light import BEAM_TINT, LAMP_SPACING_M, LAMP_START_M, LAMP_TINT, Light
from mining.demo.roadside import FAR_M
from mining.demo.scenery import (
    ACROSS_PX_PER_M,
    ALONG_PX_PER_M,
    F32,
    TEXTURE_HALF_M,
    TEXTURE_PERIOD_M,
    Image,
    scaled,
)
from mining.demo.scripts import CAMERAS, HEIGHT_PX, WIDTH_PX
from mining.demo.standing import GLOW, Painter, turn
from mining.demo.world import VIEW_M, Actor, Box, Fixture, World

F64 = NDArray[np.float64]


class Renderer:
    """Paints the frames of one recording; what does not change between frames is painted once, here."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.camera = CAMERAS[world.script.camera]
        self.light = Light(world)
        self.look = self.light.look
        rng = np.random.default_rng([world.seed, world.script.world, 99])
        around = scenery.panorama(rng, self.look, world.script)
        self.panorama = np.concatenate([around, around[:, :WIDTH_PX]], axis=1)
        self.ground = scenery.ground(rng, world.road, self.camera, self.look.wet)
        self.painter = Painter(world, self.light, rng)
        self.noise = sprites.noise_bank(rng, self.look.noise)
        self.streaks = sprites.streak_bank(rng) if world.script.weather == "rain" else []
        self.vignette = sprites.vignette()
        self.fixture_s = np.array([f.s_m for f in world.fixtures])
        self.fixture_x = np.array([f.x_m for f in world.fixtures])
        self.fixture_length = np.array([f.length_m for f in world.fixtures])

    def frame(self, index: int, actors: bool = True) -> tuple[Image, list[Box]]:
        """[HEIGHT_PX, WIDTH_PX, 3] RGB, and the truth; ``actors=False`` leaves out all that is labelled."""
        world = self.world
        time, speed = world.time_s[index], world.speed_mps[index]
        bounce = 0.055 * speed * (np.sin(time * 9.1) + 0.7 * np.sin(time * 5.3 + 1.0))
        horizon = self.camera.horizon_px + float(bounce)
        image = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
        canvas = Canvas(self.camera, image, horizon)
        self._sky(canvas, index)
        shown = self._visible_actors(canvas, index) if actors else []
        self._ground(canvas, index, shown)
        boxes = self.painter.draw(canvas, index, shown, self._near_fixtures(index))
        return self._lens(canvas, index), boxes

    def _bend(self, index: int, z: F64 | F32 | float) -> F64:
        """How far the road has bent to the right at a distance ahead."""
        return np.asarray(0.5 * self.world.bend_per_m[index] * np.clip(z, -150, 150) ** 2)

    def _sky(self, canvas: Canvas, index: int) -> None:
        rows = round(canvas.horizon_px) + 4
        turned = (self.world.heading_rad[index] + self.camera.yaw_rad) * self.camera.focal_px
        start = int(turned) % scenery.PANORAMA_PX
        canvas.image[:rows] = self.panorama[HEIGHT_PX - rows :, start : start + WIDTH_PX]

    def _ground(self, canvas: Canvas, index: int, shown: list[tuple[Actor, float, float]]) -> None:
        """The road's surface with its light, shadows, reflections and haze."""
        camera, world, look = self.camera, self.world, self.look
        top = int(np.ceil(canvas.horizon_px + 1.5))
        v = np.arange(top, HEIGHT_PX, dtype=np.float32)[:, None]
        depth = camera.focal_px * camera.height_m / (v - canvas.horizon_px)
        across = (np.arange(WIDTH_PX, dtype=np.float32) - WIDTH_PX / 2) * (depth / camera.focal_px)
        cos, sin = np.float32(np.cos(camera.yaw_rad)), np.float32(np.sin(camera.yaw_rad))
        x = cos * across + sin * depth
        z = -sin * across + cos * depth
        road_x = x + np.float32(world.ego_x_m)
        if world.bend_per_m[index] != 0:
            road_x -= self._bend(index, z).astype(np.float32)
        s = float(world.s_m[index])
        column = np.clip(
            (road_x + TEXTURE_HALF_M) * ACROSS_PX_PER_M, 1, 2 * TEXTURE_HALF_M * ACROSS_PX_PER_M - 2
        )
        row = (z + np.float32(s % TEXTURE_PERIOD_M)) * np.float32(ALONG_PX_PER_M)
        step = (depth**2 / (camera.focal_px * camera.height_m))[:, 0]
        cuts = [0, int(np.sum(step > 2.2)), int(np.sum(step > 0.35)), len(v)]
        surface = canvas.image[top:]
        for texture, (a, b) in zip(
            (self.ground.far, self.ground.middle, self.ground.near), pairwise(cuts), strict=True
        ):
            if a < b:
                cv2.remap(
                    texture,
                    column[a:b],
                    row[a:b],
                    cv2.INTER_LINEAR,
                    dst=surface[a:b],
                    borderMode=cv2.BORDER_WRAP,
                )
        if world.junction_s_m is not None:
            self._junction(canvas, world.junction_s_m - s)

        shadow = self._shadows(canvas, top, shown)
        shaded = cv2.multiply(surface, cv2.merge([shadow, shadow, shadow]), scale=1 / 255)
        gloss = 0.10 + 0.34 * (1 - np.exp(-depth / 22.0)) if look.wet else np.zeros_like(depth)
        sky = np.asarray(look.sky_horizon, np.float32) * (1.0 if look.dark else 0.8)
        clear = np.exp(-depth / np.float32(look.haze_m))
        factor = np.tile(clear * (1 - gloss), (1, 3))
        offset = clear * gloss * sky + (1 - clear) * self.light.haze.astype(np.float32)
        flat = shaded.reshape(len(v), -1).astype(np.float32)
        if look.dark:
            flat *= self._night(x, z, road_x, s).reshape(flat.shape)
        else:
            factor *= (self.light.ambient + look.sun * 0.6).astype(np.float32)
        flat *= np.tile(factor, (1, WIDTH_PX))
        flat += np.tile(offset.astype(np.float32), (1, WIDTH_PX))
        surface[:] = np.clip(flat, 0, 255, out=flat).reshape(surface.shape)
        if look.wet or look.dark:
            self._reflections(canvas, index, shown)

    def _night(self, x: F32, z: F32, road_x: F32, s: float) -> F32:
        """[rows, columns, 3] light on the road from head lights and street lights; smooth, so half the points do."""
        shape = x.shape[::-1]
        x, z, road_x = x[::2, ::2], z[::2, ::2], road_x[::2, ::2]
        light = np.empty((*x.shape, 3), np.float32)
        light[:] = self.light.ambient
        if self.light.beam:
            ahead = np.maximum(z, 0.1)
            beam = np.exp(-((x / (1.5 + 0.3 * ahead)) ** 2)) / (1 + (ahead / 18.0) ** 2.4)
            beam *= 1.25 * (0.55 + 0.45 * np.minimum(1, ahead / 9))
            light += beam[..., None] * BEAM_TINT.astype(np.float32)
        if self.light.lamps:
            off = (z + np.float32(s - LAMP_START_M)) % np.float32(LAMP_SPACING_M)
            off = np.minimum(off, LAMP_SPACING_M - off)
            side = np.minimum(np.abs(np.abs(road_x) - 5.2), 9.0)
            pool = 0.6 * np.exp(-((off / 6.5) ** 2) - (side / 4.5) ** 2)
            light += pool[..., None] * LAMP_TINT.astype(np.float32)
        return np.asarray(cv2.resize(light, shape, interpolation=cv2.INTER_LINEAR), np.float32)

    def _junction(self, canvas: Canvas, z: float) -> None:
        """A cross street, a stop line and a crossing, painted over the road's texture."""
        ego_x, edge = self.world.ego_x_m, self.world.road.half_width_m
        asphalt, paint = (93, 93, 95), (214, 214, 208)

        def area(x0: float, x1: float, z0: float, z1: float, colour: tuple[int, int, int]) -> None:
            corners = np.array(
                [[x0 - ego_x, 0, z0], [x1 - ego_x, 0, z0], [x1 - ego_x, 0, z1], [x0 - ego_x, 0, z1]],
                np.float64,
            )
            canvas.fill(canvas.polygon(canvas.to_camera(corners)), colour)

        if z < -40 or z > FAR_M:
            return
        area(-70, 70, z + 0.5, z + 13.5, asphalt)
        for x in np.arange(-70, 70, 6.0):
            if abs(x + 1.5) > edge:
                area(x, x + 3, z + 6.93, z + 7.07, paint)
        area(0.2, 3.6, z - 4.6, z - 4.1, paint)
        for x in np.arange(-edge + 0.4, edge - 0.4, 1.0):
            area(x, x + 0.5, z - 3.2, z - 0.4, paint)

    def _shadows(self, canvas: Canvas, top: int, shown: list[tuple[Actor, float, float]]) -> Image:
        """[rows, columns] share, of 255, of the ground's light that is left below objects, and beside them in sunshine."""
        layer = np.full((HEIGHT_PX - top, WIDTH_PX), 255, np.uint8)
        sun = self.light.sun
        reach = 0.8 * np.array([-sun[0], 0.0, -sun[2]]) / sun[1]
        for actor, x, z in shown:
            if abs(z) > 70:
                continue
            half_w, half_l, height = shapes.footprint(actor.kind, actor.variant)
            corners = (
                np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]) * [half_w, 0, half_l] * 1.02
            )
            base = turn(corners, actor.heading_rad) + np.array([x, 0.0, z])
            if self.look.sun > 0.2:
                outline = np.concatenate([base, base + height * reach])
                hull = cv2.convexHull(outline[:, ::2].astype(np.float32), returnPoints=False)
                self._fill_shadow(canvas, layer, outline[np.asarray(hull)[:, 0].astype(int)], top, 150)
            self._fill_shadow(canvas, layer, base, top, 96)
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), 1.6))

    @staticmethod
    def _fill_shadow(canvas: Canvas, layer: Image, points: F64, top: int, value: int) -> None:
        pixels = canvas.polygon(canvas.to_camera(points))
        if len(pixels) > 2:
            cv2.fillConvexPoly(layer, fixed_point(pixels - [0, top]), value, cv2.LINE_AA, 4)

    def _reflections(self, canvas: Canvas, index: int, shown: list[tuple[Actor, float, float]]) -> None:
        """Lights on the road: long streaks where it is wet, faint spots where it is dry."""
        wet = self.look.wet
        for actor, x, z in shown:
            for place, kind in self.painter.lights(canvas, actor, x, z):
                u, v = canvas.to_pixels(place * [1.0, -1.0, 1.0])
                size = 0.35 * canvas.camera.focal_px / place[2]
                strength = (
                    (0.5 if wet else 0.12)
                    * (1.0 if self.look.dark else 0.35)
                    * (1 - self.light.air(place[2]))
                )
                tall = min(95.0, size * (5.0 if wet else 1.6))
                canvas.add_light(
                    self.painter.glow, u, v, min(26.0, max(2.0, size)), tall, GLOW[kind] * strength
                )
        if wet and self.light.lamps:
            for fixture, x, z in self._near_fixtures(index):
                if fixture.kind == "lamp":
                    head = canvas.to_camera(np.array([x - np.sign(x) * 1.6, -fixture.height_m, z]))
                    if head[2] > 6:
                        u, v = canvas.to_pixels(head)
                        size = 0.5 * canvas.camera.focal_px / head[2]
                        canvas.add_light(
                            self.painter.glow,
                            u,
                            min(v, HEIGHT_PX - 30.0),
                            min(20, size),
                            min(120, 7 * size),
                            (110, 78, 40),
                        )

    def _near_fixtures(self, index: int) -> list[tuple[Fixture, float, float]]:
        """Fixtures within view with their places relative to the ego car."""
        s, ego_x = float(self.world.s_m[index]), self.world.ego_x_m
        ahead = self.fixture_s - s
        across = self.fixture_x - ego_x + self._bend(index, ahead)
        yaw = self.camera.yaw_rad
        depth = np.sin(yaw) * across + np.cos(yaw) * ahead
        right = np.cos(yaw) * across - np.sin(yaw) * ahead
        reach = 12.0 + self.fixture_length + 0.55 * WIDTH_PX / self.camera.focal_px * np.maximum(depth, 0)
        near = (depth > -22) & (depth < FAR_M + 20) & (np.abs(right) < reach)
        return [(self.world.fixtures[i], float(across[i]), float(ahead[i])) for i in np.flatnonzero(near)]

    def _visible_actors(self, canvas: Canvas, index: int) -> list[tuple[Actor, float, float]]:
        """Actors that may be in view, with x and z relative to the ego car."""
        s, ego_x = self.world.s_m[index], self.world.ego_x_m
        shown = []
        for actor in self.world.actors:
            z = float(actor.s_m[index] - s)
            if abs(z) > VIEW_M or (actor.active is not None and not actor.active[index]):
                continue
            x = float(actor.x_m[index] - ego_x + self._bend(index, z))
            right, _, depth = canvas.to_camera(np.array([x, 0.0, z]))
            if depth > -7 and abs(right) < 9 + max(depth, 0) * 0.62 * WIDTH_PX / self.camera.focal_px:
                shown.append((actor, x, z))
        return shown

    def _lens(self, canvas: Canvas, index: int) -> Image:
        """Rain, softness, fall-off to the corners, and the sensor's noise."""
        image = canvas.image
        tick = round(float(self.world.time_s[index]) * 10)
        rng = np.random.default_rng([self.world.seed, self.world.script.world, tick])
        if self.streaks:
            dy, dx = rng.integers(0, 128, 2)
            streaks = self.streaks[rng.integers(len(self.streaks))][dy : dy + HEIGHT_PX, dx : dx + WIDTH_PX]
            image = np.asarray(cv2.add(image, scaled(streaks, 0.45 if self.look.dark else 0.8)), np.uint8)
        soft = cv2.multiply(cv2.GaussianBlur(image, (3, 3), 0.55), self.vignette, scale=1 / 255)
        dy, dx = rng.integers(0, 64, 2)
        noise = self.noise[rng.integers(len(self.noise))][dy : dy + HEIGHT_PX, dx : dx + WIDTH_PX]
        return np.asarray(cv2.addWeighted(soft, 1.0, noise, 1.0, -128.0), np.uint8)
