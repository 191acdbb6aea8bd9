"""Recordings in a bucket: finding them, and what listings tell of them. None of their content is read here.

What a listing told is kept for as long as the process lives, until the next search: one request stands for a thousand.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mining import buckets
from mining.buckets import Object
from mining.footage.names import GLOB_CHARACTERS, IMAGE_ENDINGS, VIDEO_ENDINGS, ending, is_open
from mining.footage.sidecar import COMPANION_ENDINGS
from mining.footage.source import FootageError, Problem, Source

_known: dict[Source, Remote] = {}


@dataclass(frozen=True, slots=True)
class Remote:
    """One recording in a bucket."""

    content: tuple[Object, ...]
    """The video, or the images of a folder by name."""
    beside: tuple[Object, ...]
    """Sidecar and telemetry."""

    @property
    def size_bytes(self) -> int:
        """What has to be fetched."""
        return sum(one.size_bytes for one in (*self.content, *self.beside))

    @property
    def stat_signature(self) -> tuple[int, int]:
        """(size_bytes, modified_ns) of the content: see ``identity.stat_signature``."""
        return sum(one.size_bytes for one in self.content), max(map(modified_ns, self.content))

    @property
    def signature(self) -> list[list[object]]:
        """Values that change whenever one of the objects is written."""
        return [
            [one.uri, one.size_bytes, modified_ns(one), one.e_tag] for one in (*self.content, *self.beside)
        ]


def modified_ns(one: Object) -> int:
    """When an object was written, in whole seconds: of some services, only listings know more."""
    return int(one.modified_s) * 1_000_000_000


def described(source: Source, *, anew: bool = False) -> Remote:
    """Say what a recording consists of: from the last listing, or asked for ``anew``. FootageError where it is gone."""
    if anew or source not in _known:
        beside = _beside(source, None)
        if source.kind == "images":
            content = _images_of(source.path, buckets.listed(source.path))
        else:
            content = _asked_for([source.path])
        if not content:
            _known.pop(source, None)
            raise FootageError(f"{source.path}: gone")
        _known[source] = Remote(content, beside)
    return _known[source]


def find(uri: str) -> Iterator[Source | Problem]:
    """Find the recordings that a URI names: an object, all below a folder, or what a pattern matches.

    Raises:
        UsageError: no such bucket, or no right to look.
        TemporaryError: the service does not answer.
    """
    buckets.check_uri(uri, "footage.paths")
    uri = uri.rstrip("/")
    parts = uri.removeprefix(buckets.SCHEME).split("/")
    literal = next((n for n, part in enumerate(parts) if GLOB_CHARACTERS & set(part)), len(parts))
    if literal == 0:
        yield Problem(uri, "a bucket's name can be no pattern")
        return
    base = buckets.SCHEME + "/".join(parts[:literal])
    try:
        if base == uri and ending(uri) in VIDEO_ENDINGS and (found := _asked_for([uri])):
            source = Source(uri, "video")
            _known[source] = Remote(found, _beside(source, None))
            yield source
            return
        listing = [one for one in buckets.listed(base) if one.uri.startswith(f"{base}/")]
    except buckets.BadName as error:
        yield Problem(uri, str(error))
        return
    sources = _sources(base, parts[literal:], listing)
    _note(sources, base, listing)
    if sources:
        yield from sources
    elif base != uri:
        yield Problem(uri, "this pattern matches no video and no image")
    elif listing:
        yield Problem(uri, "no video and no image under this folder")
    elif _asked_for([uri]):
        known = ", ".join(sorted(VIDEO_ENDINGS))
        single = ending(uri) in IMAGE_ENDINGS
        yield Problem(uri, "a single image is no recording; name its folder" if single else f"unknown ending; video files end in {known}")  # fmt: skip
    else:
        yield Problem(uri, "no such object or folder")


def _sources(base: str, pattern: Sequence[str], listing: Sequence[Object]) -> list[Source]:
    """Recordings among the objects below ``base`` that a pattern matches, or that lie in a folder that it matches."""
    found: dict[Source, None] = {}
    for one in listing:
        parts = one.uri.removeprefix(f"{base}/").split("/")
        kind = ending(one.uri)
        if not all(map(is_open, parts)) or kind not in VIDEO_ENDINGS | IMAGE_ENDINGS:
            continue
        if pattern and not _is_matched(parts, pattern):
            continue
        folder = one.uri.rpartition("/")[0]
        found[Source(one.uri, "video") if kind in VIDEO_ENDINGS else Source(folder, "images")] = None
    return list(found)


def _is_matched(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern matches a path, or a folder above it; ``**`` stands for any number of folders."""

    def passing(places: set[int]) -> set[int]:
        for place in range(len(pattern)):
            if place in places and pattern[place] == "**":
                places.add(place + 1)
        return places

    places = passing({0})
    for part in parts:
        if len(pattern) in places:
            return True
        places = passing(
            {
                place if pattern[place] == "**" else place + 1
                for place in places
                if place < len(pattern) and (pattern[place] == "**" or fnmatchcase(part, pattern[place]))
            }
        )
    return len(pattern) in places and pattern[-1] != "**"


def _note(sources: Sequence[Source], base: str, listing: Sequence[Object]) -> None:
    """Keep what the listing tells of these recordings."""
    by_uri = {one.uri: one for one in listing}
    by_folder = {
        folder: list(objects)
        for folder, objects in itertools.groupby(
            sorted(listing, key=lambda one: one.uri.rpartition("/")[0]),
            key=lambda one: one.uri.rpartition("/")[0],
        )
    }
    for source in sources:
        content = (
            (by_uri[source.path],)
            if source.kind == "video"
            else _images_of(source.path, by_folder[source.path])
        )
        _known[source] = Remote(content, _beside(source, by_uri if source.path != base else None))


def _images_of(folder: str, objects: Sequence[Object] | Iterator[Object]) -> tuple[Object, ...]:
    """Images that lie directly in a folder."""
    return tuple(
        one
        for one in objects
        if ending(one.uri) in IMAGE_ENDINGS
        and "/" not in (name := one.uri.removeprefix(f"{folder}/"))
        and not name.startswith(".")
    )


def _beside(source: Source, by_uri: dict[str, Object] | None) -> tuple[Object, ...]:
    """Sidecar and telemetry of a recording: of these objects, or asked for one by one."""
    stem = os.path.splitext(source.path)[0] if source.kind == "video" else source.path
    uris = [stem + one for endings in COMPANION_ENDINGS.values() for one in endings]
    if by_uri is None:
        return _asked_for(uris)
    return tuple(by_uri[uri] for uri in uris if uri in by_uri)


def _asked_for(uris: Sequence[str]) -> tuple[Object, ...]:
    """Those of the objects that are there."""
    found = []
    for uri in uris:
        try:
            found.append(buckets.described(uri))
        except FileNotFoundError:
            continue
    return tuple(found)
