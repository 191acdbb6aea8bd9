"""The pictures of a page: decoded as export does, to the very pixels that were looked at, made small, as WebP."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mining.blur import Blur, NotBlurred
from mining.config import Config
from mining.decode import Decoder
from mining.footage import FootageError, Source
from mining.progress import progress
from mining.store import Store, sql_file
from mining.types import MiningError

QUALITY = 80
_QUALITIES = (80, 65, 50, 35, 20)
"""WebP's, for pictures that do not fit; with the last of them they become smaller in size."""
_LEAST_PX = 64
"""Below this, no picture says anything: it may then take up more than asked for."""
_THREADS = 2

Picture = tuple[str, bytes | None, str | None]
"""frame_id, WebP, or why there is none."""


def encoded(
    store: Store,
    config: Config,
    frame_ids: Sequence[str],
    *,
    width_px: int,
    quality: int = QUALITY,
    budget_bytes: int | None = None,
) -> Iterator[Picture]:
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
    groups = [list(group) for _, group in itertools.groupby(here, key=lambda row: row["recording_id"])]
    made = _Encoder(width_px, quality, budget_bytes)

    # Decoding and encoding leave Python's lock alone. A blur's detector uses all cores by itself.
    threads = 1 if blur else _THREADS
    decoders = [Decoder(config) for _ in range(threads)]
    free = SimpleQueue[Decoder]()
    for decoder in decoders:
        free.put(decoder)

    def pictures_of(group: list[dict[str, Any]]) -> list[Picture]:
        mine = free.get()
        try:
            return [_picture(name, rgb, error, made, blur) for name, rgb, error in _decoded(group, mine)]
        finally:
            free.put(mine)

    with (
        ThreadPoolExecutor(threads) as pool,
        progress("pictures", len(here), "pictures") as shown,
    ):
        try:
            for found in pool.map(pictures_of, groups):
                for picture in found:
                    shown.advance()
                    yield picture
        finally:
            pool.shutdown(cancel_futures=True)
            for decoder in decoders:
                decoder.close()


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
    rows: list[dict[str, Any]], decoder: Decoder
) -> Iterator[tuple[str, NDArray[np.uint8] | None, str | None]]:
    """Decode frames of one recording: (frame_id, picture or None, why there is none)."""
    left = {row["frame_index"]: row for row in rows}
    source, indexed_as = (
        Source(rows[0]["uri"], rows[0]["kind"]),
        (rows[0]["size_bytes"], rows[0]["modified_ns"]),
    )
    try:
        with decoder.at_hand(source):
            wanted = {index: row["pts_ns"] for index, row in left.items()}
            times, places = decoder.times_near(source, indexed_as, wanted)
            index_at = {place: index for index, place in places.items()}
            size_px = (rows[0]["width_px"], rows[0]["height_px"])
            for frame in decoder.frames(source, times, list(index_at), size_px):
                row = left.pop(index_at[frame.frame_index])
                if frame.rgb is None:
                    yield row["frame_id"], None, frame.error
                elif frame.pts_ns != row["pts_ns"]:
                    yield row["frame_id"], None, "the footage has changed since it was indexed"
                else:
                    yield row["frame_id"], frame.rgb, None
    except FootageError as error:
        for row in left.values():
            yield row["frame_id"], None, str(error)


def _picture(
    name: str, rgb: NDArray[np.uint8] | None, error: str | None, made: _Encoder, blur: Blur | None
) -> Picture:
    if rgb is None:
        return name, None, error
    try:
        return name, made.webp(rgb if blur is None else blur.hidden(rgb)), None
    except (NotBlurred, MiningError) as failed:
        return name, None, str(failed)


@dataclass(slots=True)
class _Encoder:
    """Makes pictures small."""

    width_px: int
    quality: int
    budget_bytes: int | None

    def webp(self, rgb: NDArray[np.uint8]) -> bytes:
        """Encode a picture [height, width, 3] of this width at most."""
        bgr = cv2.cvtColor(_scaled(rgb, self.width_px), cv2.COLOR_RGB2BGR)
        quality = self.quality
        while True:
            ok, content = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
            if not ok:
                raise MiningError(f"OpenCV could not encode a {bgr.shape[1]}x{bgr.shape[0]} image as WebP")
            if (
                self.budget_bytes is None
                or len(content) <= self.budget_bytes
                or min(bgr.shape[:2]) < _LEAST_PX
            ):
                return content.tobytes()
            # Encoding is what takes time: what will not fit is not tried.
            share = self.budget_bytes / len(content)
            fitting = [q for q in _QUALITIES if q < quality and _size(q) <= share * _size(quality)]
            if fitting:
                quality = fitting[0]
                continue
            shrunk = min(math.sqrt(share * _size(quality) / _size(_QUALITIES[-1])), 0.9)
            quality = min(quality, _QUALITIES[-1])
            bgr = cv2.resize(bgr, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)


def _size(quality: int) -> float:
    """What a picture takes up, against the same one at quality 80; measured on footage of roads, its largest shares."""
    return float(np.interp(quality, [20, 35, 50, 65, 80, 100], [0.44, 0.57, 0.67, 0.77, 1.0, 3.0]))


def _scaled(rgb: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if width <= width_px:
        return rgb
    return np.asarray(
        cv2.resize(rgb, (width_px, max(1, round(height * width_px / width))), interpolation=cv2.INTER_AREA),
        np.uint8,
    )
