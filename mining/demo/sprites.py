"""Pictures that are painted once and used many times: house fronts, trees, lights, rain and noise."""

from __future__ import annotations

import cv2
import numpy as np

from mining.demo.scenery import Colour, Image, Look, fractal, lerp, to_image
from mining.demo.scripts import HEIGHT_PX, WIDTH_PX


def facades(rng: np.random.Generator, look: Look, count: int = 7) -> list[list[Image]]:
    """House fronts, each at full, half and quarter size, already lit; rows run down, 128 px for the whole front."""
    size = 128
    walls = (
        (176, 160, 138),
        (150, 92, 74),
        (196, 188, 176),
        (128, 130, 134),
        (186, 148, 104),
        (112, 76, 66),
        (206, 198, 170),
    )
    out = []
    for i in range(count):
        wall = np.asarray(walls[i % len(walls)], np.float32) * rng.uniform(0.85, 1.05)
        image = wall + 5.0 * fractal(rng, size, size, 0.8)[..., None]
        emit = np.zeros((size, size, 3), np.float32)
        floors, bays = int(rng.integers(3, 6)), int(rng.integers(4, 8))
        fh, bw = size / floors, size / bays
        for f in range(floors):
            shop = f == floors - 1 and rng.random() < 0.6
            y0, y1 = int(f * fh + fh * (0.12 if shop else 0.22)), int(f * fh + fh * (0.9 if shop else 0.78))
            image[int(f * fh)] *= 0.8
            for b in range(bays):
                x0, x1 = (
                    int(b * bw + bw * (0.08 if shop else 0.26)),
                    int(b * bw + bw * (0.92 if shop else 0.76)),
                )
                glass = lerp((40, 48, 56), look.sky_horizon, 0.12 if look.dark else rng.uniform(0.1, 0.4))
                image[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = wall * 1.18
                image[y0:y1, x0:x1] = glass
                image[y0:y1, (x0 + x1) // 2] = wall
                if look.dark and rng.random() < (0.7 if shop else 0.28):
                    warm = lerp((255, 190, 110), (226, 226, 200), rng.uniform(0, 0.8))
                    emit[y0:y1, x0:x1] = warm * rng.uniform(0.3, 0.9)
        light = np.asarray(look.ambient, np.float32) + look.sun * 0.55
        full = to_image(np.maximum(image * light, emit))
        half, quarter = (
            np.asarray(cv2.resize(full, None, fx=f, fy=f, interpolation=cv2.INTER_AREA), np.uint8)
            for f in (0.5, 0.25)
        )
        out.append([full, half, quarter])
    return out


def trees(rng: np.random.Generator, look: Look, count: int = 6) -> list[tuple[Image, Image]]:
    """Trees as (light times cover, 255 minus cover), both [200, 140, 3]; odd ones are conifers, the others bare in March."""
    out = []
    h, w = 200, 140
    light = np.asarray(look.ambient, np.float32) + look.sun * 0.6
    for i in range(count):
        colour = np.zeros((h, w, 3), np.float32)
        cover = np.zeros((h, w), np.uint8)
        if i % 2:
            cv2.rectangle(cover, (w // 2 - 3, h - 26), (w // 2 + 3, h), 255, -1)
            for y in range(6, h - 14, 2):
                spread = (y / h) ** 0.9 * 56 * (0.75 + 0.25 * ((y % 26) / 26))
                for _ in range(3):
                    x = w / 2 + rng.uniform(-1, 1) * spread
                    cv2.ellipse(
                        cover,
                        (int(x), y),
                        (int(3 + spread * 0.22), 4),
                        rng.uniform(-20, 20),
                        0,
                        360,
                        255,
                        -1,
                        cv2.LINE_AA,
                    )
            base: Colour = (46, 66, 44)
        else:
            _branch(rng, cover, w / 2, h - 1.0, -np.pi / 2, 46.0, 7.0)
            leaves = fractal(rng, h, w, 0.9)
            yy, xx = np.mgrid[0:h, 0:w]
            crown = ((xx - w / 2) / 60) ** 2 + ((yy - 82) / 78) ** 2 < 1
            cover = np.maximum(cover, np.where(crown & (leaves > 0.55), 210, 0).astype(np.uint8))
            base = (78, 80, 48)
        shade = 1.0 + 0.22 * fractal(rng, h, w, 0.7) - 0.25 * np.linspace(-0.5, 0.5, w, dtype=np.float32)
        colour[:] = np.asarray(base, np.float32) * light * shade[..., None]
        alpha = cv2.GaussianBlur(cover, (3, 3), 0).astype(np.float32)[..., None] / 255
        out.append((to_image(colour * alpha), to_image(np.repeat(255 * (1 - alpha), 3, axis=2))))
    return out


def _branch(
    rng: np.random.Generator, cover: Image, x: float, y: float, angle: float, length: float, thick: float
) -> None:
    if length < 5 or thick < 0.6:
        return
    x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
    cv2.line(cover, (int(x), int(y)), (int(x1), int(y1)), 255, max(1, round(thick)), cv2.LINE_AA)
    for _ in range(int(rng.integers(2, 4))):
        _branch(
            rng, cover, x1, y1, angle + rng.normal(0, 0.5), length * rng.uniform(0.62, 0.85), thick * 0.62
        )


def glow_sprite() -> Image:
    """[64, 64] a soft disc of light, 255 in the middle, 0 at its edge."""
    r = np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]).astype(np.float32)
    return to_image(
        255 * np.clip(np.exp(-((r / 0.16) ** 2)) + 0.42 * np.exp(-((r / 0.42) ** 2)) - 0.004, 0, 1)
    )


def noise_bank(rng: np.random.Generator, sigma: float, count: int = 6) -> list[Image]:
    """Noise fields of more than a frame's size, as bytes around 128, a little blurred as in-camera processing does."""
    out = []
    for _ in range(count):
        field = rng.normal(0, 1, (HEIGHT_PX + 64, WIDTH_PX + 64, 3)).astype(np.float32)
        field = 0.6 * field + 0.8 * rng.normal(0, 1, (*field.shape[:2], 1)).astype(np.float32)
        out.append(to_image(128 + sigma * np.asarray(cv2.GaussianBlur(field, (3, 3), 0.6), np.float32) * 1.5))
    return out


def streak_bank(rng: np.random.Generator, count: int = 5) -> list[Image]:
    """Rain in front of the lens: bright slanted streaks, to be added to a frame."""
    out = []
    for _ in range(count):
        layer = np.zeros((HEIGHT_PX + 128, WIDTH_PX + 128), np.uint8)
        for _ in range(420):
            x, y = rng.uniform(0, layer.shape[1]), rng.uniform(0, layer.shape[0])
            length, slant = rng.uniform(4, 17), rng.normal(0.14, 0.05)
            p, q = (round(x * 8), round(y * 8)), (round((x + slant * length) * 8), round((y + length) * 8))
            cv2.line(layer, p, q, int(rng.integers(10, 52)), 1, cv2.LINE_AA, shift=3)
        layer = np.asarray(cv2.GaussianBlur(layer, (3, 3), 0.6))
        out.append(np.repeat(layer[..., None], 3, axis=2))
    return out


def vignette() -> Image:
    """[HEIGHT_PX, WIDTH_PX, 3] the lens's fall-off, 255 in the middle."""
    y, x = np.mgrid[-1 : 1 : HEIGHT_PX * 1j, -1 : 1 : WIDTH_PX * 1j].astype(np.float32)
    return np.repeat(
        to_image(255 * (1 - 0.24 * np.clip(x * x * 0.8 + y * y * 0.6, 0, 2) ** 1.4))[..., None], 3, axis=2
    )
