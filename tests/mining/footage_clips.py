"""Clips that the footage tests make for themselves, and the plain decoder that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX = 160, 96


def picture(n: int, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """A drifting pattern that differs in every frame and gives B-frames something to predict."""
    y, x = np.mgrid[:height, :width]
    wave = 127 + 60 * np.sin((x + 3 * n) / 9.0) + 60 * np.sin((y - 2 * n) / 7.0)
    rgb = np.stack([wave, np.roll(wave, n, axis=1), 255 - wave], axis=-1)
    rgb[:8, :8] = n * 37 % 256
    return rgb.clip(0, 255).astype(np.uint8)


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    ticks: Sequence[int] = range(60),
    tick_s: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    gop: int = 12,
    rotation_deg: int = 0,
    size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write one frame for each tick; frame n shows picture(n)."""
    with av.open(path, "w", format=container_format, options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=1 / tick_s, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = tick_s
        stream.gop_size = gop
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        for n, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(n, *size), format="rgb24")
            frame.pts, frame.time_base = tick, tick_s
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[tuple[int | None, NDArray[np.uint8]]]:
    """(pts, RGB) of every frame, by PyAV's plain loop from the start: the reference."""
    with av.open(str(path)) as container:
        return [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def remux(
    source: Path, target: Path, container_options: dict[str, str] | None = None, limit: int = 10**9
) -> Path:
    """Copy the first packets of a clip into another container."""
    with av.open(str(source)) as reader, av.open(target, "w", options=container_options or {}) as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        for n, packet in enumerate(p for p in reader.demux(stream) if p.dts is not None):
            if n == limit:
                break
            packet.stream = out
            writer.mux(packet)
    return target
