"""``mining migrate``: brings a store that an older version wrote to the columns of this one.

What the stages can make again from the footage is taken back where its columns differ, and the next run makes it again:
a new column of ``observations``, say, is in no old file and cannot be guessed. What people and vendors have acted upon
(``index``, ``select``, ``export``, ``import``, ``measure``) is kept: its files are written anew with NULL in the columns they lack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from mining.places import Place, reading
from mining.schemas import STORE_VERSION, TABLES
from mining.store import STAGE_TABLES, Store
from mining.types import MiningError
from mining.views import sql_type

MADE_AGAIN = ("detect", "score", "scenes")
"""Stages whose rows follow from the footage and the config alone."""


@dataclass(slots=True)
class MigrationReport:
    """What was done with the shards of each stage."""

    before: int
    kept: dict[str, int] = field(default_factory=dict)
    rewritten: dict[str, int] = field(default_factory=dict)
    due_again: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """Say it to a person."""
        if self.before == STORE_VERSION:
            return f"The store is of version {STORE_VERSION} already; nothing to do."
        done = [
            f"{stage}: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n)
            for stage in STAGE_TABLES
            if any(
                (counts := {
                    "as they are": self.kept.get(stage, 0),
                    "written anew": self.rewritten.get(stage, 0),
                    "due again": self.due_again.get(stage, 0),
                }).values()
            )
        ]  # fmt: skip
        return "\n".join(
            [f"Version {self.before} -> {STORE_VERSION}.", *done]
            + ["`mining run CONFIG.toml` makes what is due again."] * bool(self.due_again)
        )


def run(root: Place) -> MigrationReport:
    """Migrate a store in place. Stopped half-way, the store stays of its old version, and the same command goes on.

    Raises:
        MiningError: it is no store, another job writes to it, or a newer mining wrote it.
    """
    store = Store(root, migrating=True)
    report = MigrationReport(before=store.version)
    if store.version == STORE_VERSION:
        return report
    with store.alone():
        for stage in STAGE_TABLES:
            for (night, key), marker in store.markers(stage).items():
                tables = STAGE_TABLES[stage]
                if all(_has_columns_of(table, store.located(table, night, key)[0]) for table in tables):
                    counts = report.kept
                elif stage in MADE_AGAIN:
                    store.retract(stage, night, key)
                    counts = report.due_again
                else:
                    rows = {table: _conformed(store, table, night, key) for table in tables}
                    store.conform(stage, night, key, rows, marker)
                    counts = report.rewritten
                counts[stage] = counts.get(stage, 0) + 1
        store.write_version()
    return report


def _has_columns_of(table: str, file: Place) -> bool:
    """Tell whether a file has just the columns of a table; names and types, in any order."""
    try:
        found = pq.read_schema(reading(file))
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowException) as error:
        raise MiningError(f"{file}: cannot be read: {' '.join(str(error).split())[:100]}") from None
    wanted = TABLES[table]
    return set(found.names) == set(wanted.names) and all(
        sql_type(found.field(name).type) == sql_type(wanted.field(name).type) for name in wanted.names
    )


def _conformed(store: Store, table: str, night: date, key: str) -> pa.Table:
    """Read a shard with the columns of today: those that it lacks are NULL, those that are no more are left out."""
    schema = TABLES[table]
    try:
        old = store.read(table, night, key)
    except FileNotFoundError:  # a table that the stage did not write then
        return schema.empty_table()
    columns = [
        old[name].cast(schema.field(name).type) if name in old.column_names else pa.nulls(len(old), of)
        for name, of in zip(schema.names, schema.types, strict=True)
    ]
    return pa.table(columns, schema=schema)
