"""The frames around some times of a video, listed without reading the rest of the file: for a few pictures of a long one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from av.packet import Packet

from mining.footage.container import AV_ERRORS, open_video
from mining.footage.timeline import ns_to_ticks, ticks_to_ns
from mining.footage.video import is_frame
from mining.types import FrameTimes

_BEYOND = 20
"""Packets listed after the one that is looked for: the reader looks at as many pictures as may be reordered (at most 16, in
H.264 and HEVC) before it trusts one."""


def near_times(path: str, pts_ns: Sequence[int]) -> FrameTimes | None:
    """List the frames from the key frame before each of these times up to a little after it, and the file's first.

    ``reader.read_video`` gives the same pixels with these as with all of a file's frames, numbered otherwise.

    Args:
        path: a video file.
        pts_ns: exact presentation times of frames, as ``frame_times`` lists them.

    Returns:
        None where that cannot be told from a part of the file: it has no index, its packets carry no display times, one of
        the times is not found, or several frames have it.

    Raises:
        FootageError: the file cannot be opened.
    """
    wanted = sorted(set(pts_ns))
    if len(wanted) < len(pts_ns):
        return None
    with open_video(path) as opened:
        tick_s = opened.stream.time_base
        if tick_s is None or not opened.has_display_times or not len(opened.stream.index_entries):
            return None
        try:
            found = _ticks_until(opened.packets(), None)  # the first frame: the reader counts from it
            for at_ns in wanted:
                at = ns_to_ticks(at_ns, tick_s)
                opened.container.seek(at, stream=opened.stream)
                found |= _ticks_until(opened.packets(), at)
        except AV_ERRORS:
            return None
    times = np.array(sorted(ticks_to_ns(ticks, tick_s) for ticks, _ in found), np.int64)
    places, ends = (np.searchsorted(times, wanted, side=side) for side in ("left", "right"))
    return FrameTimes(times) if (ends - places == 1).all() else None


def _ticks_until(packets: Iterable[Packet], at: int | None) -> set[tuple[int, int]]:
    """(pts, dts) in ticks of each frame from the next key frame up to some after this time; None: some of the beginning."""
    found: set[tuple[int, int]] = set()
    key_seen, beyond = False, 0
    for packet in packets:
        key_seen = key_seen or packet.is_keyframe
        if not key_seen or not is_frame(packet) or packet.pts is None:
            continue
        dts = packet.pts if packet.dts is None else packet.dts
        found.add((packet.pts, dts))
        # A packet comes before its picture is shown: whatever lies beyond is shown later.
        beyond += at is None or dts > at
        if beyond > _BEYOND:
            break
    return found
