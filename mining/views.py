"""DuckDB over one or more stores: a view a table, the view ``mined``, and the macros. Only committed files are listed.

What people query is made here and nowhere else: ``connect`` opens it, ``script`` writes it down for any DuckDB client,
``save_database`` copies it into one file.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from mining import stop
from mining.places import BucketPath, Place, file_system
from mining.schemas import TABLES
from mining.types import MiningError, Nights, QueryError, TemporaryError, UsageError

# What each view is, as its comment in DuckDB says it.
VIEW_DOCS = {
    "recordings": "one file, image folder or camera topic",
    "frames": "one sampled frame",
    "observations": "one frame as a committee saw it once decoded",
    "detections": "one box of one detector",
    "tracks": "one box of one detector that belongs to an object followed over time",
    "scores": "one frame and committee: signals, percentiles, hardness; asks no other table, so it is the quick one",
    "scenes": "one run of hard frames of one camera",
    "selections": "one chosen frame of a batch",
    "slices": "one quota of a batch: what was wanted of a slice, and what came",
    "reviews": "one verdict of one reviewer on one frame of a batch, taken back or not; `verdicts` holds those that stand",
    "additions": "one frame that a review found for a batch: for a dropped one, or as more like another",
    "exports": "one delivered image",
    "labels": "one labelled box of any delivery, or one frame labelled as empty; `truth` holds those that stand",
    "overlooked": "one object that the committee sees and a delivery's labels lack",
    "label_rejects": "one thing of a delivery that was not taken in, and why",
    "annotators": "one annotator's agreement with the others on one class, in one delivery",
    "yields": "one labelled frame: the errors that the primary detector had made in it",
    "runs": "one `mining run`: when, with what, how it ended",
    "verdicts": "one verdict that stands: each reviewer's last on a frame of a batch",
    "batch_frames": "one frame that a batch holds, or held before a review: chosen, replacement or extra; `in_batch` says which",
    "truth": "one labelled box that counts, or one frame labelled as empty: each frame's newest delivery, annotators fused",
    "second_look": "one label that stands, or one object that the labels lack, which the committee contradicts; the worst first",
    "mined": "one frame and committee with its recording, telemetry, tags, scores, and whether it was chosen, exported, labelled",
}

# In DuckDB's JSON of a parsed query, where quotes within names and texts are escaped.
_NOT_READING = re.compile(
    r'"type":"(\w+)_QUERY_NODE"|"function_name":"(query|json_execute_serialized_sql)"', re.IGNORECASE
)

STORAGE_VERSION = "v1.0.0"
"""Saved databases can be read by DuckDB from this release on."""

# A night's scenes bear the same key in every store, so they are told apart row by row and not by key.
_SAME_KEY_OTHER_ROWS = {"scenes"}
# A frame that was chosen or exported in a later night has been chosen nevertheless. These are small.
_OF_BATCHES = {
    "selections",
    "slices",
    "reviews",
    "additions",
    "exports",
    "labels",
    "overlooked",
    "label_rejects",
    "annotators",
    "yields",
    "runs",
}
# Views that name other views.
_OVER_TABLES = ("verdicts", "batch_frames", "mined", "truth", "second_look")
# A recording may have several shards here, with a number at the end of each key: see detect_objects.plan.
_CUT = {"detections", "observations"}
_SHARD_NUMBER = re.compile(r"-\d{4,}$")
# How DuckDB says that a Parquet file is not there, is cut off, or is none.
_UNREADABLE = re.compile(
    r"""(?:end of file|File|the pattern|open file|Parquet file|no such object:) (['"])(.+?\.parquet)\1"""
)
# What the reading of a bucket raised: DuckDB hands on the traceback's text.
_RAISED = re.compile(r"^(TemporaryError|UsageError|Changed): (.+)$", re.MULTILINE)
_SQL = Path(__file__).parent / "sql"
_SQL_TYPES = {
    pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT", pa.float64(): "DOUBLE", pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}  # fmt: skip


Shards = Sequence[tuple[str | None, int]]
"""Key and number of rows of each shard in a pack, in the order of its rows; None for the key where the rows do not count.
Nothing where a file is one shard's own."""
LeftOut = list[tuple[int, int]]
"""First and last of rows of a file that are not to be read."""


class Committed(Protocol):
    """What is needed of a store: where it lies, and which files of a table are committed."""

    @property
    def root(self) -> Place:
        """Where it lies."""
        ...

    def committed_files(self, table: str, nights: Nights | None = None) -> dict[Place, Shards]:
        """List the committed files of a table; only folders of ``nights`` are looked into."""
        ...


def connect(
    stores: Sequence[Committed],
    *,
    nights: Nights | None = None,
    locked: bool = False,
    memory_mb: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with a view a table, the view ``mined``, and the macros of ``sql/macros.sql``.

    The views list the files that are committed now; a later commit needs a new connection. A recording that several
    stores hold is read from the first of them.

    Args:
        stores: read together, as if they were one.
        nights: list, plan and read only these nights of footage; batches and exports are seen whole.
        locked: for queries from people: nothing but the listed files can be opened, and no setting changed. DuckDB can
            still write to those: only what is checked to read may be run (see ``ask``).
        memory_mb: what DuckDB may hold in memory, and as much again in its temporary folder; DuckDB's own limits where absent.

    Raises:
        MiningError: a file of the store is missing or damaged.
    """
    try:
        return _opened(stores, nights, locked, memory_mb)
    except duckdb.Error as error:
        if isinstance(told := unreadable(error), TemporaryError):
            raise told from None
        try:  # a shard was taken back while we looked: list once more
            return _opened(stores, nights, locked, memory_mb)
        except duckdb.Error as error:
            raise unreadable(error) or error from None


def unreadable(error: Exception) -> MiningError | None:
    """Say why a store cannot be read, where that is what an error of DuckDB's is about."""
    if not isinstance(error, duckdb.Error):
        return None
    if raised := _RAISED.search(str(error)):
        return (UsageError if raised[1] == "UsageError" else TemporaryError)(raised[2])
    match = _UNREADABLE.search(str(error))
    if match is None:
        return None
    return MiningError(
        f"{match[2]}: committed, but missing or damaged; bring it back from a copy; what comes from the footage alone, `mining "
        "verify STORE --retract` takes back and `mining run CONFIG.toml` makes again"
    )


def _opened(
    stores: Sequence[Committed], nights: Nights | None, locked: bool, memory_mb: int | None
) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    given_up = threading.Event()
    stop.interruptible(con, given_up.set)
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")  # it goes to standard output, in among the rows
    con.execute("SET python_enable_replacements = false")  # a query's names are views, never our variables
    # Sorting more than memory holds spills here, and not into the folder that the caller happens to be in.
    con.execute(f"SET temp_directory = {quoted(_spill_folder())}")
    if memory_mb is not None:
        con.execute(f"SET memory_limit = '{int(memory_mb)}MiB'")
        con.execute(f"SET max_temp_directory_size = '{int(memory_mb)}MiB'")
    files = {table: committed(stores, table, nights) for table in TABLES}
    if any(isinstance(store.root, BucketPath) for store in stores):
        con.register_filesystem(file_system(given_up))
    for statement in statements(files):
        con.execute(statement)
    if locked:
        listed = ", ".join(quoted(str(file)) for of_table in files.values() for file in of_table)
        con.execute(f"SET allowed_paths = [{listed}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    return con


def script(stores: Sequence[Committed], *, nights: Nights | None = None) -> str:
    """Write the views and macros down as SQL that any DuckDB client runs, with absolute paths."""
    files = {
        table: {file.absolute(): left_out for file, left_out in committed(stores, table, nights).items()}
        for table in TABLES
    }
    return "".join(f"{statement};\n" for statement in statements(files))


def save_database(
    stores: Sequence[Committed], output: Path, *, nights: Nights | None = None
) -> dict[str, int]:
    """Copy the tables into one DuckDB file, with ``mined`` and the macros over them; returns rows a table.

    Tables and not views of the Parquet files: such a file can be moved to another machine, shows one moment, and does not
    break when a shard is rewritten. It is there wholly or not at all; a file that is there is replaced.

    Raises:
        UsageError: the file cannot be written there.
    """
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: its folder does not exist")
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file")
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex}.tmp")
    try:
        with connect(stores, nights=nights) as con:
            con.execute(f"ATTACH {quoted(str(temporary))} AS saved (STORAGE_VERSION '{STORAGE_VERSION}')")
            for table in TABLES:
                con.execute(f'CREATE TABLE saved."{table}" AS FROM memory."{table}"')
            con.execute("USE saved")
            for statement in [*_over_tables(), *_comments("TABLE")]:
                con.execute(statement)
            rows = {
                table: con.execute(f'SELECT count(*) FROM saved."{table}"').fetchall()[0][0]
                for table in TABLES
            }
            con.execute("USE memory")
            con.execute("DETACH saved")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, output)
    except duckdb.Error as error:
        damaged = unreadable(error)
        if damaged is None and not isinstance(error, duckdb.IOException):
            raise
        raise damaged or MiningError(f"{output}: cannot be written: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)
    return rows


def committed(stores: Sequence[Committed], table: str, nights: Nights | None) -> dict[Place, LeftOut]:
    """List a table's files over all stores; what an earlier one holds of a recording is not taken from a later one too.

    Shards are told apart by key; where a recording is cut into shards by the key without the number, for sites may cut it
    otherwise.

    Returns:
        Of each file, the rows to leave out: those of a pack that do not count, or that an earlier store holds.
    """
    files: dict[Place, LeftOut] = {}
    known: set[str] = set()
    for store in stores:
        listed = store.committed_files(table, None if table in _OF_BATCHES else nights)
        own: set[str] = set()
        for file, shards in listed.items():
            if shards:
                of_pack = [(None if key is None else _uncut(table, key), rows) for key, rows in shards]
                own.update(key for key, _ in of_pack if key is not None)
                if any(key is not None and key not in known for key, _ in of_pack):
                    files[file] = _spans([(key is None or key in known, rows) for key, rows in of_pack])
                continue
            key = _uncut(table, file.name.removesuffix(".parquet"))
            own.add(key)
            if table in _SAME_KEY_OTHER_ROWS or key not in known:
                files[file] = []
        known |= own
    return files


def _uncut(table: str, key: str) -> str:
    return _SHARD_NUMBER.sub("", key) if table in _CUT else key


def _spans(parts: Sequence[tuple[bool, int]]) -> LeftOut:
    """Join rows that lie beside each other, of the parts that are left out."""
    spans: LeftOut = []
    first = 0
    for left_out, rows in parts:
        if left_out and rows:
            if spans and spans[-1][1] == first - 1:
                spans[-1] = (spans[-1][0], first + rows - 1)
            else:
                spans.append((first, first + rows - 1))
        first += rows
    return spans


def statements(files: dict[str, dict[Place, LeftOut]]) -> Iterator[str]:
    """Make the statements that create every view, macro and comment over these files."""
    for table, of_table in files.items():
        yield f'CREATE OR REPLACE VIEW "{table}" AS {_source(table, of_table)}'
    yield from _over_tables()
    yield from _comments("VIEW")


def sql_file(name: str) -> str:
    """Read one SELECT of ``mining/sql``."""
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def sql_type(of: pa.DataType) -> str:
    """Name a column's type as DuckDB does."""
    if pa.types.is_list(of):
        return f"{sql_type(of.value_type)}[]"
    if pa.types.is_map(of):
        return f"MAP({sql_type(of.key_type)}, {sql_type(of.item_type)})"
    return _SQL_TYPES.get(of, str(of).upper())


def quoted(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _source(table: str, files: dict[Place, LeftOut]) -> str:
    if not files:
        columns = ", ".join(f'NULL::{sql_type(field.type)} AS "{field.name}"' for field in TABLES[table])
        return f"SELECT {columns}, NULL::DATE AS night WHERE false"
    whole = [file for file, left_out in files.items() if not left_out]
    sources = [_rows_of(whole)] * bool(whole)
    for file, left_out in files.items():
        if left_out:
            spans = " OR ".join(f"file_row_number BETWEEN {first} AND {last}" for first, last in left_out)
            sources.append(f"{_rows_of([file])} WHERE NOT ({spans})")
    source = " UNION ALL BY NAME ".join(sources)
    if table in _SAME_KEY_OTHER_ROWS and len({file.name for file in files}) < len(files):
        source += " QUALIFY row_number() OVER (PARTITION BY scene_id, committee_id) = 1"
    return source


def _rows_of(files: Sequence[Place]) -> str:
    listed = ", ".join(quoted(str(file)) for file in files)
    return f"SELECT * FROM read_parquet([{listed}], hive_partitioning = true, hive_types = {{'night': DATE}})"


def _over_tables() -> list[str]:
    """Make the views over views and the macros, which name tables and no files."""
    made = [f"CREATE OR REPLACE VIEW {name} AS\n{sql_file(name).strip()}" for name in _OVER_TABLES]
    return [*made, sql_file("macros").strip().removesuffix(";")]


def _comments(kind: str) -> Iterator[str]:
    for name, doc in VIEW_DOCS.items():
        yield f'COMMENT ON {"VIEW" if name in _OVER_TABLES else kind} "{name}" IS {quoted(doc)}'


def _spill_folder() -> str:
    return str(Path(tempfile.gettempdir()) / f"mining-sql-{os.getpid()}")


def check_that_it_reads(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Look through a parsed SELECT for what writes within one: statements in WITH, and functions that run a text.

    Raises:
        QueryError: there is such a thing, or the query does not parse as a SELECT.
    """
    answer = con.execute("SELECT json_serialize_sql($text)", {"text": query}).fetchall()
    tree = str(answer[0][0])
    if not tree.startswith('{"error":false,'):
        raise QueryError("only reading is allowed here, and this cannot be checked")
    for statement, function in _NOT_READING.findall(tree):
        what = statement or f"{function}(); write what it would run as a query of its own"
        raise QueryError(f"only reading is allowed here, not {what}")
