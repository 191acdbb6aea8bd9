"""``mining verify``: reads the whole store again and says what is not as it was committed. ``mining gc``: takes away what
nobody reads: files of killed jobs, rows whose commit was taken back, and committees that nobody wants any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mining.migrate import MADE_AGAIN
from mining.progress import progress
from mining.schemas import TABLES
from mining.store import STAGE_TABLES, Store, sha256_of
from mining.types import UsageError


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
    """Read every committed file: its digest, columns and rows must be those of its marker.

    Returns:
        How many shards there are, and what is wrong. A shard that an older mining committed has no digests; its columns and
        rows are compared all the same.
    """
    shards = [
        (stage, where, marker) for stage in STAGE_TABLES for where, marker in store.markers(stage).items()
    ]
    found = []
    with progress("verify", len(shards), "shards") as shown:
        for stage, (night, key), marker in shards:
            for table in STAGE_TABLES[stage]:
                file = store.table_file(table, night, key)
                reason = _damage(table, file, marker["rows"][table], marker.get("sha256", {}).get(table))
                if reason is not None:
                    found.append(Damage(stage, night, key, f"{file}: {reason}"))
            shown.advance()
    return len(shards), found


def retract(store: Store, damage: Sequence[Damage]) -> int:
    """Take back the commits of what the next run can make again; returns how many."""
    shards = {(one.stage, one.night, one.key) for one in damage if one.is_made_again}
    for shard in sorted(shards):
        store.retract(*shard)
    return len(shards)


def _damage(table: str, file: Path, rows: int, sha256: str | None) -> str | None:
    try:
        if sha256 is not None and sha256_of(file) != sha256:
            return "is not the file that was committed"
        parquet = pq.ParquetFile(file)
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

    files: list[Path] = field(default_factory=list)
    """Left by killed jobs, or without a commit."""
    shards: list[tuple[str, date, str]] = field(default_factory=list)
    """Commits of committees that were asked to go."""
    size_bytes: int = 0


def garbage(store: Store, committees: Sequence[str] = ()) -> Garbage:
    """Find what may go. The caller holds the store (``Store.alone``), so that no job is writing these very files.

    Raises:
        UsageError: a committee that the store does not hold.
    """
    found, kept = Garbage(), set[Path]()
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
    found.files = [file for file in _written(store) if file not in kept]
    found.files += [
        path
        for committee in committees
        for path in sorted((store.root / "reference").glob("*.parquet"))
        if path.stem.rpartition("-")[0] == committee
    ]
    found.size_bytes += sum(file.stat().st_size for file in found.files)
    return found


def collect(store: Store, found: Garbage) -> None:
    """Take it away: commits first, so that a job killed in between leaves no commit without its rows."""
    for stage, night, key in found.shards:
        store.retract(stage, night, key)
    for stage, night, key in found.shards:
        for table in STAGE_TABLES[stage]:
            store.table_file(table, night, key).unlink(missing_ok=True)
    for file in found.files:
        file.unlink(missing_ok=True)


def _written(store: Store) -> Iterator[Path]:
    """Every file that jobs wrote: rows, and what they had not finished."""
    for table in TABLES:
        yield from sorted((store.root / "tables" / table).glob("night=*/*"))
    yield from sorted((store.root / "tmp").glob("*"))
