"""Light, sky and surfaces: everything about a recording's looks that is painted once, before its first frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.demo.scripts import HEIGHT_PX, Camera, Road, Script

F32 = NDArray[np.float32]
AnyFloat = NDArray[np.float32] | NDArray[np.float64]
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
        return Look(
            (44, 60, 108),
            (232, 158, 108),
            (132, 104, 102),
            480.0,
            (0.33, 0.31, 0.38),
            0.05,
            True,
            False,
            4.0,
            1.4,
        )
    looks = {
        "clear": Look(
            (84, 134, 204),
            (204, 220, 234),
            (196, 210, 222),
            750.0,
            (0.74, 0.76, 0.80),
            0.38,
            False,
            False,
            1.8,
            1.0,
        ),
        "overcast": Look(
            (158, 166, 176),
            (208, 211, 214),
            (198, 202, 206),
            480.0,
            (0.82, 0.83, 0.85),
            0.06,
            False,
            False,
            2.2,
            0.6,
        ),
        "rain": Look(
            (112, 119, 128),
            (164, 169, 174),
            (150, 155, 160),
            130.0,
            (0.60, 0.62, 0.66),
            0.0,
            True,
            True,
            2.8,
            0.5,
        ),
        "fog": Look(
            (178, 181, 184),
            (190, 192, 194),
            (186, 188, 190),
            34.0,
            (0.68, 0.69, 0.71),
            0.0,
            True,
            False,
            2.6,
            0.1,
        ),
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


def lerp(a: AnyFloat | Colour, b: AnyFloat | Colour, share: AnyFloat | float) -> F32:
    """Blend ``a`` into ``b``."""
    a32, b32 = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return a32 + (b32 - a32) * np.asarray(share, np.float32)


def to_image(array: AnyFloat) -> Image:
    """Round to bytes."""
    return np.clip(array + 0.5, 0, 255).astype(np.uint8)


def scaled(image: Image, factor: float) -> Image:
    """Multiply, with rounding and saturation."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor), np.uint8)


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
        land = np.asarray((58, 72, 54) if script.road != "city" else (86, 84, 84), np.float32) * np.asarray(
            look.ambient, np.float32
        )
        far = 1 - np.exp(-2600.0 * distance / 2 / look.haze_m)
        colour = lerp(
            land,
            look.haze if look.dark else look.sky_horizon,
            float(far) * (0.75 if look.haze_m > 200 else 1.0),
        )
        sky = np.where((rows < ridge[columns])[..., None], colour, sky)
    if look.dark and look.haze_m > 100:
        for _ in range(70 if script.time_of_day == "night" else 20):  # windows and lamps far away
            x, y = rng.integers(w), h - rng.integers(3, 26)
            sky[y, x] = lerp(sky[y, x], (255, 214, 150), rng.uniform(0.3, 0.9))
    return to_image(np.asarray(cv2.GaussianBlur(sky.astype(np.float32), (0, 0), 0.7), np.float32))


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
        pavement = (150 + 6 * grain + 5 * stains - 26 * slab)[..., None] * np.asarray(
            (1.0, 0.98, 0.95), np.float32
        )
        verge = np.where(
            (np.abs(x) < edge + 4.2)[:, None], pavement, verge * np.asarray((0.95, 0.9, 0.95), np.float32)
        )
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
    return Ground(
        to_image(image), _blur(image, 0.9 if along else 0.2, 0.05), _blur(image, 3.0 if along else 0.8, 0.15)
    )


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
