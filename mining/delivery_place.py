"""Where a delivery goes: a folder, or a bucket. It appears there whole, and what lay there before is moved aside."""

from __future__ import annotations

import itertools
import os
import shutil
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mining.buckets import check_uri
from mining.config import Config
from mining.places import sync
from mining.store import Store
from mining.types import UsageError
from mining.vendors.contents import FILE_NAME as CONTENTS

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

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


def place_of(store: Store, config: Config, batch_id: str) -> DeliveryPlace:
    """Where the config's deliveries go. ``UsageError`` where that is neither a folder nor a bucket."""
    to = config.export.to
    if "://" not in to:
        return _Folder(config.path(to) / batch_id)
    check_uri(to, "export.to")
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
    """Through ``pyarrow.fs``: endpoint from ``AWS_ENDPOINT_URL`` or the URI's query, credentials from the environment."""

    def __init__(self, to: str, batch_id: str, workspace: Path) -> None:
        self._to = to
        url = urlsplit(to)
        self._path = "/".join(part for part in (url.netloc, url.path.strip("/"), batch_id) if part)
        self.name = f"s3://{self._path}"
        self.workspace = workspace

    def _files(self) -> FileSystem:
        from pyarrow.fs import FileSystem

        try:
            return FileSystem.from_uri(self._to)[0]
        except ValueError as error:
            raise UsageError(f"export.to {self.name}: {' '.join(str(error).split())}") from None

    def is_there(self) -> bool:
        return bool(self._files().get_file_info(f"{self._path}/{CONTENTS}").is_file)

    def put(self) -> None:
        files = self._files()
        self._move_aside(files)
        contents = self.workspace / CONTENTS
        others = [path for path in sorted(self.workspace.rglob("*")) if path.is_file() and path != contents]
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
            try:
                list(pool.map(partial(self._upload, files), others))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # Last: who sees the contents sees a whole delivery.
        self._upload(files, contents)

    def _upload(self, files: FileSystem, path: Path) -> None:
        target = f"{self._path}/{path.relative_to(self.workspace).as_posix()}"
        with path.open("rb") as source, files.open_output_stream(target) as sink:
            shutil.copyfileobj(source, sink, 8 << 20)

    def _move_aside(self, files: FileSystem) -> None:
        old = _listed(files, self._path)
        if not old:
            return
        numbered = (f"{self._path}.previous-{n}" for n in itertools.count(1))
        aside = next(path for path in numbered if not _listed(files, path))
        # Contents leave first and arrive last: in between, nobody takes either place for a whole delivery.
        contents = f"{self._path}/{CONTENTS}"
        moving = f"{aside}/{CONTENTS}.moving"
        if contents in old:
            move(files, contents, moving)
        for path in old:
            if path != contents:
                move(files, path, aside + path.removeprefix(self._path))
        if contents in old:
            move(files, moving, f"{aside}/{CONTENTS}")


def move(files: FileSystem, source: str, target: str) -> None:
    """Move a file of a bucket; not in one step: it is copied, then deleted."""
    files.move(source, target)


def _listed(files: FileSystem, path: str) -> list[str]:
    from pyarrow.fs import FileSelector

    found = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(info.path for info in found if info.is_file)
