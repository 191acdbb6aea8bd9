"""Packs: Parquet files that each hold the rows of many shards of a night; `mining compact` makes them.

    STORE/tables/TABLE/night=YYYY-MM-DD/_pack-ID.parquet    rows, shard after shard
    STORE/done/STAGE/night=YYYY-MM-DD/_packs.json           which packs count, and which rows of which shard they hold

Markers stay as they are: they say what is committed, packs only say where its rows lie. Rows in a pack count while their
shard is named here and its marker stands, so that taking a commit back needs nothing of this. No shard can bear these names.

Whoever lists files reads ``_packs.json`` first and the markers' names after it; whoever commits a shard again takes its
marker away, then its name out of ``_packs.json``, and then writes the marker anew. So a reader that runs beside it sees the
old rows, none, or the new ones, in whatever order the two take turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from mining.places import Place, reading
from mining.types import MiningError

FILE = "_packs.json"
PREFIX = "_pack-"
_NOBODY = ""
"""In place of a key: rows of a shard that was committed again and lies elsewhere now."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One file of one table."""

    file: str
    """Its name, in the table's folder of the night."""
    sha256: str
    shards: tuple[tuple[str, int], ...]
    """Key and number of rows, in the order in which they lie in the file."""

    @property
    def keys(self) -> set[str]:
        """The shards whose rows are looked for here."""
        return {key for key, _ in self.shards} - {_NOBODY}

    @property
    def rows(self) -> int:
        """How many the file holds, those that no longer count among them."""
        return sum(rows for _, rows in self.shards)

    def without(self, gone: str) -> Pack:
        """Leave a shard out; its rows stay in the file."""
        return replace(self, shards=tuple((_NOBODY if key == gone else key, n) for key, n in self.shards))

    def counting(self, committed: set[str]) -> list[tuple[str | None, int]]:
        """Each shard's key and rows, in the order of the file; None for the key where the rows do not count."""
        return [(key if key in committed else None, rows) for key, rows in self.shards]

    def place_of(self, wanted: str) -> tuple[int, int]:
        """First row and number of rows of one of ``keys``."""
        first = 0
        for key, rows in self.shards:
            if key == wanted:
                return first, rows
            first += rows
        raise KeyError(wanted)


Packs = Mapping[str, Sequence[Pack]]
"""The packs of one stage and night by table."""


def read(file: Place) -> dict[str, list[Pack]]:
    """Read a ``_packs.json``; nothing is packed where there is none.

    Raises:
        MiningError: it is damaged.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return {}
    return parsed(content, file)


def parsed(content: bytes, file: Place) -> dict[str, list[Pack]]:
    """Understand the content of a ``_packs.json``; ``MiningError`` where it is damaged."""
    try:
        return {
            table: [
                Pack(one["file"], one["sha256"], tuple(zip(one["keys"], one["rows"], strict=True)))
                for one in packs
            ]
            for table, packs in json.loads(content)["tables"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MiningError(
            f"{file}: damaged; bring it back from a copy, or delete it: `mining verify {file.parent.parent.parent.parent} "
            "--retract` then takes back what is lost, and `mining run CONFIG.toml` makes it again"
        ) from None


def written(packs: Packs) -> bytes:
    """What ``read`` reads."""
    tables = {
        table: [
            {
                "file": pack.file,
                "sha256": pack.sha256,
                "keys": [key for key, _ in pack.shards],
                "rows": [rows for _, rows in pack.shards],
            }
            for pack in of_table
        ]
        for table, of_table in packs.items()
    }
    return json.dumps({"tables": tables}).encode()


def without(packs: Packs, key: str) -> dict[str, list[Pack]]:
    """Leave a shard out of every table; packs that hold nothing else go."""
    return {
        table: [left for pack in of_table if (left := pack.without(key)).keys]
        for table, of_table in packs.items()
    }


def keys_of(packs: Iterable[Pack]) -> set[str]:
    """Every shard that one of the packs holds."""
    return {key for pack in packs for key in pack.keys}


def read_rows(file: Place, first: int, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read ``rows`` rows from row ``first`` on; only the row groups that hold them are read."""
    with pq.ParquetFile(reading(file)) as parquet:
        groups, before, skipped = [], 0, 0
        for group in range(parquet.num_row_groups):
            after = before + parquet.metadata.row_group(group).num_rows
            if after <= first:
                skipped = after
            elif before < first + rows:
                groups.append(group)
            before = after
        found = parquet.read_row_groups(groups, columns=None if columns is None else list(columns))
    return found.slice(first - skipped, rows)
