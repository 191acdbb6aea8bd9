"""Footage at hand: a recording in a bucket is fetched to the local disk for the time it is worked on, and for a while after.

    with at_hand(source, cache_gb) as here:      # what lies on disk already comes as it is
        ...                                      # `here` is a local Source; sidecar and telemetry lie beside it

Each process has a folder of its own in the system's temporary folder (TMPDIR). It goes when the process ends; where that was
killed, the next one that fetches takes it away.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mining import buckets
from mining.buckets import Changed, Object
from mining.footage import bucket
from mining.footage.bucket import Remote
from mining.footage.source import OutOfReach, Source
from mining.types import TemporaryError, UsageError

_PREFIX = "mining-footage-"
_LOCK = "in-use"
_SPARE_BYTES = 200_000_000
"""What fetching leaves free on the disk."""
_TRIES = 3
"""For a recording that is written anew while it is fetched."""
_FAILURES_IN_A_ROW = 3
"""Then it is the service, not the recording."""
_IMAGES_AT_ONCE = 8


@dataclass(slots=True)
class _Entry:
    """One recording on this disk, or on its way."""

    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by who fetches."""
    users: int = 0
    released: int = 0
    """When it was last let go; the latest is the first to make room."""
    size_bytes: int = 0
    remote: Remote | None = None
    """What was fetched; None where nothing lies there."""
    here: Source | None = None


class _Cache:
    """What one process has fetched."""

    def __init__(self) -> None:
        sweep()
        while True:
            self.root = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._in_use = (self.root / _LOCK).open("w")
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
            if (self.root / _LOCK).exists():
                break
            self._in_use.close()  # swept by another process before it was locked
        self._entries: dict[Source, _Entry] = {}
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._failures = 0

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self._in_use.close()

    @contextmanager
    def holding(self, source: Source, limit_bytes: float) -> Iterator[Source]:
        """Have a recording on the disk for the length of a block."""
        with self._lock:
            new = _Entry(self.root / str(next(self._count)))
            entry = self._entries.setdefault(source, new)
            entry.users += 1
        try:
            with entry.lock:
                if entry.remote is None or (entry.remote != bucket.described(source) and entry.users == 1):
                    self._have(source, entry, limit_bytes)
            assert entry.here is not None
            yield entry.here
        finally:
            with self._lock:
                entry.users -= 1
                entry.released = next(self._count)

    def _have(self, source: Source, entry: _Entry, limit_bytes: float) -> None:
        """Fetch, and say what it means where that fails."""
        try:
            self._fetch(source, entry, limit_bytes)
        except _DiskFull:
            raise
        except (TemporaryError, UsageError) as error:
            # The listing could be had, so it may be this one object. One recording must not end the night.
            with self._lock:
                self._failures += 1
                if self._failures >= _FAILURES_IN_A_ROW:
                    raise
            raise OutOfReach(str(error)) from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _full(self.root, source, bucket.described(source).size_bytes) from None
            raise OutOfReach(f"{source.path}: cannot be put on this disk: {error.strerror}") from None
        self._failures = 0

    def _fetch(self, source: Source, entry: _Entry, limit_bytes: float) -> None:
        for attempt in range(_TRIES):
            self._empty(entry)
            remote = bucket.described(source, anew=attempt > 0)
            self._make_room(source, entry, remote.size_bytes, limit_bytes)
            try:
                entry.here = _download(source, remote, entry.folder)
            except (Changed, FileNotFoundError):
                continue  # it is listed anew, and gone where it is not there any more
            except BaseException:
                self._empty(entry)
                raise
            entry.remote = remote
            return
        self._empty(entry)
        raise OutOfReach(f"{source.path}: is being written to; tried {_TRIES} times")

    def _make_room(self, source: Source, entry: _Entry, size_bytes: int, limit_bytes: float) -> None:
        """Let go of what nobody uses until the limit is kept, and the disk has room."""
        with self._lock:
            while True:
                used = sum(other.size_bytes for other in self._entries.values())
                tight = shutil.disk_usage(self.root).free < size_bytes + _SPARE_BYTES
                if not tight and used + size_bytes <= limit_bytes:
                    break
                # Stages walk over a night in one order: what was fetched first is what the next one needs first.
                idle = [
                    other for other in self._entries.values() if not other.users and other.remote is not None
                ]
                if idle:
                    self._empty(max(idle, key=lambda other: other.released))
                elif tight:
                    raise _full(self.root, source, size_bytes)
                else:
                    break  # one that is larger than the limit, or that others work on: the disk holds it
            entry.size_bytes = size_bytes

    def _empty(self, entry: _Entry) -> None:
        shutil.rmtree(entry.folder, ignore_errors=True)
        entry.remote, entry.here, entry.size_bytes = None, None, 0


def _download(source: Source, remote: Remote, folder: Path) -> Source:
    """Fetch a recording and what lies beside it, under their own names and with their own times."""
    parent, name = source.path.removeprefix(buckets.SCHEME).split("/")[-2:]
    here = folder / parent / name
    (here if source.kind == "images" else here.parent).mkdir(parents=True)
    for one in remote.beside:
        _one(here.parent, one)
    if source.kind == "video":
        _one(here.parent, remote.content[0])
    else:
        with ThreadPoolExecutor(_IMAGES_AT_ONCE) as pool:
            try:
                list(pool.map(partial(_one, here), remote.content))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return Source(str(here), source.kind)


def _one(folder: Path, one: Object) -> None:
    path = folder / one.uri.rpartition("/")[2]
    buckets.fetch(one.uri, path, one.e_tag)
    if path.stat().st_size != one.size_bytes:
        raise TemporaryError(f"{one.uri}: came with {path.stat().st_size} of {one.size_bytes} bytes")
    os.utime(path, ns=(bucket.modified_ns(one),) * 2)


class _DiskFull(TemporaryError):
    """No recording of this size can be fetched."""


def _full(root: Path, source: Source, size_bytes: int) -> _DiskFull:
    free = shutil.disk_usage(root).free
    return _DiskFull(
        f"{root.parent}: {free / 1e6:.0f} MB are free, and {source.path} takes {size_bytes / 1e6:.0f} MB; make room, or name "
        "a larger disk by TMPDIR, and run the same command again"
    )


_of_process: dict[int, _Cache] = {}
_opening = threading.Lock()


@contextmanager
def at_hand(source: Source, cache_gb: float) -> Iterator[Source]:
    """Have a recording on the local disk for the length of a block; one that lies there comes as it is.

    Args:
        source: as ``discover`` found it, or as the tables name it.
        cache_gb: how many gigabytes of fetched footage are kept for who asks next.

    Raises:
        OutOfReach: it cannot be fetched now.
        FootageError: it is gone.
        TemporaryError: the disk is full, or the service gives nothing any more.
    """
    if not buckets.is_uri(source.path):
        yield source
        return
    with _opening:
        if os.getpid() not in _of_process:
            _of_process[os.getpid()] = _Cache()
            atexit.register(clear)
        cache = _of_process[os.getpid()]
    with cache.holding(source, cache_gb * 1e9) as here:
        yield here


def clear() -> None:
    """Take away all that this process has fetched. Nobody may be at it."""
    with _opening:
        cache = _of_process.pop(os.getpid(), None)
    if cache is not None:
        cache.close()


def sweep() -> int:
    """Take away what killed processes left; returns how many bytes."""
    freed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, just being made, or gone
            continue
    return freed
