"""The store: Parquet files, commit markers, and DuckDB views over what is committed.

    STORE/mining-store.json                              version
    STORE/tables/TABLE/night=YYYY-MM-DD/KEY.parquet      rows
    STORE/done/STAGE/night=YYYY-MM-DD/KEY.json           the commit: written last, names the digest of what went in
    STORE/reference/COMMITTEE.parquet                    what percentiles are taken against
    STORE/tmp/                                           files being written; readers never look here

A file counts only while its marker stands. Rewriting a shard takes the marker away first, so that a reader sees the
old rows, none, or the new ones, never a mixture.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mining import views
from mining.lease import Leases
from mining.schemas import STORE_VERSION, TABLES
from mining.types import MiningError, Nights, TemporaryError, UsageError

# The tables that a stage commits together; written in this order.
STAGE_TABLES: dict[str, tuple[str, ...]] = {
    "index": ("frames", "recordings"),
    "detect": ("detections", "observations"),
    "score": ("tracks", "scores"),
    "scenes": ("scenes",),
    "select": ("slices", "selections"),
    "export": ("exports",),
    "import": ("annotators", "label_rejects", "overlooked", "labels"),
    "measure": ("yields",),
    "run": ("runs",),
}
_STAGE_OF = {table: stage for stage, tables in STAGE_TABLES.items() for table in tables}
sql_file = views.sql_file
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,180}")


def digest(*parts: Any) -> str:
    """Hash values that JSON can write: the sha256 of their canonical JSON, 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def sha256_of(path: Path) -> str:
    """Hash a file's content: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """One store folder. Opening is cheap; nothing is held open between calls."""

    def __init__(self, root: Path, *, create: bool = False, migrating: bool = False) -> None:
        """Open a store. ``MiningError`` where there is none (unless ``create``), or where another version wrote it (an
        older one is let pass where ``migrating``)."""
        self.root = root
        self._leases: Leases | None = None
        if any("=" in part for part in root.absolute().parts):
            raise UsageError(
                f"{root}: a store's path must not hold '=', which would read as a partition column"
            )
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root}: is a file; `store` names a folder")
        version_file = root / "mining-store.json"
        if not version_file.exists():
            if not create:
                raise UsageError(f"{root}: no store here yet; `mining run CONFIG.toml` makes one")
            # A job that was killed while it made the store left nothing but this.
            if root.exists() and any(path.name != "tmp" for path in root.iterdir()):
                raise UsageError(
                    f"{root}: not a store, and not empty; name an empty or a new folder as `store`"
                )
            try:
                (root / "tmp").mkdir(parents=True, exist_ok=True)
                self.write_version()
            except OSError as error:
                raise TemporaryError(f"{root}: cannot make a store here: {error.strerror}") from None
        try:
            self.version = int(json.loads(version_file.read_bytes())["store_version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MiningError(f"{version_file}: cannot be read as a store's version: {error}") from None
        if self.version > STORE_VERSION:
            raise MiningError(
                f"{root}: written as store version {self.version}, this mining reads version {STORE_VERSION}; "
                "use the release that wrote it, or a newer one"
            )
        if self.version < STORE_VERSION and not migrating:
            raise MiningError(
                f"{root}: written as store version {self.version}, this mining reads version {STORE_VERSION}; "
                f"`mining migrate {root}` brings it up"
            )

    # -- writing ---------------------------------------------------------------------------------------------------

    def write_file(self, path: Path, content: bytes) -> None:
        """Write a file so that it is there wholly or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary(path.suffix)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def write_version(self) -> None:
        """Say that this version wrote the store."""
        self.write_file(
            self.root / "mining-store.json", json.dumps({"store_version": STORE_VERSION}).encode()
        )

    def commit(
        self, stage: str, night: date, key: str, tables: Mapping[str, pa.Table], digest: str, **notes: Any
    ) -> None:
        """Publish a shard: its tables, then the marker with ``digest`` and ``notes`` (JSON values).

        Each table must have the schema of ``schemas.TABLES``; every table of the stage must be there.
        """
        self._publish(stage, night, key, tables, {**notes, "digest": digest}, hide=True)

    def conform(
        self, stage: str, night: date, key: str, tables: Mapping[str, pa.Table], marker: Mapping[str, Any]
    ) -> None:
        """Write a committed shard anew while its marker stands: for ``migrate``, which finds shards by their markers.

        Stopped in between, some files are new and some old; the store's old version keeps readers out until all are done.
        """
        self._publish(stage, night, key, tables, dict(marker), hide=False)

    def _publish(
        self,
        stage: str,
        night: date,
        key: str,
        tables: Mapping[str, pa.Table],
        notes: dict[str, Any],
        *,
        hide: bool,
    ) -> None:
        if set(tables) != set(STAGE_TABLES[stage]):
            raise ValueError(f"stage {stage} commits {STAGE_TABLES[stage]}, got {sorted(tables)}")
        try:
            self._write_shard(stage, night, key, tables, notes, hide=hide)
        except OSError as error:
            raise TemporaryError(
                f"{error.filename or self.root}: cannot write to the store: {error.strerror}; what was committed stays, "
                "and the same command goes on from there"
            ) from None

    def _write_shard(
        self,
        stage: str,
        night: date,
        key: str,
        tables: Mapping[str, pa.Table],
        notes: dict[str, Any],
        *,
        hide: bool,
    ) -> None:
        marker = self._marker(stage, night, key)
        staged: list[tuple[Path, Path]] = []
        sha256: dict[str, str] = {}
        if not (self.root / "mining-store.json").exists():
            # Else its folders would be made anew, beside nothing.
            raise FileNotFoundError(errno.ENOENT, "the store is gone", str(self.root))
        try:
            for name in STAGE_TABLES[stage]:
                table = tables[name].cast(TABLES[name])
                temporary = self._temporary(".parquet")
                staged.append((temporary, self.table_file(name, night, key)))
                pq.write_table(table, temporary, compression="zstd")
                _sync_file(temporary)
                sha256[name] = sha256_of(temporary)
            if hide and marker.exists():
                marker.unlink()
                _sync_folder(marker.parent)
            for temporary, final in staged:
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, final)
                _sync_folder(final.parent)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        rows = {name: table.num_rows for name, table in tables.items()}
        self.write_file(marker, json.dumps({**notes, "rows": rows, "sha256": sha256}, default=str).encode())

    def retract(self, stage: str, night: date, key: str) -> None:
        """Take a commit back: its rows are no longer seen."""
        marker = self._marker(stage, night, key)
        marker.unlink(missing_ok=True)
        _sync_folder(marker.parent)

    @property
    def leases(self) -> Leases:
        """What this job has taken on, of what jobs share."""
        if self._leases is None:
            self._leases = Leases(self.root / "leases")
        return self._leases

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the store, beside other jobs that do; ``TemporaryError`` where one has it alone. Readers need nothing.

        Jobs share the work out by ``leases``; those that are left are given back at the end.
        """
        with self._locked(fcntl.LOCK_SH, "is being tidied up or migrated by another job"):
            try:
                yield
            finally:
                if self._leases is not None:
                    self._leases.drop_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the store alone, to move what others would be writing; ``TemporaryError`` where a job is writing."""
        with self._locked(fcntl.LOCK_EX, "another mining job is writing to it"):
            yield

    @contextmanager
    def _locked(self, how: int, reason: str) -> Iterator[None]:
        try:
            file = (self.root / "lock").open("a")
        except OSError as error:
            raise TemporaryError(f"{self.root}: cannot write to the store: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except OSError:
                raise TemporaryError(f"{self.root}: {reason}; try again later") from None
            yield

    # -- reading ---------------------------------------------------------------------------------------------------

    def markers(self, stage: str) -> dict[tuple[date, str], dict[str, Any]]:
        """Read every commit of a stage: (night, key) -> what its marker says."""
        return {
            (_date_of(path.parent.name), path.name.removesuffix(".json")): json.loads(path.read_bytes())
            for path in self._marker_files(stage)
        }

    def digest_of(self, stage: str, night: date, key: str) -> dict[str, Any] | None:
        """What the marker of one commit says; None where it is not committed."""
        try:
            return dict(json.loads(self._marker(stage, night, key).read_bytes()))
        except FileNotFoundError:
            return None

    def table_file(self, table: str, night: date, key: str) -> Path:
        """Path of a shard's rows."""
        return self.root / "tables" / table / f"night={night.isoformat()}" / f"{_checked(key)}.parquet"

    def committed_files(self, table: str, nights: Nights | None = None) -> list[Path]:
        """List the files of a table whose shard is committed, in a stable order; of these nights where some are given.

        Names of markers are all that is read, and only in the folders of ``nights``.
        """
        tables = self.root / "tables" / table
        return [
            Path(f"{tables}/{night}/{name.removesuffix('.json')}.parquet")
            for night, name in self._markers_of(_STAGE_OF[table], nights)
        ]

    def connect(self, *, nights: Nights | None = None, locked: bool = False) -> duckdb.DuckDBPyConnection:
        """Open this store alone: see ``views.connect``."""
        return views.connect([self], nights=nights, locked=locked)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _marker(self, stage: str, night: date, key: str) -> Path:
        return self.root / "done" / stage / f"night={night.isoformat()}" / f"{_checked(key)}.json"

    def _marker_files(self, stage: str) -> Iterator[Path]:
        folder = self.root / "done" / stage
        return (folder / night / name for night, name in self._markers_of(stage, None))

    def _markers_of(self, stage: str, nights: Nights | None) -> Iterator[tuple[str, str]]:
        """Night folder and file name of each commit, in order. A store holds many: no ``Path`` is made of each."""
        folder = self.root / "done" / stage
        if not folder.is_dir():
            return
        for night in sorted(os.listdir(folder)):
            if night.startswith("night=") and (nights is None or nights[0] <= _date_of(night) <= nights[1]):
                yield from (
                    (night, name) for name in sorted(os.listdir(folder / night)) if name.endswith(".json")
                )

    def _temporary(self, suffix: str) -> Path:
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{uuid.uuid4().hex}{suffix}"


def _checked(key: str) -> str:
    """Keys become file names: refuse whatever could leave the folder."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"not a shard key: {key!r}")
    return key


def _date_of(folder: str) -> date:
    return date.fromisoformat(folder.removeprefix("night="))


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_sync_folder = _sync_file
