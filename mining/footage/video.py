"""What a video file holds, found from its packets: every frame's time, size, codec, and whether all of it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mining.footage.container import AV_ERRORS, Opened, one_line, open_video
from mining.footage.source import Facts, FootageError
from mining.footage.timeline import even_times, ticks_to_ns
from mining.types import FrameTimes

_FIRST_FRAME_PACKETS = 600
"""Packets to feed while waiting for the first picture (edit lists can hide a few hundred)."""
_LONGEST_S = 366 * 86400
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""Container times before this are unset clocks (1904, 1970, 1980)."""


def probe_video(path: str) -> Facts:
    """Read a video file's packets; decode nothing but its first frame (to learn which way is up).

    Raises FootageError where nothing in the file can be used.
    """
    with open_video(path) as opened:
        stream = opened.stream
        scan = _scan_packets(opened)
        times, faults = _frame_times(scan, opened)
        if not len(times):
            raise FootageError(f"no frame in it: {'; '.join(faults) or 'the video stream is empty'}")
        width, height = stream.codec_context.width, stream.codec_context.height
        if scan.first_frame is not None:
            width, height = scan.first_frame.width, scan.first_frame.height
            if quarter_turns(scan.first_frame) % 2:
                width, height = height, width
        else:
            faults.append("its first frames do not decode")
        promised = stream.frames or None
        faults += _missing_end(opened, scan, promised)
        return Facts(
            times=times,
            codec=stream.codec_context.name,
            size_px=(width, height),
            frame_count_from_header=promised,
            created_at=_created_at(opened.container.metadata, stream.metadata),
            faults=faults,
        )


def quarter_turns(frame: VideoFrame) -> int:
    """How often the container asks to turn the frame counter-clockwise by 90 degrees, 0..3."""
    return round(frame.rotation / 90) % 4


@dataclass(slots=True)
class _Scan:
    """The packets of one stream."""

    packets: int = 0
    ticks: list[int] = field(default_factory=list)
    """Times of the frames, in decode order and time-base ticks; empty where the stream carries none."""
    untimed: int = 0
    """Frames without any time."""
    first_frame: VideoFrame | None = None
    last_packet_cut: bool = False
    time_jumps_back: bool = False
    faults: list[str] = field(default_factory=list)


def _scan_packets(opened: Opened) -> _Scan:
    """Walk over every packet once. What comes before the first key frame can never be decoded and is left out."""
    scan = _Scan()
    key_seen, latest_key = False, -math.inf
    for packet in _packets_until_broken(opened, scan):
        scan.packets += packet.size > 0
        if scan.first_frame is None and scan.packets <= _FIRST_FRAME_PACKETS:
            scan.first_frame = _try_decode(opened.stream, packet)
        key_seen = key_seen or packet.is_keyframe
        if not key_seen or not is_frame(packet):
            continue
        scan.last_packet_cut = packet.is_corrupt
        ticks = packet.pts if opened.has_display_times and packet.pts is not None else packet.dts
        if ticks is None:
            scan.untimed += 1
            continue
        scan.ticks.append(ticks)
        if packet.is_keyframe:
            scan.time_jumps_back |= ticks < latest_key
            latest_key = ticks
    return scan


def is_frame(packet: Packet) -> bool:
    """Whether a packet becomes a frame: not empty, not hidden by an edit list, no invisible VP8 reference frame."""
    if not packet.size or packet.is_discard:
        return False
    return not (packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10)


def _packets_until_broken(opened: Opened, scan: _Scan) -> Iterator[Packet]:
    """Packets up to the end, or to where the container breaks off (noted in ``scan.faults``)."""
    try:
        yield from opened.packets()
    except AV_ERRORS as error:
        scan.faults.append(f"breaks off after {scan.packets} packets ({one_line(error)})")


def _try_decode(stream: VideoStream, packet: Packet) -> VideoFrame | None:
    try:
        frames = stream.codec_context.decode(packet if packet.size else None)
    except AV_ERRORS:
        return None
    return frames[0] if frames else None


def _frame_times(scan: _Scan, opened: Opened) -> tuple[FrameTimes, list[str]]:
    """Put the frames in order of display, and say what is odd about their times."""
    faults = list(scan.faults)
    tick_s = opened.stream.time_base
    if tick_s is None or (scan.untimed and not scan.ticks):
        return even_times(scan.untimed + len(scan.ticks), _raw_rate_hz(opened.stream)), faults
    if scan.untimed:
        faults.append(f"{scan.untimed} frames carry no time and are left out")
    if scan.time_jumps_back:
        faults.append("time jumps back inside it (files joined?): frames there may be lost")
    ticks = sorted(scan.ticks)
    if ticks and (ticks[-1] - ticks[0]) * tick_s > _LONGEST_S:
        raise FootageError(
            f"its frames spread over {float((ticks[-1] - ticks[0]) * tick_s / 86400):.0f} days: damaged"
        )
    try:
        return FrameTimes(np.array([ticks_to_ns(t, tick_s) for t in ticks], dtype=np.int64)), faults
    except OverflowError:
        raise FootageError("its frames lie beyond any calendar: damaged") from None


def _raw_rate_hz(stream: VideoStream) -> Fraction:
    """The rate that the bit stream itself states, else FFmpeg's guess (25)."""
    return stream.codec_context.framerate or stream.average_rate or Fraction(25)


def _missing_end(opened: Opened, scan: _Scan, promised: int | None) -> list[str]:
    """Signs that the file was cut off; a header that counts frames hidden by an edit list promises nothing false."""
    if promised is not None and scan.packets < promised:
        return [f"cut off: holds {scan.packets} of the {promised} frames in its index"]
    if scan.last_packet_cut:
        return ["cut off inside its last frame"]
    stated_s = _stated_duration_s(opened)
    if stated_s is not None and scan.ticks and opened.stream.time_base is not None:
        held_s = float((max(scan.ticks) - min(0, *scan.ticks)) * opened.stream.time_base)
        if stated_s - held_s > max(1.0, 2 * stated_s / max(1, len(scan.ticks))):
            return [f"cut off: ends at {held_s:.1f} s of the {stated_s:.1f} s in its header"]
    return []


def _stated_duration_s(opened: Opened) -> float | None:
    """How long the header of a Matroska file says that the video stream is (other containers count frames)."""
    if "matroska" not in opened.container.format.name:
        return None
    text = opened.stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = text.split("\0")[0].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _created_at(*metadata: dict[str, str]) -> datetime | None:
    """Return the first creation time that a clock can have shown."""
    for values in metadata:
        try:
            moment = datetime.fromisoformat(values.get("creation_time", ""))
        except ValueError:
            continue
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if _EARLIEST <= moment <= datetime.now(UTC) + timedelta(days=1):
            return moment
    return None
