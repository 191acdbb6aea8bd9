"""Opening a video file: which formats, which stream, what is refused. Shared by the index and the reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from mining.footage.source import FootageError

# Errors reach the caller as exceptions; FFmpeg's own lines on stderr would drown them.
av.logging.set_level(None)

# What a file may turn out to be. Without this list a text file named .mp4 could be taken for a playlist, and FFmpeg
# would open whatever files or addresses it names.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,h264,hevc,m4v,mjpeg,flv"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}

MAX_PIXELS = 200_000_000
"""Frames above this are refused before memory is taken for them."""

AV_ERRORS = (av.error.FFmpegError, EOFError)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open container and its one video stream."""

    container: InputContainer
    stream: VideoStream
    has_display_times: bool
    """False where packets do not say when their picture is shown: raw streams carry no time, and AVI knows only the
    order of decoding. Frames are then counted as they come out of the decoder."""

    def packets(self) -> Iterator[Packet]:
        """Packets of the stream from the current position; the last one is empty and flushes the decoder."""
        return self.container.demux(self.stream)


def one_line(error: BaseException) -> str:
    """FFmpeg's words for an error, without number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


@contextmanager
def open_video(path: str) -> Iterator[Opened]:
    """Open a file at its first real video stream (cover pictures are passed over).

    It is decoded by one thread (``reader`` says why). Raises FootageError with one line.
    """
    try:
        container = av.open(path, "r", options=_OPTIONS, metadata_errors="replace")
    except AV_ERRORS as error:
        raise FootageError(
            f"not a readable video ({one_line(error)}): cut off before its index, or no video"
        ) from None
    except OSError as error:
        raise FootageError(f"cannot be opened: {one_line(error)}") from None
    with container:
        streams = [
            s
            for s in container.streams.video
            if not int(s.disposition) & int(av.stream.Disposition.attached_pic)
        ]
        if not streams:
            raise FootageError("no video stream in it")
        stream = streams[0]
        if stream.codec_context is None:
            raise FootageError("its video codec is unknown to FFmpeg")
        codec = stream.codec_context
        if codec.width * codec.height > MAX_PIXELS:
            raise FootageError(
                f"frames of {codec.width}x{codec.height} exceed the limit of {MAX_PIXELS} pixels"
            )
        codec.thread_count = 1
        # Motion JPEG conceals damage without a word; told to stop at it, it names every damaged frame. Other decoders
        # flag what they conceal, and told to stop they would refuse streams that every player shows.
        strictness = {"err_detect": "explode"} if codec.name == "mjpeg" else {}
        codec.options = {"max_pixels": str(MAX_PIXELS), **strictness}
        for other in container.streams:
            if other is not stream and hasattr(other, "discard"):
                other.discard = av.stream.Discard.all
        yield Opened(container, stream, _has_display_times(container.format.name, codec))


def _has_display_times(container_format: str, codec: VideoCodecContext) -> bool:
    if codec.name not in {"h264", "hevc"}:
        return True
    return container_format not in {"h264", "hevc"} and (container_format != "avi" or not codec.reorder_depth)
