"""Writes the demo's drives: H.264 video, sidecar, telemetry and truth, one process a recording."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mining.demo.layout import build
from mining.demo.render import Renderer
from mining.demo.scripts import FRAME_RATE_HZ, HEIGHT_PX, WIDTH_PX, Script, plan
from mining.demo.truth import SCHEMA, truth_path
from mining.demo.world import Box, World
from mining.types import UsageError

# One thread: with more, x264's output depends on their number. A constant quantiser and no B frames: then a picture
# that stands still decodes to the very same pixels, where rate control would go on refining it.
_X264 = {"preset": "veryfast", "qp": "27", "threads": "1", "bf": "0", "g": "100", "sc_threshold": "0"}
_METRES_PER_DEGREE = 111_320.0


def make_drives(
    folder: Path,
    seed: int = 7,
    drives: int = 8,
    progress: Callable[[int], None] | None = None,
    seconds: float | None = None,
) -> list[Path]:
    """Render and encode a night's drives into ``folder``; returns the videos.

    Beside each NAME.mp4 lie NAME.toml (sidecar), NAME.csv (telemetry, one row a frame) and NAME.truth.parquet
    (``mining.demo.truth.SCHEMA``). The same seed gives the same bytes on the same machine. ``progress`` is called with
    1 after each recording; ``seconds`` cuts every drive short.
    """
    if drives < 1:
        raise UsageError(f"drives is {drives}; a demo needs at least 1")
    if seconds is not None and seconds * FRAME_RATE_HZ < 1:
        raise UsageError(f"seconds is {seconds}; a drive needs at least one frame, {1 / FRAME_RATE_HZ} s")
    folder.mkdir(parents=True, exist_ok=True)
    scripts = plan(drives)
    longest_first = sorted(range(drives), key=lambda i: -_cost(scripts[i]))
    workers = min(drives, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(make_drive, folder, scripts[i], seed, seconds) for i in longest_first]
        for job in as_completed(jobs):
            job.result()
            if progress is not None:
                progress(1)
    return [folder / f"{script.stem}.mp4" for script in scripts]


def _cost(script: Script) -> float:
    return script.seconds * (2.0 if script.road == "city" else 1.0)


def make_drive(folder: Path, script: Script, seed: int, seconds: float | None = None) -> Path:
    """Write one recording with everything that goes beside it; the video comes last."""
    cv2.setNumThreads(1)  # the processes share the cores among them
    world = build(script, seed, seconds)
    renderer = Renderer(world)
    video, truth = folder / f"{script.stem}.mp4", []
    partial = video.with_suffix(".mp4.partial")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE_HZ, options=_X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, FRAME_RATE_HZ)
        for index in range(len(world.time_s)):
            image, boxes = renderer.frame(index)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE_HZ)
            container.mux(stream.encode(frame))
            truth += [(index, box) for box in boxes]
        container.mux(stream.encode(None))
    pq.write_table(_truth_table(truth), truth_path(video))
    pa.csv.write_csv(_telemetry(world), video.with_suffix(".csv"))
    video.with_suffix(".toml").write_text(_sidecar(script), encoding="utf-8")
    partial.replace(video)
    return video


def _sidecar(script: Script) -> str:
    lines = [
        f'drive_id = "{script.drive_id}"',
        f'vehicle_id = "{script.vehicle_id}"',
        f'camera = "{script.camera}"',
        f"started_at = {script.started_at:%Y-%m-%dT%H:%M:%SZ}",
        "",
        "[tags]",
        f'weather = "{script.weather}"',
        f'time_of_day = "{script.time_of_day}"',
        f'city = "{script.city}"',
        f'road = "{script.road}"',
    ]
    return "\n".join(lines) + "\n"


def _telemetry(world: World) -> pa.Table:
    """Position and speed at each frame; the drive begins in the middle of its city."""
    script = world.script
    clock = np.arange(len(world.time_s)) / FRAME_RATE_HZ
    step = np.diff(world.s_m, prepend=world.s_m[0])
    north = np.cumsum(step * np.cos(world.heading_rad))
    east = np.cumsum(step * np.sin(world.heading_rad))
    return pa.table({
        "time_s": np.round(clock, 3),
        "speed_mps": np.round(world.speed_mps, 3),
        "latitude_deg": np.round(script.latitude_deg + north / _METRES_PER_DEGREE, 7),
        "longitude_deg": np.round(
            script.longitude_deg + east / (_METRES_PER_DEGREE * np.cos(np.radians(script.latitude_deg))), 7
        ),
        "heading_deg": np.round(np.degrees(world.heading_rad) % 360.0, 3),
    })  # fmt: skip


def _truth_table(truth: list[tuple[int, Box]]) -> pa.Table:
    columns = {
        "frame_index": [index for index, _ in truth],
        "class": [box.kind for _, box in truth],
        **{name: [getattr(box, name) for _, box in truth] for name in SCHEMA.names[2:]},
    }
    return pa.table(columns, schema=SCHEMA)
