"""What makes a recording the same recording: its content, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
import os

from mining.footage.images import image_names
from mining.footage.source import FootageError, Source


def content_digest(source: Source) -> str:
    """Sha256 of the content, 64 hexadecimal digits; a recording_id is the first 20 of them.

    Of a folder: over the sorted names of its images and the sha256 of each. Raises FootageError where a file cannot be
    read.
    """
    try:
        if source.kind == "video":
            return _file_digest(source.path).hex()
        total = hashlib.sha256()
        for name in sorted(image_names(source.path)):
            total.update(
                name.encode("utf-8", "surrogateescape")
                + b"\0"
                + _file_digest(os.path.join(source.path, name))
            )
        return total.hexdigest()
    except OSError as error:
        raise FootageError(f"cannot be read: {error.strerror}") from None


def stat_signature(source: Source) -> tuple[int, int]:
    """(size_bytes, modified_ns) of a file, or of all images of a folder: while both stay, nothing is read again.

    (0, 0) where the recording cannot be reached; ``probe`` says why.
    """
    try:
        if source.kind == "video":
            stats = [os.stat(source.path)]
        else:
            stats = [os.stat(os.path.join(source.path, name)) for name in image_names(source.path)]
    except OSError:
        return 0, 0
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _file_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
