"""Where a delivery goes: a folder, or a bucket. It appears there whole, and what lay there before is moved aside."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mining import buckets
from mining.config import Config
from mining.places import sync
from mining.store import Store
from mining.types import UsageError
from mining.vendors.contents import FILE_NAME as CONTENTS

_UPLOADS_AT_ONCE = 8
_SYNCS_AT_ONCE = 8
"""The file system writes what is asked for together in one go."""


class DeliveryPlace(ABC):
    """One batch's place."""

    name: str
    """For people and tables: an absolute path, or ``s3://bucket/prefix/BATCH``."""
    workspace: Path
    """Where the delivery is made before it is put into its place."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether a whole delivery lies there."""

    @abstractmethod
    def put(self) -> None:
        """Put what lies in ``workspace`` into its place. OSError where that fails."""

    def uri(self, file_name: str) -> str:
        """Where a file of the delivery lies."""
        return f"{self.name}/{file_name}"


def check_place(to: str) -> None:
    """Refuse what is neither a folder nor a bucket that this installation can write to, by one line."""
    if "://" not in to:
        return
    buckets.check_uri(to, "export.to")
    if "?" in to:
        raise UsageError(
            f"export.to {to.partition('?')[0]}: nothing can follow a `?`; another service than Amazon's is named by AWS_ENDPOINT_URL"
        )
    buckets.check_library()


def place_of(store: Store, config: Config, batch_id: str) -> DeliveryPlace:
    """Where the config's deliveries go. ``UsageError`` as of ``check_place``."""
    to = config.export.to
    check_place(to)
    if "://" not in to:
        return _Folder(config.path(to) / batch_id)
    return _Bucket(to, batch_id, store.tmp / f"{batch_id}.delivery")


class _Folder(DeliveryPlace):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = str(folder)
        # Beside its place: renaming is one step, and an upload script never sees half a delivery.
        self.workspace = folder.parent / f".{folder.name}.partial"

    def is_there(self) -> bool:
        return (self._folder / CONTENTS).is_file()

    def put(self) -> None:
        # On the disk before it has its name: a power loss leaves no delivery with empty pictures behind.
        with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            list(pool.map(sync, [self.workspace, *self.workspace.rglob("*")]))
        if self._folder.exists():
            numbered = (Path(f"{self._folder}.previous-{n}") for n in itertools.count(1))
            os.replace(self._folder, next(path for path in numbered if not path.exists()))
        os.replace(self.workspace, self._folder)
        sync(self._folder.parent)


class _Bucket(DeliveryPlace):
    """Through ``mining.buckets``, as stores and footage are."""

    def __init__(self, to: str, batch_id: str, workspace: Path) -> None:
        self.name = f"{to.rstrip('/')}/{batch_id}"
        self.workspace = workspace

    def is_there(self) -> bool:
        try:
            buckets.described(self.uri(CONTENTS))
        except FileNotFoundError:
            return False
        return True

    def put(self) -> None:
        self._move_aside()
        contents = self.workspace / CONTENTS
        others = [path for path in sorted(self.workspace.rglob("*")) if path.is_file() and path != contents]
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
            try:
                list(pool.map(self._upload, others))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # Last: who sees the contents sees a whole delivery.
        self._upload(contents)

    def _upload(self, path: Path) -> None:
        buckets.put(self.uri(path.relative_to(self.workspace).as_posix()), path)

    def _move_aside(self) -> None:
        old = [found.uri for found in buckets.listed(self.name)]
        if not old:
            return
        numbered = (f"{self.name}.previous-{n}" for n in itertools.count(1))
        aside = next(place for place in numbered if next(buckets.listed(place), None) is None)
        # Contents leave first and arrive last: in between, nobody takes either place for a whole delivery.
        contents, moving = self.uri(CONTENTS), f"{aside}/{CONTENTS}.moving"
        if contents in old:
            move(contents, moving)
        for uri in old:
            if uri != contents:
                move(uri, aside + uri.removeprefix(self.name))
        if contents in old:
            move(moving, f"{aside}/{CONTENTS}")


def move(source: str, target: str) -> None:
    """Move an object; not in one step."""
    buckets.copy(source, target)
    buckets.delete(source)
