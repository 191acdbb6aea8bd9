"""Size of an image from its first bytes, before memory is taken for its pixels.

Formats: JPEG (ITU T.81), PNG (ISO 15948), BMP, WebP (RFC 9649) and TIFF 6.0. Nothing else is handed to the decoder.
"""

from __future__ import annotations

import struct

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; the three left out mean something else."""
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I"}


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels as stored, before any EXIF orientation.

    Raises ValueError, with words for people, where the data is no image of a known format or is cut off.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack(">II", data[16:24])
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in {b"II*\0", b"MM\0*"}:
            return _tiff(data)
    except (struct.error, IndexError):
        raise ValueError("its header is cut off or damaged") from None
    raise ValueError("it is no JPEG, PNG, BMP, WebP or TIFF image")


def _jpeg(data: bytes) -> tuple[int, int]:
    position, size = 2, None
    while True:
        if data[position] != 0xFF:
            raise ValueError("its header is cut off or damaged")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_BARE:
            position += 2
            continue
        if marker == 0xD9:
            raise ValueError("it holds no picture")
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            size = (width, height)
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        position += 2 + max(2, length)
        if marker == 0xDA and size is not None:
            break
    # The decoder fills up what is missing with grey, silently; the end marker tells a whole file from a cut one.
    if data.find(b"\xff\xd9", position) < 0:
        raise ValueError("it is cut off (JPEG without an end)")
    return size


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack("<I", data[14:18])[0] == 12:
        return struct.unpack("<HH", data[18:22])
    width, height = struct.unpack("<ii", data[18:26])
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (
            struct.unpack("<I", data[24:27] + b"\0")[0],
            struct.unpack("<I", data[27:30] + b"\0")[0],
        )
        return width + 1, height + 1
    raise ValueError("it is a WebP file of an unknown kind")


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[directory : directory + 2])
    found = {}
    for entry in range(count):
        at = directory + 2 + 12 * entry
        tag, kind = struct.unpack(order + "HH", data[at : at + 4])
        if tag in {256, 257} and kind in _TIFF_INTEGERS:
            code = _TIFF_INTEGERS[kind]
            (found[tag],) = struct.unpack(order + code, data[at + 8 : at + 8 + struct.calcsize(code)])
    if len(found) < 2:
        raise ValueError("its header states no size")
    return found[256], found[257]
