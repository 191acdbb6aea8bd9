"""The store: Parquet files, commit markers, and DuckDB views over what is committed. In a folder, or in a bucket (``places``).

    STORE/mining-store.json                              version
    STORE/tables/TABLE/night=YYYY-MM-DD/KEY.parquet      rows
    STORE/done/STAGE/night=YYYY-MM-DD/KEY.json           the commit: written last, names the digest of what went in
    STORE/done/STAGE/night=YYYY-MM-DD/_packs.json        shards whose rows `mining compact` has put together: see packs.py
    STORE/reference/COMMITTEE.parquet                    what percentiles are taken against
    STORE/tmp/                                           files being written; readers never look here. Of a bucket: a local folder

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
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mining import packs, views
from mining.bucket_leases import BucketBoard
from mining.lease import FolderBoard, Leases
from mining.packs import Pack, Packs
from mining.places import BucketPath, Place, delete, exchange, names, put, reading, sha256_of
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
_ROW_GROUP = 1 << 17
"""Rows, about as many as DuckDB gives a thread; a group is held in memory until it is written."""
sql_file = views.sql_file
_LOOK_EVERY_S = 0.2
_REWRITTEN_WITHIN_S = 60.0
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,180}")


@cache
def how_to_write(table: str) -> dict[str, Any]:
    """What a table's Parquet files are written with: dictionaries for all but fractions, which hardly repeat.

    With them, a shard of scores takes a half longer to write, and its file is up to a third larger.
    """
    sink = pa.BufferOutputStream()
    pq.write_metadata(TABLES[table], sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    columns = [leaves.column(i) for i in range(len(leaves))]
    repeating = [column.path for column in columns if column.physical_type not in {"FLOAT", "DOUBLE"}]
    return {"compression": "zstd", "use_dictionary": repeating}


def digest(*parts: Any) -> str:
    """Hash values that JSON can write: the sha256 of their canonical JSON, 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Store:
    """One store folder. Opening is cheap; nothing is held open between calls."""

    def __init__(self, root: Place, *, create: bool = False, migrating: bool = False) -> None:
        """Open a store. ``MiningError`` where there is none (unless ``create``), or where another version wrote it (an
        older one is let pass where ``migrating``)."""
        self.root = root
        self._leases: Leases | None = None
        if any("=" in part for part in str(root.absolute()).split("/")):
            raise UsageError(
                f"{root}: a store's path must not hold '=', which would read as a partition column"
            )
        if isinstance(root, Path) and root.exists() and not root.is_dir():
            raise UsageError(f"{root}: is a file; `store` names a folder")
        version_file = root / "mining-store.json"
        if not version_file.exists():
            if not create:
                there = root.exists() if isinstance(root, Path) else bool(names(root))
                what = "it lacks mining-store.json" if there else "there is no such folder"
                raise UsageError(f"{root}: no store here yet, {what}; `mining run CONFIG.toml` makes one")
            # A job that was killed while it made the store left nothing but this.
            found = set(names(root)) - {"tmp"}
            if found and "mining-store.json" not in found:  # which another job has written by now
                raise UsageError(
                    f"{root}: not a store, and not empty; name an empty or a new folder as `store`"
                )
            try:
                self.tmp.mkdir(parents=True, exist_ok=True)
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

    def write_file(self, path: Place, content: bytes) -> None:
        """Write a file so that it is there wholly or not at all."""
        temporary = self.temporary(".part")
        try:
            temporary.write_bytes(content)
            put(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @property
    def tmp(self) -> Path:
        """Local folder for what is being written."""
        if isinstance(self.root, Path):
            return self.root / "tmp"
        # A user's own: what another one made there can neither be written to nor trusted.
        return Path(tempfile.gettempdir(), f"mining-{os.getuid()}-{digest(str(self.root))[:16]}")

    def temporary(self, suffix: str) -> Path:
        """Path for a file that is being written; whoever asks takes it away or puts it in its place."""
        self.tmp.mkdir(parents=True, exist_ok=True)
        return self.tmp / f"{uuid.uuid4().hex}{suffix}"

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
        staged: list[tuple[Path, Place]] = []
        sha256: dict[str, str] = {}
        if not (self.root / "mining-store.json").exists():
            # Else its folders would be made anew, beside nothing.
            raise FileNotFoundError(errno.ENOENT, "the store is gone", str(self.root))
        self.leases.assure()
        try:
            for name in STAGE_TABLES[stage]:
                table = tables[name].cast(TABLES[name])
                temporary = self.temporary(".parquet")
                staged.append((temporary, self.table_file(name, night, key)))
                pq.write_table(table, temporary, row_group_size=_ROW_GROUP, **how_to_write(name))
                sha256[name] = sha256_of(temporary)
            if hide:
                delete(marker)
            for temporary, final in staged:
                put(temporary, final)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        self._leave_packs(stage, night, key)
        self.leases.assure()
        rows = {name: table.num_rows for name, table in tables.items()}
        self.write_file(marker, json.dumps({**notes, "rows": rows, "sha256": sha256}, default=str).encode())

    def retract(self, stage: str, night: date, key: str) -> None:
        """Take a commit back: its rows are no longer seen."""
        self.leases.assure()
        delete(self._marker(stage, night, key))

    def write_packs(self, stage: str, night: date, found: Packs) -> None:
        """Say which packs of a night count, from now on. The files must lie there; the caller has the store ``alone``."""
        self.leases.assure()
        self.write_file(self._packs_file(stage, night), packs.written(found))

    def _leave_packs(self, stage: str, night: date, key: str) -> None:
        """Have a shard's rows count no more where they lie in packs: they are in files of its own now."""
        if key not in packs.keys_of(pack for found in self.packs(stage, night).values() for pack in found):
            return  # only ``compact`` puts shards into packs, and it has the store alone
        file = self._packs_file(stage, night)
        if isinstance(file, BucketPath):
            exchange(file, lambda content: packs.written(packs.without(packs.parsed(content, file), key)))
            return
        with Path(str(self.root), "packs.lock").open("a") as lock:
            # Of two jobs that do this at once, the later must know what the other wrote.
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.write_packs(stage, night, packs.without(self.packs(stage, night), key))

    @property
    def _board(self) -> FolderBoard | BucketBoard:
        if isinstance(self.root, Path):
            return FolderBoard(self.root)
        return BucketBoard(self.root)

    @property
    def leases(self) -> Leases:
        """What this job has taken on, of what jobs share."""
        if self._leases is None:
            self._leases = Leases(self._board)
        return self._leases

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the store, beside other jobs that do; ``TemporaryError`` where one has it alone. Readers need nothing.

        Jobs share the work out by ``leases``; those that are left are given back at the end.
        """
        with self.leases.writing():
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the store alone, to move what others would be writing; ``TemporaryError`` where a job is writing."""
        with self.leases.alone():
            yield

    # -- reading ---------------------------------------------------------------------------------------------------

    def markers(self, stage: str) -> dict[tuple[date, str], dict[str, Any]]:
        """Read every commit of a stage: (night, key) -> what its marker says."""
        return {
            (_date_of(path.parent.name), path.name.removesuffix(".json")): json.loads(path.read_bytes())
            for path in self._marker_files(stage)
        }

    def index_of(self, recording_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read the index's commits of these recordings: id -> what its marker says.

        Waits while another job writes one of them anew: without it, what was seen of that recording would count as gone.

        Raises:
            TemporaryError: one of them is indexed no more.
        """
        until = time.monotonic() + _REWRITTEN_WITHIN_S
        while True:
            found = {marker["recording_id"]: marker for marker in self.markers("index").values()}
            missing = [one for one in recording_ids if one not in found]
            if not missing:
                return {one: found[one] for one in recording_ids}
            if time.monotonic() > until:
                raise TemporaryError(
                    f"{self.root}: {len(missing)} recordings that were indexed are gone (recording_id {missing[0]}); run the same "
                    "command again"
                )
            time.sleep(_LOOK_EVERY_S)

    def marker_of(self, stage: str, night: date, key: str) -> dict[str, Any] | None:
        """What the marker of one commit says; None where it is not committed."""
        try:
            return dict(json.loads(self._marker(stage, night, key).read_bytes()))
        except FileNotFoundError:
            return None

    def table_file(self, table: str, night: date, key: str) -> Place:
        """Path of a shard's own file; its rows may lie in a pack instead: see ``located``."""
        return self.root / "tables" / table / f"night={night.isoformat()}" / f"{_checked(key)}.parquet"

    def pack_file(self, table: str, night: date, pack: Pack) -> Place:
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

    def located(self, table: str, night: date, key: str) -> tuple[Place, int, int | None]:
        """Say where a shard's rows lie: the file, the first row, and how many; None for a file of its own."""
        for pack in self.packs(_STAGE_OF[table], night).get(table, ()):
            if key in pack.keys:
                return self.pack_file(table, night, pack), *pack.place_of(key)
        return self.table_file(table, night, key), 0, None

    def read(self, table: str, night: date, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of one committed shard. ``FileNotFoundError`` where its file is not there."""
        file, first, rows = self.located(table, night, key)
        if rows is None:
            return pq.read_table(
                reading(file), columns=None if columns is None else list(columns), partitioning=None
            )
        return packs.read_rows(file, first, rows, columns)

    def committed_files(self, table: str, nights: Nights | None = None) -> dict[Place, views.Shards]:
        """List the files of a table that hold committed rows, in a stable order; of these nights where some are given.

        Names of markers and a small file a night are all that is read, and only in the folders of ``nights``.

        Returns:
            Of each pack, the shards in it; nothing of a file that is one shard's own.
        """
        stage, tables = _STAGE_OF[table], self.root / "tables" / table
        files: dict[Place, views.Shards] = {}
        for night in self._night_folders(stage, nights):
            # In this order: see packs.py.
            packed = packs.read(self.root / "done" / stage / night / packs.FILE).get(table, ())
            keys = self._keys(stage, night)
            if packed:
                committed = set(keys)
                for pack in packed:
                    if not committed.isdisjoint(pack.keys):
                        files[self._at(f"{tables}/{night}/{pack.file}")] = pack.counting(committed)
                elsewhere = packs.keys_of(packed)
                keys = [key for key in keys if key not in elsewhere]
            files.update((self._at(f"{tables}/{night}/{key}.parquet"), ()) for key in keys)
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

    def _at(self, text: str) -> Place:
        return Path(text) if isinstance(self.root, Path) else BucketPath(text)

    def _marker(self, stage: str, night: date, key: str) -> Place:
        return self.root / "done" / stage / f"night={night.isoformat()}" / f"{_checked(key)}.json"

    def _packs_file(self, stage: str, night: date) -> Place:
        return self.root / "done" / stage / f"night={night.isoformat()}" / packs.FILE

    def _marker_files(self, stage: str) -> Iterator[Place]:
        folder = self.root / "done" / stage
        for night in self._night_folders(stage, None):
            yield from (folder / night / f"{key}.json" for key in self._keys(stage, night))

    def _night_folders(self, stage: str, nights: Nights | None) -> list[str]:
        return sorted(
            night
            for night in names(self.root / "done" / stage)
            if night.startswith("night=") and (nights is None or nights[0] <= _date_of(night) <= nights[1])
        )

    def _keys(self, stage: str, night: str) -> list[str]:
        """Key of each commit of a night's folder, in order. A store holds many: no ``Path`` is made of each."""
        found = names(self.root / "done" / stage / night)
        return sorted(
            name.removesuffix(".json") for name in found if name.endswith(".json") and name != packs.FILE
        )


def _checked(key: str) -> str:
    """Keys become file names: refuse whatever could leave the folder."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"not a shard key: {key!r}")
    return key


def _date_of(folder: str) -> date:
    return date.fromisoformat(folder.removeprefix("night="))
