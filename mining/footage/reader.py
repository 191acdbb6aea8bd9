"""Exact frames of a video: the same pixels whether read from the start or after a jump to the middle.

A frame is found by its presentation time. A jump lands on a key frame and is checked: the first picture must be a key
frame at or before the frame asked for; otherwise the jump goes further back, in the end to the very start.

Damage is followed in decode order. From a damaged packet up to the next key frame nothing is trusted, because later
pictures are predicted from it, even where the decoder is content with them. Frames before it are good.

One thread decodes a file. With several, FFmpeg reports damage some packets late, so that whether a picture just before
it counts as good would depend on timing; recordings, not frames, are what to decode side by side.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from mining.footage.container import AV_ERRORS, Opened, open_video
from mining.footage.timeline import NS_PER_S, ns_to_ticks, ticks_to_ns
from mining.footage.video import is_frame, quarter_turns
from mining.types import Frame, FrameTimes

_WORTHWHILE_JUMP_NS = NS_PER_S // 2
"""Decoding less than this is cheaper than a jump."""
_BLIND_JUMP_NS = 10 * NS_PER_S
"""The same where no index says where key frames are (transport streams; Matroska before the first jump)."""
_STEPS_BACK_NS = (0, 3 * NS_PER_S, 15 * NS_PER_S, 60 * NS_PER_S)
"""How far before the frame to aim, one try after the other, before decoding from the start."""
_KEYS_REMEMBERED = 64
"""More than a decoder ever holds back."""
_UNSPECIFIED = 2
"""FFmpeg's number for a colour space that the file does not state."""


def read_video(
    path: str, times: FrameTimes, indices: Sequence[int], size_px: tuple[int, int] | None
) -> Iterator[Frame]:
    """Yield one Frame for each index (ascending, distinct, in range).

    ``size_px`` is the recording's (width, height); a frame of another size becomes an error. Raises FootageError where
    the file cannot be opened at all.
    """
    with ExitStack() as stack:
        run = _Run(path, times, indices, stack)
        for index in indices:
            yield run.frame(index, size_px)


@dataclass(slots=True)
class _Picture:
    """One decoded picture on its way out."""

    index: int
    ordinal: int
    """Of its packet, counted in decode order since the start or the last jump."""
    pts_ns: int
    is_key: bool
    frame: VideoFrame | None
    """None where nobody asked for it."""


class _Run:
    """An open file and the place in it that decoding has reached."""

    def __init__(self, path: str, times: FrameTimes, indices: Sequence[int], stack: ExitStack) -> None:
        self._path, self._times, self._stack = path, times, stack
        self._wanted = np.zeros(len(times), dtype=np.bool_)
        self._wanted[list(indices)] = True
        self._convert = _Converter()
        self._reorder_depth = 0
        self._blind_jumps_pay = True
        self._start_over()

    def frame(self, index: int, size_px: tuple[int, int] | None) -> Frame:
        """Frame ``index``; indices are asked for in ascending order."""
        if self._should_jump(index):
            self._jump(index)
        pts_ns = int(self._times.pts_ns[index])
        while (picture := self._next_picture()) is not None:
            if picture.index < index:
                continue
            if picture.index > index or picture.frame is None:
                self._waiting.appendleft(picture)
                break
            if self._is_damaged(picture):
                return Frame(
                    index, pts_ns, None, "damaged: data is lost here or in a frame that it is built from"
                )
            return self._convert.to_frame(picture.frame, index, pts_ns, size_px)
        return Frame(index, pts_ns, None, "damaged or cut off: the decoder gives no picture for it")

    # Where to decode from.

    def _start_over(self) -> None:
        """Open the file (anew) and decode from its first key frame."""
        self._stack.close()
        self._opened: Opened = self._stack.enter_context(open_video(self._path))
        self._begin()

    def _begin(self) -> None:
        """Forget everything that holds only up to a jump."""
        self._reached_ns: int | None = None
        self._packets_sent = 0
        self._ordinals: dict[int, deque[int]] = {}
        self._keys: deque[tuple[int, int]] = deque(maxlen=_KEYS_REMEMBERED)
        self._damaged: list[int] = []
        self._last: tuple[int, int | None] = (-1, None)
        self._waiting: deque[_Picture] = deque()
        self._pictures = self._decode()

    def _should_jump(self, index: int) -> bool:
        """Whether a key frame lies so far ahead that jumping there saves work."""
        stream = self._opened.stream
        if stream.time_base is None or not self._opened.has_display_times:
            return False
        target_ns, here_ns = int(self._times.pts_ns[index]), self._here_ns()
        entries = stream.index_entries
        key = entries.search_timestamp(ns_to_ticks(target_ns, stream.time_base), backward=True)
        if (
            key >= 0
            and ticks_to_ns(entries[key].timestamp, stream.time_base) - here_ns >= _WORTHWHILE_JUMP_NS
        ):
            return True
        reaches_target = len(entries) and ticks_to_ns(entries[-1].timestamp, stream.time_base) >= target_ns
        return not reaches_target and self._blind_jumps_pay and target_ns - here_ns >= _BLIND_JUMP_NS

    def _here_ns(self) -> int:
        """Time up to which packets have been decoded."""
        return int(self._times.pts_ns[0]) if self._reached_ns is None else self._reached_ns

    def _jump(self, index: int) -> None:
        """Go to a key frame from which frame ``index`` can be decoded."""
        stream, pts_ns, here_ns = self._opened.stream, self._times.pts_ns, self._here_ns()
        assert stream.time_base is not None
        # Frames of equal time are told apart by counting from the first of them.
        first_index = int(np.searchsorted(pts_ns, pts_ns[index]))
        for step_ns in _STEPS_BACK_NS if len(stream.index_entries) else _STEPS_BACK_NS[1:]:
            target_ns = int(pts_ns[first_index]) - step_ns
            if target_ns <= pts_ns[0]:
                break
            try:
                self._opened.container.seek(ns_to_ticks(target_ns, stream.time_base), stream=stream)
            except AV_ERRORS:
                break
            # A flushed decoder forgets how far pictures are reordered, and drops some until it has learnt it again.
            stream.codec_context.reorder_depth = self._reorder_depth
            self._begin()
            first = next(self._pictures, None)
            if first is not None and first.is_key and first.index <= first_index:
                self._waiting.append(first)
                self._blind_jumps_pay &= first.pts_ns > here_ns
                return
        self._blind_jumps_pay = False
        self._start_over()

    # Decoding, and which picture is which frame.

    def _next_picture(self) -> _Picture | None:
        """Return the next picture in display order, once all that it can be built from has been looked at.

        A picture shown earlier may be built from one shown later: damage of the later one is known only when that one
        comes out, at most the reorder depth behind.
        """
        while len(self._waiting) <= self._reorder_depth + 1:
            picture = next(self._pictures, None)
            if picture is None:
                break
            self._waiting.append(picture)
        return self._waiting.popleft() if self._waiting else None

    def _decode(self) -> Iterator[_Picture]:
        """Pictures in display order from the next key frame on."""
        codec = self._opened.stream.codec_context
        for packet in self._packets():
            try:
                frames = codec.decode(packet)
            except AV_ERRORS:
                self._note_damage(self._packets_sent - 1)
                continue
            self._reorder_depth = max(self._reorder_depth, codec.reorder_depth)
            for frame in frames:
                picture = self._identify(frame)
                if picture is not None:
                    yield picture

    def _packets(self) -> Iterator[Packet | None]:
        """Packets from the next key frame on, each noted; None at the end lets the decoder give what it holds."""
        try:
            for packet in self._opened.packets():
                if packet.size and (self._packets_sent or packet.is_keyframe):
                    self._note(packet)
                    yield packet
        except AV_ERRORS:
            pass  # the index ends at the same place, and says so in the recording's row
        yield None

    def _note(self, packet: Packet) -> None:
        """Remember a packet's place in decode order."""
        ordinal, self._packets_sent = self._packets_sent, self._packets_sent + 1
        if packet.is_corrupt:
            self._note_damage(ordinal)
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or self._opened.stream.time_base is None or not self._opened.has_display_times:
            return
        pts_ns = ticks_to_ns(ticks, self._opened.stream.time_base)
        self._reached_ns = pts_ns if self._reached_ns is None else max(self._reached_ns, pts_ns)
        if is_frame(packet):
            self._ordinals.setdefault(pts_ns, deque()).append(ordinal)

    def _identify(self, frame: VideoFrame) -> _Picture | None:
        """Find out which frame a picture is; None for one that is not in the index."""
        last_index, last_ns = self._last
        tick_s = self._opened.stream.time_base
        if frame.pts is None or tick_s is None or not self._opened.has_display_times:
            # The n-th picture is frame n. Its packet was sent at most the reorder depth before the latest one.
            index, ordinal = last_index + 1, max(0, self._packets_sent - 1 - self._reorder_depth)
            pts_ns = int(self._times.pts_ns[index]) if index < len(self._times) else 0
        else:
            pts_ns = ticks_to_ns(frame.pts, tick_s)
            index = last_index + 1 if pts_ns == last_ns else int(np.searchsorted(self._times.pts_ns, pts_ns))
            ordinals = self._ordinals.get(pts_ns)
            ordinal = ordinals.popleft() if ordinals else self._packets_sent - 1
            if not ordinals:
                self._ordinals.pop(pts_ns, None)
        if index >= len(self._times) or self._times.pts_ns[index] != pts_ns:
            return None
        self._last = (index, pts_ns)
        if frame.is_corrupt:
            self._note_damage(ordinal)
        if frame.key_frame and self._opened.has_display_times:  # the decoder's word: flags of packets may lie
            self._keys.append((ordinal, pts_ns))
        return _Picture(index, ordinal, pts_ns, bool(frame.key_frame), frame if self._wanted[index] else None)

    def _note_damage(self, ordinal: int) -> None:
        bisect.insort(self._damaged, ordinal)

    def _is_damaged(self, picture: _Picture) -> bool:
        """Whether a packet was damaged between the key frame that a picture hangs on and the picture itself.

        Where pictures are only counted, a lost one shifts the count: nothing from just before the damage is trusted.
        """
        if not self._opened.has_display_times:
            return bool(self._damaged) and self._damaged[0] <= picture.ordinal + self._reorder_depth
        keys = (o for o, pts_ns in reversed(self._keys) if o <= picture.ordinal and pts_ns <= picture.pts_ns)
        first = bisect.bisect_left(self._damaged, next(keys, 0))
        return first < len(self._damaged) and self._damaged[first] <= picture.ordinal


class _Converter:
    """Decoder frames to upright 8-bit RGB, with nothing left to FFmpeg's defaults."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def to_frame(self, frame: VideoFrame, index: int, pts_ns: int, size_px: tuple[int, int] | None) -> Frame:
        """Convert one picture; one of the wrong size becomes an error."""
        # A file that does not state its colour space is BT.601, as FFmpeg and OpenCV take it.
        colorspace = Colorspace.ITU601 if frame.colorspace == _UNSPECIFIED else None
        try:
            converted = self._reformatter.reformat(
                frame,
                format="rgb24",
                src_colorspace=colorspace,
                dst_colorspace=colorspace,
                dst_color_range=ColorRange.JPEG,
                interpolation=Interpolation.BILINEAR,
                threads=1,
            ).to_ndarray()
        except (*AV_ERRORS, ValueError) as error:
            return Frame(index, pts_ns, None, f"cannot be converted from {frame.format.name} to RGB: {error}")
        rgb = np.ascontiguousarray(np.rot90(converted, quarter_turns(frame)), dtype=np.uint8)
        height, width = rgb.shape[:2]
        if size_px is not None and (width, height) != tuple(size_px):
            return Frame(
                index, pts_ns, None, f"frame is {width}x{height}, the recording {size_px[0]}x{size_px[1]}"
            )
        return Frame(index, pts_ns, rgb)
