"""The images of a delivery: decoded again from the footage, blurred where the config asks for it, encoded, written."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mining.blur import Blur, NotBlurred
from mining.config import Config, ExportConfig
from mining.decode import Decoder
from mining.footage import FootageError, Source
from mining.progress import progress
from mining.types import Frame, FrameTimes, MiningError
from mining.vendors.delivery import ContextImage

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold: the same images make the same bytes."""


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """A chosen frame as it lies in the delivery."""

    file_name: str
    sha256: str
    width_px: int
    height_px: int


@dataclass(slots=True)
class WrittenImages:
    """What could be written, by frame_id, and why the others could not."""

    images: dict[str, WrittenImage] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    context: dict[str, list[ContextImage]] = field(default_factory=dict)
    """By the frame_id of the chosen frame, in order of time."""
    lost_context: int = 0
    """Frames around chosen ones that could not be had."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file to write of a frame."""

    row: dict[str, Any]
    file_name: str
    offset_s: float | None = None
    """Of a context image; None for the chosen frame itself."""


def write_images(rows: list[dict[str, Any]], folder: Path, config: Config) -> WrittenImages:
    """Write the images of a batch (rows of ``sql/batch.sql``) and their context below ``folder``."""
    export = config.export
    blur = None if export.blur is None else Blur(config)
    written = WrittenImages()
    written.errors = {
        row[
            "frame_id"
        ]: "its recording was indexed otherwise since (other content at its place, or another sampling)"
        for row in rows
        if row["uri"] is None
    }
    (folder / "images").mkdir(parents=True)
    if export.context_frames:
        (folder / "context").mkdir()
    ordered = sorted(
        (row for row in rows if row["uri"]), key=lambda row: (row["recording_id"], row["frame_index"])
    )
    with progress("export", len(rows), "images") as shown, Decoder(config) as decoder:
        for _, group in itertools.groupby(ordered, key=lambda row: row["recording_id"]):
            frames = list(group)
            try:
                source = Source(frames[0]["uri"], frames[0]["kind"])
                times = decoder.times(source, (frames[0]["size_bytes"], frames[0]["modified_ns"]))
                wanted = _wanted(frames, times, export)
                size_px = (frames[0]["width_px"], frames[0]["height_px"])
                for frame in decoder.frames(source, times, list(wanted), size_px):
                    _write(frame, wanted[frame.frame_index], folder, export, blur, written)
                    shown.advance(sum(file.offset_s is None for file in wanted[frame.frame_index]))
            except FootageError as error:
                written.errors |= {
                    row["frame_id"]: str(error) for row in frames if row["frame_id"] not in written.images
                }
    for name in written.errors:
        for lonely in written.context.pop(name, ()):
            (folder / lonely.file_name).unlink()
    return written


def _wanted(rows: list[dict[str, Any]], times: FrameTimes, export: ExportConfig) -> dict[int, list[_Wanted]]:
    """Frame index -> the files that it becomes. A frame may be chosen and be another's context."""
    ending = "png" if export.image_format == "png" else "jpg"
    wanted: dict[int, list[_Wanted]] = defaultdict(list)
    for row in rows:
        chosen, name = row["frame_index"], row["frame_id"]
        wanted[chosen].append(_Wanted(row, f"images/{name}.{ending}"))
        taken = {chosen}
        for step in range(1, export.context_frames + 1):
            for side, sign in (("before", -1), ("after", 1)):
                offset_ns = round(sign * step * export.context_step_s * 1e9)
                apart_ns = np.abs(times.pts_ns - (row["pts_ns"] + offset_ns))
                nearest = int(apart_ns.argmin())
                # Past the ends of the footage there is none, and where frames are few the same one must not come twice.
                if nearest in taken or apart_ns[nearest] > export.context_step_s * 1e9 / 2:
                    continue
                taken.add(nearest)
                offset_s = float(times.pts_ns[nearest] - row["pts_ns"]) / 1e9
                wanted[nearest].append(_Wanted(row, f"context/{name}.{side}-{step}.{ending}", offset_s))
    return wanted


def _write(
    frame: Frame,
    files: list[_Wanted],
    folder: Path,
    export: ExportConfig,
    blur: Blur | None,
    written: WrittenImages,
) -> None:
    """Write one frame under each of its names, or note why it cannot be had."""
    content, size_px, error = b"", (0, 0), frame.error
    if frame.rgb is not None and any(
        f.offset_s is not None or f.row["pts_ns"] == frame.pts_ns for f in files
    ):
        try:
            content = encode(frame.rgb if blur is None else blur.hidden(frame.rgb), export)
            size_px = (frame.rgb.shape[1], frame.rgb.shape[0])
        except NotBlurred as failed:
            error = str(failed)
    digest = hashlib.sha256(content).hexdigest()
    for file in files:
        name = file.row["frame_id"]
        if file.offset_s is not None:
            if not content:
                written.lost_context += 1
                continue
            (folder / file.file_name).write_bytes(content)
            written.context.setdefault(name, []).append(ContextImage(file.file_name, file.offset_s, digest))
        elif not content or frame.pts_ns != file.row["pts_ns"]:
            written.errors[name] = error or "the footage has changed since it was indexed"
        else:
            (folder / file.file_name).write_bytes(content)
            written.images[name] = WrittenImage(file.file_name, digest, *size_px)


def encode(rgb: NDArray[np.uint8], export: ExportConfig) -> bytes:
    """Encode one image [height, width, 3] as the config says."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if export.image_format == "png":
        ok, content = cv2.imencode(".png", bgr)
    else:
        ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, export.jpeg_quality])
    if not ok:
        raise MiningError(
            f"OpenCV could not encode a {rgb.shape[1]}x{rgb.shape[0]} image as {export.image_format}"
        )
    return content.tobytes()


def pack_images(folder: Path, how: str) -> None:
    """Put ``images/`` and ``context/`` into ``images.zip``, or take them away, as ``export.images`` says."""
    folders = [path for path in (folder / "images", folder / "context") if path.exists()]
    if how == "files":
        return
    if how == "zip":
        # Stored: JPEG and PNG are compressed already.
        with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for parent in folders for path in parent.iterdir()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                with path.open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target)
    for parent in folders:
        shutil.rmtree(parent)
