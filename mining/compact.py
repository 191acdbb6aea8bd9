"""``mining compact``: puts the small files of a night together, so that queries open few files. See ``packs.py``.

A shard's own files are checked against its marker first: damage is left where it is, and named. Everything is written, synced
and put in its place before the one small file that has it count; a job killed before that leaves files that nobody lists, and
``mining gc`` takes them away, as it does later what the packs replaced.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mining.housekeeping import damage_of
from mining.packs import PREFIX, Pack, keys_of
from mining.places import Place, put, reading, sha256_of
from mining.progress import progress
from mining.schemas import TABLES
from mining.store import STAGE_TABLES, Store, how_to_write
from mining.types import Nights, TemporaryError

STAGES = ("index", "detect", "score", "review")
"""Those that commit many shards a night: a review one for each verdict. Batches, exports and labels are few, people have acted upon them, and no run makes
them again: each keeps its files as they were committed."""
PACK_BYTES = 256 << 20
"""A pack takes no more shards from here on. A smaller one than half of it is written anew with what is added to its night."""
GROUP_ROWS = 122_880
GROUP_BYTES = 64 << 20
"""A row group ends with the shard that reaches one of these; bytes in memory. DuckDB skips, and works side by side on, row
groups; its own have as many rows. Whole shards in the order of their keys: ids of frames and recordings stay bunched."""


@dataclass(slots=True)
class Compaction:
    """What was put together, or would be."""

    nights: int = 0
    """Nights of one stage."""
    shards: int = 0
    files_before: int = 0
    """Small files, and packs that were written anew."""
    files_after: int = 0
    """0 for a dry run: how many it takes is known when they are written."""
    problems: list[str] = field(default_factory=list)
    """Damaged files, which were left out."""
    dry_run: bool = False

    def text(self) -> str:
        """Say it to a person."""
        if not self.nights:
            return "Nothing to do."
        what = f"{self.files_before} files of {self.shards} shards, in {self.nights} nights of a stage"
        if self.dry_run:
            return f"Would put together {what}."
        return f"Put together {what}, as {self.files_after} files. `mining gc` takes the old ones away when they are old enough."


@dataclass(slots=True)
class _Due:
    """What of one stage and night is to be put together."""

    stage: str
    night: date
    packs: dict[str, list[Pack]]
    """By table, as they are now."""
    committed: set[str]
    own: list[str]
    """Committed shards that are in no pack."""


def run(store: Store, nights: Nights | None = None, *, min_files: int, dry_run: bool = False) -> Compaction:
    """Put together what of these nights (of all where none are given) lies in at least ``min_files`` small files.

    Packs with rows that no longer count are written anew too. Stopped at any point, every row is there once, and the same
    call goes on.

    Raises:
        TemporaryError: another job writes to the store, or it cannot be written to.
    """
    report = Compaction(dry_run=dry_run)
    with store.alone():
        everywhere = [(stage, night) for stage in STAGES for night in store.nights(stage, nights)]
        with progress("compact", len(everywhere), "nights") as shown:
            for stage, night in everywhere:
                try:
                    due = _due(store, stage, night, min_files)
                    if due is not None:
                        _put_together(store, due, report)
                except OSError as error:
                    raise TemporaryError(
                        f"{error.filename or store.root}: cannot write to the store: {error.strerror}; every row is where it "
                        "was, and the same command goes on from there"
                    ) from None
                shown.advance()
    return report


def _due(store: Store, stage: str, night: date, min_files: int) -> _Due | None:
    packs = store.packs(stage, night)
    keys = store.keys(stage, night)
    packed = keys_of(pack for of_table in packs.values() for pack in of_table)
    one = _Due(stage, night, packs, set(keys), [key for key in keys if key not in packed])
    wasteful = any(_wastes(pack, one.committed) for of_table in packs.values() for pack in of_table)
    return one if len(one.own) >= min_files or wasteful else None


def _wastes(pack: Pack, committed: set[str]) -> bool:
    return any(key is None for key, _ in pack.counting(committed))


def _put_together(store: Store, due: _Due, report: Compaction) -> None:
    own = [key for key in due.own if _is_sound(store, due, key, report)]
    redone = {
        table: [
            pack for pack in due.packs.get(table, ()) if _is_written_anew(store, due, table, pack, report)
        ]
        for table in STAGE_TABLES[due.stage]
    }
    before = len(own) * len(redone) + sum(len(of_table) for of_table in redone.values())
    if not before:
        return
    report.nights += 1
    report.shards += len(own)
    report.files_before += before
    if report.dry_run:
        return
    found: dict[str, list[Pack]] = {}
    staged: list[tuple[Path, Place]] = []
    try:
        for table, of_table in redone.items():
            shards = heapq.merge(
                _own_shards(store, table, due.night, own),
                *(
                    _shards_in(store.pack_file(table, due.night, pack), pack, due.committed)
                    for pack in of_table
                    if not due.committed.isdisjoint(pack.keys)
                ),
                key=lambda shard: shard[0],
            )
            made = _written(store, table, due.night, shards, staged)
            kept = [pack for pack in due.packs.get(table, ()) if pack not in of_table]
            found[table] = sorted([*kept, *made], key=lambda pack: min(pack.keys))
            report.files_after += len(made)
        for temporary, final in staged:
            put(temporary, final)
        store.write_packs(due.stage, due.night, found)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def _is_sound(store: Store, due: _Due, key: str, report: Compaction) -> bool:
    """Tell whether a shard's own files are what was committed: else a pack would make the damage look right."""
    if report.dry_run:
        return True
    marker = store.marker_of(due.stage, due.night, key)
    if marker is None:  # taken back by hand, since we looked
        return False
    for table in STAGE_TABLES[due.stage]:
        file = store.table_file(table, due.night, key)
        reason = damage_of(table, file, marker["rows"][table], marker.get("sha256", {}).get(table))
        if reason is not None:
            report.problems.append(f"{file}: {reason}; left out")
            return False
    return True


def _is_written_anew(store: Store, due: _Due, table: str, pack: Pack, report: Compaction) -> bool:
    """Tell whether a pack is small or wasteful, and sound."""
    file = store.pack_file(table, due.night, pack)
    if file.exists() and file.stat().st_size >= PACK_BYTES // 2 and not _wastes(pack, due.committed):
        return False
    if report.dry_run or due.committed.isdisjoint(pack.keys):  # nothing is read of it
        return True
    reason = damage_of(table, file, pack.rows, pack.sha256)
    if reason is not None:
        report.problems.append(f"{file}: {reason}; left as it is")
    return reason is None


def _own_shards(store: Store, table: str, night: date, keys: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
    for key in keys:
        yield key, store.read(table, night, key)


def _shards_in(file: Place, pack: Pack, committed: set[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the shards of a pack whose rows count, in order; a row group at a time is in memory."""
    with pq.ParquetFile(reading(file)) as parquet:
        groups = iter(range(parquet.num_row_groups))
        left = parquet.schema_arrow.empty_table()
        for key, rows in pack.counting(committed):
            while left.num_rows < rows:
                left = pa.concat_tables([left, parquet.read_row_group(next(groups))])
            if key is not None:
                yield key, left.slice(0, rows)
            left = left.slice(rows)


def _written(
    store: Store,
    table: str,
    night: date,
    shards: Iterable[tuple[str, pa.Table]],
    staged: list[tuple[Path, Place]],
) -> list[Pack]:
    """Write shards as packs, under temporary names, which with the places that they belong to go to ``staged``."""
    made: list[Pack] = []
    left = iter(shards)
    while (first := next(left, None)) is not None:
        temporary = store.temporary(".parquet")
        name = f"{PREFIX}{uuid.uuid4().hex}.parquet"
        staged.append((temporary, store.root / "tables" / table / f"night={night}" / name))
        held = _write_pack(temporary, table, first, left)
        made.append(Pack(name, sha256_of(temporary), tuple(held)))
    return made


def _write_pack(
    file: Path, table: str, first: tuple[str, pa.Table], more: Iterator[tuple[str, pa.Table]]
) -> list[tuple[str, int]]:
    """Write shards until the file is large enough or there are no more; returns key and rows of each."""
    held: list[tuple[str, int]] = []
    with pq.ParquetWriter(file, TABLES[table], **how_to_write(table)) as writer:
        group: list[pa.Table] = []
        rows = size_bytes = 0

        def end_group() -> None:
            nonlocal rows, size_bytes
            writer.write_table(pa.concat_tables(group), row_group_size=max(rows, 1))
            group.clear()
            rows = size_bytes = 0

        shard: tuple[str, pa.Table] | None = first
        while shard is not None:
            held.append((shard[0], shard[1].num_rows))
            group.append(shard[1])
            rows, size_bytes = rows + shard[1].num_rows, size_bytes + shard[1].nbytes
            if rows >= GROUP_ROWS or size_bytes >= GROUP_BYTES:
                end_group()
                if file.stat().st_size >= PACK_BYTES:
                    break
            shard = next(more, None)
        if group:
            end_group()
    return held
