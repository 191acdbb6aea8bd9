"""A frame being painted: projection, anti-aliased polygons, and a mask that says which object owns each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo.scenery import AnyFloat, Colour, Image, scaled
from mining.demo.scripts import HEIGHT_PX, WIDTH_PX, Camera

F64 = NDArray[np.float64]
NEAR_M = 0.5
_SHIFT = 4
_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 7)


class Canvas:
    """One frame of one camera. Points are in road metres relative to the ego car: x right, y up, z ahead."""

    def __init__(self, camera: Camera, image: Image, horizon_px: float) -> None:
        self.camera = camera
        self.image = image
        self.mask: Image = np.zeros(image.shape[:2], np.uint8)
        self.horizon_px = horizon_px
        self._cos, self._sin = float(np.cos(camera.yaw_rad)), float(np.sin(camera.yaw_rad))
        self._axes = np.array([[self._cos, 0.0, self._sin], [0.0, 1.0, 0.0], [-self._sin, 0.0, self._cos]])

    def to_camera(self, points: F64) -> F64:
        """[..., 3] road points -> camera points: right, up (from the ground), depth."""
        return np.asarray(points @ self._axes)

    def depth_of(self, x: float, z: float) -> float:
        """How far before the camera a road place lies."""
        return self._sin * x + self._cos * z

    def pixel_of(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The pixel of one road point that lies before the camera."""
        scale = self.camera.focal_px / (self._sin * x + self._cos * z)
        u = WIDTH_PX / 2 + scale * (self._cos * x - self._sin * z)
        return u, self.horizon_px + scale * (self.camera.height_m - y)

    def to_pixels(self, points: F64) -> F64:
        """[..., 3] camera points with a depth of at least ``NEAR_M`` -> [..., 2] pixels."""
        scale = self.camera.focal_px / points[..., 2]
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = WIDTH_PX / 2 + scale * points[..., 0]
        pixels[..., 1] = self.horizon_px + scale * (self.camera.height_m - points[..., 1])
        return pixels

    def polygon(self, points: F64) -> F64:
        """[n, 3] camera points of a flat face -> [m, 2] pixels of its part before the camera; m may be 0."""
        if points[:, 2].min() >= NEAR_M:
            return self.to_pixels(points)
        kept = []
        for p, q in zip(points, np.roll(points, -1, axis=0), strict=True):
            if p[2] >= NEAR_M:
                kept.append(p)
            if (p[2] >= NEAR_M) != (q[2] >= NEAR_M):
                kept.append(p + (q - p) * ((NEAR_M - p[2]) / (q[2] - p[2])))
        return self.to_pixels(np.asarray(kept)) if len(kept) > 2 else np.zeros((0, 2))

    def fill(self, pixels: F64, colour: Colour | AnyFloat, owner: int | None = None) -> None:
        """Fill a convex polygon. ``owner`` also claims its pixels."""
        if len(pixels) >= 3:
            self.fill_points(fixed_point(pixels), as_bytes(colour), owner)

    def fill_points(
        self, points: NDArray[np.int32], colour: Sequence[int], owner: int | None = None, hard: bool = False
    ) -> None:
        """The same for fixed-point corners and a colour in bytes; ``hard`` leaves out anti-aliasing."""
        cv2.fillConvexPoly(self.image, points, colour, cv2.LINE_8 if hard else cv2.LINE_AA, _SHIFT)
        if owner is not None:
            cv2.fillConvexPoly(self.mask, points, owner, cv2.LINE_8, _SHIFT)

    def strip(self, upper: F64, lower: F64, colour: Colour | AnyFloat) -> None:
        """Fill the band between two rows of camera points, [n, 3] each (a rail along a bend)."""
        before = (upper[:, 2] >= NEAR_M) & (lower[:, 2] >= NEAR_M)
        if before.sum() < 2:
            return
        pixels = np.concatenate([self.to_pixels(upper[before]), self.to_pixels(lower[before])[::-1]])
        points = fixed_point(pixels)
        cv2.fillPoly(self.image, [points], as_bytes(colour), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, [points], 0, cv2.LINE_8, _SHIFT)

    def line(self, points: F64, colour: Colour | AnyFloat, thickness: int = 1) -> None:
        """Draw a line through camera points, [n, 3]."""
        pixels = self.to_pixels(points[points[:, 2] >= NEAR_M])
        if len(pixels) > 1:
            cv2.polylines(
                self.image, [fixed_point(pixels)], False, as_bytes(colour), thickness, cv2.LINE_AA, _SHIFT
            )

    def post(
        self, x: float, z: float, bottom: float, top: float, width: float, colour: Colour | AnyFloat
    ) -> None:
        """An upright post at a road place."""
        depth = self.depth_of(x, z)
        if depth < NEAR_M:
            return
        half = max(0.5, 0.5 * width * self.camera.focal_px / depth)
        u, v0 = self.pixel_of(x, bottom, z)
        if -half < u < WIDTH_PX + half:
            v1 = self.pixel_of(x, top, z)[1]
            self.fill(
                np.array([[u - half, v0], [u + half, v0], [u + half * 0.8, v1], [u - half * 0.8, v1]]),
                colour,
                0,
            )

    def rods(self, starts: F64, ends: F64, start_px: F64, end_px: F64) -> F64:
        """Outlines of ``n`` tapered rods with round ends: [n, 14, 2] from [n, 2] pixels and [n] radii in pixels."""
        way = ends - starts
        towards = np.arctan2(way[:, 1], way[:, 0])[:, None]
        around_end = towards + _ANGLES
        around_start = around_end + np.pi
        at_end = ends[:, None] + end_px[:, None, None] * np.stack(
            [np.cos(around_end), np.sin(around_end)], -1
        )
        at_start = starts[:, None] + start_px[:, None, None] * np.stack(
            [np.cos(around_start), np.sin(around_start)], -1
        )
        return np.concatenate([at_end, at_start], axis=1)

    def add_light(
        self, sprite: Image, u: float, v: float, half_w: float, half_h: float, colour: Colour | AnyFloat
    ) -> None:
        """Add a soft light, given by a one-channel sprite, around a pixel."""
        w, h = max(2, round(2 * half_w)), max(2, round(2 * half_h))
        x0, y0 = round(u - w / 2), round(v - h / 2)
        box = _inside(x0, y0, w, h)
        if box is None:
            return
        left, top, right, bottom = box
        whole = np.asarray(cv2.resize(sprite, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)
        soft = whole[top - y0 : bottom - y0, left - x0 : right - x0]
        tinted = cv2.merge([scaled(soft, float(c) / 255) for c in colour])
        region = self.image[top:bottom, left:right]
        cv2.add(region, tinted, dst=region)

    def paste(
        self,
        light: Image,
        cover: Image,
        u: float,
        v_bottom: float,
        w: int,
        h: int,
        haze: Colour,
        share: float,
    ) -> None:
        """Draw a sprite that stands on a pixel: ``light`` is premultiplied, ``cover`` is 255 where the back shows."""
        x0, y0 = round(u - w / 2), round(v_bottom - h)
        box = _inside(x0, y0, w, h)
        if box is None:
            return
        left, top, right, bottom = box
        size = (w, h)
        how = cv2.INTER_AREA if w < light.shape[1] else cv2.INTER_LINEAR
        cut = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        colour = np.asarray(cv2.resize(light, size, interpolation=how))[cut]
        hole = np.asarray(cv2.resize(cover, size, interpolation=how))[cut]
        if share > 0.02:
            solid = np.asarray(cv2.bitwise_not(hole), np.uint8)
            veil = cv2.merge([scaled(solid[..., i], float(haze[i]) / 255 * share) for i in range(3)])
            colour = cv2.add(scaled(np.asarray(colour, np.uint8), 1 - share), veil)
        region = self.image[top:bottom, left:right]
        cv2.add(cv2.multiply(region, hole, scale=1 / 255), colour, dst=region)
        self.mask[top:bottom, left:right][hole[..., 0] < 100] = 0


def fixed_point(pixels: F64) -> NDArray[np.int32]:
    """Pixels as the fixed-point numbers that OpenCV draws at sub-pixel places."""
    return np.rint(pixels.clip(-9000, 9000) * (1 << _SHIFT)).astype(np.int32)


def as_bytes(colour: Colour | AnyFloat) -> tuple[int, int, int]:
    """Round a colour."""
    r, g, b = colour
    return (
        min(255, max(0, round(float(r)))),
        min(255, max(0, round(float(g)))),
        min(255, max(0, round(float(b)))),
    )


def _inside(x0: int, y0: int, w: int, h: int) -> tuple[int, int, int, int] | None:
    """The part of a rectangle that lies in the frame; None where none does, or where it is absurdly large."""
    left, top, right, bottom = max(0, x0), max(0, y0), min(WIDTH_PX, x0 + w), min(HEIGHT_PX, y0 + h)
    if left >= right or top >= bottom or w * h > 4_000_000:
        return None
    return left, top, right, bottom
