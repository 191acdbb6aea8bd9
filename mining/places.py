"""Where a store's files lie: in a folder, or in a bucket. The store names both alike, and what differs between them is here.

A ``BucketPath`` has what the store uses of ``pathlib.Path``. A folder's files are renamed into their place and synced; an
object of a bucket is there when its upload has ended, wholly or not at all, so both commit in one step.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from mining import buckets
from mining.types import UsageError

_WHOLE_BYTES = 16 << 20
"""An object of up to this size is fetched by one request; of a larger one, the parts that are read."""


@dataclass(frozen=True, slots=True, order=True)
class BucketPath:
    """A place in a bucket: ``s3://bucket/key``."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(f"{self.uri}/{name}")

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.uri.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Last part of the key without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> BucketPath:
        """The folder that it lies in."""
        return BucketPath(self.uri.rpartition("/")[0])

    def absolute(self) -> BucketPath:
        """What it is already."""
        return self

    def exists(self) -> bool:
        """Whether there is an object of this name; folders are none."""
        try:
            buckets.described(self.uri)
        except FileNotFoundError:
            return False
        return True

    def stat(self) -> Stat:
        """Size and time of the object."""
        found = buckets.described(self.uri)
        return Stat(found.size_bytes, found.modified_s)

    def read_bytes(self) -> bytes:
        """Read the object whole."""
        return buckets.read(self.uri)[0]

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object. One that is not there is no error: S3 does not tell."""
        buckets.delete(self.uri)


@dataclass(frozen=True, slots=True)
class Stat:
    """What the store asks of ``os.stat``."""

    st_size: int
    st_mtime: float


Place = Path | BucketPath


def place(text: str | os.PathLike[str]) -> Place:
    """Name a place as people write it: a path, or ``s3://bucket/prefix``.

    Raises:
        UsageError: another kind of URI, or one with credentials in it.
    """
    written = os.fspath(text)
    if "://" not in written:
        return Path(written)
    buckets.check_uri(written, "store")
    if "?" in written or "#" in written:
        raise UsageError(
            f"store {written.partition('?')[0]}: a bucket's URI has no `?` or `#`; set AWS_ENDPOINT_URL instead"
        )
    place = written.rstrip("/")
    if {"", ".", ".."} & set(place.removeprefix(buckets.SCHEME).split("/")):
        raise UsageError(f"store {written}: a prefix has no empty part, no `.` and no `..`")
    if not written.isprintable():
        raise UsageError(f"store {written!r}: not the name of a place in a bucket")
    return BucketPath(place)


def names(folder: Place) -> list[str]:
    """List the names directly in a folder, in order; none where there is no such folder."""
    if isinstance(folder, BucketPath):
        folders, objects = buckets.names(folder.uri)
        return sorted([*folders, *objects])
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def listed(folder: Place) -> Iterator[tuple[Place, Stat]]:
    """Yield every file below a folder, in order, with its size and time; nothing where there is no such folder."""
    if isinstance(folder, BucketPath):
        for found in buckets.listed(folder.uri):
            yield BucketPath(found.uri), Stat(found.size_bytes, found.modified_s)
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with suppress(FileNotFoundError):
                found_here = path.stat()
                yield path, Stat(found_here.st_size, found_here.st_mtime)


def put(temporary: Path, final: Place) -> None:
    """Move a file that is written to where it belongs: there wholly or not at all, also after a power loss."""
    if isinstance(final, BucketPath):
        buckets.put(final.uri, temporary)
        temporary.unlink()
        return
    sync(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, final)
    sync(final.parent)


def delete(file: Place) -> None:
    """Take a file away, so that it is gone also after a power loss; nothing happens where there is none."""
    with suppress(FileNotFoundError):
        file.unlink()
        if isinstance(file, Path):
            sync(file.parent)


def exchange(file: BucketPath, change: Callable[[bytes], bytes]) -> None:
    """Write an object's content anew, as ``change`` makes it of what is there: of two jobs at once, the later knows what the
    other wrote. Nothing happens where there is no such object."""
    while True:
        try:
            content, e_tag = buckets.read(file.uri)
        except FileNotFoundError:
            return
        if buckets.replace(file.uri, change(content), e_tag):
            return


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reading(file: Place) -> Path | BinaryIO:
    """Give what pyarrow and ``hashlib`` read a file from. FileNotFoundError where there is none."""
    return file if isinstance(file, Path) else opened(file.uri)


def sha256_of(file: Place) -> str:
    """Hash a file's content: 64 hexadecimal digits."""
    with file.open("rb") if isinstance(file, Path) else cast(io.BytesIO, opened(file.uri)) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def opened(uri: str) -> BinaryIO:
    """Open an object to read; whatever is read is of the content that it has now, or ``buckets.Changed`` is raised."""
    found, whole = buckets.read_small(uri, _WHOLE_BYTES)
    return (
        io.BytesIO(whole)
        if whole is not None
        else cast(BinaryIO, io.BufferedReader(_ObjectFile(found), 1 << 20))
    )


class _ObjectFile(io.RawIOBase):
    """One object, pinned to the content that it had when it was opened."""

    def __init__(self, found: buckets.Object) -> None:
        self._object = found
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._object.size_bytes}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._object.size_bytes)
        if end <= self._at:
            return 0
        content = buckets.read_range(self._object.uri, self._at, end, self._object.e_tag)
        view[: len(content)] = content
        self._at += len(content)
        return len(content)


class _OfThreads:
    """One object, read by several threads of DuckDB's: each seeks, and then reads from where it was itself."""

    def __init__(self, found: buckets.Object, whole: bytes | None, given_up: threading.Event) -> None:
        self._object = found
        self._whole = whole
        self._given_up = given_up
        # By number: Python forgets a thread of C++ between two calls, and with it whatever is local to it.
        self._at: dict[int, int] = {}

    def seek(self, offset: int, _whence: int = os.SEEK_SET) -> int:
        self._at[threading.get_ident()] = offset
        return offset

    def tell(self) -> int:
        return self._at.get(threading.get_ident(), 0)

    def read(self, size: int) -> bytes:
        start = self.tell()
        end = min(start + size, self._object.size_bytes)
        self.seek(max(start, end))
        if end <= start:
            return b""
        if self._whole is not None:
            return self._whole[start:end]
        return buckets.read_range(self._object.uri, start, end, self._object.e_tag, self._given_up)

    def close(self) -> None:
        self._whole = None


def file_system(given_up: threading.Event) -> Any:
    """Make what DuckDB opens ``s3://`` through: it can install no extension of its own everywhere.

    Where ``given_up`` is set, nothing is waited for any more: DuckDB ends a query only when it is back from here.
    """
    try:
        from fsspec import AbstractFileSystem
    except ImportError:
        raise UsageError("s3:// needs a further library: pip install 'mining[s3]'") from None

    class Objects(AbstractFileSystem):
        """Whatever DuckDB asks of a file after it has opened it is about the content that it opened."""

        protocol = "s3"
        cachable = False

        def __init__(self) -> None:
            super().__init__()
            self._known: dict[str, buckets.Object] = {}

        def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
            if mode != "rb":
                raise OSError(f"{path}: only reading is allowed here")
            found, whole = buckets.read_small(_uri(path), _WHOLE_BYTES, given_up)
            self._known[found.uri] = found
            return cast(BinaryIO, _OfThreads(found, whole, given_up))

        def _object(self, path: str) -> buckets.Object:
            return self._known.get(_uri(path)) or buckets.described(_uri(path))

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            found = self._object(path)
            return {"name": path, "size": found.size_bytes, "type": "file", "mtime": found.modified_s}

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]  # only files that are listed are asked for

        def modified(self, path: str) -> datetime:
            # DuckDB keeps what it has read as long as this stays the same; the service's clock shows whole seconds.
            found = self._object(path)
            sign = int.from_bytes(hashlib.sha256(found.e_tag.encode()).digest()[:4], "big") % 1_000_000
            return datetime.fromtimestamp(int(found.modified_s), UTC).replace(microsecond=sign)

    return Objects()


def _uri(path: str) -> str:
    return path if buckets.is_uri(path) else buckets.SCHEME + path
