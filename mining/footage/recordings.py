"""The two doors of this package: what a recording is and which frames it holds, and the frames themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mining.footage.bucket import described
from mining.footage.identity import content_digest, stat_signature
from mining.footage.images import image_names, probe_images, read_images
from mining.footage.near import near_times
from mining.footage.reader import read_video
from mining.footage.sidecar import Sidecar, find_sidecar
from mining.footage.source import Defaults, Facts, FootageError, Source
from mining.footage.timeline import NS_PER_S, duration_s, mean_rate_hz
from mining.footage.video import probe_video
from mining.types import Frame, FrameTimes, Recording

NO_FRAMES = FrameTimes(np.empty(0, dtype=np.int64))
_FAULTS_NAMED = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def probe(
    source: Source,
    defaults: Defaults,
    facts_of: Callable[[Source, Sidecar, Defaults], Facts] | None = None,
) -> tuple[Recording, FrameTimes]:
    """Describe a recording and list its frames. Never an exception for what is wrong with the footage.

    ``unreadable`` recordings have no frames; ``partial`` ones those that are there (or a sidecar that cannot be used,
    which is then left out whole). A drive_id that no sidecar gives is ``<parent folder>/<name without ending>``. The
    start is the sidecar's, else the container's (its creation time; the first timestamp of an image folder), else the
    file's modification time (of a folder: its oldest image). A file that cannot be opened has no content to be known
    by; its recording_id is made from its path.

    ``facts_of`` stands in for ``read_facts``, to run that where it can do no harm; it too raises FootageError.
    """
    sidecar, sidecar_faults = _sidecar(source)
    size_bytes, modified_ns = stat_signature(source)
    recording_id = id_of_unreadable(source)
    try:
        recording_id = content_digest(source)[:20]
        if size_bytes == 0:
            raise FootageError("the file is empty")
        facts = (facts_of or read_facts)(source, sidecar, defaults)
        status = "partial" if facts.faults or sidecar_faults else "ok"
    except FootageError as error:
        facts, status = Facts(NO_FRAMES, None, None, None, None, [str(error)]), "unreadable"
    started_at, started_at_source = _start(source, sidecar, facts)
    rate_hz = mean_rate_hz(facts.times)
    width_px, height_px = facts.size_px or (None, None)
    recording = Recording(
        recording_id=recording_id,
        uri=source.path,
        kind=source.kind,
        drive_id=sidecar.drive_id or _default_drive_id(source),
        vehicle_id=sidecar.vehicle_id,
        camera=sidecar.camera or defaults.camera,
        started_at=started_at,
        started_at_source=started_at_source,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        duration_s=duration_s(facts.times, rate_hz),
        frame_rate_hz=rate_hz,
        width_px=width_px,
        height_px=height_px,
        codec=facts.codec,
        frame_count=len(facts.times),
        frame_count_from_header=facts.frame_count_from_header,
        tags=sidecar.tags,
        status=status,
        error=_summary([*facts.faults, *sidecar_faults]),
    )
    return recording, facts.times


def id_of_unreadable(source: Source) -> str:
    """Name a recording of whose content nothing is known."""
    return hashlib.sha256(b"unreadable\0" + source.path.encode()).hexdigest()[:20]


def out_of_reach(source: Source, defaults: Defaults, reason: str) -> Recording:
    """Describe a recording in a bucket that cannot be had now, with what its listing told."""
    try:
        size_bytes, modified_ns = described(source).stat_signature
    except FootageError:
        size_bytes, modified_ns = 0, 0
    return Recording(
        recording_id=id_of_unreadable(source),
        uri=source.path,
        kind=source.kind,
        drive_id=_default_drive_id(source),
        vehicle_id=None,
        camera=defaults.camera,
        started_at=_EPOCH + timedelta(microseconds=modified_ns // 1000),
        started_at_source="file_time",
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        frame_count=0,
        status="unreadable",
        error=reason,
    )


def frame_times(source: Source, defaults: Defaults) -> FrameTimes:
    """List the frames as ``probe`` does, without hashing the content. Raises FootageError where there is none."""
    return read_facts(source, _sidecar(source)[0], defaults).times


def frame_times_near(
    source: Source, defaults: Defaults, wanted: Mapping[int, int]
) -> tuple[FrameTimes, dict[int, int]]:
    """List the frames around some, for a few pictures of a long video; all frames where it cannot be read in part.

    Args:
        source: a recording.
        defaults: as for ``frame_times``.
        wanted: frame index -> its exact pts_ns.

    Returns:
        Times for ``read``, which gives the same pixels with these as with all; and frame index -> place among them.

    Raises:
        FootageError: there is no frame in it, or not as many as an index says.
    """
    near = near_times(source.path, list(wanted.values())) if source.kind == "video" else None
    if near is not None:
        return near, {index: int(np.searchsorted(near.pts_ns, pts_ns)) for index, pts_ns in wanted.items()}
    times = frame_times(source, defaults)
    if max(wanted) >= len(times):
        raise FootageError(f"{source.path}: holds fewer frames than when it was indexed; run `mining index`")
    return times, {index: index for index in wanted}


def read(
    source: Source,
    times: FrameTimes,
    indices: Sequence[int] | NDArray[np.int64],
    size_px: tuple[int, int] | None = None,
) -> Iterator[Frame]:
    """Yield exactly one Frame for each index, in ascending order, each index once.

    The pixels of a frame are the same whichever other frames are asked for. A frame that cannot be decoded comes with
    an error and without pixels; those after it are tried. With ``size_px`` (the recording's width and height) a video
    frame of another size becomes an error; without it, and always for image folders, frames keep their own size.

    Raises FootageError where the recording as a whole cannot be opened, and IndexError for an index out of range.
    """
    wanted = sorted({int(index) for index in indices})
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(times):
        raise IndexError(f"frames {wanted[0]}..{wanted[-1]} asked of a recording that holds {len(times)}")
    if source.kind == "video":
        return read_video(source.path, times, wanted, size_px)
    return read_images(source.path, times, wanted)


def read_facts(source: Source, sidecar: Sidecar, defaults: Defaults) -> Facts:
    """What a recording's own bytes tell. Raises FootageError where nothing in it can be used."""
    if source.kind == "video":
        return probe_video(source.path)
    return probe_images(source.path, sidecar.frame_rate_hz or defaults.image_rate_hz)


def _sidecar(source: Source) -> tuple[Sidecar, list[str]]:
    try:
        return find_sidecar(source), []
    except FootageError as error:
        return Sidecar(), [str(error)]


def _default_drive_id(source: Source) -> str:
    folder, name = os.path.split(source.path)
    stem = os.path.splitext(name)[0] if source.kind == "video" else name
    parent = os.path.basename(folder)
    return f"{parent}/{stem}" if parent else stem


def _start(source: Source, sidecar: Sidecar, facts: Facts) -> tuple[datetime, str]:
    if sidecar.started_at is not None:
        return sidecar.started_at, "sidecar"
    if facts.created_at is not None:
        return facts.created_at, "container"
    try:
        if source.kind == "video":
            moments = [os.stat(source.path).st_mtime_ns]
        else:
            moments = [
                os.stat(os.path.join(source.path, name)).st_mtime_ns for name in image_names(source.path)
            ]
        return _EPOCH + timedelta(
            microseconds=max(0, min(moments, default=0)) // (NS_PER_S // 10**6)
        ), "file_time"
    except (OSError, OverflowError):
        return _EPOCH, "file_time"


def _summary(faults: list[str]) -> str | None:
    """One line of the first faults, the rest counted."""
    if not faults:
        return None
    more = len(faults) - _FAULTS_NAMED
    return "; ".join(faults[:_FAULTS_NAMED]) + (f"; and {more} more" if more > 0 else "")
