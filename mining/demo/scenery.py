"""Light, sky and surfaces: everything about a recording's looks that is painted once, before its first frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo.world import HEIGHT_PX, WIDTH_PX, Camera, Road, Script

F32 = NDArray[np.float32]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]

PANORAMA_PX = 1600
TEXTURE_PERIOD_M = 36.0
TEXTURE_HALF_M = 20.0
ACROSS_PX_PER_M = 26.0
ALONG_PX_PER_M = 20.0


@dataclass(frozen=True, slots=True)
class Look:
    """Light and air of one kind of weather at one time of day. Colours are 0..255, light is a factor on colours."""

    sky_top: Colour
    sky_horizon: Colour
    haze: Colour
    haze_m: float
    """Distance over which the air swallows 63 % of the contrast."""
    ambient: Colour
    sun: float
    """Share of direct light; casts shadows from 0.2 on."""
    lights_on: bool
    wet: bool
    noise: float
    """Standard deviation of the sensor's noise, grey levels."""
    clouds: float

    @property
    def dark(self) -> bool:
        """Whether head lights and street lights are what one sees by."""
        return self.ambient[1] < 0.5


def look_for(script: Script) -> Look:
    """The look of a script's weather and time of day."""
    city = script.road == "city"
    if script.time_of_day == "night":
        glow = (58.0, 46.0, 36.0) if city else (24.0, 23.0, 26.0)
        ambient = (0.20, 0.175, 0.15) if city else (0.055, 0.06, 0.08)
        rain = script.weather == "rain"
        return Look((7, 9, 17), glow, (34, 28, 24) if city else (9, 9, 12), 170.0 if rain else 450.0, ambient, 0.0,
                    True, rain, 5.5, 0.3)  # fmt: skip
    if script.time_of_day == "dusk":
        return Look((44, 60, 108), (232, 158, 108), (132, 104, 102), 480.0, (0.33, 0.31, 0.38), 0.05, True, False, 4.0, 1.4)
    looks = {
        "clear": Look((84, 134, 204), (204, 220, 234), (196, 210, 222), 750.0, (0.74, 0.76, 0.80), 0.38, False, False, 1.8, 1.0),
        "overcast": Look((158, 166, 176), (208, 211, 214), (198, 202, 206), 480.0, (0.82, 0.83, 0.85), 0.06, False, False, 2.2, 0.6),
        "rain": Look((112, 119, 128), (164, 169, 174), (150, 155, 160), 130.0, (0.60, 0.62, 0.66), 0.0, True, True, 2.8, 0.5),
        "fog": Look((178, 181, 184), (190, 192, 194), (186, 188, 190), 34.0, (0.68, 0.69, 0.71), 0.0, True, False, 2.6, 0.1),
    }
    return looks[script.weather]


def fractal(rng: np.random.Generator, height: int, width: int, slope: float, stretch: float = 1.0) -> F32:
    """Noise that repeats at its edges, mean 0, deviation 1; its amplitude falls as frequency ** -slope.

    ``stretch`` > 1 makes its features that much wider than high.
    """
    fy = np.fft.fftfreq(height)[:, None] * height
    fx = np.fft.rfftfreq(width)[None, :] * width * stretch
    power = np.maximum(np.hypot(fy, fx), 1.0) ** -slope
    power[0, 0] = 0.0
    phase = rng.uniform(0, 2 * np.pi, power.shape)
    noise = np.fft.irfft2(power * np.exp(1j * phase), s=(height, width))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def lerp(a: F32 | Colour, b: F32 | Colour, share: F32 | float) -> F32:
    """Blend ``a`` into ``b``."""
    a32, b32 = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return a32 + (b32 - a32) * np.asarray(share, np.float32)


def to_image(array: F32) -> Image:
    """Round to bytes."""
    return np.clip(array + 0.5, 0, 255).astype(np.uint8)


def panorama(rng: np.random.Generator, look: Look, script: Script) -> Image:
    """[HEIGHT_PX, PANORAMA_PX, 3] sky, clouds, and hills or a skyline that end in the lowest row."""
    h, w = HEIGHT_PX, PANORAMA_PX
    up = np.linspace(1.0, 0.0, h, dtype=np.float32)[:, None, None]
    sky = lerp(look.sky_horizon, look.sky_top, np.clip(up * 2.3, 0, 1) ** 0.7)
    sky = np.repeat(sky, w, axis=1)
    clouds = np.clip(fractal(rng, h, w, 1.7, 0.35) * 0.55 + 0.05, 0, 1)[..., None] * look.clouds
    bright = lerp(look.sky_horizon, (255, 255, 255), 0.45 if not look.dark else 0.0)
    if script.time_of_day == "dusk":
        bright = np.asarray((186, 110, 104), np.float32)
    sky = lerp(sky, bright, np.clip(clouds * np.clip(up * 5, 0, 1), 0, 0.8))
    columns = np.arange(w)
    rows = h - np.arange(h)[:, None]
    for distance, amplitude, base in ((0.75, 22, 26), (0.5, 12, 12)):
        ridge = base + amplitude * fractal(rng, 1, w, 1.5)[0] * 0.6
        if script.road == "city" and distance < 0.7:
            blocks = np.repeat(rng.uniform(10, 48, w // 20), 20) * np.repeat(rng.random(w // 20) < 0.7, 20)
            ridge = np.maximum(ridge * 0.6, blocks[:w])
        land = np.asarray((58, 72, 54) if script.road != "city" else (86, 84, 84), np.float32) * np.asarray(look.ambient, np.float32)
        far = 1 - np.exp(-2600.0 * distance / 2 / look.haze_m)
        colour = lerp(land, look.haze if look.dark else look.sky_horizon, float(far) * (0.75 if look.haze_m > 200 else 1.0))
        sky = np.where((rows < ridge[columns])[..., None], colour, sky)
    if look.dark and look.haze_m > 100:
        for _ in range(70 if script.time_of_day == "night" else 20):  # windows and lamps far away
            x, y = rng.integers(w), h - rng.integers(3, 26)
            sky[y, x] = lerp(sky[y, x], (255, 214, 150), rng.uniform(0.3, 0.9))
    return to_image(cv2.GaussianBlur(sky.astype(np.float32), (0, 0), 0.7))


@dataclass(frozen=True, slots=True)
class Ground:
    """The road's surface from above, repeating along the road, at several degrees of blur."""

    near: Image
    """[rows along, columns across, 3]"""
    middle: Image
    far: Image


def ground(rng: np.random.Generator, road: Road, camera: Camera, wet: bool) -> Ground:
    """Paint asphalt, markings, kerbs and verge."""
    rows, columns = round(TEXTURE_PERIOD_M * ALONG_PX_PER_M), round(2 * TEXTURE_HALF_M * ACROSS_PX_PER_M)
    x = (np.arange(columns, dtype=np.float32) + 0.5) / ACROSS_PX_PER_M - TEXTURE_HALF_M
    z = ((np.arange(rows, dtype=np.float32) + 0.5) / ALONG_PX_PER_M)[:, None]
    edge = road.half_width_m
    grain = fractal(rng, rows, columns, 0.55)
    stains = fractal(rng, rows, columns, 1.5, 3.0)
    grey = 92.0 + 6.0 * grain + 5.0 * stains
    for lane in road.lanes_x_m + road.oncoming_x_m:  # tyre tracks are polished, the oil between them is dark
        for off, depth in ((-0.8, 6.0), (0.8, 6.0), (0.0, -5.0)):
            grey = grey + depth * np.exp(-(((x - lane - off) / 0.3) ** 2))
    for _ in range(9):  # patches and cracks
        z0, x0 = rng.uniform(0, TEXTURE_PERIOD_M), rng.uniform(-edge, edge)
        inside = (np.abs(z - z0) < rng.uniform(0.5, 3)) & (np.abs(x - x0) < rng.uniform(0.3, 1.0))
        grey = grey + np.where(inside, rng.uniform(-13, 7), 0.0)
        crack = x0 + 0.25 * np.sin(z * rng.uniform(0.3, 1.2)) + 0.1 * np.sin(z * 3.3)
        grey = grey - np.where((np.abs(x - crack) < 0.025) & (np.abs(z - z0) < 5), 30.0, 0.0)
    image = np.stack([grey, grey, grey * 1.015], axis=-1)
    if wet:
        image *= 0.66

    verge = np.stack([92 + 15 * grain + 10 * stains, 104 + 17 * grain + 7 * stains, 62 + 12 * grain], axis=-1)
    if road.name == "city":
        slab = ((np.abs(z % 0.9) < 0.05) | (np.abs(np.abs(x) % 0.9) < 0.04)).astype(np.float32)
        pavement = (150 + 6 * grain + 5 * stains - 26 * slab)[..., None] * np.asarray((1.0, 0.98, 0.95), np.float32)
        verge = np.where((np.abs(x) < edge + 4.2)[:, None], pavement, verge * np.asarray((0.95, 0.9, 0.95), np.float32))
        kerb = (np.abs(np.abs(x) - edge - 0.1) < 0.13)[:, None]
        verge = np.where(kerb, 178 + 8 * grain[..., None] - 30 * (np.abs(z % 1.0) < 0.06)[..., None], verge)
    elif road.name == "highway":
        gravel = np.clip((edge + 1.2 - np.abs(x)) / 0.4, 0, 1)[:, None]
        verge = lerp(verge.astype(np.float32), (120 + 16 * grain)[..., None], gravel)
    ragged = edge if road.name == "city" else edge + 0.12 * fractal(rng, rows, columns, 1.0)
    image = np.where((np.abs(x) > ragged)[..., None], verge, image)
    if road.name == "highway":
        image = np.where((np.abs(x) < 1.0)[:, None], verge, image)

    paint = _markings(road, x, z) * np.clip(1.02 - 0.16 * np.maximum(0, grain + 0.7 * stains), 0.25, 1.0)
    image = lerp(image.astype(np.float32), (226.0, 226.0, 220.0), paint[..., None])
    along = abs(np.cos(camera.yaw_rad)) > 0.7
    return Ground(to_image(image), _blur(image, 0.9 if along else 0.2, 0.05), _blur(image, 3.0 if along else 0.8, 0.15))


def _blur(image: F32, along_m: float, across_m: float) -> Image:
    """Smooth a surface that repeats along the road."""
    rows = image.shape[0]
    sigma = along_m * ALONG_PX_PER_M
    pad = min(rows, int(3 * sigma) + 1)
    tiled = np.concatenate([image[-pad:], image, image[:pad]])
    smooth = cv2.GaussianBlur(tiled, (0, 0), sigmaX=across_m * ACROSS_PX_PER_M, sigmaY=sigma)
    return to_image(np.asarray(smooth, np.float32)[pad : pad + rows])


def _markings(road: Road, x: F32, z: F32) -> F32:
    """[rows, columns] how much paint lies where."""

    def line(at: float, width: float = 0.14) -> F32:
        return np.clip((width / 2 - np.abs(x - at)) * ACROSS_PX_PER_M + 0.5, 0, 1) + 0 * z

    def dashes(period: float, length: float) -> F32:
        return ((z % period) < length).astype(np.float32)

    if road.name == "city":
        paint = line(0.0) * dashes(9, 3.5)
        for side in (-1, 1):
            paint = np.maximum(paint, line(side * 3.75, 0.10) * dashes(6, 4.4))
        return paint
    if road.name == "rural":
        paint = line(0.0) * dashes(12, 4)
        return np.maximum(paint, np.maximum(line(-3.45), line(3.45)))
    paint = 0 * x + 0 * z
    for side in (-1, 1):
        for at in (5.1, 8.7):
            paint = np.maximum(paint, line(side * at, 0.16) * dashes(18, 6))
        paint = np.maximum(paint, np.maximum(line(side * 1.5, 0.2), line(side * 12.3, 0.22)))
    return paint


def facades(rng: np.random.Generator, look: Look, count: int = 7) -> list[list[Image]]:
    """House fronts, each at full, half and quarter size, already lit; rows run down, 128 px for the whole front."""
    size = 128
    walls = ((176, 160, 138), (150, 92, 74), (196, 188, 176), (128, 130, 134), (186, 148, 104), (112, 76, 66), (206, 198, 170))
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
                x0, x1 = int(b * bw + bw * (0.08 if shop else 0.26)), int(b * bw + bw * (0.92 if shop else 0.76))
                glass = lerp((40, 48, 56), look.sky_horizon, 0.12 if look.dark else rng.uniform(0.1, 0.4))
                image[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = wall * 1.18
                image[y0:y1, x0:x1] = glass
                image[y0:y1, (x0 + x1) // 2] = wall
                if look.dark and rng.random() < (0.7 if shop else 0.28):
                    warm = lerp((255, 190, 110), (226, 226, 200), rng.uniform(0, 0.8))
                    emit[y0:y1, x0:x1] = warm * rng.uniform(0.3, 0.9)
        light = np.asarray(look.ambient, np.float32) + look.sun * 0.55
        full = to_image(np.maximum(image * light, emit))
        half = cv2.resize(full, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        out.append([full, np.asarray(half), np.asarray(cv2.resize(half, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))])
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
                    cv2.ellipse(cover, (int(x), y), (int(3 + spread * 0.22), 4), rng.uniform(-20, 20), 0, 360, 255, -1, cv2.LINE_AA)
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


def _branch(rng: np.random.Generator, cover: Image, x: float, y: float, angle: float, length: float, thick: float) -> None:
    if length < 5 or thick < 0.6:
        return
    x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
    cv2.line(cover, (int(x), int(y)), (int(x1), int(y1)), 255, max(1, round(thick)), cv2.LINE_AA)
    for _ in range(int(rng.integers(2, 4))):
        _branch(rng, cover, x1, y1, angle + rng.normal(0, 0.5), length * rng.uniform(0.62, 0.85), thick * 0.62)


def glow_sprite() -> Image:
    """[64, 64] a soft disc of light, 255 in the middle, 0 at its edge."""
    r = np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]).astype(np.float32)
    return to_image(255 * np.clip(np.exp(-((r / 0.16) ** 2)) + 0.42 * np.exp(-((r / 0.42) ** 2)) - 0.004, 0, 1))


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
    return np.repeat(to_image(255 * (1 - 0.24 * np.clip(x * x * 0.8 + y * y * 0.6, 0, 2) ** 1.4))[..., None], 3, axis=2)
