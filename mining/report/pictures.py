"""The pictures of a page: decoded as export does, to the very pixels that were looked at, made small, as WebP."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.blur import Blur, NotBlurred
from mining.config import Config
from mining.export_images import unchanged
from mining.footage import FootageError, read
from mining.progress import progress
from mining.store import Store, sql_file
from mining.types import MiningError

QUALITY = 80
_QUALITIES = (80, 65, 50, 35, 20)
"""WebP's, tried one after another until a picture fits its budget."""


def encoded(
    store: Store,
    config: Config,
    frame_ids: Sequence[str],
    *,
    width_px: int,
    quality: int = QUALITY,
    budget_bytes: int | None = None,
) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Decode frames and encode them as WebP, blurred where the config's deliveries are. Never an exception for footage.

    Args:
        store: holds the frames; its footage must be in reach.
        config: ``export.blur``, and the rate of image folders.
        frame_ids: the order of the answers is that of the recordings, for each is opened once.
        width_px: the pictures' width; a narrower frame stays as it is.
        quality: WebP's, 1 to 100, to begin with.
        budget_bytes: a picture that is larger is encoded again, with less quality and in the end smaller.

    Yields:
        (frame_id, WebP, None), or (frame_id, None, why there is no picture), once for each frame.
    """
    blur = None if config.export.blur is None else Blur(config)
    rows = _rows(store, frame_ids)
    for row in rows:
        if row["uri"] is None:
            yield row["frame_id"], None, "its footage is not in this store, or was indexed otherwise since"
    here = sorted(
        (row for row in rows if row["uri"]), key=lambda row: (row["recording_id"], row["frame_index"])
    )
    with progress("pictures", len(here), "pictures") as shown:
        for _, group in itertools.groupby(here, key=lambda row: row["recording_id"]):
            waiting = {row["frame_index"]: row for row in group}
            for frame_id, rgb, error in _decoded(waiting, config):
                shown.advance()
                if rgb is None:
                    yield frame_id, None, error
                    continue
                try:
                    small = _scaled(rgb if blur is None else blur.hidden(rgb), width_px)
                    yield frame_id, _webp(small, quality, budget_bytes), None
                except (NotBlurred, MiningError) as failed:
                    yield frame_id, None, str(failed)


def data_uri(webp: bytes) -> str:
    """Write a picture so that a page holds it."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")


def _rows(store: Store, frame_ids: Sequence[str]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(frame_ids))
    wanted = {"frame_id": pa.array(names, pa.string())}
    empty = ("committee_id", "rank", "arm", "slice", "reason", "hardness", "estimated_boxes")
    with store.connect() as con:
        con.register("batch", pa.table({**wanted, **{name: pa.nulls(len(names)) for name in empty}}))
        return con.sql(sql_file("batch")).to_arrow_table().to_pylist()


def _decoded(
    waiting: dict[int, dict[str, Any]], config: Config
) -> Iterator[tuple[str, NDArray[np.uint8] | None, str | None]]:
    """Decode frames of one recording: (frame_id, picture or None, why there is none)."""
    first = next(iter(waiting.values()))
    try:
        source, times = unchanged(first, config)
        indices = sorted(waiting)
        if indices[-1] >= len(times):
            raise FootageError(
                f"{source.path}: holds fewer frames than when it was indexed; run `mining index`"
            )
        for frame in read(source, times, indices, (first["width_px"], first["height_px"])):
            row = waiting.pop(frame.frame_index)
            if frame.rgb is None:
                yield row["frame_id"], None, frame.error
            elif frame.pts_ns != row["pts_ns"]:
                yield row["frame_id"], None, "the footage has changed since it was indexed"
            else:
                yield row["frame_id"], frame.rgb, None
    except FootageError as error:
        for row in waiting.values():
            yield row["frame_id"], None, str(error)


def _scaled(rgb: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if width <= width_px:
        return rgb
    return np.asarray(
        cv2.resize(rgb, (width_px, max(1, round(height * width_px / width))), interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def _webp(rgb: NDArray[np.uint8], quality: int, budget_bytes: int | None) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    content = b""
    for tried in (quality, *(lower for lower in _QUALITIES if lower < quality)):
        ok, encoded_bytes = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, tried])
        if not ok:
            raise MiningError(f"OpenCV could not encode a {rgb.shape[1]}x{rgb.shape[0]} image as WebP")
        content = encoded_bytes.tobytes()
        if budget_bytes is None or len(content) <= budget_bytes:
            return content
    if min(rgb.shape[:2]) < 64:  # no picture says anything below this
        return content
    return _webp(_scaled(rgb, rgb.shape[1] // 2), quality, budget_bytes)
