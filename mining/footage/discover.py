"""Finding recordings: video files and image folders under folders, files, globs and list files; in buckets too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from mining import buckets
from mining.footage import bucket
from mining.footage.names import (
    GLOB_CHARACTERS,
    IMAGE_ENDINGS,
    LIST_ENDINGS,
    VIDEO_ENDINGS,
    ending,
    is_open,
    shown,
)
from mining.footage.source import Problem, Source

_LIST_MAX_BYTES = 64 * 1024 * 1024
_DEEPEST = 200
"""Folders within folders that a search goes down, and lists that name lists."""


def discover(paths: list[str]) -> tuple[list[Source], list[Problem]]:
    """Find every recording under the given paths.

    A path is a folder (searched with all below it), a file, a glob (``**`` allowed), or a list file (``@drives.lst``,
    or any .txt or .lst): one path a line, relative to the list's folder, ``#`` begins a comment line. Hidden names are
    passed over, as are folders called ``masks`` (unless named outright) and links that lead in a circle. A folder that
    holds images directly is one recording. All of them may be ``s3://`` URIs; a list in a bucket names URIs, or what lies
    relative to it.

    Returns the sources sorted by path, each once, and what gave no footage. UsageError and TemporaryError where a bucket
    cannot be listed.
    """
    sources: set[Source] = set()
    problems: dict[tuple[str, str], Problem] = {}
    for found in _expand(paths, (), set()):
        if isinstance(found, Problem):
            problems.setdefault((found.path, found.reason), found)
        else:
            sources.add(found)
    return sorted(sources), list(problems.values())


def _expand(paths: Iterable[str], lists: tuple[str, ...], read: set[str]) -> Iterator[Source | Problem]:
    """Take what paths name. ``lists`` are those that lead here, ``read`` all that were read so far."""
    for path in dict.fromkeys(paths):
        if "\0" in path:
            yield Problem(shown(path.replace("\0", "\\x00")), "a path cannot hold a NUL character")
        elif path.startswith("@"):
            yield from _from_list(path[1:], lists, read)
        elif buckets.is_uri(path):
            yield from _from_list(path, lists, read) if ending(path) in LIST_ENDINGS else bucket.find(path)
        elif os.path.isdir(path):
            yield from _from_folder(path)
        elif os.path.lexists(path):
            yield from _from_list(path, lists, read) if ending(path) in LIST_ENDINGS else _from_file(path)
        elif GLOB_CHARACTERS & set(path):
            yield from _from_glob(path)
        else:
            yield Problem(shown(path), "no such file or folder")


def _from_file(path: str) -> Iterator[Source | Problem]:
    """Take a file that was named outright."""
    kind = ending(path)
    if not os.path.exists(path):
        yield Problem(shown(path), "a link that leads nowhere")
    elif not _is_regular(path):
        yield Problem(shown(path), "not a regular file")
    elif kind in VIDEO_ENDINGS:
        yield _source(path, "video")
    elif kind in IMAGE_ENDINGS:
        yield Problem(shown(path), "a single image is no recording; name its folder")
    else:
        known = ", ".join(sorted(VIDEO_ENDINGS))
        yield Problem(shown(path), f"unknown ending; video files end in {known}")


def _from_folder(folder: str) -> Iterator[Source | Problem]:
    """Take all that lies under a folder; unreadable parts are problems of their own."""
    found = list(_walk(folder, set()))
    yield from found or [Problem(shown(folder), "no video and no image under this folder")]


def _walk(folder: str, seen: set[str], depth: int = 0) -> Iterator[Source | Problem]:
    """Search a folder and all below it; each real folder once, so that links in a circle end."""
    if depth > _DEEPEST:
        yield Problem(shown(folder), f"nested deeper than {_DEEPEST} folders")
        return
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as scan:
            entries = sorted((e for e in scan if is_open(e.name)), key=lambda e: e.name)
    except OSError as error:
        yield Problem(shown(folder), f"cannot be searched: {error.strerror}")
        return
    holds_images = False
    for entry in entries:
        kind = ending(entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, seen, depth + 1)
        elif kind in VIDEO_ENDINGS and _is_regular(entry.path):
            yield _source(entry.path, "video")
        elif kind in IMAGE_ENDINGS and _is_regular(entry.path):
            holds_images = True
    if holds_images:
        yield _source(folder, "images")


def _from_glob(pattern: str) -> Iterator[Source | Problem]:
    """Take what a glob matches: folders with all below, videos, and for images the folder that holds them."""
    # pathlib, because its ``**`` does not follow links, which could lead in circles
    parts = Path(pattern).parts
    literal = next(i for i, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
    base = Path(*parts[:literal])
    try:
        matches = sorted(
            str(match)
            for match in base.glob(os.path.join(*parts[literal:]))
            if all(is_open(part) for part in match.relative_to(base).parts)
        )
    except (ValueError, OSError) as error:
        yield Problem(shown(pattern), shown(f"not a usable pattern: {error}"))
        return
    seen: set[str] = set()
    found: list[Source | Problem] = []
    for match in matches:
        kind = ending(match)
        if os.path.isdir(match):
            found += _walk(match, seen)
        elif kind in VIDEO_ENDINGS and _is_regular(match):
            found.append(_source(match, "video"))
        elif kind in IMAGE_ENDINGS and _is_regular(match):
            found.append(_source(os.path.dirname(match) or ".", "images"))
    yield from found or [Problem(shown(pattern), "this pattern matches no video and no image")]


def _from_list(path: str, lists: tuple[str, ...], read: set[str]) -> Iterator[Source | Problem]:
    """Take the paths that a list file names; a list may name lists, but not itself. Each is read once."""
    real = path if buckets.is_uri(path) else os.path.realpath(path)
    if real in lists:
        yield Problem(shown(path), "this list names itself")
        return
    if len(lists) > _DEEPEST:
        yield Problem(shown(path), f"nested deeper than {_DEEPEST} lists")
        return
    if real in read:
        return
    read.add(real)
    content = _list_content(path)
    if isinstance(content, Problem):
        yield content
        return
    # surrogateescape: a listed name may hold any byte, as file names do
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [line.strip() for line in text.split("\n")]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        yield Problem(shown(path), "this list names nothing")
    folder = os.path.dirname(real)
    yield from _expand((_named_in(folder, line) for line in named), (*lists, real), read)


def _list_content(path: str) -> bytes | Problem:
    """Read a list, or say why it cannot be."""
    too_large = Problem(shown(path), f"a list of more than {_LIST_MAX_BYTES} bytes")
    try:
        if buckets.is_uri(path):
            buckets.check_uri(path, "footage.paths")
            return (
                too_large if buckets.described(path).size_bytes > _LIST_MAX_BYTES else buckets.read(path)[0]
            )
        if not _is_regular(path):
            reason = "no such list file" if not os.path.exists(path) else "not a regular file"
            return Problem(shown(path), reason)
        return too_large if os.path.getsize(path) > _LIST_MAX_BYTES else Path(path).read_bytes()
    except FileNotFoundError:
        return Problem(shown(path), "no such list file")
    except OSError as error:
        return Problem(shown(path), f"cannot be read: {error.strerror}")


def _named_in(folder: str, line: str) -> str:
    """What a line of a list names; relative paths start at the list's folder."""
    at, name = ("@", line[1:]) if line.startswith("@") else ("", line)
    if buckets.is_uri(name):
        return at + name
    if buckets.is_uri(folder):  # and never a file of this machine
        name_of_bucket, _, key = folder.removeprefix(buckets.SCHEME).partition("/")
        return f"{at}{buckets.SCHEME}{name_of_bucket}{os.path.normpath(f'/{key}/{name}')}"
    return at + os.path.join(folder, name)


def _source(path: str, kind: str) -> Source | Problem:
    """Name a recording by its real path; tables hold text, so the path must be valid Unicode."""
    real = os.path.realpath(path)
    try:
        real.encode("utf-8")
    except UnicodeEncodeError:
        return Problem(shown(real), "its name is not valid UTF-8; rename it")
    return Source(real, "video" if kind == "video" else "images")


def _is_regular(path: str) -> bool:
    """Whether a path is a plain file that can be opened without waiting (no pipe, no device)."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
