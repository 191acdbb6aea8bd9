"""What a file's name says of it."""

from __future__ import annotations

import os

VIDEO_ENDINGS = frozenset(
    ["mp4", "mkv", "avi", "mov", "m4v", "webm", "ts", "h264", "264", "hevc", "h265", "265"]
)
IMAGE_ENDINGS = frozenset(["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff"])
LIST_ENDINGS = frozenset({"txt", "lst"})
GLOB_CHARACTERS = frozenset("*?[")
_NOT_FOOTAGE = frozenset({"masks"})
"""Folders passed over in a search: images of class ids. Named outright, such a folder is searched all the same."""


def ending(path: str) -> str:
    """The lower-case file ending without its dot."""
    return os.path.splitext(path)[1].lower().removeprefix(".")


def shown(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 appear as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_open(name: str) -> bool:
    """Whether a search looks at a name: neither hidden nor a folder of masks."""
    return not name.startswith(".") and name.lower() not in _NOT_FOOTAGE
