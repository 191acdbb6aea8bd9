"""`mining report`: asks the store, decodes the pictures to fit the page's budget, writes one HTML file."""

from __future__ import annotations

import math
import os
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mining.config import Config
from mining.report import pictures
from mining.report.data import collect
from mining.report.page import render
from mining.store import Store
from mining.types import UsageError

PAGE_BYTES, PAGE_FRAMES = 9_800_000, 500
"""A page of up to so many frames takes up at most so much: it goes through as an attachment. More frames take more."""
_LEAST_PX, _MOST_PX = 320, 1280
_MOST_BYTES = 90_000
"""Of a picture: one of 1280 px looks no better with more."""
_QUALITY, _BYTES_A_PIXEL = 70, 0.1
"""WebP's, and what takes up more than most footage of roads does at it (0.01 to 0.1, measured): so nearly every picture fits
at the first try, and encoding is what takes time."""


@dataclass(frozen=True, slots=True)
class Written:
    """The file, and what is in it."""

    path: str
    size_bytes: int
    title: str
    frames: int
    without_picture: int


def run(
    store: Store,
    config: Config,
    output: Path | None,
    *,
    night: date | None = None,
    batch_id: str | None = None,
) -> Written:
    """Write the page of a night or a batch: see ``data.collect``. A file that is there is replaced, wholly or not at all.

    Args:
        store: the config's.
        config: names the committee; its ``export.blur`` counts for the pictures too.
        output: the file; ``BATCH.html`` or ``NIGHT.html`` in this folder where None.
        night: the night that it is about.
        batch_id: or the batch.

    Raises:
        UsageError: no such night or batch, or the file cannot be written there.
    """
    _check(output)
    data = collect(store, config, night=night, batch_id=batch_id)
    path = output or Path(f"{data['night'] or data['batch_id']}.html")
    _check(path)
    lost = add_pictures(store, config, data)
    content = render(data).encode()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return Written(str(path), len(content), data["title"], len(data["frames"]), lost)


def add_pictures(store: Store, config: Config, data: dict[str, Any]) -> int:
    """Put the pictures, or why there is none, into the cards. Returns how many have none."""
    frames = {frame["frame_id"]: frame for frame in data["frames"]}
    if not frames:
        return 0
    text_bytes = len(render(data).encode())
    room = PAGE_BYTES * max(1.0, len(frames) / PAGE_FRAMES) - text_bytes
    # Base64 writes 3 bytes as 4; some room is for the words around them.
    budget = int(min(_MOST_BYTES, max(room * 0.74 / len(frames) - 40, 2000)))
    width_px = int(min(max(math.sqrt(budget / _BYTES_A_PIXEL * 16 / 9), _LEAST_PX), _MOST_PX))
    lost = 0
    for name, webp, error in pictures.encoded(
        store, config, list(frames), width_px=width_px, quality=_QUALITY, budget_bytes=budget
    ):
        frames[name]["image"] = None if webp is None else pictures.data_uri(webp)
        frames[name]["image_error"] = error
        lost += webp is None
    return lost


def _check(output: Path | None) -> None:
    """Refuse before minutes of work what could not be written after them."""
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: its folder does not exist")
