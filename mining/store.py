"""The store: Parquet files, commit markers, and DuckDB views over what is committed.

    STORE/mining-store.json                              version
    STORE/tables/TABLE/night=YYYY-MM-DD/KEY.parquet      rows
    STORE/done/STAGE/night=YYYY-MM-DD/KEY.json           the commit: written last, names the digest of what went in
    STORE/done/STAGE/night=YYYY-MM-DD/_packs.json        shards whose rows `mining compact` has put together: see packs.py
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mining import packs, views
from mining.lease import Leases
from mining.packs import Pack, Packs
from mining.schemas import STORE_VERSION, TABLES
from mining.types import MiningError, Nights, TemporaryError, UsageError

# The tables that a stage commits together; written in this order.
STAGE_TABLES: dict[str, tuple[str, ...]] = {
    "index": ("frames", "recordings"),
    "detect": ("detections", "observations"),
    "score": ("tracks", "scores"),
    "scenes": ("scenes",),
    "select": ("slices", "selections"),
    "review": ("additions", "reviews"),
    "export": ("exports",),
    "import": ("annotators", "label_rejects", "overlooked", "labels"),
    "measure": ("yields",),
    "run": ("runs",),
}
_STAGE_OF = {table: stage for stage, tables in STAGE_TABLES.items() for table in tables}
COMPRESSION = "zstd"
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
        temporary = self.temporary(path.suffix)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)

    def temporary(self, suffix: str) -> Path:
        """Path for a file that is being written; whoever asks takes it away or puts it in its place."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{uuid.uuid4().hex}{suffix}"

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
                temporary = self.temporary(".parquet")
                staged.append((temporary, self.table_file(name, night, key)))
                pq.write_table(table, temporary, compression=COMPRESSION)
                sync(temporary)
                sha256[name] = sha256_of(temporary)
            if hide and marker.exists():
                marker.unlink()
                sync(marker.parent)
            put(staged)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        self._leave_packs(stage, night, key)
        rows = {name: table.num_rows for name, table in tables.items()}
        self.write_file(marker, json.dumps({**notes, "rows": rows, "sha256": sha256}, default=str).encode())

    def retract(self, stage: str, night: date, key: str) -> None:
        """Take a commit back: its rows are no longer seen."""
        marker = self._marker(stage, night, key)
        marker.unlink(missing_ok=True)
        sync(marker.parent)

    def write_packs(self, stage: str, night: date, found: Packs) -> None:
        """Say which packs of a night count, from now on. The files must lie there; the caller has the store ``alone``."""
        self.write_file(self._packs_file(stage, night), packs.written(found))

    def _leave_packs(self, stage: str, night: date, key: str) -> None:
        """Have a shard's rows count no more where they lie in packs: they are in files of its own now."""
        if key not in packs.keys_of(pack for found in self.packs(stage, night).values() for pack in found):
            return  # only ``compact`` puts shards into packs, and it has the store alone
        with (self.root / "packs.lock").open("a") as file:
            # Of two jobs that do this at once, the later must know what the other wrote.
            fcntl.flock(file, fcntl.LOCK_EX)
            self.write_packs(stage, night, packs.without(self.packs(stage, night), key))

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

    def marker_of(self, stage: str, night: date, key: str) -> dict[str, Any] | None:
        """What the marker of one commit says; None where it is not committed."""
        try:
            return dict(json.loads(self._marker(stage, night, key).read_bytes()))
        except FileNotFoundError:
            return None

    def table_file(self, table: str, night: date, key: str) -> Path:
        """Path of a shard's own file; its rows may lie in a pack instead: see ``located``."""
        return self.root / "tables" / table / f"night={night.isoformat()}" / f"{_checked(key)}.parquet"

    def pack_file(self, table: str, night: date, pack: Pack) -> Path:
        """Path of a pack."""
        return self.root / "tables" / table / f"night={night.isoformat()}" / pack.file

    def packs(self, stage: str, night: date) -> dict[str, list[Pack]]:
        """Read the packs of a night by table."""
        return packs.read(self._packs_file(stage, night))

    def packs_changed_s(self, stage: str, night: date) -> float:
        """When a night's packs were last written down, in seconds since 1970; 0 where nothing was ever packed."""
        try:
            return self._packs_file(stage, night).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def located(self, table: str, night: date, key: str) -> tuple[Path, int, int | None]:
        """Say where a shard's rows lie: the file, the first row, and how many; None for a file of its own."""
        for pack in self.packs(_STAGE_OF[table], night).get(table, ()):
            if key in pack.keys:
                return self.pack_file(table, night, pack), *pack.place_of(key)
        return self.table_file(table, night, key), 0, None

    def read(self, table: str, night: date, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of one committed shard. ``FileNotFoundError`` where its file is not there."""
        file, first, rows = self.located(table, night, key)
        if rows is None:
            return pq.read_table(file, columns=None if columns is None else list(columns), partitioning=None)
        return packs.read_rows(file, first, rows, columns)

    def committed_files(self, table: str, nights: Nights | None = None) -> dict[Path, views.Shards]:
        """List the files of a table that hold committed rows, in a stable order; of these nights where some are given.

        Names of markers and a small file a night are all that is read, and only in the folders of ``nights``.

        Returns:
            Of each pack, the shards in it; nothing of a file that is one shard's own.
        """
        stage, tables = _STAGE_OF[table], self.root / "tables" / table
        files: dict[Path, views.Shards] = {}
        for night in self._night_folders(stage, nights):
            # In this order: see packs.py.
            packed = packs.read(self.root / "done" / stage / night / packs.FILE).get(table, ())
            keys = self._keys(stage, night)
            if packed:
                committed = set(keys)
                for pack in packed:
                    if not committed.isdisjoint(pack.keys):
                        files[Path(f"{tables}/{night}/{pack.file}")] = pack.counting(committed)
                elsewhere = packs.keys_of(packed)
                keys = [key for key in keys if key not in elsewhere]
            files.update((Path(f"{tables}/{night}/{key}.parquet"), ()) for key in keys)
        return files

    def nights(self, stage: str, nights: Nights | None = None) -> list[date]:
        """List the nights in which a stage has committed, of these where some are given."""
        return [_date_of(night) for night in self._night_folders(stage, nights)]

    def keys(self, stage: str, night: date) -> list[str]:
        """List what a stage has committed in a night, in order."""
        return self._keys(stage, f"night={night.isoformat()}")

    def connect(self, *, nights: Nights | None = None, locked: bool = False) -> duckdb.DuckDBPyConnection:
        """Open this store alone: see ``views.connect``."""
        return views.connect([self], nights=nights, locked=locked)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _marker(self, stage: str, night: date, key: str) -> Path:
        return self.root / "done" / stage / f"night={night.isoformat()}" / f"{_checked(key)}.json"

    def _packs_file(self, stage: str, night: date) -> Path:
        return self.root / "done" / stage / f"night={night.isoformat()}" / packs.FILE

    def _marker_files(self, stage: str) -> Iterator[Path]:
        folder = self.root / "done" / stage
        for night in self._night_folders(stage, None):
            yield from (folder / night / f"{key}.json" for key in self._keys(stage, night))

    def _night_folders(self, stage: str, nights: Nights | None) -> list[str]:
        try:
            found = os.listdir(self.root / "done" / stage)
        except FileNotFoundError:
            return []
        return sorted(
            night
            for night in found
            if night.startswith("night=") and (nights is None or nights[0] <= _date_of(night) <= nights[1])
        )

    def _keys(self, stage: str, night: str) -> list[str]:
        """Key of each commit of a night's folder, in order. A store holds many: no ``Path`` is made of each."""
        names = os.listdir(self.root / "done" / stage / night)
        return sorted(
            name.removesuffix(".json") for name in names if name.endswith(".json") and name != packs.FILE
        )


def put(staged: Sequence[tuple[Path, Path]]) -> None:
    """Move files that are written and synced to where they belong, so that they are still there after a power loss."""
    for temporary, final in staged:
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, final)
        sync(final.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(key: str) -> str:
    """Keys become file names: refuse whatever could leave the folder."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"not a shard key: {key!r}")
    return key


def _date_of(folder: str) -> date:
    return date.fromisoformat(folder.removeprefix("night="))
