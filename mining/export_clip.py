"""A scene as a clip: every frame from its start to its end, with a margin, as H.264 in an MP4 file.

Frames come from all recordings of the scene's drive and camera, joined in time, each at its own moment: nothing is
resampled, and where footage is missing the last picture stands still. They are upright, as the reader hands them out.
"""

from __future__ import annotations

import difflib
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mining.committee import Committee, committee_of
from mining.config import Config
from mining.decode import Decoder
from mining.footage import FootageError, Source
from mining.footage.names import VIDEO_ENDINGS, ending
from mining.progress import progress
from mining.store import Store, sql_file
from mining.types import Frame, FrameTimes, MiningError, UsageError

ENCODER = "libx264"
_PRESET = "veryfast"
_THREADS = 4
"""Fixed: x264 writes other bytes for another number of threads."""
_TICK_S = Fraction(1, 1_000_000)
"""Microseconds, as captured_at."""
_COLOURS = (
    (86, 180, 233), (230, 159, 0), (240, 228, 66), (204, 121, 167),
    (0, 158, 115), (213, 94, 0), (0, 114, 178), (255, 255, 255),
)  # fmt: skip
"""RGB, one a member of the committee (at most eight): Okabe and Ito, told apart by the colour-blind too."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What became of one scene."""

    scene_id: str
    path: str
    frames: int = 0
    seconds: float = 0.0
    """First to last frame."""
    lost: int = 0
    """Frames that did not decode; the picture before each stands in its place."""
    error: str | None = None
    """Why there is no clip."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The frames of one recording that a clip shows."""

    recording: dict[str, Any]
    source: Source
    times: FrameTimes
    indices: NDArray[np.int64]
    """[n] ascending frame indices, n >= 1."""
    at_us: NDArray[np.int64]
    """[n] when each was taken, microseconds since 1970."""


def run(
    store: Store,
    config: Config,
    scene_ids: Sequence[str],
    to: Path,
    *,
    margin_s: float = 2.0,
    boxes: bool = False,
    crf: int = 20,
) -> list[Clip]:
    """Write one MP4 file a scene.

    Args:
        store: where the scenes are.
        config: names the committee whose boxes are drawn, and the rate of image folders.
        scene_ids: at least one.
        to: a file that ends in ``.mp4`` (for one scene), or a folder that gets ``SCENE_ID.mp4`` for each.
        margin_s: seconds before the first hard frame and after the last, as far as there is footage.
        boxes: draw what each member saw, from one sampled frame to the next.
        crf: x264's constant rate factor, 1 (best) to 51.

    Returns:
        One Clip a scene; footage that is gone or has changed is an ``error`` there, and the other scenes go on.

    Raises:
        UsageError: an unknown scene, another committee's boxes, or a wrong ``to``.
        MiningError: the file cannot be written, or this PyAV cannot encode H.264.
    """
    if ENCODER not in av.codecs_available:
        raise MiningError(
            f"this PyAV cannot encode H.264: it was built without {ENCODER}; install PyAV's own wheel"
        )
    scenes = [_scene(store, scene_id) for scene_id in dict.fromkeys(scene_ids)]
    paths = _targets(to, [str(scene["scene_id"]) for scene in scenes])
    committee = _boxes_committee(config, scenes) if boxes else None
    clips = []
    with Decoder(config) as decoder:
        for scene, path in zip(scenes, paths, strict=True):
            try:
                parts = _parts(store, decoder, scene, margin_s)
                painter = _Painter(store, committee)
                clips.append(_write(path, str(scene["scene_id"]), parts, decoder, painter, crf))
            except FootageError as error:
                clips.append(Clip(str(scene["scene_id"]), str(path), error=str(error)))
    return clips


def _scene(store: Store, scene_id: str) -> dict[str, Any]:
    with store.connect() as con:
        found = con.sql(
            "FROM scenes WHERE scene_id = $scene_id ORDER BY night", params={"scene_id": scene_id}
        )
        rows = found.to_arrow_table().to_pylist()
        if rows:
            return rows[0]
        known = [row[0] for row in con.sql("SELECT scene_id FROM scenes ORDER BY start_ns DESC").fetchall()]
    if not known:
        raise UsageError(f"{store.root}: holds no scenes yet; `mining scenes --config CONFIG` finds them")
    near = difflib.get_close_matches(scene_id, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the latest: {', '.join(known[:5])}"
    raise UsageError(f"no scene is called {scene_id!r}; {hint}")


def _targets(to: Path, scene_ids: list[str]) -> list[Path]:
    """Where each scene's clip goes."""
    if to.suffix.lower() == ".mp4" and not to.is_dir():
        if len(scene_ids) > 1:
            raise UsageError(f"--to {to}: one file for {len(scene_ids)} scenes; name a folder")
        return [to]
    if ending(str(to)) in VIDEO_ENDINGS and not to.is_dir():
        raise UsageError(f"--to {to}: clips are MP4; name a folder, or FILE.mp4")
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {to}: is a file, and not called .mp4; name a folder, or FILE.mp4")
    return [to / f"{scene_id}.mp4" for scene_id in scene_ids]


def _boxes_committee(config: Config, scenes: list[dict[str, Any]]) -> Committee:
    committee = committee_of(config)
    for scene in scenes:
        if scene["committee_id"] != committee.committee_id:
            raise UsageError(
                f"scene {scene['scene_id']} was found by committee {scene['committee_id']}, the config has "
                f"{committee.committee_id}: draw boxes with the config that found it"
            )
    return committee


# Which frames.


def _parts(store: Store, decoder: Decoder, scene: dict[str, Any], margin_s: float) -> list[_Part]:
    """List a clip's frames, after making sure that each recording is still the one that was indexed."""
    from_us = scene["start_ns"] // 1000 - round(margin_s * 1e6)
    to_us = scene["end_ns"] // 1000 + round(margin_s * 1e6)
    span = {"drive_id": scene["drive_id"], "camera": scene["camera"], "from_us": from_us, "to_us": to_us}
    with store.connect() as con:
        recordings = con.sql(sql_file("clip_recordings"), params=span).to_arrow_table().to_pylist()
    parts = []
    for recording in recordings:
        source = Source(recording["uri"], recording["kind"])
        times = _unchanged_times(source, recording, decoder)
        at_us = recording["start_us"] + (times.pts_ns - times.pts_ns[0]) // 1000
        # Where recordings overlap the earlier one is shown to its end; frames of equal time are one picture.
        inside = (at_us >= from_us) & (at_us <= to_us) & (np.diff(at_us, prepend=at_us[0] - 1) > 0)
        indices = np.flatnonzero(inside)
        if len(indices):
            parts.append(_Part(recording, source, times, indices, at_us[indices]))
            from_us = int(at_us[indices[-1]]) + 1
    if not parts:
        raise FootageError(
            f"scene {scene['scene_id']}: its footage is no longer indexed at that time; run `mining run` again"
        )
    return parts


def _unchanged_times(source: Source, recording: dict[str, Any], decoder: Decoder) -> FrameTimes:
    times = decoder.times(source, (recording["size_bytes"], recording["modified_ns"]))
    sampled = np.asarray(recording["sampled_indices"], np.int64)
    if sampled[-1] >= len(times) or (times.pts_ns[sampled] != recording["sampled_pts_ns"]).any():
        raise FootageError(
            f"{source.path}: the times of its frames have changed since it was indexed; run `mining index`"
        )
    return times


# Boxes.


class _Painter:
    """Draws what a committee saw; draws nothing where there is none."""

    def __init__(self, store: Store, committee: Committee | None) -> None:
        self._store, self._committee = store, committee
        self._sampled = np.zeros(0, np.int64)
        self._boxes: dict[int, list[tuple[Any, ...]]] = {}

    def begin(self, part: _Part) -> None:
        """Fetch the boxes of a part's sampled frames, and of the last one before it."""
        if self._committee is None:
            return
        self._sampled = np.asarray(part.recording["sampled_indices"], np.int64)
        first = self._sampled[np.searchsorted(self._sampled, part.indices[0], side="right") - 1]
        members = {"detector": list(self._committee.names), "threshold": list(self._committee.thresholds)}
        with self._store.connect() as con:
            con.register("members", pa.table(members))
            seen = con.execute(
                sql_file("clip_boxes"),
                {
                    "committee_id": self._committee.committee_id,
                    "recording_id": part.recording["recording_id"],
                    "first": int(first),
                    "last": int(part.indices[-1]),
                },
            ).fetchall()
        self._boxes = {}
        for index, *box in seen:
            self._boxes.setdefault(index, []).append(tuple(box))

    def paint(self, rgb: NDArray[np.uint8], frame_index: int) -> NDArray[np.uint8]:
        """Draw the boxes of the latest sampled frame, and the members' names in their colours."""
        if self._committee is None:
            return rgb
        names = self._committee.names
        scale = max(0.4, rgb.shape[0] / 900)
        thick = max(1, round(2 * scale))
        painted = rgb.copy()
        sample = int(self._sampled[np.searchsorted(self._sampled, frame_index, side="right") - 1])
        for detector, class_name, confidence, x1, y1, x2, y2 in self._boxes.get(sample, ()):
            member = names.index(detector)
            cv2.rectangle(painted, (round(x1), round(y1)), (round(x2), round(y2)), _COLOURS[member], thick)
            # Members often agree: every other one writes under the box, not over it.
            line_px = round(24 * scale)
            y = min(round(y2) + line_px, rgb.shape[0] - 3) if member % 2 else max(round(y1) - 4, line_px)
            _text(painted, f"{class_name} {confidence:.2f}", (round(x1), y), scale, _COLOURS[member])
        for row, name in enumerate(names, start=1):
            _text(painted, name, (4, round(30 * scale * row)), scale, _COLOURS[row - 1])
        return painted


def _text(
    rgb: NDArray[np.uint8], text: str, corner: tuple[int, int], scale: float, colour: tuple[int, int, int]
) -> None:
    """Write on a dark rim, to be read on any ground."""
    for rim, tone in ((3, (0, 0, 0)), (1, colour)):
        cv2.putText(rgb, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, tone, rim, cv2.LINE_AA)


# Encoding.


def _write(
    path: Path, scene_id: str, parts: list[_Part], decoder: Decoder, painter: _Painter, crf: int
) -> Clip:
    """Encode beside the place and rename: nobody sees half a clip."""
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MiningError(f"{path.parent}: cannot be made: {error.strerror}") from None
    try:
        written, lost = _encode(partial, parts, decoder, painter, crf)
        if not written:
            raise FootageError(f"scene {scene_id}: none of its {lost} frames decodes")
        os.replace(partial, path)
    except FootageError:
        raise
    except (OSError, FFmpegError) as error:
        raise MiningError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return Clip(scene_id, str(path), len(written), (written[-1] - written[0]) / 1e6, lost)


def _encode(
    path: Path, parts: list[_Part], decoder: Decoder, painter: _Painter, crf: int
) -> tuple[list[int], int]:
    """Write the frames that decode. Returns their times (microseconds since 1970), and how many did not decode."""
    written: list[int] = []
    lost = 0
    rate_hz = next((p.recording["frame_rate_hz"] for p in parts if p.recording["frame_rate_hz"]), 1.0)
    with (
        av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container,
        progress("clip", sum(len(part.indices) for part in parts), "frames") as shown,
    ):
        stream = container.add_stream(
            ENCODER,
            rate=Fraction(rate_hz).limit_denominator(1001),
            options={"crf": str(crf), "preset": _PRESET},
        )
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = _TICK_S
        codec.thread_count = _THREADS
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for at_us, frame in _frames(parts, decoder, painter):
            shown.advance()
            if frame.rgb is None:
                lost += 1
                continue
            rgb = _even(frame.rgb)
            size_px = (rgb.shape[1], rgb.shape[0])
            if not written:
                stream.width, stream.height = size_px
            elif size_px != (stream.width, stream.height):
                raise FootageError(
                    f"frames of {stream.width}x{stream.height} and {size_px[0]}x{size_px[1]} make no one clip: "
                    "shorten --margin-s to leave one of them out"
                )
            written.append(at_us)
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            picture.pts, picture.time_base = at_us - written[0], _TICK_S
            container.mux(stream.encode(picture))
        if written:
            container.mux(stream.encode(None))
    return written, lost


def _frames(parts: list[_Part], decoder: Decoder, painter: _Painter) -> Iterator[tuple[int, Frame]]:
    """(microseconds since 1970, frame) in order of time."""
    for part in parts:
        painter.begin(part)
        recording = part.recording
        size_px = (recording["width_px"], recording["height_px"])
        frames = decoder.frames(part.source, part.times, part.indices, size_px)
        for at_us, frame in zip(part.at_us.tolist(), frames, strict=True):
            rgb = None if frame.rgb is None else painter.paint(frame.rgb, frame.frame_index)
            yield at_us, Frame(frame.frame_index, frame.pts_ns, rgb, frame.error)


def _even(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column where their number is odd: yuv420p halves both."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return rgb
