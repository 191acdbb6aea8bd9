"""``mining verify``: reads the whole store again and says what is not as it was committed. ``mining gc``: takes away what
nobody reads: files of killed jobs, rows whose commit was taken back, files that packs replaced, and committees that nobody
wants any more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from mining import packs
from mining.migrate import MADE_AGAIN
from mining.places import BucketPath, Place, Stat, listed, reading, sha256_of
from mining.progress import progress
from mining.schemas import TABLES
from mining.store import STAGE_TABLES, Store
from mining.types import TemporaryError, UsageError


@dataclass(frozen=True, slots=True)
class Damage:
    """A shard that is not as it was committed."""

    stage: str
    night: date
    key: str
    reason: str

    @property
    def is_made_again(self) -> bool:
        """Whether the next run makes it again from the footage, once its commit is taken back."""
        return self.stage == "index" or self.stage in MADE_AGAIN


def verify(store: Store) -> tuple[int, list[Damage]]:
    """Read every committed file: its digest, columns and rows must be those of its marker, a pack's those of its list.

    Returns:
        How many shards there are, and what is wrong. A shard that an older mining committed has no digests; its columns and
        rows are compared all the same. A damaged pack is named for each committed shard that it holds.
    """
    # Packs before markers, as readers do: see packs.py.
    found_packs = {
        (stage, night): store.packs(stage, night) for stage in STAGE_TABLES for night in store.nights(stage)
    }
    shards = [
        (stage, where, marker) for stage in STAGE_TABLES for where, marker in store.markers(stage).items()
    ]
    found = []
    in_packs: dict[tuple[str, date, str], dict[str, int]] = {}  # table, night, key -> rows by pack
    count = sum(len(of_table) for of_night in found_packs.values() for of_table in of_night.values())
    with progress("verify", len(shards) + count, "shards and packs") as shown:
        reasons: dict[tuple[str, date, str], str] = {}
        for (_, night), of_night in found_packs.items():
            for table, of_table in of_night.items():
                for pack in of_table:
                    file = store.pack_file(table, night, pack)
                    reason = damage_of(table, file, pack.rows, pack.sha256)
                    for key, rows in pack.shards:
                        in_packs.setdefault((table, night, key), {})[pack.file] = rows
                        if reason is not None:
                            reasons[table, night, key] = f"{file}: {reason}"
                    shown.advance()
        for stage, (night, key), marker in shards:
            for table in STAGE_TABLES[stage]:
                rows, packed = marker["rows"][table], in_packs.get((table, night, key))
                if packed is None:
                    file = store.table_file(table, night, key)
                    reason = damage_of(table, file, rows, marker.get("sha256", {}).get(table))
                    reason = reason and f"{file}: {reason}"
                else:
                    reason = reasons.get((table, night, key))
                    if reason is None and list(packed.values()) != [rows]:
                        held = " and ".join(f"{n} in {name}" for name, n in packed.items())
                        reason = f"{store.table_file(table, night, key)}: {rows} rows were committed, packs hold {held}"
                if reason is not None:
                    found.append(Damage(stage, night, key, reason))
            shown.advance()
    return len(shards), found


def retract(store: Store, damage: Sequence[Damage]) -> int:
    """Take back the commits of what the next run can make again; returns how many."""
    shards = {(one.stage, one.night, one.key) for one in damage if one.is_made_again}
    for shard in sorted(shards):
        store.retract(*shard)
    return len(shards)


def damage_of(table: str, file: Place, rows: int, sha256: str | None) -> str | None:
    """Say what is wrong with a file that was committed with so many rows and this digest, where one is known."""
    try:
        if sha256 is not None and sha256_of(file) != sha256:
            return "is not the file that was committed"
        parquet = pq.ParquetFile(reading(file))
        if not parquet.schema_arrow.equals(TABLES[table]):
            return "has other columns than the table"
        if parquet.metadata.num_rows != rows:
            return f"holds {parquet.metadata.num_rows} rows, {rows} were committed"
        if sha256 is None:
            for _ in parquet.iter_batches():
                pass
    except FileNotFoundError:
        return "is missing"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {' '.join(str(error).split())[:100]}"
    return None


@dataclass(slots=True)
class Garbage:
    """What may go, and what it takes."""

    files: list[Place] = field(default_factory=list)
    """Left by killed jobs, without a commit, or replaced by packs."""
    shards: list[tuple[str, date, str]] = field(default_factory=list)
    """Commits of committees that were asked to go."""
    size_bytes: int = 0
    waiting: int = 0
    """Files that packs replaced so lately that readers may still be at them; of a bucket, any that are so young."""


def garbage(store: Store, committees: Sequence[str], grace_h: float) -> Garbage:
    """Find what may go. The caller holds the store (``Store.alone``), so that no job is writing these very files.

    Args:
        store: where to look.
        committees: ids of those whose detections, scores and scenes go too.
        grace_h: hours for which files stay that a pack has replaced, so that readers who listed them are not broken.

    Raises:
        UsageError: a committee that the store does not hold.
        TemporaryError: a listing of a bucket is not to be trusted.
    """
    found, kept = Garbage(), set[Place]()
    known: set[str] = set()
    for stage, tables in STAGE_TABLES.items():
        for (night, key), marker in store.markers(stage).items():
            files = [store.table_file(table, night, key) for table in tables]
            # What people have acted upon stays, whatever committee chose it.
            if stage in MADE_AGAIN:
                known.add(marker["committee_id"])
                if marker["committee_id"] in committees:
                    found.shards.append((stage, night, key))
                    found.size_bytes += sum(file.stat().st_size for file in files if file.exists())
            kept.update(files)
    unknown = sorted(set(committees) - known)
    if unknown:
        raise UsageError(
            f"the store holds nothing of committee {unknown[0]!r}; it holds: {', '.join(sorted(known)) or 'none'}"
        )
    going = {
        store.table_file(table, night, key)
        for stage, night, key in found.shards
        for table in STAGE_TABLES[stage]
    }
    replaced, young = set[Place](), set[Place]()
    for stage in STAGE_TABLES:
        for night in store.nights(stage):
            for table, of_table in store.packs(stage, night).items():
                kept.update(store.pack_file(table, night, pack) for pack in of_table)
                replaced.update(store.table_file(table, night, key) for key in packs.keys_of(of_table))
            if store.packs_changed_s(stage, night) > time.time() - grace_h * 3600:
                young.update(
                    store.root / "tables" / table / f"night={night}" for table in STAGE_TABLES[stage]
                )
    recent_s = time.time() - grace_h * 3600
    for file, stat in _written(store):
        of_packs = file in replaced or file.name.startswith(packs.PREFIX)
        if file in going or (file in kept and file not in replaced):
            continue
        # Of a bucket, a job that slept for minutes may still commit what it has written: nothing but a lease holds it off.
        of_sleeper = isinstance(file, BucketPath) and stat.st_mtime > recent_s
        if (of_packs and file.parent in young) or of_sleeper:
            found.waiting += 1
        elif isinstance(file, BucketPath) and file not in replaced and _is_committed(store, file):
            raise TemporaryError(
                f"{file}: is committed, and the listing of commits lacks it; nothing is taken away, try again later"
            )
        else:
            found.files.append(file)
            found.size_bytes += stat.st_size
    for file, stat in listed(store.root / "reference"):
        if file.stem.rpartition("-")[0] in committees:
            found.files.append(file)
            found.size_bytes += stat.st_size
    return found


def collect(store: Store, found: Garbage) -> None:
    """Take it away: commits first, so that a job killed in between leaves no commit without its rows.

    With it goes footage that killed jobs had fetched to this machine; it adds to ``found.size_bytes``.
    """
    from mining.footage.cache import sweep  # decoders: only where something is taken away

    for stage, night, key in found.shards:
        store.retract(stage, night, key)
    for stage, night, key in found.shards:
        for table in STAGE_TABLES[stage]:
            store.table_file(table, night, key).unlink(missing_ok=True)
    for file in found.files:
        store.leases.assure()
        file.unlink(missing_ok=True)
    found.size_bytes += sweep()


def _is_committed(store: Store, file: BucketPath) -> bool:
    """Ask for the commit of a file by its name: an empty listing may be whatever stands between us and the storage."""
    table, night = file.parent.parent.name, date.fromisoformat(file.parent.name.removeprefix("night="))
    stage = next(stage for stage, tables in STAGE_TABLES.items() if table in tables)
    if file.name.startswith(packs.PREFIX):
        return any(pack.file == file.name for pack in store.packs(stage, night).get(table, ()))
    return store.marker_of(stage, night, file.name.removesuffix(".parquet")) is not None


def _written(store: Store) -> Iterator[tuple[Place, Stat]]:
    """Every file that jobs wrote: rows, and what they had not finished."""
    for table in TABLES:
        yield from listed(store.root / "tables" / table)
    yield from listed(store.tmp)
